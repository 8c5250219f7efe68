"""What hot air does to an image from far away: it tilts light this way and that, and blurs what arrives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from degradations.camera.steps import to_linear, to_tone
from degradations.fields import smooth_field
from degradations.filters import check_one
from degradations.kernels import gaussian_blur


def turbulent(
    image: Tensor, seed: int, *, tilt: float, length: float, blur: tuple[float, float], shake: tuple[float, float]
) -> Tensor:
    """One frame through turbulent air: (3, H, W) in [0, 1].

    Tilted first and blurred after, in linear light. The tilt is a smooth field of shifts; the blur a Gaussian that is
    wider in some patches than in others.

    Args:
        image: (3, H, W) in [0, 1].
        seed: of the fields.
        tilt: standard deviation of the shift in pixels, along each axis.
        length: over which neighbouring shifts stay alike, in pixels (see `smooth_field`).
        blur: standard deviation of the Gaussian in the calmest and in the most troubled patches, pixels.
        shake: shift of the whole image in pixels, down and to the right.

    Source: Chan 2022 (arXiv:2207.06377): tilt, then blur, is the right order. Differs: the shifts are Gaussian-
    correlated, not Kolmogorov's, and the blur is no random phase's.
    """
    check_one(image, "turbulence")
    height, width = image.shape[1:]
    fields = smooth_field((height, width), length, seed, count=3)
    down = fields[0] * tilt + shake[0]
    right = fields[1] * tilt + shake[1]
    light = warped(to_linear(image, "srgb"), down.to(image), right.to(image))
    calm = gaussian_blur(light, blur[0], blur[0], 0.0)
    troubled = gaussian_blur(light, blur[1], blur[1], 0.0)
    share = (0.5 + 0.5 * fields[2]).clamp(0, 1).to(image)
    return to_tone(torch.lerp(calm, troubled, share).clamp(0, 1), "srgb")


def warped(image: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each pixel taken from where the light comes from: (y + down, x + right), bilinear, borders mirrored.

    Args:
        image: (3, H, W).
        down, right: (H, W) in pixels.
    """
    height, width = image.shape[1:]
    y = torch.arange(height, device=image.device, dtype=image.dtype)[:, None] + down
    x = torch.arange(width, device=image.device, dtype=image.dtype)[None, :] + right
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return functional.grid_sample(
        image[None], grid[None], mode="bilinear", padding_mode="reflection", align_corners=False
    )[0]
