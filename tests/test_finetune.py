"""Losses, the loop with exact resume, and the choice between old and new weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import kill_and_repeat
from knobs import names_of, settings_of
from networks import gradient_norms

from adapt.commands.finetune import finetune
from adapt.digests import file_digest
from adapt.disk import marked, read_json_lines, write_json
from adapt.errors import PhotoError, TrainingError, UsageError
from adapt.finetuning.data import ImageDataset, split_pairs
from adapt.finetuning.outcome import Outcome
from adapt.finetuning.transplant import transplant
from adapt.intervals import Interval
from adapt.loading import load_restorer
from adapt.photos.files import read_image, write_image
from adapt.settings import FinetuneSettings, PatchAdversarySettings
from adapt.targets.store import Record, TargetStore, accepted_targets, image_name
from adapt.training.losses import discriminator_loss, generator_loss, l1, weighted
from adapt.weights import read_state

QUICK = ["steps=6", "batch=2", "evaluate_every=3", "discriminator.features=4", "holdout=0.34", "learning_rate=1e-3"]


def tune(photos: Path, targets: Path, out: Path, pack: Path, *more: str, **options: object):
    return finetune(
        photos, targets, out, pack=str(pack), recipe="swinir", overrides=[*QUICK, *more], **options  # pyright: ignore[reportArgumentType]
    )


# ---------------------------------------------------------------- losses


def test_losses_against_their_definitions(gen: torch.Generator):
    logits = torch.randn(3, 1, 5, 7, generator=gen, dtype=torch.float64)
    probability = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(generator_loss(logits), -probability.log().mean(dim=(1, 2, 3)))
    other = torch.randn(3, 1, 5, 7, generator=gen, dtype=torch.float64)
    fake = 1 / (1 + torch.exp(-other))
    torch.testing.assert_close(discriminator_loss(logits, other), (-probability.log()).mean() - (1 - fake).log().mean())
    a, b = torch.rand(2, 3, 3, 5, 7, generator=gen, dtype=torch.float64)
    assert l1(a, b).tolist() == pytest.approx([float((a[i] - b[i]).abs().sum()) / 105 for i in range(3)])


def test_gan_losses_fixture(reference):
    """The public code's losses on the public logits, weight 0.1 included."""
    arrays = reference.arrays("disc")
    logits = torch.from_numpy(arrays["eval_1x128x128"])
    generator, real, fake = arrays["gan_losses"]
    assert float(0.1 * generator_loss(logits).mean()) == pytest.approx(generator, abs=1e-7)
    assert float(discriminator_loss(logits, logits)) == pytest.approx(real + fake, abs=1e-6)


def test_weights_must_name_every_part():
    part = {"l1": torch.ones(2)}
    assert float(weighted(part, {"l1": 0.5})) == 0.5
    with pytest.raises(UsageError, match=r"parts are \['l1'\], weights are \['l2'\]"):
        weighted(part, {"l2": 1.0})


# ---------------------------------------------------------------- the loop


@pytest.fixture(scope="module")
def whole(small_photos: Path, targets: Path, small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    outcome = tune(small_photos, targets, out, small_pack)
    assert outcome.improved
    assert (outcome.trained, outcome.validation) == (4, 2)
    assert outcome.best["total"] < outcome.base["total"]
    assert outcome.gain is not None
    assert outcome.gain.n == 2
    assert outcome.gain.mean == pytest.approx(outcome.base["total"] - outcome.best["total"])
    assert f"falls by {outcome.gain.mean:.4f} (95 % interval " in outcome.verdict
    return out


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last" / "state.pt", weights_only=True)["network"]


def assert_same(first: Path, second: Path) -> None:
    for a, b in ((final_weights(first), final_weights(second)),
                 (read_state(first / "best.safetensors")[0], read_state(second / "best.safetensors")[0])):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert (first / "log.jsonl").read_text() == (second / "log.jsonl").read_text()


def test_stop_and_resume_is_exact(whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    for _ in range(3):  # 2 + 2 + 2 steps; evaluation at 3 and 6
        tune(small_photos, targets, tmp_path / "run", small_pack, max_steps=2)
    assert_same(whole, tmp_path / "run")


def test_kill_and_resume(whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    """kill -9 after the first checkpoint; the same command again ends in the same weights."""
    out = tmp_path / "run"
    kill_and_repeat(
        out / "last" / "state.pt", "finetune", "--photos", small_photos, "--targets", targets, "-o", out,
        "--pack", small_pack, "--threads", 1, *QUICK,
    )
    assert_same(whole, out)


PATCHES = [
    "discriminator={kind: patch, features: 4, first_steps: 2, balance: true}", "consistency=1", "consistency_std=0.5",
]


@pytest.mark.parametrize("more", [[], PATCHES], ids=["unet", "patch"])
def test_two_processes_train_together(
    more: list[str], small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    """Each on photos of its own, to the same weights; one of them writes and speaks."""
    told, outs = tmp_path / "told", [tmp_path / "together", tmp_path / "alone"]
    told.mkdir()
    runner = [str(Path(__file__).with_name("one_of_many.py")), str(told)]
    quick = [each for each in QUICK if not (more and each.startswith("discriminator."))] + more
    arguments = ["finetune", "--photos", small_photos, "--targets", targets, "--pack", small_pack, *quick, "-o"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, *runner, *map(str, arguments), str(outs[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((told / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["discriminator"] == second["discriminator"]
    assert first["outcome"] == second["outcome"]
    assert len(first["batches"]) == len(second["batches"]) == 6
    for step in range(6):  # two batches of two are all four photos that are trained on
        assert sorted(first["batches"][step] + second["batches"][step]) == [0, 1, 2, 3]
    assert any(path.startswith(str(outs[0])) for path in first["touched"])
    assert [path for path in second["touched"] if path.startswith(str(outs[0]))] == []
    assert done.stdout.count("validation photos alone") == 1, done.stdout
    assert done.stdout.count("Warning: Only 6 photos") == done.stderr.count("Warning: Only 6 photos") == 1
    assert {line["step"] for line in read_json_lines(outs[0] / "log.jsonl")} == {0, 2, 5}
    outcome = tune(small_photos, targets, outs[1], small_pack, *more)
    together, alone = map(final_weights, outs)
    assert any(not torch.equal(together[key], alone[key]) for key in alone)
    assert outcome.main


KNOBS = [  # those of the patch discriminator and of the losses beside it are in test_image_losses.py
    "seed=1", "learning_rate=5e-4", "final_learning_rate=1e-3", "weight_decay=0.5", "l1=0.5", "perceptual=0.5",
    "adversarial=0.5", "discriminator.features=6", "discriminator.learning_rate=0.1", "flips=false", "batch=3",
    "transplant=0.9", "steps=5", "holdout=0.6",
]


def test_every_setting_is_turned_below():
    """`ema`, replay, distance and student have tests of their own; how often it is evaluated changes no step."""
    patches = {f"discriminator.{name}" for name in PatchAdversarySettings.model_fields}
    more = patches - {"discriminator.features", "discriminator.learning_rate"}
    others = ("kind", "objective", "ema", "replay", "distance", "evaluate_every", "student")
    added = ("face_identity", "consistency", "consistency_std")
    assert names_of(KNOBS) == settings_of(FinetuneSettings, *others, *added, *more)


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(
    knob: str, whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    tune(small_photos, targets, tmp_path / "run", small_pack, knob)
    ours, theirs = final_weights(tmp_path / "run"), final_weights(whole)
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours), f"{knob} changes nothing"


def test_the_ema_knob_turns(whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    tune(small_photos, targets, tmp_path / "run", small_pack, "ema=0")
    ours, theirs = (read_state(run / "best.safetensors")[0] for run in (tmp_path / "run", whole))
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_discriminator_sees_nothing_of_the_generators_loss(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    """With a discriminator that does not learn from its own loss, the generator's must leave it as it was."""
    states = []
    for name, weight in (("a", "0.5"), ("b", "0.001")):
        tune(small_photos, targets, tmp_path / name, small_pack, f"adversarial={weight}", max_steps=1)
        states.append(torch.load(tmp_path / name / "last" / "state.pt", weights_only=True)["discriminator"])
    # After one step both discriminators saw the same images; a contaminated gradient would differ with the weight.
    assert all(torch.allclose(states[0][key], states[1][key], atol=1e-6) for key in states[0])


def test_worse_is_not_taken(small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    """A learning rate that ruins the network: the old weights stay best, and the verdict says so."""
    outcome = tune(small_photos, targets, tmp_path / "run", small_pack, "learning_rate=0.5", "ema=0")
    assert not outcome.improved
    assert "not better than the one it started from" in outcome.verdict
    assert outcome.gain is None
    kept, _ = read_state(tmp_path / "run" / "best.safetensors")
    base = load_restorer(str(small_pack)).network.state_dict()
    assert all(torch.equal(kept[key], base[key]) for key in base)


def test_a_loss_that_is_not_finite_stops(small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    tune(small_photos, targets, tmp_path / "run", small_pack, max_steps=3)
    path = tmp_path / "run" / "last" / "state.pt"
    state = torch.load(path, weights_only=True)
    state["network"]["conv_last.bias"].fill_(float("nan"))
    torch.save(state, path)
    with pytest.raises(TrainingError, match="step 3: the l1 loss is nan; stopped at the last saved state"):
        tune(small_photos, targets, tmp_path / "run", small_pack)


def test_a_discriminators_loss_that_is_not_finite_stops(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before it learns from it: its next verdict would be the first that anybody saw."""
    place = "adapt.finetuning.discriminators.discriminator_loss"
    monkeypatch.setattr(place, lambda real, fake: real.mean() * float("inf"))
    steps: list[int] = []
    with pytest.raises(TrainingError, match=r"step 0: the discriminator loss is (nan|-?inf); stopped at the last"):
        tune(small_photos, targets, tmp_path / "run", small_pack, on_step=lambda done, *_: steps.append(done))
    assert steps == []
    assert not (tmp_path / "run" / "last" / "state.pt").exists()


def test_gradients_are_clipped(small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    """The restorer's, to a norm of 1, however large the loss; the discriminator's are its own."""
    with gradient_norms() as norms:
        tune(small_photos, targets, tmp_path / "run", small_pack, "l1=1000", "adversarial=0")
    assert norms == pytest.approx([1.0] * 6, abs=1e-4)


def test_refusals(whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"other settings, photos or weights \(seed: 0 there, 7 now\); choose another"):
        tune(small_photos, targets, whole, small_pack, "seed=7")
    with pytest.raises(UsageError, match="lies inside the photos"):
        tune(small_photos, targets, small_photos / "run", small_pack)
    with pytest.raises(UsageError, match="lies inside the targets"):
        tune(small_photos, targets, targets / "run", small_pack)
    with pytest.raises(UsageError, match=r"1 targets have no photo of the same name there, first: zz"):
        split_pairs(small_photos, {"zz": [targets / "a.png"]}, size=16, holdout=0.1, seed=0)
    with pytest.raises(UsageError, match="at least 2 accepted targets, there are 1"):
        split_pairs(small_photos, {"a": [targets / "a.png"]}, size=16, holdout=0.1, seed=0)


def test_targets_that_are_gone_or_changed_are_named(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    store = tmp_path / "store"
    opened = TargetStore(store, {})
    for id, (path,) in accepted_targets(targets).items():
        name = image_name(id, 0)
        write_image(store / name, read_image(path))
        opened.add(Record(id=id, photo="", photo_sha256="", status="done", target=name,
                          target_sha256=file_digest(store / name)))
    (store / "images" / "b.png").unlink()
    message = rf"{store}: 1 of 6 targets are gone or empty, first: \S*b\.png; run generate-targets"
    for _ in range(2):
        with pytest.raises(UsageError, match=message):
            tune(small_photos, store, tmp_path / "run", small_pack)
        (store / "images" / "b.png").touch()
    write_image(store / "images" / "b.png", read_image(targets / "b.png"), overwrite=True)
    assert not (tmp_path / "run").exists()
    before = tune(small_photos, store, tmp_path / "run", small_pack, max_steps=1)
    assert before.notes == ()
    for id in ("a", "b", "deep/c", "e", "f"):  # as by hand: whichever are held back, this is seen in the scores
        write_image(store / "images" / f"{id}.png", 1 - read_image(targets / f"{id}.png"), overwrite=True)
    with pytest.raises(UsageError, match="holds a run with other settings, photos or weights"):
        tune(small_photos, store, tmp_path / "run", small_pack, max_steps=1)
    after = tune(small_photos, store, tmp_path / "corrected", small_pack, max_steps=1)
    first = store / "images" / "a.png"
    assert after.notes == (f"5 targets were changed after being made, and used as now; first: {first}.",)
    assert after.base != before.base


def test_a_run_is_of_every_photo_those_validation_too(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    photos, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(small_photos, photos)
    tune(photos, targets, run, small_pack, max_steps=1)
    for path in sorted(photos.rglob("*.png")):
        before = path.read_bytes()
        write_image(path, 1 - read_image(path), overwrite=True)
        with pytest.raises(UsageError, match="other settings, photos or weights"):
            tune(photos, targets, run, small_pack, max_steps=1)
        path.write_bytes(before)
    tune(photos, targets, run, small_pack, max_steps=1)


def test_targets_without_a_photo(small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    """Of a store they are left out, and counted; of a plain folder they are refused, and so is a run of others."""
    photos, store, run = tmp_path / "photos", tmp_path / "store", tmp_path / "run"
    shutil.copytree(small_photos, photos)
    opened = TargetStore(store, {})
    for id, (path,) in accepted_targets(targets).items():
        opened.add(Record(id=id, photo="", photo_sha256="", status="done", target=str(path)))
    tune(photos, store, run, small_pack, max_steps=1)
    for name in ("b.png", "deep/c.png"):
        (photos / name).unlink()
    with pytest.raises(UsageError, match="other settings, photos or weights"):
        tune(photos, store, run, small_pack, max_steps=1)
    outcome = tune(photos, store, tmp_path / "other", small_pack, max_steps=1)
    assert outcome.trained + outcome.validation == 4
    assert outcome.notes == ("2 photos that have targets are not there any more, and left out; first: b.",)
    with pytest.raises(UsageError, match="2 of 6 targets have no photo of the same name there, first: b"):
        tune(photos, targets, tmp_path / "plain", small_pack)
    (tmp_path / "others").mkdir()
    shutil.copy(small_photos / "a.png", tmp_path / "others" / "x.png")
    with pytest.raises(UsageError, match="6 of 6 targets have no photo"):
        tune(tmp_path / "others", store, tmp_path / "plain", small_pack)


def test_a_photo_that_became_another_is_not_paired_with_its_old_target(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    photos = shutil.copytree(small_photos, tmp_path / "photos")
    opened = TargetStore(tmp_path / "store", {})
    for id, (path,) in accepted_targets(targets).items():
        made_of = file_digest(photos / f"{id}.png")
        opened.add(Record(id=id, photo="", photo_sha256=made_of, status="done", target=str(path)))
    assert tune(photos, tmp_path / "store", tmp_path / "whole", small_pack, max_steps=1).notes == ()
    shutil.copy(small_photos / "b.png", photos / "a.png")
    outcome = tune(photos, tmp_path / "store", tmp_path / "run", small_pack, max_steps=1)
    assert outcome.trained + outcome.validation == 5
    assert outcome.notes == ("1 photo is another than the target was made of, and left out; first: a.",)
    for path in photos.rglob("*.png"):
        write_image(path, 1 - read_image(path), overwrite=True)
    with pytest.raises(UsageError, match="none of 6 photos is the one that its target was made of; run generate-targe"):
        tune(photos, tmp_path / "store", tmp_path / "none", small_pack, max_steps=1)


def test_a_sharp_face_that_cannot_be_read_gives_its_place_to_the_next(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    real = tmp_path / "real"
    real.mkdir()
    for name in ("0.png", "2.png"):
        (real / name).write_bytes(b"no image")
    shutil.copy(small_photos / "a.png", real / "1.png")
    outcome = tune(small_photos, targets, tmp_path / "run", small_pack, "adversarial=0.1", real=real)
    assert [note.partition("; first")[0] for note in outcome.notes] == [
        "2 of the sharp faces cannot be read, and the next had the place"
    ]
    assert str(real / "0.png") in outcome.notes[0]
    (real / "1.png").unlink()
    with pytest.raises(PhotoError, match=r"none of 2 faces can be read, first: .*0\.png"):
        tune(small_photos, targets, tmp_path / "none", small_pack, "adversarial=0.1", real=real)


def test_few_validation_photos_are_named_in_the_verdict():
    gain = Interval(0.1, 0.05, 0.15, 4)
    told = dict.fromkeys((1, 3, 4), "")
    for validation in told:
        for improved in (True, False):
            parts = {"l1": 1.0, "perceptual": 1.0}
            outcome = Outcome(improved, 1, parts, parts, gain if improved else None, 2 * validation, validation, 0, 0)
            told[validation] += outcome.verdict
    assert told[1].count("1 validation photo alone") == 2
    assert "on 1 validation photo (" in told[1]
    assert told[3].count("3 validation photos alone") == 2
    assert "alone" not in told[4]


def test_it_trains_on_the_device_that_is_named(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever accelerate would choose; processes that share a training each have their own."""
    from accelerate import PartialState

    tune(small_photos, targets, tmp_path / "plain", small_pack)
    monkeypatch.setattr(PartialState, "default_device", torch.device("meta"))
    PartialState._reset_state()  # it is asked only once in a process
    for _ in range(2):
        tune(small_photos, targets, tmp_path / "run", small_pack, device="cpu", max_steps=3)
    assert_same(tmp_path / "plain", tmp_path / "run")
    monkeypatch.setattr("adapt.devices.processes", lambda device=None: SimpleNamespace(num_processes=2))
    with pytest.raises(UsageError, match="--device cpu: 2 processes train together, each on its own device"):
        tune(small_photos, targets, tmp_path / "other", small_pack, device="cpu")


def test_scores_are_of_the_network_in_float32_whatever_it_trains_in(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path, half_precision: None
):
    """Weights that do not move score as they did at the start, to the last bit."""
    still = ("learning_rate=1e-30", "final_learning_rate=1e-30", "ema=0")
    outcome = tune(small_photos, targets, tmp_path / "run", small_pack, *still)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scored = [line["validation/l1"] for line in lines if "validation/l1" in line]
    assert scored == [outcome.base["l1"]] * len(scored) != []


def test_each_step_sees_one_of_a_photos_targets(small_photos: Path, targets: Path, gen: torch.Generator):
    """Every one of them in time, those of other photos never; without a generator the first."""
    paths = [path for found in accepted_targets(targets).values() for path in found]
    given = {"a": paths[:1], "b": paths[1:4], "deep/c": paths[4:6]}
    train, validation = split_pairs(small_photos, given, size=16, holdout=0.1, seed=0)
    for split in (train, validation):
        for index, id in enumerate(split.ids):
            own = {image.numpy().tobytes() for image in ImageDataset(given[id], 16).batch(range(len(given[id])))}
            drawn = [split.any_targets([index], gen)[0].numpy().tobytes() for _ in range(40)]
            assert set(drawn) == own
            first = ImageDataset(given[id], 16).batch([0])
            assert torch.equal(split.first_targets([index]), first)


def test_damage_is_laid_over_other_targets(small_photos: Path, targets: Path, gen: torch.Generator):
    """What changes is a target with the damage of one of the photos, as often as asked; clipped and never mixed."""
    found = {id: paths[:1] for id, paths in accepted_targets(targets).items()}
    train, _ = split_pairs(small_photos, found, size=16, holdout=0.1, seed=0)
    everyone = list(range(len(train.ids)))
    pairs = train.photos.batch(everyone), train.first_targets(everyone)
    possible = (pairs[1][:, None] + (pairs[0] - pairs[1])[None]).clamp(0, 1)
    changed = 0
    for _ in range(60):
        photos, towards = transplant(pairs, train, everyone, share=0.5, generator=gen)
        assert torch.equal(towards, pairs[1])
        for place, photo in enumerate(photos):
            same = torch.equal(photo, pairs[0][place])
            assert same or any(torch.allclose(photo, other, atol=1e-6) for other in possible[place])
            changed += not same
    expected = 60 * len(everyone) * 0.5
    assert abs(changed - expected) < 4 * (expected * 0.5) ** 0.5 + expected / len(everyone)
    assert torch.equal(transplant(pairs, train, everyone, share=0.0, generator=gen)[0], pairs[0])


def test_damage_is_what_a_photo_has_over_any_of_its_targets(
    small_photos: Path, targets: Path, gen: torch.Generator
):
    """Of several targets of a photo each is taken in time, and all of them lie on one side."""
    paths = [path for found in accepted_targets(targets).values() for path in found]
    given = {"a": paths[:2], "b": paths[2:4], "deep/c": paths[4:6]}
    train, validation = split_pairs(small_photos, given, size=16, holdout=0.1, seed=0)
    assert [len(split.targets) for split in (train, validation)] == [4, 2]
    everyone = list(range(len(train.ids)))
    pairs = train.photos.batch(everyone), train.first_targets(everyone)
    possible = {
        (index, draw): train.photos.batch([index])[0] - train.targets.batch([draw])[0]
        for index in everyone for draw in train.draws[index]
    }  # fmt: skip
    met: set[tuple[int, int]] = set()
    for _ in range(60):
        photos, towards = transplant(pairs, train, everyone, share=1.0, generator=gen)
        for photo, target in zip(photos, towards, strict=True):
            found = [key for key, damage in possible.items()
                     if torch.allclose(photo, (target + damage).clamp(0, 1), atol=1e-6)]
            assert found
            met.update(found)
    assert met == set(possible)


def test_more_targets_of_the_same_change_no_score(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    """Validation photos count once however many targets they have."""
    photos = sorted(targets.rglob("*.png"))
    repeated = tmp_path / "store"
    lines = []
    for image in photos:
        id = image.relative_to(targets).with_suffix("").as_posix()
        for draw in range(1 + len(id) % 3):
            name = image_name(id, draw)
            (repeated / name).parent.mkdir(parents=True, exist_ok=True)
            (repeated / name).write_bytes(image.read_bytes())
            record = {"id": id, "draw": draw, "photo": "", "photo_sha256": "", "status": "done", "target": name}
            lines.append(json.dumps(record) + "\n")
    write_json(repeated / "store.json", marked("target store", {}))
    (repeated / "manifest.jsonl").write_text("".join(lines))
    outcomes = [tune(small_photos, store, tmp_path / store.name / "run", small_pack, max_steps=1).base
                for store in (targets, repeated)]
    assert outcomes[0] == pytest.approx(outcomes[1], rel=1e-6)


def test_a_photo_that_cannot_be_read_stops_before_the_first_step(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    photos = tmp_path / "photos"
    for id, path in accepted_targets(small_photos).items():
        write_image(photos / f"{id}.png", read_image(path[0]))
    (photos / "f.png").write_bytes(b"not an image")
    with pytest.raises(PhotoError, match=r"f\.png"):
        tune(photos, targets, tmp_path / "run", small_pack, max_steps=1, on_step=lambda *_: pytest.fail("a step"))


@pytest.mark.parametrize(
    ("count", "holdout", "expected"),
    [(2, 0.1, 1), (5, 0.1, 1), (6, 0.1, 2), (11, 0.1, 3), (12, 0.1, 4), (20, 0.1, 4), (20, 0.01, 4), (60, 0.1, 6),
     (20, 0.5, 10), (4, 0.99, 3)],
)  # fmt: skip
def test_enough_photos_are_validation_to_choose_by(count: int, holdout: float, expected: int, tmp_path: Path):
    ids = [f"{index:02}" for index in range(count)]
    for id in ids:
        (tmp_path / f"{id}.png").write_text(id)
    train, validation = split_pairs(tmp_path, {id: [Path(id)] for id in ids}, size=16, holdout=holdout, seed=0)
    assert len(validation.ids) == expected
    assert sorted(train.ids + validation.ids) == ids


@pytest.mark.parametrize("seed", range(8))
def test_copies_of_a_photo_lie_on_one_side(seed: int, tmp_path: Path):
    """And count once: of 8 different photos, 2 are held back with their copies."""
    contents = {f"{photo}{copy}": photo for photo in "abcdefgh" for copy in range(1 + ord(photo) % 3)}
    for id, photo in contents.items():
        (tmp_path / f"{id}.png").write_text(photo)
    sides = split_pairs(tmp_path, {id: [Path(id)] for id in contents}, size=16, holdout=0.1, seed=seed)
    train, validation = ({contents[id] for id in side.ids} for side in sides)
    assert not train & validation
    assert (len(train), len(validation)) == (6, 2)
    assert sum(len(side.ids) for side in sides) == len(contents)
    with pytest.raises(UsageError, match="at least 2 different photos; these 2 are copies or faces of one"):
        split_pairs(tmp_path, {id: [Path(id)] for id in ("a0", "a1")}, size=16, holdout=0.1, seed=seed)


def test_a_photo_more_moves_at_most_one_across(tmp_path: Path):
    before: set[str] = set()
    for count in range(2, 50):
        ids = [f"{index:02}" for index in range(count)]
        for id in (ids[0], ids[-1]):
            (tmp_path / f"{id}.png").write_text(id)
        _, validation = split_pairs(tmp_path, {id: [Path(id)] for id in ids}, size=16, holdout=0.1, seed=0)
        assert len(before ^ (set(validation.ids) - {ids[-1]})) <= 1
        before = set(validation.ids)


def test_validation_photos_stay_validation(small_photos: Path, targets: Path):
    accepted = accepted_targets(targets)
    _, validation = split_pairs(small_photos, accepted, size=16, holdout=0.34, seed=0)
    fewer = {id: path for id, path in accepted.items() if id in validation.ids or id < "e"}
    train, _ = split_pairs(small_photos, fewer, size=16, holdout=0.34, seed=0)
    assert len(set(train.ids) & set(validation.ids)) <= 1


@pytest.mark.parametrize("damage", [b"", b"garbage", b"cut"])
def test_a_damaged_state_of_a_run_is_named(
    damage: bytes, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    run = tmp_path / "run"
    tune(small_photos, targets, run, small_pack, max_steps=1)
    for name, message in (
        ("run.json", r"run\.json: is damaged \(.*\); choose another folder, or put the file back"),
        ("last/state.pt", r"state\.pt: is damaged, no state of a training; put it back from a copy, or start anew"),
        ("log.jsonl", r"log\.jsonl, line 2: is damaged \(not JSON.*\); remove that line"),
    ):
        whole = (run / name).read_bytes()
        content = whole[: len(whole) // 2] if damage == b"cut" else damage
        if name == "log.jsonl":
            content = whole.splitlines(keepends=True)[0] + b"garbage\n"
        (run / name).write_bytes(content)
        with pytest.raises(UsageError, match=message):
            tune(small_photos, targets, run, small_pack, max_steps=1)
        (run / name).write_bytes(whole)
    (run / "run.json").write_bytes(b"\xef\xbb\xbf" + (run / "run.json").read_bytes())
    tune(small_photos, targets, run, small_pack, max_steps=1)
