"""Metrics against the public fixture and independent derivations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from images import seeded
from reference import Reference
from torch import Tensor

from adapt.errors import RangeError, ShapeError, UsageError
from adapt.evaluation.metrics import (
    colour_shift,
    kid,
    low_frequency_difference,
    psnr,
    relative_sharpness,
    sharpness,
    sharpness_over_mean,
    ssim,
)
from adapt.images import sharpness_std


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
    (mean,) = kid(
        torch.from_numpy(x), torch.from_numpy(y), subsets=1, subset_size=n, generator=torch.Generator().manual_seed(0)
    ).tolist()
    assert mean == pytest.approx(same - cross, rel=1e-9)


def test_kid_of_one_distribution_is_near_zero():
    """200 draws a side of one Gaussian: within four standard errors of 0; a shifted one is far from it."""
    x, y = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    near, far = (kid(x, z, subsets=50, subset_size=50, generator=generator) for z in (y, y + 0.5))
    assert abs(near.mean()) < max(4 * near.std(), 0.05)
    assert far.mean() > 10 * abs(near.mean())


def test_too_few_images_for_kid():
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
    truth = torch.rand(2, 3, 24, 24, generator=seeded(0)) * 0.4 + 0.3
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


@pytest.mark.parametrize(("height", "width", "std"), [(37, 31, 0.5), (140, 131, 131 / 128), (3, 2, 0.5)])
def test_sharpness_against_a_sum_over_shifted_images(height: int, width: int, std: float):
    """Reference: numpy, a weighted sum of shifted copies in two dimensions, edges repeated; deviation by its moments.
    Its window is two pixels wider than ours, whose weights end where they are e^-8 of the largest."""
    image = np.random.default_rng(3).random((2, 3, height, width))
    reach = int(np.ceil(4 * std)) + 2
    blurred, total = np.zeros_like(image), 0.0
    rows, columns = np.arange(height), np.arange(width)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            weight = np.exp(-(dy**2 + dx**2) / (2 * std**2))
            there = image[:, :, (rows + dy).clip(0, height - 1)][..., (columns + dx).clip(0, width - 1)]
            blurred, total = blurred + weight * there, total + weight
    high = image - blurred / total
    expected = np.sqrt((high**2).mean(axis=(2, 3)) - high.mean(axis=(2, 3)) ** 2).mean(axis=1)
    assert sharpness_std(height, width) == std
    np.testing.assert_allclose(sharpness(torch.from_numpy(image)), expected, rtol=1e-3)


@pytest.mark.parametrize("side", [128, 256])
def test_sharpness_of_a_wave_is_what_the_blur_takes_of_it(side: int):
    """A wave of amplitude a and k periods along the side loses exp(-(2 pi k s)^2 / 2) of itself by a blur of
    s = 4/512 of the side, whatever the side: its deviation is what is left of a / sqrt 2. The image ends on crests,
    which the repeated edge goes on from without a bend; what it does not repeat is less than 2 %."""
    for periods in (8, 16, 32):
        wave = torch.cos((torch.arange(side, dtype=torch.float64) + 0.5) * (2 * np.pi * periods / side))
        image = (0.5 + 0.2 * wave).expand(1, 3, side, side)
        left = 1 - np.exp(-((2 * np.pi * periods * 4 / 512) ** 2) / 2)
        assert float(sharpness(image)) == pytest.approx(0.2 / np.sqrt(2) * left, rel=0.02)


def test_relative_sharpness():
    image = torch.rand(2, 3, 40, 40, generator=seeded(4)) * 0.8
    flat = torch.tensor([0.1, 0.3, 0.7]).view(1, 3, 1, 1).expand(2, 3, 40, 40)
    assert relative_sharpness(image / 2 + 0.1, image).tolist() == pytest.approx([0.5, 0.5], rel=1e-6)
    assert relative_sharpness(image, image).tolist() == [1, 1]
    assert relative_sharpness(flat, image).tolist() == pytest.approx([0, 0], abs=1e-12)
    assert relative_sharpness(image, flat).isnan().all()
    assert relative_sharpness(flat, flat).isnan().all()
    of_others = sharpness_over_mean(sharpness(image), torch.cat([sharpness(image), sharpness(image) * 3]))
    assert float(of_others.mean()) == pytest.approx(0.5)
    assert sharpness_over_mean(sharpness(image), sharpness(flat)).isnan().all()


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
    (mean,) = kid(first, second, paired=True, subsets=1, subset_size=n, generator=torch.Generator()).tolist()
    assert mean == pytest.approx(expected, rel=1e-9)
    assert float(kid(first, first, paired=True, generator=torch.Generator()).abs().max()) < 1e-12


def test_kid_is_unbiased_for_pairs_and_for_strangers():
    """Means of 300 estimates from 12 images a side, both of one distribution, so that the answer is 0. Pairs share a
    part, as a restored image does with its truth; the plain estimate of such pairs fails, which is why they are
    left out of the cross term."""
    draw = torch.Generator().manual_seed(4)
    shared, own, other = torch.randn(3, 300, 12, 6, generator=draw, dtype=torch.float64)
    x, y = 0.8 * shared + 0.6 * own, 0.8 * shared + 0.6 * other  # both standard normal
    stranger = torch.randn(300, 12, 6, generator=draw, dtype=torch.float64)

    def bias(a: Tensor, b: Tensor, paired: bool) -> float:
        """Mean over trials in standard errors."""
        pairs = zip(a, b, strict=True)
        trials = torch.cat([kid(u, v, paired=paired, subsets=1, subset_size=12, generator=draw) for u, v in pairs])
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
    means, errors = torch.stack(estimates).mean(dim=1), torch.stack(estimates).std(dim=1)
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
            kid(x, truth, paired=True, subsets=60, generator=torch.Generator().manual_seed(0))
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
    with pytest.raises(UsageError, match="subsets of 2 to 20 images, got subset_size 21"):
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
    with pytest.raises(RangeError, match=r"PSNR, first images: .* 8-bit"):
        psnr(a + 255, a)
