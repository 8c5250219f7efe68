"""Filters, noise and JPEG, which the degradations are made of: against plain definitions and their own formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from images import seeded, smooth_image

from degradations.filters import (
    blur,
    blur_and_resize,
    enlarge_linear,
    gaussian_kernel,
    resize_area,
    resize_linear,
    separate,
)
from degradations.jpeg import jpeg
from degradations.noise import gaussian, signal_dependent

# ---------------------------------------------------------------- filters


def test_kernel_has_the_moments_of_its_normal_distribution() -> None:
    """Sampling at whole pixels keeps the moments of a Gaussian of std >= 1 to about exp(-2 pi^2)."""
    std_x, std_y, angle = 2.4, 1.3, 0.7
    kernel = gaussian_kernel(std_x, std_y, angle, size=61).numpy()
    grid = np.arange(61) - 30
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    covariance = turn @ np.diag([std_x**2, std_y**2]) @ turn.T
    found = [
        (kernel * grid[None, :] ** 2).sum(),
        (kernel * grid[:, None] ** 2).sum(),
        (kernel * np.outer(grid, grid)).sum(),
    ]
    np.testing.assert_allclose(found, [covariance[0, 0], covariance[1, 1], covariance[0, 1]], rtol=0, atol=1e-6)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)


def test_kernel_of_nearly_no_width_is_a_single_pixel() -> None:
    kernel = gaussian_kernel(0.02, 0.02, 0.3, size=5)
    assert kernel[2, 2] == 1
    assert kernel.sum() == 1


@pytest.mark.parametrize(("std_x", "std_y", "angle"), [(3.7, 1.2, 0.8), (3.75, 0.05, -2.0), (15.0, 15.0, 0.0)])
def test_separated_terms_add_up_to_the_kernel(std_x: float, std_y: float, angle: float) -> None:
    kernel = gaussian_kernel(std_x, std_y, angle)
    columns, rows = separate(kernel)
    side = columns.shape[1]
    margin = (41 - side) // 2
    rebuilt = torch.zeros_like(kernel)
    rebuilt[margin : margin + side, margin : margin + side] = torch.einsum("ti,tj->ij", columns, rows)
    assert (rebuilt - kernel).abs().max() <= 2e-8  # 1e-8 for outer taps, 1e-8 for terms


def test_round_kernels_separate_into_one_term_and_narrow_ones_are_cropped() -> None:
    kernel = gaussian_kernel(3.0, 3.0, 0.0)
    terms, side = separate(kernel)[0].shape
    assert terms == 1
    inside = [float(kernel[20 - r : 21 + r, 20 - r : 21 + r].sum()) for r in (side // 2, side // 2 - 1)]
    assert 1 - inside[0] <= 1e-8 < 1 - inside[1]  # as narrow as it may be, no narrower
    assert separate(gaussian_kernel(0.1, 0.1, 0.0))[0].shape == (1, 1)


@pytest.mark.parametrize(("height", "width", "size"), [(13, 10, 7), (9, 6, 41), (1, 5, 3)])
def test_blur_is_a_correlation_with_mirrored_borders(gen: torch.Generator, height: int, width: int, size: int) -> None:
    """Reference: numpy's own reflect padding and a sum over windows; the kernels have no symmetry."""
    images = torch.rand(2, 3, height, width, generator=gen, dtype=torch.float64)
    kernels = torch.rand(2, size, size, generator=gen, dtype=torch.float64)
    reach = size // 2
    expected = np.empty(images.shape)
    for i in range(2):
        for c in range(3):
            padded = np.pad(images[i, c].numpy(), reach, mode="reflect")
            windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
            expected[i, c] = (windows * kernels[i].numpy()).sum((-1, -2))
    np.testing.assert_allclose(blur(images, kernels).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(7, 9), (37, 31), (50, 12)])
@pytest.mark.parametrize("kernel", [(2.5, 2.5, 0.0), (3.0, 0.8, 0.6), (0.05, 0.05, 0.0), (9.0, 4.0, -1.0)])
def test_blur_and_resize_is_both_steps(size: tuple[int, int], kernel: tuple[float, float, float]) -> None:
    image = torch.rand(3, 37, 31, generator=seeded(3), dtype=torch.float64)
    weights = gaussian_kernel(*kernel)
    expected = resize_linear(blur(image[None], weights[None]), size)[0]
    # What is left out is at most 1e-8 of taps and of each term's products, on values up to 1.
    torch.testing.assert_close(blur_and_resize(image, weights, size), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(37, 31), (8, 7), (1, 1), (74, 100), (29, 29)])
def test_resize_linear_interpolates_between_pixel_centres(gen: torch.Generator, size: tuple[int, int]) -> None:
    """Reference: numpy's interp along one side, then the other; it holds the end values, as OpenCV does."""
    image = torch.rand(1, 3, 37, 31, generator=gen, dtype=torch.float64)
    expected = image.numpy()[0]
    for axis, new in ((1, size[0]), (2, size[1])):
        old = expected.shape[axis]
        at = (np.arange(new) + 0.5) * old / new - 0.5
        expected = np.apply_along_axis(lambda line, at=at, old=old: np.interp(at, np.arange(old), line), axis, expected)
    np.testing.assert_allclose(resize_linear(image, size)[0].numpy(), expected, rtol=0, atol=1e-12)


def test_resize_area_is_the_mean_of_boxes(gen: torch.Generator) -> None:
    image = torch.rand(2, 3, 12, 9, generator=gen, dtype=torch.float64)
    expected = image.numpy().reshape(2, 3, 4, 3, 3, 3).mean((3, 5))
    np.testing.assert_allclose(resize_area(image, 3).numpy(), expected, rtol=1e-14)
    assert torch.equal(resize_area(image, 1), image)


def test_filters_say_what_they_refuse() -> None:
    image = torch.rand(1, 3, 12, 9)
    kernel = gaussian_kernel(1.0, 1.0, 0.0, size=5)
    with pytest.raises(ValueError, match=r"resize_area: .* divides both sides, got 4 for an image of 12 x 9"):
        resize_area(image, 4)
    with pytest.raises(ValueError, match=r"resize_linear: expected a batch of shape \(B, 3, H, W\), got \(3, 12, 9\)"):
        resize_linear(image[0], (3, 3))
    with pytest.raises(ValueError, match=r"resize_linear: .* at least 1, got 0 x 3"):
        resize_linear(image, (0, 3))
    with pytest.raises(ValueError, match=r"blur: expected one kernel for each of 1 images, got shape \(2, 5, 5\)"):
        blur(image, kernel.expand(2, 5, 5))
    with pytest.raises(ValueError, match=r"blur: .* odd side, got \(4, 4\)"):
        blur(image, kernel[None, :4, :4])
    with pytest.raises(ValueError, match=r"blur: expected floating values in \[0, 1\], got torch.uint8"):
        blur(image.byte(), kernel[None])
    with pytest.raises(ValueError, match=r"blur_and_resize: expected one image of shape \(3, H, W\)"):
        blur_and_resize(image, kernel, (3, 3))
    with pytest.raises(ValueError, match=r"positive standard deviations .* got 0, 1, 0"):
        gaussian_kernel(0, 1, 0)
    with pytest.raises(ValueError, match=r"expected an odd size, got 40"):
        gaussian_kernel(1, 1, 0, size=40)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_enlarging_by_a_whole_factor_is_bilinear(factor: int, gen: torch.Generator) -> None:
    images = torch.rand(2, 3, 5, 7, generator=gen, dtype=torch.float64)
    expected = resize_linear(images, (5 * factor, 7 * factor))
    torch.testing.assert_close(enlarge_linear(images, factor), expected, rtol=0, atol=1e-14)
    dot = images[:, :, :1, :1]
    torch.testing.assert_close(enlarge_linear(dot, factor), dot.expand(2, 3, factor, factor), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"enlarge_linear: expected a factor of 1 or more, got 0"):
        enlarge_linear(images, 0)


# ---------------------------------------------------------------- noise

SAMPLES = 200_000
FIVE_SIGMA = 5 * math.sqrt(2 / SAMPLES)  # relative error of a variance estimated from normal samples


@pytest.mark.parametrize("signal", [0.0, 0.03, 0.4, 1.0])
def test_sensor_noise_has_the_variance_of_its_formula(signal: float) -> None:
    flat = torch.full((SAMPLES,), signal, dtype=torch.float64)
    noise = signal_dependent(flat, 0.01, 0.0004, noise=seeded(5)) - flat
    variance = 0.01 * signal + 0.0004
    assert float(noise.var()) == pytest.approx(variance, rel=FIVE_SIGMA)
    assert abs(float(noise.mean())) < 5 * math.sqrt(variance / SAMPLES)


def test_sensor_noise_takes_a_gain_for_each_channel_and_negative_signal_counts_as_none() -> None:
    gains = torch.tensor([0.0, 0.01, 0.04], dtype=torch.float64)[:, None, None]
    grey = torch.full((3, 400, 500), 0.5, dtype=torch.float64)
    noise = signal_dependent(grey, gains, 0.0, noise=seeded(6)) - grey
    assert float(noise[0].abs().max()) == 0
    assert float(noise[1].var()) == pytest.approx(0.005, rel=FIVE_SIGMA)
    assert float(noise[2].var()) == pytest.approx(0.02, rel=FIVE_SIGMA)
    dark = torch.full((10,), -0.5)
    assert torch.equal(signal_dependent(dark, 1.0, 0.0, noise=seeded(0)), dark)


def test_gaussian_noise_is_the_field_times_its_std_and_is_not_clipped() -> None:
    image = torch.zeros(3, 200, 300, dtype=torch.float64)
    noisy = gaussian(image, 0.2, seeded(7))
    assert float(noisy.var()) == pytest.approx(0.04, rel=5 * math.sqrt(2 / image.numel()))
    assert float(noisy.min()) < 0
    field = torch.randn(image.shape, generator=seeded(7), dtype=torch.float64)
    torch.testing.assert_close(gaussian(image, 0.2, field), noisy, rtol=0, atol=0)


def test_noise_says_what_it_refuses() -> None:
    image = torch.zeros(3, 4, 4)
    with pytest.raises(ValueError, match=r"standard deviation of 0 or more, got -1"):
        gaussian(image, -1, seeded(0))
    with pytest.raises(ValueError, match=r"noise field: expected shape \(3, 4, 4\), got \(4, 4\)"):
        gaussian(image, 1, torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"expected read_var of 0 or more, got -0.1"):
        signal_dependent(image, 0.1, -0.1, noise=seeded(0))


# ---------------------------------------------------------------- JPEG


def test_jpeg_keeps_more_at_a_higher_quality_and_each_image_has_its_own() -> None:
    image = smooth_image(37, 31)
    qualities = [1, 30, 60, 95]
    coded = jpeg(image.expand(4, -1, -1, -1), qualities)
    errors = [float((one - image).square().mean()) for one in coded]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == 4
    for one, quality in zip(coded, qualities, strict=True):
        assert torch.equal(jpeg(image[None], quality)[0], one)
    assert torch.equal((coded * 255).round() / 255, coded)


def test_jpeg_rounds_and_clips_on_the_way_in() -> None:
    """One flat grey survives quality 100 exactly, so what comes back is what was written."""
    flat = torch.tensor([100.4, 100.6, -30.0, 300.0])[:, None, None, None].expand(4, 3, 16, 16) / 255
    assert (jpeg(flat, 100) * 255).round()[:, 0, 0, 0].tolist() == [100, 101, 0, 255]


def test_jpeg_says_what_it_refuses() -> None:
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"quality from 1 to 100, got 0"):
        jpeg(images, [50, 0])
    with pytest.raises(ValueError, match=r"one quality for each of 2 images, got 3"):
        jpeg(images, [50, 50, 50])
    with pytest.raises(ValueError, match=r"jpeg: expected a batch"):
        jpeg(images[0], 50)
