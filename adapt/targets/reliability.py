"""How far a restored photo can be trusted, by what the prior would change of it."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from adapt.blur.labels import std_limits
from adapt.settings import ReliabilitySettings
from degradations.blind import PUBLISHED_SIZE

LEAST: Final = 2.0  # pixels at 512: a photo that is fed as it is has grain, if nothing else


def unreliable_std(change: Tensor, size: int, *, settings: ReliabilitySettings) -> Tensor:
    """The blur level below which the prior says not to trust images: (B,) float64 in pixels, from 0.

    An estimator of blur has only seen what its training damaged, and calls what a restorer makes of other damage
    sharp: of the blotches that it leaves of strong noise, or of eyes in the wrong place, it knows nothing. The prior
    knows faces. What it changes of a restored photo's coarse structure goes with the true level (std* of
    DynFaceRestore, Eq. 9) along a line, the same for damage of all kinds; `benchmarks/trust.py` measures it.

    Args:
        change: as in `PriorScore`, (B,).
        size: side of the images, pixels.
        settings: the line, which is one prior's own.
    """
    asked = settings.slope * (change.double() - settings.floor) * size / PUBLISHED_SIZE
    return asked.clamp(0, std_limits(size)[1])
