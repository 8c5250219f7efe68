"""Resizing as programs do it: five kernels, each stretched where the image shrinks, and the plain ones beside them.

Nearest and bilinear without stretching alias, as many programs' quick modes do; box, bilinear, bicubic and Lanczos
with stretching are those of Pillow.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor

from degradations.filters import check_one, resize_linear

Method = Literal["nearest", "box", "bilinear", "bicubic", "lanczos", "bilinear-aliased"]


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


def _box(x: Tensor) -> Tensor:
    return ((x > -0.5) & (x <= 0.5)).double()


_KERNELS: Final[MappingProxyType[str, tuple[Callable[[Tensor], Tensor], float]]] = MappingProxyType(
    {"box": (_box, 0.5), "bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0), "lanczos": (_lanczos, 3.0)}
)


def resize(image: Tensor, size: tuple[int, int], method: Method) -> Tensor:
    """The image (3, H, W) at another height and width; not clipped: bicubic and Lanczos ring.

    Pixels outside do not count: the weights of those inside are scaled to sum 1, as in Pillow.

    Raises:
        ValueError: another shape, a size under 1, or an unknown method.
    """
    check_one(image, "resize")
    if min(size) < 1:
        raise ValueError(f"resize: expected a height and a width of at least 1, got {size[0]} x {size[1]}")
    if method == "nearest":
        rows, columns = (
            ((torch.arange(new, device=image.device, dtype=torch.float64) + 0.5) * old / new).long()
            for new, old in zip(size, image.shape[1:], strict=True)
        )
        return image[:, rows][:, :, columns]
    if method == "bilinear-aliased":
        return resize_linear(image[None], size)[0]
    if method not in _KERNELS:
        raise ValueError(f"resize: expected one of nearest, bilinear-aliased, {', '.join(_KERNELS)}, got {method!r}")
    down, across = (weights(old, new, method).to(image) for old, new in zip(image.shape[1:], size, strict=True))
    return down @ image @ across.T


def weights(old: int, new: int, method: str) -> Tensor:
    """(new, old) float64: what each old pixel of a line is worth to each new one, by a stretching kernel."""
    kernel, support = _KERNELS[method]
    stretch = max(1.0, old / new)
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * old / new
    offset = (torch.arange(old, dtype=torch.float64) + 0.5)[None, :] - centre[:, None]
    values = torch.where(offset.abs() <= support * stretch, kernel(offset / stretch), 0.0)
    return values / values.sum(1, keepdim=True)
