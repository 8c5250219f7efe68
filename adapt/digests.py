"""Digests of files and settings, and the random seed that belongs to one photo."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hex digits.

    Raises: OSError: it cannot be read; a pipe, which would be waited for without end, is not tried.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_digest(data: bytes) -> str:
    """sha256 of a file's content, equal to `file_digest` of the file."""
    return hashlib.sha256(data).hexdigest()


def is_unchanged(path: Path, sha256: str | None) -> bool:
    """Whether a file is there and its digest is that one; none is under a name that is too long."""
    try:
        return path.is_file() and file_digest(path) == sha256
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def settings_digest(settings: Any) -> str:
    """sha256 of a JSON-like value, independent of key order and white space."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def photo_seed(seed: int, photo_sha256: str, draw: int = 0, redraw: int = 0) -> int:
    """The seed of one photo: of the recipe's seed, the photo's content, the draw and how often that was drawn before,
    never of its name or position."""
    again = f":{redraw}" if redraw else ""
    digest = hashlib.sha256(f"{seed}:{photo_sha256}:{draw}{again}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes a signed 64-bit seed


def seed_again(seed: int, again: int) -> int:
    """The seed of a further draw of what has a seed; the first, 0, has that itself."""
    if not again:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:{again}".encode()).digest()[:8], "big") >> 1
