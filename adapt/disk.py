"""Writes that are whole or not there: to a sibling `.part`, flushed, then renamed; and folders of outputs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from adapt.errors import UsageError


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a sibling file, then put it in place of `path` in one step.

    Raises:
        OSError: the file cannot be written; names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)  # a full disk names none, and nobody knows the sibling
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line and force it to the disk; a last line that a crash cut short is dropped first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
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
    """All whole lines of a JSON-lines file; a last line cut by a crash is left out. [] if there is no file."""
    if not path.exists():
        return []
    whole, _, _cut = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def optional_path(path: str | Path | None) -> Path | None:
    """The path of an argument that may be left out."""
    return None if path is None else Path(path)


def claim_folder(folder: Path, name: str, about: dict[str, Any], *, ours: str, overwrite: bool) -> dict[str, Any]:
    """Take a folder for outputs: a new or empty one, or one of an earlier run, to go on with.

    Args:
        folder: made if it is missing.
        name: the JSON file in it that says what its contents were made with; by it a folder of ours is known.
        about: what a new one says.
        ours: what a folder of ours is called in a message.
        overwrite: empty the folder first, if it is ours.

    Returns:
        What the file says: `about`, or what an earlier run wrote, to be compared with.

    Raises:
        UsageError: the folder holds other files.
    """
    path = folder / name
    if overwrite and path.exists():
        shutil.rmtree(folder)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: expected a new folder or {ours}; it holds other files")
    write_json(path, about)
    return about
