"""R(y) as targets are drawn towards it: of the photo and its mirror image, with the photo's light."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from adapt.settings import TargetSettings
from adapt.targets.photo_share import shown
from degradations.camera.steps import to_linear, to_tone

GAINS: Final = (0.5, 2.0)  # a restored image that needs more is not the photo's
DARK: Final = 1e-4  # of full light: below it there is nothing to compare


def restored_for(photos: Tensor, restorer: Callable[[Tensor], Tensor], settings: TargetSettings) -> Tensor:
    """R(y) as the recipe draws targets towards it. Each photo's depends on no other.

    Args:
        photos: (B, 3, H, W) in [0, 1].
        restorer: gives the same shape and range; NaN where it gave what is not finite.
        settings: mirrored, match_mean_luminance, light_by_noise and compat are read.

    Returns:
        (B, 3, H, W) in [0, 1]; NaN stays.
    """
    restored = restorer(photos)
    if settings.mirrored:  # what a restorer invents differs between both, and fades
        restored = (restored + restorer(photos.flip(-1)).flip(-1)) / 2
    if settings.match_mean_luminance and settings.compat == "none":
        return match_light_of_noisy(restored, photos, settings.light_by_noise)
    return restored


def match_light_of_noisy(restored: Tensor, photos: Tensor, noise: float | None) -> Tensor:
    """As `match_mean_luminance`, of those photos alone whose light is right on average where its tones are not.

    Args:
        restored, photos: (B, 3, H, W) in [0, 1]; NaN stays.
        noise: least noise in colours (`shown`) of a photo whose light is given back; None: of all.
    """
    pairs = zip(restored.split(1), photos.split(1), strict=True)
    return torch.cat([_matched(*pair) if _noisy(*pair, noise) else pair[0] for pair in pairs])


def _noisy(restored: Tensor, photo: Tensor, noise: float | None) -> bool:
    return noise is None or (bool(restored.isfinite().all()) and shown(restored, photo).colour >= noise)


def match_mean_luminance(restored: Tensor, photos: Tensor) -> Tensor:
    """Restored images with as much light on average as their photos, by one gain each.

    What a sensor counts is right on average, however strong its noise: in linear light the mean of a noisy photo is
    that of the scene, but for what clips. A restorer works on tones instead, of which noise lowers the bright ones and
    lifts the dark ones, and neither the low-frequency constraint nor a student taught by targets can see that. Neither
    paper has this step.

    Args:
        restored, photos: (B, 3, H, W) in [0, 1], sRGB.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    return torch.cat([_matched(*pair) for pair in zip(restored.split(1), photos.split(1), strict=True)])


def _matched(restored: Tensor, photo: Tensor) -> Tensor:
    """One image by itself: no last bit may come from its batch."""
    light = to_linear(restored, "srgb")
    own, wanted = light.mean(), to_linear(photo, "srgb").mean()
    gain = (wanted.clamp(min=DARK) / own.clamp(min=DARK)).clamp(*GAINS)
    return to_tone((light * gain).clamp(0, 1), "srgb")
