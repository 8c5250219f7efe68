"""Whole photographs for run_model.py: faces found, cut out upright, and put back. numpy, Pillow and onnxruntime alone.

Lies beside detector-1.onnx to detector-3.onnx and landmarks.onnx. It does what `adapt restore` does
(docs/photographs.md of adapt), in the same order and with the same numbers. Coordinates are in pixels, x before y; 0 is
the outer edge of the first pixel.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom
Pixels = tuple[int, int, int, int]  # the same, in whole ones
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
SAME_BOX, SAME_FACE = 0.4, 0.6  # shares of the union, and of the eye distance: from there on one
CROP, ROUNDS = 256, 3
WORST_MISFIT, ACROSS = 0.25, (0.8, 4.0)
SURE, SURE_AGAIN = 0.95, 0.9
LANDMARKS_AT = 112
DETECTOR_TEMPLATE = np.array([(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)])
AROUND = (0.15, 0.29, 0.85, 0.99)  # of an aligned face: what the landmark network sees
TEMPLATE = np.array([(190.6, 242.5), (315.4, 242.6), (251.7, 317.2), (199.7, 375.2), (308.9, 375.6)])  # of landmarks
FOREHEAD, FEATHER = 0.45, 0.09
MOST_SAMPLES = 32
BAND = 64  # lines that are sampled at once: memory
SIDE, ASIDE, TURNED = (0.8, 1.25), 0.1, 15.0  # how far an aligned face may lie from where it should


@dataclass(frozen=True)
class Placement:
    """Where an aligned crop lies in its photo: a step of one pixel to the right is (a, b) there, its corner (x, y)."""

    a: float
    b: float
    x: float
    y: float

    @property
    def scale(self) -> float:
        return math.hypot(self.a, self.b)

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        return points @ np.array([[self.a, self.b], [-self.b, self.a]]) + np.array([self.x, self.y])

    def inverse(self) -> "Placement":
        square = self.a**2 + self.b**2
        a, b = self.a / square, -self.b / square
        return Placement(a, b, -(a * self.x - b * self.y), -(b * self.x + a * self.y))

    def at(self, size: int) -> "Placement":
        """The same place for a crop of another size than `CROP`."""
        return Placement(self.a * CROP / size, self.b * CROP / size, self.x, self.y)


@dataclass(frozen=True)
class Face:
    """A face: the detector's box and score, 68 points of the photo, and where its crop of `CROP` pixels lies."""

    box: Box
    score: float
    points: np.ndarray
    placement: Placement

    @property
    def side(self) -> float:
        return self.placement.scale * CROP


@dataclass(frozen=True)
class Finder:
    """Finds faces with the detector's three networks and the landmarks."""

    proposal: Session
    refine: Session
    output: Session
    landmarks: Session
    min_face: float = MIN_FACE
    min_score: float = MIN_SCORE

    def find(self, photo: np.ndarray) -> list[Face]:
        """The faces of a photo, (3, H, W) float32 in [0, 1], the largest first."""
        kept: list[Face] = []
        faces = [face for found in self._boxes(photo) if (face := self._face_in(photo, *found)) is not None]
        for face in sorted(faces, key=lambda face: -face.score):
            middle = five_points(face.points).mean(0)
            for other in kept:
                apart = math.dist(middle, five_points(other.points).mean(0))
                if apart < SAME_FACE * max(eye_distance(face.points), eye_distance(other.points)):
                    break
            else:
                kept.append(face)
        return sorted(kept, key=lambda face: (-face.side, face.box))

    def _boxes(self, photo: np.ndarray) -> list[Found]:
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

    def _points(self, photo: np.ndarray, window: Box) -> np.ndarray:
        points = self.landmarks(resized(photo, window, LANDMARKS_AT)[None])[0][0].astype(np.float64)
        return points * (window[2] - window[0]) + np.array(window[:2])

    def _face_in(self, photo: np.ndarray, box: Box, score: float, found: np.ndarray) -> Face | None:
        placement, fit, points = placed(found, DETECTOR_TEMPLATE), math.inf, found
        window: Any = tuple(share * CROP for share in AROUND)
        for _ in range(ROUNDS):
            if placement is None:
                return None
            inner = self._points(cut_out(photo, placement, CROP), window)
            known = TEMPLATE * (CROP / 512)
            fit = np.linalg.norm(five_points(inner) - known, axis=1).mean() / math.dist(known[0], known[1])
            points = placement.to_photo(inner)
            placement = placed(five_points(points), TEMPLATE)
        if placement is None:
            return None
        face, longest = Face(box, score, points, placement), max(box[2] - box[0], box[3] - box[1])
        middle = five_points(points).mean(0)
        outside = not (box[0] <= middle[0] <= box[2] and box[1] <= middle[1] <= box[3])
        if fit > WORST_MISFIT or outside or not ACROSS[0] < face.side / longest < ACROSS[1]:
            return None
        return face if score >= SURE or self._confirmed(photo, placement) else None

    def _confirmed(self, photo: np.ndarray, placement: Placement) -> bool:
        corner = placement.to_photo(np.array([-CROP / 2, -CROP / 2]))
        around = Placement(2 * placement.a, 2 * placement.b, float(corner[0]), float(corner[1]))
        half = CROP / 2
        return any(
            score >= SURE_AGAIN and box[0] < half < box[2] and box[1] < half < box[3]
            for box, score, _ in self.detected(cut_out(photo, around, CROP))
        )


def five_points(points: np.ndarray) -> np.ndarray:
    """Eyes, nose and corners of the mouth, (5, 2)."""
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def eye_distance(points: np.ndarray) -> float:
    return math.dist(points[36:42].mean(0), points[42:48].mean(0))


def shared(a: Box, b: Box) -> float:
    """What two boxes share of their union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - both)


def placed(points: np.ndarray, template: np.ndarray) -> Placement | None:
    """The similarity that brings a template of 512 px nearest to five points; None where they lie in one place."""
    known = template * (CROP / 512)
    middle, known_middle = points.mean(0), known.mean(0)
    u, v = known - known_middle, points - middle
    square = (u**2).sum()
    a, b = float((u * v).sum() / square), float((u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum() / square)
    if math.hypot(a, b) * CROP < 1:
        return None
    x = float(middle[0] - a * known_middle[0] + b * known_middle[1])
    return Placement(a, b, x, float(middle[1] - b * known_middle[0] - a * known_middle[1]))


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


def resized(image: np.ndarray, window: Box, size: int) -> np.ndarray:
    """A window of (C, H, W) as (C, size, size), bilinear, read from each new pixel's corner; outside it is black."""
    rows = _weights(image.shape[1], window[1], window[3], size)
    columns = _weights(image.shape[2], window[0], window[2], size)
    used = [np.flatnonzero(weights.any(0)) for weights in (rows, columns)]
    if not used[0].size or not used[1].size:
        return np.zeros((len(image), size, size), np.float32)
    (top, bottom), (left, right) = ((int(each[0]), int(each[-1]) + 1) for each in used)
    part = image[:, top:bottom, left:right]
    return rows[:, top:bottom].astype(np.float32) @ part @ columns[:, left:right].T.astype(np.float32)


def _weights(length: int, begin: float, end: float, size: int) -> np.ndarray:
    scale = (end - begin) / size
    at = begin + np.arange(size) * scale
    values = np.maximum(1 - np.abs(np.arange(length)[None] - at[:, None]) / max(1.0, scale / 2), 0)
    values /= np.maximum(values.sum(1, keepdims=True), 1e-9)
    values[(at <= -1) | (at >= length)] = 0
    return values


def cut_out(photo: np.ndarray, placement: Placement, size: int) -> np.ndarray:
    """The aligned crop, (3, size, size); what lies outside the photo is mirrored into it."""
    return sampled(photo, placement, (0, 0, size, size), mirrored=True).clip(0, 1)


def sampled(image: np.ndarray, placement: Placement, window: Pixels, *, mirrored: bool) -> np.ndarray:
    """(C, H, W) seen through a similarity, bicubic (Keys, a = -0.75), each new pixel the mean over its own area.

    Outside the image is its mirror, or zeros.
    """
    left, top, right, bottom = window
    samples = min(MOST_SAMPLES, max(1, math.ceil(placement.scale - 1e-6)))
    height, width = image.shape[1:]
    offsets = (np.arange(samples) + 0.5) / samples
    xs = (np.arange(left, right)[:, None] + offsets).ravel()
    total = np.zeros((len(image), bottom - top, right - left), np.float32)
    for begin in range(top, bottom, BAND):
        lines = np.arange(begin, min(begin + BAND, bottom))
        for offset in offsets:
            points = placement.to_photo(np.stack(np.meshgrid(xs, lines + offset), axis=-1)) - 0.5
            columns, at_x = _taps(points[..., 0], width, mirrored)
            rows, at_y = _taps(points[..., 1], height, mirrored)
            read = np.zeros((len(image), *points.shape[:2]), np.float32)
            for row, y in zip(rows, at_y, strict=True):
                read += sum(image[:, row, column] * x for column, x in zip(columns, at_x, strict=True)) * y
            total[:, lines - top] += read.reshape(len(image), len(lines), right - left, samples).mean(-1)
    return total / samples


def _taps(at: np.ndarray, length: int, mirrored: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The four pixels of a line that each place reads, and their weights."""
    first = np.floor(at)
    share, places = at - first, first.astype(np.int64)
    a = -0.75

    def near(t: np.ndarray) -> np.ndarray:
        return ((a + 2) * t - (a + 3)) * t * t + 1

    def far(t: np.ndarray) -> np.ndarray:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a

    weights = [far(share + 1), near(share), near(1 - share), far(2 - share)]
    indices: list[np.ndarray] = []
    for step, weight in zip(range(-1, 3), weights, strict=True):
        index = places + step
        if mirrored:
            index = index % (2 * length)
            index = np.where(index >= length, 2 * length - 1 - index, index)
        else:
            weight[(index < 0) | (index >= length)] = 0
            index = index.clip(0, length - 1)
        indices.append(index)
    return indices, [weight.astype(np.float32) for weight in weights]


def face_mask(points: np.ndarray, size: int) -> np.ndarray:
    """How much of the change each pixel of a crop gets, (size, size): the hull of points and forehead, faded inside."""
    up = (points[17:27].mean(0) - points[8]) * FOREHEAD
    corners = _hull(np.concatenate([points, points[17:27] + up]))
    middles = np.arange(size) + 0.5
    pixels = np.stack(np.meshgrid(middles, middles), axis=-1)
    depth = np.minimum(pixels, size - pixels).min(-1)
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        along, across = end - start, pixels - start
        depth = np.minimum(depth, (along[0] * across[..., 1] - along[1] * across[..., 0]) / np.linalg.norm(along))
    return ((1 - np.cos(math.pi * (depth / (FEATHER * size)).clip(0, 1))) / 2).astype(np.float32)


def _hull(points: np.ndarray) -> np.ndarray:
    ordered = sorted(set(map(tuple, points.tolist())))

    def chain(given: list[Any]) -> list[Any]:
        kept: list[Any] = []
        for x, y in given:
            while len(kept) > 1:
                (x0, y0), (x1, y1) = kept[-2:]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def paste(image: np.ndarray, crop: np.ndarray, restored: np.ndarray, mask: np.ndarray, placement: Placement) -> None:
    """Lay the change of a crop over the photo, in place; its mean colour where the mask fades is taken out of it."""
    change, band = restored - crop, mask * (1 - mask)
    if band.sum() > 0:
        change = change - ((change * band).sum((1, 2)) / band.sum())[:, None, None]
    size, (height, width) = len(mask), image.shape[1:]
    outline = placement.to_photo(np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64))
    left, top = (min(max(0, math.floor(low)), most) for low, most in zip(outline.min(0), (width, height), strict=True))
    right, bottom = (
        max(0, min(most, math.ceil(high))) for high, most in zip(outline.max(0), (width, height), strict=True)
    )
    part = image[:, top:bottom, left:right]
    if part.size:
        layers = np.concatenate([change * mask, mask[None]]).astype(np.float32)
        laid = sampled(layers, placement.inverse(), (left, top, right, bottom), mirrored=False)
        moved = np.where(laid[3:] > 1e-3, laid[:3], 0)
        image[:, top:bottom, left:right] = np.where(moved != 0, (part + moved).clip(0, 1), part)


def is_aligned(faces: list[Face], side: int) -> bool:
    """Whether a square picture is an aligned face: none is found in it, or one that lies as an aligned one does."""
    if len(faces) != 1:
        return not faces
    face = faces[0]
    middle = face.placement.to_photo(np.full(2, CROP / 2))
    turned = abs(math.degrees(math.atan2(face.placement.b, face.placement.a)))
    off = np.abs(middle - side / 2).max()
    return SIDE[0] < face.side / side < SIDE[1] and off < ASIDE * side and turned < TURNED


def restored(
    photo: np.ndarray, faces: list[Face], side: int, model: Callable[[np.ndarray], np.ndarray], own: Image.Image, *,
    grey: bool, colourless: bool,
) -> bytes:
    """A PNG file of a photo with its faces restored in their places.

    Args:
        photo: (3, H, W) in [0, 1], sRGB.
        faces: those that are restored, the largest first.
        side: of the model's faces.
        model: restores one, (3, side, side).
        own: the upright photo, as its file has it.
        grey: the file is, and so is what is written.
        colourless: it has no colour, and gets none.
    """
    after = photo.copy()
    for face in faces:
        place = face.placement.at(side)
        crop = cut_out(photo, place, side)
        crop = mixed(crop) if colourless else crop
        result = model(crop)
        mask = face_mask(place.inverse().to_photo(face.points), side)
        paste(after, crop, mixed(result) if colourless else result, mask, place)
    return png_of(photo, after, own, grey=grey)


def mixed(image: np.ndarray) -> np.ndarray:
    """The mean of the channels, in all three."""
    return np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0)


def png_of(before: np.ndarray, after: np.ndarray, own: Image.Image, *, grey: bool) -> bytes:
    """The photo as a PNG file, with its transparency, EXIF data and resolution, and its profile where none was applied.

    Args:
        before, after: (3, H, W) in [0, 1], sRGB.
        own: the upright photo, as its file has it.
        grey: the file is, and so is what is written.
    """
    values = np.rint(after * 255).astype(np.uint8).transpose(1, 2, 0)
    one = grey and bool((before == before[:1]).all())
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if one else values))
    if "A" in own.getbands() or "transparency" in own.info:
        image.putalpha(own.convert("RGBA").getchannel("A"))
    extra: dict[str, Any] = {}
    plain = np.asarray(own.convert("RGB")).transpose(2, 0, 1)
    if "icc_profile" in own.info and np.array_equal(plain, np.rint(before * 255)):
        extra["icc_profile"] = own.info["icc_profile"]
    exif = own.getexif()
    exif.pop(0x0112, None)  # the orientation: it is upright
    if len(exif):
        extra["exif"] = exif
    dpi = tuple(float(each) for each in own.info.get("dpi", ()))
    if dpi and all(0 < each < 1e6 for each in dpi):
        extra["dpi"] = dpi
    stream = io.BytesIO()
    image.save(stream, "PNG", **extra)
    return stream.getvalue()
