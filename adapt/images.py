"""The image contract: RGB float32 (B, 3, H, W) in [0, 1]; signed [-1, 1] only for the diffusion rooms.

Nothing else in the project converts between ranges or to 8 bits.
"""

from __future__ import annotations

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
