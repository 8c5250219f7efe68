"""Metrics against the public fixture and independent derivations; tables, sheets and the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import Reference
from torch import Tensor

from adapt.errors import AdaptError, ShapeError, UsageError
from adapt.evaluate.compare import evaluate_folder, evaluate_images
from adapt.evaluate.curves import loss_curves
from adapt.evaluate.metrics import kid, psnr, ssim
from adapt.evaluate.report import Example, Report, write_report
from adapt.evaluate.sheets import GAP, LABEL, contact_sheet, write_sheet
from adapt.evaluate.tables import markdown_table, text_table
from adapt.photos.files import write_image


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


# ---------------------------------------------------------------- tables, sheets, page


def evaluations():
    truth = pictures(3)
    return {
        "pre-trained": evaluate_images((truth * 0.8), truth, distance=Distance()),
        "adapted": evaluate_images((truth * 0.9), truth, distance=Distance()),
    }


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
