"""A face cut out of a photo upright, as FFHQ's are, and the way back: similarities, and images sampled through them.

Coordinates are in pixels, x before y, and 0 is the outer edge of the first pixel, so that the middle of pixel i is at
i + 0.5. Template: FFHQ in the layout of facexlib, 512 px; its five points are the middles of both eyes, the tip of the
nose and the corners of the mouth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.errors import ShapeError
from adapt.faces.crops import Window
from adapt.faces.landmarks import LEFT_EYE, RIGHT_EYE

TEMPLATE_SIDE: Final = 512
TEMPLATE: Final = (  # as facexlib has them: for a detector that gives these points
    (192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15),
)  # fmt: skip
OWN_TEMPLATE: Final = (  # where the pack's landmark network puts them on faces aligned so: means of 120 training faces
    (190.6, 242.5), (315.4, 242.6), (251.7, 317.2), (199.7, 375.2), (308.9, 375.6),
)  # fmt: skip
NOSE_TIP, RIGHT_MOUTH, LEFT_MOUTH = 30, 48, 54
MOST_SAMPLES: Final = 32  # along a pixel


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an aligned face lies in its photo: a similarity from the crop's pixels to the photo's.

    Attributes:
        a, b: the photo moves by (a, b) where the crop moves by a pixel to the right: scale times cosine, and sine.
        x, y: where the crop's upper left corner lies in the photo.
    """

    a: float
    b: float
    x: float
    y: float

    @property
    def scale(self) -> float:
        """Pixels of the photo along a pixel of the crop: above 1 the crop is a reduction."""
        return math.hypot(self.a, self.b)

    @property
    def angle(self) -> float:
        """By how many degrees the face is turned in the photo, clockwise."""
        return math.degrees(math.atan2(self.b, self.a))

    def to_photo(self, points: Tensor) -> Tensor:
        """Points (..., 2) of the crop in the photo."""
        matrix = points.new_tensor([[self.a, self.b], [-self.b, self.a]])
        return points @ matrix + points.new_tensor([self.x, self.y])

    def inverse(self) -> Placement:
        """The photo in the crop: its `to_photo` goes from the photo to the crop."""
        square = self.a * self.a + self.b * self.b
        a, b = self.a / square, -self.b / square
        return Placement(a, b, -(a * self.x - b * self.y), -(b * self.x + a * self.y))

    def outline(self, size: int) -> Tensor:
        """The crop's four corners in the photo, (4, 2), clockwise from the upper left."""
        corners = torch.tensor([[0, 0], [size, 0], [size, size], [0, size]], dtype=torch.float64)
        return self.to_photo(corners)


def five_points(points: Tensor) -> Tensor:
    """Eyes, nose and corners of the mouth, (..., 5, 2), of 68 points (..., 68, 2)."""
    eyes = [points[..., RIGHT_EYE, :].mean(-2), points[..., LEFT_EYE, :].mean(-2)]
    return torch.stack([*eyes, *(points[..., index, :] for index in (NOSE_TIP, RIGHT_MOUTH, LEFT_MOUTH))], dim=-2)


def template(size: int, *, own: bool) -> Tensor:
    """The five points of an aligned face of `size` pixels, (5, 2) float64; own: as the landmark network puts them."""
    return torch.tensor(OWN_TEMPLATE if own else TEMPLATE, dtype=torch.float64) * (size / TEMPLATE_SIDE)


def placed(points: Tensor, size: int, *, own: bool = True) -> Placement:
    """The similarity under which an aligned face's points come nearest to those found in a photo, by least squares.

    Args:
        points: (5, 2), in pixels of the photo.
        size: side of the crop.
        own: the points are the landmark network's (`five_points`); otherwise a detector's.

    Raises:
        ShapeError: not five points, or all in one place.
    """
    if points.shape != (5, 2):
        raise ShapeError(f"alignment: expected five points of shape (5, 2), got {tuple(points.shape)}")
    found, known = points.double().cpu(), template(size, own=own)
    middle, known_middle = found.mean(0), known.mean(0)
    u, v = known - known_middle, found - middle
    # v = (a + ib) u in complex numbers: the least squares of a similarity without mirroring (Umeyama 1991) are linear.
    square = float(u.square().sum())
    a, b = float((u * v).sum()) / square, float((u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum()) / square
    if math.hypot(a, b) * size < 1:
        raise ShapeError("alignment: the five points lie in one place")
    x = float(middle[0]) - a * float(known_middle[0]) + b * float(known_middle[1])
    y = float(middle[1]) - b * float(known_middle[0]) - a * float(known_middle[1])
    return Placement(a, b, x, y)


def misfit(points: Tensor, size: int) -> float:
    """How far five points (5, 2) of the landmark network in a crop lie from where an aligned face has them, on average,
    in shares of the eye distance of the template."""
    known = template(size, own=True)
    eyes = float(torch.linalg.vector_norm(known[1] - known[0]))
    return float(torch.linalg.vector_norm(points.double().cpu() - known, dim=-1).mean()) / eyes


def cut_out(photo: Tensor, placement: Placement, size: int) -> Tensor:
    """The aligned crop, (3, size, size), of a photo (3, H, W) in [0, 1], by one resampling.

    What lies outside the photo is mirrored into it, as FFHQ's crops have it.
    """
    return sampled(photo, placement, Window(0, 0, size, size), outside="reflection").clamp(0, 1)


def sampled(image: Tensor, placement: Placement, window: Window, *, outside: str) -> Tensor:
    """An image (C, H, W) seen through a similarity, bicubic; each new pixel is the mean over its own area.

    Args:
        image: what is read.
        placement: from the new pixels to those of `image`.
        window: of the new image's pixels, whole numbers.
        outside: what is read beyond the image: `reflection`, `border` or `zeros`.

    Returns:
        (C, window's height, window's width), not clamped: bicubic interpolation overshoots.
    """
    left, top, right, bottom = (int(edge) for edge in window)
    samples = min(MOST_SAMPLES, max(1, math.ceil(placement.scale - 1e-6)))
    height, width = image.shape[1:]
    offsets = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
    xs = (torch.arange(left, right, dtype=torch.float64)[:, None] + offsets).flatten()
    total = torch.zeros((image.shape[0], bottom - top, right - left), dtype=image.dtype, device=image.device)
    sides = torch.tensor([width, height], dtype=torch.float64)
    for offset in offsets.tolist():
        ys = torch.arange(top, bottom, dtype=torch.float64) + offset
        points = placement.to_photo(torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1))
        grid = (2 * points / sides - 1).to(image)[None]
        read = F.grid_sample(image[None], grid, mode="bicubic", padding_mode=outside, align_corners=False)[0]
        total += read.unflatten(-1, (right - left, samples)).mean(-1)
    return total / samples
