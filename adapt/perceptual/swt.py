"""The stationary wavelet transform, one level: four sub-bands of full resolution; and a loss on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.errors import ShapeError, UsageError
from degradations.constants import kept

BANDS = ("LL", "LH", "HL", "HH")


@kept(8)
def _filters(wavelet: str) -> Tensor:
    """Decomposition low-pass and high-pass of a wavelet, (2, F) float64, F even."""
    from pywt import Wavelet  # pyright: ignore[reportAttributeAccessIssue]

    try:
        chosen = Wavelet(wavelet)
    except ValueError as error:
        raise UsageError(
            f"wavelet: no discrete wavelet '{wavelet}' in PyWavelets; haar, db4 and sym19 are some of them"
        ) from error
    return torch.tensor([chosen.dec_lo, chosen.dec_hi], dtype=torch.float64)


def swt2(image: Tensor, wavelet: str = "sym19") -> Tensor:
    """The four sub-bands of each channel, (B, C, H, W) -> (B, 4, C, H, W) in the order of `BANDS`.

    The first letter of a band is the filter along the rows (across the width), the second that along the columns:
    LL is the image itself, blurred and doubled; LH holds horizontal edges, HL vertical ones, HH the diagonals.

    Args:
        image: any range, any size, any floating type; gradients reach it.
        wavelet: the name PyWavelets has for it.

    Raises:
        ShapeError: not a batch.
        UsageError: an unknown wavelet.

    Source: the undecimated transform of `pywt.swt2`, level 1, periodic borders, whose (cA, (cH, cV, cD)) are LL, LH,
    HL, HH. Differs: sides may be odd.
    """
    if image.ndim != 4 or 0 in image.shape:
        raise ShapeError(f"wavelet transform: expected a batch of shape (B, C, H, W), got {tuple(image.shape)}")
    batch, channels, height, width = image.shape
    filters = _filters(wavelet).to(image).flip(1)  # flipped: conv2d computes correlations
    half = filters.shape[1] // 2
    # Indices rather than circular padding, which refuses filters longer than the image.
    rows = torch.arange(1 - half, height + half, device=image.device) % height
    columns = torch.arange(1 - half, width + half, device=image.device) % width
    flat = image.reshape(batch * channels, 1, height, width)
    across = F.conv2d(flat[..., columns], filters[:, None, None, :])  # (BC, 2, H, W): low and high along the rows
    both = F.conv2d(across[:, :, rows].reshape(-1, 1, len(rows), width), filters[:, None, :, None])
    bands = both.reshape(batch, channels, 4, height, width)
    return bands.transpose(1, 2)


def swt_loss(a: Tensor, b: Tensor, weights: Sequence[float], *, wavelet: str = "sym19") -> Tensor:
    """Weighted sum of the mean absolute differences of the sub-bands of two batches: (B,), 0 for equal images.

    Args:
        a, b: (B, C, H, W) of one range; gradients reach both.
        weights: of LL, LH, HL and HH.
        wavelet: the name PyWavelets has for it.

    Raises:
        ShapeError: two shapes, or no batches.
        UsageError: not four weights, or an unknown wavelet.

    Source: DynFaceRestore, first term of Eq. (14), (24), with the weights 0, 0.01, 0.01, 0.05. The paper names neither
    wavelet nor levels; sym19 and one level are those of its source (Korkmaz et al. 2024, arXiv:2402.19215).
    """
    if a.shape != b.shape:
        raise ShapeError(f"wavelet loss: expected two batches of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    if len(weights) != len(BANDS):
        raise UsageError(f"wavelet loss: expected a weight for each of {', '.join(BANDS)}, got {len(weights)} weights")
    bands = swt2(a - b, wavelet)  # the transform is linear: that of the difference is enough
    return (bands.abs().mean(dim=(2, 3, 4)) * bands.new_tensor(list(weights))).sum(dim=1)
