"""Learning rates over the steps of a training."""

from __future__ import annotations

import math


def cosine(step: int, steps: int, *, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 to `last` at step `steps`."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1)))


def trapezoid(step: int, steps: int, peak: float, *, warmup: int, cooldown: float = 0.2) -> float:
    """Linear warm-up, a plateau, and a linear cool-down to zero over the last share of the steps.

    The plateau does not depend on `steps`, so that a run can be prolonged from a state on the plateau.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (steps - step) / max(1.0, cooldown * steps))
    return peak * min(rise, fall)
