"""Where faces are, by somebody who knows: a file of boxes or points, one line of JSON for each face."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from adapt.errors import UsageError


@dataclass(frozen=True, slots=True)
class KnownFace:
    """A face that is given.

    Attributes:
        box: left, top, right and bottom, in pixels of the upright photo.
        points: both eyes (the left one in the image first), nose and corners of the mouth, or none.
        placement: where the aligned crop's upper edge lies: its left end, then the way along it; or none.
        track: its number through a film; 0 where it is of none.
    """

    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...] = ()
    placement: tuple[float, ...] = ()
    track: int = 0


@dataclass(frozen=True, slots=True)
class KnownPhoto:
    """The faces of a photo that are given, and the digest of the file that they were found in, where that is told."""

    faces: tuple[KnownFace, ...] = ()
    sha256: str | None = None


def read_boxes(path: Path) -> dict[str, KnownPhoto]:
    """The faces of each photo, by the photo's id.

    A line is `{"photo": "ID", "box": [left, top, right, bottom]}`, in pixels of the upright photo, with `"points"` of
    five [x, y] where they are known; `{"photo": "ID"}` alone says that there is no face. Lines of `faces.jsonl` are
    such lines, and their placement is taken as it is; of those that `adapt align` wrote of one photo the ones count
    that it wrote of the photo as it was last, and the last of each file. A line of it with a file and no box is of a
    photo that is an aligned face, and says nothing of others.

    Raises:
        UsageError: a file that cannot be read, or a line that is none of these.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--boxes {path}: cannot be read: {error}") from error
    told: dict[str, list[_Line]] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            own = _Line(line.get("photo_sha256"), line.get("file"), _face(line))
            told.setdefault(_text(line["photo"]), []).append(own)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f'--boxes {path}, line {number}: expected {{"photo": "ID", "box": [left, top, right, bottom]}},'
                f" got {text.strip()[:80]} ({error})"
            ) from error
    return {id: photo for id, own in told.items() if (photo := _latest(own)) is not None}


class _Line(NamedTuple):
    """A line: the digest of the photo and the file of the face, where `adapt align` wrote it, and the face, if any."""

    sha256: str | None
    file: str | None
    face: KnownFace | None


def _latest(lines: Sequence[_Line]) -> KnownPhoto | None:
    """The faces of a photo; None of one that is an aligned face."""
    last = next((line.sha256 for line in reversed(lines) if line.sha256 is not None), None)
    current = [line for line in lines if line.sha256 in (None, last)]
    if all(line.file is not None and line.face is None for line in current):
        return None
    by_file = {line.file: line for line in current if line.file is not None}
    own = [line for line in current if line.file is None or by_file[line.file] is line]
    return KnownPhoto(tuple(line.face for line in own if line.face is not None), last)


def _face(line: Any) -> KnownFace | None:
    """The face of a line; raises ValueError, TypeError, KeyError or AttributeError where it is none."""
    if line.get("box") is None:
        return None
    points = tuple((float(x), float(y)) for x, y in line.get("points") or ())
    placement = tuple(float(value) for value in line.get("placement") or ())
    if len(points) not in (0, 5) or len(placement) not in (0, 4):
        raise ValueError("points are five, a placement has four numbers")
    if not all(map(math.isfinite, [*placement, *(value for point in points for value in point)])):
        raise ValueError("a number that is not finite")
    if points and len({*points}) < len(points):
        raise ValueError("two points in one place")
    if placement and placement[2:] == (0, 0):
        raise ValueError("a placement without a length")
    return KnownFace(_box(line["box"]), points, placement, int(line.get("track") or 0))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a photo's id is text")
    return value


def _box(values: Sequence[Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in values)
    if not (left < right and top < bottom and all(map(math.isfinite, (left, top, right, bottom)))):
        raise ValueError("an empty box")
    return left, top, right, bottom
