"""Blur labels: the least Gaussian blur under which a restored photo and its truth agree (DynFaceRestore Eq. 9, 19).

The paper leaves its tolerance xi open. Here it bounds the mean absolute difference in [0, 1]; `widest_xi` finds the
one whose labels fill the range best, and `survey` says how they are spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from adapt.errors import ShapeError, UsageError
from degradations.blind import PUBLISHED_SIZE
from degradations.cosines import from_cosines, gaussian_response, to_cosines

TENTHS: Final = (1, 150)  # std 0.1 to 15.0 at 512 pixels, in steps of 0.1
COARSE: Final = 10  # levels between those of the first pass of the search
BINS: Final = 15  # of a histogram
_BLOCK: Final = 2**24  # pixels that are blurred at once: 64 MiB


def std_limits(size: int) -> tuple[float, float]:
    """The least and the largest std that means something in images of `size` pixels: 0.1 and 15, times size / 512."""
    return TENTHS[0] / 10 * size / PUBLISHED_SIZE, TENTHS[1] / 10 * size / PUBLISHED_SIZE


def std_levels(size: int) -> Tensor:
    """The stds of the search, in pixels of images of `size`: (150,) float64, ascending."""
    return torch.arange(TENTHS[0], TENTHS[1] + 1, dtype=torch.float64) / 10 * size / PUBLISHED_SIZE


def blur_errors(restored: Tensor, truth: Tensor, levels: Tensor) -> Tensor:
    """Mean absolute difference of two images, both blurred, at every level.

    Args:
        restored, truth: (B, 3, H, W) in [0, 1].
        levels: (L,) stds in pixels, or (B, L) where each image has its own.

    Returns:
        (B, L), in [0, 1]. It falls with the std: two Gaussians in a row are one, and a Gaussian does not enlarge a sum
        of absolute values. (Below half a pixel it rings a little, by less than what a level makes of real images.)

    Raises:
        ShapeError: the images differ in shape.

    Source: the left side of Eq. (9). Blur is linear, so that it is the difference that is blurred, once.
    """
    if restored.shape != truth.shape or restored.ndim != 4:
        raise ShapeError(
            f"blur labels: expected two batches of one shape, got {tuple(restored.shape)} and {tuple(truth.shape)}"
        )
    count, _, height, width = restored.shape
    levels = levels.to(restored.device).expand(count, -1)
    spectrum = to_cosines(restored - truth)[:, None]
    at_once = max(1, _BLOCK // restored.numel())
    errors: list[Tensor] = []
    for part in levels.split(at_once, dim=1):
        response = gaussian_response(part.reshape(-1), (height, width)).to(spectrum)
        blurred = from_cosines(spectrum * response.view(count, -1, 1, height, width))
        errors.append(blurred.abs().mean(dim=(2, 3, 4)))
    return torch.cat(errors, dim=1)


def first_below(errors: Tensor, levels: Tensor, xi: float) -> Tensor:
    """The first level whose error is below xi, for each row of (B, L) errors; the last level where none is."""
    below = errors < xi
    found = torch.where(below.any(1), below.int().argmax(1), errors.shape[1] - 1)
    return levels.to(errors.device)[found]


def std_labels(restored: Tensor, truth: Tensor, *, xi: float) -> Tensor:
    """std* of Eq. (9): the least std under which restored photo and truth differ by less than xi.

    Args:
        restored: R(y), (B, 3, H, W) in [0, 1].
        truth: x, the same shape and range.
        xi: tolerance on the mean absolute difference in [0, 1].

    Returns:
        (B,) float64, pixels of these images: one of `std_levels`, the largest where even that does not do.

    Raises:
        UsageError: a tolerance that is not positive.
        ShapeError: the images differ in shape.

    Differs: the paper tries all 150 levels. The error falls from level to level, so that every tenth level tells
    between which ten the answer lies: a sixth of the work, the same answer.
    """
    if not 0 < xi < math.inf:
        raise UsageError(f"xi: expected a positive tolerance, got {xi:g}")
    levels = std_levels(restored.shape[-1]).to(restored.device)
    coarse = levels[COARSE - 1 :: COARSE]
    below = blur_errors(restored, truth, coarse) < xi
    passed = torch.where(below.any(1), below.int().argmax(1), len(coarse) - 1)
    near = passed[:, None] * COARSE + torch.arange(COARSE, device=restored.device)
    below = blur_errors(restored, truth, levels[near]) < xi
    found = torch.where(below.any(1), below.int().argmax(1), COARSE - 1)
    return levels[near.gather(1, found[:, None])[:, 0]]


@dataclass(frozen=True, slots=True)
class Survey:
    """How the labels of a set of photos are spread.

    Attributes:
        xi: the tolerance.
        size: side of the images, pixels.
        counts: labels in each of 15 equal parts of the range, from the least std to the largest.
        least: share of the photos at the least std: R is within xi as it is.
        never: share that stays above xi even at the largest std.
    """

    xi: float
    size: int
    counts: tuple[int, ...]
    least: float
    never: float

    @property
    def evenness(self) -> float:
        """Entropy of the counts over that of equal counts: 1 is flat, 0 is all in one part."""
        shares = torch.tensor(self.counts, dtype=torch.float64) / sum(self.counts)
        return float(torch.special.entr(shares).sum()) / math.log(len(self.counts))


def survey(errors: Tensor, *, xi: float, size: int) -> Survey:
    """The spread of the labels that (B, 150) errors at `std_levels(size)` give."""
    levels = std_levels(size)
    labels = first_below(errors.cpu().double(), levels, xi)
    tenths = (labels * 10 * PUBLISHED_SIZE / size).round().long()
    parts = (tenths - 1) * BINS // (TENTHS[1] - TENTHS[0] + 1)
    counts = torch.bincount(parts, minlength=BINS).tolist()
    least = float((labels == levels[0]).double().mean())
    never = float((errors[:, -1] >= xi).double().mean())
    return Survey(xi, size, tuple(counts), least, never)


def widest_xi(errors: Tensor, *, size: int, step: float = 5e-4) -> float:
    """The tolerance, a multiple of `step`, whose labels are spread most evenly over the range.

    Args:
        errors: (B, 150) of `blur_errors` at `std_levels(size)`; some hundred photos.
        size: side of the images, pixels.
        step: between the tolerances that are tried.
    """
    tried = (count * step for count in range(1, int(float(errors.max()) / step) + 2))
    return max(tried, key=lambda xi: survey(errors, xi=xi, size=size).evenness)
