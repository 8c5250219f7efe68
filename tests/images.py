"""Generators and images for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from adapt.pretraining.distortions import gaussian
from degradations.filters import resize_linear


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """White noise, enlarged: edges and shades, (count, 3, H, W) in [0, 1]."""
    coarse = torch.rand(count, 3, max(2, height // 6), max(2, width // 6), generator=seeded(seed))
    return resize_linear(coarse, (height, width))


def smooth_image(height: int, width: int, seed: int = 0) -> Tensor:
    """One of them, (3, H, W)."""
    return smooth_images(1, height, width, seed)[0]


def edged_images(gen: torch.Generator, count: int = 3, height: int = 37, width: int = 31) -> Tensor:
    """Smooth random images with edges, (count, 3, height, width) in [0, 1]."""
    waves = gaussian(torch.randn(count, 3, height, width, generator=gen), torch.full((count,), 2.0))
    edges = (gaussian(torch.randn(count, 1, height, width, generator=gen), torch.full((count,), 4.0)) > 0).float()
    return (0.35 + 0.5 * waves + 0.3 * edges).clamp(0, 1)
