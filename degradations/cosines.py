"""The cosine spectrum of images, and the round Gaussian blur as a factor on it.

Mirrored about its outermost pixels (as `filters.mirror` does it), an image is a sum of cosines, and every symmetric
filter only scales them. So a Gaussian of any std is exact, cheap for many stds of one image, and differentiable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from degradations.constants import kept
from degradations.filters import check_batch


def gaussian_blur(images: Tensor, std: Tensor) -> Tensor:
    """Each image blurred by the round Gaussian of its own std, borders mirrored about the outermost pixels.

    The Gaussian is taken by its spectrum, exp(-2 pi^2 std^2 f^2) at f cycles per pixel. So its variance is std^2 at any
    std, two blurs in a row are one of sqrt(a^2 + b^2), nothing is cut off, and a std below half a pixel still means
    something: the same blur at a quarter of the size has a quarter of the std. The sampled kernel of `gaussian_kernel`
    is the same from about one pixel on (white noise in [0, 1] differs by 2e-3 at 1 pixel, 2e-6 at 1.5); below 0.3
    pixels it is the identity, and its derivative in std zero. What this costs: below half a pixel the blur rings a
    little beside hard edges, by up to 1.4 % of their height.

    Args:
        images: (B, 3, H, W), any range.
        std: (B,) in pixels, not negative; 0 leaves the image as it is. Differentiable in both arguments.

    Returns:
        (B, 3, H, W) in the precision of `images`. No image depends on the others of its batch.

    Raises:
        ValueError: not one std for each image, or one that is negative or not finite.
    """
    check_batch(images, "gaussian_blur")
    if std.shape != (len(images),):
        raise ValueError(f"gaussian_blur: expected one std for each of {len(images)} images, got {tuple(std.shape)}")
    return from_cosines(to_cosines(images) * gaussian_response(std, (images.shape[2], images.shape[3])).to(images))


def gaussian_response(std: Tensor, size: tuple[int, int]) -> Tensor:
    """What a Gaussian multiplies the cosine spectrum by: (B, 1, H, W) float64 for std of (B,) in pixels.

    Raises:
        ValueError: a std that is negative or not finite.
    """
    lowest, highest = (float(value) for value in std.detach().aminmax())
    if not 0 <= lowest <= highest < math.inf:
        raise ValueError(f"gaussian_blur: expected stds of at least 0 pixels, got {lowest:g} to {highest:g}")
    variance = std.double().square()[:, None]
    rows, columns = (gaussian_transfer(line_frequencies(length, std.device), variance) for length in size)
    return rows[:, None, :, None] * columns[:, None, None, :]


def gaussian_transfer(frequency: Tensor, variance: Tensor) -> Tensor:
    """exp(-2 pi^2 variance f^2): what a Gaussian of `variance` pixels^2 leaves of a wave of f cycles per pixel."""
    return torch.exp(-2 * math.pi**2 * frequency.square() * variance)


def to_cosines(images: Tensor) -> Tensor:
    """The cosine spectrum (DCT-I) of images, (..., H, W) in any range, in the same shape.

    Wave k of a line of n pixels has k / (2 (n - 1)) cycles per pixel; the first value is the mirrored image's mean.
    """
    return _transform(images, inverse=False)


def from_cosines(spectrum: Tensor) -> Tensor:
    """Undo `to_cosines`."""
    return _transform(spectrum, inverse=True)


def _transform(images: Tensor, *, inverse: bool) -> Tensor:
    with torch.autocast(images.device.type, enabled=False):  # a product in bfloat16 would round the image itself
        rows, columns = (_cosines(length, inverse, images.dtype, images.device) for length in images.shape[-2:])
        flat = images.flatten(0, -3)  # batched products: one image's never depend on how many there are
        flat = torch.bmm(rows.expand(len(flat), -1, -1), flat)
        return torch.bmm(flat, columns.T.expand(len(flat), -1, -1)).view(images.shape)


def line_frequencies(length: int, device: torch.device) -> Tensor:
    """The frequencies of the cosines of a line of pixels, in cycles per pixel: (length,) float64, 0 to 0.5."""
    return torch.arange(length, dtype=torch.float64, device=device) / (2 * max(length - 1, 1))


@kept(16)
def _cosines(length: int, inverse: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix that takes a line of pixels to its cosines, or back: (length, length)."""
    if length == 1:
        return torch.ones(1, 1, dtype=dtype, device=device)
    index = torch.arange(length, dtype=torch.float64)
    turns = (index[:, None] * index[None, :]).remainder(2 * (length - 1)) / (length - 1)
    matrix = torch.cos(math.pi * turns)
    if not inverse:
        # Outermost pixels and waves occur once in the mirrored line, all others twice; then row 0 is the mean.
        once = torch.ones(length, dtype=torch.float64)
        once[0] = once[-1] = 0.5
        matrix = matrix * once[:, None] * once[None, :] * (2 / (length - 1))
    return matrix.to(device, dtype)
