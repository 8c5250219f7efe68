"""Degradations of damage and chains of them: what is drawn repeats the damage, and every setting shows."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
import torch
from conftest import ROOT
from damage import damaged, degradation
from images import smooth_image

from adapt.settings import DegradeSettings
from adapt.settings.recipe import list_recipes, load_recipe
from degradations.chain import degrade, repeat, scaled
from degradations.fields import smooth_field, smooth_mask
from degradations.pieces.base import Degradation, draw_all
from degradations.pieces.names import AnyDegradation

RECIPES = [info.name.rpartition("/")[2] for info in list_recipes("degrade")]


def degradations_of(recipe: str) -> list[Degradation]:
    return list(load_recipe(recipe, DegradeSettings).degradations)


# ---------------------------------------------------------------- recipes


def test_the_recipes_of_the_papers_ship() -> None:
    dtbfr = {f"dtbfr-{name}" for name in ("4x-moderate", "4x-severe", "8x-moderate", "8x-severe", "mild")}
    others = {"dynface", "diffuse-restore", "diffuse-restore-x32", "codeformer", "old-photo", "turbulence", "blind"}
    assert dtbfr | others <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_follows_from_the_seed_and_what_was_drawn_repeats_it(name: str) -> None:
    image, degradations = smooth_image(64, 72), degradations_of(name)
    damaged, drawn = degrade(image, degradations, 5)
    assert damaged.shape == image.shape
    assert 0 <= float(damaged.min()) <= float(damaged.max()) <= 1
    assert torch.equal(repeat(image, degradations, json.loads(json.dumps(drawn))), damaged)
    again, same = degrade(image, degradations, 5)
    assert torch.equal(again, damaged)
    assert same == drawn
    other, different = degrade(image, degradations, 6)
    assert not torch.equal(other, damaged)
    assert different != drawn


def test_lengths_are_scaled_to_the_image() -> None:
    for seed in range(30):
        _, (drawn,) = degrade(smooth_image(32, 64), degradations_of("blind"), seed)
        assert drawn["std_x"] <= 15 * 32 / 512
        assert drawn["downsample"] <= 2


def test_degrade_says_what_it_refuses() -> None:
    image, degradations = torch.rand(3, 16, 16), degradations_of("dynface")
    with pytest.raises(ValueError, match=r"degrade: expected values in \[0, 1\], got \[.*, 2\]"):
        degrade(image.index_fill(0, torch.tensor([1]), 2.0), degradations, 0)
    with pytest.raises(ValueError, match=r"degrade: expected values in \[0, 1\], got \[nan, nan\]"):
        degrade(image.index_fill(0, torch.tensor([1]), math.nan), degradations, 0)
    with pytest.raises(ValueError, match=r"expected one image of shape \(3, H, W\), got \(1, 3, 16, 16\)"):
        degrade(image[None], degradations, 0)
    with pytest.raises(ValueError, match=r"a seed of 0 or more, got -1"):
        degrade(image, degradations, -1)
    with pytest.raises(ValueError, match=r"expected parameters of blind, got jpeg"):
        repeat(image, degradations, [{"name": "jpeg", "quality": 3}])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the same damage there as on the CPU")
@pytest.mark.parametrize("name", RECIPES)
def test_damage_is_the_same_on_every_device(name: str) -> None:
    image, degradations = smooth_image(64, 48), degradations_of(name)
    on_cpu, drawn = degrade(image, degradations, 3)
    on_device, same = degrade(image.cuda(), degradations, 3)
    assert on_device.is_cuda
    assert same == drawn
    difference = (on_device.cpu() - on_cpu).abs() * 255
    assert float(difference.mean()) < 0.2  # roundings that tip
    assert float(difference.max()) <= 8  # such a rounding just before the JPEG moves a whole block a little


# ---------------------------------------------------------------- degradations

KNOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chroma_noise": ({"std": [8, 10]}, {"std": [20, 22], "grain": [6, 8]}),
    "sharpen": ({"std": [4, 5], "amount": [0.5, 0.6]}, {"std": [12, 14], "amount": [1.5, 2]}),
    "smear": ({"radius": [8, 9], "strength": [10, 12]}, {"radius": [20, 22], "strength": [40, 50]}),
    "tint": ({"exposure": [0.8, 0.9]}, {"exposure": [0.3, 0.4], "red": [1.3, 1.4], "blue": [0.5, 0.6]}),
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
            "degradations": [{"name": "jpeg", "quality": [5, 8]}],
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
LENGTHS = {  # of each degradation; what is no length keeps its value when an image is smaller
    "blind": {"blur_std", "downsample"},
    "camera": {"scale"},
    "chroma_noise": {"grain"},
    "defocus": {"radius"},
    "dust": {"radius"},
    "gaussian_blur": {"std"},
    "gaussian_noise": {"grain"},
    "halftone": {"period"},
    "sharpen": {"std"},
    "smear": {"radius"},
    "mixed": {"length"},
    "motion_blur": {"length"},
    "resample": {"factor"},
    "scan_lines": {"period"},
    "scratches": {"width"},
    "turbulence": {"tilt", "length", "blur"},
}


def test_every_degradation_is_turned_below_and_told_in_the_docs() -> None:
    names = {str(each.model_fields["name"].default) for each in get_args(get_args(AnyDegradation)[0])}
    assert names == set(KNOBS)
    text = (ROOT / "docs" / "degradations.md").read_text(encoding="utf-8")
    recipes, _, degradations = text.partition("| degradation |")
    rows = {row.split("|")[1]: row for row in degradations.splitlines() if row.startswith("| `")}
    for name in names:
        settings = set(type(degradation(name, **KNOBS[name][0])).model_fields) - {"name", "probability"}
        assert settings == set(KNOBS[name][1]), name
        (row,) = [row for first, row in rows.items() if f"`{name}`" in first]
        assert all(f"`{setting}`" in row for setting in settings), name
    assert all(f"`{recipe}`" in recipes for recipe in RECIPES)


@pytest.mark.parametrize(("name", "knob"), [(name, knob) for name in KNOBS for knob in KNOBS[name][1]])
def test_every_setting_of_a_degradation_changes_the_result(name: str, knob: str) -> None:
    image, (base, changes) = (smooth_image(48, 40) * 1.6 - 0.5).clamp(0, 1), KNOBS[name]
    before = damaged(image, degradation(name, **base))
    assert not torch.equal(before, damaged(image, degradation(name, **{**base, knob: changes[knob]})))


@pytest.mark.parametrize("name", KNOBS)
def test_lengths_alone_shrink_with_the_image(name: str) -> None:
    one = degradation(name, **{**KNOBS[name][0], **KNOBS[name][1]})
    (same,), (half,) = scaled([one], (512, 700)), scaled([one], (900, 256))
    assert same == one
    changed = {key for key in type(one).model_fields if getattr(one, key) != getattr(half, key)}
    assert changed == LENGTHS.get(name, set())
    for key in changed - {"scale"}:
        assert getattr(half, key) == tuple(value / 2 for value in getattr(one, key))


def test_what_pixels_cannot_hold_is_not_scaled_away() -> None:
    (dots,) = scaled([degradation("halftone", period=[3, 10])], (128, 128))
    assert dots.model_dump()["period"] == (2.0, 2.5)
    (small,) = scaled([degradation("resample", factor=[2, 8])], (128, 128))
    assert small.model_dump()["factor"] == (1.0, 2.0)
    (camera,) = scaled([degradation("camera", iso=[800, 800], scale=4)], (64, 64))
    assert camera.model_dump()["scale"] == 1


# ---------------------------------------------------------------- chains


def test_a_degradation_is_applied_to_its_share_of_images_and_the_others_do_not_notice() -> None:
    banding = degradation("banding", levels=[2, 200])
    always = [degradation("jpeg", quality=[20, 90]), banding, degradation("webp", quality=[20, 90])]
    now_and_then = [always[0], degradation("banding", levels=[2, 200], probability=0.3), always[2]]
    skipped = 0
    for seed in range(400):
        full, some = draw_all(always, seed, (8, 8)), draw_all(now_and_then, seed, (8, 8))
        assert (some[0], some[2]) == (full[0], full[2])
        assert some[1] in (full[1], {"name": "banding", "skipped": True})
        skipped += some[1] != full[1]
    assert skipped / 400 == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / 400))
    image = smooth_image(16, 16)
    assert torch.equal(damaged(image, degradation("banding", levels=[2, 2], probability=0)), image)


def test_a_degradation_added_at_the_end_changes_nothing_before_it() -> None:
    first = [degradation("gaussian_noise", std=[1, 20]), degradation("jpeg", quality=[20, 90])]
    longer = [*first, degradation("scratches", count=[1, 9])]
    assert draw_all(longer, 8, (9, 9))[:2] == draw_all(first, 8, (9, 9))


def test_draws_fill_their_ranges() -> None:
    wide = degradation("double_jpeg", first=[30, 32], second=[1, 100])
    drawn = [draw_all([wide], seed, (9, 9))[0] for seed in range(600)]
    assert {each["first"] for each in drawn} == {30, 31, 32}
    assert {each["down"] for each in drawn} == set(range(8))
    assert sum(each["first"] == 32 for each in drawn) / 600 == pytest.approx(1 / 3, abs=5 * math.sqrt(2 / 9 / 600))
    assert min(each["second"] for each in drawn) <= 3
    assert max(each["second"] for each in drawn) >= 98


# ---------------------------------------------------------------- damage that varies


def test_mixed_damage_is_one_chain_here_and_the_other_there() -> None:
    image = smooth_image(96, 80)
    blurred: dict[str, Any] = {"name": "gaussian_blur", "std": [20, 20]}
    noisy: dict[str, Any] = {"name": "speckle_noise", "std": [0.3, 0.3]}
    both = {"first": [blurred], "second": [noisy]}
    mixed, (drawn,) = degrade(image, [degradation("mixed", **both, share=[0.5, 0.5])], 3)
    first = repeat(image, [degradation(**blurred)], drawn["first"])
    second = repeat(image, [degradation(**noisy)], drawn["second"])
    like_first, like_second = ((mixed - each).abs().amax(0) < 1e-6 for each in (first, second))
    assert 0.2 < float(like_first.float().mean()) < 0.5
    assert 0.2 < float(like_second.float().mean()) < 0.5
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    assert bool(((mixed >= low - 1e-6) & (mixed <= high + 1e-6)).all())
    whole = degradation("mixed", **both, share=[1, 1])
    torch.testing.assert_close(damaged(image, whole), first, rtol=0, atol=1e-6)
    none = degradation("mixed", first=[blurred], second=[], share=[0, 0])
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


# ---------------------------------------------------------------- what a phone does


def test_noise_of_colour_leaves_the_luminance_alone() -> None:
    """Y of BT.601 stays, Cb and Cr get the deviation that is asked for."""
    image = torch.full((3, 96, 96), 0.5)
    noisy = damaged(image, degradation("chroma_noise", std=[10, 10]))
    luminance = torch.tensor([0.299, 0.587, 0.114])
    assert float((torch.tensordot(luminance, noisy, 1) - 0.5).abs().max()) < 1e-5
    cb = (noisy[2] - torch.tensordot(luminance, noisy, 1)) / 1.772
    assert float(cb.std()) * 255 == pytest.approx(10, rel=0.05)


def test_smearing_wipes_texture_away_and_keeps_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    step = torch.where(torch.arange(512) < 256, 0.2, 0.8).expand(3, 64, 512)
    image = step + 4 / 255 * torch.randn(step.shape, generator=generator)
    smeared = degradation("smear", radius=[3, 3], strength=[12, 12]).apply(image, {"radius": 3.0, "strength": 12.0})
    flat = slice(20, 230)
    assert float(smeared[..., flat].std()) < 0.4 * float(image[..., flat].std())
    assert float(smeared[..., 258:262].mean() - smeared[..., 250:254].mean()) > 0.55


def test_sharpening_adds_what_a_blur_takes_and_no_more() -> None:
    """Of a wave of f cycles per pixel a blur of std s leaves exp(-2 (pi s f)^2)."""
    wave = 0.1 * torch.cos(2 * math.pi * torch.arange(256) / 16).expand(3, 64, 256)
    sharper = degradation("sharpen", std=[2, 2], amount=[0.5, 0.5]).apply(wave, {"std": 2.0, "amount": 0.5})
    gain = 1 + 0.5 * (1 - math.exp(-2 * (math.pi * 2 / 16) ** 2))
    assert float(sharper[..., 64:192].std() / wave[..., 64:192].std()) == pytest.approx(gain, rel=0.01)


def test_tint_is_a_gain_in_linear_light() -> None:
    image = torch.full((3, 8, 8), 0.7)
    tinted = degradation("tint", exposure=[0.5, 0.5], red=[1.2, 1.2], blue=[0.6, 0.6]).apply(
        image, {"exposure": 0.5, "red": 1.2, "blue": 0.6}
    )
    linear = ((0.7 + 0.055) / 1.055) ** 2.4
    expected = [1.055 * (linear * gain) ** (1 / 2.4) - 0.055 for gain in (0.6, 0.5, 0.3)]
    assert tinted[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-4)
