"""Dynamic blur-level mapping: any photo as Gaussian blurs of its restored self (DynFaceRestore Eq. 8, 15, 17)."""

from __future__ import annotations

import torch
from torch import Tensor

from adapt.blur.labels import std_limits
from adapt.errors import UsageError
from degradations.blind import PUBLISHED_SIZE
from degradations.cosines import from_cosines, gaussian_response, to_cosines

GUIDES = (1, 4)  # how many guidances the paper tries: Table 7


def guide_stds(std: Tensor, count: int, size: int) -> Tensor:
    """Stds of the guidances: std, std - 1, std - 2, ..., and never less than 0.1; both for 512 pixels, and scaled.

    Args:
        std: estimated, (B,) in pixels.
        count: 1 to 4.
        size: side of the images, pixels.

    Returns:
        (B, count).

    Raises:
        UsageError: another count.

    Source: Eq. (15), Algorithm 3. The paper does not say what happens below its least std.
    """
    if not GUIDES[0] <= count <= GUIDES[1]:
        raise UsageError(f"guidances: expected {GUIDES[0]} to {GUIDES[1]}, got {count}")
    less = torch.arange(count, device=std.device, dtype=std.dtype) * size / PUBLISHED_SIZE
    return (std[:, None] - less).clamp(min=std_limits(size)[0])


def blurred_guides(image: Tensor, stds: Tensor) -> Tensor:
    """The image under each of its blurs: (B, 3, H, W) and (B, ...) in pixels to (B, ..., 3, H, W).

    The blur is that of `degradations.cosines.gaussian_blur`, differentiable in both.
    """
    size = (image.shape[2], image.shape[3])
    response = gaussian_response(stds.reshape(-1), size).to(image).view(*stds.shape, 1, *size)
    spectrum = to_cosines(image)
    return from_cosines(spectrum.view(len(image), *[1] * (stds.ndim - 1), *spectrum.shape[1:]) * response)
