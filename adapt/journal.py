"""The journal of an output folder: each file that a command is about to put there, with its digest, told before.

By it a file is known as what was written there: --overwrite removes those by name, a file that was changed since stays,
and so does one that somebody else put into the place of an output. One killed in the middle knows its last file too.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from adapt.digests import file_digest
from adapt.disk import (
    NAME_FAULTS,
    append_json_line,
    behind_link,
    files_of,
    read_json_lines,
    shown_name,
    write_atomic,
)
from adapt.errors import PhotoError

NAME: Final = ".written.jsonl"
_NAMES: Final = re.compile(r"\.written(-[0-9]+-of-[0-9]+)?\.jsonl")
Written = Iterable[tuple[str, str | None]]
"""Names of files, and the sha256 of what was written; None where it changes as a run goes on, and any is ours."""


class KeptError(PhotoError):
    """A file in the place of an output is not what was written there, and stays."""


class Journal:
    """An open journal.

    Args:
        folder: of outputs, ours.
        written: what else tells of files that were written there: the lines of a manifest.
        shard: (index, count) of this process, from 0: each has a file of its own, and reads all.
        overwrite: whatever is in the place of an output is replaced, but for what lies elsewhere, behind a link.
    """

    def __init__(
        self, folder: Path, written: Written = (), *, shard: tuple[int, int] = (0, 1), overwrite: bool = False
    ) -> None:
        index, count = shard
        self.folder = folder
        self.path = folder / (NAME if count == 1 else f".written-{index + 1}-of-{count}.jsonl")
        self.overwrite = overwrite
        self._known: dict[str, set[str | None]] = {}
        for name, sha256 in (*written, *_read(folder)):
            self._note(name, sha256)

    def refuse_others(self, name: str) -> None:
        """Ask for the place of an output, before any work for it.

        Args:
            name: relative to the folder, with `/`.

        Raises:
            KeptError: a file is there that is not what was written, but for an empty one.
            PhotoError: a folder is there, or no file can have this name.
        """
        path = self.folder / name
        with _faults_of(path):
            try:
                found = path.lstat()
            except FileNotFoundError:
                return
        if stat.S_ISDIR(found.st_mode):
            raise PhotoError(f"{shown_name(path)}: cannot be written: a folder is there")
        elsewhere = behind_link(self.folder, name)
        if (self.overwrite and not elsewhere) or self._is_ours(path, name, found.st_size):
            return
        if self.overwrite:
            raise KeptError(f"{shown_name(path)}: lies behind a link, and is kept; move it elsewhere to have it made")
        how = "was changed after it was made" if name in self._known else "was not made by this command"
        raise KeptError(
            f"{shown_name(path)}: {how}, and is kept; move it elsewhere to have it made, or start anew with --overwrite"
        )

    def _is_ours(self, path: Path, name: str, size: int) -> bool:
        known = self._known.get(name, set())
        return None in known or size == 0 or (bool(known) and path.is_file() and file_digest(path) in known)

    def write(self, name: str, data: bytes) -> str:
        """Write an output, atomically, told first; its sha256.

        Raises:
            PhotoError: as `refuse_others`.
            OSError: it cannot be written, as on a full disk; names the file.
        """
        self.refuse_others(name)
        sha256 = hashlib.sha256(data).hexdigest()
        self.tell(name, sha256)
        path = self.folder / name
        with _faults_of(path):
            write_atomic(path, lambda stream: stream.write(data))
        return sha256

    @contextmanager
    def replacing(self, name: str) -> Generator[Path]:
        """The path of an output that others write, for the length of a `with`: known as ours whatever it becomes.

        Raises:
            PhotoError: as `refuse_others`.
        """
        self.refuse_others(name)
        self.tell(name)
        path = self.folder / name
        with _faults_of(path):
            yield path
        self.tell(name, file_digest(path))

    def tell(self, name: str, sha256: str | None = None) -> None:
        """That a file is about to be written; without a digest, that whatever it holds is ours, until one is told."""
        known = self._known.get(name, set())
        if sha256 not in known or (sha256 is not None and None in known):
            append_json_line(self.path, {"file": name, **({} if sha256 is None else {"sha256": sha256})})
            self._note(name, sha256)

    def _note(self, name: str, sha256: str | None) -> None:
        known = self._known.setdefault(name, set())
        known.add(sha256)
        if sha256 is not None:
            known.discard(None)

    def remove(self, name: str) -> None:
        """Remove an output that is of no more use.

        Raises:
            PhotoError: as `refuse_others`.
        """
        self.refuse_others(name)
        for path in files_of(self.folder, [name]):
            path.unlink(missing_ok=True)

    def unchanged(self) -> list[str]:
        """Names of the files that are there as they were written."""
        return [
            name for name in self._known
            for path in files_of(self.folder, [name]) if self._is_ours(path, name, path.lstat().st_size)
        ]  # fmt: skip


def journal_names(folder: Path) -> list[str]:
    """What a folder's journals tell of, then the journals themselves, for `adapt.disk.remove_written`."""
    return [*(name for name, _ in _read(folder)), *(path.name for path in _journals(folder))]


def _journals(folder: Path) -> list[Path]:
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(each for each in there if _NAMES.fullmatch(each.name))


def _read(folder: Path) -> list[tuple[str, str | None]]:
    lines: list[dict[str, Any]] = [line for path in _journals(folder) for line in read_json_lines(path, ("file",))]
    return [(str(line["file"]), line.get("sha256")) for line in lines]


@contextmanager
def _faults_of(path: Path) -> Generator[None]:
    """Errors of the system that the name of this file alone has are those of a photo, after which the next is tried."""
    try:
        yield
    except OSError as error:
        if error.errno not in NAME_FAULTS:
            raise
        raise PhotoError(f"{shown_name(path)}: cannot be written: {error.strerror}") from error
