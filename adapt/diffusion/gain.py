"""How much of what a U-Net found is put to use: one number an image.

The last normalisation gives every channel the same deviation, whatever there was to be found: where a level has as many
channels as groups, a photo that was hardly damaged is changed by as much as a ruined one. The deviations that are taken
away there say what was found, and a small network makes a gain of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 32
LEAST_VARIANCE = 1e-8


class OutputGain(nn.Module):
    """The last feature map, (B, C, H, W), to a gain between 0 and 2, (B, 1, 1, 1); 1 before any training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))
        nn.init.zeros_(self.layers[2].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.layers[2].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Tensor) -> Tensor:
        seen = features.float()
        mean = seen.mean(dim=(2, 3), keepdim=True)
        variances = (seen - mean).square().mean(dim=(2, 3))
        logs = (variances + LEAST_VARIANCE).log() / 2
        return 2 * torch.sigmoid(self.layers(logs.to(features.dtype)))[:, :, None, None]
