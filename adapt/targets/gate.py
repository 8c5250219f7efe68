"""The gate: which pseudo-targets are good enough to train on. Each check is one line of `CHECKS`.

Limits are the recipe's, and most are on what changed against the photo's own restoration. A run's own distribution
would set them by its other photos: then a target would depend on which photos lie beside it, and in which shard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.settings import GateSettings, LikenessSettings
from adapt.targets.likeness import Likeness
from degradations.blind import PUBLISHED_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A target that is to be judged, and what it came from.

    Attributes:
        target: (3, H, W) in [0, 1].
        towards: what it was sampled towards, the same: the restored photo, or the photo in its place.
        photo: the damaged photo, the same.
        likeness: what the target kept of it; None where the recipe asks for nothing of the kind.
    """

    target: Tensor
    towards: Tensor
    photo: Tensor
    likeness: Likeness | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        score: of the target.
        limit: what it is held against; None where it is only noted.
        reason: why the target is refused; None where it passes.
    """

    score: float
    limit: float | None
    reason: str | None


Check = Callable[[Candidate, GateSettings], Finding | None]
"""What it found; None where it has nothing to look at."""


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


Part = Literal["identity", "landmarks", "departure", "region", "colour", "sharpness"]


@dataclass(frozen=True, slots=True)
class LikenessCheck:
    """A check on one part of the likeness.

    Attributes:
        part: of `Likeness`.
        setting: of `LikenessSettings`.
        says: why a target is refused, before the two numbers.
    """

    part: Part
    setting: str
    says: str

    def __call__(self, candidate: Candidate, settings: GateSettings) -> Finding | None:
        """Whether that much was kept; None where nothing was measured."""
        if candidate.likeness is None or settings.likeness is None:
            return None
        score: float = getattr(candidate.likeness, self.part)
        limit: float | None = getattr(settings.likeness, self.setting)
        if limit is None or not _believed(candidate.likeness, settings.likeness, candidate.target.shape[-1]):
            return Finding(score, None, None)
        least = self.setting.startswith("min")
        refused = score < limit if least else score > limit
        reason = f"{self.says} {score:.3f}, at {'least' if least else 'most'} {limit:g}"
        return Finding(score, limit, reason if refused else None)


def _believed(likeness: Likeness, settings: LikenessSettings, size: int) -> bool:
    """Whether photo and restored photo say what a target should have kept: under noise that leaves nothing of a face
    both are blotches."""
    return settings.believed_to is None or likeness.own_std <= settings.believed_to * size / PUBLISHED_SIZE


CHECKS: Final[dict[str, Check]] = {  # the first that refuses gives the reason
    "contrast": contrast,
    "low_frequency_change": kept_low_frequencies,
    "identity": LikenessCheck(
        "identity", "max_identity", "the target is another person: distance of embeddings over a stranger's"
    ),
    "landmarks": LikenessCheck(
        "landmarks", "max_landmarks", "the target has its features elsewhere: distance of landmarks"
    ),
    "departure": LikenessCheck(
        "departure", "max_departure", "the target, blurred, is farther from the photo than R(y): by"
    ),
    "region": LikenessCheck("region", "max_region_change", "the target lost or gained something: a block changed by"),
    "colour": LikenessCheck("colour", "max_colour_shift", "the target has another colour: mean changed by"),
    "sharpness": LikenessCheck(
        "sharpness", "min_sharpness", "the target is blurrier than R(y): its detail over R(y)'s"
    ),
}


def judge(candidate: Candidate, settings: GateSettings) -> tuple[str | None, dict[str, float]]:
    """Why a target is refused (None if it is accepted), and its score of each check: none if it is not finite."""
    if not bool(torch.isfinite(candidate.target).all()):
        return "the sampler left values that are not finite", {}
    found = {name: check(candidate, settings) for name, check in CHECKS.items()}
    findings = {name: finding for name, finding in found.items() if finding is not None}
    reason = next((finding.reason for finding in findings.values() if finding.reason is not None), None)
    return reason, {name: finding.score for name, finding in findings.items()}
