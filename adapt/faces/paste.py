"""A restored face put back into its photo, without a seam.

What is laid over the photo is the change that restoring made, and not the restored crop: where nothing was changed the
photo stays as it is to the last bit, and detail that is too fine for the network is not lost. Towards the edge of the
mask the change fades, and its mean colour there is taken out of the whole, so that no step of colour is left.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from adapt.faces.align import Placement, sampled
from adapt.faces.crops import Window

FOREHEAD: Final = 0.45  # how far the mask goes above the brows, in shares of the way from brows to chin
FEATHER: Final = 0.09  # width of the mask's soft edge, in shares of the crop's side
BROWS: Final = slice(17, 27)
CHIN: Final = 8
NOSE_BRIDGE: Final = 27


def face_mask(points: Tensor, size: int) -> Tensor:
    """How much of the change each pixel of a crop gets: (size, size) in [0, 1], 1 on the face, 0 at the crop's edge.

    The convex hull of the points and of the brows moved up the forehead; inside of its edge the mask fades over
    `FEATHER` as a cosine.

    Args:
        points: the 68 landmarks of the crop, (68, 2), in its pixels.
        size: side of the crop.
    """
    shape = points.double().cpu()
    up = (shape[BROWS].mean(0) - shape[CHIN]) * FOREHEAD
    hull = _hull(torch.cat([shape, shape[BROWS] + up]))
    middles = torch.arange(size, dtype=torch.float64) + 0.5
    pixels = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1)
    edge = torch.minimum(pixels, size - pixels).amin(-1)
    depth = torch.minimum(_depth(pixels, hull), edge)
    share = (depth / (FEATHER * size)).clamp(0, 1)
    return ((1 - torch.cos(math.pi * share)) / 2).float()


def paste(
    photo: Tensor, crop: Tensor, restored: Tensor, mask: Tensor, placement: Placement, *, strength: float = 1.0
) -> tuple[Tensor, Window]:
    """A part of the photo with the change laid over it.

    Args:
        photo: (3, H, W) in [0, 1].
        crop: the face as it was cut out, (3, S, S).
        restored: what became of it, (3, S, S) in [0, 1].
        mask: (S, S) in [0, 1], 0 at the edge.
        placement: of the crop.
        strength: how much of the change is made, in [0, 1].

    Returns:
        The part, (3, h, w) in [0, 1], and its window in whole pixels of the photo. Outside of it nothing changes.
    """
    change = restored - crop
    band = mask * (1 - mask)
    if float(band.sum()) > 0:
        change = change - (change * band).sum((1, 2), keepdim=True) / band.sum()
    window = _around(placement, mask.shape[-1], photo.shape[2], photo.shape[1])
    left, top, right, bottom = (int(edge) for edge in window)
    part = photo[:, top:bottom, left:right]
    if part.numel() == 0:
        return part.clone(), window
    # The mask is sampled beside what it weighs: bicubic overshoot must not reach where it is 0.
    layers = torch.cat([strength * change * mask, mask[None]])
    laid = sampled(layers, placement.inverse(), window, outside="zeros")
    moved = torch.where(laid[3:] > 1e-3, laid[:3], 0.0)
    return torch.where(moved != 0, (part + moved).clamp(0, 1), part), window


def _around(placement: Placement, size: int, width: int, height: int) -> Window:
    """The whole pixels of the photo that a crop touches."""
    outline = placement.outline(size)
    left, top = (max(0, math.floor(value)) for value in outline.amin(0).tolist())
    right, bottom = outline.amax(0).tolist()
    return Window(
        min(left, width), min(top, height), max(0, min(width, math.ceil(right))), max(0, min(height, math.ceil(bottom)))
    )


def _hull(points: Tensor) -> Tensor:
    """The corners of the convex hull of (N, 2) points, in order (Andrew 1979)."""
    ordered = sorted(set(map(tuple, points.tolist())))

    def chain(given: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        kept: list[tuple[float, ...]] = []
        for x, y in given:
            while len(kept) > 1:
                (x0, y0), (x1, y1) = kept[-2:]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    return torch.tensor(chain(ordered) + chain(ordered[::-1]), dtype=torch.float64)


def _depth(pixels: Tensor, hull: Tensor) -> Tensor:
    """How far inside of a convex hull each of (..., 2) points lies; below 0 outside."""
    nearest = torch.full(pixels.shape[:-1], math.inf, dtype=torch.float64)
    for start, end in zip(hull, hull.roll(-1, 0), strict=True):
        along = end - start
        across = pixels - start
        distance = (along[0] * across[..., 1] - along[1] * across[..., 0]) / torch.linalg.vector_norm(along)
        nearest = torch.minimum(nearest, distance)
    return nearest
