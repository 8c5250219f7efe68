"""Square windows of images brought to the side that a network takes: differentiable, and no image sees another."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adapt.errors import ShapeError
from degradations.constants import kept


class Window(NamedTuple):
    """A rectangle in pixels; 0 is the outer edge of the first pixel. It may reach past the image, which is black."""

    left: float
    top: float
    right: float
    bottom: float


def share_of(side: int, shares: Window) -> Window:
    """A window that is given in shares of a square image's side, in its pixels."""
    return Window(*(share * side for share in shares))


def letterbox(height: int, width: int, *, centred: bool) -> Window:
    """The smallest square around an image: the image in its middle, or in its upper left corner."""
    side = max(height, width)
    left, top = ((side - width) / 2, (side - height) / 2) if centred else (0.0, 0.0)
    return Window(-left, -top, side - left, side - top)


def check_square(faces: Tensor, name: str) -> int:
    """The side of a batch of square images.

    Raises:
        ShapeError: not (B, 3, S, S).
    """
    if faces.ndim != 4 or faces.shape[1] != 3 or faces.shape[2] != faces.shape[3]:
        raise ShapeError(f"{name}: expected square faces of shape (B, 3, S, S), got {tuple(faces.shape)}")
    return faces.shape[-1]


def resized(images: Tensor, window: Window, size: int) -> Tensor:
    """A window of each image as (B, 3, size, size), bilinear, over all pixels where it shrinks.

    A new pixel is read at its own middle. This is Pillow's `resize(box=window, resample=BILINEAR)`.

    Args:
        images: (B, 3, H, W), any range.
        window: the same for all.
        size: side of the result, in pixels.
    """
    return _through(images, window, size, corner=False)


def resized_from_corner(images: Tensor, window: Window, size: int) -> Tensor:
    """As `resized`, but read where the networks of face-api.js were trained to be given it.

    TensorFlow's old `resizeBilinear` reads new pixel i at old pixel i * scale, both counted by whole pixels: up to half
    a pixel of the result further up and left. Two pixels of a line count, whatever the scale.

    Differs: beyond a scale of 2 that would pass pixels over, and all count.
    """
    return _through(images, window, size, corner=True)


def _through(images: Tensor, window: Window, size: int, *, corner: bool) -> Tensor:
    left, top, right, bottom = window
    rows = _weights(images.shape[2], top, bottom, size, corner).to(images)
    columns = _weights(images.shape[3], left, right, size, corner).to(images)
    with torch.autocast(images.device.type, enabled=False):  # a product in bfloat16 would round the image itself
        flat = images.flatten(0, 1)  # batched products: one image's never depend on how many there are
        flat = torch.bmm(rows.expand(len(flat), -1, -1), flat)
        return torch.bmm(flat, columns.T.expand(len(flat), -1, -1)).unflatten(0, images.shape[:2])


@kept(64)
def _weights(length: int, begin: float, end: float, size: int, corner: bool) -> Tensor:
    """What each pixel of a line is worth to each new one, (size, length) float64; new ones outside are of zeros."""
    scale = (end - begin) / size
    index = torch.arange(size, dtype=torch.float64)
    at = begin + index * scale if corner else begin + (index + 0.5) * scale - 0.5  # counted by whole pixels
    stretch = max(1.0, scale / 2 if corner else scale)
    offset = torch.arange(length, dtype=torch.float64)[None, :] - at[:, None]
    values = (1 - offset.abs() / stretch).clamp(min=0)
    outside = (at <= -1) | (at >= length) if corner else (at <= -0.5) | (at >= length - 0.5)
    return torch.where(outside[:, None], 0.0, values / values.sum(1, keepdim=True).clamp(min=1e-9))
