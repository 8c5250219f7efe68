"""The frames of a film: faces found in each, then followed from frame to frame, before anything is cut out.

    found.jsonl     in the output folder: what was found in each frame, so that a second run need not look again

Of a frame only numbers are kept: memory does not grow with pictures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch.nn.functional as F
from torch import Tensor

from adapt.commands.photographs import Preparer
from adapt.digests import file_digest
from adapt.disk import append_json_line, read_json_lines
from adapt.errors import PhotoError
from adapt.faces.find import CROP
from adapt.faces.tracks import Followed, Seen, follow
from adapt.photos.boxes import KnownFace, KnownPhoto
from adapt.photos.files import read_photo
from adapt.photos.folder import PhotoFile

FOUND: Final = "found.jsonl"
LOOK: Final = 8  # cells along a side of what a frame is known by
_DIGITS = re.compile(r"(\d+)")


def in_order(files: Sequence[PhotoFile]) -> list[PhotoFile]:
    """Frames by their numbers: 2 before 10, whatever the zeros before them; each folder is a film of its own."""
    return sorted(files, key=lambda file: [
        int(part) if part.isdecimal() else part for part in _DIGITS.split(file.id)
    ])  # fmt: skip


def follow_faces(
    preparer: Preparer, files: Sequence[PhotoFile], out: Path, on_frame: Callable[[int, int], object] | None = None
) -> Preparer:
    """A preparer that takes the faces of each frame where they were followed to.

    A frame that cannot be read has none, and fails later, where it is restored.

    Args:
        preparer: of whole photographs.
        files: the frames.
        out: the folder that holds `FOUND`.
        on_frame: told of frames that are done, and of all.
    """
    assert preparer.finder is not None
    known = {(line["photo"], line["photo_sha256"]): line for line in read_json_lines(out / FOUND, ("photo", "look"))}
    films: dict[str, list[tuple[str, Seen]]] = {}
    for number, file in enumerate(in_order(files), start=1):
        try:
            sha256 = file_digest(file.path)
            line: Any = known.get((file.id, sha256))
            if line is None:
                line = {"photo": file.id, "photo_sha256": sha256, **_found(preparer, file)}
                append_json_line(out / FOUND, line)
            seen = Seen([(_four(each["placement"]), _four(each["box"])) for each in line["faces"]], line["look"])
        except (PhotoError, OSError):
            seen = Seen([], [])
        films.setdefault(file.id.rpartition("/")[0], []).append((file.id, seen))
        if on_frame is not None:
            on_frame(number, len(files))
    places: dict[str, KnownPhoto] = {}
    for film in films.values():
        followed = follow([seen for _, seen in film])
        chosen = _largest(followed, 1 if preparer.choice.largest else preparer.choice.most)
        for (id, _), faces in zip(film, followed, strict=True):
            places[id] = KnownPhoto(tuple(
                KnownFace(face.box, (), face.placement, face.track) for face in faces if face.track in chosen
            ))  # fmt: skip
    return replace(preparer, choice=replace(preparer.choice, largest=False, most=None, known=places))


def _found(preparer: Preparer, file: PhotoFile) -> dict[str, Any]:
    assert preparer.finder is not None
    image = read_photo(file.path).image
    given = preparer.choice.known.get(file.id)
    faces = preparer.finder.find(image) if given is None else preparer.finder.given(image, given.faces)
    return {
        "faces": [
            {
                "box": [*face.box],
                "placement": [place.x, place.y, place.a * CROP, place.b * CROP],
                "score": round(face.score, 3),
            }
            for face in faces for place in [face.placement]
        ],
        "look": _look(image),
    }  # fmt: skip


def _four(values: Sequence[float]) -> tuple[float, float, float, float]:
    first, second, third, fourth = values
    return first, second, third, fourth


def _look(image: Tensor) -> list[float]:
    return [round(value, 3) for value in F.adaptive_avg_pool2d(image.mean(0)[None], LOOK).flatten().tolist()]


def _largest(frames: Sequence[Sequence[Followed]], most: int | None) -> set[int]:
    """The faces that are among the largest of a frame anywhere: by their mean size, so that none comes and goes."""
    sides: dict[int, list[float]] = {}
    for faces in frames:
        for face in faces:
            sides.setdefault(face.track, []).append(face.placement[2] ** 2 + face.placement[3] ** 2)
    mean = {track: sum(values) / len(values) for track, values in sides.items()}
    chosen: set[int] = set()
    for faces in frames:
        chosen |= {face.track for face in sorted(faces, key=lambda face: -mean[face.track])[:most]}
    return chosen
