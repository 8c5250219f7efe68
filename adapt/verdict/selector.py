"""The rule of the verdict along a training: which weights are the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from adapt.settings import VerdictSettings
from adapt.verdict.decision import compare
from adapt.verdict.evidence import EVIDENCE, Evaluator, Restoration, Sample

AT_ONCE: Final = 8  # photos


def evenly(count: int, most: int) -> list[int]:
    """At most so many of 0, 1, ... count - 1, evenly through all."""
    taken = min(most, count)
    return [index * count // taken for index in range(taken)]


class EvidenceSelector:
    """Chooses among weights of one training by what evidence says of them on the validation photos.

    Args:
        evaluator: of the pack.
        settings: the recipe of the verdict; at most so many photos are judged as it says.
    """

    def __init__(self, evaluator: Evaluator, settings: VerdictSettings) -> None:
        self.evaluator = evaluator
        self.settings = settings
        self._samples: list[Sample] = []
        self._base: dict[str, list[float]] | None = None

    def judged(self, count: int) -> list[int]:
        """Which of so many validation photos are judged."""
        return evenly(count, self.settings.photos)

    def begin(self, photos: Tensor, restore: Callable[[Tensor], Tensor]) -> None:
        """Take in those validation photos, (N, 3, S, S) in [0, 1], and what restores them at the start."""
        images = torch.cat([restore(some) for some in photos.split(AT_ONCE)])
        clean = [self.evaluator.clean(photo, base) for photo, base in zip(photos, images, strict=True)]
        soft = self.evaluator.as_soft_as(clean)
        self._samples = [
            self.evaluator.sample(photo, base, clean=own, soft=soft, place=place, seed=place)
            for place, (photo, base, own) in enumerate(zip(photos, images, clean, strict=True))
        ]
        self._base = self._measured(restore)

    def gain(self, restore: Callable[[Tensor], Tensor]) -> float:
        """The mean weighted sum of gains over the start; minus infinity for what is not finite or beyond a limit."""
        measured = self._measured(restore)
        if measured is None or self._base is None:
            return -math.inf
        comparison = compare(1.0, [sample.trust for sample in self._samples], self._base, measured, self.settings)
        return -math.inf if comparison.refused else comparison.total.mean

    def _measured(self, restore: Callable[[Tensor], Tensor]) -> dict[str, list[float]] | None:
        found = [
            self.evaluator.measure(sample, Restoration(restore(sample.photo), restore(sample.trial)))
            for sample in self._samples
        ]
        sound = [each for each in found if each is not None]
        return {key: [each[key] for each in sound] for key in EVIDENCE} if len(sound) == len(found) else None
