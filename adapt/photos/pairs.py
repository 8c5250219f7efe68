"""ImageDataset that belong together by name, and images brought to the size of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapt.errors import PhotoError, UsageError
from adapt.photos.files import read_photo
from adapt.photos.folder import find_photos

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 3
SQUARE_TOLERANCE = 0.01
ENLARGED: Final = 2.0  # times; from there on a network sees more of the interpolation than of the photo


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files of the same id."""

    id: str
    left: Path
    right: Path


@dataclass(frozen=True, slots=True)
class Matches:
    """Two folders side by side: the pairs, and the ids that only one of them has."""

    pairs: list[Pair]
    left_only: list[str]
    right_only: list[str]

    def complete(self, left: str, right: str) -> list[Pair]:
        """The pairs, if nothing on the left lacks its partner.

        Raises:
            UsageError: an image on the left has none on the right, or there are no pairs.
        """
        if self.left_only or not self.pairs:
            first = ", ".join(self.left_only[:SHOWN])
            raise UsageError(
                f"{right}: {len(self.left_only)} images of {left} have no partner of the same name there"
                f" ({first}{', ...' if len(self.left_only) > SHOWN else ''})"
            )
        return self.pairs


@dataclass(frozen=True, slots=True)
class Fitted:
    """An aligned face at the size of a network.

    Attributes:
        image: (3, size, size) in [0, 1].
        grey: the file holds one channel.
        resized: the file is of another size.
        enlarged: how many times longer its side became; None where it was not smaller.
    """

    image: Tensor
    grey: bool
    resized: bool
    enlarged: float | None = None


def match(left: Path, right: Path) -> Matches:
    """Pair the images of two folders by id."""
    a = {photo.id: photo.path for photo in find_photos(left)}
    b = {photo.id: photo.path for photo in find_photos(right)}
    return Matches(
        [Pair(id, path, b[id]) for id, path in a.items() if id in b],
        [id for id in a if id not in b],
        [id for id in b if id not in a],
    )


def fit(image: Tensor, size: int) -> tuple[Tensor, bool]:
    """Bring an aligned face, (3, H, W) in [0, 1], to (3, size, size); also whether it had to be resized.

    Raises:
        PhotoError: not square, so not an aligned face.
    """
    import torch.nn.functional as F

    height, width = image.shape[-2:]
    if (height, width) == (size, size):
        return image, False
    if abs(height - width) > SQUARE_TOLERANCE * max(height, width):
        raise PhotoError(f"not an aligned face: expected a square image, got {width} x {height}; crop the face first")
    resized = F.interpolate(image[None], (size, size), mode="bicubic", antialias=True)[0]
    return resized.clamp(0, 1), True


def read_fitted(path: Path, size: int) -> Fitted:
    """Read an aligned face at the size of a network.

    Raises:
        PhotoError: cannot be read, or is not square; names the file.
    """
    photo = read_photo(path, at_least=size)
    try:
        image, resized = fit(photo.image, size)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    times = size / max(photo.image.shape[-2:])
    return Fitted(image, photo.grey, resized, times if times > 1 else None)


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
