"""The gate: which pseudo-targets are good enough to train on. Each check is one line of `CHECKS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.settings import GateSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A target that is to be judged, and what it came from.

    Attributes:
        target: (3, H, W) in [0, 1].
        towards: what it was sampled towards, the same: the restored photo, or the photo in its place.
        photo: the damaged photo, the same.
    """

    target: Tensor
    towards: Tensor
    photo: Tensor


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        score: of the target.
        limit: what it is held against.
        reason: why the target is refused; None where it passes.
    """

    score: float
    limit: float
    reason: str | None


Check = Callable[[Candidate, GateSettings], Finding]


def low_frequency_change(target: Tensor, restored: Tensor, side: int = 16) -> float:
    """Mean absolute difference of two images, (3, H, W) in [0, 1], as seen at `side` x `side` pixels.

    Not `adapt.evaluation.metrics.low_frequency_difference`, which shows what a restorer changed at twice as many
    pixels along a side and is larger: the limits of gate and fallback are on this one, of layout and colour alone.
    """
    small = [F.adaptive_avg_pool2d(image[None], side) for image in (target, restored)]
    return float((small[0] - small[1]).abs().mean())


def contrast(candidate: Candidate, settings: GateSettings) -> Finding:
    """Whether there is anything to see: the standard deviation of the target's values."""
    score, limit = float(candidate.target.std()), settings.min_contrast
    flat = f"the target is flat: contrast {score:.3f}, at least {limit:g}"
    return Finding(score, limit, flat if score < limit else None)


def kept_low_frequencies(candidate: Candidate, settings: GateSettings) -> Finding:
    """Whether the target has stayed with what it was sampled towards, as seen from far."""
    score = low_frequency_change(candidate.target, candidate.towards)
    limit = settings.max_low_frequency_change
    left = f"the target left the photo: low frequencies changed by {score:.3f}, at most {limit:g}"
    return Finding(score, limit, left if score > limit else None)


CHECKS: Final[dict[str, Check]] = {  # the first that refuses gives the reason
    "contrast": contrast,
    "low_frequency_change": kept_low_frequencies,
}


def judge(candidate: Candidate, settings: GateSettings) -> tuple[str | None, dict[str, float]]:
    """Why a target is refused (None if it is accepted), and its score of each check: none if it is not finite."""
    if not bool(torch.isfinite(candidate.target).all()):
        return "the sampler left values that are not finite", {}
    findings = {name: check(candidate, settings) for name, check in CHECKS.items()}
    reason = next((finding.reason for finding in findings.values() if finding.reason is not None), None)
    return reason, {name: finding.score for name, finding in findings.items()}
