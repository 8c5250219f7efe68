"""Restored images against the truth, the photos they were made from, or a folder of clean images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from adapt.devices import full_precision
from adapt.errors import ShapeError, UsageError
from adapt.evaluation.metrics import KID_FLOOR, Perceptual
from adapt.evaluation.scores import Evaluation, Tally
from adapt.images import check_image
from adapt.photos.files import read_photo
from adapt.photos.folder import find_photos

ImageDataset = Path | Mapping[str, Path]
"""A folder, whose images are called by their paths in it without suffix, or files by what they are called."""

_BATCH: Final = 8
_NAMED: Final = 5  # file names in a message


@full_precision()
def evaluate_folder(
    restored: ImageDataset,
    *,
    truth: ImageDataset | None = None,
    photos: ImageDataset | None = None,
    reference: ImageDataset | None = None,
    distance: Perceptual | None,
    match_statistics: bool = False,
    half_raw: bool = False,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """All that can be said about a folder of restored images.

    Against `truth`: PSNR, SSIM, perceptual distance, KID. Against `photos`: low-frequency change and colour shift.
    Against `reference`: KID. At most eight images of each folder are in memory; what grows with the number of
    photos is a row of numbers and a feature vector for each.

    Args:
        restored: the images to judge. Each needs a partner of the same id (relative path without suffix) and size
            in `truth` and `photos`; those may hold more, which is noted.
        truth: what the images should be.
        photos: what they were restored from.
        reference: clean images of the same size and of other people or scenes.
        distance: perceptual distance and features, on `device`; None goes without perceptual distance and KID.
        match_statistics: PSNR and SSIM after `metrics.matched_to`, for numbers to set beside DT-BFR's.
        half_raw: develop RAW files of `truth` at half their size, for images that were made from them so.
        device: where to compute.

    Raises:
        UsageError: nothing to compare with, an empty folder, missing partners, `half_raw` without the truth, or too few
            images for `reference`.
        ShapeError: images of different sizes, both named.
        PhotoError: an image that cannot be read.
    """
    if truth is None and photos is None and reference is None:
        raise UsageError(
            f"{_called(restored)}: nothing to compare with; give the truth, the photos or a reference folder"
        )
    if reference is not None and distance is None:
        raise UsageError(
            f"{_called(reference)}: a reference is compared by features, and no perceptual network was given"
        )
    if half_raw and truth is None:
        raise UsageError("--half-raw: is how RAW files of the truth are read, and none is given; leave it out")
    found = _images(restored)
    tally = Tally(distance, match_statistics=match_statistics, device=device)
    sides = {"truth": truth, "photos": photos}
    given = {side: folder for side, folder in sides.items() if folder is not None}
    partners = {side: _partners(found, folder, _called(restored), tally) for side, folder in given.items()}
    references = {} if reference is None else _images(reference)
    if reference is not None and min(len(found), len(references)) < KID_FLOOR:
        raise UsageError(
            f"{_called(reference)}: KID needs {KID_FLOOR} images or more on each side, got {len(found)} restored and"
            f" {len(references)} reference images"
        )

    size = _Size()
    for ids in _batches(list(found)):
        ours, _ = _read([found[name] for name in ids], size)
        others: dict[str, Tensor] = {}
        for side, files in partners.items():
            others[side], digests = _read([files[name] for name in ids], size, half_raw and side == "truth")
            for name, digest in zip(ids, digests, strict=True):
                tally.note_content(side, name, digest)
        tally.add(ids, ours, truth=others.get("truth"), photos=others.get("photos"))
    for ids in _batches(list(references)):
        images, digests = _read([references[name] for name in ids], size)
        for name, digest in zip(ids, digests, strict=True):
            tally.note_content("reference", name, digest)
        tally.add_reference(images)
    return tally.evaluation()


@full_precision()
def evaluate_images(
    restored: Tensor,
    truth: Tensor,
    *,
    distance: Perceptual | None,
    ids: Sequence[str] | None = None,
    photos: Tensor | None = None,
    match_statistics: bool = False,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """As `evaluate_folder`, for images in memory.

    Args:
        restored, truth: (N, 3, H, W) in [0, 1].
        distance, match_statistics, device: as for `evaluate_folder`.
        ids: the photos' names; their numbers if None.
        photos: what `restored` was made from, same shape, or None.

    Raises:
        ShapeError, RangeError: not batches of one shape in [0, 1].
        UsageError: no images, or another number of ids.
    """
    batches = {"restored": restored, "truth": truth} | ({} if photos is None else {"photos": photos})
    for name, batch in batches.items():
        if batch.shape != restored.shape:
            raise ShapeError(
                f"{name}: expected the shape of the restored images, {tuple(restored.shape)}, got"
                f" {tuple(batch.shape)}"
            )
    if len(restored) == 0:
        raise UsageError("evaluation: expected one image or more, got none")
    for name, batch in batches.items():
        check_image(batch, name)
    names = [f"{index}" for index in range(len(restored))] if ids is None else list(ids)
    if len(names) != len(restored):
        raise UsageError(f"evaluation: expected an id for each of {len(restored)} images, got {len(names)}")
    tally = Tally(distance, match_statistics=match_statistics, device=device)
    for start in range(0, len(names), _BATCH):
        part = slice(start, start + _BATCH)
        for side in batches.keys() - {"restored"}:
            for name, image in zip(names[part], batches[side][part], strict=True):
                tally.note_content(side, name, _tensor_digest(image))
        tally.add(names[part], restored[part], truth=truth[part], photos=None if photos is None else photos[part])
    return tally.evaluation()


# ---------------------------------------------------------------- parts


class _Size:
    """The size that all images of an evaluation share: that of the first."""

    def __init__(self) -> None:
        self.shape: torch.Size | None = None
        self.path = Path()

    def check(self, image: Tensor, path: Path) -> None:
        if self.shape is None:
            self.shape, self.path = image.shape, path
        elif image.shape != self.shape:
            wide, other = (f"{s[2]} x {s[1]}" for s in (self.shape, image.shape))
            raise ShapeError(
                f"{path}: expected {wide} pixels as {self.path}, got {other}; numbers of different sizes do not"
                " compare -- resize them all the same way first"
            )


def _images(source: ImageDataset) -> dict[str, Path]:
    """Files by id, in order of id."""
    found = {photo.id: photo.path for photo in find_photos(source)} if isinstance(source, Path) else source
    if not found:
        raise UsageError(f"{_called(source)}: expected images, found none")
    return dict(sorted(found.items()))


def _called(source: ImageDataset) -> str:
    return str(source) if isinstance(source, Path) else f"{len(source)} files"


def _partners(found: dict[str, Path], source: ImageDataset, restored: str, tally: Tally) -> dict[str, Path]:
    others = _images(source)
    if missing := [name for name in found if name not in others]:
        raise UsageError(
            f"{_called(source)}: no partner for {len(missing)} of {len(found)} images of {restored}:"
            f" {_listed(missing)}"
        )
    if unused := [name for name in others if name not in found]:
        named = source.name if isinstance(source, Path) else _called(source)
        tally.notes.append(f"{len(unused)} of {len(others)} images of {named} not restored: {_listed(unused)}")
    return others


def _read(paths: Sequence[Path], size: _Size, half_raw: bool = False) -> tuple[Tensor, list[str]]:
    read = [read_photo(path, at_least=1 if half_raw else None) for path in paths]
    for photo, path in zip(read, paths, strict=True):
        size.check(photo.image, path)
    return torch.stack([photo.image for photo in read]), [photo.sha256 for photo in read]


def _batches(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _tensor_digest(image: Tensor) -> str:
    return hashlib.sha256(image.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
