"""Source replay: which pairs are mixed in, that it resumes exactly, and that every number of it turns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from knobs import names_of, settings_of

from adapt.commands.finetune import finetune
from adapt.errors import UsageError
from adapt.finetuning.data import SharpFaces
from adapt.finetuning.outcome import few_photos
from adapt.finetuning.replay import Replay
from adapt.photos.files import read_image, write_image
from adapt.settings import CodeFinetuneSettings, DegradeSettings, FinetuneSettings, ReplaySettings
from degradations import chain
from degradations.camera.profiles import read_profile, write_profile

QUICK = ["steps=6", "batch=4", "evaluate_every=3", "adversarial=0", "holdout=0.34", "learning_rate=1e-3"]
JPEG = DegradeSettings.model_validate({"degradations": [{"name": "jpeg", "quality": [10, 20]}]}).degradations
GREY = DegradeSettings.model_validate({"degradations": [{"name": "blind", "grey": 1.0}]}).degradations


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of 16 px that are no photo's."""
    from adapt.exporting.verify import smooth_images

    folder = tmp_path_factory.mktemp("faces")
    for index, image in enumerate(smooth_images((5, 16, 16), seed=8)):
        write_image(folder / f"{index}.png", image)
    return folder


def tune(photos: Path, out: Path, pack: Path, replay: Path | None, *more: str, max_steps: int | None = None):
    """Photos towards themselves: what is learnt does not matter here."""
    return finetune(
        photos, photos, out, pack=str(pack), recipe="swinir", overrides=[*QUICK, *more], replay=replay,
        max_steps=max_steps,
    )


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last" / "state.pt", weights_only=True)["network"]


def same(first: Path, second: Path) -> bool:
    a, b = final_weights(first), final_weights(second)
    return all(torch.equal(a[key], b[key]) for key in a)


def test_pairs_are_replaced_as_often_as_the_share_says_and_by_faces(faces: Path, gen: torch.Generator):
    images = SharpFaces(sorted(faces.iterdir()), 16)
    known = images.batch(range(5))
    photos, targets = torch.full((50, 3, 16, 16), 2.0), torch.full((50, 3, 16, 16), 3.0)
    replaced: list[torch.Tensor] = []
    for _ in range(20):
        mixed, towards = Replay(images, JPEG, 0.3).mix(photos, targets, gen)
        changed = (mixed != 2).flatten(1).any(1)
        assert torch.equal(changed, (towards != 3).flatten(1).any(1)), "a photo goes with its target"
        assert torch.equal(towards[~changed], targets[~changed])
        distance = (towards[changed][:, None] - known[None]).abs().flatten(2).amax(2)
        assert bool((distance.amin(1) == 0).all()), "the target is a clean face"
        gap = (mixed[changed] - towards[changed]).abs().flatten(1)
        assert bool(((gap.mean(1) > 0.003) & (gap.mean(1) < 0.2)).all()), "the photo is the same face, damaged"
        replaced.append(changed)
    share = torch.stack(replaced).float().mean().item()
    assert share == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1000) ** 0.5)
    assert float(photos.max()) == 2.0, "the batch that was given is left as it was"


def test_the_damage_is_the_recipes_anew_each_time(faces: Path):
    images = SharpFaces(sorted(faces.iterdir())[:1], 16)
    empty = torch.zeros(8, 3, 16, 16)

    def made(seed: int) -> torch.Tensor:
        return Replay(images, JPEG, 0.999).mix(empty, empty, torch.Generator().manual_seed(seed))[0]

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert not torch.equal(made(1)[0], made(1)[1])
    qualities = [chain.degrade(images.batch([0])[0], JPEG, seed)[0] for seed in range(200)]
    assert all(any(torch.equal(one, each) for each in qualities) for one in made(1))


def test_the_truth_of_a_grey_photo_is_grey(faces: Path, gen: torch.Generator):
    empty = torch.zeros(2, 3, 16, 16)
    _, targets = Replay(SharpFaces(sorted(faces.iterdir()), 16), GREY, 0.999).mix(empty, empty, gen)
    assert targets.std() > 0.01
    assert float((targets.amax(1) - targets.amin(1)).max()) < 1e-6


@pytest.fixture(scope="module")
def whole(small_photos: Path, small_pack: Path, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    outcome = tune(small_photos, out, small_pack, faces, "replay.share=0.5")
    assert (outcome.trained, outcome.validation) == (4, 2), "replayed pairs are no photos"
    return out


def test_stop_and_resume_is_exact(whole: Path, small_photos: Path, small_pack: Path, faces: Path, tmp_path: Path):
    for _ in range(3):
        tune(small_photos, tmp_path / "run", small_pack, faces, "replay.share=0.5", max_steps=2)
    assert same(whole, tmp_path / "run")
    assert (whole / "log.jsonl").read_text() == (tmp_path / "run" / "log.jsonl").read_text()


KNOBS = ["replay.share=0.9", "replay.degradation=old-photo"]


def test_every_setting_is_turned_below():
    assert names_of(KNOBS) == {f"replay.{name}" for name in settings_of(ReplaySettings)}


@pytest.mark.parametrize("knob", [*KNOBS, "faces", "off"])
def test_every_knob_turns(
    knob: str, whole: Path, small_photos: Path, small_pack: Path, faces: Path, tmp_path: Path
):
    replay, more = faces, ["replay.share=0.5", knob]
    if knob == "faces":
        replay, more = tmp_path / "faces", more[:1]
        for index, path in enumerate(sorted(faces.iterdir())):
            write_image(replay / f"{index}.png", 1 - read_image(path))
    elif knob == "off":
        replay, more = None, []
    tune(small_photos, tmp_path / "run", small_pack, replay, *more)
    assert not same(whole, tmp_path / "run"), f"{knob} changes nothing"


def test_a_folder_alone_switches_it_on(small_photos: Path, small_pack: Path, faces: Path, tmp_path: Path):
    tune(small_photos, tmp_path / "given", small_pack, faces, max_steps=1)
    text = (tmp_path / "given" / "recipe.yaml").read_text()
    assert "share: 0.25" in text
    assert "degradation: blind" in text
    tune(small_photos, tmp_path / "off", small_pack, None, max_steps=1)
    assert "replay: null" in (tmp_path / "off" / "recipe.yaml").read_text()


def test_refusals(whole: Path, small_photos: Path, small_pack: Path, faces: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="swinir: replay mixes in pairs of clean faces; name their folder with"):
        tune(small_photos, tmp_path / "run", small_pack, None, "replay.share=0.5")
    with pytest.raises(UsageError, match="no such folder or file of photos"):
        tune(small_photos, tmp_path / "run", small_pack, tmp_path / "none")
    with pytest.raises(UsageError, match="no degradations recipe 'blid'"):
        tune(small_photos, tmp_path / "run", small_pack, faces, "replay.degradation=blid")
    with pytest.raises(UsageError, match=r"replay\.share: should be less than 1"):
        tune(small_photos, tmp_path / "run", small_pack, faces, "replay.share=1")
    fewer = tmp_path / "fewer"
    write_image(fewer / "0.png", read_image(faces / "0.png"))
    with pytest.raises(UsageError, match=r"other settings, photos or weights \(the settings are the same, the"):
        tune(small_photos, whole, small_pack, fewer, "replay.share=0.5")


def test_a_changed_profile_of_the_damage_is_another_run(
    small_photos: Path, small_pack: Path, faces: Path, tmp_path: Path
):
    damage, profile = tmp_path / "camera.yaml", tmp_path / "cam.json"
    damage.write_text("kind: degrade\ndegradations: [{name: camera, profile: cam.json, iso: [400, 800], scale: 1}]\n")
    known = read_profile("generic-phone")
    write_profile(profile, known)
    settings = f"replay.degradation={damage}"
    for steps in (1, 2):
        tune(small_photos, tmp_path / "run", small_pack, faces, settings, max_steps=steps)
    write_profile(profile, known.model_copy(update={"white": 2 * known.white}))
    with pytest.raises(UsageError, match="other settings, photos or weights"):
        tune(small_photos, tmp_path / "run", small_pack, faces, settings, max_steps=1)


# ---------------------------------------------------------------- few photos


def test_few_photos_warn_where_images_are_learnt_and_not_where_codes_are():
    images, codes = FinetuneSettings(steps=1), CodeFinetuneSettings(steps=1)
    assert few_photos(images, 20).startswith("Only 20 photos: a restorer that learns from images can over-fit")
    assert few_photos(images, 99)
    assert not few_photos(images, 100)
    assert not few_photos(codes, 20)


def test_the_warning_comes_before_the_first_step_and_stays_with_the_outcome(
    small_photos: Path, small_pack: Path, tmp_path: Path
):
    heard: list[str] = []
    outcome = finetune(
        small_photos, small_photos, tmp_path / "run", pack=str(small_pack), recipe="swinir", overrides=QUICK,
        max_steps=1, on_warning=heard.append, on_step=lambda *_: heard.append("step"),
    )
    assert heard == [outcome.warning, "step"]
    assert outcome.warning.startswith("Only 6 photos")
