"""Recipes: what is read, what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from adapt.errors import RecipeError
from adapt.settings import (
    CodeFinetuneSettings,
    CodePredictorSettings,
    FinetuneSettings,
    FusionSettings,
    LowFrequencySettings,
    OneStepTrainingSettings,
    PriorSettings,
    RestorerSettings,
    Settings,
    TargetSettings,
)
from adapt.settings.draft import Draft, differences, to_yaml
from adapt.settings.recipe import dump, kind_of, load_recipe, recipe_digest

GOOD = """\
# Targets for a test.
kind: targets
start_t: 400
steps: 20
guidance:
  - {name: low_frequency, factor: 8, last_t: 100}
"""

TRAINING = "steps: 2\nbatch: 1\nsize: 64\nlearning_rate: 1e-4\n"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a recipe into the working folder, so that messages name it `r.yaml`."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str) -> Path:
        Path("r.yaml").write_text(text, encoding="utf-8")
        return Path("r.yaml")

    return _write


def problems(path: Path | str, schema: type[Settings] = TargetSettings, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, schema, overrides)
    return str(caught.value).splitlines()


def factors(settings: TargetSettings) -> list[int | None]:
    """N of each low-frequency term."""
    return [term.factor for term in settings.guidance if isinstance(term, LowFrequencySettings)]


# ---------------------------------------------------------------- what is read


def test_a_good_recipe_becomes_frozen_settings(write: Write) -> None:
    settings = load_recipe(write(GOOD), TargetSettings)
    assert settings.start_t == 400
    assert factors(settings) == [8]
    assert settings.gate.min_contrast > 0
    with pytest.raises(ValueError, match="frozen"):
        settings.start_t = 1  # pyright: ignore[reportAttributeAccessIssue]


class Words(Settings):
    kind: Literal["targets"] = "targets"
    number: float = 0
    whole: int = 0
    word: str = ""
    flag: bool = False
    maybe: int | None = 3


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("number: 1e-4", "number", 1e-4),
        ("number: 2", "number", 2.0),
        ("number: .5", "number", 0.5),
        ("number: -1.5E+2", "number", -150.0),
        ("whole: 010", "whole", 10),
        ("whole: 0x10", "whole", 16),
        ("whole: 0o17", "whole", 15),
        ("word: no", "word", "no"),
        ("word: off", "word", "off"),
        ("word: y", "word", "y"),
        ("word: 12:30", "word", "12:30"),
        ("word: 2026-11-21", "word", "2026-11-21"),
        ("word: '1e-4'", "word", "1e-4"),
        ("flag: yes", "flag", True),
        ("flag: on", "flag", True),
        ("flag: True", "flag", True),
        ("flag: 'no'", "flag", False),
        ("maybe: ~", "maybe", None),
        ("maybe:", "maybe", None),
    ],
)
def test_words_and_numbers_are_those_of_yaml_1_2(write: Write, line: str, key: str, value: Any) -> None:
    got = getattr(load_recipe(write(f"kind: targets\n{line}\n"), Words), key)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("value", ["true", "yes", "1.5", "'1 0'", "[1]", "12:30"])
def test_what_is_no_whole_number_is_not_taken_for_one(write: Write, value: str) -> None:
    (line,) = problems(write(f"whole: {value}\n"), Words)
    assert line.startswith("r.yaml:1:1: whole: should be a ")


@pytest.mark.parametrize("value", [".inf", "-.INF", ".nan", "inf", "1e999"])
def test_numbers_have_to_be_finite(write: Write, value: str) -> None:
    (line,) = problems(write(f"number: {value}\n"), Words)
    assert line.startswith("r.yaml:1:1: number: should be a number (got ")


def test_anchors_are_copied_so_that_an_override_changes_one_place(write: Write) -> None:
    path = write(
        GOOD.replace("  - {", "  - &term {").replace("last_t: 100}", "last_t: 100}\n  - *term"),
    )
    settings = load_recipe(path, TargetSettings, ["guidance.1.factor=4"])
    assert factors(settings) == [8, 4]


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert load_recipe(path, TargetSettings).steps == 20


# ---------------------------------------------------------------- what is refused


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_name(write: Write) -> None:
    assert problems(write(GOOD + "sovler: ddim\n")) == [
        "r.yaml:7:1: sovler: not a key of this recipe (got 'ddim'); did you mean 'solver'?"
    ]


def test_an_unknown_key_inside_is_named_with_its_path(write: Write) -> None:
    lines = problems(write(GOOD.replace("last_t", "lst_t")))
    assert lines == [
        "r.yaml:6:5: guidance.0.last_t: needed, and has no default (L: the constraint acts while t is above this"
        " timestep)",
        "r.yaml:6:38: guidance.0.lst_t: not a setting of guidance.0 (got 100); did you mean 'last_t'?",
    ]


def test_a_key_like_no_other_lists_what_there_is(write: Write) -> None:
    (line,) = problems(write(GOOD + "gate: {zzzz: 1}\n"))
    assert line.endswith("not a setting of gate (got 1); there are: max_low_frequency_change, min_contrast, likeness,"
                         " redraws")


def test_a_choice_names_all_and_the_nearest(write: Write) -> None:
    assert problems(write(GOOD + "solver: ddi\n")) == [
        "r.yaml:7:1: solver: should be 'ddpm', 'ddim' or 'dpm++2m' (got 'ddi'); did you mean 'ddim'?"
    ]


def test_all_problems_come_at_once_in_the_order_of_the_file(write: Write) -> None:
    text = "kind: targets\nsteps: -5\nstart_t: lots\nsteps: 3\nguidance: 7\nsolvr: x\n"
    lines = problems(write(text), TargetSettings, "batch=0")
    assert [line.split(": ")[:2] for line in lines] == [
        ["r.yaml:2:1", "steps"],
        ["r.yaml:3:1", "start_t"],
        ["r.yaml:4:1", "steps"],
        ["r.yaml:5:1", "guidance"],
        ["r.yaml:6:1", "solvr"],
        ["batch=0", "batch"],
    ]
    assert lines[0].endswith("should be greater than 0 (got -5)")
    assert lines[1].endswith("should be a whole number (got 'lots')")
    assert lines[2].endswith("given twice, first on line 2")
    assert lines[3].endswith("should be a list (got 7)")


def test_a_needed_key_that_is_missing_is_named_with_its_meaning(write: Write) -> None:
    lines = problems(write("kind: finetune\n"), FinetuneSettings)
    assert lines == ["r.yaml:1:1: steps: needed, and has no default"]


def test_a_key_given_twice_is_refused_even_if_both_are_good(write: Write) -> None:
    assert problems(write(GOOD + "seed: 1\nseed: 1\n")) == ["r.yaml:8:1: seed: given twice, first on line 7"]


def test_a_recipe_of_another_kind_is_one_problem(write: Write) -> None:
    assert problems(write(GOOD), FinetuneSettings) == [
        "r.yaml:2:1: kind: expected a finetune recipe (got a targets recipe)"
    ]


def test_what_spans_several_settings_is_told_where_they_stand(write: Write) -> None:
    path = write(
        "kind: pretrain-prior\nphases: [{steps: 1, size: 8, batch: 1}]\nnetwork:\n  image_size: 8\n"
        "  model_channels: 8\n  channel_mult: [1, 2]\n  num_res_blocks: [1]\n  attention_resolutions: []\n"
    )
    (line,) = problems(path, PriorSettings)
    assert line.startswith("r.yaml:3:1: network: channel_mult has 2 levels and num_res_blocks 1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("blur_std: [15, 0.1]", "blur_std: expected a range from low to high, got [15, 0.1]"),
        ("downsample: [32, 0.8]", "downsample: expected a range from low to high, got [32, 0.8]"),
        ("noise: [20, 0]", "noise: expected a range from low to high, got [20, 0]"),
        ("jpeg: [100, 30]", "jpeg: expected a range from low to high, got [100, 30]"),
        ("jpeg: [30, 101]", "jpeg.1: should be less than or equal to 100 (got 101)"),
        ("kernel_size: 40", "kernel_size: expected an odd number of pixels, got 40"),
    ],
)
def test_a_range_that_falls_is_one_problem_with_its_key(write: Write, setting: str, message: str) -> None:
    path = write(
        "kind: pretrain-restorer\nsteps: 1\nbatch: 1\nsize: 16\nlearning_rate: 1e-3\n"
        "network: {img_size: 4, embed_dim: 12, depths: [2], num_heads: [2], window_size: 4, sf: 4, num_feat: 8}\n"
        f"degradation:\n  {setting}\n"
    )
    (line,) = problems(path, RestorerSettings)
    assert line.startswith("r.yaml:8:")
    assert line.endswith(f": degradation.{message}")


class Blur(Settings):
    name: Literal["blur"]
    scale: float


class Edge(Settings):
    name: Literal["edge"]
    width: int


class Terms(Settings):
    kind: Literal["targets"] = "targets"
    terms: list[Annotated[Blur | Edge, Field(discriminator="name")]]


def test_a_choice_of_terms_is_explained_by_the_term_that_was_chosen(write: Write) -> None:
    path = write("terms:\n- {name: blur, scal: 1}\n- {name: edg, width: 1}\n- {name: edge, width: x}\n")
    assert problems(path, Terms) == [
        "r.yaml:2:3: terms.0.scale: needed, and has no default",
        "r.yaml:2:16: terms.0.scal: not a setting of terms.0 (got 1); did you mean 'scale'?",
        "r.yaml:3:4: terms.1.name: should be 'blur', 'edge' (got 'edg'); did you mean 'edge'?",
        "r.yaml:4:16: terms.2.width: should be a whole number (got 'x')",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.yaml:1:1: expected lines of `key: value`, got nothing"),
        ("- a\n", "r.yaml:1:1: expected lines of `key: value`, got a list"),
        ("hello\n", "r.yaml:1:1: expected lines of `key: value`, got one value"),
        ("a: [1\nb: 2\n", "r.yaml:2:2: not YAML: expected ',' or ']'"),
        ("a:\n\tb: 1\n", "r.yaml:2:1: not YAML: "),
        ("a: *there\n", "r.yaml:1:4: not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2:1: not YAML: but found another document"),
        ("a: \x07\n", "r.yaml: not YAML: "),
        ("a: " + "[" * 600, "r.yaml: nested too deeply"),
    ],
)
def test_what_is_no_recipe_at_all_is_one_line(write: Write, text: str, message: str) -> None:
    (line,) = problems(write(text))
    assert line.startswith(message)


def test_other_encodings_are_named(write: Write) -> None:
    path = write("")
    path.write_bytes("kind: targets # é\n".encode("latin-1"))
    assert problems(path) == ["r.yaml: expected UTF-8 text; byte 17 is none"]


def test_tags_build_nothing(write: Write) -> None:
    lines = problems(write(GOOD + "seed: !!python/object/apply:os.getpid []\n"))
    assert lines[0].startswith("r.yaml:7:1: seed: ")
    lines = problems(write(GOOD + "seed: !!python/name:os.getpid ''\n"))
    assert any("tags are not used here" in line for line in lines)


def test_an_alias_inside_its_own_anchor_ends(write: Write) -> None:
    lines = problems(write(GOOD + "gate: &g\n  min_contrast: *g\n"))
    assert "r.yaml:8:3: gate.min_contrast: an alias inside its own anchor" in lines


def test_aliases_that_hold_each_other_are_refused_before_they_are_written_out(write: Write) -> None:
    """Three hundred bytes for half a million values; and aliases a thousand deep."""
    wide = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for old, new in zip("abcde", "bcdef", strict=True):
        wide.append(f"{new}: &{new} [{','.join(f'*{old}' for _ in range(9))}]")
    deep = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 1000))]
    for lines, what in ((wide, "more than 20000 values"), (deep, "50 levels and more")):
        path = write("kind: targets\n" + "\n".join(lines))
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, TargetSettings)
        said = str(caught.value).removeprefix(str(path))
        assert said.partition(": ")[2] == f"holds {what}, with what its aliases stand for; write out what is meant"
    path = write(GOOD)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, TargetSettings, ["gate={" + ", ".join(wide) + "}"])
    assert "\n" not in str(caught.value)
    assert "holds more than 20000 values" in str(caught.value)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "9" * 20, "0x" + "f" * 17, "0o" + "7" * 9000])
def test_numbers_of_any_length_are_one_problem(write: Write, number: str) -> None:
    path = write(GOOD)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, TargetSettings, [f"seed={number}"])
    said = f"seed: a whole number of {len(number)} signs is too large; expected one below {2**63}, or quotes round"
    assert f": {said} a word" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_recipe(path, TargetSettings, [f"seed={2**63 - 1}"]).seed == 2**63 - 1


def test_a_file_of_any_size_is_one_problem(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"expected at most 1 MB of YAML; this file is larger$"):
        kind_of(write(GOOD + "# nothing\n" * 200_000))


def test_a_key_that_is_no_word_is_refused(write: Write) -> None:
    assert problems(write(GOOD + "? [a, b]\n: 1\n")) == ["r.yaml:7:3: a key has to be one word"]


def test_a_file_tells_its_kind(write: Write) -> None:
    assert kind_of(write(GOOD)) == "targets"
    with pytest.raises(RecipeError, match=r"r.yaml:1:1: kind: no such kind \(got 'target'\); did you mean 'targets'"):
        kind_of(write("kind: target\n"))
    with pytest.raises(RecipeError, match="kind: needed: what this is a recipe of; one of targets, finetune, "):
        kind_of(write("steps: 3\n"))


# ---------------------------------------------------------------- overrides


def test_an_override_wins_and_the_last_one_most(write: Write) -> None:
    path = write(GOOD)
    overrides = ["steps=7", "steps=9", "guidance.0.factor=16", "gate.min_contrast=1e-3", "gate={min_contrast: 0.5}"]
    settings = load_recipe(path, TargetSettings, overrides)
    assert settings.steps == 9
    assert factors(settings) == [16]
    assert settings.gate.min_contrast == 0.5
    assert load_recipe(path, TargetSettings, ["gate.min_contrast=1e-3"]).gate.min_contrast == 1e-3


def test_an_override_mends_what_the_file_lacks_or_has_wrong(write: Write) -> None:
    path = write(GOOD.replace("start_t: 400\n", "").replace("steps: 20", "steps: none"))
    settings = load_recipe(path, TargetSettings, ["start_t=300", "steps=5"])
    assert (settings.start_t, settings.steps) == (300, 5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=-1", "steps=-1: steps: should be greater than 0 (got -1)"),
        ("steps", "steps: an override is written key=value, as in steps=20"),
        ("=3", "=3: an override is written key=value, as in steps=20"),
        ("gate..x=3", "gate..x=3: an override is written key=value, as in steps=20"),
        ("stesp=3", "stesp=3: stesp: not a key of this recipe (got 3); did you mean 'steps'?"),
        ("gate.min_contrst=3", "gate.min_contrst=3: gate.min_contrst: not a setting of gate (got 3);"),
        ("steps.x=3", "steps.x=3: steps: holds nothing that could be named 'x'"),
        ("guidance.1.factor=3", "guidance.1.factor=3: guidance: has items 0 to 0 (got '1')"),
        ("guidance.first=3", "guidance.first=3: guidance: has items 0 to 0 (got 'first')"),
        ("guidance=[1", "guidance=[1: guidance:1:3: not YAML: "),
        ("gate={min_contrast: x}", "gate={min_contrast: x}: gate.min_contrast: should be a number (got 'x')"),
        ("steps=", "steps=: steps: should be a whole number (got None)"),
    ],
)
def test_a_bad_override_is_named(write: Write, override: str, message: str) -> None:
    (line,) = problems(write(GOOD), TargetSettings, override)
    assert line.startswith(message)


def test_a_list_can_be_emptied_and_then_has_no_items(write: Write) -> None:
    assert load_recipe(write(GOOD), TargetSettings, ["guidance=[]"]).guidance == []
    assert problems(write(GOOD), TargetSettings, "guidance=[]", "guidance.0.factor=4") == [
        "guidance.0.factor=4: guidance: has no items (got '0')"
    ]


# ---------------------------------------------------------------- files that a recipe names

NAMING_FILES = [
    (FinetuneSettings, "kind: finetune\nsteps: 2\nreplay: {degradation: WORD}\n", "replay.degradation", "recipe"),
    (CodeFinetuneSettings, "kind: finetune-codes\nsteps: 2\nteacher: WORD\n", "teacher", "weights"),
    (CodePredictorSettings, f"kind: pretrain-code-predictor\n{TRAINING}codebook: WORD\n", "codebook", "weights"),
    (FusionSettings, f"kind: pretrain-fusion\n{TRAINING}start: WORD\n", "start", "weights"),
    (OneStepTrainingSettings, f"kind: pretrain-onestep\n{TRAINING}start: WORD\n", "start", "weights"),
]


@pytest.mark.parametrize(("schema", "text", "key", "what"), NAMING_FILES)
def test_a_relative_path_is_looked_up_beside_its_recipe_or_where_it_was_typed(
    schema: type[Settings], text: str, key: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*overrides: str) -> str:
        values: Any = load_recipe(Path("..", "mine", "r.yaml"), schema, overrides).model_dump()
        return reduce(getitem, key.split("."), values)

    word = "sub/x.yaml" if what == "recipe" else "sub/x.pth"
    mine, here = tmp_path / "mine", tmp_path / "here"
    for folder in (mine, here):
        (folder / "sub").mkdir(parents=True)
    (mine / "r.yaml").write_text(text.replace("WORD", word), encoding="utf-8")
    monkeypatch.chdir(here)
    with pytest.raises(RecipeError, match=rf"r.yaml:.*: {key}: {word}: no such {what} file in .*mine, nor in the work"):
        found()
    with pytest.raises(RecipeError, match=rf"^{key}=no{word}: .* no such {what} file in the working .*, nor in .*mine"):
        found(f"{key}=no{word}")
    (here / word).touch()
    assert found() == str(here / word), "none beside the recipe"
    (mine / word).touch()
    assert found() == str(mine / word)
    assert found(f"{key}={word}") == str(here / word), "typed here"
    (here / word).unlink()
    assert found(f"{key}={word}") == str(mine / word)
    assert found(f"{key}={mine / word}") == str(mine / word)
    with pytest.raises(RecipeError, match=rf"/gone/{Path(word).name}: no such {what} file($|;)"):
        found(f"{key}=/gone/{Path(word).name}")
    (mine / "r.yaml").write_text(dump(load_recipe(mine / "r.yaml", schema)), encoding="utf-8")
    assert found() == str(mine / word), "what a run writes down names the same file from anywhere"


def test_names_stay_names_whatever_lies_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that ships, a pack, the two words of a teacher; but a run's folder is a path."""
    monkeypatch.chdir(tmp_path)
    for name in ("blind", "tiny", "codebook", "restorer"):
        Path(name).touch()
    recipe = Path("r.yaml")
    recipe.write_text("kind: finetune-codes\nsteps: 2\nreplay: {degradation: blind}\nteacher: tiny\n", encoding="utf-8")
    settings = load_recipe(recipe, CodeFinetuneSettings)
    assert settings.replay is not None
    assert (settings.replay.degradation, settings.teacher) == ("blind", "tiny")
    for word in ("codebook", "restorer"):
        Path(word).unlink()
        Path(word).mkdir()
        Path(word, "weights.safetensors").touch()
        assert load_recipe(recipe, CodeFinetuneSettings, [f"teacher={word}"]).teacher == word
    stage = Path("s.yaml")
    stage.write_text(f"kind: pretrain-code-predictor\n{TRAINING}codebook: codebook\n", encoding="utf-8")
    assert load_recipe(stage, CodePredictorSettings).codebook == str(tmp_path / "codebook")


# ---------------------------------------------------------------- writing


def test_a_dumped_recipe_reads_back_as_the_same_settings(write: Write) -> None:
    settings = load_recipe(write(GOOD), TargetSettings, ["eta=1e-7", "gate.min_contrast=1e-17"])
    assert load_recipe(write(dump(settings)), TargetSettings) == settings


LEAVES = (
    st.none()
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(
        [
            "no",
            "1e-4",
            "0o7",
            "12:30",
            "010",
            "~",
            "null",
            "",
            "true",
            "<<",
            "=",
            ".5",
            "-",
            "2026-11-21",
            "0x1f",
            ".inf",
        ]
    )
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(min_size=1), VALUES, min_size=1))
def test_what_is_written_reads_back_by_either_version_of_yaml(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "hypothesis.yaml"
    text = to_yaml(values)
    path.write_bytes(text.encode())
    draft = Draft.read(path)
    assert draft.problems == []
    assert draft.values == values
    assert yaml.safe_load(text) == values


def test_the_digest_is_that_of_the_settings_not_of_the_text(write: Write) -> None:
    one = recipe_digest(load_recipe(write(GOOD), TargetSettings))
    reordered = "\n".join(reversed(GOOD.splitlines()[1:4])) + "\nseed: 0\n" + "\n".join(GOOD.splitlines()[4:])
    assert recipe_digest(load_recipe(write(reordered), TargetSettings)) == one
    assert recipe_digest(load_recipe(write(GOOD), TargetSettings, ["seed=1"])) != one


def test_differences_name_key_and_both_values():
    two = [{"name": "a"}, {"name": "b"}]
    there = {"steps": 12, "rate": 1e-4, "gate": {"min": 0.5, "on": True}, "degradations": two}
    assert differences(there, there) == ""
    now = {"rate": 1e-4, "steps": 3, "gate": {"min": 0.5, "on": False}, "degradations": [{"name": "c"}], "new": "word"}
    assert differences(there, now) == (
        'steps: 12 there, 3 now; gate.on: true there, false now; degradations.0.name: a there, c now;'
        ' degradations.1: {"name": "b"} there, none now; new: none there, word now'
    )
    six = {str(key): key for key in range(6)}
    assert differences({}, six).endswith("; 4: none there, 4 now; and 1 more")
    assert differences({"key": "x" * 100}, {"key": None}) == f"key: {'x' * 37}... there, none now"
