"""Folders of photos: which files are photos, what each is called, and where outputs may go."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from adapt.errors import UsageError

RAW_SUFFIXES: Final = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mef".split()  # noqa: SIM905
    + ".mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f".split()  # noqa: SIM905
)
SUFFIXES: Final = RAW_SUFFIXES.union(
    ".png .jpg .jpeg .jpe .jfif .tif .tiff .webp .bmp .gif .avif .heic .heif .hif .mpo".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo and what it is called in every output.

    Attributes:
        id: its path below the folder without suffix, with `/` (so outputs mirror the folders), in composed Unicode.
            Where two files would share it, also on a disc that knows no case, it keeps the suffix as `name_jpg`,
            and where that is shared too, eight digits of the path's digest follow.
        path: the file.
    """

    id: str
    path: Path


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds.

    Attributes:
        photos: sorted by name, code point by code point, on every system alike.
        ignored: how many other entries there are: files of other kinds, hidden files, and hidden folders, each as one.
    """

    photos: tuple[PhotoFile, ...]
    ignored: int


def scan(source: Path) -> Folder:
    """All photos of a folder and the folders in it, or the one photo that `source` is.

    The suffix decides here, the content when a photo is read. Linked folders are followed, each folder once; a link
    to a file that is gone counts as a photo, so that reading it names it.

    Raises:
        UsageError: no such folder, a folder that cannot be listed, or no photos.
    """
    if source.is_file():
        return Folder((PhotoFile(_normal(source.stem), source),), 0)
    if not source.is_dir():
        raise UsageError(f"{source}: no such folder or file of photos")
    found, ignored = _walk(source)
    if not found:
        kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES - RAW_SUFFIXES))
        raise UsageError(
            f"{source}: no photos in this folder (looked for {kinds} and camera RAW; entries of other kinds: {ignored})"
        )
    names = [PurePosixPath(path.relative_to(source).as_posix()) for path in found]
    names.sort(key=lambda name: (_normal(str(name)), str(name)))
    return Folder(tuple(PhotoFile(id, source / name) for name, id in _identify(names).items()), ignored)


def find_photos(source: Path, limit: int | None = None) -> list[PhotoFile]:
    """The photos of `scan`, at most the first `limit`; an id does not depend on the limit.

    Raises:
        UsageError: as `scan`, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected 1 photo or more, got {limit}")
    return list(scan(source).photos[:limit])


def photos_of(option: str, source: Path, what: str) -> list[PhotoFile]:
    """The photos of a folder that an option names; asked before any work, so that no later step is the first to look.

    Args:
        option: its name, without dashes.
        source: the folder, or one image.
        what: what the folder should hold, for the message.

    Raises:
        UsageError: as `find_photos`, or a file that is no image by its suffix; names the option.
    """
    if source.is_file() and source.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--{option} {source}: a file that is no image; name a folder of {what}")
    try:
        return find_photos(source)
    except UsageError as error:
        raise UsageError(f"--{option} {error}; name a folder of {what}") from error


def refuse_overlap(photos: Path, out: Path, what: str = "the photos") -> None:
    """Outputs must not lie among the photos: the next run would take them for photos. Nor photos among the outputs,
    which are replaced and removed.

    Links are seen through, and other spellings of one folder on a disc that knows no case.

    Args:
        photos: a folder, or one image.
        out: where outputs go.
        what: what `photos` holds, for the message.

    Raises:
        UsageError: `out` is the folder of photos, or inside it, or holds it.
    """
    if not photos.exists():
        return
    target = out.resolve()
    if photos.is_dir() and any(folder.exists() and folder.samefile(photos) for folder in (target, *target.parents)):
        raise UsageError(f"{out}: lies inside {what} ({photos}); choose an output folder elsewhere")
    if target.exists() and any(folder.samefile(target) for folder in photos.resolve().parents):
        raise UsageError(f"{out}: holds {what} ({photos}); choose an output folder elsewhere")


def _walk(source: Path) -> tuple[list[Path], int]:
    """The files with a photo's suffix, and the number of other entries."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: this folder cannot be listed: {error.strerror}") from error

    found: list[Path] = []
    ignored = 0
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.trajectory(source, onerror=refuse, followlinks=True):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:  # reached a second time, by a link
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        shown = [name for name in folders if not name.startswith(".")]
        photos = [name for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
        ignored += len(folders) - len(shown) + len(files) - len(photos)
        found += [Path(here, name) for name in photos]
        folders[:] = sorted(shown, key=lambda name: (Path(here, name).is_symlink(), name))  # links last
    return found, ignored


def _identify(names: list[PurePosixPath]) -> dict[PurePosixPath, str]:
    """An id for each name: the shortest of its three forms by which all ids differ, whatever the case."""
    forms = {name: _forms(name) for name in names}
    level = dict.fromkeys(names, 0)
    while True:
        sharing: dict[str, list[PurePosixPath]] = defaultdict(list)
        for name in names:
            sharing[_normal(forms[name][level[name]].casefold())].append(name)
        longer = [name for group in sharing.values() if len(group) > 1 for name in group if level[name] < 2]
        if not longer:
            return {name: forms[name][level[name]] for name in names}
        for name in longer:
            level[name] += 1


def _forms(name: PurePosixPath) -> tuple[str, str, str]:
    stem, suffix = str(name).rsplit(".", 1)
    digest = hashlib.sha256(os.fsencode(str(name))).hexdigest()[:8]
    return _normal(stem), _normal(f"{stem}_{suffix}"), _normal(f"{stem}_{suffix}_{digest}")


def _normal(name: str) -> str:
    """Composed Unicode: the same name, however the file system spells its accents; bytes that are none: U+FFFD."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))
