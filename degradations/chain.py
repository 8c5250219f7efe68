"""A chain of degradations laid over one image, reproducibly."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from degradations.filters import check_one
from degradations.pieces.base import PUBLISHED_SIZE, Degradation, Parameters, apply_all, draw_all


def degrade(image: Tensor, degradations: Sequence[Degradation], seed: int) -> tuple[Tensor, list[Parameters]]:
    """One image damaged by each degradation in order, with everything random following from the seed.

    Args:
        image: (3, H, W) in [0, 1], on any device.
        degradations: their lengths are for 512 pixels, and are scaled to the shorter side where that is less.
        seed: of this image; 0 or more.

    Returns:
        The damaged image, (3, H, W) in [0, 1], and what was drawn, one entry for each degradation, as JSON can hold it:
        `{"name": ..., parameters}`, or `{"name": ..., "skipped": true}` where a degradation was left out.

    Raises:
        ValueError: another shape, values outside [0, 1], a negative seed, or what a degradation refuses.
    """
    _check(image)
    if seed < 0:
        raise ValueError(f"degrade: expected a seed of 0 or more, got {seed}")
    chosen = scaled(degradations, (image.shape[1], image.shape[2]))
    drawn = draw_all(chosen, seed, (image.shape[1], image.shape[2]))
    return apply_all(image, chosen, drawn), drawn


def repeat(image: Tensor, degradations: Sequence[Degradation], drawn: Sequence[Parameters]) -> Tensor:
    """The same damage again, from what `degrade` returned for an image of this size: bit for bit.

    Raises:
        ValueError: as `degrade`, or parameters of other degradations.
    """
    _check(image)
    return apply_all(image, scaled(degradations, (image.shape[1], image.shape[2])), drawn)


def scaled(degradations: Sequence[Degradation], shape: tuple[int, int]) -> list[Degradation]:
    """The degradations for images of a height and width: lengths times the shorter side / 512, and never longer."""
    factor = min(1.0, min(shape) / PUBLISHED_SIZE)
    return [degradation.scaled(factor) for degradation in degradations]


def _check(image: Tensor) -> None:
    check_one(image, "degrade")
    lowest, highest = (float(value) for value in image.aminmax())
    if not (lowest >= 0 and highest <= 1):  # written so that NaN fails too
        raise ValueError(f"degrade: expected values in [0, 1], got [{lowest:.3g}, {highest:.3g}]")
