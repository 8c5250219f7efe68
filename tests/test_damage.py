"""What each damage does to an image: it is what it is named after."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from damage import damaged, degradation
from images import seeded, smooth_image
from PIL import Image
from torch import Tensor

from degradations import archive
from degradations.camera.steps import to_linear, to_tone
from degradations.chain import degrade
from degradations.jpeg import jpeg
from degradations.kernels import blur_light, disk_kernel, gaussian_blur, motion_kernel
from degradations.noise import photons, speckle
from degradations.pieces.base import draw_all
from degradations.resampling import resize
from degradations.turbulence import turbulent, warped
from degradations.webp import webp

# ---------------------------------------------------------------- resampling


@pytest.mark.parametrize("size", [(7, 9), (37, 31), (80, 45), (1, 1)])
@pytest.mark.parametrize("method", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_resizing_is_that_of_pillow(gen: torch.Generator, method: Any, size: tuple[int, int]) -> None:
    image = torch.rand(3, 37, 31, generator=gen)
    expected = [
        np.asarray(Image.fromarray(plane.numpy()).resize((size[1], size[0]), Image.Resampling[method.upper()]))
        for plane in image
    ]
    np.testing.assert_allclose(resize(image, size, method).numpy(), np.stack(expected), rtol=0, atol=1e-5)


def test_resizing_says_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"resize: expected a height and a width of at least 1, got 0 x 3"):
        resize(torch.rand(3, 4, 4), (0, 3), "box")
    with pytest.raises(ValueError, match=r"expected one of nearest, .*, lanczos, got 'cubic'"):
        resize(torch.rand(3, 4, 4), (3, 3), "cubic")  # pyright: ignore[reportArgumentType]


def test_what_is_inside_a_resampling_meets_the_small_image() -> None:
    image = smooth_image(48, 40)
    inside = [{"name": "banding", "levels": [4, 4]}]
    outer = degradation("resample", factor=[24, 24], down=["box"], up=["nearest"], degradations=inside)
    image, (drawn,) = degrade(image, [outer], 3)
    assert drawn["size"] == [25, 21]  # 24 for 512 px is 1.875 for 40
    assert set((image * 3).unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    plain = degradation("resample", factor=[1, 1], down=["bicubic"], up=["lanczos"])
    torch.testing.assert_close(damaged(image, plain), image, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- blur


def moments(kernel: Tensor) -> tuple[float, float, float, float]:
    """Mean and variance of a kernel across and down, about its middle pixel."""
    at = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    across, down = kernel.sum(0), kernel.sum(1)
    means = float((across * at).sum()), float((down * at).sum())
    return *means, float((across * at**2).sum()) - means[0] ** 2, float((down * at**2).sum()) - means[1] ** 2


def test_a_straight_motion_has_the_variance_of_its_length() -> None:
    """A uniform path of length L has L^2 / 12; sharing a point among two pixels adds f (1 - f), 1/6 on average."""
    assert moments(motion_kernel(12.0, 0.0)) == pytest.approx((0, 0, 12 + 1 / 6, 0), abs=0.02)
    assert moments(motion_kernel(12.0, math.pi / 2)) == pytest.approx((0, 0, 0, 12 + 1 / 6), abs=0.02)
    assert motion_kernel(0.0, 1.0).max() == 1
    rising = motion_kernel(12.0, math.pi / 4)
    assert float(rising.sum()) == pytest.approx(1, abs=1e-12)
    middle = len(rising) // 2
    assert float(rising[middle - 3, middle + 3]) > 0.05  # up and to the right
    assert float(rising[middle + 3, middle + 3]) == 0


def test_a_bent_motion_is_an_arc_of_a_circle() -> None:
    """Half a turn of radius R: R^2 / 2 along its chord, R^2 / 2 - (2 R / pi)^2 across it."""
    radius = 9.0
    found = moments(motion_kernel(math.pi * radius, math.pi / 2, math.pi))
    across = radius**2 / 2 - (2 * radius / math.pi) ** 2
    assert found == pytest.approx((0, 0, radius**2 / 2 + 1 / 6, across + 1 / 6), abs=0.2) or found == pytest.approx(
        (0, 0, across + 1 / 6, radius**2 / 2 + 1 / 6), abs=0.2
    )


@pytest.mark.parametrize("radius", [2.5, 4.2, 7.0])
def test_a_disk_has_the_area_and_the_spread_of_a_disk(radius: float) -> None:
    """r^2 / 4 along each axis, and 1/12 from the squares of the pixels."""
    kernel = disk_kernel(radius)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
    _, _, across, down = moments(kernel)
    assert across == pytest.approx(down, abs=1e-12)
    assert across == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.03)
    assert float((kernel > 0.5 * kernel.max()).sum()) == pytest.approx(math.pi * radius**2, rel=0.1)
    assert all(disk_kernel(radius).max() == disk_kernel(radius).sum() == 1 for radius in (0.5, 0.3, 0.01))  # one pixel


def test_blur_in_linear_light_keeps_the_light() -> None:
    """A lamp on black: its light is spread, and its values, being tone, add up to more."""
    image = torch.zeros(3, 41, 41, dtype=torch.float64)
    image[:, 20, 20] = 1
    blurred = blur_light(image, disk_kernel(4.0))
    assert to_linear(blurred, "srgb").sum((1, 2)).tolist() == pytest.approx([1] * 3, abs=1e-4)
    assert float(blurred.sum()) > 5
    flat = torch.full((3, 9, 9), 0.3, dtype=torch.float64)
    torch.testing.assert_close(blur_light(flat, motion_kernel(5.0, 0.4)), flat, rtol=0, atol=1e-6)


def test_gaussian_blur_has_its_two_spreads() -> None:
    image = torch.zeros(3, 61, 61, dtype=torch.float64)
    image[:, 30, 30] = 1
    _, _, across, down = moments(gaussian_blur(image, 4.0, 2.0, 0.0)[1])
    assert (across, down) == pytest.approx((16, 4), rel=0.01)


# ---------------------------------------------------------------- noise and compression


def test_photons_have_the_variance_of_their_number() -> None:
    light = torch.full((3, 300, 300), 0.4, dtype=torch.float64)
    noisy = photons(light, 50.0, seeded(3))
    count = noisy.numel()
    assert float(noisy.mean()) == pytest.approx(0.4, abs=5 * math.sqrt(0.4 / 50 / count))
    assert float(noisy.var()) == pytest.approx(0.4 / 50, rel=5 * math.sqrt((2 + 1 / 20) / count))  # 20 photons each
    torch.testing.assert_close((noisy * 50).round(), noisy * 50, rtol=0, atol=1e-9)  # whole photons
    assert torch.equal(photons(-light, 50.0, seeded(3)), torch.zeros_like(light))
    with pytest.raises(ValueError, match=r"expected a positive number of photons, got 0"):
        photons(light, 0.0, seeded(3))


def test_speckle_grows_with_the_value() -> None:
    image = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[:, None, None].expand(3, 200, 200)
    noise = (speckle(image, 0.2, seeded(4)) - image).flatten(1)
    assert noise.std(1).tolist() == pytest.approx([0, 0.1, 0.2], rel=5 * math.sqrt(0.5 / 40000))
    with pytest.raises(ValueError, match=r"standard deviation of 0 or more, got -1"):
        speckle(image, -1.0, seeded(4))


def test_grain_is_soft_but_as_strong_as_it_is_told() -> None:
    image = torch.full((3, 256, 256), 0.5)
    noise = damaged(image, degradation("gaussian_noise", std=[10, 10], grain=[4, 4], grey=1)) - image
    assert torch.equal(noise[0], noise[2])
    assert float(noise[0].std()) == pytest.approx(10 / 255, rel=0.15)
    neighbours = float((noise[0, :, 1:] * noise[0, :, :-1]).mean() / noise[0].var())
    assert neighbours == pytest.approx(math.exp(-1 / (4 * 2.0**2)), abs=0.05)  # 4 px at 512 are 2 at 256


def test_jpeg_twice_is_two_files_whose_blocks_lie_apart() -> None:
    image = smooth_image(48, 40)
    in_step = damaged(image, degradation("double_jpeg", first=[20, 20], second=[60, 60], shift=0))
    assert torch.equal(in_step, jpeg(jpeg(image[None], 20), 60)[0])
    shifts = [draw_all([degradation("double_jpeg", first=[20, 20], second=[60, 60])], seed, (9, 9))[0] for seed in range(50)]
    drawn = next(each for each in shifts if each["down"] and each["right"])
    apart = degradation("double_jpeg", first=[20, 20], second=[60, 60]).apply(image, drawn)
    assert not torch.equal(apart, in_step)
    assert float((apart - image).abs().mean()) < 0.05  # nothing has moved


def test_webp_keeps_more_at_a_higher_quality() -> None:
    image = smooth_image(48, 40)
    errors = [float((webp(image, quality) - image).abs().mean()) for quality in (1, 30, 60, 95)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[3]
    assert torch.equal((webp(image, 50) * 255).round() / 255, webp(image, 50))
    with pytest.raises(ValueError, match=r"webp: expected a quality from 1 to 100, got 0"):
        webp(image, 0)


# ---------------------------------------------------------------- archives


def test_old_plates_do_not_see_red() -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 4, 4)
    assert archive.one_colour(red, 0.0, 0.4).unique().tolist() == [0]
    assert archive.one_colour(red, 0.299, 0.114).unique().tolist() == pytest.approx([0.299])
    with pytest.raises(ValueError, match=r"weights of 0 or more with a sum of at most 1, got red 0.7, blue 0.5"):
        archive.one_colour(red, 0.7, 0.5)


def test_fading_takes_density_away() -> None:
    """Half the dye is half the logarithm: the square root of the light."""
    image = smooth_image(20, 24).double() * 0.8 + 0.2
    light = to_linear(image, "srgb")
    expected = torch.stack([light[0].sqrt(), light[1], light[2] ** 0.25 * 10**-0.2])
    expected[1] *= 10 ** (-0.2 / 3)
    faded = archive.faded(image, cyan=0.5, magenta=1, yellow=0.25, stain=0.2)
    torch.testing.assert_close(to_linear(faded, "srgb"), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(archive.faded(image, cyan=1, magenta=1, yellow=1, stain=0), image, rtol=0, atol=1e-6)
    black = archive.faded(torch.zeros(3, 2, 2), cyan=0.5, magenta=0.5, yellow=0.5, stain=0)
    assert to_linear(black, "srgb").unique().tolist() == pytest.approx([10 ** (-archive.BLACK_DENSITY / 2)], rel=1e-4)


def test_sepia_is_brown_between_black_and_white_paper() -> None:
    grey = torch.linspace(0.1, 0.95, 30).expand(3, 5, 30)
    toned = archive.sepia(grey, 1.0)
    assert bool((toned[0] > toned[1]).all())
    assert bool((toned[1] > toned[2]).all())
    torch.testing.assert_close(archive.sepia(grey, 0.0), grey, rtol=0, atol=1e-3)
    torch.testing.assert_close(archive.sepia(torch.ones(3, 2, 2), 1.0), torch.ones(3, 2, 2))


def test_banding_leaves_so_many_levels() -> None:
    levels = archive.few_levels(torch.rand(3, 40, 40, generator=seeded(3)), 5).unique().tolist()
    assert levels == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    with pytest.raises(ValueError, match="two levels or more, got 1"):
        archive.few_levels(torch.rand(3, 4, 4), 1)


@pytest.mark.parametrize("tone", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("coloured", [False, True])
def test_dots_of_ink_have_the_light_of_the_tone(tone: float, coloured: bool) -> None:
    flat = torch.full((3, 120, 120), tone, dtype=torch.float64)
    printed = archive.halftone(flat, period=5, angle=0.6, phase=(0.2, 0.7), coloured=coloured)
    light = to_linear(printed, "srgb").mean((1, 2)).tolist()
    assert light == pytest.approx([float(to_linear(flat, "srgb")[0, 0, 0])] * 3, abs=0.01)
    assert float(printed.max() - printed.min()) > 0.4
    assert coloured != torch.equal(printed[0], printed[2])


def test_paper_white_and_full_ink_have_no_dots() -> None:
    for value in (0.0, 1.0):
        flat = torch.full((3, 20, 20), value)
        printed = archive.halftone(flat, period=4, angle=0.5, phase=(0, 0), coloured=True)
        torch.testing.assert_close(printed, flat, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"halftone: expected a period of at least 2 pixels, got 1.5"):
        archive.halftone(torch.rand(3, 8, 8), period=1.5, angle=0, phase=(0, 0), coloured=False)


def test_scan_lines_take_half_their_depth_of_the_light() -> None:
    flat = torch.full((3, 120, 7), 0.6, dtype=torch.float64)
    light = to_linear(archive.scan_lines(flat, period=6, depth=0.4, phase=0.3), "srgb") / to_linear(flat, "srgb")
    assert float(light.mean()) == pytest.approx(0.8, abs=1e-6)
    assert float(light.min()) >= 0.6 - 1e-6
    torch.testing.assert_close(light[:, 6:], light[:, :-6], rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"scan lines: expected a period of at least 2 pixels, got 1"):
        archive.scan_lines(flat, period=1, depth=0.4, phase=0)


def test_scratches_and_dust_cover_little_and_move_towards_their_tone() -> None:
    image = smooth_image(120, 90) * 0.6 + 0.2
    upright = archive.scratched(image, 8, count=4, width=1.5, tone=1, upright=True)
    specks = archive.dusty(image, 8, count=40, radius=3, tone=0)
    for change, most in ((upright - image, 0.15), (image - specks, 0.12)):
        assert float(change.min()) >= -1e-6
        assert float(change.max()) > 0.15
        assert 0.001 < float((change.amax(0) > 0.01).float().mean()) < most
    lines = (upright - image).amax(0) > 0.05
    assert float(lines.any(1).float().mean()) > 0.5  # from top to bottom
    assert float(lines.any(0).float().mean()) < 0.5
    assert torch.equal(archive.scratched(image, 8, count=0, width=1.5, tone=1, upright=False), image)
    assert torch.equal(archive.dusty(image, 8, count=0, radius=3, tone=0), image)


# ---------------------------------------------------------------- turbulence


def test_warping_takes_each_pixel_from_where_the_light_comes_from() -> None:
    image = torch.rand(3, 9, 12, generator=seeded(3), dtype=torch.float64)
    down, right = torch.full((9, 12), 2.0), torch.full((9, 12), -3.0)
    torch.testing.assert_close(
        warped(image, down.double(), right.double())[:, :7, 3:], image[:, 2:, :-3], rtol=0, atol=1e-9
    )


def test_turbulence_tilts_and_then_blurs() -> None:
    image = smooth_image(64, 60).double()
    calm = turbulent(image, 3, tilt=0, length=8, blur=(0.05, 0.05), shake=(0.0, 0.0))
    torch.testing.assert_close(calm, image, rtol=0, atol=1e-6)
    shaken = turbulent(image, 3, tilt=0, length=8, blur=(0.05, 0.05), shake=(2.0, 0.0))
    torch.testing.assert_close(shaken[:, :-2], image[:, 2:], rtol=0, atol=1e-6)
    blurred = turbulent(image, 3, tilt=0, length=8, blur=(2.0, 2.0), shake=(0.0, 0.0))
    expected = to_tone(gaussian_blur(to_linear(image, "srgb"), 2.0, 2.0, 0.0), "srgb")
    torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-6)
    tilted = turbulent(image, 3, tilt=2, length=8, blur=(0.05, 0.05), shake=(0.0, 0.0))
    assert float((tilted - image).abs().mean()) > 0.01
    assert float(tilted.mean()) == pytest.approx(float(image.mean()), abs=0.03)
