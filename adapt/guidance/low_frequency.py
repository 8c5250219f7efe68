"""The low-frequency constraint of DT-BFR (Algorithm 1) and its low-pass filter phi_N."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from adapt.diffusion.sampler import Conditioning
from adapt.diffusion.schedule import noised
from adapt.diffusion.solvers import Draw
from adapt.diffusion.steps import Step
from adapt.errors import ShapeError
from degradations.resampling import cubic


def resize_matrix(length: int, out_length: int) -> Tensor:
    """Cubic resizing of one axis as a matrix, (out_length, length) float64.

    Pixel centres are aligned, the kernel is stretched when it shrinks (antialiased), rows sum to 1, and borders are
    mirrored with the edge pixel repeated, as MATLAB's imresize does it. `degradations.resampling.weights` and
    `F.interpolate` leave out what lies outside, as Pillow does, and differ near the borders by up to 0.16.
    """
    scale = out_length / length
    stretch = max(1.0, 1 / scale)
    centres = (torch.arange(out_length, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = int(4 * stretch) + 2
    left = torch.floor(centres - 2 * stretch).long()
    positions = left[:, None] + torch.arange(taps)[None, :]
    weights = cubic((positions - centres[:, None]) / stretch)
    weights = weights / weights.sum(dim=1, keepdim=True)
    period = 2 * length
    folded = positions % period
    folded = torch.where(folded < length, folded, period - 1 - folded)
    return torch.zeros(out_length, length, dtype=torch.float64).scatter_add_(1, folded, weights)


@lru_cache(maxsize=64)
def _low_pass_matrix(length: int, factor: int) -> Tensor:
    """Down by `factor` and up again along one axis, (length, length) float64."""
    small = -(-length // factor)
    return resize_matrix(small, length) @ resize_matrix(length, small)


def low_pass(image: Tensor, factor: int) -> Tensor:
    """phi_N: cubic downsampling by `factor` and cubic upsampling, (B, C, H, W) -> the same.

    Raises:
        ShapeError: a side that is not a multiple of the factor.

    Source: DT-BFR Sec. 4.1 (after ILVR, Choi et al. 2021), with the kernel of the public code.
    """
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        raise ShapeError(f"low-pass of {factor}: expected sides that are multiples of it, got {height} x {width}")
    rows = _low_pass_matrix(height, factor).to(image)
    columns = _low_pass_matrix(width, factor).to(image)
    return rows @ image @ columns.t()


def factor_for(std: float, size: tuple[int, int]) -> int:
    """N for a photo whose blur level is `std` pixels: the least factor whose low-pass keeps only what the blur left.

    phi_N keeps frequencies up to 1 / 2N cycles a pixel; a Gaussian of that std leaves less than a tenth of the power
    of what lies above 0.241 / std. So N is the smallest whole factor of both sides, from 2 on, that is at least
    2.07 std: at 512 pixels 8 for a std of 2 to 3.8, 16 up to 7.7, 32 up to 15. DT-BFR sets 8 and 16 by hand.

    Args:
        std: in pixels of these images.
        size: height and width of the images.

    Raises:
        ShapeError: sides without a common factor.
    """
    common = math.gcd(*size)
    factors = [factor for factor in range(2, common + 1) if common % factor == 0]
    if not factors:
        raise ShapeError(f"low-pass: expected sides with a common factor, got {size[0]} x {size[1]}")
    lost_above = math.sqrt(math.log(10) / 4) / (math.pi * std)
    return next((factor for factor in factors if 0.5 / factor <= lost_above), factors[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class LowFrequency:
    """Replaces low frequencies by those of the restored image.

    Attributes:
        factor: N of the low-pass filter.
        last_t: L; acts in steps that start above this timestep of the 1000-step schedule.
        acts_on: "sample": on the sample after the step, by the restored image freshly noised to the same level, which
            is that of the step's end, "t - 1" on the chain that is walked (DT-BFR Algorithm 1); "x0": on the predicted
            clean image, before the step, without noise. Differs: the papers have the first alone. Fresh noise costs a
            deterministic solver that takes few steps what it has cleaned already.
    """

    factor: int
    last_t: int
    acts_on: Literal["x0", "sample"] = "sample"

    @property
    def facts(self) -> Mapping[str, int]:
        """N, which may be the photo's own."""
        return {"factor": self.factor}

    def begin(self, conditioning: Conditioning) -> Tensor:
        return conditioning.restored

    def starting_image(self, memory: Tensor) -> None:
        """Not this term's to say."""

    def apply(self, image: Tensor, step: Step, memory: Tensor, *, draw: Draw) -> tuple[Tensor, Tensor]:
        if step.t <= self.last_t:
            return image, memory
        reference = memory if self.acts_on == "x0" else noised(memory, step.abar_prev, draw())
        return image + low_pass(reference - image, self.factor), memory
