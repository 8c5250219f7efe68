"""Writes that are whole or not there: to a short-named sibling, flushed, then renamed; the JSON files that keep what a
folder is; and folders of outputs, taken and emptied.

A file name need not be Unicode. In JSON such a byte is the escape of the lone surrogate that Python reads it as, and is
read back as that; elsewhere the same escape stands for it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from adapt.errors import UsageError

PART: Final = re.compile(r"\.adapt-[0-9]+-[0-9a-f]{8}\.part")  # what `write_atomic` leaves where it is killed
SHOWN: Final = 3  # other files, in a message
MADE_BY: Final = "adapt"
NAME_FAULTS: Final = frozenset(
    {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}
)  # errors that the name of one file has, and the next may not


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a sibling file, then put it in place of `path` in one step.

    Raises:
        OSError: the file cannot be written; names `path`.
    """
    with _naming(path), _part_of(path) as part:
        _fill(part, write)
        os.replace(part, path)


def write_first(path: Path, write: Callable[[BinaryIO], object]) -> bool:
    """As `write_atomic`, but only where no file is; False where one is there, perhaps since a moment ago."""
    with _naming(path), _part_of(path) as part:
        _fill(part, write)
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError:  # a disk without links
            if path.exists():
                return False
            os.replace(part, path)
    return True


def link_or_copy(file: Path, path: Path) -> None:
    """Put a file in a second place in one step: a link, or where the disk has none, a copy.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    with _naming(path), _part_of(path) as part:
        try:
            os.link(file, part)
        except OSError:
            shutil.copyfile(file, part)
        os.replace(part, path)  # where both are links to one file, this does nothing


def _fill(part: Path, write: Callable[[BinaryIO], object]) -> None:
    with part.open("xb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _part_of(path: Path) -> Generator[Path]:
    """The name of a file beside another, to be filled first; what is left of it goes.

    It is of a length of its own: a file may have the longest name there is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".adapt-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def short_sibling(path: Path, kind: str) -> Path:
    """A hidden file or folder of ours beside another, always the same one; its name is short, whatever the other's."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return path.with_name(f".adapt-{digest}.{kind}")


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Errors of the system name this file: a full disk names none, and nobody knows the `.part` beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
            error.filename2 = None
        raise


def shown_name(path: str | Path) -> str:
    """A path as it can be printed and stored: names that are not Unicode get escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


# ---------------------------------------------------------------- text and JSON


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda stream: stream.write(text.encode("utf-8", "backslashreplace")))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_atomic(path, lambda stream: stream.write(_indented(value)))


def _indented(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line and force it to the disk; a last line that a crash cut short is dropped first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    with _naming(path), path.open("a+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            if stream.read(1) != b"\n":
                stream.seek(0)
                rest, _, last = stream.read().rpartition(b"\n")
                if _is_whole(last):  # an editor may leave out the end of the last line
                    line = b"\n" + line
                else:
                    stream.truncate(len(rest) + 1 if rest else 0)
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except ValueError:
        return False


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file; a byte order mark, as some editors put it there, is passed over.

    Args:
        path: the file.
        remedy: what to do where it is damaged, for the message.

    Raises:
        UsageError: it is empty, not UTF-8, not JSON, or no object.
    """
    return _object(path.read_bytes(), f"{shown_name(path)}: ", remedy)


def read_json_lines(path: Path, needed: Iterable[str] = ()) -> list[dict[str, Any]]:
    """All whole lines of a JSON-lines file; a last line cut by a crash is left out. [] if there is no file.

    Args:
        path: the file.
        needed: keys that each line must have.

    Raises:
        UsageError: another line is damaged, or lacks a key; names the file and the line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not _is_whole(lines[-1]):
        lines.pop()
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{shown_name(path)}, line {number}: "
        value = _object(line, place, "remove that line, and what it told of is made anew")
        if missing := [key for key in needed if key not in value]:
            raise UsageError(
                f"{place}is damaged (lacks {', '.join(missing)}); remove that line, and what it told of is made anew"
            )
        found.append(value)
    return found


def _object(data: bytes, place: str, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is not UTF-8"
    except ValueError as error:
        reason = f"not JSON: {error}" if data.strip() else "empty"
    except RecursionError:
        reason = "not JSON: nested too deep"
    else:
        if isinstance(value, dict):
            return value
        reason = "expected an object in braces"
    raise UsageError(f"{place}is damaged ({reason}); {remedy}")


def optional_path(path: str | Path | None) -> Path | None:
    """The path of an argument that may be left out."""
    return None if path is None else Path(path)


# ---------------------------------------------------------------- folders of outputs


def marked(kind: str, about: dict[str, Any]) -> dict[str, Any]:
    """The contents of a file by which a folder is known: what it says, after who made the folder and what it is."""
    return {"made by": MADE_BY, "kind": kind, **about}


def is_marked(path: Path, kind: str) -> bool:
    """Whether a file is there by which a folder is known to be ours and of this kind.

    Raises:
        UsageError: the file is damaged, so that it cannot be told.
    """
    return path.is_file() and _has_mark(read_claim(path), kind)


def _has_mark(about: dict[str, Any], kind: str) -> bool:
    return (about.get("made by"), about.get("kind")) == (MADE_BY, kind)


def read_claim(path: Path) -> dict[str, Any]:
    """What a file says by which a folder is known, ours or not.

    Raises:
        UsageError: the file is damaged.
    """
    return read_json(path, "choose another folder, or put the file back from a copy, or remove the whole folder")


def claim_folder(
    folder: Path,
    name: str,
    about: dict[str, Any],
    *,
    kind: str,
    ours: str,
    writes: Callable[[], Iterable[str]],
    overwrite: bool,
) -> dict[str, Any]:
    """Take a folder for outputs: a new or empty one, or one of an earlier run, to go on with.

    Several processes may do so at once: one of them makes the file, all find the same in it.

    Args:
        folder: made if it is missing.
        name: the JSON file in it that says what its contents were made with; by it a folder of ours is known.
        about: what a new one says.
        kind: of folder, for the mark in that file; a file without it is not ours.
        ours: what a folder of ours is called in a message.
        writes: names what commands have written there, as for `remove_written`; asked only where the folder is ours.
        overwrite: remove that first, if the folder is ours.

    Returns:
        What the file says: `about`, or what an earlier run wrote, to be compared with.

    Raises:
        UsageError: the folder is a file, or holds other files, hidden ones apart; or the file is damaged.
    """
    make_folder(folder)
    path, said = folder / name, marked(kind, about)
    others = shown_files(folder)
    if path.exists():  # asked after the list: what another process has made since is no other file
        found = read_claim(path)
        if not _has_mark(found, kind):
            raise UsageError(
                f"{shown_name(folder)}: expected a new folder or {ours}; its {name} is not that of {ours}; choose"
                " another folder"
            )
        if not overwrite:
            return found
        remove_written(folder, writes())
        write_json(path, said)
        return said
    if others:
        shown = ", ".join(shown_name(each.name) for each in others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        raise UsageError(f"{shown_name(folder)}: expected a new folder or {ours}; it holds other files ({shown})")
    if write_first(path, lambda stream: stream.write(_indented(said))):
        return said
    return claim_folder(folder, name, about, kind=kind, ours=ours, writes=writes, overwrite=False)


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, with those above it, if it is missing.

    Raises:
        UsageError: it is a file, or a link to nowhere.
        OSError: it cannot be made, as where one of those above it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{shown_name(folder)}: expected a folder, there is a file; choose a folder") from error


def files_of(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files of a folder by their exact names, in that order, each once; what is not there is left out.

    Never one that lies elsewhere, whatever a name says: outside the folder, or behind a link in it.
    """
    return [folder / name for name in dict.fromkeys(names) if _is_there(folder, name)]


def _is_there(folder: Path, name: str) -> bool:
    if ".." in PurePosixPath(name).parts or Path(name).is_absolute():
        return False
    path = folder / name
    try:
        return not behind_link(folder, name) and (path.is_symlink() or path.is_file())
    except OSError:  # longer than a name can be
        return False


def behind_link(folder: Path, name: str) -> bool:
    """Whether one of the folders between a folder and a file in it is a link, so that the file may lie elsewhere."""
    between = list(PurePosixPath(name).parents)[:-1]
    return any((folder / each).is_symlink() for each in between)


def shown_files(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, but for hidden files, which a system may leave anywhere."""
    return sorted(each for each in folder.iterdir() if not each.name.startswith(".")) if folder.exists() else []


def remove_written(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of a folder that commands wrote, and the folders that this empties; all else stays.

    Args:
        folder: only files below it are removed, as `files_of` finds them.
        names: exact, relative to it, in the order in which the files go.
    """
    above = {folder}
    for path in files_of(folder, names):
        path.unlink(missing_ok=True)
        above.update(parent for parent in path.parents if folder in parent.parents)
    for parent in sorted(above, key=lambda path: len(path.parts), reverse=True):
        for left in [each for each in parent.iterdir() if PART.fullmatch(each.name)] if parent.is_dir() else []:
            left.unlink(missing_ok=True)
        if parent != folder:
            with suppress(OSError):  # it holds something else
                parent.rmdir()
