"""The noise schedule: q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I) on 1000 timesteps (DT-BFR Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from adapt.errors import UsageError

TIMESTEPS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """alpha-bar at every timestep, float64, (1000,), decreasing."""

    abar: Tensor

    def __len__(self) -> int:
        return len(self.abar)


@cache
def linear_schedule() -> Schedule:
    """The linear schedule of Ho et al. 2020: beta from 1e-4 to 0.02 over 1000 timesteps."""
    with torch.inference_mode(mode=False):  # whoever asks first: what is kept has to serve a training too
        betas = torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64)
        return Schedule(torch.cumprod(1 - betas, dim=0))


def respaced(count: int) -> list[int]:
    """`count` timesteps spread over all 1000, ends included, increasing (Nichol & Dhariwal 2021, "count" respacing).

    Raises:
        UsageError: not between 1 and 1000.
    """
    if not 1 <= count <= TIMESTEPS:
        raise UsageError(f"steps: expected 1 to {TIMESTEPS} timesteps, got {count}")
    stride = (TIMESTEPS - 1) / (count - 1) if count > 1 else 1.0
    position, kept = 0.0, []
    for _ in range(count):
        kept.append(round(position))
        position += stride
    return kept


def noised(x0: Tensor, abar: float, noise: Tensor) -> Tensor:
    """A draw of q(x_t | x_0) from standard normal `noise`; x0 (B, 3, H, W) in [-1, 1]."""
    return abar**0.5 * x0 + (1 - abar) ** 0.5 * noise
