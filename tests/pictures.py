"""Generators and pictures for tests: white noise, enlarged, so that they have edges and shades."""

from __future__ import annotations

import torch
from torch import Tensor

from degradations.filters import resize_linear


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Edges and shades, (count, 3, H, W) in [0, 1]."""
    coarse = torch.rand(count, 3, max(2, height // 6), max(2, width // 6), generator=seeded(seed))
    return resize_linear(coarse, (height, width))


def smooth_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """One of them, (3, H, W)."""
    return smooth_pictures(1, height, width, seed)[0]
