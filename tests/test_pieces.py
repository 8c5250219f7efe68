"""Pieces of damage and chains of them: what is drawn repeats the damage, and each does what it is named after."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from adapt.recipe import list_recipes, load_recipe
from adapt.settings import DegradeSettings
from degradations import archive
from degradations.camera import to_linear, to_tone
from degradations.chain import degrade, repeat, scaled
from degradations.fields import smooth_field, smooth_mask
from degradations.filters import resize_linear
from degradations.jpeg import jpeg
from degradations.kernels import blur_light, disk_kernel, gaussian_blur, motion_kernel
from degradations.noise import photons, speckle
from degradations.piece import Piece, draw_all
from degradations.pieces import AnyPiece
from degradations.resampling import resize
from degradations.turbulence import turbulent, warped
from degradations.webp import webp

CHAIN = TypeAdapter(list[AnyPiece])
ROOT = Path(__file__).resolve().parents[1]
RECIPES = [info.name.rpartition("/")[2] for info in list_recipes("degrade")]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Something with edges and shades, in [0, 1]: white noise, enlarged."""
    coarse = torch.rand(1, 3, max(2, height // 6), max(2, width // 6), generator=seeded(seed))
    return resize_linear(coarse, (height, width))[0]


def pieces_of(recipe: str) -> list[Piece]:
    return list(load_recipe(recipe, DegradeSettings).pieces)


# ---------------------------------------------------------------- recipes


def test_the_recipes_of_the_papers_ship() -> None:
    dtbfr = {f"dtbfr-{name}" for name in ("4x-moderate", "4x-severe", "8x-moderate", "8x-severe", "mild")}
    others = {"dynface", "diffuse-restore", "diffuse-restore-x32", "codeformer", "old-photo", "turbulence", "blind"}
    assert dtbfr | others <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_follows_from_the_seed_and_what_was_drawn_repeats_it(name: str) -> None:
    image, pieces = smooth_picture(64, 72), pieces_of(name)
    damaged, drawn = degrade(image, pieces, 5)
    assert damaged.shape == image.shape
    assert 0 <= float(damaged.min()) <= float(damaged.max()) <= 1
    assert torch.equal(repeat(image, pieces, json.loads(json.dumps(drawn))), damaged)
    again, same = degrade(image, pieces, 5)
    assert torch.equal(again, damaged)
    assert same == drawn
    other, different = degrade(image, pieces, 6)
    assert not torch.equal(other, damaged)
    assert different != drawn


def test_lengths_are_scaled_to_the_picture() -> None:
    for seed in range(30):
        _, (drawn,) = degrade(smooth_picture(32, 64), pieces_of("blind"), seed)
        assert drawn["std_x"] <= 15 * 32 / 512
        assert drawn["downsample"] <= 2


def test_degrade_says_what_it_refuses() -> None:
    image, pieces = torch.rand(3, 16, 16), pieces_of("dynface")
    with pytest.raises(ValueError, match=r"degrade: expected values in \[0, 1\], got \[.*, 2\]"):
        degrade(image.index_fill(0, torch.tensor([1]), 2.0), pieces, 0)
    with pytest.raises(ValueError, match=r"degrade: expected values in \[0, 1\], got \[nan, nan\]"):
        degrade(image.index_fill(0, torch.tensor([1]), math.nan), pieces, 0)
    with pytest.raises(ValueError, match=r"expected one image of shape \(3, H, W\), got \(1, 3, 16, 16\)"):
        degrade(image[None], pieces, 0)
    with pytest.raises(ValueError, match=r"a seed of 0 or more, got -1"):
        degrade(image, pieces, -1)
    with pytest.raises(ValueError, match=r"expected parameters of blind, got jpeg"):
        repeat(image, pieces, [{"name": "jpeg", "quality": 3}])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the same damage there as on the CPU")
@pytest.mark.parametrize("name", RECIPES)
def test_damage_is_the_same_on_every_device(name: str) -> None:
    image, pieces = smooth_picture(64, 48), pieces_of(name)
    on_cpu, drawn = degrade(image, pieces, 3)
    on_device, same = degrade(image.cuda(), pieces, 3)
    assert on_device.is_cuda
    assert same == drawn
    difference = (on_device.cpu() - on_cpu).abs() * 255
    assert float(difference.mean()) < 0.2  # roundings that tip
    assert float(difference.max()) <= 8  # such a rounding just before the JPEG moves a whole block a little


# ---------------------------------------------------------------- pieces

KNOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "banding": ({"levels": [6, 8]}, {"levels": [3, 4]}),
    "blind": (
        {"blur_std": [8, 20], "downsample": [8, 20], "isotropic": 1, "grey": 0},
        {
            "blur_std": [30, 40],
            "downsample": [30, 31],
            "noise": [40, 50],
            "jpeg": [5, 8],
            "isotropic": 0,
            "grey": 1,
            "kernel_size": 3,
        },
    ),
    "camera": (
        {"iso": [300, 300], "scale": 12},
        {
            "profile": "generic-compact",
            "iso": [390, 400],
            "scale": 24,
            "curve": "srgb",
            "demosaic": "malvar",
            "noise": "poisson",
            "quantise": False,
            "clip_black": False,
            "rounding": "round",
        },
    ),
    "camera_noise": (
        {"gain": 0.01, "read_noise": 0.02},
        {
            "scale": 4,
            "gain": 0.03,
            "read_noise": 0.05,
            "exposure_spread": 1.0,
            "red": [3, 3],
            "blue": [3, 3],
        },
    ),
    "defocus": ({"radius": [10, 20]}, {"radius": [30, 40]}),
    "double_jpeg": ({"first": [20, 30], "second": [40, 50]}, {"first": [5, 8], "second": [5, 8], "shift": 0}),
    "dust": ({"count": [9, 12], "white": 1}, {"count": [30, 40], "radius": [20, 30], "white": 0}),
    "fading": (
        {"cyan": [0.3, 0.4], "magenta": [0.6, 0.7], "yellow": [0.8, 0.9]},
        {"cyan": [0.6, 0.7], "magenta": [0.1, 0.2], "yellow": [0.1, 0.2], "stain": [0.2, 0.3], "together": True},
    ),
    "gaussian_blur": ({"std": [8, 20]}, {"std": [30, 40], "isotropic": 0}),
    "gaussian_noise": ({"std": [5, 20]}, {"std": [30, 40], "grey": 1, "grain": [10, 12]}),
    "grey": ({}, {"red": [0.6, 0.7], "blue": [0.25, 0.3]}),
    "halftone": ({"period": [40, 50]}, {"period": [70, 80], "angle": [0, 10], "coloured": 1}),
    "jpeg": ({"quality": [40, 50]}, {"quality": [5, 8]}),
    "mixed": (
        {"first": [{"name": "gaussian_noise", "std": [20, 30]}], "second": []},
        {
            "first": [{"name": "jpeg", "quality": [5, 8]}],
            "second": [{"name": "banding", "levels": [3, 4]}],
            "length": [200, 210],
            "share": [0.9, 0.95],
            "softness": [1, 1],
        },
    ),
    "motion_blur": ({"length": [40, 60]}, {"length": [80, 90], "angle": [89, 90], "bend": [100, 110]}),
    "poisson_noise": ({"photons": [100, 200]}, {"photons": [10, 20]}),
    "resample": (
        {"factor": [16, 20], "down": ["box"], "up": ["bicubic"]},
        {
            "factor": [30, 40],
            "down": ["nearest"],
            "up": ["lanczos"],
            "pieces": [{"name": "jpeg", "quality": [5, 8]}],
        },
    ),
    "scan_lines": ({"period": [40, 50], "depth": [0.3, 0.4]}, {"period": [70, 80], "depth": [0.8, 0.9]}),
    "scratches": ({"count": [3, 4]}, {"count": [8, 9], "width": [20, 30], "white": 0, "upright": 0}),
    "sepia": ({}, {"strength": [0.1, 0.2]}),
    "speckle_noise": ({"std": [0.1, 0.2]}, {"std": [0.3, 0.4]}),
    "turbulence": (
        {"tilt": [10, 20], "length": [60, 80], "blur": [10, 20]},
        {"tilt": [30, 40], "length": [200, 210], "blur": [30, 40]},
    ),
    "webp": ({"quality": [40, 50]}, {"quality": [1, 3]}),
}
LENGTHS = {  # of each piece; what is no length keeps its value when a picture is smaller
    "blind": {"blur_std", "downsample"},
    "camera": {"scale"},
    "defocus": {"radius"},
    "dust": {"radius"},
    "gaussian_blur": {"std"},
    "gaussian_noise": {"grain"},
    "halftone": {"period"},
    "mixed": {"length"},
    "motion_blur": {"length"},
    "resample": {"factor"},
    "scan_lines": {"period"},
    "scratches": {"width"},
    "turbulence": {"tilt", "length", "blur"},
}


def piece(name: str, **settings: Any) -> Piece:
    return CHAIN.validate_python([{"name": name, **settings}])[0]


def damaged(image: Tensor, *pieces: Piece, seed: int = 3) -> Tensor:
    return degrade(image, pieces, seed)[0]


def test_every_piece_is_turned_below_and_told_in_the_docs() -> None:
    names = {str(each.model_fields["name"].default) for each in get_args(get_args(AnyPiece)[0])}
    assert names == set(KNOBS)
    recipes, _, pieces = (ROOT / "docs" / "degradations.md").read_text(encoding="utf-8").partition("| piece |")
    rows = {row.split("|")[1]: row for row in pieces.splitlines() if row.startswith("| `")}
    for name in names:
        settings = set(type(piece(name, **KNOBS[name][0])).model_fields) - {"name", "probability"}
        assert settings == set(KNOBS[name][1]), name
        (row,) = [row for first, row in rows.items() if f"`{name}`" in first]
        assert all(f"`{setting}`" in row for setting in settings), name
    assert all(f"`{recipe}`" in recipes for recipe in RECIPES)


@pytest.mark.parametrize(("name", "knob"), [(name, knob) for name in KNOBS for knob in KNOBS[name][1]])
def test_every_setting_of_a_piece_changes_the_result(name: str, knob: str) -> None:
    image, (base, changes) = (smooth_picture(48, 40) * 1.6 - 0.5).clamp(0, 1), KNOBS[name]
    before = damaged(image, piece(name, **base))
    assert not torch.equal(before, damaged(image, piece(name, **{**base, knob: changes[knob]})))


@pytest.mark.parametrize("name", KNOBS)
def test_lengths_alone_shrink_with_the_picture(name: str) -> None:
    one = piece(name, **{**KNOBS[name][0], **KNOBS[name][1]})
    (same,), (half,) = scaled([one], (512, 700)), scaled([one], (900, 256))
    assert same == one
    changed = {key for key in type(one).model_fields if getattr(one, key) != getattr(half, key)}
    assert changed == LENGTHS.get(name, set())
    for key in changed - {"scale"}:
        assert getattr(half, key) == tuple(value / 2 for value in getattr(one, key))


def test_what_pixels_cannot_hold_is_not_scaled_away() -> None:
    (dots,) = scaled([piece("halftone", period=[3, 10])], (128, 128))
    assert dots.model_dump()["period"] == (2.0, 2.5)
    (small,) = scaled([piece("resample", factor=[2, 8])], (128, 128))
    assert small.model_dump()["factor"] == (1.0, 2.0)
    (camera,) = scaled([piece("camera", iso=[800, 800], scale=4)], (64, 64))
    assert camera.model_dump()["scale"] == 1


# ---------------------------------------------------------------- chains


def test_a_piece_is_applied_to_its_share_of_pictures_and_the_others_do_not_notice() -> None:
    always = [piece("jpeg", quality=[20, 90]), piece("banding", levels=[2, 200]), piece("webp", quality=[20, 90])]
    now_and_then = [always[0], piece("banding", levels=[2, 200], probability=0.3), always[2]]
    skipped = 0
    for seed in range(400):
        full, some = draw_all(always, seed, (8, 8)), draw_all(now_and_then, seed, (8, 8))
        assert (some[0], some[2]) == (full[0], full[2])
        assert some[1] in (full[1], {"name": "banding", "skipped": True})
        skipped += some[1] != full[1]
    assert skipped / 400 == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / 400))
    image = smooth_picture(16, 16)
    assert torch.equal(damaged(image, piece("banding", levels=[2, 2], probability=0)), image)


def test_a_piece_added_at_the_end_changes_nothing_before_it() -> None:
    first = [piece("gaussian_noise", std=[1, 20]), piece("jpeg", quality=[20, 90])]
    longer = [*first, piece("scratches", count=[1, 9])]
    assert draw_all(longer, 8, (9, 9))[:2] == draw_all(first, 8, (9, 9))


def test_draws_fill_their_ranges() -> None:
    drawn = [draw_all([piece("double_jpeg", first=[30, 32], second=[1, 100])], seed, (9, 9))[0] for seed in range(600)]
    assert {each["first"] for each in drawn} == {30, 31, 32}
    assert {each["down"] for each in drawn} == set(range(8))
    assert sum(each["first"] == 32 for each in drawn) / 600 == pytest.approx(1 / 3, abs=5 * math.sqrt(2 / 9 / 600))
    assert min(each["second"] for each in drawn) <= 3
    assert max(each["second"] for each in drawn) >= 98


# ---------------------------------------------------------------- damage that varies


def test_mixed_damage_is_one_chain_here_and_the_other_there() -> None:
    image = smooth_picture(96, 80)
    blurred: dict[str, Any] = {"name": "gaussian_blur", "std": [20, 20]}
    noisy: dict[str, Any] = {"name": "speckle_noise", "std": [0.3, 0.3]}
    both = {"first": [blurred], "second": [noisy]}
    mixed, (drawn,) = degrade(image, [piece("mixed", **both, share=[0.5, 0.5])], 3)
    first = repeat(image, [piece(**blurred)], drawn["first"])
    second = repeat(image, [piece(**noisy)], drawn["second"])
    like_first, like_second = ((mixed - each).abs().amax(0) < 1e-6 for each in (first, second))
    assert 0.2 < float(like_first.float().mean()) < 0.5
    assert 0.2 < float(like_second.float().mean()) < 0.5
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    assert bool(((mixed >= low - 1e-6) & (mixed <= high + 1e-6)).all())
    whole = piece("mixed", **both, share=[1, 1])
    torch.testing.assert_close(damaged(image, whole), first, rtol=0, atol=1e-6)
    none = piece("mixed", first=[blurred], second=[], share=[0, 0])
    torch.testing.assert_close(damaged(image, none), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0.0, 1.5, 7.0])
def test_smooth_fields_are_normal_with_the_correlation_they_promise(length: float) -> None:
    fields = smooth_field((40, 50), length, 5, count=400).double()
    assert float(fields.mean()) == pytest.approx(0, abs=0.06)
    assert float(fields.var()) == pytest.approx(1, abs=0.06)
    for distance in (1, 3, 9):
        expected = math.exp(-(distance**2) / (4 * length**2)) if length else 0.0
        across = fields[:, :, distance:] * fields[:, :, :-distance]
        down = fields[:, distance:] * fields[:, :-distance]
        for product in (across, down):
            assert float(product.mean()) == pytest.approx(expected, abs=0.06)
    assert not torch.equal(smooth_field((9, 9), length, 1), smooth_field((9, 9), length, 2))


def test_masks_cover_their_share_with_edges_as_soft_as_asked() -> None:
    for share in (0.0, 0.2, 0.7, 1.0):
        mask = smooth_mask((90, 70), 8, length=6, share=share, softness=0.4)
        assert float(mask.mean()) == pytest.approx(share, abs=0.05)
    assert set(smooth_mask((30, 20), 8, length=4, share=0.5, softness=0).unique().tolist()) <= {0.0, 0.5, 1.0}
    soft = smooth_mask((90, 70), 8, length=6, share=0.5, softness=1)
    assert float(((soft > 0) & (soft < 1)).float().mean()) == pytest.approx(0.383, abs=0.08)  # P(|N(0, 1)| < 0.5)


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


def test_what_is_inside_a_resampling_meets_the_small_picture() -> None:
    image = smooth_picture(48, 40)
    inside = [{"name": "banding", "levels": [4, 4]}]
    outer = piece("resample", factor=[24, 24], down=["box"], up=["nearest"], pieces=inside)
    picture, (drawn,) = degrade(image, [outer], 3)
    assert drawn["size"] == [25, 21]  # 24 for 512 px is 1.875 for 40
    assert set((picture * 3).unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    plain = piece("resample", factor=[1, 1], down=["bicubic"], up=["lanczos"])
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
    assert disk_kernel(0.3).max() == 1  # inside a pixel


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
    noise = damaged(image, piece("gaussian_noise", std=[10, 10], grain=[4, 4], grey=1)) - image
    assert torch.equal(noise[0], noise[2])
    assert float(noise[0].std()) == pytest.approx(10 / 255, rel=0.15)
    neighbours = float((noise[0, :, 1:] * noise[0, :, :-1]).mean() / noise[0].var())
    assert neighbours == pytest.approx(math.exp(-1 / (4 * 2.0**2)), abs=0.05)  # 4 px at 512 are 2 at 256


def test_jpeg_twice_is_two_files_whose_blocks_lie_apart() -> None:
    image = smooth_picture(48, 40)
    in_step = damaged(image, piece("double_jpeg", first=[20, 20], second=[60, 60], shift=0))
    assert torch.equal(in_step, jpeg(jpeg(image[None], 20), 60)[0])
    shifts = [draw_all([piece("double_jpeg", first=[20, 20], second=[60, 60])], seed, (9, 9))[0] for seed in range(50)]
    drawn = next(each for each in shifts if each["down"] and each["right"])
    apart = piece("double_jpeg", first=[20, 20], second=[60, 60]).apply(image, drawn)
    assert not torch.equal(apart, in_step)
    assert float((apart - image).abs().mean()) < 0.05  # nothing has moved


def test_webp_keeps_more_at_a_higher_quality() -> None:
    image = smooth_picture(48, 40)
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
    image = smooth_picture(20, 24).double() * 0.8 + 0.2
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
    image = smooth_picture(120, 90) * 0.6 + 0.2
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
    image = smooth_picture(64, 60).double()
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
