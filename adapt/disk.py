"""Writes that are whole or not there: to a sibling `.part`, flushed, then renamed; and folders of outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from glob import escape
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, cast

from adapt.errors import UsageError

PARTS: Final = "**/.*.[0-9]*.part"  # what `write_atomic` leaves where it is killed
SHOWN: Final = 3  # other files, in a message


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a sibling file, then put it in place of `path` in one step.

    Raises:
        OSError: the file cannot be written; names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _naming(path):
            with part.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Errors of the system name this file: a full disk names none, and nobody knows the `.part` beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON atomically: indented for people, or all on one line."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: it is not JSON, or holds what Python does not take: numbers of thousands of digits, nesting.
        OSError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, too many digits
        raise UsageError(f"{path}: cannot be used: it is not JSON as we write it ({error})") from error


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line and force it to the disk; a last line that a crash cut short is dropped first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path), path.open("a+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            if stream.read(1) != b"\n":
                stream.seek(0)
                stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(json.dumps(value, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSON-lines file; a last line cut by a crash is left out. [] if there is no file.

    Raises:
        UsageError: another line is not JSON.
    """
    if not path.exists():
        return []
    whole, _, _cut = path.read_bytes().rpartition(b"\n")  # cut first: a letter may have been cut through as well
    try:
        return [json.loads(line) for line in whole.decode().split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be used: a line of it is not JSON as we write it ({error})") from error


def optional_path(path: str | Path | None) -> Path | None:
    """The path of an argument that may be left out."""
    return None if path is None else Path(path)


def listed_files(lines: Iterable[dict[str, Any]], more: Iterable[str] = ()) -> list[str]:
    """Patterns for `claim_folder` of the files that a list of outputs names, and of more by name."""
    return [escape(name) for name in dict.fromkeys((*(line["file"] for line in lines), *more))]


def claim_folder(
    folder: Path, name: str, about: dict[str, Any], *, ours: str, writes: Iterable[str], overwrite: bool
) -> dict[str, Any]:
    """Take a folder for outputs: a new or empty one, or one of an earlier run, to go on with.

    Args:
        folder: made if it is missing.
        name: the JSON file in it that says what its contents were made with; by it a folder of ours is known.
        about: what a new one says.
        ours: what a folder of ours is called in a message.
        writes: what else the command writes there, as for `remove_written`.
        overwrite: remove that first, if the folder is ours.

    Returns:
        What the file says: `about`, or what an earlier run wrote, to be compared with.

    Raises:
        UsageError: the folder holds other files, hidden ones apart.
    """
    path = folder / name
    if path.exists() and not overwrite:
        found = read_json(path)
        if not isinstance(found, dict):
            raise UsageError(f"{path}: cannot be used: it is not as we write it")
        return cast(dict[str, Any], found)
    if path.exists():
        remove_written(folder, writes)
    elif others := shown_files(folder):
        shown = ", ".join(each.name for each in others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        raise UsageError(f"{folder}: expected a new folder or {ours}; it holds other files ({shown})")
    write_json(path, about)
    return about


def files_of(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files below a folder that match glob patterns relative to it, in their order; those elsewhere never."""
    inside = (each for each in patterns if ".." not in PurePath(each).parts and not PurePath(each).is_absolute())
    found = (path for pattern in inside for path in folder.glob(pattern))
    return [path for path in found if path.is_symlink() or not path.is_dir()]


def shown_files(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, but for hidden files, which a system may leave anywhere."""
    return sorted(each for each in folder.iterdir() if not each.name.startswith(".")) if folder.exists() else []


def remove_written(folder: Path, patterns: Iterable[str]) -> None:
    """Remove the files of a folder that a command wrote, and the folders that this empties; all else stays.

    Args:
        folder: only files below it are removed, whatever a pattern says.
        patterns: glob patterns relative to it, in the order in which their files go.
    """
    left: set[Path] = set()
    for path in files_of(folder, (*patterns, PARTS)):
        path.unlink(missing_ok=True)
        left.update(parent for parent in path.parents if folder in parent.parents)
    for parent in sorted(left, key=lambda path: len(path.parts), reverse=True):
        if not parent.is_symlink() and not any(parent.iterdir()):
            parent.rmdir()
