"""The rule of the verdict along a training: which weights are the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from adapt.settings import VerdictSettings
from adapt.verdict.decision import weigh
from adapt.verdict.evidence import EVIDENCE, Answer, Case, Panel


class EvidenceCritic:
    """Chooses among weights of one training by what evidence says of them on the validation photos.

    Args:
        panel: of the pack.
        settings: the recipe of the verdict; at most so many photos are judged as it says.
    """

    def __init__(self, panel: Panel, settings: VerdictSettings) -> None:
        self.panel = panel
        self.settings = settings
        self._cases: list[Case] = []
        self._base: dict[str, list[float]] | None = None

    def begin(self, photos: Tensor, targets: Tensor, restore: Callable[[Tensor], Tensor]) -> None:
        """Take in validation photos and their targets, (N, 3, S, S) in [0, 1], and what restores them at the start."""
        most = self.settings.photos
        images = restore(photos[:most])
        self._cases = [
            self.panel.case(photo, base, target, place=place, seed=place)
            for place, (photo, base, target) in enumerate(zip(photos[:most], images, targets[:most], strict=True))
        ]
        self._base = self._heard(restore)

    def gain(self, restore: Callable[[Tensor], Tensor]) -> float:
        """The mean weighted sum of gains over the start; minus infinity for what is not finite or beyond a limit."""
        heard = self._heard(restore)
        if heard is None or self._base is None:
            return -math.inf
        weighed = weigh(1.0, [case.trust for case in self._cases], self._base, heard, self.settings)
        return -math.inf if weighed.refused else weighed.total.mean

    def _heard(self, restore: Callable[[Tensor], Tensor]) -> dict[str, list[float]] | None:
        all_of_it = [
            self.panel.hear(case, Answer(restore(case.photo), restore(case.trial))) for case in self._cases
        ]
        sound = [found for found in all_of_it if found is not None]
        if len(sound) < len(all_of_it):
            return None
        return {key: [found[key] for found in sound] for key in EVIDENCE}
