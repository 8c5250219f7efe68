"""Images by rings of frequencies, of lightness and of two colours: how much power each has."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from degradations.cosines import from_cosines, line_frequencies, to_cosines

RING: Final = 3.0  # cycles per image that lie in one ring
_OPPONENTS: Final = (  # lightness and two colours, orthonormal: a camera's noise is in colour where faces are smooth
    (3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5),
)  # fmt: skip


def spectrum_of(images: Tensor) -> Tensor:
    """The cosines of lightness and colours of (B, 3, H, W), the same shape."""
    return to_cosines(torch.einsum("oc,bchw->bohw", _turn(images), images))


def image_of(spectrum: Tensor) -> Tensor:
    """The images that a spectrum is of, not clipped."""
    images = from_cosines(spectrum)
    return torch.einsum("oc,bohw->bchw", _turn(images), images)


def rings_of(images: Tensor) -> Tensor:
    """Which ring each cosine of (B, 3, H, W) belongs to, (H, W); the last has all beyond the Nyquist frequency."""
    size = images.shape[2:]
    rows, columns = (line_frequencies(length, images.device) for length in size)
    radius = torch.hypot(rows[:, None], columns[None, :]) * min(size)
    return (radius / RING).round().long().clamp(max=max(1, round(0.5 * min(size) / RING)))


def power_in(spectrum: Tensor, rings: Tensor) -> Tensor:
    """Mean power of each component of one spectrum (1, 3, H, W) in each ring, (3, rings) float64."""
    count = int(rings.max()) + 1
    sizes = torch.bincount(rings.flatten(), minlength=count).clamp(min=1)
    power = spectrum[0].double().square()
    return torch.stack([torch.bincount(rings.flatten(), part.flatten(), count) for part in power]) / sizes


def _turn(images: Tensor) -> Tensor:
    return torch.tensor(_OPPONENTS, dtype=torch.float64).to(images)
