"""Aligned faces brought to the size of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapt.errors import PhotoError
from adapt.images import to_grey, without_colour
from adapt.photos.files import Photo, read_photo

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 3
SQUARE_TOLERANCE = 0.01
ENLARGED: Final = 2.0  # times; from there on a network sees more of the interpolation than of the photo


@dataclass(frozen=True, slots=True)
class Fitted:
    """An aligned face at the size of a network.

    Attributes:
        image: (3, size, size) in [0, 1].
        grey: the photo has no colour, whatever its file says; then neither has the image.
        resized: the file is of another size.
        enlarged: how many times longer its side became; None where it was not smaller.
    """

    image: Tensor
    grey: bool
    resized: bool
    enlarged: float | None = None


def fit(image: Tensor, size: int) -> tuple[Tensor, bool]:
    """Bring an aligned face, (3, H, W) in [0, 1], to (3, size, size); also whether it had to be resized.

    Raises:
        PhotoError: not square, so not an aligned face.
    """
    import torch.nn.functional as F

    height, width = image.shape[-2:]
    if (height, width) == (size, size):
        return image, False
    if not is_square(image):
        raise PhotoError(f"not an aligned face: expected a square image, got {width} x {height}; crop the face first")
    resized = F.interpolate(image[None], (size, size), mode="bicubic", antialias=True)[0]
    return resized.clamp(0, 1), True


def is_square(image: Tensor) -> bool:
    """Whether an image (3, H, W) has the shape of an aligned face."""
    height, width = image.shape[-2:]
    return abs(height - width) <= SQUARE_TOLERANCE * max(height, width)


def read_fitted(path: Path, size: int) -> Fitted:
    """Read an aligned face at the size of a network.

    Raises:
        PhotoError: cannot be read, or is not square; names the file.
    """
    return fitted(path, read_photo(path, at_least=size), size)


def fitted(path: Path, photo: Photo, size: int) -> Fitted:
    """A photo that was read, at the size of a network. Raises PhotoError: not square; names the file."""
    try:
        image, resized = fit(photo.image, size)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    times = size / max(photo.image.shape[-2:])
    grey = photo.grey or without_colour(photo.image)
    return Fitted(to_grey(image) if grey else image, grey, resized, times if times > 1 else None)


def enlarged_warning(enlarged: Mapping[str, float]) -> str:
    """A sentence on photos that were enlarged `ENLARGED` times or more, the most first; empty where none was.

    Args:
        enlarged: how many times longer the side of each became, by id.
    """
    much = sorted(((times, id) for id, times in enlarged.items() if times >= ENLARGED), reverse=True)
    if not much:
        return ""
    named = ", ".join(f"{id}: {times:.3g} times" for times, id in much[:SHOWN])
    more = f", and {len(much) - SHOWN} more" if len(much) > SHOWN else ""
    photos = "1 photo was" if len(much) == 1 else f"{len(much)} photos were"
    return f"{photos} enlarged {ENLARGED:g} times or more ({named}{more}); most of what is restored there is invented"


def load_fitted(path: Path, size: int) -> Tensor:
    """The image alone of `read_fitted`, (3, size, size) in [0, 1]; raises as it does."""
    return read_fitted(path, size).image
