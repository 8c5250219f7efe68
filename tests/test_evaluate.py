"""Evaluation of folders and images; differences, tables, sheets, curves and the page."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scores import evaluate_images
from torch import Tensor

from adapt.commands import run_report
from adapt.commands.evaluate import evaluate
from adapt.errors import AdaptError, ShapeError, UsageError
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.curves import loss_curves
from adapt.evaluation.metrics import kid, psnr
from adapt.evaluation.report import Example, Report, write_report
from adapt.evaluation.scores import difference
from adapt.evaluation.sheets import GAP, LABEL, contact_sheet, write_sheet
from adapt.evaluation.tables import markdown_table, text_table
from adapt.exporting.verify import smooth_images
from adapt.packs.pack import load_pack
from adapt.photos.files import write_image
from adapt.targets.store import Record, TargetStore, image_name


class Distance:
    """A perceptual distance whose answers are known: mean absolute difference; features: mean colour."""

    name, digest = "a test's", "0"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3))

    def features(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))


def images(count: int, seed: int = 0, size: int = 24) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- folders


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for index, image in enumerate(images(3)):
        write_image(tmp_path / "truth" / f"{index}.png", image)
        write_image(tmp_path / "restored" / f"{index}.png", (image * 0.9).clamp(0, 1))
    return tmp_path


def test_folder_and_memory_agree(folders: Path):
    from adapt.photos.files import read_image

    by_folder = evaluate_folder(folders / "restored", truth=folders / "truth", distance=Distance())
    restored, truth = (
        torch.stack([read_image(folders / side / f"{i}.png") for i in range(3)]) for side in ("restored", "truth")
    )
    in_memory = evaluate_images(restored, truth, distance=Distance())
    for key in ("psnr", "ssim", "perceptual"):
        assert by_folder.scores[key].mean == pytest.approx(in_memory.scores[key].mean, rel=1e-6)
    assert by_folder.scores["psnr"].mean == pytest.approx(float(psnr(restored, truth).mean()), rel=1e-9)
    assert len(by_folder.rows) == 3


def test_missing_partners_and_sizes_are_named(folders: Path):
    (folders / "truth" / "1.png").unlink()
    with pytest.raises(UsageError, match="1"):
        evaluate_folder(folders / "restored", truth=folders / "truth", distance=None)
    write_image(folders / "truth" / "1.png", torch.zeros(3, 8, 8))
    with pytest.raises(ShapeError, match=r"1\.png"):
        evaluate_folder(folders / "restored", truth=folders / "truth", distance=None)
    with pytest.raises(AdaptError, match="nothing to compare with"):
        evaluate_folder(folders / "restored", distance=None)


def test_kid_needs_images_enough(folders: Path):
    """Against the truth it is left out with a note; where nothing else was asked for it is refused."""
    few = evaluate_folder(folders / "restored", truth=folders / "truth", distance=Distance())
    assert "kid" not in few.scores
    assert few.notes == ("KID left out: it needs 10 photos or more, there are 3",)
    with pytest.raises(UsageError, match="KID needs 10 images or more on each side, got 3 restored and 3 reference"):
        evaluate_folder(folders / "restored", reference=folders / "truth", distance=Distance())
    with pytest.raises(UsageError, match="no perceptual network was given"):
        evaluate_folder(folders / "restored", reference=folders / "truth", distance=None)
    truth = images(12)
    many = evaluate_images(truth * 0.9, truth, distance=Distance())
    estimates = kid(
        truth.mean(dim=(2, 3)) * 0.9, truth.mean(dim=(2, 3)), paired=True, generator=torch.Generator().manual_seed(0)
    )
    assert many.scores["kid"].mean == pytest.approx(float(estimates.mean()), rel=1e-4)
    assert many.scores["kid"].error == pytest.approx(float(estimates.std()), rel=1e-4)


def test_photos_and_reference_and_what_was_not_restored(tmp_path: Path):
    for index, image in enumerate(images(12)):
        write_image(tmp_path / "restored" / "sub" / f"{index}.png", image)
        write_image(tmp_path / "photos" / "sub" / f"{index}.png", image)
        write_image(tmp_path / "reference" / f"r{index}.png", image)
    write_image(tmp_path / "photos" / "extra.png", images(1)[0])
    found = evaluate_folder(
        tmp_path / "restored", photos=tmp_path / "photos", reference=tmp_path / "reference", distance=Distance()
    )
    assert list(found.scores) == [
        "kid_reference", "low_frequency", "colour_shift", "sharpness_reference", "sharpness_absolute"
    ]
    assert found.scores["low_frequency"].mean == found.scores["colour_shift"].mean == 0
    assert found.notes == ("1 of 13 images of photos not restored: extra",)
    assert [row["id"] for row in found.rows][:2] == ["sub/0", "sub/1"]


def test_a_run_is_compared_with_the_first_accepted_target_of_each_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The gate refused the first draw of one photo and both of another; what it refused is still in the store."""
    monkeypatch.setattr(run_report, "load_distance", lambda pack: Distance())
    draws = images(24, seed=1)
    store = TargetStore(tmp_path / "targets", {})
    for index, image in enumerate(images(12)):
        for name in ("photos", "base", "restored"):
            write_image(tmp_path / name / f"{index:02}.png", image)
        for draw in range(2):
            refused = (index, draw) in [(3, 0), (5, 0), (5, 1)]
            target = image_name(f"{index:02}", draw)
            write_image(tmp_path / "targets" / target, draws[2 * index + draw])
            store.add(Record(
                id=f"{index:02}", draw=draw, photo="", photo_sha256="", target=target, target_sha256="",
                status="rejected" if refused else "done", reason="flat" if refused else None,
            ))
    found = run_report.evaluate_run(
        tmp_path, "tiny", False, lambda done, total: None, strength=1.0, ids=[f"{index:02}" for index in range(12)]
    )
    assert [row["id"] for row in found["target"].rows] == [f"{index:02}" for index in range(12) if index != 5]
    by_hand = {f"{i:02}": tmp_path / "targets" / image_name(f"{i:02}", int(i == 3)) for i in range(12) if i != 5}
    for name in ("pre-trained", "adapted"):
        expected = evaluate_folder(tmp_path / "base", reference=by_hand, distance=Distance())
        assert found[name].scores["kid_reference"] == expected.scores["kid_reference"]
    assert found["target"].scores["colour_shift"] == (
        evaluate_folder(by_hand, photos=tmp_path / "photos", distance=None).scores["colour_shift"]
    )
    with pytest.raises(UsageError, match="0 files: expected images, found none"):
        evaluate_folder({}, photos=tmp_path / "photos", distance=None)


def test_protocols_tell_what_was_compared(folders: Path):
    def files() -> str:
        found = evaluate_folder(folders / "restored", truth=folders / "truth", distance=None)
        return found.scores["psnr"].protocol.files

    before = files()
    write_image(folders / "restored" / "1.png", images(1, seed=9)[0], overwrite=True)
    assert files() == before, "the same truth: numbers of two models compare"
    write_image(folders / "truth" / "1.png", images(1, seed=9)[0], overwrite=True)
    assert files() != before
    plain = evaluate_images(images(2), images(2), distance=Distance())
    matched = evaluate_images(images(2), images(2), distance=Distance(), match_statistics=True)
    assert "DT-BFR" in matched.scores["psnr"].protocol.method
    assert "DT-BFR" not in plain.scores["psnr"].protocol.method
    perceptual = plain.scores["perceptual"].protocol
    assert (perceptual.title, perceptual.weights, perceptual.n) == ("a test's", "0", 2)


def test_means_have_standard_errors():
    truth = torch.full((3, 3, 16, 16), 0.5)
    restored = truth + torch.tensor([0.1, 0.2, 0.3])[:, None, None, None]
    score = evaluate_images(restored, truth, distance=Distance()).scores["perceptual"]
    assert score.mean == pytest.approx(0.2, abs=1e-6)
    assert score.error == pytest.approx(0.1 / 3**0.5, abs=1e-6)
    assert np.isnan(evaluate_images(restored[:1], truth[:1], distance=Distance()).scores["perceptual"].error)


def test_memory_does_not_grow_with_the_number_of_photos(folders: Path, monkeypatch: pytest.MonkeyPatch):
    """No call sees more than a batch, and none of its images is alive when the next but one is read."""
    import weakref

    alive: list[weakref.ref[Tensor]] = []

    class Watching(Distance):
        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            assert len(a) <= 8
            assert sum(ref() is not None for ref in alive) <= 2
            alive.append(weakref.ref(a))
            return super().__call__(a, b)

    for index in range(3, 40):
        for side in ("restored", "truth"):
            write_image(folders / side / f"{index}.png", images(1, seed=index)[0])
    found = evaluate_folder(folders / "restored", truth=folders / "truth", distance=Watching())
    assert len(found.rows) == 40
    assert len(alive) == 5


# ---------------------------------------------------------------- tables, sheets, page


def evaluations():
    truth = images(3)
    return {
        "pre-trained": evaluate_images((truth * 0.8), truth, distance=Distance()),
        "adapted": evaluate_images((truth * 0.9), truth, distance=Distance()),
    }


def test_a_difference_is_that_of_the_same_photos():
    """Photos are matched by name, not by place, and what only one side has does not count."""
    truth = images(4)
    strength = torch.tensor([0.9, 0.8, 0.7, 0.6]).view(-1, 1, 1, 1)
    base = evaluate_images(truth * strength, truth, distance=None, ids=["a", "b", "c", "d"])
    order = [2, 0, 1]
    other = evaluate_images((truth * (1 - (1 - strength) / 2))[order], truth[order], distance=None, ids=["c", "a", "b"])
    found = difference(base, other, "psnr")
    assert found.n == 3
    assert found.mean == pytest.approx(20 * math.log10(2), abs=1e-4)  # half the error
    assert found.high - found.low < 1e-3
    with pytest.raises(UsageError, match="colour_shift: expected photos that both evaluations measured"):
        difference(base, other, "colour_shift")


def test_a_difference_of_kid_is_over_the_same_subsets():
    truth = images(12)
    base, other = (evaluate_images(truth * strength, truth, distance=Distance()) for strength in (0.8, 0.9))
    found = difference(base, other, "kid")
    assert found.mean == pytest.approx(other.scores["kid"].mean - base.scores["kid"].mean)
    assert found.low < found.mean < found.high < 0, "nearer to the truth, and surely so"
    assert found.n == 12
    fewer = evaluate_images(truth[1:] * 0.9, truth[1:], distance=Distance())
    with pytest.raises(UsageError, match="kid: expected it of the same photos in both evaluations"):
        difference(base, fewer, "kid")


def test_tables():
    both = evaluations()
    text, markdown = text_table(both), markdown_table(both)
    best = f"{both['adapted'].scores['psnr'].mean:.2f}"
    assert best in text
    assert f"**{best}**" in markdown
    assert len({len(line) for line in text.splitlines()}) == 1, "columns line up"


def test_sheet_has_the_images_where_they_belong(tmp_path: Path):
    red, green = torch.zeros(2, 3, 8, 6)
    red[0], green[1] = 1, 1
    sheet = contact_sheet(["a", "b"], [[red, green], [green, red]], scale=2)
    left, right = GAP + 2, GAP + 2 + 12 + GAP
    upper, lower = LABEL + GAP + 2, LABEL + GAP + 2 + 16 + GAP
    assert sheet.getpixel((left, upper)) == sheet.getpixel((right, lower)) == (255, 0, 0)
    assert sheet.getpixel((right, upper)) == sheet.getpixel((left, lower)) == (0, 255, 0)
    write_sheet(tmp_path / "x.jpg", ["a"], [[red]])
    write_sheet(tmp_path / "x.jpg", ["a"], [[green]])
    with pytest.raises(UsageError, match="expected rows of 2 images, got \\[1\\]"):
        contact_sheet(["a", "b"], [[red]])


def test_page_is_whole_and_escaped(tmp_path: Path):
    image = images(1)[0]
    name = 'x<b>&"y'
    write_report(
        tmp_path / "report.html",
        Report(
            title="T <i>", summary="s", verdict="v", improved=True, evaluations=evaluations(),
            examples=[Example(name, {"photo": image, "adapted": image})],
            log=[{"step": 0, "l1": 0.5}, {"step": 10, "l1": 0.25}], problems=[f"failed: {name}"],
            settings="steps: 1", versions={"torch": "2"}, notes=["n"],
        ),
    )
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http://" not in page
    assert "https://" not in page
    assert name not in page
    assert "x&lt;b&gt;&amp;&#34;y" in page
    assert "l1: 0.5 to 0.25" in page


def test_curves_leave_out_what_is_no_curve():
    assert loss_curves([{"step": 0, "a": 1.0, "b": 2.0, "c": "x"}, {"step": 1, "a": float("nan")}]) == []


def test_person_and_features_are_measured_by_the_packs_networks_or_the_embedded_ones(
    small_pack: Path, small_photos: Path, tmp_path: Path
):
    """Against the truth where there is one, else against the photos; images that are not square have no such number."""
    evaluation, table = evaluate(small_photos, truth=small_photos, pack=small_pack)
    tiny = load_pack("tiny")
    for key, entry in (("identity", "recogniser"), ("landmarks", "landmarks")):
        assert evaluation.scores[key].mean == 0
        protocol = evaluation.scores[key].protocol
        assert protocol.weights == tiny.network_digest(entry)
        assert protocol.better == "lower"
    assert "identity" in table
    against_photos, _ = evaluate(small_photos, photos=small_photos, pack=small_pack)
    assert {"identity_photo", "landmarks_photo"} <= set(against_photos.scores)
    assert not {"identity_photo", "landmarks_photo"} & set(evaluation.scores)
    for index, image in enumerate(smooth_images((2, 24, 16), seed=5)):
        write_image(tmp_path / f"{index}.png", image)
    oblong, _ = evaluate(tmp_path, truth=tmp_path, pack=small_pack)
    assert "identity" not in oblong.scores
