"""Solvers: how a prediction of the clean image becomes the next, less noisy sample.

Each is a frozen object without state. What it must remember of earlier steps is returned and handed in again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from adapt.diffusion.prior import Prediction
from adapt.diffusion.steps import Step

Draw = Callable[[], Tensor]


class Solver(Protocol):
    """One step back. `memory` is None at the first step, then whatever the step before returned."""

    def step(
        self, prediction: Prediction, x: Tensor, step: Step, *, memory: Any, draw: Draw
    ) -> tuple[Tensor, Any]: ...


def posterior_mean(x0: Tensor, x_t: Tensor, step: Step) -> Tensor:
    """Mean of q(x_prev | x_t, x_0).

    Args:
        x0: predicted clean image, (B, 3, H, W) in [-1, 1].
        x_t: noisy image at `step.t`, same shape, not bounded.
        step: alpha-bar at both ends of the step.

    Source: Ho et al. 2020 (arXiv:2006.11239), Eq. (7). Differs: beta is between kept timesteps.
    """
    to_x0 = step.abar_prev**0.5 * step.beta / (1 - step.abar)
    to_x = (1 - step.beta) ** 0.5 * (1 - step.abar_prev) / (1 - step.abar)
    return to_x0 * x0 + to_x * x_t


def implied_noise(x0: Tensor, x_t: Tensor, step: Step) -> Tensor:
    """The noise that x_t holds if x0 is clean."""
    return (x_t - step.abar**0.5 * x0) / (1 - step.abar) ** 0.5


@dataclass(frozen=True, slots=True)
class Ancestral:
    """DDPM sampling with the learned variance (Ho et al. 2020, Alg. 2; Nichol & Dhariwal 2021)."""

    def step(self, prediction: Prediction, x: Tensor, step: Step, *, memory: Any, draw: Draw) -> tuple[Tensor, Any]:
        """Sample of p(x_prev | x_t); noise is drawn at the last step too, and not used, as the public code does."""
        noise = draw()
        mean = posterior_mean(prediction.x0, x, step)
        return (mean if step.last else mean + torch.exp(0.5 * prediction.log_variance) * noise), None


@dataclass(frozen=True, slots=True)
class Ddim:
    """DDIM (Song et al. 2021, arXiv:2010.02502, Eq. 12 and 16).

    Attributes:
        eta: 0 draws no noise, 1 as much as ancestral sampling with the posterior's variance.
    """

    eta: float = 0.0

    def step(self, prediction: Prediction, x: Tensor, step: Step, *, memory: Any, draw: Draw) -> tuple[Tensor, Any]:
        """x_prev on the DDIM path, with fresh noise where eta > 0."""
        noise = implied_noise(prediction.x0, x, step)
        sigma = self.eta * math.sqrt((1 - step.abar_prev) / (1 - step.abar) * step.beta)
        direction = math.sqrt(max(1 - step.abar_prev - sigma**2, 0.0))
        x_prev = step.abar_prev**0.5 * prediction.x0 + direction * noise
        return (x_prev + sigma * draw() if sigma > 0 else x_prev), None


@dataclass(frozen=True, slots=True)
class _Previous:
    """The prediction of the step before, and the half log-SNR where it was made."""

    x0: Tensor
    level: float


@dataclass(frozen=True, slots=True)
class DpmSolver2M:
    """DPM-Solver++ (2M), multistep in data prediction (Lu et al. 2022, arXiv:2211.01095, Alg. 2). Draws no noise."""

    def step(
        self, prediction: Prediction, x: Tensor, step: Step, *, memory: _Previous | None, draw: Draw
    ) -> tuple[Tensor, Any]:
        """x_prev from this prediction and the one before; first order at the first and at the last step."""
        level = _half_log_snr(step.abar)
        kept = _Previous(prediction.x0, level)
        if step.last:
            return prediction.x0, kept
        advance = _half_log_snr(step.abar_prev) - level
        estimate = prediction.x0
        if memory is not None:
            ratio = (level - memory.level) / advance
            estimate = estimate + (estimate - memory.x0) / (2 * ratio)
        scale = math.sqrt((1 - step.abar_prev) / (1 - step.abar))
        return scale * x - step.abar_prev**0.5 * math.expm1(-advance) * estimate, kept


def _half_log_snr(abar: float) -> float:
    """lambda = log(sqrt(abar) / sqrt(1 - abar))."""
    return 0.5 * math.log(abar / (1 - abar))
