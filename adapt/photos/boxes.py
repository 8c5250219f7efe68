"""Where faces are, by somebody who knows: a file of boxes or points, one line of JSON for each face."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def read_boxes(path: Path) -> dict[str, list[KnownFace]]:
    """The faces of each photo, by the photo's id.

    A line is `{"photo": "ID", "box": [left, top, right, bottom]}`, in pixels of the upright photo, with `"points"` of
    five [x, y] where they are known; `{"photo": "ID"}` alone says that there is no face. Lines of `faces.jsonl` are
    such lines, and their placement is taken as it is.

    Raises:
        UsageError: a file that cannot be read, or a line that is none of these.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--boxes {path}: cannot be read: {error}") from error
    faces: dict[str, list[KnownFace]] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            own = faces.setdefault(_text(line["photo"]), [])
            if line.get("box") is None:
                continue
            points = tuple((float(x), float(y)) for x, y in line.get("points") or ())
            placement = tuple(float(value) for value in line.get("placement") or ())
            if len(points) not in (0, 5) or len(placement) not in (0, 4):
                raise ValueError("points are five, a placement has four numbers")
            own.append(KnownFace(_box(line["box"]), points, placement, int(line.get("track") or 0)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f'--boxes {path}, line {number}: expected {{"photo": "ID", "box": [left, top, right, bottom]}},'
                f" got {text.strip()[:80]}"
            ) from error
    return faces


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a photo's id is text")
    return value


def _box(values: Sequence[Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in values)
    if not (left < right and top < bottom and all(map(math.isfinite, (left, top, right, bottom)))):
        raise ValueError("an empty box")
    return left, top, right, bottom
