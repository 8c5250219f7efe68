"""Whole photographs for run_model.py: faces found, cut out upright, and put back. numpy, Pillow and onnxruntime alone.

Lies beside face_detector.py, which says where to look, and landmarks.onnx. It does what `adapt restore` does
(docs/photographs.md of adapt), in the same order and with the same numbers. Coordinates are in pixels, x before y; 0 is
the outer edge of the first pixel.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom
Pixels = tuple[int, int, int, int]  # the same, in whole ones
Session = Callable[[np.ndarray], list[np.ndarray]]

SAME_FACE = 0.6  # of the eye distance: faces whose middles are nearer are one
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
    """Finds faces with a detector, as face_detector.py has one, and the landmarks."""

    detector: Any
    landmarks: Session

    def find(self, photo: np.ndarray) -> list[Face]:
        """The faces of a photo, (3, H, W) float32 in [0, 1], the largest first."""
        kept: list[Face] = []
        faces = [face for found in self.detector.find(photo) if (face := self._face_in(photo, *found)) is not None]
        for face in sorted(faces, key=lambda face: -face.score):
            middle = five_points(face.points).mean(0)
            for other in kept:
                apart = math.dist(middle, five_points(other.points).mean(0))
                if apart < SAME_FACE * max(eye_distance(face.points), eye_distance(other.points)):
                    break
            else:
                kept.append(face)
        return sorted(kept, key=lambda face: (-face.side, face.box))

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
            for box, score, _ in self.detector.detected(cut_out(photo, around, CROP))
        )


def five_points(points: np.ndarray) -> np.ndarray:
    """Eyes, nose and corners of the mouth, (5, 2)."""
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def eye_distance(points: np.ndarray) -> float:
    return math.dist(points[36:42].mean(0), points[42:48].mean(0))


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
