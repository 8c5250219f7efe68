"""Restored images against the truth, the photos they were made from, or a folder of clean images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from adapt.devices import full_precision
from adapt.errors import ShapeError, UsageError
from adapt.evaluation.inputs import Networks, Side
from adapt.evaluation.metrics import Perceptual
from adapt.evaluation.scores import Evaluation, Tally
from adapt.photos.files import read_photo
from adapt.photos.folder import find_photos

Images = Path | Mapping[str, Path]
"""A folder, whose images are called by their paths in it without suffix, or files by what they are called."""

_BATCH: Final = 8
_NAMED: Final = 5  # file names in a message


@full_precision()
def evaluate_folder(
    restored: Images,
    *,
    truth: Images | None = None,
    photos: Images | None = None,
    reference: Images | None = None,
    distance: Perceptual | None,
    networks: Networks | None = None,
    match_statistics: bool = False,
    half_raw: bool = False,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """All that can be said about a folder of restored images.

    Which metrics need what, `adapt.evaluation.catalogue.METRICS` tells. At most eight images of each folder are in
    memory; what grows with the number of photos is a row of numbers and a feature vector for each.

    Args:
        restored: the images to judge. Each needs a partner of the same id (relative path without suffix) and size
            in `truth` and `photos`; those may hold more, which is noted.
        truth: what the images should be.
        photos: what they were restored from.
        reference: clean images of the same size and of other people or scenes.
        distance: perceptual distance and features, on `device`; None goes without perceptual distance and KID.
        networks: further ones that metrics ask for, on `device`; each is loaded when the first metric needs it.
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
    folders: dict[Side, Images | None] = {"truth": truth, "photos": photos, "reference": reference}
    given: dict[Side, Images] = {side: folder for side, folder in folders.items() if folder is not None}
    loaded = (networks or Networks({})).with_perceptual(distance)
    tally = Tally(given, loaded, match_statistics=match_statistics, device=device)
    partners: dict[Side, dict[str, Path]] = {
        side: _partners(found, folder, _called(restored), tally)
        for side, folder in given.items()
        if side != "reference"
    }
    references = {} if reference is None else _images(reference)
    smaller = min(len(found), len(references))
    for metric in tally.metrics:
        if reference is not None and "reference" in metric.sides and smaller < metric.at_least:
            raise UsageError(
                f"{_called(reference)}: {metric.name} needs {metric.at_least} images or more on each side, got"
                f" {len(found)} restored and {len(references)} reference images"
            )

    size = _Size()
    for ids in _batches(list(found)):
        ours, _ = _read([found[name] for name in ids], size)
        others: dict[Side, Tensor] = {}
        for side, files in partners.items():
            others[side], digests = _read([files[name] for name in ids], size, half_raw and side == "truth")
            for name, digest in zip(ids, digests, strict=True):
                tally.note_content(side, name, digest)
        tally.add(ids, ours, others)
    for ids in _batches(list(references)):
        images, digests = _read([references[name] for name in ids], size)
        for name, digest in zip(ids, digests, strict=True):
            tally.note_content("reference", name, digest)
        tally.add_reference(images)
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


def _images(source: Images) -> dict[str, Path]:
    """Files by id, in order of id."""
    found = {photo.id: photo.path for photo in find_photos(source)} if isinstance(source, Path) else source
    if not found:
        raise UsageError(f"{_called(source)}: expected images, found none")
    return dict(sorted(found.items()))


def _called(source: Images) -> str:
    return str(source) if isinstance(source, Path) else f"{len(source)} files"


def _partners(found: dict[str, Path], source: Images, restored: str, tally: Tally) -> dict[str, Path]:
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
