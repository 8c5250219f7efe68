"""The image contract: RGB float32 (B, 3, H, W) in [0, 1]; signed [-1, 1] only for the diffusion rooms.

Nothing else in the project converts between ranges or to 8 bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from adapt.errors import RangeError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def check_image(image: Tensor, name: str, *, low: float = 0.0, high: float = 1.0, slack: float = 1e-4) -> None:
    """Refuse anything but a finite (B, 3, H, W) batch, of one image or more, with values in [low, high].

    Args:
        image: the batch to check.
        name: what the batch is, for the message (a file name, "restored").
        low, high: the range that was promised.
        slack: how far rounding may lead outside the range.

    Raises:
        ShapeError: no tensor, not four dimensions, not three channels, or empty.
        RangeError: values outside the range, or not finite.
    """
    import torch

    if not isinstance(image, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  # a notebook's may not be
        kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
        hint = "; torch.from_numpy makes a tensor of it" if kind == "numpy.ndarray" else ""
        raise ShapeError(f"{name}: expected a tensor of shape (B, 3, H, W), got a {kind}{hint}")
    if image.ndim != 4 or image.shape[1] != 3:
        raise ShapeError(f"{name}: expected a batch of shape (B, 3, H, W), got {tuple(image.shape)}")
    if image.numel() == 0:
        raise ShapeError(f"{name}: expected one image or more, got an empty batch of shape {tuple(image.shape)}")
    lowest, highest = (float(v) for v in image.detach().float().aminmax())
    if not (lowest >= low - slack and highest <= high + slack):  # written so that NaN fails too
        hint = " -- 8-bit data? divide by 255" if highest > 2 else ""
        raise RangeError(
            f"{name}: expected values in [{low:g}, {high:g}], got [{lowest:.3g}, {highest:.3g}]{hint}"
        )


COLOURLESS: Final = (4 / 255, 1e-3)  # how far channels may be apart, and in what share of the pixels farther


def without_colour(image: Tensor) -> bool:
    """Whether an image (3, H, W) in [0, 1] has no colour, whatever its file says of channels: rounding is none."""
    most, share = COLOURLESS
    apart = image.amax(dim=0) - image.amin(dim=0)
    return bool((apart > most).double().mean() <= share)


def to_grey(image: Tensor) -> Tensor:
    """The mean of the channels in all three: (..., 3, H, W) to the same."""
    return image.mean(dim=-3, keepdim=True).expand_as(image)


def clamped(image: Tensor) -> Tensor:
    """Clamped to [0, 1]; what is not finite becomes NaN, so that an infinite value does not pass for white."""
    import torch

    return torch.where(image.isfinite(), image.clamp(0, 1), torch.nan)


def to_signed(image: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return image * 2 - 1


def to_unit(image: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], clamped: the one place where samples are clipped."""
    return (image / 2 + 0.5).clamp(0, 1)


def to_uint8(image: Tensor) -> np.ndarray:
    """One (3, H, W) image in [0, 1] as (H, W, 3) uint8, rounded to nearest, clipped."""
    return image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().contiguous().numpy()


def from_uint8(pixels: np.ndarray) -> Tensor:
    """One (H, W, 3) uint8 array as a (3, H, W) float32 image in [0, 1]."""
    import torch

    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float() / 255


# ---------------------------------------------------------------- coarse and fine


def block_side(height: int, width: int) -> int:
    """Side of the blocks whose means are the low frequencies of an image: 16 at 512 pixels, 4 at 128, never below 2."""
    return max(2, round(min(height, width) / 32))


def sharpness_std(height: int, width: int) -> float:
    """Standard deviation of the blur beyond which everything is fine detail, in pixels: 4 at 512, 1 at 128, never below
    0.5, where a sampled Gaussian blurs no more."""
    return max(0.5, min(height, width) / 128)


def fine_detail(image: Tensor) -> Tensor:
    """Images less their Gaussian blur, of which the standard deviation is `sharpness_std`: (B, 3, H, W) to the same.

    Differentiable, in the precision of the images; edges are continued with their outermost pixels. So copies of one
    image at several sizes are looked at in the same place of their spectrum.
    """
    import torch.nn.functional as F

    std = sharpness_std(image.shape[2], image.shape[3])
    reach = math.ceil(4 * std)
    around = F.pad(image, (reach, reach, reach, reach), mode="replicate")
    return image - gaussian_means(around, 2 * reach + 1, std)


def gaussian_means(x: Tensor, size: int, std: float) -> Tensor:
    """Gaussian-weighted local means of (B, 3, H, W) where the window fits: (B, 3, H - size + 1, W - size + 1).

    Args:
        x: the images.
        size: side of the window in pixels, odd.
        std: standard deviation of the weights in pixels.
    """
    import torch
    import torch.nn.functional as F

    offsets = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    window = torch.exp(-(offsets**2) / (2 * std**2))
    window = (window / window.sum()).expand(3, 1, 1, size)
    return F.conv2d(F.conv2d(x, window, groups=3), window.transpose(2, 3), groups=3)
