"""Folders of photos: which files are photos, what each is called, and where outputs may go."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapt.errors import UsageError

SUFFIXES: Final = frozenset(
    ".png .jpg .jpeg .jpe .jfif .tif .tiff .webp .bmp .gif .avif .heic .heif .mpo".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo and what it is called in every output.

    Attributes:
        id: its path below the folder without suffix, with `/` (so outputs mirror the folders); with the suffix
            as `name_jpg` where two files would share it.
        path: the file.
    """

    id: str
    path: Path


def find_photos(source: Path, limit: int | None = None) -> list[PhotoFile]:
    """All photos of a folder and the folders in it, or the one photo that `source` is.

    Sorted by name, code point by code point, on every system alike. Hidden files and folders, and files of other
    kinds, are left out.

    Raises:
        UsageError: no such folder, or no photos in it.
    """
    if source.is_file():
        return [PhotoFile(_normal(source.stem), source)]
    if not source.is_dir():
        raise UsageError(f"{source}: no such folder or file of photos")
    found = {
        path.relative_to(source).as_posix(): path
        for path in source.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
        and path.is_file()
    }
    if not found:
        kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))
        raise UsageError(f"{source}: no photos in this folder (looked for {kinds})")
    names = sorted(found, key=_normal)
    shared = Counter(_normal(name.rsplit(".", 1)[0]).casefold() for name in names)
    photos: list[PhotoFile] = []
    for name in names[:limit]:
        stem, suffix = name.rsplit(".", 1)
        alone = shared[_normal(stem).casefold()] == 1
        photos.append(PhotoFile(_normal(stem if alone else f"{stem}_{suffix}"), found[name]))
    return photos


def refuse_overlap(photos: Path, out: Path) -> None:
    """Outputs must not lie among the photos: the next run would take them for photos.

    Raises:
        UsageError: `out` is the folder of photos, or inside it.
    """
    inside, outside = out.resolve(), photos.resolve()
    if photos.is_dir() and (inside == outside or outside in inside.parents):
        raise UsageError(f"{out}: lies inside the photos ({photos}); choose an output folder elsewhere")


def _normal(name: str) -> str:
    """Composed Unicode: the same name, however the file system spells its accents."""
    return unicodedata.normalize("NFC", name)
