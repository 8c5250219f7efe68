"""All faces of a photograph, each with its points and its place: large and small, upright and turned.

A detector sees a photo at one small size, where a face in a crowd is a few pixels. So it is shown the whole photo and
then, level by level, overlapping tiles of half the side, until faces of the smallest size that is asked for fill enough
of a tile. What several views found of one face is joined. The detector's five points, or where it gives none landmarks
in the box, make a first placement; landmarks are found in the crop that it cuts out, upright and at the size that the
network knows best, three times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.errors import UsageError
from adapt.faces.align import Placement, cut_out, five_points, misfit, placed, template
from adapt.faces.crops import Window
from adapt.faces.detector import ONE_LOOK, Detector, FoundFace, Scores
from adapt.faces.landmarks import Landmarks, eye_distance

MIN_FACE: Final = 24.0  # pixels of the photo
SEEN_AT: Final = 512  # side at which the detector sees a view
SMALLEST_SEEN: Final = 24  # pixels of a view: what a face must fill to be found there
OVERLAP: Final = 0.3  # of neighbouring tiles
SAME_BOX: Final = 0.4  # share of the union from which two boxes are of one face
SAME_FACE: Final = 0.6  # of the larger eye distance: two faces whose middles are nearer are one
CROP: Final = 256  # side of the crops in which landmarks are found again
ROUNDS: Final = 3  # of finding them
WORST_MISFIT: Final = 0.25  # in eye distances: five points that lie worse are of no face
ACROSS: Final = (0.8, 4.0)  # the aligned crop's side over the box's: about 2; others are of no face


class Known(Protocol):
    """A face that is given, in pixels of the photo."""

    @property
    def box(self) -> tuple[float, float, float, float]: ...

    @property
    def points(self) -> tuple[tuple[float, float], ...]: ...

    @property
    def placement(self) -> tuple[float, ...]: ...

    @property
    def track(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a photograph.

    Attributes:
        box: the detector's, in pixels of the photo, within it.
        score: how sure the detector is, in [0, 1].
        points: the 68 landmarks, (68, 2) float64, in pixels of the photo.
        placement: from an aligned crop of `CROP` pixels to the photo.
        misfit: how badly the points fit the template (`adapt.faces.align.misfit`).
        track: its number through a film; 0 where it is of none.
    """

    box: Window
    score: float
    points: Tensor
    placement: Placement
    misfit: float
    track: int = 0

    @property
    def side(self) -> float:
        """Of the aligned crop, in pixels of the photo."""
        return self.placement.scale * CROP

    def around(self) -> Placement:
        """As `placement`, with as much again of what is around it."""
        place, half = self.placement, CROP / 2
        corner = place.to_photo(torch.tensor([-half, -half], dtype=torch.float64)).tolist()
        return Placement(2 * place.a, 2 * place.b, *corner)

    def placed_at(self, size: int) -> Placement:
        """Its placement for a crop of another size."""
        share = CROP / size
        return Placement(self.placement.a * share, self.placement.b * share, self.placement.x, self.placement.y)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFinder:
    """Finds the faces of photographs.

    Attributes:
        detector, landmarks: the networks.
        min_face: side of the smallest faces to find (of the box), in pixels of the photo.
        min_score: what the detector is less sure of is left out.
        scores: from which of its scores on a face is looked at again, and which it must have there.

    Raises:
        UsageError: a setting outside its range.
    """

    detector: Detector
    landmarks: Landmarks
    min_face: float = MIN_FACE
    min_score: float = ONE_LOOK.least
    scores: Scores = ONE_LOOK

    def __post_init__(self) -> None:
        if self.min_face < 8:
            raise UsageError(f"--min-face {self.min_face:g}: expected 8 pixels or more")
        if not 0 < self.min_score < 1:
            raise UsageError(f"--min-score {self.min_score:g}: expected a score between 0 and 1")

    @property
    def name(self) -> str:
        """What its numbers are reported with."""
        return f"{self.detector.name}, {self.landmarks.name}"

    def about(self) -> dict[str, float | str]:
        """All that its finds depend on beside the photo, as JSON holds it."""
        return {"networks": self.name, "min_face": self.min_face, "min_score": self.min_score}

    def given(self, photo: Tensor, known: Sequence[Known]) -> list[Face]:
        """The faces at places that somebody gives, the largest first; points that are given are not looked for again.

        Args:
            photo: (3, H, W) in [0, 1].
            known: their boxes, with five points or the upper edge of the crop where they are known.
        """
        faces: list[Face] = []
        for each in known:
            found = FoundFace(Window(*each.box), 1.0)
            if each.points or each.placement:
                if each.placement:
                    x, y, along, down = each.placement
                    placement = Placement(along / CROP, down / CROP, x, y)
                else:
                    placement = placed(torch.tensor(each.points, dtype=torch.float64), CROP, own=False)
                inner = self.landmarks.of_aligned(cut_out(photo, placement, CROP)[None])[0].double().cpu()
                fit = misfit(five_points(inner), CROP)
                faces.append(Face(found.box, 1.0, placement.to_photo(inner), placement, fit, each.track))
            elif (face := self.face_in(photo, found, strict=False)) is not None:
                faces.append(face)
        return sorted(faces, key=lambda face: (-face.side, face.box))

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, (3, H, W) in [0, 1], the largest first; none is no error."""
        faces = [face for found in self.boxes(photo) if (face := self.face_in(photo, found)) is not None]
        return _each_once(faces)

    def boxes(self, photo: Tensor) -> list[FoundFace]:
        """What the detector finds in all views, the surest first, what is found twice once."""
        found: list[FoundFace] = []
        for view, window in views(photo, self.min_face):
            height, width = view.shape[1:]
            scale = (window.right - window.left) / width
            for face in self.detector.find(view):
                left, top, right, bottom = face.box
                # A face that a tile cuts is whole in its neighbour or in the level above.
                cut = (
                    (left <= 1 and window.left > 0) or (top <= 1 and window.top > 0)
                    or (right >= width - 1 and window.right < photo.shape[2])
                    or (bottom >= height - 1 and window.bottom < photo.shape[1])
                )  # fmt: skip
                if face.score < self.min_score or cut:
                    continue
                box = Window(
                    left * scale + window.left, top * scale + window.top,
                    right * scale + window.left, bottom * scale + window.top,
                )  # fmt: skip
                if max(box.right - box.left, box.bottom - box.top) >= self.min_face:
                    points = tuple((x * scale + window.left, y * scale + window.top) for x, y in face.points)
                    found.append(FoundFace(box, face.score, points))
        kept: list[FoundFace] = []
        for face in sorted(found, key=lambda face: -face.score):
            if all(_shared(face.box, other.box) < SAME_BOX for other in kept):
                kept.append(face)
        return kept

    def face_in(self, photo: Tensor, found: FoundFace, *, strict: bool = True) -> Face | None:
        """The face in a box; None where it has no points, or, strictly, where they are not those of a face."""
        try:
            if found.points:
                placement = placed(torch.tensor(found.points, dtype=torch.float64), CROP, own=False)
            else:
                placement = placed(five_points(self.landmarks.inside(photo[None], found.box)[0].double().cpu()), CROP)
            points = placement.to_photo(template(CROP, own=True))
            fit = math.inf
            for _ in range(ROUNDS):
                crop = cut_out(photo, placement, CROP)
                inner = self.landmarks.of_aligned(crop[None])[0].double().cpu()
                fit = misfit(five_points(inner), CROP)
                points = placement.to_photo(inner)
                placement = placed(five_points(points), CROP)
        except ValueError:
            return None
        face = Face(found.box, found.score, points, placement, fit)
        across = face.side / max(found.box.right - found.box.left, found.box.bottom - found.box.top)
        middle = five_points(points).mean(0).tolist()
        left, top, right, bottom = found.box
        outside = not (left <= middle[0] <= right and top <= middle[1] <= bottom)
        doubtful = fit > WORST_MISFIT or outside or not ACROSS[0] < across < ACROSS[1]
        return None if strict and (doubtful or not self._confirmed(photo, face)) else face

    def _confirmed(self, photo: Tensor, face: Face) -> bool:
        """Whether the detector is sure of a face, or sees it again, better, in the upright crop."""
        if face.score >= self.scores.sure:
            return True
        again = self.detector.find(cut_out(photo, face.around(), CROP))
        return any(
            found.score >= self.scores.again
            and found.box.left < CROP / 2 < found.box.right and found.box.top < CROP / 2 < found.box.bottom
            for found in again
        )  # fmt: skip


def views(photo: Tensor, min_face: float) -> Iterator[tuple[Tensor, Window]]:
    """The whole photo, then ever smaller tiles of it, each at about the side that the detector looks at.

    Yields:
        The view, (3, h, w), and its window in pixels of the photo.
    """
    height, width = photo.shape[1:]
    side = max(height, width)
    finest = SEEN_AT * min_face / SMALLEST_SEEN
    while True:
        for top in _places(height, side):
            for left in _places(width, side):
                window = Window(left, top, min(left + side, width), min(top + side, height))
                part = photo[:, int(window.top) : int(window.bottom), int(window.left) : int(window.right)]
                yield _reduced(part), window
        if side <= finest or side <= SEEN_AT:
            return
        side = max(SEEN_AT, math.ceil(side / 2))


def _places(length: int, side: int) -> list[int]:
    """Where tiles of a side begin along a length, evenly."""
    if side >= length:
        return [0]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _reduced(view: Tensor) -> Tensor:
    """A view brought down to the side that the detector looks at, with all pixels counted; smaller ones stay."""
    height, width = view.shape[1:]
    scale = SEEN_AT / max(height, width)
    if scale >= 1:
        return view
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(view[None], size, mode="area")[0]


def _shared(a: Window, b: Window) -> float:
    """What two boxes share of their union, or of the smaller one where that lies within the other."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in (a, b)]
    both = width * height
    return both / (sum(areas) - both)


def _each_once(faces: list[Face]) -> list[Face]:
    """Every face once, the surest of those that lie in one place; the largest first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        middle = five_points(face.points).mean(0)
        for other in kept:
            apart = float(torch.linalg.vector_norm(middle - five_points(other.points).mean(0)))
            eyes = eye_distance(torch.stack([face.points, other.points]))
            if apart < SAME_FACE * float(eyes.max()):
                break
        else:
            kept.append(face)
    return sorted(kept, key=lambda face: (-face.side, face.box))
