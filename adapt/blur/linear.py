"""The linear part of a photo's damage, by least squares: what a restored photo must be filtered by to give the photo.

Of each channel it is a weighted sum of the image under several Gaussian blurs, and a constant: blur of any such width,
sharpening (negative weights), contrast, brightness and tint. What it does not explain is noise, grain, blocks, and what
the restorer got wrong.

Source: none of the papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from degradations.cosines import gaussian_blur

STDS: Final = (0.0, 2.0, 4.0, 6.0, 8.0, 12.0, 18.0)  # of the blurs, in pixels of an image of 512
PUBLISHED_SIZE: Final = 512
RIDGE: Final = 1e-5  # of squares in [0, 1]: what keeps nearly equal blurs from cancelling each other


@dataclass(frozen=True, slots=True)
class LinearDamage:
    """A filter of each channel.

    Attributes:
        weights: of the blurs, and the constant, (3, len(STDS) + 1) float64.
    """

    weights: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """The filtered images, (B, 3, H, W) of any range to the same, not clipped."""
        weights = self.weights.to(images)
        blurred = _blurred(images)
        return torch.einsum("ck,kbchw->bchw", weights[:, :-1], blurred) + weights[:, -1].view(1, 3, 1, 1)


def linear_damage(restored: Tensor, photo: Tensor) -> LinearDamage:
    """The filter under which a restored photo comes nearest to its photo.

    Args:
        restored, photo: (1, 3, H, W) in [0, 1].
    """
    blurred = _blurred(restored.double())[:, 0].flatten(2)  # (K, 3, N)
    wanted = photo.double()[0].flatten(1)
    count = blurred.shape[-1]
    ones = torch.ones(1, count, dtype=torch.float64, device=photo.device)
    weights: list[Tensor] = []
    for channel in range(3):
        terms = torch.cat([blurred[:, channel], ones])
        ridge = torch.full((len(terms),), RIDGE, dtype=torch.float64, device=photo.device)
        ridge[-1] = 0
        squares = terms @ terms.T / count + torch.diag(ridge)
        weights.append(torch.linalg.solve(squares, terms @ wanted[channel] / count))
    return LinearDamage(torch.stack(weights))


def _blurred(images: Tensor) -> Tensor:
    """The images under every blur, (K, B, 3, H, W)."""
    scale = min(images.shape[2:]) / PUBLISHED_SIZE
    stds = [torch.full((len(images),), std * scale, dtype=images.dtype, device=images.device) for std in STDS]
    return torch.stack([images if float(std[0]) == 0 else gaussian_blur(images, std) for std in stds])
