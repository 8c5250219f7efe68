"""Dynamic blur-level mapping: any photo as Gaussian blurs of its restored self (DynFaceRestore Eq. 8, 15, 17)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.blur.estimator import BlurEstimator
from adapt.blur.labels import std_limits
from adapt.errors import UsageError
from degradations.blind import PUBLISHED_SIZE
from degradations.cosines import from_cosines, gaussian_response, to_cosines

GUIDES = (1, 4)  # how many guidances the paper tries: Table 7


@dataclass(frozen=True, slots=True)
class Guides:
    """What guides the sampler to a photo.

    Attributes:
        restored: R(y), (B, 3, H, W) in [0, 1].
        std: (B, G) in pixels, the largest first.
        blurred: R(y) blurred by each std, (B, G, 3, H, W) in [0, 1].
    """

    restored: Tensor
    std: Tensor
    blurred: Tensor


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


def blurred_guides(restored: Tensor, stds: Tensor) -> Tensor:
    """The restored photo blurred by each of its stds: (B, 3, H, W) and (B, G) to (B, G, 3, H, W).

    The blur is that of `degradations.cosines.gaussian_blur`, differentiable in both.
    """
    response = gaussian_response(stds.reshape(-1), (restored.shape[2], restored.shape[3])).to(restored)
    return from_cosines(to_cosines(restored)[:, None] * response.view(*stds.shape, 1, *response.shape[2:]))


def map_to_blur(
    photo: Tensor, *, restorer: Callable[[Tensor], Tensor], estimator: BlurEstimator, count: int = 1
) -> Guides:
    """DBLM: the photo's guidances, each R(y) under a Gaussian.

    Args:
        photo: y, (B, 3, H, W) in [0, 1].
        restorer: R, to the same shape and range.
        estimator: SE; only its std is used, its image is no Gaussian blur (Table 6).
        count: guidances, 1 to 4.

    Raises:
        UsageError: another count.
        ShapeError, RangeError: not such a photo.
    """
    restored = restorer(photo)
    stds = guide_stds(estimator(photo).std, count, photo.shape[-1])
    return Guides(restored, stds, blurred_guides(restored, stds))
