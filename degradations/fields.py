"""Smooth random fields: where damage is strong and where it is weak, and which way air bends light."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from degradations.resampling import weights


def smooth_field(shape: tuple[int, int], length: float, seed: int, *, count: int = 1) -> Tensor:
    """Independent smooth fields, (count, H, W) float32 on the CPU, each value N(0, 1) over the seeds.

    Gaussian-correlated: the correlation at a distance d is exp(-d^2 / (4 s^2)) with s = `length`, in pixels; so at
    2 s it has fallen to a third.

    Args:
        shape: height and width.
        length: standard deviation of the Gaussian that smooths the white noise, in pixels; 0 leaves it white.
        seed: of the noise.
        count: how many fields.

    Raises:
        ValueError: a length that is negative or not finite.
    """
    if not 0 <= length < math.inf:
        raise ValueError(f"smooth field: expected a length of 0 or more, got {length}")
    generator = torch.Generator().manual_seed(seed)
    # Long lengths are drawn on a coarse grid (two points for each length) and interpolated.
    step = max(1.0, length / 2)
    reach = math.ceil(4 * length / step)
    coarse = tuple(math.ceil(side / step) + 1 + 2 * reach for side in shape)
    noise = torch.randn(count, *coarse, generator=generator, dtype=torch.float64)
    if length > 0:
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) * step / length) ** 2)
        taps = taps / taps.square().sum().sqrt()  # so that the variance stays 1
        noise = noise.unfold(1, 2 * reach + 1, 1) @ taps
        noise = noise.unfold(2, 2 * reach + 1, 1) @ taps
    if step == 1:
        return noise[:, : shape[0], : shape[1]].float()
    down, across = (weights(side, math.ceil(side * step), "bicubic") for side in noise.shape[1:])
    return (down @ noise @ across.T)[:, : shape[0], : shape[1]].float()


def smooth_mask(shape: tuple[int, int], seed: int, *, length: float, share: float, softness: float) -> Tensor:
    """A mask (H, W) in [0, 1] of soft-edged patches of about `length` pixels that cover about `share` of the image.

    Args:
        shape: height and width.
        seed: of the field.
        length: as in `smooth_field`.
        share: of the area, in [0, 1]: the mean of the mask comes close to it.
        softness: width of the edges, in standard deviations of the field; 0 is a hard edge.
    """
    field = smooth_field(shape, length, seed)[0]
    ordered = field.flatten().sort().values
    place = (1 - share) * (len(ordered) - 1)
    threshold = ordered[int(place)] if 0 < share < 1 else (math.inf if share <= 0 else -math.inf)
    edge = (field - threshold) / max(softness, 1e-6) + 0.5
    return edge.clamp(0, 1)
