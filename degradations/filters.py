"""Blur and resize as OpenCV does them: kernels, mirrored borders, bilinear and area interpolation.

A blur followed by a bilinear resize is linear in the image, so both together are a short sum of products
`rows @ image @ columns^T`, one for each term into which the kernel separates. `blur_and_resize` computes just that,
and only for the pixels that the resize looks at; `blur` and `resize_linear` are the two steps by themselves.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

NEGLIGIBLE = 1e-8  # what a kernel tap or a separable term may be worth at most to be left out; 8-bit steps are 4e-3


def check_batch(images: Tensor, name: str) -> None:
    """Refuse anything but a floating (B, 3, H, W) batch.

    Raises:
        ValueError: another shape, or integers.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"{name}: expected a batch of shape (B, 3, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"{name}: expected floating values in [0, 1], got {images.dtype}; divide 8-bit data by 255")


def check_one(image: Tensor, name: str) -> None:
    """Refuse anything but one floating (3, H, W) image.

    Raises:
        ValueError: another shape, or integers.
    """
    if image.ndim != 3:
        raise ValueError(f"{name}: expected one image of shape (3, H, W), got {tuple(image.shape)}")
    check_batch(image[None], name)


# ---------------------------------------------------------------- kernels


def gaussian_kernel(std_x: float, std_y: float, angle: float, *, size: int = 41) -> Tensor:
    """Bivariate normal density on the pixel grid, scaled to sum 1: (size, size) float64, rows are y.

    Args:
        std_x, std_y: standard deviations along the kernel's own axes, in pixels, positive.
        angle: by which the axes are turned, in radians.
        size: side of the kernel, odd. What lies outside is cut off, not folded in: at 41 a std of 15 is cut at 1.3 std.

    Raises:
        ValueError: a std that is not positive and finite, or an even size.

    Source: Eq. (9)/(11) of DT-BFR; the covariance is R diag(std_x^2, std_y^2) R^T, the density is not integrated over
    the pixel.
    """
    if not (0 < std_x < math.inf and 0 < std_y < math.inf and math.isfinite(angle)):
        raise ValueError(
            f"blur kernel: expected positive standard deviations and a finite angle, got {std_x}, {std_y}, {angle}"
        )
    if size < 1 or size % 2 == 0:
        raise ValueError(f"blur kernel: expected an odd size, got {size}")
    grid = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = grid[:, None], grid[None, :]
    along = (x * math.cos(angle) + y * math.sin(angle)) / std_x
    across = (y * math.cos(angle) - x * math.sin(angle)) / std_y
    kernel = torch.exp(-0.5 * (along**2 + across**2))
    return kernel / kernel.sum()


def separate(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel as a sum of products of a column and a row: (terms, k_y) and (terms, k_x), float64.

    One term where the kernel is isotropic or lies along the axes, about ten where it is turned. Terms and outer taps
    that are worth less than 1e-8 together are left out.
    """
    kernel = _crop(kernel.detach().to("cpu", torch.float64))
    left, values, right = cast("tuple[Tensor, Tensor, Tensor]", torch.linalg.svd(kernel, full_matrices=False))
    kept = max(1, int((values.flip(0).cumsum(0).flip(0) > NEGLIGIBLE).sum()))
    roots = values[:kept].sqrt()[:, None]
    return left.T[:kept] * roots, right[:kept] * roots


def _crop(kernel: Tensor) -> Tensor:
    """The middle of the kernel, without the rings that sum to less than 1e-8."""
    middle = kernel.shape[0] // 2
    rows = torch.arange(kernel.shape[0]) - middle
    ring = torch.maximum(rows.abs()[:, None], rows.abs()[None, :])
    mass = torch.zeros(middle + 1, dtype=kernel.dtype).index_add_(0, ring.flatten(), kernel.abs().flatten())
    beyond = mass.flip(0).cumsum(0).flip(0)  # mass of a ring and all outside it
    radius = max(0, int((beyond > NEGLIGIBLE).sum()) - 1)
    return kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]


# ---------------------------------------------------------------- blur


def mirror(positions: Tensor, length: int) -> Tensor:
    """Positions outside [0, length) mirrored about the outermost pixels, as often as needed (reflect-101)."""
    if length == 1:
        return torch.zeros_like(positions)
    period = 2 * (length - 1)
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded)


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Each image filtered with its own kernel, borders mirrored about the outermost pixels (cv2.filter2D).

    Args:
        images: (B, 3, H, W), any range.
        kernels: (B, k, k) with odd k; not flipped, which makes no difference to a Gaussian.

    Raises:
        ValueError: not one square kernel with an odd side for each image.
    """
    check_batch(images, "blur")
    count, channels, height, width = images.shape
    if kernels.ndim != 3 or kernels.shape[0] != count:
        raise ValueError(f"blur: expected one kernel for each of {count} images, got shape {tuple(kernels.shape)}")
    _check_kernel(kernels[0], "blur")
    reach = kernels.shape[1] // 2
    rows = mirror(torch.arange(-reach, height + reach, device=images.device), height)
    columns = mirror(torch.arange(-reach, width + reach, device=images.device), width)
    padded = images[:, :, rows][:, :, :, columns]
    weights = kernels.to(images).repeat_interleave(channels, 0)[:, None]
    filtered = functional.conv2d(padded.flatten(0, 1)[None], weights, groups=count * channels)
    return filtered.view(count, channels, height, width)


def blur_and_resize(image: Tensor, kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """`resize_linear(blur(image), size)` of one image, computed only where the resize looks.

    Args:
        image: (3, H, W), any range.
        kernel: (k, k) with odd k, on any device.
        size: height and width of the result, at least 1.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_one(image, "blur_and_resize")
    _check_kernel(kernel, "blur_and_resize")
    _check_size(size, "blur_and_resize")
    columns, rows = separate(kernel)
    down = _blurred_sampling(columns, image.shape[1], size[0]).to(image.dtype).to(image.device)
    across = _blurred_sampling(rows, image.shape[2], size[1]).to(image.dtype).to(image.device)
    return torch.stack([a @ image @ b.T for a, b in zip(down, across, strict=True)]).sum(0)


def _blurred_sampling(taps: Tensor, length: int, new_length: int) -> Tensor:
    """Matrices (terms, new_length, length) that filter a line of pixels with each row of `taps`, then resample it."""
    low, high, fraction = _linear_positions(length, new_length)
    reach = torch.arange(taps.shape[1]) - taps.shape[1] // 2
    matrix = torch.zeros(taps.shape[0], new_length, length, dtype=torch.float64)
    for position, weight in ((low, 1 - fraction), (high, fraction)):
        sources = mirror(position[:, None] + reach[None, :], length)
        values = weight[None, :, None] * taps[:, None, :]
        matrix.scatter_add_(2, sources.expand_as(values), values)
    return matrix


# ---------------------------------------------------------------- resize


def _linear_positions(length: int, new_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each new pixel the two old ones it lies between, and how far it lies towards the second."""
    centre = (torch.arange(new_length, dtype=torch.float64) + 0.5) * (length / new_length) - 0.5
    centre = centre.clamp(0, length - 1)
    low = centre.floor()
    return low.long(), (low.long() + 1).clamp(max=length - 1), centre - low


def resize_linear(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation between pixel centres, without antialiasing (cv2.INTER_LINEAR).

    Args:
        images: (B, 3, H, W), any range.
        size: height and width of the result, at least 1.

    Raises:
        ValueError: another shape, or a size under 1.
    """
    check_batch(images, "resize_linear")
    _check_size(size, "resize_linear")
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=False)


def enlarge_linear(images: Tensor, factor: int) -> Tensor:
    """`resize_linear` to `factor` times both sides, in a third of the time on a CPU.

    Raises:
        ValueError: another shape, or a factor under 1.
    """
    check_batch(images, "enlarge_linear")
    if factor < 1:
        raise ValueError(f"enlarge_linear: expected a factor of 1 or more, got {factor}")
    # The rows last: most is computed there, on whole rows at once.
    return _enlarged(_enlarged(images, factor, 3), factor, 2) if factor > 1 else images


def _enlarged(images: Tensor, factor: int, dim: int) -> Tensor:
    """Each pixel replaced by `factor` new ones along a side, each on the way to the nearer of its neighbours."""
    last = images.shape[dim] - 1
    before = torch.cat([images.narrow(dim, 0, 1), images.narrow(dim, 0, last)], dim)
    after = torch.cat([images.narrow(dim, 1, last), images.narrow(dim, last, 1)], dim)
    shares = [(place + 0.5) / factor - 0.5 for place in range(factor)]
    new = [torch.lerp(images, before if share < 0 else after, abs(share)) for share in shares]
    return torch.stack(new, dim + 1).flatten(dim, dim + 1)


def resize_area(images: Tensor, factor: int) -> Tensor:
    """Mean of every factor x factor box (cv2.INTER_AREA for whole factors).

    Raises:
        ValueError: a factor that does not divide both sides.
    """
    check_batch(images, "resize_area")
    height, width = images.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"resize_area: expected a factor that divides both sides, got {factor} for an image of {height} x {width}"
        )
    if factor == 1:
        return images
    # Whole rows are added first, which takes a quarter of the time of torch's pooling on a CPU.
    return _added(_added(images, factor, 2), factor, 3) / factor**2


def _added(images: Tensor, factor: int, dim: int) -> Tensor:
    """The sums of `factor` neighbours along a side."""
    parts = images.unflatten(dim, (-1, factor)).unbind(dim + 1)
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total = total + part
    return total


def _check_kernel(kernel: Tensor, name: str) -> None:
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"{name}: expected a square kernel with an odd side, got {tuple(kernel.shape)}")


def _check_size(size: tuple[int, int], name: str) -> None:
    if min(size) < 1:
        raise ValueError(f"{name}: expected a height and a width of at least 1, got {size[0]} x {size[1]}")
