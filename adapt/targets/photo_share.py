"""What a target keeps of its photo: what a photo still shows is better evidence than what a restorer made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from adapt.blur.linear import linear_damage
from adapt.settings import PhotoShareSettings
from adapt.targets.rings import RING, image_of, power_in, rings_of, spectrum_of

FINE: Final = (0.28, 0.47)  # cycles per pixel: where grain, screens and scan lines show in lightness
GREYEST: Final = 2.0  # power of noise in lightness over that in colours
COARSE: Final = (0.06, 0.18)  # where a camera's noise shows in colours, which faces hardly have there


@dataclass(frozen=True, slots=True)
class Shown:
    """A photo beside its restoration, in rings of frequencies.

    Attributes:
        lightness: mean power of the fine detail that no filter of the restoration explains, over that of the
            restoration's coarse structure; sharp faces have 0.016 of it in all. Grain, screens and scan lines raise it.
        colour: of colours in coarse structure what is not explained, over the restoration's. Noise raises it.
        weights: of the photo in each ring, (3, rings) in [0, 1]: its explained power over that and the noise, and the
            square of its explained power over the restoration's, for what is blurred. Of the overall light and colour
            0. Noise is what is not explained; of lightness no more than `GREYEST` times as much as of colours, for
            detail that a soft restorer missed is not explained either, and that of faces is in lightness.
    """

    lightness: float
    colour: float
    weights: Tensor


def shown(restored: Tensor, photo: Tensor) -> Shown:
    """What a photo, (1, 3, H, W) in [0, 1], shows beside its restoration, the same.

    Source: none of the papers; the weights are Wiener's. The overall light and colour, slower than half a ring, stay
    the restored one's: tint and fading are damage too.
    """
    rings = rings_of(photo)
    explained = linear_damage(restored, photo)(restored)
    ours, filtered, rest = (power_in(spectrum_of(each), rings) for each in (restored, explained, photo - explained))
    tiny = torch.finfo(torch.float32).tiny

    def mean(power: Tensor, part: slice, band: tuple[float, float]) -> Tensor:
        low, high = (round(edge * min(photo.shape[2:]) / RING) for edge in band)
        return power[part, low : max(high, low + 1)].mean()

    kept = (filtered / ours.clamp(min=tiny)).clamp(max=1)
    noise = rest.clone()
    noise[0] = torch.minimum(rest[0], GREYEST * rest[1:].mean(0))
    weights = kept.square() * filtered / (filtered + noise).clamp(min=tiny)
    weights[:, 0] = 0
    light, colours = slice(0, 1), slice(1, 3)
    lightness, colour = (
        float(mean(rest, part, band) / mean(ours, part, COARSE).clamp(min=tiny))
        for part, band in ((light, FINE), (colours, COARSE))
    )
    return Shown(lightness, colour, weights)


def photo_share(found: Shown, settings: PhotoShareSettings) -> float:
    """The share of a photo in what its target is drawn towards, in [0, 1], where nothing speaks against it.

    `most` of it where little is unexplained, nothing from the upper limits on, in lines between.
    """
    share = settings.most
    for value, (all_below, none_above) in ((found.lightness, settings.lightness), (found.colour, settings.colour)):
        share *= min(1.0, max(0.0, (none_above - value) / (none_above - all_below)))
    return share


def keep_photo(restored: Tensor, photo: Tensor, share: float, weights: Tensor) -> Tensor:
    """A restored photo with a share of the photo in it, by frequency.

    Args:
        restored, photo: (1, 3, H, W) in [0, 1].
        share: in [0, 1].
        weights: of `Shown`.

    Returns:
        (1, 3, H, W) in [0, 1].
    """
    if share <= 0:
        return restored
    ours, theirs = spectrum_of(restored), spectrum_of(photo)
    return image_of(ours + share * weights[:, rings_of(photo)].to(ours) * (theirs - ours)).to(restored).clamp(0, 1)
