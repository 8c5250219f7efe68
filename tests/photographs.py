"""Whole photographs for tests: faces of nobody, laid into a plain picture at places that are known."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from adapt.faces.align import Placement, sampled
from adapt.faces.crops import Window
from adapt.loading import KNOWN
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos

SIDE = 128  # of the faces


def some_faces(count: int) -> list[Tensor]:
    """Aligned faces that ship with the demo, (3, 128, 128)."""
    return [read_image(photo.path) for photo in find_photos(KNOWN)[:count]]


def at(x: float, y: float, length: float, turn: float = 0.0) -> Placement:
    """A face's crop of `length` pixels around a point of the photo, turned clockwise by degrees."""
    a = length / SIDE * math.cos(math.radians(turn))
    b = length / SIDE * math.sin(math.radians(turn))
    return Placement(a, b, x - (a - b) * SIDE / 2, y - (b + a) * SIDE / 2)


def photograph(height: int, width: int, laid: list[tuple[Tensor, Placement]]) -> Tensor:
    """A photo, (3, height, width): a soft ramp, and faces whose edges fade into it."""
    ramp = torch.linspace(0.3, 0.6, width).expand(height, width)
    photo = torch.stack([ramp, 0.9 - ramp, ramp * 0.8 + 0.1])
    edge = (torch.minimum(torch.arange(SIDE) + 0.5, SIDE - torch.arange(SIDE) - 0.5) / 8).clamp(0, 1)
    mask = edge[None, :] * edge[:, None]
    for face, place in laid:
        layers = sampled(
            torch.cat([face * mask, mask[None]]), place.inverse(), Window(0, 0, width, height), outside="zeros"
        )
        photo = (photo * (1 - layers[3:]) + layers[:3]).clamp(0, 1)
    return photo


def write(path: Path, photo: Tensor) -> Path:
    """The photo as a PNG file, 8 bits."""
    from adapt.photos.files import write_image

    write_image(path, photo)
    return path
