"""Training of the perceptual network: the distortions it judges, and what it makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from images import edged_images
from networks import on_cpu
from PIL import Image
from torch import Tensor

from adapt.digests import settings_digest
from adapt.errors import TrainingError, UsageError
from adapt.perceptual.distance import load_pack_distance
from adapt.perceptual.network import PerceptualNetwork
from adapt.pretraining import distortions
from adapt.pretraining.distortions import DISTORTIONS, FORGIVEN, RESENTED, at_equal_error, by_severity, gaussian
from adapt.pretraining.ordering import ordering_table, squared_error
from adapt.pretraining.perceptual import load_portraits, train_perceptual
from adapt.settings import PerceptualSettings
from adapt.training.context import Progress
from adapt.training.run import Run

# ---------------------------------------------------------------- distortions


def test_the_blur_is_a_mirrored_gaussian(gen: torch.Generator) -> None:
    """Reference: a sampled kernel over an explicitly mirrored row, float64; at std 2 sampling errs below 1e-6."""
    image = torch.rand(1, 3, 23, 29, generator=gen)
    row = image[0].double().numpy()
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / 2.0) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (20, 20)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(row, pad, mode="symmetric"), 41, axis=axis)
        row = windows @ kernel
    blurred = gaussian(image, torch.tensor([2.0]))[0].double()
    torch.testing.assert_close(blurred, torch.from_numpy(row), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_more_strength_is_more_damage(kind: str, gen: torch.Generator) -> None:
    """The order that training takes for granted, on means over the images."""
    images = edged_images(gen, 6, 40, 36)
    field = torch.randn(images.shape, generator=gen)
    made = [DISTORTIONS[kind](images, torch.full((6,), s), field) for s in (0.0, 0.35, 0.7, 1.0)]
    errors = [float(squared_error(images, image).mean()) for image in made]
    assert errors == sorted(errors)
    assert errors[0] > 0
    assert all(image.shape == images.shape and image.min() >= 0 and image.max() <= 1 for image in made)
    alone = DISTORTIONS[kind](images[2:3], torch.full((1,), 0.7), field[2:3])
    torch.testing.assert_close(alone, made[2][2:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("forgiven", FORGIVEN)
@pytest.mark.parametrize("resented", RESENTED)
def test_equal_error_is_equal(forgiven: str, resented: str, gen: torch.Generator) -> None:
    triplets = at_equal_error(edged_images(gen, 6), forgiven, resented, draw=gen)
    better = squared_error(triplets.reference, triplets.better)
    worse = squared_error(triplets.reference, triplets.worse)
    torch.testing.assert_close(better, worse, rtol=1e-4, atol=1e-9)


def test_a_shift_moves_by_one_pixel(gen: torch.Generator) -> None:
    image = edged_images(gen, 16, 20, 20)
    moved = distortions.shift(image, torch.ones(16), torch.randn(image.shape, generator=gen))
    inner = slice(2, -2)
    for one, other in zip(image, moved, strict=True):
        offsets = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        equal = [o for o in offsets if torch.equal(other[:, inner, inner], one.roll(o, (1, 2))[:, inner, inner])]
        assert len(equal) == 1
        assert equal != [(0, 0)]


def test_severity_triplets_share_their_noise(gen: torch.Generator) -> None:
    """With the same field, the stronger noise is the weaker one scaled up, where nothing was clipped."""
    images = torch.full((4, 3, 16, 16), 0.5)
    triplets = by_severity(images, "noise", gen)
    weak, strong = (triplets.better - images).flatten(1), (triplets.worse - images).flatten(1)
    whole = (strong.abs() < 0.49) & (weak.abs() < 0.49) & (weak.abs() > 0.01)
    ratios = [(s[w] / q[w]) for s, q, w in zip(strong, weak, whole, strict=True)]
    assert all(float(r.min()) > 1 and float(r.std() / r.mean()) < 1e-3 for r in ratios)


# ---------------------------------------------------------------- training


SETTINGS = PerceptualSettings(
    channels=[4, 6, 8], steps=6, batch=6, size=24, learning_rate=1e-3, warmup=2, ema=0.9, save_every=2, seed=3
)


@pytest.fixture
def faces(tmp_path: Path, gen: torch.Generator) -> Path:
    """Eight small portraits of five people, with their table."""
    folder = tmp_path / "faces/128/a"
    folder.mkdir(parents=True)
    rows = ["file,person,set"]
    for number, image in enumerate(edged_images(gen, 8, 32, 28)):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,p{number % 5},a")
    (tmp_path / "faces/a.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "faces/128"


def test_people_come_from_the_table_beside_the_folder(faces: Path) -> None:
    assert load_portraits(faces, 24).people == [0, 1, 2, 3, 4, 0, 1, 2]
    (faces.parent / "b.csv").write_text("name,person\n1.png,x\n")
    with pytest.raises(UsageError, match=r"b.csv: expected the columns 'file' and 'person', got \['name', 'person'\]"):
        load_portraits(faces, 24)
    (faces.parent / "b.csv").unlink()
    (faces.parent / "a.csv").unlink()
    assert load_portraits(faces, 24).people == list(range(8))
    with pytest.raises(UsageError, match=r"sides of 30 pixels or more, got \(28, 32\)"):
        load_portraits(faces, 30)
    with pytest.raises(UsageError, match="found no image"):
        load_portraits(faces.parent / "none", 24)


def train(
    settings: PerceptualSettings,
    faces: Path,
    out: Path,
    *,
    held_out: Path | None = None,
    on_step: Progress | None = None,
    max_steps: int | None = None,
) -> dict[str, Tensor]:
    """Train in a run folder, as the command line does."""
    digest = settings_digest(settings.model_dump(mode="json"))
    with Run(out, recipe="", digest=digest) as run:
        return train_perceptual(settings, faces, on_cpu(run, on_step, max_steps), held_out=held_out)


@pytest.mark.parametrize("stops_in", ["tasks", "ranking"])
def test_training_resumes_bit_for_bit(faces: Path, tmp_path: Path, stops_in: str) -> None:
    """Six steps, of which two rank: stopped at step 2 or at step 4 the saved state, a crash follows, and it goes on."""
    whole = train(SETTINGS, faces, tmp_path / "whole", held_out=faces)

    class CrashError(Exception):
        pass

    settings = SETTINGS.model_copy(update={"save_every": 3 if stops_in == "tasks" else 5})
    reference = train(settings, faces, tmp_path / "other")

    def crash(step: int, steps: int, losses: object) -> None:
        if step == steps:  # everything after the last saved state is lost
            raise CrashError

    with pytest.raises(CrashError):
        train(settings, faces, tmp_path / "part", on_step=crash)
    state = torch.load(tmp_path / "part/last/state.pt", weights_only=True)
    assert state["step"] == settings.save_every
    resumed = train(settings, faces, tmp_path / "part")
    for key, value in whole.items():
        assert torch.equal(value, reference[key])
        assert torch.equal(value, resumed[key])
    ends = [torch.load(tmp_path / run / "last/state.pt", weights_only=True) for run in ("part", "other")]
    for key, value in ends[0]["networks"].items():
        assert torch.equal(value, ends[1]["networks"][key])
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("part", "other")]
    assert logs[0] == logs[1] != ""


def test_training_stops_in_time_and_goes_on(faces: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    train(SETTINGS, faces, tmp_path / "run", max_steps=1, on_step=lambda step, total, losses: steps.append(step))
    assert torch.load(tmp_path / "run/last/state.pt", weights_only=True)["step"] == 1
    assert not (tmp_path / "run/perceptual.json").exists(), "facts of an unfinished network"
    with pytest.raises(UsageError, match="other settings"):
        train(SETTINGS.model_copy(update={"seed": 4}), faces, tmp_path / "run")
    train(SETTINGS, faces, tmp_path / "run", on_step=lambda step, total, losses: steps.append(step))
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_not_finite_stops_the_training(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is (nan|inf)"):
        train(SETTINGS.model_copy(update={"learning_rate": 1e20}), faces, tmp_path / "run")


def test_what_training_makes(faces: Path, tmp_path: Path) -> None:
    state = train(SETTINGS, faces, tmp_path / "run", held_out=faces)
    assert {value.dtype for value in state.values()} == {torch.float16}
    distance = load_pack_distance(state, {"channels": SETTINGS.channels}, "0" * 64)
    assert isinstance(distance.module, PerceptualNetwork)
    weights = distance.module.channel_weights()
    assert all((stage > 0).all() for stage in weights)
    assert any(stage.std() > 0 for stage in weights), "ranking left the channel weights as they were"
    facts = json.loads((tmp_path / "run/perceptual.json").read_text())
    assert facts["people"] == 5
    assert set(facts["held_out"]) >= {"blur", "shift < blur"}


KNOBS = {
    "channels": [4, 6, 10], "steps": 7, "batch": 5, "size": 20, "learning_rate": 2e-3, "warmup": 4, "ema": 0.0,
    "seed": 4,
}  # fmt: skip


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(knob: str, faces: Path, tmp_path: Path) -> None:
    before = train(SETTINGS, faces, tmp_path / "plain")
    after = train(SETTINGS.model_copy(update={knob: KNOBS[knob]}), faces, tmp_path / "turned")
    assert any(value.shape != after[key].shape or not torch.equal(value, after[key]) for key, value in before.items())


def test_pairs_of_equal_error_are_a_coin_to_toss_for_l2(faces: Path) -> None:
    """The table tells measures apart: L2 is blind where errors are equal, and knows the strength of noise."""
    table = ordering_table(squared_error, faces, seed=1)
    assert table["brightness < noise"]["l2"] == 0.5
    assert table["noise"]["l2"] == 1.0
    assert table["noise"]["tiny-perceptual"] == 1.0  # here, the measure under test is L2 itself
    assert table["noise"]["triplets"] == 8
