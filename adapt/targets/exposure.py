"""The light of a photo, given back to its restored version before anything is drawn towards it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from adapt.settings import TargetSettings
from degradations.camera.steps import to_linear, to_tone

GAINS: Final = (0.5, 2.0)  # a restored image that needs more is not the photo's
DARK: Final = 1e-4  # of full light: below it there is nothing to compare


def restored_for(photos: Tensor, restorer: Callable[[Tensor], Tensor], settings: TargetSettings) -> Tensor:
    """R(y) as the recipe draws targets towards it: (B, 3, H, W) in [0, 1] -> the same."""
    restored = restorer(photos)
    return match_mean_luminance(restored, photos) if settings.match_mean_luminance and settings.compat == "none" else restored


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
