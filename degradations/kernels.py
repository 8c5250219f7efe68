"""Blur kernels of cameras: a path of movement, and an aperture out of focus."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from degradations.camera.steps import to_linear, to_tone
from degradations.filters import blur, blur_and_resize, check_one, gaussian_kernel

_SUBPIXELS = 8  # points for each pixel's side, for areas; and for each pixel of a path


def motion_kernel(length: float, angle: float, bend: float = 0.0) -> Tensor:
    """The path of a moving camera at constant speed, (k, k) float64 with sum 1, centred on its mean.

    Args:
        length: of the path in pixels, 0 or more; 0 is a single pixel.
        angle: direction halfway along the path in radians, counter-clockwise from the right.
        bend: by how much the direction turns along the path, radians: the path is an arc of a circle.

    Raises:
        ValueError: a length that is negative or not finite.
    """
    if not (0 <= length < math.inf and math.isfinite(angle) and math.isfinite(bend)):
        raise ValueError(f"motion kernel: expected a length of 0 or more and finite angles, got {length}, {angle}")
    count = max(1, math.ceil(length * _SUBPIXELS))
    # Directions at the middles of equal degradations; their sum is the path.
    directions = angle + bend * ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5)
    step = length / count
    x = (directions.cos().cumsum(0) - directions.cos() / 2) * step
    y = -(directions.sin().cumsum(0) - directions.sin() / 2) * step  # rows count downwards
    x, y = x - x.mean(), y - y.mean()
    reach = math.ceil(max(float(x.abs().max()), float(y.abs().max()))) + 1
    kernel = torch.zeros((2 * reach + 1) ** 2, dtype=torch.float64)
    column, row = x.floor(), y.floor()
    for right in (0, 1):  # each point is shared out among the four pixels around it
        for down in (0, 1):
            share = (1 - (x - column - right).abs()) * (1 - (y - row - down).abs())
            kernel.scatter_add_(0, ((row + down + reach) * (2 * reach + 1) + column + right + reach).long(), share)
    return kernel.view(2 * reach + 1, -1) / count


def disk_kernel(radius: float) -> Tensor:
    """An open aperture out of focus: a disk, each pixel with the share of it that is covered, sum 1, float64.

    Raises:
        ValueError: a radius that is not positive and finite.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"disk kernel: expected a positive radius, got {radius}")
    if radius <= 0.5:  # inside the pixel in the middle, and perhaps between its sampling points
        return torch.ones(1, 1, dtype=torch.float64)
    reach = math.ceil(radius)
    side = (2 * reach + 1) * _SUBPIXELS
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / _SUBPIXELS - reach - 0.5
    inside = (at[:, None] ** 2 + at[None, :] ** 2 <= radius**2).double()
    kernel = inside.view(2 * reach + 1, _SUBPIXELS, 2 * reach + 1, _SUBPIXELS).mean((1, 3))
    return kernel / kernel.sum()


def gaussian_blur(image: Tensor, std_x: float, std_y: float, angle: float) -> Tensor:
    """The image (3, H, W) blurred by a Gaussian that is cut at four standard deviations; borders mirrored."""
    check_one(image, "gaussian blur")
    size = 2 * math.ceil(4 * max(std_x, std_y)) + 1
    # Gaussians separate into few terms, so the products of matrices beat a convolution.
    return blur_and_resize(image, gaussian_kernel(std_x, std_y, angle, size=size), (image.shape[1], image.shape[2]))


def blur_light(image: Tensor, kernel: Tensor) -> Tensor:
    """The image (3, H, W) in [0, 1] filtered with a kernel (k, k) in linear light, borders mirrored.

    Lenses and shutters add up light, not sRGB values: a small lamp becomes a large bright spot.
    """
    check_one(image, "blur in linear light")
    return to_tone(blur(to_linear(image, "srgb")[None], kernel[None])[0].clamp(0, 1), "srgb")
