"""The gate: what a target kept of its photo, which is refused, and what is drawn again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from knobs import settings_of
from torch import Tensor

from adapt.commands.generate_targets import generate_targets
from adapt.digests import photo_seed
from adapt.errors import UsageError
from adapt.loading import load_landmarks, load_recogniser
from adapt.photos.files import read_image
from adapt.settings import GateSettings, LikenessSettings
from adapt.targets.gate import CHECKS, Candidate, Finding, judge
from adapt.targets.likeness import BLOCKS, FaceNetworks, Likeness, likeness
from adapt.targets.store import read_records
from degradations.cosines import gaussian_blur

PEOPLE = sorted((ROOT / "adapt" / "demo_data" / "clean").glob("face-*.png"))[:2]


@pytest.fixture(scope="module")
def networks() -> FaceNetworks:
    return FaceNetworks(load_recogniser("tiny"), load_landmarks("tiny"))


@pytest.fixture(scope="module")
def face() -> Tensor:
    return read_image(PEOPLE[0])


def blurred(image: Tensor, std: float) -> Tensor:
    return gaussian_blur(image[None], torch.tensor([std]))[0].clamp(0, 1)


def without_a_patch(face: Tensor) -> Tensor:
    """As if something dark, such as a beard, were gone: three blocks by three."""
    shaved = face.clone()
    shaved[:, 88:112, 56:80] = (shaved[:, 88:112, 56:80] + 0.3).clamp(0, 1)
    return shaved


# ---------------------------------------------------------------- what is measured


def test_what_is_the_same_kept_everything(face: Tensor, networks: FaceNetworks):
    kept = likeness(face, face, face, networks)
    assert (kept.identity, kept.landmarks, kept.departure, kept.region, kept.colour) == (0, 0, 0, 0, 0)
    assert kept.sharpness == 1
    assert kept.own_std == pytest.approx(0.025), "photo and restored photo agree as they are"


def test_detail_that_the_photo_does_not_show_is_free(face: Tensor, networks: FaceNetworks):
    """A blurred photo, restored to something blurred as well, and a target that is sharp: the person is the same."""
    photo, restored = blurred(face, 6.0), blurred(face, 0.7)
    kept = likeness(face, restored, photo, networks)
    assert kept.own_std > 0.3
    assert kept.sharpness > 1.5
    assert kept.identity < 0.4
    assert kept.region < 0.05


DEPARTURES: dict[str, tuple[Callable[[Tensor], Tensor], LikenessSettings, str]] = {
    "identity": (lambda face: read_image(PEOPLE[1]), LikenessSettings(max_identity=0.8), "another person"),
    "landmarks": (
        lambda face: torch.roll(face, 8, dims=1), LikenessSettings(max_landmarks=0.1), "features elsewhere",
    ),
    "departure": (lambda face: 1 - face, LikenessSettings(max_departure=0.05), "farther from the photo"),
    "region": (without_a_patch, LikenessSettings(max_region_change=0.15), "lost or gained something"),
    "colour": (
        lambda face: face * torch.tensor([1.0, 1.0, 0.8])[:, None, None], LikenessSettings(max_colour_shift=0.04),
        "another colour",
    ),
    "sharpness": (lambda face: blurred(face, 1.0), LikenessSettings(min_sharpness=0.9), "blurrier than R"),
}


@pytest.mark.parametrize("name", DEPARTURES)
def test_what_is_lost_is_told(name: str, face: Tensor, networks: FaceNetworks):
    """Refused with its reason, where its limit is set, and only noted where none is."""
    change, limits, reason = DEPARTURES[name]
    target = change(face)
    candidate = Candidate(
        target=target, towards=face, photo=face, likeness=likeness(target, face, face, networks)
    )
    said, scores = judge(candidate, GateSettings(likeness=limits, max_low_frequency_change=1))
    assert reason in str(said)
    assert set(scores) == set(CHECKS)
    assert judge(candidate, GateSettings(likeness=LikenessSettings(), max_low_frequency_change=1)) == (None, scores)
    same = Candidate(target=face, towards=face, photo=face, likeness=likeness(face, face, face, networks))
    assert judge(same, GateSettings(likeness=limits))[0] is None
    assert set(judge(same, GateSettings())[1]) == {"contrast", "low_frequency_change"}, "nothing else is asked"


def test_every_limit_is_held_above():
    held = {name for _, limits, _ in DEPARTURES.values() for name, value in limits if value is not None}
    assert held == settings_of(LikenessSettings) - {"believed_to"}
    measured = set(Likeness.__dataclass_fields__) - {"own_std"}
    assert set(DEPARTURES) == measured == set(CHECKS) - {"contrast", "low_frequency_change"}


def test_where_photo_and_restored_photo_are_blotches_nothing_is_asked(
    face: Tensor, networks: FaceNetworks, gen: torch.Generator
):
    """Only noted: under noise that leaves nothing of a face they agree under the largest blur alone."""
    photo = (face + 0.6 * torch.randn(face.shape, generator=gen)).clamp(0, 1)
    kept = likeness(1 - face, face, photo, networks)
    candidate = Candidate(target=1 - face, towards=face, photo=photo, likeness=kept)
    edge = kept.own_std * 512 / face.shape[-1]
    for believed, refused in ((None, True), (edge + 0.1, True), (edge - 0.1, False)):
        limits = LikenessSettings(max_departure=0.05, believed_to=believed)
        said, scores = judge(candidate, GateSettings(likeness=limits, max_low_frequency_change=1))
        assert (said is not None) == refused
        assert set(scores) == set(CHECKS)


def test_a_block_is_as_large_as_what_may_be_lost(face: Tensor):
    assert face.shape[-1] // BLOCKS == 8


# ---------------------------------------------------------------- what is drawn again

QUICK = ["guidance.0.factor=4", "steps=4", "gate.max_low_frequency_change=1", "gate.min_contrast=0"]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A gate that refuses so many targets of each photo; it sees what it refused."""

    def refusing(count: int) -> None:
        seen: dict[bytes, int] = {}

        def check(candidate: Candidate, settings: GateSettings) -> Finding:
            photo = candidate.photo.numpy().tobytes()
            seen[photo] = seen.get(photo, 0) + 1
            return Finding(0, 0, "not yet" if seen[photo] <= count else None)

        monkeypatch.setitem(CHECKS, "again", check)

    return refusing


def test_what_is_refused_is_drawn_again(
    refuse: Callable[[int], None], small_photos: Path, small_pack: Path, tmp_path: Path
):
    """With other noise first, then from half as far each time; the manifest says how often, and why in the end not."""

    def made(refused: int, redraws: int) -> list[tuple[object, ...]]:
        refuse(refused)
        records = generate_targets(
            small_photos, tmp_path / f"{refused}-{redraws}", pack=small_pack, method="low-frequency", limit=2,
            overrides=[*QUICK, f"gate.redraws={redraws}"], device="cpu",
        ).records
        for record in records:
            assert record.seed == photo_seed(0, record.photo_sha256, 0, record.redrawn)
            assert record.refused == ["not yet"] * record.redrawn
        return [(each.status, each.redrawn, each.start_t, each.evaluations, each.reason) for each in records]

    assert made(0, 3) == [("done", 0, 600, 4, None)] * 2
    assert made(1, 3) == [("done", 1, 600, 4, None)] * 2
    assert made(2, 3) == [("done", 2, 300, 3, None)] * 2
    assert made(3, 3) == [("done", 3, 150, 2, None)] * 2
    assert made(9, 3) == [("rejected", 3, 150, 2, "not yet")] * 2
    assert made(9, 0) == [("rejected", 0, 600, 4, "not yet")] * 2


def test_what_was_not_drawn_is_not_drawn_again(
    refuse: Callable[[int], None], small_photos: Path, small_pack: Path, tmp_path: Path
):
    refuse(9)
    restrained = ["restraint={ratio: [99], latest_t: [0]}", "gate.redraws=3"]
    (record,) = generate_targets(
        small_photos, tmp_path / "store", pack=small_pack, method="low-frequency", limit=1,
        overrides=[*QUICK, *restrained], device="cpu",
    ).records
    assert (record.status, record.redrawn, record.start_t, record.evaluations) == ("rejected", 0, 0, 0)
    assert record.change_ratio is not None


def test_a_target_drawn_again_is_the_same_in_every_shard_and_after_a_stop(
    small_photos: Path, dynamic_pack: Path, tmp_path: Path
):
    """By a limit that some targets pass at once and others do not, on blur levels of the photos' own."""
    limits = ["steps=6", "gate.max_low_frequency_change=1", "gate.min_contrast=0", "gate.redraws=3", "fallback=null"]

    def make(out: Path, *more: str, **options: object) -> dict[str, bytes]:
        generate_targets(
            small_photos, out, pack=dynamic_pack, method="adaptive", overrides=[*limits, *more], device="cpu",
            **options,  # pyright: ignore[reportArgumentType]
        )
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}

    make(tmp_path / "noted", "gate.likeness={}")
    scores = sorted(record.scores["region"] for record in read_records(tmp_path / "noted"))
    limit = f"gate.likeness={{max_region_change: {(scores[2] + scores[3]) / 2}}}"
    whole = make(tmp_path / "whole", limit)
    again = [record.redrawn for record in read_records(tmp_path / "whole")]
    assert 0 in again
    assert max(again) > 0
    for shard in ((0, 2), (1, 2)):
        parts = make(tmp_path / "parts", limit, shard=shard)
    assert parts == whole
    make(tmp_path / "stopped", limit, limit=3)
    assert make(tmp_path / "stopped", limit) == whole
    lines = [
        [(each.id, each.redrawn, each.seed, each.start_t, each.scores) for each in read_records(tmp_path / name)]
        for name in ("whole", "parts", "stopped")
    ]
    assert lines[0] == lines[1] == lines[2]


def test_the_public_codes_targets_are_drawn_once(small_photos: Path, small_pack: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"draws each target once; leave out gate\.redraws"):
        generate_targets(
            small_photos, tmp_path / "store", pack=small_pack, method="low-frequency",
            overrides=["guidance.0.factor=4", "solver=ddpm", "steps=6", "compat=dt-bfr", "gate.redraws=1"],
        )
