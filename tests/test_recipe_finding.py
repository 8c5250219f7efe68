"""Recipes by name: how they are looked up and listed, and that those that ship are good."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapt.errors import RecipeError
from adapt.settings import TargetSettings, recipe
from adapt.settings.recipe import (
    KINDS,
    RecipeInfo,
    find_recipe,
    folder_of,
    kind_of,
    list_recipes,
    load_recipe,
    recipe_text,
    recipes_folder,
)

PLAIN = """\
# Targets for a test.
kind: targets
start_t: 400
steps: 20
guidance: []
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes in place of those that ship."""
    for name, steps in [("targets/plain", 1), ("targets/other", 2), ("tiny/targets/plain", 3), ("tiny/targets/own", 4)]:
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PLAIN.replace("steps: 20", f"steps: {steps}"), encoding="utf-8")
    monkeypatch.setattr(recipe, "recipes_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "pack", "steps"),
    [
        ("plain", None, 1),
        ("plain", "tiny", 3),
        ("other", "tiny", 2),
        ("own", "tiny", 4),
        ("plain", "large", 1),
        ("tiny/targets/plain", None, 3),
        ("targets/plain", "tiny", 1),
    ],
)
@pytest.mark.usefixtures("shelf")
def test_a_name_is_looked_up_in_the_pack_first(name: str, pack: str | None, steps: int) -> None:
    assert load_recipe(name, TargetSettings, pack=pack).steps == steps


@pytest.mark.parametrize(
    ("name", "pack", "message"),
    [
        ("plan", None, "no targets recipe 'plan'; did you mean 'plain'?"),
        ("own", None, "no targets recipe 'own'; did you mean 'tiny/targets/own'?"),
        ("owm", "tiny", "no targets recipe 'owm'; did you mean 'own'?"),
        ("zzz", None, "no targets recipe 'zzz'; there are: other, plain, tiny/targets/own, tiny/targets/plain ("),
        ("away.yaml", None, "away.yaml: no such recipe file"),
        ("targets/plain.yaml", None, "targets/plain.yaml: no such recipe file; 'targets/plain' ships with the package"),
        ("zzz", "tiny", "no targets recipe 'zzz'; there are: other, own, plain ("),
    ],
)
@pytest.mark.usefixtures("shelf")
def test_an_unknown_name_gets_the_nearest_or_all(name: str, pack: str | None, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        find_recipe(name, "targets", pack)
    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("shelf")
def test_recipes_are_listed_and_shown() -> None:
    infos = list_recipes()
    assert [info.name for info in infos] == ["targets/other", "targets/plain", "tiny/targets/own", "tiny/targets/plain"]
    assert {info.kind for info in infos} == {"targets"}
    assert {info.description for info in infos} == {"Targets for a test."}
    assert list_recipes("finetune") == []
    assert recipe_text("own") == recipe_text("tiny/targets/own")
    assert recipe_text("targets/plain").startswith("# Targets for a test.\n")
    with pytest.raises(RecipeError, match="'plain' names 2 recipes; say which: targets/plain, tiny/targets/plain"):
        recipe_text("plain")
    with pytest.raises(RecipeError, match="no recipe 'plin'; did you mean 'targets/plain' or 'tiny/targets/plain'"):
        recipe_text("plin")


@pytest.mark.parametrize("name", ["notes.txt", "deep/notes", "plin"])
def test_a_file_of_another_ending_is_told_of_its_ending(name: str, shelf: Path, monkeypatch: pytest.MonkeyPatch):
    """It is there; to say that it is not, and what ships, would help nobody."""
    here = shelf / "here"
    (here / name).parent.mkdir(parents=True)
    (here / name).write_text(PLAIN)
    monkeypatch.chdir(here)
    for find in (recipe_text, lambda name: find_recipe(name, "targets")):
        with pytest.raises(RecipeError, match=rf"^{name}: a recipe's file must end in \.yaml") as caught:
            find(name)
        assert "there are" not in str(caught.value)
    (here / "plain").write_text(PLAIN)
    assert find_recipe("plain", "targets") == shelf / "targets" / "plain.yaml", "a recipe that ships goes first"
    with pytest.raises(RecipeError, match="no kind of recipe 'target'; did you mean 'targets'"):
        list_recipes("target")


@pytest.mark.parametrize("pack", [None, "tiny"])
@pytest.mark.parametrize("info", list_recipes(), ids=lambda info: info.name)
def test_every_name_that_is_listed_is_found(info: RecipeInfo, pack: str | None) -> None:
    """By every command that takes such a recipe, whatever its pack; by its last part too, within its kind and pack."""
    folder = folder_of(info.kind)
    assert find_recipe(info.name, folder, pack) == info.path
    assert find_recipe(info.path.stem, folder, info.name.split("/")[0]) == info.path
    assert recipe_text(info.name) == info.path.read_text(encoding="utf-8")


NAMED = {"--recipe", "--method", "--verdict", "--pack"}


@pytest.mark.parametrize("info", list_recipes(), ids=lambda info: info.name)
def test_the_command_in_a_recipes_head_runs_that_very_recipe(info: RecipeInfo, tmp_path: Path) -> None:
    """PACK stands for a pack of the size the recipe is for; where none is named, the commands take `tiny`."""
    (tmp_path / "pack.yaml").write_text(f"size: {128 if info.name.startswith('tiny/') else 512}\n", encoding="utf-8")
    head = [line for line in info.path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    commands = [line.partition("Run: ")[2].split() for line in head if "Run: " in line]
    assert commands, "its head says how to run it"
    for words in commands:
        given = {option: value for option, value in itertools.pairwise(words) if option in NAMED}
        by_kind = {"targets": "--method", "verdict": "--verdict"}
        name = given.get(by_kind.get(info.kind, "--recipe"))
        assert name is not None
        pack = None if words[1] == "degrade" else given.get("--pack", "tiny").replace("PACK", str(tmp_path))
        assert find_recipe(name, folder_of(info.kind), pack) == info.path


def test_every_kind_is_the_one_its_settings_name() -> None:
    for kind, schema in KINDS.items():
        assert schema.model_fields["kind"].default == kind


SHIPPED = sorted(path.relative_to(recipes_folder()).as_posix() for path in recipes_folder().rglob("*.y*ml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_that_ships_is_good(name: str) -> None:
    path = recipes_folder() / name
    kind = kind_of(path)
    settings = load_recipe(path, KINDS[kind])
    assert path.parent.name == folder_of(kind), "recipes of a kind lie in the folder of that kind"
    assert path.suffix == ".yaml"
    (info,) = [info for info in list_recipes(kind) if info.path == path]
    assert info.description, "the first line of a recipe says what it is for"
    assert all(math.isfinite(value) for value in settings.model_dump().values() if isinstance(value, float))


def test_reading_recipes_needs_no_torch() -> None:
    code = (
        "import sys, adapt.settings.recipe as r; r.list_recipes();"
        " print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    root = Path(recipe.__file__).resolve().parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert answer.stdout.split() == ["False", "False"]
