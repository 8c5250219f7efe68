"""Metrics against the public fixture and independent derivations; tables, sheets and the page."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import Reference
from torch import Tensor

from adapt import showing
from adapt.errors import AdaptError, RangeError, ShapeError, UsageError
from adapt.evaluation.compare import evaluate_folder, evaluate_images
from adapt.evaluation.curves import loss_curves
from adapt.evaluation.metrics import colour_shift, kid, kid_estimates, low_frequency_difference, psnr, ssim
from adapt.evaluation.report import Example, Report, write_report
from adapt.evaluation.scores import difference
from adapt.evaluation.sheets import GAP, LABEL, contact_sheet, write_sheet
from adapt.evaluation.tables import markdown_table, text_table
from adapt.photos.files import write_image
from adapt.targets.store import Record, TargetStore, picture_name


class Distance:
    """A perceptual distance whose answers are known: mean absolute difference; features: mean colour."""

    name, digest = "a test's", "0"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3))

    def features(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))


def pictures(count: int, seed: int = 0, size: int = 24) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- metrics


@pytest.mark.parametrize("matched", [False, True])
def test_psnr_ssim_fixture(reference: Reference, matched: bool):
    arrays = reference.arrays("psnr_ssim")
    truth, restored = (
        torch.from_numpy(arrays[name]).permute(0, 3, 1, 2).double() / 255 for name in ("gt_u8", "restored_u8")
    )
    expected = arrays["psnr_ssim_corrected" if matched else "psnr_ssim_plain"]
    np.testing.assert_allclose(psnr(restored, truth, match_statistics=matched), expected[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ssim(restored, truth, match_statistics=matched), expected[:, 1], rtol=0, atol=1e-6)


def test_psnr_of_a_known_error():
    a = torch.full((2, 3, 16, 16), 0.5)
    b = a.clone()
    b[1] += 0.1
    assert psnr(a, b)[0] == float("inf")
    assert float(psnr(a, b)[1]) == pytest.approx(20.0, abs=1e-4)


def test_kid_against_a_double_loop():
    """With one subset of everything: the unbiased estimate, written as sums over pairs."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)), rng.normal(0.5, 1, size=(12, 5))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    n = len(x)
    same = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    cross = sum(kernel(a, b) for a in x for b in y) * 2 / n**2
    mean, _ = kid(
        torch.from_numpy(x), torch.from_numpy(y), subsets=1, subset_size=n, generator=torch.Generator().manual_seed(0)
    )
    assert mean == pytest.approx(same - cross, rel=1e-9)


def test_kid_of_one_distribution_is_near_zero():
    """200 draws a side of one Gaussian: within four standard errors of 0; a shifted one is far from it."""
    x, y = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    near, error = kid(x, y, subsets=50, subset_size=50, generator=generator)
    far, _ = kid(x, y + 0.5, subsets=50, subset_size=50, generator=generator)
    assert abs(near) < max(4 * error, 0.05)
    assert far > 10 * abs(near)


def test_too_few_pictures_for_kid():
    few = torch.zeros(9, 4)
    with pytest.raises(UsageError, match="10"):
        kid(few, few, subsets=1, subset_size=9, generator=torch.Generator())


def test_ssim_against_a_walk_over_every_window():
    """Reference: numpy, a weighted mean per window, covariance as the mean product of deviations."""
    rng = np.random.default_rng(2)
    a = rng.random((2, 3, 19, 14))
    b = (a + rng.normal(0, 0.2, a.shape)).clip(0, 1)
    grid = np.arange(11) - 5
    window = np.exp(-(grid[:, None] ** 2 + grid**2) / 4.5)
    window /= window.sum()
    expected = np.zeros((2, 3, 9, 4))
    for place in np.ndindex(expected.shape):
        n, c, i, j = place
        x, y = a[n, c, i : i + 11, j : j + 11], b[n, c, i : i + 11, j : j + 11]
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        cov = (window * (x - mx) * (y - my)).sum()
        expected[place] = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    found = ssim(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, expected.mean(axis=(1, 2, 3)), rtol=0, atol=1e-12)
    decibels = [-10 * np.log10(((x - y) ** 2).mean()) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(torch.from_numpy(a), torch.from_numpy(b)), decibels, rtol=1e-12)


def test_matched_statistics_forgive_a_colour_cast():
    truth = pictures(2) * 0.4 + 0.3
    cast = truth + torch.tensor([0.2, -0.1, 0.1])[:, None, None]
    assert (psnr(cast, truth) < 20).all()
    assert (psnr(cast, truth, match_statistics=True) > 120).all()
    flat = torch.full_like(truth, 0.5)
    assert psnr(flat, truth, match_statistics=True).isfinite().all(), "a flat channel has no deviation to match"


def test_low_frequencies_and_colour():
    """A shift of one channel is seen by both; a pattern of two pixels' period by neither."""
    grey = torch.full((1, 3, 70, 50), 0.5)
    shifted = grey.clone()
    shifted[:, 1] += 0.3
    pattern = grey + 0.2 * (torch.arange(50) % 2 * 2 - 1)
    assert float(low_frequency_difference(shifted, grey)) == pytest.approx(0.1, abs=1e-6)
    assert float(colour_shift(shifted, grey)) == pytest.approx(0.1, abs=1e-6)
    assert float(low_frequency_difference(pattern, grey)) < 1e-6
    assert float(colour_shift(pattern, grey)) < 1e-6
    halves = grey.clone()
    halves[..., :25] += 0.2
    halves[..., 25:] -= 0.2
    assert float(colour_shift(halves, grey)) < 1e-6
    assert float(low_frequency_difference(halves, grey)) == pytest.approx(0.2, abs=0.01)


def test_pairs_are_left_out_of_the_cross_term():
    """Against a double loop over i != j: Gretton et al. 2012, Eq. (4); equal sets are exactly 0 apart."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(11, 4))
    y = x + 0.3 * rng.normal(size=x.shape)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    n = len(x)
    expected = sum(
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
        for i in range(n)
        for j in range(n)
        if i != j
    ) / (n * (n - 1))
    first, second = torch.from_numpy(x), torch.from_numpy(y)
    mean, error = kid(first, second, paired=True, subsets=1, subset_size=n, generator=torch.Generator())
    assert mean == pytest.approx(expected, rel=1e-9)
    assert np.isnan(error), "one subset has no spread"
    assert kid(first, first, paired=True, generator=torch.Generator())[0] == pytest.approx(0, abs=1e-12)


def test_kid_is_unbiased_for_pairs_and_for_strangers():
    """Means of 300 estimates from 12 pictures a side, both of one distribution, so that the answer is 0. Pairs share a
    part, as a restored picture does with its truth; the plain estimate of such pairs fails, which is why they are
    left out of the cross term."""
    draw = torch.Generator().manual_seed(4)
    shared, own, other = torch.randn(3, 300, 12, 6, generator=draw, dtype=torch.float64)
    x, y = 0.8 * shared + 0.6 * own, 0.8 * shared + 0.6 * other  # both standard normal
    stranger = torch.randn(300, 12, 6, generator=draw, dtype=torch.float64)

    def bias(a: Tensor, b: Tensor, paired: bool) -> float:
        """Mean over trials in standard errors."""
        trials = torch.tensor(
            [kid(u, v, paired=paired, subsets=1, subset_size=12, generator=draw)[0] for u, v in zip(a, b, strict=True)]
        )
        return float(trials.mean() / (trials.std() / len(trials) ** 0.5))

    assert abs(bias(x, stranger, False)) < 3.5
    assert abs(bias(x, y, True)) < 3.5
    assert bias(x, y, False) < -10


def test_the_interval_of_kid_is_that_of_repeated_experiments():
    """The spread of half-size subsets against the spread of 200 experiments; a factor of 1.5 either way."""
    draw = torch.Generator().manual_seed(5)
    estimates = [
        kid(torch.randn(40, 5, generator=draw), 0.7 + torch.randn(40, 5, generator=draw), subsets=60, generator=draw)
        for _ in range(200)
    ]
    means, errors = torch.tensor(estimates, dtype=torch.float64).T
    assert 1 / 1.5 < float(errors.mean() / means.std()) < 1.5


def test_two_models_over_the_same_photos_are_told_apart_better_than_each_is_known():
    """The interval of the difference of two KIDs against the spread of 200 experiments, and narrower than those of two
    models that know nothing of each other."""
    draw = torch.Generator().manual_seed(6)
    found, spreads, strangers = [], [], []
    for _ in range(200):
        truth = torch.randn(40, 5, generator=draw, dtype=torch.float64)
        first = truth + 0.7 + 0.1 * torch.randn(40, 5, generator=draw, dtype=torch.float64)
        second = first + 0.1 * torch.randn(40, 5, generator=draw, dtype=torch.float64) - 0.1
        before, after = (
            kid_estimates(x, truth, paired=True, subsets=60, generator=torch.Generator().manual_seed(0))
            for x in (first, second)
        )
        found.append(float((after - before).mean()))
        spreads.append(float((after - before).std()))
        strangers.append(float((before.std() ** 2 + after.std() ** 2) ** 0.5))
    spread = float(np.std(found))
    assert 1 / 1.5 < np.mean(spreads) / spread < 1.5
    assert np.mean(spreads) < np.mean(strangers) / 2


def test_kid_refuses_what_has_no_answer():
    draw, some = torch.Generator(), torch.zeros(20, 4)
    with pytest.raises(ShapeError, match=r"features \(N, D\) and \(M, D\), got \(20, 4\) and \(20, 5\)"):
        kid(some, torch.zeros(20, 5), generator=draw)
    with pytest.raises(ShapeError, match="as many features on both sides of pairs, got 20 and 19"):
        kid(some, some[:19], paired=True, generator=draw)
    with pytest.raises(UsageError, match="subsets of 2 to 20 pictures, got subset_size 21"):
        kid(some, some, subset_size=21, generator=draw)
    with pytest.raises(UsageError, match="1 subset or more, got 0"):
        kid(some, some, subsets=0, generator=draw)
    with pytest.raises(UsageError, match="finite features"):
        kid(some, torch.full((20, 4), float("nan")), generator=draw)


def test_metrics_refuse_other_shapes_and_ranges():
    a = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ShapeError, match=r"PSNR: .* \(1, 3, 16, 16\) and \(1, 3, 16, 17\)"):
        psnr(a, torch.zeros(1, 3, 16, 17))
    with pytest.raises(ShapeError, match="SSIM: expected sides of 11 pixels or more"):
        ssim(a[..., :10], a[..., :10])
    with pytest.raises(RangeError, match=r"PSNR, first pictures: .* 8-bit"):
        psnr(a + 255, a)


# ---------------------------------------------------------------- folders


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for index, picture in enumerate(pictures(3)):
        write_image(tmp_path / "truth" / f"{index}.png", picture)
        write_image(tmp_path / "restored" / f"{index}.png", (picture * 0.9).clamp(0, 1))
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


def test_kid_needs_pictures_enough(folders: Path):
    """Against the truth it is left out with a note; where nothing else was asked for it is refused."""
    few = evaluate_folder(folders / "restored", truth=folders / "truth", distance=Distance())
    assert "kid" not in few.scores
    assert few.notes == ("KID left out: it needs 10 photos or more, there are 3",)
    with pytest.raises(UsageError, match="KID needs 10 pictures or more on each side, got 3 restored and 3 reference"):
        evaluate_folder(folders / "restored", reference=folders / "truth", distance=Distance())
    with pytest.raises(UsageError, match="no perceptual network was given"):
        evaluate_folder(folders / "restored", reference=folders / "truth", distance=None)
    truth = pictures(12)
    many = evaluate_images(truth * 0.9, truth, distance=Distance())
    expected, error = kid(
        truth.mean(dim=(2, 3)) * 0.9, truth.mean(dim=(2, 3)), paired=True, generator=torch.Generator().manual_seed(0)
    )
    assert many.scores["kid"].mean == pytest.approx(expected, rel=1e-4)
    assert many.scores["kid"].error == pytest.approx(error, rel=1e-4)


def test_photos_and_reference_and_what_was_not_restored(tmp_path: Path):
    for index, picture in enumerate(pictures(12)):
        write_image(tmp_path / "restored" / "sub" / f"{index}.png", picture)
        write_image(tmp_path / "photos" / "sub" / f"{index}.png", picture)
        write_image(tmp_path / "reference" / f"r{index}.png", picture)
    write_image(tmp_path / "photos" / "extra.png", pictures(1)[0])
    found = evaluate_folder(
        tmp_path / "restored", photos=tmp_path / "photos", reference=tmp_path / "reference", distance=Distance()
    )
    assert list(found.scores) == ["kid_reference", "low_frequency", "colour_shift"]
    assert found.scores["low_frequency"].mean == found.scores["colour_shift"].mean == 0
    assert found.notes == ("1 of 13 pictures of photos not restored: extra",)
    assert [row["id"] for row in found.rows][:2] == ["sub/0", "sub/1"]


def test_a_run_is_compared_with_the_first_accepted_target_of_each_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The gate refused the first draw of one photo and both of another; what it refused is still in the store."""
    monkeypatch.setattr(showing, "load_distance", lambda pack: Distance())
    draws = pictures(24, seed=1)
    store = TargetStore(tmp_path / "targets", {})
    for index, picture in enumerate(pictures(12)):
        for name in ("photos", "base", "restored"):
            write_image(tmp_path / name / f"{index:02}.png", picture)
        for draw in range(2):
            refused = (index, draw) in [(3, 0), (5, 0), (5, 1)]
            target = picture_name(f"{index:02}", draw)
            write_image(tmp_path / "targets" / target, draws[2 * index + draw])
            store.add(Record(
                id=f"{index:02}", draw=draw, photo="", photo_sha256="", target=target, target_sha256="",
                status="rejected" if refused else "done", reason="flat" if refused else None,
            ))
    found = showing.evaluate_run(tmp_path, "tiny", None, 24, lambda done, total: None)
    assert [row["id"] for row in found["target"].rows] == [f"{index:02}" for index in range(12) if index != 5]
    by_hand = {f"{i:02}": tmp_path / "targets" / picture_name(f"{i:02}", int(i == 3)) for i in range(12) if i != 5}
    for name in ("pre-trained", "adapted"):
        expected = evaluate_folder(tmp_path / "base", reference=by_hand, distance=Distance())
        assert found[name].scores["kid_reference"] == expected.scores["kid_reference"]
    assert found["target"].scores["colour_shift"] == (
        evaluate_folder(by_hand, photos=tmp_path / "photos", distance=None).scores["colour_shift"]
    )
    with pytest.raises(UsageError, match="0 files: expected pictures, found none"):
        evaluate_folder({}, photos=tmp_path / "photos", distance=None)


def test_protocols_tell_what_was_compared(folders: Path):
    def files() -> str:
        found = evaluate_folder(folders / "restored", truth=folders / "truth", distance=None)
        return found.scores["psnr"].protocol.files

    before = files()
    write_image(folders / "restored" / "1.png", pictures(1, seed=9)[0], overwrite=True)
    assert files() == before, "the same truth: numbers of two models compare"
    write_image(folders / "truth" / "1.png", pictures(1, seed=9)[0], overwrite=True)
    assert files() != before
    plain = evaluate_images(pictures(2), pictures(2), distance=Distance())
    matched = evaluate_images(pictures(2), pictures(2), distance=Distance(), match_statistics=True)
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
    """No call sees more than a batch, and none of its pictures is alive when the next but one is read."""
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
            write_image(folders / side / f"{index}.png", pictures(1, seed=index)[0])
    found = evaluate_folder(folders / "restored", truth=folders / "truth", distance=Watching())
    assert len(found.rows) == 40
    assert len(alive) == 5


# ---------------------------------------------------------------- tables, sheets, page


def evaluations():
    truth = pictures(3)
    return {
        "pre-trained": evaluate_images((truth * 0.8), truth, distance=Distance()),
        "adapted": evaluate_images((truth * 0.9), truth, distance=Distance()),
    }


def test_a_difference_is_that_of_the_same_photos():
    """Photos are matched by name, not by place, and what only one side has does not count."""
    truth = pictures(4)
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
    truth = pictures(12)
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


def test_sheet_has_the_pictures_where_they_belong(tmp_path: Path):
    red, green = torch.zeros(2, 3, 8, 6)
    red[0], green[1] = 1, 1
    sheet = contact_sheet(["a", "b"], [[red, green], [green, red]], scale=2)
    left, right = GAP + 2, GAP + 2 + 12 + GAP
    upper, lower = LABEL + GAP + 2, LABEL + GAP + 2 + 16 + GAP
    assert sheet.getpixel((left, upper)) == sheet.getpixel((right, lower)) == (255, 0, 0)
    assert sheet.getpixel((right, upper)) == sheet.getpixel((left, lower)) == (0, 255, 0)
    write_sheet(tmp_path / "x.jpg", ["a"], [[red]])
    write_sheet(tmp_path / "x.jpg", ["a"], [[green]])
    with pytest.raises(UsageError, match="expected rows of 2 pictures, got \\[1\\]"):
        contact_sheet(["a", "b"], [[red]])


def test_page_is_whole_and_escaped(tmp_path: Path):
    picture = pictures(1)[0]
    name = 'x<b>&"y'
    write_report(
        tmp_path / "report.html",
        Report(
            title="T <i>", summary="s", verdict="v", improved=True, evaluations=evaluations(),
            examples=[Example(name, {"photo": picture, "adapted": picture})],
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
