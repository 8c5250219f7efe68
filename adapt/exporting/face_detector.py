"""Where faces are in a photo, for run_model.py: the detector's three networks, in numpy alone.

Lies beside detector-1.onnx to detector-3.onnx. It does what `adapt.faces.find` and `adapt.faces.mtcnn` of adapt do, in
the same order and with the same numbers. Coordinates are in pixels, x before y; 0 is the outer edge of the first pixel.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom
Found = tuple[Box, float, np.ndarray]  # a face's box, score and five points
Session = Callable[[np.ndarray], list[np.ndarray]]

MIN_FACE, MIN_SCORE = 24.0, 0.85
CELL, STRIDE, SMALLEST, FACTOR = 12, 2, 20.0, 0.709  # of the detector's first network, and its pyramid
SIDES, PROPOSED, REFINED = (24, 48), 0.6, 0.7  # of the second and third network; scores from which a window goes on
SCORE_STEPS = 1_000  # that scores are rounded to: last bits must not decide
ROUNDED = 0.01  # pixels by which an edge may reach into the next one
SAME_AT_ONE_SIZE, SAME, INSIDE = 0.5, 0.7, 0.7  # shares of the union, and of the smaller face: from there on one
MORE = 1e-3  # by which a share must be larger: no last bit decides where two windows share just a half
SEEN_AT, SMALLEST_SEEN, OVERLAP = 512, 24, 0.3  # a detector's view, the least face in it, and what views share
SAME_BOX = 0.4  # share of the union from which two boxes are of one face


@dataclass(frozen=True)
class Detector:
    """Finds what may be faces, with its three networks."""

    proposal: Session
    refine: Session
    output: Session
    min_face: float = MIN_FACE
    min_score: float = MIN_SCORE

    def find(self, photo: np.ndarray) -> list[Found]:
        """What may be faces of a photo, (3, H, W) float32 in [0, 1], the surest first: each seen once."""
        height, width = photo.shape[1:]
        found: list[Found] = []
        for view, (left, top, right, bottom) in views(photo, self.min_face):
            rows, columns = view.shape[1:]
            scale = (right - left) / columns
            for (x0, y0, x1, y1), score, points in self.detected(view):
                cut = (
                    (x0 <= 1 and left > 0) or (y0 <= 1 and top > 0)
                    or (x1 >= columns - 1 and right < width) or (y1 >= rows - 1 and bottom < height)
                )  # fmt: skip
                box = (x0 * scale + left, y0 * scale + top, x1 * scale + left, y1 * scale + top)
                if score >= self.min_score and not cut and max(box[2] - box[0], box[3] - box[1]) >= self.min_face:
                    found.append((box, score, points * scale + np.array([left, top])))
        kept: list[Found] = []
        for each in sorted(found, key=lambda each: -each[1]):
            if all(shared(each[0], other[0]) < SAME_BOX for other in kept):
                kept.append(each)
        return kept

    def detected(self, view: np.ndarray) -> list[Found]:
        """The faces of one view, the surest first, each with its five points."""
        windows = self._proposed(view)
        if len(windows):
            offsets, scores = self.refine(looked_at(view, windows, SIDES[0]))
            sure = scores > REFINED
            windows, offsets, scores = windows[sure], offsets[sure], scores[sure]
            kept = each_once(windows, scores, SAME)
            windows = squared(moved(windows[kept], offsets[kept]))
        if not len(windows):
            return []
        offsets, scores, points = self.output(looked_at(view, windows, SIDES[1]))
        sure = scores > self.min_score
        windows, offsets, scores, points = windows[sure], offsets[sure], scores[sure], points[sure]
        points = windows[:, None, :2] + points * (windows[:, None, 2:] - windows[:, None, :2])
        windows = moved(windows, offsets)
        limits = np.array([view.shape[2], view.shape[1]] * 2)
        found: list[Found] = []
        for index in each_once(windows, scores, INSIDE, of_smaller=True):
            x0, y0, x1, y1 = (float(edge) for edge in np.minimum(np.maximum(windows[index], 0), limits))
            if x0 < x1 and y0 < y1:
                score = float(np.rint(scores[index] * SCORE_STEPS)) / SCORE_STEPS
                found.append(((x0, y0, x1, y1), score, points[index].astype(np.float64)))
        return found

    def _proposed(self, view: np.ndarray) -> np.ndarray:
        height, width = view.shape[1:]
        windows: list[np.ndarray] = [np.zeros((0, 8))]
        scores: list[np.ndarray] = [np.zeros(0)]
        scale = CELL / SMALLEST
        while min(height, width) * scale >= CELL:
            rows, columns = math.ceil(height * scale), math.ceil(width * scale)
            offsets, sure = (each[0] for each in self.proposal(averaged(view, rows, columns)[None]))
            at = np.stack(np.nonzero(sure >= PROPOSED)[::-1], axis=1)
            corner, step = (STRIDE * at).astype(np.float64), np.array([width / columns, height / rows])
            own = np.concatenate([corner * step, (corner + CELL) * step, offsets[:, at[:, 1], at[:, 0]].T], axis=1)
            kept = each_once(own[:, :4], sure[at[:, 1], at[:, 0]], SAME_AT_ONE_SIZE)
            windows.append(own[kept])
            scores.append(sure[at[:, 1], at[:, 0]][kept])
            scale *= FACTOR
        every = np.concatenate(windows)
        every = every[each_once(every[:, :4], np.concatenate(scores), SAME)]
        return squared(moved(every[:, :4], every[:, 4:]))


def shared(a: Box, b: Box) -> float:
    """What two boxes share of their union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - both)


def views(photo: np.ndarray, min_face: float) -> Iterator[tuple[np.ndarray, Box]]:
    """The whole photo, then ever smaller tiles of it, each brought down to `SEEN_AT`, with their windows."""
    height, width = photo.shape[1:]
    side = max(height, width)
    while True:
        for top in _places(height, side):
            for left in _places(width, side):
                right, bottom = min(left + side, width), min(top + side, height)
                yield _reduced(photo[:, top:bottom, left:right]), (left, top, right, bottom)
        if side <= SEEN_AT * min_face / SMALLEST_SEEN or side <= SEEN_AT:
            return
        side = max(SEEN_AT, math.ceil(side / 2))


def _places(length: int, side: int) -> list[int]:
    if side >= length:
        return [0]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _reduced(view: np.ndarray) -> np.ndarray:
    height, width = view.shape[1:]
    scale = SEEN_AT / max(height, width)
    return view if scale >= 1 else averaged(view, max(1, round(height * scale)), max(1, round(width * scale)))


def averaged(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, H, W) at another size, every new pixel the mean over those that it touches."""
    for axis, size in ((1, height), (2, width)):
        length = image.shape[axis]
        begin = np.arange(size) * length // size
        end = -(-(np.arange(size) + 1) * length // size)
        sums = np.concatenate([np.zeros_like(image.take([0], axis), np.float64), image.cumsum(axis, np.float64)], axis)
        counts = (end - begin).reshape([-1 if each == axis else 1 for each in range(3)])
        image = ((sums.take(end, axis) - sums.take(begin, axis)) / counts).astype(np.float32)
    return image


def looked_at(view: np.ndarray, windows: np.ndarray, side: int) -> np.ndarray:
    """Windows of a view at a side, (N, 3, side, side), black outside."""
    height, width = view.shape[1:]
    seen = np.zeros((len(windows), 3, side, side), np.float32)
    for own, (left, top, right, bottom) in zip(seen, windows, strict=True):
        x0, y0 = math.floor(left + ROUNDED), math.floor(top + ROUNDED)
        x1, y1 = math.ceil(right - ROUNDED), math.ceil(bottom - ROUNDED)
        part = view[:, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        if part.size:
            missing = ((0, 0), (max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)))
            own[:] = averaged(np.pad(part, missing), side, side)
    return seen


def moved(windows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Windows (N, 4) whose edges move by shares of their sides."""
    return windows + offsets * np.tile(windows[:, 2:] - windows[:, :2], 2)


def squared(windows: np.ndarray) -> np.ndarray:
    """The squares around the same middles, of the longer sides."""
    middle = (windows[:, :2] + windows[:, 2:]) / 2
    half = (windows[:, 2:] - windows[:, :2]).max(1, initial=0, keepdims=True) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def each_once(windows: np.ndarray, scores: np.ndarray, most: float, *, of_smaller: bool = False) -> list[int]:
    """Which windows stay, the surest first: none that shares more with a surer one, of the union or of the smaller."""
    kept: list[int] = []
    left = np.argsort(-np.rint(scores * SCORE_STEPS), kind="stable")  # last bits must not decide
    areas = np.maximum(windows[:, 2:] - windows[:, :2], 0).prod(1)
    while len(left):
        first, left = int(left[0]), left[1:]
        kept.append(first)
        sides = np.minimum(windows[left, 2:], windows[first, 2:]) - np.maximum(windows[left, :2], windows[first, :2])
        both = np.maximum(sides, 0).prod(1)
        whole = np.minimum(areas[left], areas[first]) if of_smaller else areas[left] + areas[first] - both
        left = left[both <= (most + MORE) * np.maximum(whole, 1e-9)]
    return kept
