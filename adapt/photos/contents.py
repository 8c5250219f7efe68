"""What folders of images hold, for the identity of a run: by their contents, wherever the folders lie."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from adapt.digests import file_digest, settings_digest
from adapt.disk import read_json, write_json
from adapt.errors import UsageError
from adapt.photos.folder import PhotoFile

FILE: Final = "contents.json"  # in a run's folder
UNREADABLE: Final = "cannot be read"  # in place of a digest: who reads the image names it
SETTLED_NS: Final = 2_000_000_000  # a file that was changed later than this before its reading may change unseen

Remembered: TypeAlias = dict[str, list[Any]]
"""Of each file by its id: size in bytes, time of its last change in ns, and sha256."""


class Contents:
    """The digests of folders, with what is remembered of each of their files.

    A digest is of the names in the folder and the contents of its files, all of them read once. Read again is only
    a file whose size or time of change is another than when it was read: 70,000 faces take minutes the first time (they
    are read from end to end), and seconds after it. So a folder that was moved, or copied, is the same; and so is, by
    mistake, a file that was changed and then given its old size and time.

    Args:
        folder: of the run; what an earlier start remembered there is used.
    """

    def __init__(self, folder: Path) -> None:
        self._known = _remembered(folder / FILE)
        self._seen: dict[str, Remembered] = {}

    def digest(self, what: str, photos: Sequence[PhotoFile]) -> str:
        """Stands for the photos of a folder; `what` it is to the run: faces, real, ..."""
        known, seen = self._known.get(what, {}), self._seen.setdefault(what, {})
        listed: list[tuple[str, str]] = []
        for photo in photos:
            sha256, marks = _digest(photo.path, known.get(photo.id))
            if marks:
                seen[photo.id] = [*marks, sha256]
            listed.append((photo.id, sha256))
        return settings_digest(listed)

    def remember(self, path: Path) -> None:
        """Write what was seen to a file of the run, for its next start."""
        write_json(path, self._seen, indent=None)


def _digest(path: Path, known: list[Any] | None) -> tuple[str, tuple[int, int] | None]:
    """The sha256 of a file, and its size and time where it may be known by them the next time."""
    try:
        before = path.stat()
        marks = (before.st_size, before.st_mtime_ns)
        if known is not None and tuple(known[:2]) == marks:
            return str(known[2]), marks
        now = time.time_ns()
        sha256 = file_digest(path)
        after = path.stat()
    except OSError:
        return UNREADABLE, None
    settled = marks == (after.st_size, after.st_mtime_ns) and marks[1] < now - SETTLED_NS
    return sha256, marks if settled else None


def _remembered(path: Path) -> dict[str, Remembered]:
    """What an earlier start wrote; nothing where it wrote none, or it is not as it was written."""
    try:
        found = read_json(path, "remove it")
    except (OSError, UsageError):
        return {}
    folders = {what: files for what, files in found.items() if isinstance(files, dict)}
    return {what: {id: marks for id, marks in files.items() if _whole(marks)} for what, files in folders.items()}


def _whole(marks: Any) -> bool:
    return isinstance(marks, list) and [type(each) for each in cast(list[Any], marks)] == [int, int, str]
