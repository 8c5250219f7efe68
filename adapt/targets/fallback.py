"""Photos that their restorer makes worse, told without a reference.

DT-BFR App. F suggests to feed a photo directly where the restorer fails completely, and leaves it to the eye.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adapt.settings import FallbackSettings
from adapt.targets.gate import low_frequency_change
from adapt.targets.prior_score import PriorScore


def needs_fallback(
    photos: Tensor, restored: Tensor, *, photo_score: PriorScore, restored_score: PriorScore, settings: FallbackSettings
) -> Tensor:
    """Which photos are better fed as they are: (B,) bool.

    A restored photo is worse than its photo if it left it, that is if the two differ by more than
    `max_low_frequency_change` at 16 x 16 pixels; or if restoring brought nothing: the prior would change of the photo
    hardly more than of the restored one, by `change_ratio` at most, and finds no less of a face's detail in it. So it
    is with a sharp old print, which a restorer made for blur and noise smooths. Noise costs a photo about twice the
    change, blur its detail.

    Args:
        photos, restored: (B, 3, H, W) in [0, 1].
        photo_score, restored_score: what the prior thinks of them, under the same noise.
        settings: the limits.
    """
    left = [
        low_frequency_change(after, before) > settings.max_low_frequency_change
        for before, after in zip(photos, restored, strict=True)
    ]
    as_much_a_face = photo_score.change <= settings.change_ratio * restored_score.change
    for_nothing = as_much_a_face & (photo_score.detail >= restored_score.detail)
    return torch.tensor(left, device=photos.device) | for_nothing.to(photos.device)
