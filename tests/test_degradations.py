"""The degradations: against the public pipeline's arrays, against plain definitions, and against their own formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import Reference
from torch import Tensor

from adapt.recipe import load_recipe
from adapt.settings import DegradeSettings
from degradations.blind import (
    DYNFACE,
    SWINIR,
    BlindParameters,
    BlindRanges,
    degrade_blind,
    degrade_blind_batch,
    draw_blind,
    shrunk_size,
    to_grey,
)
from degradations.camera import to_linear, to_tone
from degradations.camera_noise import CameraNoise
from degradations.camera_noise_piece import CameraNoise as CameraNoisePiece
from degradations.filters import blur, blur_and_resize, gaussian_kernel, resize_area, resize_linear, separate
from degradations.jpeg import jpeg
from degradations.noise import gaussian, signal_dependent

STRONG = BlindParameters(std_x=2.1, std_y=0.7, angle=0.4, downsample=2.3, noise=9.0, jpeg=60)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def night_mode(strength: str) -> CameraNoise:
    """The camera of a recipe that ships."""
    (piece,) = load_recipe(f"camera-noise-{strength}", DegradeSettings).pieces
    assert isinstance(piece, CameraNoisePiece)
    return CameraNoise(**piece.model_dump(exclude={"name", "probability"}))


SEVERE = night_mode("severe")


def smooth_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Something with edges and shades, in [0, 1]: white noise, enlarged."""
    coarse = torch.rand(1, 3, max(2, height // 6), max(2, width // 6), generator=seeded(seed))
    return resize_linear(coarse, (height, width))[0]


def as_array(image: Tensor) -> np.ndarray:
    return image.double().numpy()


# ---------------------------------------------------------------- the public pipeline's arrays


def test_kernels_are_those_of_the_public_pipeline(reference: Reference) -> None:
    arrays = reference.arrays("blind_degradation")
    config = reference.json("blind_degradation")["config"]
    round_kernel = gaussian_kernel(config["sx"], config["sx"], 0.0)
    turned = gaussian_kernel(config["sx"], config["sy"], config["th"])
    np.testing.assert_allclose(round_kernel.numpy(), arrays["kernel_iso"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(turned.numpy(), arrays["kernel_aniso"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["iso", "aniso"])
def test_chain_is_that_of_the_public_pipeline(reference: Reference, kind: str) -> None:
    """Two grey levels: its JPEG came from another libjpeg."""
    arrays, config = reference.arrays("blind_degradation"), reference.json("blind_degradation")["config"]
    parameters = BlindParameters(
        std_x=config["sx"],
        std_y=config["sx"] if kind == "iso" else config["sy"],
        angle=0.0 if kind == "iso" else config["th"],
        downsample=config["scale"],
        noise=config["noise"],
        jpeg=int(config["jpeg"]),
    )
    clean = torch.from_numpy(arrays["gt_rgb_u8"]).permute(2, 0, 1).float() / 255
    field = torch.from_numpy(arrays[f"noise_{kind}"][..., ::-1].copy()).permute(2, 0, 1)  # stored as BGR
    damaged = degrade_blind(clean, parameters, field).permute(1, 2, 0) * 255
    difference = np.abs(damaged.numpy() - arrays[f"lq_{kind}"].astype(np.float32))
    assert difference.max() <= 2 + 1e-3
    assert difference.mean() < 0.02  # a slip of half a pixel or of a border shows here


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
    with pytest.raises(ValueError, match=r"resize_area: .* divides both sides, got 4 for a picture of 12 x 9"):
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
    image = smooth_picture(37, 31)
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


# ---------------------------------------------------------------- blind


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.stack([smooth_picture(40, 34, seed) for seed in range(4)])

    def damage(chosen: list[int]) -> Tensor:
        generators = [seeded(100 + i) for i in chosen]
        parameters = [draw_blind(SWINIR.scaled(40), generator) for generator in generators]
        return degrade_blind_batch(images[chosen], parameters, generators)

    together = damage([0, 1, 2, 3])
    assert torch.equal(together, torch.cat([damage([i]) for i in range(4)]))
    assert torch.equal(together[[2, 0]], damage([2, 0]))
    generator = seeded(101)
    assert torch.equal(degrade_blind(images[1], draw_blind(SWINIR.scaled(40), generator), generator), together[1])


def test_chain_without_noise_is_blur_shrink_jpeg_enlarge() -> None:
    """The steps spelled out with the plain blur; the fast path may tip a rounding before the JPEG, rarely."""
    image = smooth_picture(47, 38)
    parameters = replace(STRONG, noise=0.0, jpeg=90)
    kernel = gaussian_kernel(STRONG.std_x, STRONG.std_y, STRONG.angle)
    small = resize_linear(blur(image[None], kernel[None].float()), (47 * 10 // 23, 38 * 10 // 23))
    expected = resize_linear(jpeg(small, 90), (47, 38))[0]
    difference = (degrade_blind(image, parameters, seeded(0)) - expected).abs() * 255
    assert float(difference.max()) <= 2.5
    assert float(difference.mean()) < 0.3  # a quarter is what the last rounding costs


def test_everything_random_follows_from_the_generator() -> None:
    image = smooth_picture(24, 24)
    first, again, other = (degrade_blind(image, STRONG, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    before = image.clone()
    degrade_blind(image, replace(STRONG, grey=True), seeded(1))
    assert torch.equal(image, before)


def test_round_and_turned_kernels_leave_the_generator_at_the_same_place() -> None:
    """So a share of round kernels does not change the noise of the images."""
    ends: list[Tensor] = []
    for share in (0.0, 1.0):
        generator = seeded(9)
        draw_blind(replace(SWINIR, isotropic=share), generator)
        ends.append(generator.get_state())
    assert torch.equal(*ends)


def test_result_is_whole_255ths_of_the_same_shape() -> None:
    image = smooth_picture(33, 45)
    damaged = degrade_blind(image, STRONG, seeded(0))
    assert damaged.shape == image.shape
    assert damaged.dtype == torch.float32
    assert 0 <= float(damaged.min()) <= float(damaged.max()) <= 1
    torch.testing.assert_close((damaged * 255).round(), damaged * 255, rtol=0, atol=1e-4)


def test_grey_is_the_luma_in_all_channels() -> None:
    image = smooth_picture(20, 20)
    damaged = degrade_blind(image, replace(STRONG, grey=True), seeded(0))
    assert torch.equal(damaged[0], damaged[1])
    assert torch.equal(damaged[0], damaged[2])
    coloured = degrade_blind(image, STRONG, seeded(0))
    torch.testing.assert_close(to_grey(coloured), damaged, rtol=0, atol=1.01 / 255)  # rounded before and after
    pure = to_grey(torch.eye(3)[:, :, None, None].float())
    torch.testing.assert_close(pure[:, 0, 0, 0], torch.tensor([0.299, 0.587, 0.114]))


def test_parameters_stay_in_their_ranges_and_fill_them() -> None:
    ranges = BlindRanges(blur_std=(0.5, 3.0), downsample=(1.0, 4.0), noise=(2.0, 10.0), jpeg=(40, 60), grey=0.25)
    drawn = [draw_blind(ranges, seeded(seed)) for seed in range(1000)]
    columns: list[tuple[tuple[float, float], list[float]]] = [
        (ranges.blur_std, [one.std_x for one in drawn]),
        (ranges.blur_std, [one.std_y for one in drawn]),
        ((-math.pi, math.pi), [one.angle for one in drawn]),
        (ranges.downsample, [one.downsample for one in drawn]),
        (ranges.noise, [one.noise for one in drawn]),
        (ranges.jpeg, [one.jpeg for one in drawn]),
    ]
    for (low, high), values in columns:
        assert low <= min(values) < low + 0.05 * (high - low) + 1
        assert high >= max(values) > high - 0.05 * (high - low) - 1
    # Five standard deviations of a share counted in 1000 draws.
    round_share = sum(one.std_x == one.std_y for one in drawn) / 1000
    assert round_share == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 1000))
    assert sum(one.grey for one in drawn) / 1000 == pytest.approx(0.25, abs=5 * math.sqrt(0.1875 / 1000))
    assert all(draw_blind(DYNFACE, seeded(seed)).angle == 0 for seed in range(50))


@pytest.mark.parametrize(
    "change",
    [
        {"blur_std": (4.0, 6.0)},
        {"downsample": (5.0, 6.0)},
        {"noise": (60.0, 70.0)},
        {"jpeg": (5, 8)},
        {"isotropic": 0.0},
        {"grey": 1.0},
        {"kernel_size": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_range_changes_the_result(change: dict[str, Any]) -> None:
    ranges = BlindRanges(blur_std=(1.0, 3.0), downsample=(1.0, 2.0), isotropic=1.0, grey=0.0)
    image = smooth_picture(48, 48)

    def damage(chosen: BlindRanges) -> Tensor:
        generator = seeded(4)
        return degrade_blind(image, draw_blind(chosen, generator), generator)

    assert not torch.equal(damage(ranges), damage(replace(ranges, **change)))


def test_ranges_scale_with_small_pictures_only() -> None:
    small = SWINIR.scaled(128)
    assert small.blur_std == pytest.approx((0.025, 3.75))
    assert small.downsample == pytest.approx((0.8, 8.0))
    assert replace(small, blur_std=SWINIR.blur_std, downsample=SWINIR.downsample) == SWINIR
    assert SWINIR.scaled(512) == SWINIR.scaled(2048) == SWINIR
    assert SWINIR.scaled(8).downsample == (0.8, 1.0)
    for seed in range(20):
        generator = seeded(seed)
        degrade_blind(smooth_picture(16, 16), draw_blind(SWINIR.scaled(16), generator), generator)


def test_public_defaults() -> None:
    assert (SWINIR.blur_std, SWINIR.downsample, SWINIR.noise) == ((0.1, 15), (0.8, 32), (0, 20))
    assert (SWINIR.jpeg, SWINIR.isotropic, SWINIR.grey, SWINIR.kernel_size) == ((30, 100), 0.5, 0.01, 41)
    assert replace(DYNFACE, isotropic=0.5, grey=0.01) == SWINIR


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur_std": (0.0, 1.0)}, r"blur_std must be an ascending range above 0, got 0 to 1"),
        ({"blur_std": (3.0, 1.0)}, r"blur_std must be .* got 3 to 1"),
        ({"downsample": (-1.0, 1.0)}, r"downsample must be .* above 0, got -1 to 1"),
        ({"noise": (-1.0, 1.0)}, r"noise must be .* from 0, got -1 to 1"),
        ({"noise": (0.0, math.inf)}, r"noise must be"),
        ({"jpeg": (0, 50)}, r"jpeg must be .* from 1 to 100, got 0 to 50"),
        ({"jpeg": (50, 101)}, r"jpeg must be"),
        ({"isotropic": 1.5}, r"isotropic must be"),
        ({"grey": math.nan}, r"grey must be"),
        ({"kernel_size": 40}, r"kernel_size must be odd and positive, got 40"),
    ],
)
def test_ranges_say_what_they_refuse(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"blind degradation: {message}"):
        replace(SWINIR, **change)


def test_blind_says_what_it_refuses() -> None:
    image = smooth_picture(16, 20)
    with pytest.raises(ValueError, match=r"downsample 17 leaves nothing of a picture of 16 x 20; .*scaled"):
        degrade_blind(image, replace(STRONG, downsample=17.0), seeded(0))
    with pytest.raises(ValueError, match=r"expected one image of shape \(3, H, W\), got \(1, 3, 16, 20\)"):
        degrade_blind(image[None], STRONG, seeded(0))
    with pytest.raises(ValueError, match=r"each of 1 images, got 2 and 1"):
        degrade_blind_batch(image[None], [STRONG, STRONG], [seeded(0)])
    with pytest.raises(ValueError, match=r"noise field: expected shape \(3, 6, 8\), got \(3, 16, 20\)"):
        degrade_blind(image, STRONG, torch.zeros(3, 16, 20))
    with pytest.raises(ValueError, match=r"picture size of at least 1 pixel, got 0"):
        SWINIR.scaled(0)


def test_sides_shrink_to_the_floor_and_may_grow() -> None:
    assert shrunk_size((128, 128), 4.3) == (29, 29)
    assert shrunk_size((128, 100), 0.5) == (256, 200)
    assert shrunk_size((33, 45), 1.0) == (33, 45)


# ---------------------------------------------------------------- camera noise

SILENT = CameraNoise(scale=1, gain=0.0, read_noise=0.0)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_without_noise_flat_colours_pass(scale: int) -> None:
    """White balance and tone undo themselves. Up to 1 / gain the sensor does not saturate."""
    flat = (torch.tensor([200.0, 120.0, 31.0]) / 255)[:, None, None].expand(3, 16, 24)
    camera = replace(SILENT, scale=scale)
    torch.testing.assert_close(camera.apply(flat, camera.draw(seeded(0)), seeded(0)), flat, rtol=0, atol=1e-6)


def test_the_camera_averages_light_not_values() -> None:
    """A fine black and white grid looks as bright as half the light: 188, not 128."""
    grid = ((torch.arange(16)[:, None] + torch.arange(16)[None, :]) % 2).float().expand(3, 16, 16)
    camera = replace(SILENT, scale=2)
    assert (camera.apply(grid, camera.draw(seeded(0)), seeded(0)) * 255).round().unique().tolist() == [188]


def _rendered_noise(side: int = 256) -> tuple[np.ndarray, float, float]:
    """Noise of a flat grey after demosaicing and white balance, in linear light, and the white-balance gains."""
    camera = CameraNoise(scale=1, gain=0.004, read_noise=0.01)
    light = camera.draw(seeded(2))
    grey = torch.full((3, side, side), 0.7)
    noise = torch.randn(side, side, generator=seeded(3))
    rendered = to_linear(camera.apply(grey, light, noise).double(), "srgb")
    return as_array(rendered - rendered.mean((1, 2), keepdim=True)), light.red, light.blue


def test_red_and_blue_are_noisier_than_green_by_their_white_balance() -> None:
    """In units of the sensor the signal of a grey is s / w, so after the gain w a photosite's variance is
    w^2 (gain s / w + read^2). At its own photosites a colour is not interpolated."""
    noise, red, blue = _rendered_noise()
    exposure = CameraNoise(scale=1, gain=0.004, read_noise=0.01).draw(seeded(2))
    signal = float(to_linear(torch.tensor(0.7, dtype=torch.float64), "srgb"))
    sites = {0: (slice(0, None, 2), slice(1, None, 2)), 1: (slice(0, None, 2), slice(0, None, 2))}
    sites[2] = (slice(1, None, 2), slice(0, None, 2))
    for channel, white in ((0, red), (1, 1.0), (2, blue)):
        expected = white**2 * (exposure.gain * signal / white + exposure.read_noise**2)
        found = noise[channel][sites[channel]].var()
        # 16384 photosites: 5.5 % at five sigma; the 8-bit rounding and its tone curve stay well below.
        assert found == pytest.approx(expected, rel=0.06), channel


def test_noise_is_smeared_over_neighbours_and_coloured() -> None:
    """White noise would have no correlation with the next pixel; the tent of the demosaicing has one half and more."""
    noise, _, _ = _rendered_noise()
    for channel, least in ((0, 0.5), (1, 0.2), (2, 0.5)):
        plane = noise[channel]
        assert (plane[:, 1:] * plane[:, :-1]).mean() / plane.var() > least
    chroma = noise[0] - noise[1]
    assert chroma.var() > 0.5 * (noise[0].var() + noise[1].var())  # the channels do not share their noise


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 4},
        {"gain": 0.03},
        {"read_noise": 0.05},
        {"exposure_spread": 1.0},
        {"red": (3.0, 3.0)},
        {"blue": (3.0, 3.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_of_the_camera_changes_the_result(change: dict[str, Any]) -> None:
    image = smooth_picture(32, 24)

    def photograph(camera: CameraNoise) -> Tensor:
        generator = seeded(8)
        return camera.apply(image, camera.draw(generator), generator)

    assert torch.equal(photograph(SEVERE), photograph(SEVERE))
    assert not torch.equal(photograph(SEVERE), photograph(replace(SEVERE, **change)))


def test_the_sensor_saturates_before_its_colours_are_interpolated() -> None:
    """One dazzled photosite is worth no more than white to its neighbours, which are dark here."""
    camera = CameraNoise(scale=1, gain=0.01, read_noise=0.0)
    noise = torch.full((8, 8), -2.0)
    noise[4, 4] = 1000.0  # green
    damaged = camera.apply(torch.ones(3, 8, 8), camera.draw(seeded(0)), noise)
    exposure = camera.draw(seeded(0)).gain
    expected = to_tone(torch.tensor((1 + 3 * (1 - 2 * math.sqrt(exposure))) / 4), "srgb")
    assert float(damaged[1, 4, 5]) == pytest.approx(float(expected), abs=0.51 / 255)


def test_exposure_and_light_stay_in_their_ranges() -> None:
    drawn = [SEVERE.draw(seeded(seed)) for seed in range(300)]
    for one in drawn:
        assert 2**-0.25 <= one.gain / SEVERE.gain <= 2**0.25
        assert one.gain / SEVERE.gain == pytest.approx(one.read_noise / SEVERE.read_noise)
        # Warm light has much red, so it needs little gain there and much in blue.
        assert (2.1 - one.red) / 0.7 == pytest.approx((one.blue - 1.5) / 0.9)
    assert max(one.red for one in drawn) > 2.05
    assert min(one.red for one in drawn) < 1.45


def test_camera_says_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"resize_area: .* got 2 for a picture of 15 x 16"):
        SEVERE.apply(torch.rand(3, 15, 16), SEVERE.draw(seeded(0)), seeded(0))
    with pytest.raises(ValueError, match=r"camera noise: read_noise must be 0 or more, got -1"):
        replace(SEVERE, read_noise=-1)
    with pytest.raises(ValueError, match=r"camera noise: scale must be 1 or more, got 0"):
        replace(SEVERE, scale=0)
    with pytest.raises(ValueError, match=r"camera noise: blue gains must be 1 or more, got 0.5 and 2"):
        replace(SEVERE, blue=(0.5, 2.0))
    with pytest.raises(ValueError, match=r"camera noise: expected one image of shape \(3, H, W\)"):
        SEVERE.apply(torch.rand(1, 3, 16, 16), SEVERE.draw(seeded(0)), seeded(0))


def test_decibels_of_the_recipes(shared: Path) -> None:
    """The figures in the module's docstring, on every test portrait."""
    from PIL import Image

    files = sorted((shared / "faces" / "test" / "128").rglob("*.jpg"))
    assert files, "no portraits in faces/test/128"
    cameras = {strength: night_mode(strength) for strength in ("moderate", "severe", "starlight")}
    cameras["silent"] = replace(SEVERE, gain=0.0, read_noise=0.0)
    found = dict.fromkeys(cameras, 0.0)
    for index, file in enumerate(files):
        with Image.open(file) as picture:
            image = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255
        for name, camera in cameras.items():
            generator = seeded(index)
            error = camera.apply(image, camera.draw(generator), generator) - image
            found[name] -= 10 * math.log10(float(error.square().mean())) / len(files)
    assert found == pytest.approx({"silent": 26.3, "moderate": 24.4, "severe": 22.0, "starlight": 15.4}, abs=0.1)
