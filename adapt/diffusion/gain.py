"""How much of what a U-Net found is put to use: one number an image.

The last normalisation gives every channel the same deviation, whatever there was to be found: where a level has as many
channels as groups, a photo that was hardly damaged is changed by as much as a ruined one. Deviations that normalisation
takes away, of the first maps and of the last, say what kind of photo it is and how much was found; a line over their
logarithms makes a gain of them (`adapt.pretraining.gain` fits it). It is of lightness alone: what is found in colours
is hardly ever a face's, and noise in them is what one sees first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

EARLY: Final = 3  # maps of the way down that are looked at, from the first convolution's on
LEAST_VARIANCE: Final = 1e-8


class LinearRegression(nn.Module):
    """A linear function of rows (B, D) to (B, 1), which is fitted: no parameter, so that no gradient step moves it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1, width))
        self.register_buffer("bias", torch.ones(1))

    @torch.no_grad()
    def reset(self) -> None:
        """1 for all rows, as before any fit."""
        self.weight.zero_()
        self.bias.fill_(1)

    def forward(self, rows: Tensor) -> Tensor:
        return (rows * self.weight).sum(dim=1, keepdim=True) + self.bias  # no product of matrices: not in bfloat16


class OutputGain(nn.Module):
    """Feature maps, (B, C_i, H_i, W_i) each, to a gain between 0 and 1, (B, 1, 1, 1); 1 before it is fitted.

    Args:
        widths: C_i, the channels of the maps.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.weigh = LinearRegression(sum(widths))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logs = torch.cat([log_deviations(each) for each in maps], dim=1)
        return self.weigh(logs.to(self.weigh.weight.dtype)).clamp(0, 1)[:, :, None, None]


def of_lightness(change: Tensor, gain: Tensor) -> Tensor:
    """A change of an image, (B, 3, H, W), with its lightness, the mean of the channels, times a gain (B, 1, 1, 1)."""
    return change - (1 - gain) * change.mean(dim=1, keepdim=True)


def log_deviations(features: Tensor) -> Tensor:
    """The natural logarithm of each channel's deviation over the pixels, (B, C, H, W) -> (B, C), in float32."""
    seen = features.float()
    variances = (seen - seen.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(2, 3))
    return (variances + LEAST_VARIANCE).log() / 2
