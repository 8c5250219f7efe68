"""Clean faces turned, scaled, recoloured and exposed otherwise: more kinds of pictures of the same people.

For restorers alone, whose result follows the photo that they are given. What draws faces from noise would learn to draw
turned and tinted ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adapt.settings import AugmentationSettings


def augmented(images: Tensor, settings: AugmentationSettings, generator: torch.Generator) -> Tensor:
    """A share of the images changed, each by its own draw; the others as they are.

    Args:
        images: (B, 3, S, S) in [0, 1].
        settings: how many, and by how much.
        generator: of all that is random; not touched where the share is 0.

    Returns:
        (B, 3, S, S) in [0, 1]. What a turned image does not reach is mirrored.
    """
    if not settings.share:
        return images
    chosen = torch.rand(len(images), generator=generator) < settings.share
    turns, scales = (2 * torch.rand(2, len(images), generator=generator) - 1).unbind()
    light = torch.randn(len(images), 4, generator=generator)
    if not bool(chosen.any()):
        return images
    moved = _moved(images[chosen], settings.turn * turns[chosen], torch.exp(settings.scale * scales[chosen]))
    gamma = torch.exp(settings.exposure * light[chosen, :1])[:, :, None, None]
    gains = torch.exp(settings.colour * light[chosen, 1:])[:, :, None, None]
    changed = images.clone()
    changed[chosen] = (gains * moved.clamp(0, 1) ** gamma).clamp(0, 1)
    return changed


def _moved(images: Tensor, degrees: Tensor, scales: Tensor) -> Tensor:
    """Images turned against the clock about their middle, and enlarged; bicubic."""
    from kornia.geometry.transform import warp_affine

    height, width = images.shape[-2:]
    radians = degrees * math.pi / 180
    cos, sin = scales * radians.cos(), scales * radians.sin()
    x, y = (width - 1) / 2, (height - 1) / 2
    rows = [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3).to(images)
    return warp_affine(images, matrix, (height, width), mode="bicubic", padding_mode="reflection", align_corners=True)
