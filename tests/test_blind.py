"""The blind degradation: against the public pipeline's arrays, its steps spelled out, and its own ranges."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from images import seeded, smooth_image
from reference import Reference
from torch import Tensor

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
from degradations.filters import blur, gaussian_kernel, resize_linear
from degradations.jpeg import jpeg

STRONG = BlindParameters(std_x=2.1, std_y=0.7, angle=0.4, downsample=2.3, noise=9.0, jpeg=60)


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


# ---------------------------------------------------------------- blind


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.stack([smooth_image(40, 34, seed) for seed in range(4)])

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
    image = smooth_image(47, 38)
    parameters = replace(STRONG, noise=0.0, jpeg=90)
    kernel = gaussian_kernel(STRONG.std_x, STRONG.std_y, STRONG.angle)
    small = resize_linear(blur(image[None], kernel[None].float()), (47 * 10 // 23, 38 * 10 // 23))
    expected = resize_linear(jpeg(small, 90), (47, 38))[0]
    difference = (degrade_blind(image, parameters, seeded(0)) - expected).abs() * 255
    assert float(difference.max()) <= 2.5
    assert float(difference.mean()) < 0.3  # a quarter is what the last rounding costs


def test_everything_random_follows_from_the_generator() -> None:
    image = smooth_image(24, 24)
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
    image = smooth_image(33, 45)
    damaged = degrade_blind(image, STRONG, seeded(0))
    assert damaged.shape == image.shape
    assert damaged.dtype == torch.float32
    assert 0 <= float(damaged.min()) <= float(damaged.max()) <= 1
    torch.testing.assert_close((damaged * 255).round(), damaged * 255, rtol=0, atol=1e-4)


def test_grey_is_the_luma_in_all_channels() -> None:
    image = smooth_image(20, 20)
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
    image = smooth_image(48, 48)

    def damage(chosen: BlindRanges) -> Tensor:
        generator = seeded(4)
        return degrade_blind(image, draw_blind(chosen, generator), generator)

    assert not torch.equal(damage(ranges), damage(replace(ranges, **change)))


def test_ranges_scale_with_small_images_only() -> None:
    small = SWINIR.scaled(128)
    assert small.blur_std == pytest.approx((0.025, 3.75))
    assert small.downsample == pytest.approx((0.8, 8.0))
    assert replace(small, blur_std=SWINIR.blur_std, downsample=SWINIR.downsample) == SWINIR
    assert SWINIR.scaled(512) == SWINIR.scaled(2048) == SWINIR
    assert SWINIR.scaled(8).downsample == (0.8, 1.0)
    for seed in range(20):
        generator = seeded(seed)
        degrade_blind(smooth_image(16, 16), draw_blind(SWINIR.scaled(16), generator), generator)


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
    image = smooth_image(16, 20)
    with pytest.raises(ValueError, match=r"downsample 17 leaves nothing of an image of 16 x 20; .*scaled"):
        degrade_blind(image, replace(STRONG, downsample=17.0), seeded(0))
    with pytest.raises(ValueError, match=r"expected one image of shape \(3, H, W\), got \(1, 3, 16, 20\)"):
        degrade_blind(image[None], STRONG, seeded(0))
    with pytest.raises(ValueError, match=r"each of 1 images, got 2 and 1"):
        degrade_blind_batch(image[None], [STRONG, STRONG], [seeded(0)])
    with pytest.raises(ValueError, match=r"noise field: expected shape \(3, 6, 8\), got \(3, 16, 20\)"):
        degrade_blind(image, STRONG, torch.zeros(3, 16, 20))
    with pytest.raises(ValueError, match=r"image size of at least 1 pixel, got 0"):
        SWINIR.scaled(0)


def test_sides_shrink_to_the_floor_and_may_grow() -> None:
    assert shrunk_size((128, 128), 4.3) == (29, 29)
    assert shrunk_size((128, 100), 0.5) == (256, 200)
    assert shrunk_size((33, 45), 1.0) == (33, 45)
