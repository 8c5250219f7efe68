"""Training of the blur estimator, and the command that enters it and the start-step table into a pack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import adapt
from conftest import ROOT
from images import seeded
from knobs import settings_of
from networks import SMALL_SWINIR, lively_codeformer, lively_swinir, on_cpu
from torch import Tensor

from adapt.blur.labels import Survey
from adapt.errors import UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.loading import load_blur_estimator, load_start_steps
from adapt.pretraining.blur import train_blur_estimator, untrained
from adapt.restorers.base import Restorer
from adapt.settings import BlindSettings, BlurEstimatorSettings
from adapt.settings.recipe import load_recipe
from adapt.training.run import Run
from adapt.weights import read_state

SIZE = 32
TRAINING = BlurEstimatorSettings(
    channels=[4, 4, 8], steps=4, first_stage=2, batch=2, size=SIZE, learning_rate=1e-3, ema=0.5, survey=3, save_every=1
)


def uint8_faces(count: int = 5) -> Tensor:
    return (smooth_images((count, SIZE, SIZE), seed=6) * 255).round().byte()


def restorer() -> Restorer:
    return Restorer("r", "swinir", SMALL_SWINIR, lively_swinir())


def trained(
    folder: Path, settings: BlurEstimatorSettings = TRAINING, max_steps: int | None = None
) -> dict[str, Tensor]:
    with Run(folder, recipe="", digest="x") as run:
        context = on_cpu(run, max_steps=max_steps)
        layout, state = train_blur_estimator(settings, uint8_faces(), context, restorer=restorer())
    assert layout.transfer == SMALL_SWINIR
    return state


def test_stop_and_resume_is_exact(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    parts: dict[str, Tensor] = {}
    for _ in range(4):
        parts = trained(tmp_path / "parts", max_steps=1)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    for name in ("log.jsonl", "labels.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "parts" / name).read_text()


def test_the_transfer_model_begins_as_the_restorer_and_rests_in_the_first_stage(tmp_path: Path) -> None:
    first = trained(tmp_path / "run", max_steps=2)
    begun = untrained(TRAINING, restorer()).state_dict()
    theirs = lively_swinir().state_dict()
    transfer = {key.removeprefix("transfer.") for key in first if key.startswith("transfer.")}
    assert transfer == {name for name, _ in lively_swinir().named_parameters()}
    assert all(torch.equal(first[f"transfer.{key}"], theirs[key]) for key in transfer)
    assert not torch.equal(first["deviation.head.3.weight"], begun["deviation.head.3.weight"])
    second = trained(tmp_path / "run", max_steps=2)
    assert not torch.equal(second["transfer.conv_last.weight"], first["transfer.conv_last.weight"])


def test_the_first_stage_learns_the_std(tmp_path: Path) -> None:
    """Blurs of one grain: the error falls from that of always saying the middle, a quarter of the range."""
    settings = TRAINING.model_copy(update={"steps": 30, "first_stage": 30, "batch": 8, "learning_rate": 2e-2})
    grain = (torch.rand(1, 3, SIZE, SIZE, generator=seeded(0)) * 255).byte()
    seen: list[float] = []
    with Run(tmp_path, recipe="", digest="x") as run:
        train_blur_estimator(
            settings, grain, on_cpu(run, lambda _i, _n, parts: seen.append(parts["std"])), restorer=restorer()
        )
    assert np.mean(seen[:4]) == pytest.approx(15 / 4, abs=1.2)
    assert np.mean(seen[-5:]) < 1.5


KNOBS = {
    "xi": 0.2,
    "image": 0.0,
    "first_stage": 1,
    "degradation": BlindSettings(isotropic=1.0, grey=0.0, noise=(0.0, 1.0)),
    "channels": [4, 8, 8],
    "seed": 1,
    "steps": 3,
    "batch": 3,
    "learning_rate": 2e-3,
    "warmup": 3,
    "ema": 0.0,
}


def test_every_setting_is_turned_below() -> None:
    """But for the size of the faces, TM's layout and how many faces are counted, which other tests turn; and how often
    a state is saved, which changes no step."""
    others = ("kind", "size", "transfer", "survey", "save_every")
    assert set(KNOBS) == {name.partition(".")[0] for name in settings_of(BlurEstimatorSettings)} - set(others)


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(knob: str, tmp_path: Path) -> None:
    settings = TRAINING.model_copy(update={"xi": 0.05})
    base = trained(tmp_path / "base", settings)
    turned = trained(tmp_path / "turned", settings.model_copy(update={knob: KNOBS[knob]}))
    assert any(base[key].shape != turned[key].shape or not torch.equal(base[key], turned[key]) for key in base)


def test_xi_is_the_recipes_or_the_one_that_spreads_the_labels(tmp_path: Path) -> None:
    trained(tmp_path / "open", max_steps=1)
    trained(tmp_path / "fixed", TRAINING.model_copy(update={"xi": 0.5, "survey": 5}), max_steps=1)
    chosen, fixed = (json.loads((tmp_path / name / "labels.json").read_text()) for name in ("open", "fixed"))
    assert (fixed["xi"], fixed["photos"], chosen["photos"]) == (0.5, 5, 3)
    assert sum(fixed["counts"]) == 5
    assert chosen["evenness"] > 0


def test_the_labels_that_are_written_down_are_of_as_many_faces_as_they_say() -> None:
    """docs/measurements.md, Blur labels: columns add up, evenness follows from them, and the recipe is among them."""
    settings = load_recipe("tiny/pretrain/blur-estimator", BlurEstimatorSettings)
    assert settings.xi is not None
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    section = text.split("## Blur labels\n")[1].split("\n## ")[0]
    head, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == [f"{part}.1 to {part + 1}.0" for part in range(15)]
    evenness: list[str] = []
    for column, title in list(enumerate(head))[1:4]:
        counts = tuple(int(row[column]) for row in rows[1:])
        assert sum(counts) == int(title.removesuffix(" faces"))
        evenness.append(f"{Survey(settings.xi, 128, counts, least=0, never=0).evenness:.3f}")
    assert f"Evenness (entropy over that of equal counts) is {evenness[0]}, {evenness[1]} and {evenness[2]}." in section
    assert f"{settings.survey} faces" in head
    assert f"All three columns are at {settings.xi}" in section


def test_a_transfer_model_copies_nothing_but_a_swinir() -> None:
    network = lively_codeformer()
    codeformer = Restorer("c", "codeformer", network.settings, network)
    with pytest.raises(UsageError, match="c: TM can only begin as a copy of a SwinIR, and this is a codeformer"):
        untrained(TRAINING, codeformer)
    own = TRAINING.model_copy(update={"transfer": SMALL_SWINIR})
    a, b = (untrained(own, codeformer).state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)


RECIPES = {
    "blur-estimator": """kind: pretrain-blur-estimator
channels: [4, 4, 8]
steps: 4
first_stage: 2
batch: 2
size: 16
learning_rate: 1.0e-3
survey: 4
""",
    "start-steps": "kind: pretrain-start-steps\nsize: 16\ntol: 0.05\n",
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_enters_both_into_a_pack(
    name: str, small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe, pack, out = tmp_path / "mine.yaml", tmp_path / "pack", tmp_path / "run"
    recipe.write_text(RECIPES[name])
    pack.mkdir()
    (pack / "pack.yaml").write_text("name: p\nsize: 16\ndescription: d\nrestorer: swinir\nnetworks: {}\n")
    command = ["pretrain", "--recipe", recipe, "--faces", small_photos, "-o", out, "--pack", small_pack]
    assert adapt(monkeypatch, *command, "--add-to", pack, "--licence", "none", "--trained", "in a test") == 0
    printed = capsys.readouterr().out
    if name == "start-steps":
        assert printed == f"Table: {out / 'start-steps.json'}\n"
        assert load_start_steps(pack) == load_start_steps(out / "start-steps.json")
        (pack / "start-steps.json").write_text("{}")
        with pytest.raises(WeightsError, match=r"start-steps\.json: not the file that .*pack\.yaml names"):
            load_start_steps(pack)
        with pytest.raises(WeightsError, match="has no 'start-steps'"):
            load_start_steps(small_pack)
        return
    assert printed == f"Weights: {out / 'weights.safetensors'}\n"
    photos = smooth_images((2, 16, 16), seed=8)
    from_run, from_pack = load_blur_estimator(out / "weights.safetensors"), load_blur_estimator(pack)
    torch.testing.assert_close(from_pack(photos).std, from_run(photos).std, rtol=0.02, atol=1e-3)  # half precision
    assert from_pack.size == 16
    assert read_state(out / "weights.safetensors")[1]["architecture"] == "blur-estimator"
    with pytest.raises(WeightsError, match="has no 'blur-estimator'"):
        load_blur_estimator(small_pack)
