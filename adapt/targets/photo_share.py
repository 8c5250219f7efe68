"""What a target keeps of its photo: what a photo still shows is better evidence than what a restorer made of it."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from adapt.settings import PhotoShareSettings
from degradations.cosines import from_cosines, line_frequencies, to_cosines

RING: Final = 3.0  # cycles per image that share a weight
_OPPONENTS: Final = (  # lightness and two colours, orthonormal: a camera's noise is in colour where faces are smooth
    (3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5),
)  # fmt: skip


def photo_share(ratio: float, settings: PhotoShareSettings) -> float:
    """The share of a photo in what its target is drawn towards, in [0, 1], where nothing speaks against it.

    Args:
        ratio: how much more of the photo's coarse structure the prior would change than of the restored one's. A
            restorer that brought a face much nearer to what the prior knows had strong damage before it; where it did
            not, the photo is nearer to the truth than its restoration more often than not.
        settings: `most` up to the ratio `all_below`, from there in a line to nothing at `none_above`.
    """
    left = (settings.none_above - ratio) / (settings.none_above - settings.all_below)
    return settings.most * min(1.0, max(0.0, left))


def keep_photo(restored: Tensor, photo: Tensor, share: float, *, excess: float) -> Tensor:
    """A restored photo with a share of the photo in it, less at frequencies of which the photo shows something else.

    Of lightness and of colours, in each ring of frequencies, power that the photo has beyond `excess` times the
    restored one's is taken for noise, grain or screen. Of the power of their difference it is the photo's part, and
    the share is as much smaller. Where the photo has less power than the restored one, it is blurred, and its share is
    smaller by that: no detail is lost. The overall light and colour, slower than half a ring, stay the restored one's:
    tint and fading are damage too.

    Args:
        restored, photo: (1, 3, H, W) in [0, 1].
        share: in [0, 1].
        excess: restorers smooth; a sharp clean photo has a few times the power of its restoration.

    Returns:
        (1, 3, H, W) in [0, 1]. Source: none of the papers; the weights are Wiener's.
    """
    if share <= 0:
        return restored
    turn = torch.tensor(_OPPONENTS, dtype=torch.float64).to(restored)
    ours, theirs = (to_cosines(torch.einsum("oc,bchw->bohw", turn, image)) for image in (restored, photo))
    rings = _rings((photo.shape[2], photo.shape[3]), photo.device)
    before, after, between = (_power(each, rings) for each in (theirs, ours, theirs - ours))
    tiny = torch.finfo(torch.float32).tiny
    noise = (before - excess * after).clamp(min=0)
    weights = (1 - noise / between.clamp(min=tiny)).clamp(0, 1) * (before / after.clamp(min=tiny)).clamp(max=1)
    weights[:, 0] = 0
    blended = from_cosines(ours + share * weights[:, rings].to(ours) * (theirs - ours))
    return torch.einsum("oc,bohw->bchw", turn, blended).clamp(0, 1)


def _rings(size: tuple[int, int], device: torch.device) -> Tensor:
    """Which ring each cosine belongs to, (H, W); the last one has all beyond the Nyquist frequency of a line."""
    rows, columns = (line_frequencies(length, device) for length in size)
    radius = torch.hypot(rows[:, None], columns[None, :]) * min(size)
    return (radius / RING).round().long().clamp(max=max(1, round(0.5 * min(size) / RING)))


def _power(spectrum: Tensor, rings: Tensor) -> Tensor:
    """Mean power of each component of a spectrum (1, 3, H, W) in each ring, (3, rings) float64."""
    count = int(rings.max()) + 1
    sizes = torch.bincount(rings.flatten(), minlength=count).clamp(min=1)
    power = spectrum[0].double().square()
    return torch.stack([torch.bincount(rings.flatten(), part.flatten(), count) for part in power]) / sizes
