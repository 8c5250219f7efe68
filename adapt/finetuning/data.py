"""The pairs of fine-tuning: photos and their accepted targets, split into those trained on and those held back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from adapt.digests import file_digest
from adapt.errors import PhotoError, UsageError
from adapt.finetuning.outcome import FEWEST_HELD
from adapt.photos.folder import find_photos
from adapt.photos.pairs import read_fitted

CACHE_BYTES = 1 << 30


class ImageDataset:
    """Images of one size by index, kept as 8 bits in memory as long as they fit in a gigabyte."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths = list(paths)
        self.size = size
        self._room = CACHE_BYTES // (3 * size * size)
        self._kept: dict[int, Tensor] = {}
        self._resized: dict[int, float | None] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """(B, 3, S, S) in [0, 1]. Raises PhotoError for a file that cannot be read or is not square."""
        return torch.stack([self._one(index) for index in indices])

    def resized(self) -> dict[int, float | None]:
        """The files of another size, by index, and how many times longer a side became that was smaller.

        Reads them all, so that one that cannot be read is met at once.
        """
        for index in range(len(self.paths)):
            self._one(index)
        return self._resized

    def _one(self, index: int) -> Tensor:
        kept = self._kept.get(index)
        if kept is None:
            fitted = read_fitted(self.paths[index], self.size)
            kept = fitted.image.mul(255).round().byte()
            if fitted.resized:
                self._resized[index] = fitted.enlarged
            if len(self._kept) < self._room:
                self._kept[index] = kept
        return kept.float() / 255


class SharpFaces(ImageDataset):
    """Faces of which any will do, as those that a discriminator is shown: of one that cannot be read the next has the
    place, for one bad file of thousands is met in the middle of a training.

    Attributes:
        unreadable: why, by index, of those that were met so far.
    """

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        super().__init__(paths, size)
        self.unreadable: dict[int, str] = {}

    def note(self, what: str) -> list[str]:
        """A sentence on faces that could not be read; none where all could."""
        if not self.unreadable:
            return []
        count = len(self.unreadable)
        faces = f"1 of the {what} faces" if count == 1 else f"{count} of the {what} faces"
        first = self.unreadable[min(self.unreadable)]
        return [f"{faces} cannot be read, and the next had the place; first: {first}."]

    def _one(self, index: int) -> Tensor:
        """Raises PhotoError: none of them can be read."""
        for further in range(len(self.paths)):
            place = (index + further) % len(self.paths)
            if place in self.unreadable:
                continue
            try:
                return super()._one(place)
            except PhotoError as error:
                self.unreadable[place] = str(error)
        raise PhotoError(f"none of {len(self.paths)} faces can be read, first: {self.unreadable[0]}")


@dataclass(frozen=True, slots=True)
class Split:
    """Photos with their targets, of which a photo may have several.

    Attributes:
        ids: names of the photos.
        photos: by the same index.
        targets: all targets, those of a photo side by side.
        draws: for each photo, which of the targets are its.
        blur: the std of each photo's blur in pixels, as its targets tell it; nan where they do not.
    """

    ids: list[str]
    photos: ImageDataset
    targets: ImageDataset
    draws: list[range]
    blur: list[float]

    def first_targets(self, indices: Sequence[int]) -> Tensor:
        """The first target of each photo, (B, 3, S, S) in [0, 1]."""
        return self.targets.batch([self.draws[index].start for index in indices])

    def any_targets(self, indices: Sequence[int], generator: torch.Generator) -> Tensor:
        """One of the targets of each photo, drawn at random."""
        places = torch.rand(len(indices), generator=generator).tolist()
        draws = [self.draws[index] for index in indices]
        return self.targets.batch([draw[int(place * len(draw))] for draw, place in zip(draws, places, strict=True)])


def split_pairs(
    photos: Path,
    targets: Mapping[str, Sequence[Path]],
    *,
    size: int,
    holdout: float,
    seed: int,
    blur: Mapping[str, float] | None = None,
    groups: Mapping[str, str] | None = None,
) -> tuple[Split, Split]:
    """Pairs to train on and pairs held back.

    Seed and names decide: a photo more or less moves at most one other across. The photos held back choose the best
    weights and say how much was gained, which so few cannot: whatever the share, there are 4 of them, or a third where
    that is less. Files of the same content are copies of one photo: they count once, and lie on one side. So do all
    faces of one photograph.

    Args:
        photos: the folder of photos.
        targets: accepted target images by photo id, one or more of each.
        size: side of the images in pixels.
        holdout: share held back, where that is more.
        seed: the recipe's.
        blur: the std of photos' blur in pixels, by id; those that are known.
        groups: the photograph that a face was cut out of, by the face's id; those that were.

    Raises:
        UsageError: targets without a photo, or fewer than two pairs of different photos.
        PhotoError: a photo that cannot be read.
    """
    by_id = {photo.id: photo.path for photo in find_photos(photos)}
    lost = [id for id in targets if id not in by_id]
    if lost:
        raise UsageError(f"{photos}: {len(lost)} targets have no photo of the same name there, first: {lost[0]}")
    ids = sorted(targets)
    if len(ids) < 2:
        raise UsageError(f"{photos}: fine-tuning needs at least 2 accepted targets, there are {len(ids)}")
    copies: dict[str, list[str]] = {}  # by photograph or content, in the order of their draw
    for id in sorted(ids, key=lambda id: hashlib.sha256(f"{seed}:{id}".encode()).digest()):
        copies.setdefault((groups or {}).get(id) or content_digest(by_id[id]), []).append(id)
    different = len(copies)
    if different < 2:
        raise UsageError(
            f"{photos}: fine-tuning needs at least 2 different photos; these {len(ids)} are copies or faces of one"
        )
    fewest = max(1, min(FEWEST_HELD, different // 3))
    count = min(max(fewest, round(holdout * different)), different - 1)
    validation = {id for same in list(copies.values())[:count] for id in same}

    def part(chosen: list[str]) -> Split:
        ends = list(accumulate(len(targets[id]) for id in chosen))
        return Split(
            chosen,
            ImageDataset([by_id[id] for id in chosen], size),
            ImageDataset([path for id in chosen for path in targets[id]], size),
            [range(end - len(targets[id]), end) for id, end in zip(chosen, ends, strict=True)],
            [(blur or {}).get(id, math.nan) for id in chosen],
        )

    return part([id for id in ids if id not in validation]), part([id for id in ids if id in validation])


def content_digest(photo: Path) -> str:
    """sha256 of a photo's file. Raises PhotoError: it cannot be read."""
    try:
        return file_digest(photo)
    except OSError as error:
        raise PhotoError(f"{photo}: cannot be read: {error.strerror or error}") from error
