"""Distortions whose order of severity is known by construction: what the perceptual network learns to rank.

Every distortion takes images (B, 3, H, W) in [0, 1], strengths (B,) in [0, 1] and a field of standard normal numbers
(B, 3, H, W) that supplies all its randomness: with the same field, more strength is more of the same damage.
It returns images in [0, 1]. Lengths are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from degradations import jpeg as codec
from degradations.constants import kept

Distortion = Callable[[Tensor, Tensor, Tensor], Tensor]


@kept(8)
def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II matrix (size, size): row k is the cosine of k half-periods. Its borders are mirrors."""
    k = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (k + 0.5) * k[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def _filtered(image: Tensor, response: Callable[[Tensor], Tensor]) -> Tensor:
    """The image filtered along both axes.

    `response` takes frequencies (1, N) in cycles per pixel (0 to 0.5) and gives the gain (B, N) of each image.
    """
    for axis in (2, 3):
        matrix = _cosines(image.shape[axis]).to(image)
        frequencies = torch.arange(image.shape[axis], device=image.device)[None] / (2 * image.shape[axis])
        filters = matrix.T @ (response(frequencies)[:, :, None] * matrix)  # (B, N, N)
        filters = filters[:, None].to(image.dtype)
        image = filters @ image if axis == 2 else image @ filters.transpose(-1, -2)
    return image


def gaussian(image: Tensor, std: Tensor) -> Tensor:
    """Blurred with a Gaussian of `std` (B,) pixels, exactly, with mirrored borders."""
    return _filtered(image, lambda f: torch.exp(-2 * (math.pi * f * std[:, None]) ** 2))


def blur(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Gaussian blur, std 0.4 to 5."""
    del field
    return gaussian(image, _geometric(0.4, 5.0, strength)).clamp(0, 1)


def noise(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """White Gaussian noise, std 3 to 50 on the scale of 255."""
    return (image + _geometric(3.0, 50.0, strength)[:, None, None, None] / 255 * field).clamp(0, 1)


def coarse_noise(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Grain: noise of a correlation of 1 pixel, std 3 to 50 on the scale of 255."""
    grain = gaussian(field, torch.ones_like(strength))
    grain = grain / grain.std(dim=(1, 2, 3), keepdim=True)
    return noise(image, strength, grain)


def jpeg(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """JPEG, quality 92 to 5."""
    del field
    return codec.jpeg(image, _geometric(92.0, 5.0, strength).round().int().tolist())


def downscale(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Made smaller by 1.3 to 10 (antialiased), and back to its size (bilinear)."""
    del field
    return resampled(image, _geometric(1.3, 10.0, strength).tolist())


def ringing(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """An ideal low-pass, whose cut falls from 0.4 to 0.06 cycles per pixel: edges get echoes."""
    del field
    cut = _geometric(0.4, 0.06, strength)[:, None]
    # The edge of the pass band is one frequency wide, so that the damage grows steadily with the strength.
    return _filtered(image, lambda f: ((cut - f) * 2 * f.shape[1] + 0.5).clamp(0, 1)).clamp(0, 1)


def smoothing(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Texture taken away and edges kept: a self-guided filter of 5x5 pixels (He et al. 2010), edge 0.01 to 0.3."""
    del field

    def box(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, stride=1)

    mean = box(image)
    variance = (box(image.square()) - mean.square()).clamp_min(0)
    gain = variance / (variance + _geometric(0.01, 0.3, strength)[:, None, None, None].square())
    return (box(gain) * image + box((1 - gain) * mean)).clamp(0, 1)


def oversharpening(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Unsharp mask of std 1.5, amount 0.3 to 5."""
    del field
    detail = image - gaussian(image, torch.full_like(strength, 1.5))
    return (image + _geometric(0.3, 5.0, strength)[:, None, None, None] * detail).clamp(0, 1)


def warp(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Bent by a smooth random displacement (correlated over 6 pixels) of std 0.3 to 4 pixels."""
    offsets = gaussian(field[:, :2], torch.full_like(strength, 6.0))
    offsets = offsets / offsets.std(dim=(1, 2, 3), keepdim=True) * _geometric(0.3, 4.0, strength)[:, None, None, None]
    height, width = image.shape[2:]
    identity = torch.eye(2, 3).expand(len(image), 2, 3).to(image)
    grid = F.affine_grid(identity, list(image.shape), align_corners=False)
    to_grid = torch.tensor([2 / width, 2 / height]).to(image)
    grid = grid + offsets.permute(0, 2, 3, 1) * to_grid
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)


def cast(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """A colour cast of random hue, 0.02 to 0.3."""
    hue = F.normalize(field.mean(dim=(2, 3)), dim=1)[:, :, None, None]
    return (image + _geometric(0.02, 0.3, strength)[:, None, None, None] * hue).clamp(0, 1)


def chain(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Blur, downscale, noise and JPEG one after the other, each at two thirds of the strength."""
    part = strength * 2 / 3
    return jpeg(noise(downscale(blur(image, part, field), part, field), part, field), part, field)


DISTORTIONS: Final[dict[str, Distortion]] = {
    "blur": blur,
    "noise": noise,
    "coarse_noise": coarse_noise,
    "jpeg": jpeg,
    "downscale": downscale,
    "ringing": ringing,
    "smoothing": smoothing,
    "oversharpening": oversharpening,
    "warp": warp,
    "cast": cast,
    "chain": chain,
}


def shift(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Moved by one pixel in one of eight directions, borders repeated; there is no weaker shift."""
    del strength
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    height, width = image.shape[2:]
    moved: list[Tensor] = []
    for one, numbers in zip(padded, field[:, :, 0, 0].tolist(), strict=True):
        dy, dx = (0 if abs(v) < 0.43 else int(math.copysign(1, v)) for v in numbers[:2])
        if (dy, dx) == (0, 0):
            dx = 1
        moved.append(one[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width])
    return torch.stack(moved)


def brightness(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Everything lighter or darker, by 0.02 to 0.08."""
    sign = torch.sign(field[:, :1, :1, :1])
    return (image + sign * _geometric(0.02, 0.08, strength)[:, None, None, None]).clamp(0, 1)


def contrast(image: Tensor, strength: Tensor, field: Tensor) -> Tensor:
    """Distance from the mean colour changed by 5 to 20 per cent."""
    gain = 1 + torch.sign(field[:, :1, :1, :1]) * _geometric(0.05, 0.2, strength)[:, None, None, None]
    mean = image.mean(dim=(2, 3), keepdim=True)
    return (mean + gain * (image - mean)).clamp(0, 1)


# What the eye forgives, and what it does not, at the same mean squared error: Wang and Bovik 2009, "Mean squared
# error: love it or leave it?". Slight shifts and changes of light leave the structure as it was.
FORGIVEN: Final[dict[str, Distortion]] = {"shift": shift, "brightness": brightness, "contrast": contrast}
RESENTED: Final = ("blur", "noise", "jpeg", "ringing", "smoothing", "downscale")


class Triplets(NamedTuple):
    """References and two distorted versions of each, (B, 3, H, W) in [0, 1]; `worse` is the more distorted one."""

    reference: Tensor
    better: Tensor
    worse: Tensor


def by_severity(images: Tensor, kind: str, draw: torch.Generator) -> Triplets:
    """Two strengths of one distortion, at least 0.08 apart on its scale."""
    count = len(images)
    low, gap = torch.rand(2, count, generator=draw)
    weak = low * 0.9
    strong = weak + 0.08 + gap * (0.92 - weak)
    field = torch.randn(images.shape, generator=draw)
    distort = DISTORTIONS[kind]
    return Triplets(images, distort(images, weak, field), distort(images, strong, field))


def at_equal_error(images: Tensor, forgiven: str, resented: str, *, draw: torch.Generator) -> Triplets:
    """A distortion the eye forgives against one it resents, both of the same mean squared error.

    The second one is a strong distortion, faded until the errors agree: pairs that would need an even stronger one
    are left out, so fewer triplets than images may come back.
    """
    field = torch.randn(images.shape, generator=draw)
    strength = torch.rand(len(images), generator=draw)
    better = FORGIVEN[forgiven](images, strength, field)
    full = DISTORTIONS[resented](images, 0.5 + 0.5 * torch.rand(len(images), generator=draw), field)
    error = (better - images).square().mean(dim=(1, 2, 3))
    fade = (error / (full - images).square().mean(dim=(1, 2, 3)).clamp_min(1e-12)).sqrt()
    keep = fade <= 1
    worse = images + fade.clamp(max=1)[:, None, None, None] * (full - images)
    return Triplets(images[keep], better[keep], worse[keep])


def resampled(image: Tensor, factors: list[float]) -> Tensor:
    """Each image made smaller by its own factor (antialiased bilinear), and back to its size (bilinear)."""
    height, width = image.shape[2:]
    made: list[Tensor] = []
    for one, factor in zip(image.split(1), factors, strict=True):
        small = (max(2, round(height / factor)), max(2, round(width / factor)))
        one = F.interpolate(one, small, mode="bilinear", antialias=True, align_corners=False)
        made.append(F.interpolate(one, (height, width), mode="bilinear", align_corners=False))
    return torch.cat(made).clamp(0, 1)


def _geometric(first: float, last: float, strength: Tensor) -> Tensor:
    """From `first` at strength 0 to `last` at 1, in equal ratios."""
    return first * torch.pow(torch.full_like(strength, last / first), strength)
