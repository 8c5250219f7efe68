"""Pieces of damage and chains of them: what is drawn repeats the damage, and each does what it is named after."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from adapt.recipe import list_recipes, load_recipe
from adapt.settings import DegradeSettings
from degradations.chain import degrade, repeat
from degradations.filters import resize_linear
from degradations.piece import Piece

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
