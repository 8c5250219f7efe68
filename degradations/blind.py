"""The blind degradation on which face restorers are trained: blur, shrink, noise, JPEG, and back to size.

Source: DT-BFR Eq. (9)/(11), DynFaceRestore Eq. (16); order of the steps, ranges and rounding as in the public
pipeline. Differs: the parameters of an image are drawn first and the noise field after them, from one generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from degradations.filters import (
    blur_and_resize,
    check_batch,
    check_one,
    gaussian_kernel,
    resize_linear,
)
from degradations.jpeg import jpeg
from degradations.noise import gaussian
from degradations.pieces.base import PUBLISHED_SIZE, shrinking


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindRanges:
    """What the parameters of the blind degradation are drawn from. The defaults are those of SwinIR's pre-training.

    blur_std: standard deviations of the blur in pixels, uniform.
    downsample: by how much both sides shrink, uniform; under 1 they grow.
    noise: standard deviation of the noise on the scale of 255, uniform.
    jpeg: quality, uniform, cut to a whole number.
    isotropic: share of kernels that are round; the others have two stds and an angle uniform in [-pi, pi].
    grey: share of images turned grey, with their ground truth.
    kernel_size: side of the blur kernel in pixels, odd.

    Raises:
        ValueError: a range that is empty, or a number outside what it means.
    """

    blur_std: tuple[float, float] = (0.1, 15.0)
    downsample: tuple[float, float] = (0.8, 32.0)
    noise: tuple[float, float] = (0.0, 20.0)
    jpeg: tuple[int, int] = (30, 100)
    isotropic: float = 0.5
    grey: float = 0.01
    kernel_size: int = 41

    def __post_init__(self) -> None:
        _check_range("blur_std", self.blur_std, above=0.0)
        _check_range("downsample", self.downsample, above=0.0)
        _check_range("noise", self.noise, least=0.0)
        _check_range("jpeg", self.jpeg, least=1, most=100)
        _check_range("isotropic", (self.isotropic, self.isotropic), least=0.0, most=1.0)
        _check_range("grey", (self.grey, self.grey), least=0.0, most=1.0)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"blind degradation: kernel_size must be odd and positive, got {self.kernel_size}")

    def scaled(self, size: int) -> BlindRanges:
        """The same damage for images of `size` pixels: lengths shrink by size / 512, and never grow.

        Both ends of blur_std and of downsample are scaled, but what shrinks never comes to enlarge. The kernel keeps
        its size: at 512 pixels 41 taps cut a std of 15 at 1.3 std, in smaller images the Gaussian is whole.
        """
        if size < 1:
            raise ValueError(f"blind degradation: expected an image size of at least 1 pixel, got {size}")
        factor = min(1.0, size / PUBLISHED_SIZE)
        return replace(
            self,
            blur_std=(self.blur_std[0] * factor, self.blur_std[1] * factor),
            downsample=shrinking(self.downsample, factor),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindParameters:
    """One image's damage; units as in `BlindRanges`. `grey` is for the ground truth as well: see `to_grey`."""

    std_x: float
    std_y: float
    angle: float
    downsample: float
    noise: float
    jpeg: int
    grey: bool = False
    kernel_size: int = 41


def draw_blind(ranges: BlindRanges, generator: torch.Generator) -> BlindParameters:
    """One image's parameters, from its own generator. Always eight draws, whatever the parameters turn out to be."""
    draws: list[float] = torch.rand(8, generator=generator, device=generator.device, dtype=torch.float64).tolist()
    round_kernel = draws[0] < ranges.isotropic
    std_x = _within(ranges.blur_std, draws[1])
    return BlindParameters(
        std_x=std_x,
        std_y=std_x if round_kernel else _within(ranges.blur_std, draws[2]),
        angle=0.0 if round_kernel else _within((-math.pi, math.pi), draws[3]),
        downsample=_within(ranges.downsample, draws[4]),
        noise=_within(ranges.noise, draws[5]),
        jpeg=int(_within(ranges.jpeg, draws[6])),
        grey=draws[7] < ranges.grey,
        kernel_size=ranges.kernel_size,
    )


def degrade_blind(image: Tensor, parameters: BlindParameters, noise: torch.Generator | Tensor) -> Tensor:
    """One damaged image: (3, H, W) in [0, 1], whole 255ths.

    Args:
        image: (3, H, W) in [0, 1].
        parameters: from `draw_blind`.
        noise: the image's generator, or the N(0, 1) field itself, (3, h, w) with the sides of `shrunk_size`.

    Raises:
        ValueError: another shape, or a downsample that leaves nothing of the image.
    """
    check_one(image, "blind degradation")
    height, width = shrunk_size((image.shape[1], image.shape[2]), parameters.downsample)
    kernel = gaussian_kernel(parameters.std_x, parameters.std_y, parameters.angle, size=parameters.kernel_size)
    small = blur_and_resize(image, kernel, (height, width))
    small = gaussian(small, parameters.noise / 255, noise)
    damaged = resize_linear(jpeg(small[None], parameters.jpeg), (image.shape[1], image.shape[2]))
    if parameters.grey:
        damaged = to_grey(damaged)
    return damaged[0].clamp(0, 1).mul(255).round() / 255


def degrade_blind_batch(
    images: Tensor, parameters: Sequence[BlindParameters], noise: Sequence[torch.Generator] | Sequence[Tensor]
) -> Tensor:
    """`degrade_blind` of each image with its own parameters and generator, bit for bit: (B, 3, H, W).

    Image by image, because every one shrinks to a size of its own; at 128 pixels that takes 1 to 3 ms each.

    Raises:
        ValueError: not one set of parameters and one generator for each image.
    """
    check_batch(images, "blind degradation")
    if not len(images) == len(parameters) == len(noise):
        raise ValueError(
            f"blind degradation: expected parameters and a generator for each of {len(images)} images,"
            f" got {len(parameters)} and {len(noise)}"
        )
    return torch.stack([degrade_blind(*one) for one in zip(images, parameters, noise, strict=True)])


def shrunk_size(size: tuple[int, int], downsample: float) -> tuple[int, int]:
    """Height and width after shrinking: the floor of side / downsample.

    Raises:
        ValueError: nothing is left of a side.
    """
    height, width = (int(side // downsample) for side in size)
    if min(height, width) < 1:
        raise ValueError(
            f"blind degradation: downsample {downsample:g} leaves nothing of an image of {size[0]} x {size[1]};"
            " BlindRanges.scaled gives ranges for small images"
        )
    return height, width


def to_grey(images: Tensor) -> Tensor:
    """Luma (BT.601) in all three channels: (..., 3, H, W) to the same shape."""
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (images * weights).sum(-3, keepdim=True).expand_as(images).contiguous()


def _within(limits: tuple[float, float], fraction: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * fraction


def _check_range(
    name: str,
    limits: tuple[float, float],
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    low, high = limits
    if not (low <= high and low > above and low >= least and high <= most and math.isfinite(high)):
        bounds = f"above {above:g}" if above > -math.inf else f"from {least:g}"
        bounds += f" to {most:g}" if most < math.inf else ""
        raise ValueError(f"blind degradation: {name} must be an ascending range {bounds}, got {low:g} to {high:g}")


SWINIR = BlindRanges()
"""DT-BFR and DifFace: the restorers' pre-training."""

DYNFACE = BlindRanges(isotropic=1.0, grey=0.0)
"""DynFaceRestore Eq. (16): a single std per kernel and no grey, otherwise the same numbers."""
