"""Faces of a film, followed from frame to frame: none is lost for a frame, and none jumps.

A face of a frame goes on from that of an earlier one whose crop it shares most of. Where the detector missed it between
two frames, it is put there; its place follows a curve through the places that were found, by local regression, so that
it keeps to movements and not to what the networks guess differently from frame to frame. Only places are smoothed:
images are not, and no frame is restored by the help of another.

Source: none of the papers; the regression is that of Cleveland 1979 (LOWESS), of second degree, without its robust
rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

Placed = tuple[float, float, float, float]
"""A crop's upper edge in the photo, as `adapt.photos.boxes.KnownFace` has it: its left end, and the way along it."""

SAME_PLACE: Final = 0.35  # share of the union from which two crops of neighbouring frames are of one face
LONGEST_GAP: Final = 8  # frames without the face
REACH: Final = 5  # frames on both sides that a place depends on
CUT: Final = 0.12  # mean difference of two frames, seen coarsely, from which another shot begins


@dataclass(frozen=True, slots=True)
class Seen:
    """What is found in a frame.

    Attributes:
        faces: of each its crop, and its box.
        look: the frame's brightness in coarse cells, in [0, 1]: by it a cut is known; none of one that was not read.
    """

    faces: Sequence[tuple[Placed, tuple[float, float, float, float]]]
    look: Sequence[float]


@dataclass(frozen=True, slots=True)
class Followed:
    """A face in a frame.

    Attributes:
        track: which face it is through the film, from 1.
        placement: its crop.
        box: the detector's, moved with the crop where it was not found.
        found: the detector found it here.
    """

    track: int
    placement: Placed
    box: tuple[float, float, float, float]
    found: bool


@dataclass(slots=True)
class _Track:
    number: int
    frames: list[int] = field(default_factory=list[int])
    places: list[Placed] = field(default_factory=list[Placed])
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list[tuple[float, float, float, float]])


def follow(frames: Sequence[Seen]) -> list[list[Followed]]:
    """The faces of each frame of a film, in order; each face has one number throughout, until it is gone for long."""
    result: list[list[Followed]] = [[] for _ in frames]
    for track in _linked(frames):
        last = track.frames[0]
        for index, frame in enumerate(track.frames):
            for between in range(last + 1, frame):
                place = _at(track, between)
                result[between].append(Followed(track.number, place, _moved(track, index, place), False))
            result[frame].append(Followed(track.number, _at(track, frame), track.boxes[index], True))
            last = frame
    return [sorted(faces, key=lambda face: face.track) for faces in result]


def _linked(frames: Sequence[Seen]) -> list[_Track]:
    """What was found, by face."""
    tracks: list[_Track] = []
    open_ones: list[_Track] = []
    for number, seen in enumerate(frames):
        if number and _apart(frames[number - 1].look, seen.look) > CUT:
            open_ones = []
        open_ones = [track for track in open_ones if number - track.frames[-1] <= LONGEST_GAP + 1]
        pairs = sorted(
            (
                (_shared(track.places[-1], place), -track.number, track, index)
                for track in open_ones for index, (place, _) in enumerate(seen.faces)
            ),
            key=lambda pair: pair[:2], reverse=True,
        )  # fmt: skip
        taken: set[int] = set()
        for share, _, track, index in pairs:
            if share >= SAME_PLACE and track.frames[-1] != number and index not in taken:
                _add(track, number, seen, index)
                taken.add(index)
        for index in range(len(seen.faces)):
            if index not in taken:
                track = _Track(len(tracks) + 1)
                _add(track, number, seen, index)
                tracks.append(track)
                open_ones.append(track)
    return tracks


def _add(track: _Track, frame: int, seen: Seen, index: int) -> None:
    place, box = seen.faces[index]
    track.frames.append(frame)
    track.places.append(place)
    track.boxes.append(box)


def _shared(a: Placed, b: Placed) -> float:
    """What two crops share of their union, as if both were upright."""
    middles, sides = [_middle(place) for place in (a, b)], [math.hypot(*place[2:]) for place in (a, b)]
    across = [max(0.0, min(sides[0], sides[1], sum(sides) / 2 - abs(middles[0][axis] - middles[1][axis])))
              for axis in (0, 1)]  # fmt: skip
    both = across[0] * across[1]
    return both / (sides[0] ** 2 + sides[1] ** 2 - both)


def _middle(place: Placed) -> tuple[float, float]:
    x, y, along, down = place
    return x + (along - down) / 2, y + (along + down) / 2


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    if not a or not b:
        return 0.0
    return math.fsum(abs(one - other) for one, other in zip(a, b, strict=True)) / len(a)


def _at(track: _Track, frame: int) -> Placed:
    """Where a face is in a frame, by local regression of middle, scale and turn over the frames around it."""
    near = [index for index, each in enumerate(track.frames) if abs(each - frame) <= REACH]
    before = [index for index, each in enumerate(track.frames) if each < frame][-1:]
    after = [index for index, each in enumerate(track.frames) if each > frame][:1]
    used = sorted({*near, *before, *after})
    times = torch.tensor([track.frames[index] - frame for index in used], dtype=torch.float64)
    values = torch.tensor(
        [(*_middle(track.places[index]), *track.places[index][2:]) for index in used], dtype=torch.float64
    )
    reach = max(REACH + 1.0, float(times.abs().max()) + 1)
    weights = (1 - (times.abs() / reach) ** 3) ** 3
    degree = min(2, len(used) - 1)
    terms = torch.stack([times**power for power in range(degree + 1)], dim=1)
    root = weights.sqrt()[:, None]
    x, y, along, down = torch.linalg.lstsq(terms * root, values * root).solution[0].tolist()
    return x - (along - down) / 2, y - (along + down) / 2, along, down


def _moved(track: _Track, index: int, place: Placed) -> tuple[float, float, float, float]:
    """The box that was found next, moved to a place between."""
    left, top, right, bottom = track.boxes[index]
    x, y = (here - there for here, there in zip(_middle(place), _middle(track.places[index]), strict=True))
    return left + x, top + y, right + x, bottom + y
