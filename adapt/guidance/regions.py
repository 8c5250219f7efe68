"""Regions of an image that have a blur of their own: overlapping windows that sum to one everywhere.

DynFaceRestore names spatially varying blur as its limit and suggests to divide the image (App. D). Hard borders
would show; here every pixel is a blend of at most four windows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adapt.blur.estimator import BlurEstimator
from adapt.blur.labels import std_limits
from degradations.blind import PUBLISHED_SIZE


def region_weights(count: int, size: tuple[int, int]) -> Tensor:
    """How much of each pixel belongs to each window: (count^2, 1, H, W) float64, sums to 1 over the windows.

    The windows' centres are a grid of count x count from corner to corner; each falls off as a squared cosine and ends
    at its neighbours' centres. One window is the whole image.
    """
    rows, columns = (_line(count, length) for length in size)
    return (rows[:, None, :, None] * columns[None, :, None, :]).reshape(count**2, 1, *size)


def _line(count: int, length: int) -> Tensor:
    """(count, length) weights that sum to 1 over the windows."""
    if count == 1:
        return torch.ones(1, length, dtype=torch.float64)
    place = (torch.arange(length, dtype=torch.float64) + 0.5) / length * (count - 1)
    distance = (place[None, :] - torch.arange(count, dtype=torch.float64)[:, None]).abs().clamp(max=1)
    return torch.cos(0.5 * math.pi * distance).square()


@torch.no_grad()
def region_stds(estimator: BlurEstimator, photo: Tensor, count: int) -> Tensor:
    """The blur level of each window: (B, count^2) in pixels, within `std_limits`; NaN where it is not finite.

    The estimator sees the photo once, at the scale it was trained at; only the mean before its linear layers is taken
    over each window instead of the whole image. One window gives what the estimator itself says.

    Args:
        estimator: SE.
        photo: (B, 3, H, W) in [0, 1].
        count: windows along a side.
    """
    if count == 1:
        return estimator(photo).std[:, None]
    network = estimator.network.eval()
    device = next(network.parameters()).device
    features = network.deviation.features(network.transfer(photo.to(device)))
    weights = region_weights(count, (features.shape[2], features.shape[3])).to(features)
    weights = weights / weights.sum(dim=(2, 3), keepdim=True)
    means = (features[:, None] * weights).sum(dim=(3, 4))
    std = network.deviation.head(means)[..., 0].float() * (photo.shape[-1] / PUBLISHED_SIZE)
    limited = std.clamp(*std_limits(photo.shape[-1]))
    return torch.where(std.isfinite(), limited, torch.nan).to(photo.device)
