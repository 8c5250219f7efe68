"""What a pack knows of blur, as one."""

from __future__ import annotations

from dataclasses import dataclass

from adapt.blur.adjuster import GuidanceAdjuster
from adapt.blur.estimator import BlurEstimator
from adapt.blur.start_steps import StartSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class BlurParts:
    """What a pack knows of blur.

    Attributes:
        estimator: SE, the blur level of a photo.
        start_steps: the table from blur levels to start steps.
        adjuster: DGSA, how strongly each pixel is guided.
    """

    estimator: BlurEstimator | None = None
    start_steps: StartSteps | None = None
    adjuster: GuidanceAdjuster | None = None
