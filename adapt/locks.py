"""One command at a time in an output folder: an advisory lock of the system, which ends with its process, however that
ends.

    .adapt.lock           held by a command; shards of one store hold it together
    .adapt-I-of-N.lock    held by shard I of N beside it

Where a disk knows no locks, or a folder cannot be written, work goes on without.
"""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from adapt.disk import make_folder, short_sibling, shown_name
from adapt.errors import UsageError

NAME: Final = ".adapt.lock"
_SHARDS: Final = ".adapt-*-of-*.lock"
TRIES: Final = 5
PAUSE: Final = 0.05  # seconds between them


@contextmanager
def locked(folder: Path, shard: tuple[int, int] = (0, 1)) -> Generator[None]:
    """Hold a folder for the length of a `with`.

    Args:
        folder: made if it is missing.
        shard: (index, count) of this process, from 0: others of other indices may hold it at the same time.

    Raises:
        UsageError: another command holds it, which is named; or it is a file.
    """
    make_folder(folder)
    index, count = shard
    with ExitStack() as held:
        held.enter_context(_held(folder, folder / NAME, shared=count > 1))
        if count > 1:
            held.enter_context(_held(folder, folder / f".adapt-{index + 1}-of-{count}.lock", shared=False))
        yield


@contextmanager
def locked_beside(folder: Path) -> Generator[None]:
    """As `locked`, for a folder that is replaced as a whole: the lock lies beside it, and the folder need not be there.

    Raises:
        UsageError: another command holds it.
        OSError: the folder above it cannot be made, or is a file.
    """
    above = folder.parent
    if above.exists() and not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
    above.mkdir(parents=True, exist_ok=True)
    with _held(folder, short_sibling(folder, "lock"), shared=False):
        yield


@contextmanager
def _held(folder: Path, path: Path, *, shared: bool) -> Generator[None]:
    """Hold one lock file; the last to hold it removes it."""
    descriptor = _open_held(folder, path, shared)
    if descriptor is None:
        yield
        return
    try:
        if not shared:
            _sign(descriptor)
        yield
    finally:
        with suppress(OSError):
            if not shared or _try_lock(descriptor, shared=False):
                path.unlink(missing_ok=True)  # while it is held: who opened it before finds that it is gone
        os.close(descriptor)


def _open_held(folder: Path, path: Path, shared: bool) -> int | None:
    """An open lock file that this process holds; None where there can be no locks."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            if not _wait_shortly(descriptor, shared):
                raise UsageError(
                    f"{shown_name(folder)}: another command works in this folder{_holder(folder, path)}; wait for it to"
                    " end, or choose another folder"
                )
            here = os.fstat(descriptor)
            with suppress(FileNotFoundError):
                there = path.stat()
                if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                    return descriptor
        except OSError:  # a disk without locks
            os.close(descriptor)
            return None
        except UsageError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it since it was opened


def _wait_shortly(descriptor: int, shared: bool) -> bool:
    """Take a lock, also one that is just being given back; False where it is held."""
    for _ in range(TRIES - 1):
        if _try_lock(descriptor, shared=shared):
            return True
        time.sleep(PAUSE)
    return _try_lock(descriptor, shared=shared)


if sys.platform == "win32":
    import msvcrt

    _FAR: Final = 1 << 30  # what is locked there cannot be read: the text at the start is not

    def _try_lock(descriptor: int, *, shared: bool) -> bool:
        """Take the lock if it is free; there are no shared ones here, so shards have their own files alone."""
        if shared:
            return True
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int, *, shared: bool) -> bool:
        """Take the lock if it is free, or turn one that is held into an exclusive one."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _sign(descriptor: int) -> None:
    """Say in a lock file who holds it."""
    program = "adapt" if Path(sys.argv[0]).name in ("__main__.py", "adapt") else sys.argv[0]
    command = shlex.join([program, *sys.argv[1:]])
    text = f"process {os.getpid()} on {platform.node() or 'this machine'}: {command}"
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, text.encode("utf-8", "backslashreplace"))


def _holder(folder: Path, path: Path) -> str:
    """In brackets, who holds a lock, as far as it can be told."""
    for file in (path, *sorted(folder.glob(_SHARDS))):
        with suppress(OSError):
            if text := file.read_text(encoding="utf-8", errors="replace").strip():
                return f" ({text})"
    return ""
