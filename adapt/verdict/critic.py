"""The rule of the verdict along a training: which weights are the best so far."""

from __future__ import annotations

import math

from torch import Tensor

from adapt.settings import VerdictSettings
from adapt.verdict.decision import weigh
from adapt.verdict.evidence import EVIDENCE, Panel, Shown


class EvidenceCritic:
    """Chooses among weights of one training by what evidence says of their images of the validation photos.

    Args:
        panel: of the pack.
        settings: the recipe of the verdict; at most so many photos are judged as it says.
    """

    def __init__(self, panel: Panel, settings: VerdictSettings) -> None:
        self.panel = panel
        self.settings = settings
        self._photos: list[Shown] = []
        self._base: dict[str, list[float]] = {}

    def begin(self, photos: Tensor, images: Tensor) -> None:
        """Take in validation photos and what the start makes of them, both (N, 3, S, S) in [0, 1]."""
        self._photos = [
            self.panel.show(photo, seed) for seed, photo in enumerate(photos[: self.settings.photos])
        ]
        self._base = self._heard(images)

    def gain(self, images: Tensor) -> float:
        """The mean of the weighted sums of gains over the start; minus infinity for images that are not finite."""
        if not bool(images.isfinite().all()):
            return -math.inf
        weighed = weigh(1.0, self._base, self._heard(images), self.settings)
        return -math.inf if weighed.refused else weighed.total.mean

    def _heard(self, images: Tensor) -> dict[str, list[float]]:
        heard = [self.panel.hear(photo, image) for photo, image in zip(self._photos, images.split(1), strict=False)]
        return {key: [found[key] for found in heard] for key in EVIDENCE}
