"""Target generation: resumed, sharded, batched and refused."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import kill_and_repeat
from knobs import names_of, settings_of
from PIL import Image
from torch import Tensor

from adapt.commands.generate_targets import generate_targets
from adapt.errors import UsageError
from adapt.evaluation.sheets import GAP
from adapt.guidance.maps import SHOWN_STEPS
from adapt.photos.files import read_image
from adapt.settings import GateSettings, LowFrequencySettings, TargetSettings
from adapt.targets.gate import CHECKS, Candidate, Finding, judge
from adapt.targets.methods import TargetMaker
from adapt.targets.restored import match_mean_luminance
from adapt.targets.store import Record, TargetStore, accepted_targets, maps_name, read_records

QUICK = ["guidance.0.factor=4", "steps=3", "batch=2", "gate.max_low_frequency_change=1", "gate.min_contrast=0"]


def make(photos: Path, out: Path, pack: Path, *more: str, **options: object):
    return generate_targets(
        photos, out, pack=str(pack), method="low-frequency", overrides=[*QUICK, *more], device="cpu", **options  # pyright: ignore[reportArgumentType]
    )


def contents(store: Path) -> dict[str, bytes]:
    """Every file that a store promises, by name."""
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in sorted(store.rglob("*.png"))}


@pytest.fixture(scope="module")
def whole(small_photos: Path, small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("targets") / "store"
    assert make(small_photos, out, small_pack).count("done") == 6
    return out


def test_a_store_is_what_it_says(whole: Path):
    records = read_records(whole)
    assert [record.id for record in records] == ["a", "b", "deep/c", "deep/d é 测", "e", "f"]
    assert all((whole / str(r.target)).is_file() and r.evaluations == 3 for r in records)
    assert list(accepted_targets(whole)) == [record.id for record in records]


KNOBS = [
    ["seed=1"], ["steps=4"], ["start_t=500"], ["guidance.0.factor=8"], ["guidance.0.last_t=100"], ["solver=dpm++2m"],
    ["solver=ddim"], ["solver=ddim", "eta=0.5"], ["compat=dt-bfr", "steps=6"], ["match_mean_luminance=false"],
    ["guidance.0.acts_on=x0"], ["end_t=200"], ["mean_of=2"], ["restraint={ratio: [99], latest_t: [0]}"],
    ["photo_share={most: 0.5, lightness: [1e8, 1e9], colour: [1e8, 1e9]}"], ["mirrored=true"],
    ["light_by_noise=1e9"],
]


def test_every_setting_is_turned_below():
    """What needs the blur level is turned in test_methods.py, prior and restorer in test_identity_training.py.

    The batch must change nothing; draws, gate: others.
    """
    gate = ("gate.max_low_frequency_change", "gate.min_contrast", "gate.likeness", "gate.redraws")
    others = ("kind", "method", "guidance", "fallback", "reliability", "batch", "draws", "prior", "restorer", *gate)
    terms = {f"guidance.0.{name}" for name in settings_of(LowFrequencySettings, "name")}
    assert names_of(itertools.chain(*KNOBS)) == settings_of(TargetSettings, *others) | terms


@pytest.mark.parametrize("knobs", KNOBS)
def test_every_knob_turns(knobs: list[str], whole: Path, small_photos: Path, small_pack: Path, tmp_path: Path):
    make(small_photos, tmp_path / "store", small_pack, *knobs, limit=1)
    made = contents(tmp_path / "store")
    assert list(made) == ["images/a.png"]
    assert made["images/a.png"] != contents(whole)["images/a.png"], f"{knobs} changes nothing"


@pytest.mark.parametrize("batch", [1, 4])
def test_shards_and_batch_settings_change_no_bit(
    batch: int, whole: Path, small_photos: Path, small_pack: Path, tmp_path: Path
):
    for shard in ((0, 2), (1, 2)):
        make(small_photos, tmp_path / "store", small_pack, f"batch={batch}", shard=shard)
    assert [r.id for r in read_records(tmp_path / "store")] == [r.id for r in read_records(whole)]
    assert contents(tmp_path / "store") == contents(whole)


@pytest.mark.parametrize("order", list(itertools.permutations([(0, 1), (0, 2), (2, 3)])))
def test_the_last_line_counts_whichever_manifest_it_stands_in(order: tuple[tuple[int, int], ...], tmp_path: Path):
    for number, shard in enumerate(order):
        store = TargetStore(tmp_path, {"name": "x"}, shard=shard)
        for reason in (f"{number}", f"{number}, again", f"{number}, again"):
            store.add(Record(id="a", photo="a.png", photo_sha256="", status="failed", reason=reason))
        assert [record.reason for record in read_records(tmp_path)] == [f"{number}, again"]
    lines = [line for manifest in tmp_path.glob("manifest*.jsonl") for line in manifest.read_text().splitlines()]
    assert sorted(json.loads(line)["revision"] for line in lines) == list(range(6))


def test_a_target_alone_is_that_of_a_folder(whole: Path, small_photos: Path, small_pack: Path, tmp_path: Path):
    make(small_photos / "f.png", tmp_path / "store", small_pack)
    assert list(contents(tmp_path / "store").values()) == [contents(whole)["images/f.png"]]


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: its batches differ in the last bits, as no CPU's do"
))]


@pytest.mark.parametrize("method", ["low-frequency", "adaptive"])
@pytest.mark.parametrize("device", DEVICES)
def test_batches_stay_within_a_level(
    device: str, method: str, small_photos: Path, dynamic_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of each target made alone on the same device; and a photo's way is the same."""
    settings = ["guidance.0.factor=4"] if method == "low-frequency" else []
    settings += ["steps=6", "gate.max_low_frequency_change=1", "gate.min_contrast=0"]
    ways: dict[int, list[tuple[object, ...]]] = {}
    for batch in (1, 2, 4, 6):
        monkeypatch.setattr("adapt.targets.generate.at_a_time", lambda settings, device, size=batch: size)
        records = generate_targets(
            small_photos, tmp_path / str(batch), pack=dynamic_pack, method=method, overrides=settings, device=device
        ).records
        assert [record.status for record in records] == ["done"] * 6
        ways[batch] = [(r.id, r.start_t, r.evaluations, r.factor, r.fallback) for r in records]
        assert ways[batch] == ways[1]
        for name in contents(tmp_path / "1"):
            got, alone = (read_image(tmp_path / each / name) for each in (str(batch), "1"))
            assert float((got - alone).abs().max()) <= 1.01 / 255, f"within one 8-bit level in a batch of {batch}"


@pytest.mark.parametrize("fails", [False, True])
def test_networks_run_in_full_precision_and_settings_come_back(
    fails: bool, small_photos: Path, dynamic_pack: Path, tmp_path: Path
):
    """Of all of them, the restorer's among them; also where something goes wrong on the way."""
    convolutions = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    products = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    seen: list[tuple[object, object]] = []

    def watched(module: torch.nn.Module, inputs: object) -> None:
        seen.append((convolutions.fp32_precision, products.fp32_precision))
        if fails and len(seen) == 30:
            raise RuntimeError("in the middle")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(watched)
    try:
        convolutions.fp32_precision = products.fp32_precision = "tf32"
        with pytest.raises(RuntimeError, match="in the middle") if fails else nullcontext():
            make_adaptive(small_photos, tmp_path / "store", dynamic_pack, limit=1)
        assert (convolutions.fp32_precision, products.fp32_precision) == ("tf32", "tf32")
    finally:
        hook.remove()
        convolutions.fp32_precision, products.fp32_precision = before
    assert len(seen) >= 30
    assert set(seen) == {("ieee", "ieee")}


def test_a_stop_between_photos_changes_nothing(whole: Path, small_photos: Path, small_pack: Path, tmp_path: Path):
    class Stop(Exception):
        pass

    def stop(record: object, done: int, total: int) -> None:
        if done == 3:
            raise Stop

    out = tmp_path / "store"
    with pytest.raises(Stop):
        make(small_photos, out, small_pack, on_photo=stop)
    with (out / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"id": "deep/d')  # a line that a crash cut short
    make(small_photos, out, small_pack)
    assert contents(out) == contents(whole)
    assert (out / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()


def test_kill_and_resume(whole: Path, small_photos: Path, small_pack: Path, tmp_path: Path):
    """kill -9 in the middle; the same command again ends in the same manifest and images."""
    out = tmp_path / "store"
    kill_and_repeat(
        out / "manifest.jsonl", "generate-targets", small_photos, "-o", out, "--pack", small_pack,
        "--method", "low-frequency", "--device", "cpu", "--threads", 1, *QUICK,
    )
    assert contents(out) == contents(whole)
    assert (out / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()


def test_a_target_that_is_gone_or_empty_is_made_again(small_photos: Path, small_pack: Path, tmp_path: Path):
    out = tmp_path / "store"
    make(small_photos, out, small_pack, limit=2)
    before = contents(out)
    (out / "images" / "a.png").write_bytes(b"")
    (out / "images" / "b.png").unlink()
    assert make(small_photos, out, small_pack, limit=2).kept == ()
    assert contents(out) == before


def test_a_bad_photo_is_named_and_the_rest_goes_on(small_photos: Path, small_pack: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        (photos / name).write_bytes((small_photos / name).read_bytes())
    (photos / "aa.png").write_bytes(b"not an image")
    summary = make(photos, tmp_path / "store", small_pack)
    assert (summary.count("done"), summary.count("failed")) == (2, 1)
    assert ["aa.png" in str(r.reason) for r in read_records(tmp_path / "store")] == [False, True, False]


def test_draws_are_targets_of_other_noise(whole: Path, small_photos: Path, small_pack: Path, tmp_path: Path):
    """The first draw is that of a store with one; each has its folder and its line, and stops change nothing."""
    class Stop(Exception):
        pass

    def stop(record: object, done: int, total: int) -> None:
        if (done, total) == (4, 9):  # the first draw of the second photo
            raise Stop

    settings = ["draws=3", "solver=ddim", "eta=1"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert make(small_photos, once, small_pack, *settings, limit=3).count("done") == 9
    with pytest.raises(Stop):
        make(small_photos, twice, small_pack, *settings, limit=3, on_photo=stop)
    make(small_photos, twice, small_pack, *settings, limit=3)
    assert contents(once) == contents(twice)
    assert (once / "manifest.jsonl").read_bytes() == (twice / "manifest.jsonl").read_bytes()
    records = read_records(once)
    assert [(r.id, r.draw) for r in records] == [(id, draw) for id in ("a", "b", "deep/c") for draw in range(3)]
    assert len({r.seed for r in records}) == len({r.target_sha256 for r in records}) == 9
    assert {id: [path.parent.name for path in paths] for id, paths in accepted_targets(once).items()}["a"] == [
        "images", "images-2", "images-3"
    ]
    single = tmp_path / "single"
    make(small_photos, single, small_pack, *settings, "draws=1", limit=1)
    difference = read_image(single / "images" / "a.png") - read_image(once / "images" / "a.png")
    assert float(difference.abs().max()) <= 1.01 / 255


def test_an_unreadable_photo_fails_once(small_photos: Path, small_pack: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes((small_photos / "a.png").read_bytes())
    (photos / "aa.png").write_bytes(b"not an image")
    (photos / "ab.png").symlink_to("gone.png")
    os.mkfifo(photos / "ac.png")
    store, seen = tmp_path / "store", list[tuple[str, int, int]]()

    def see(record: Record, done: int, total: int) -> None:
        seen.append((record.id, done, total))

    summary = make(photos, store, small_pack, "draws=3", on_photo=see)
    failed = [("aa", 6, 12), ("ab", 9, 12), ("ac", 12, 12)]
    assert seen == [*(("a", done, 12) for done in (1, 2, 3)), *failed], "all draws at once"
    became = [(r.id, r.draw, r.status) for r in summary.records]
    assert became == [*(("a", draw, "done") for draw in range(3)), *((id, 0, "failed") for id in ("aa", "ab", "ac"))]
    reasons = [(record.reason or "").rpartition(": ")[2] for record in summary.records[-2:]]
    assert reasons == ["no such file", "not a regular file"]

    lines = (store / "manifest.jsonl").read_bytes()
    seen.clear()
    assert make(photos, store, small_pack, "draws=3", on_photo=see).records == summary.records
    assert seen == failed, "tried again, and named again"
    assert (store / "manifest.jsonl").read_bytes() == lines, "with nothing new to write down"
    (photos / "aa.png").write_bytes(b"no image either")
    make(photos, store, small_pack, "draws=3")
    assert len((store / "manifest.jsonl").read_bytes().splitlines()) == len(lines.splitlines()) + 1
    (photos / "aa.png").write_bytes((small_photos / "b.png").read_bytes())
    assert make(photos, store, small_pack, "draws=3").count("done") == 6


ADAPTIVE = ["steps=6", "gate.max_low_frequency_change=1", "gate.min_contrast=0"]


def make_adaptive(photos: Path, out: Path, pack: Path, *more: str, **options: object):
    return generate_targets(photos, out, pack=pack, overrides=[*ADAPTIVE, *more], device="cpu", **options)  # pyright: ignore[reportArgumentType]


def sheets(store: Path) -> dict[str, bytes]:
    """The images of guidance maps in a store, by name."""
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in sorted(store.rglob("*.jpg"))}


def test_maps_are_drawn_beside_targets_that_stay_the_same(small_photos: Path, dynamic_pack: Path, tmp_path: Path):
    """Each photo's own, as wide as its way has steps to show; draws have their own folders."""
    plain, drawn = tmp_path / "plain", tmp_path / "drawn"
    make_adaptive(small_photos, plain, dynamic_pack, "draws=2", limit=3)
    summary = make_adaptive(small_photos, drawn, dynamic_pack, "draws=2", limit=3, maps=True)
    assert sheets(plain) == {}
    assert contents(drawn) == contents(plain)
    assert (drawn / "manifest.jsonl").read_bytes() == (plain / "manifest.jsonl").read_bytes()
    assert sorted(sheets(drawn)) == [f"maps{n}/{id}.jpg" for n in ("-2", "") for id in ("a", "b", "deep/c")]
    assert len(set(sheets(drawn).values())) == 6
    for record in summary.records:
        with Image.open(drawn / maps_name(record.id, record.draw)) as sheet:
            assert sheet.width == GAP + min(record.evaluations or 0, SHOWN_STEPS) * (16 + GAP)
    assert summary.without_maps == 0


def test_maps_are_those_of_targets_made_now(small_photos: Path, dynamic_pack: Path, tmp_path: Path):
    """What is there already is left alone and counted; a target that is made anew without maps keeps no old ones."""
    out = tmp_path / "store"
    assert make_adaptive(small_photos, out, dynamic_pack, limit=2).without_maps == 0, "nobody asked"
    assert make_adaptive(small_photos, out, dynamic_pack, limit=4, maps=True).without_maps == 2
    assert list(sheets(out)) == ["maps/deep/c.jpg", "maps/deep/d é 测.jpg"]
    before = sheets(out)
    assert make_adaptive(small_photos, out, dynamic_pack, limit=4, maps=True).without_maps == 2
    assert sheets(out) == before
    for name in ("a", "deep/c"):
        (out / "images" / f"{name}.png").unlink()
    make_adaptive(small_photos, out, dynamic_pack, limit=4)
    assert list(sheets(out)) == ["maps/deep/d é 测.jpg"]


def test_a_stop_between_photos_changes_no_map(small_photos: Path, dynamic_pack: Path, tmp_path: Path):
    class Stop(Exception):
        pass

    def stop(record: object, done: int, total: int) -> None:
        raise Stop

    once, twice = tmp_path / "once", tmp_path / "twice"
    make_adaptive(small_photos, once, dynamic_pack, limit=2, maps=True)
    with pytest.raises(Stop):
        make_adaptive(small_photos, twice, dynamic_pack, limit=2, maps=True, on_photo=stop)
    assert list(sheets(twice)) == ["maps/a.jpg"], "there before the target's line is"
    make_adaptive(small_photos, twice, dynamic_pack, limit=2, maps=True)
    assert sheets(twice) == sheets(once)


def test_halves_of_a_batch_keep_their_own_maps(
    small_photos: Path, dynamic_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where memory runs out in the middle of a way, what was seen until there is forgotten."""
    make_adaptive(small_photos, tmp_path / "one", dynamic_pack, limit=3, maps=True)
    make_all = TargetMaker.make

    def short_of_memory(self: TargetMaker, photos: Tensor, restored: Tensor, seeds: list[int], **more: Any):
        made = make_all(self, photos, restored, seeds, **more)
        if len(seeds) > 2:
            raise torch.OutOfMemoryError
        return made

    monkeypatch.setattr(TargetMaker, "make", short_of_memory)
    monkeypatch.setattr("adapt.targets.generate.at_a_time", lambda settings, device: 3)
    make_adaptive(small_photos, tmp_path / "halves", dynamic_pack, limit=3, maps=True)
    for name in sheets(tmp_path / "one"):
        alone, together = (np.asarray(Image.open(tmp_path / each / name)).astype(int) for each in ("one", "halves"))
        assert alone.shape == together.shape
        assert np.abs(alone - together).max() <= 8, "the images of a batch are within a level, and JPEG's of both"


def test_refusals(whole: Path, small_photos: Path, small_pack: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"made with another recipe \(seed: 0 there, 5 now\); .* --overwrite"):
        make(small_photos, whole, small_pack, "seed=5")
    with pytest.raises(UsageError, match="lies inside the photos"):
        make(small_photos, small_photos / "out", small_pack)
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        make(small_photos, tmp_path, small_pack)
    with pytest.raises(UsageError, match="changes nothing with ddpm"):
        make(small_photos, tmp_path / "new", small_pack, "solver=ddpm", "eta=0.5")
    with pytest.raises(UsageError, match="not a target store"):
        read_records(tmp_path)


def test_gate(gen: torch.Generator):
    settings = GateSettings(max_low_frequency_change=0.05, min_contrast=0.02)
    image = torch.rand(3, 32, 32, generator=gen)

    def verdict(target: Tensor) -> tuple[str | None, dict[str, float]]:
        return judge(Candidate(target=target, towards=image, photo=image), settings)

    assert verdict(image)[0] is None
    assert "flat" in str(verdict(torch.full((3, 32, 32), 0.5))[0])
    assert "left the photo" in str(verdict((image + 0.3).clamp(0, 1))[0])
    assert "not finite" in str(verdict(image / 0)[0])
    assert json.dumps(verdict(image)[1])


def test_a_check_is_a_line_in_a_table(monkeypatch: pytest.MonkeyPatch, gen: torch.Generator):
    """What it finds is judged and recorded, and it sees target, photo and what the target was drawn towards."""
    seen: list[Candidate] = []

    def too_bright(candidate: Candidate, settings: GateSettings) -> Finding:
        seen.append(candidate)
        return Finding(float(candidate.target.mean()), 0.4, "the target is too bright")

    monkeypatch.setitem(CHECKS, "brightness", too_bright)
    target, towards, photo = torch.rand(3, 3, 32, 32, generator=gen)
    candidate = Candidate(target=target, towards=towards, photo=photo)
    reason, scores = judge(candidate, GateSettings(max_low_frequency_change=1, min_contrast=0))
    assert seen == [candidate]
    assert reason == "the target is too bright"
    assert list(scores) == ["contrast", "low_frequency_change", "brightness"]
    assert scores["brightness"] == pytest.approx(float(target.mean()))


def test_light_is_the_photos_and_colours_stay(gen: torch.Generator):
    """In a power of 2.2 of its own, not with the functions it is made of; an image's light is not its neighbour's."""
    restored = 0.2 + 0.4 * torch.rand(3, 3, 17, 23, generator=gen)
    noisy = (restored + 0.2 * torch.randn(restored.shape, generator=gen)).clamp(0, 1)
    matched = match_mean_luminance(restored, noisy)
    after, wanted, before = (image.pow(2.2).mean((1, 2, 3)) for image in (matched, noisy, restored))
    assert ((wanted - before).abs() > 0.01).all(), "noise in tones adds light"
    torch.testing.assert_close(after, wanted, rtol=0.02, atol=0)
    ratio = matched.double().pow(2.2) / restored.double().pow(2.2)
    assert (ratio.flatten(1).std(1) < 0.02).all(), "one gain for all pixels and colours"
    assert torch.equal(match_mean_luminance(restored[1:2], noisy[1:2]), matched[1:2])
    torch.testing.assert_close(match_mean_luminance(noisy, noisy), noisy, rtol=0, atol=1e-5)


def test_light_knows_its_limits():
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert torch.equal(match_mean_luminance(black, white), black)
    assert match_mean_luminance(white, black).min() > 0.7, "half the light at least: what has none is no photo"
    torch.testing.assert_close(match_mean_luminance(white, white), white)
