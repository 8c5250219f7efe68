"""The gate: which pseudo-targets are good enough to train on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.settings import GateSettings


def low_frequency_change(target: Tensor, restored: Tensor, side: int = 16) -> float:
    """Mean absolute difference of two images, (3, H, W) in [0, 1], as seen at `side` x `side` pixels."""
    small = [F.adaptive_avg_pool2d(image[None], side) for image in (target, restored)]
    return float((small[0] - small[1]).abs().mean())


def judge(target: Tensor, restored: Tensor, settings: GateSettings) -> tuple[str | None, dict[str, float]]:
    """Why a target is refused (None if it is accepted), and the scores it was judged by: none if it is not finite.

    Args:
        target: (3, H, W) in [0, 1].
        restored: what it was sampled towards, the same: the restored photo, or a photo that is fed directly.
        settings: the limits.
    """
    if not bool(torch.isfinite(target).all()):
        return "the sampler left values that are not finite", {}
    scores = {"low_frequency_change": low_frequency_change(target, restored), "contrast": float(target.std())}
    if scores["contrast"] < settings.min_contrast:
        return f"the target is flat: contrast {scores['contrast']:.3f}, at least {settings.min_contrast:g}", scores
    if scores["low_frequency_change"] > settings.max_low_frequency_change:
        return (
            f"the target left the photo: low frequencies changed by {scores['low_frequency_change']:.3f},"
            f" at most {settings.max_low_frequency_change:g}"
        ), scores
    return None, scores
