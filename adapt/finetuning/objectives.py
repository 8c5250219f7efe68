"""Objectives: what a recipe minimises. A new one is a class and a line in the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from adapt.finetuning.losses import fools, l1, weighted
from adapt.settings import FinetuneSettings

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ImageObjective:
    """L1, perceptual and adversarial loss on pictures (DT-BFR Eq. 8).

    Attributes:
        settings: the weights; a part of weight 0 is not computed.
        distance: the perceptual distance, (B, 3, H, W) twice -> (B,).
    """

    settings: FinetuneSettings
    distance: Distance

    def losses(
        self, restored: Tensor, target: Tensor, discriminator: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo."""
        parts: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        if self.settings.l1:
            parts["l1"], weights["l1"] = l1(restored, target), self.settings.l1
        if self.settings.perceptual:
            parts["perceptual"], weights["perceptual"] = self.distance(restored, target), self.settings.perceptual
        if discriminator is not None:
            parts["adversarial"], weights["adversarial"] = fools(discriminator(restored)), self.settings.adversarial
        return weighted(parts, weights), parts

    def score(self, restored: Tensor, target: Tensor) -> dict[str, Tensor]:
        """How far held-back photos are from their targets, per photo; `total` decides which weights are best.

        The adversarial part is left out: it compares with a discriminator that changes.
        """
        restored = restored.clamp(0, 1)
        parts = {"l1": l1(restored, target), "perceptual": self.distance(restored, target)}
        total = self.settings.l1 * parts["l1"] + self.settings.perceptual * parts["perceptual"]
        return {**parts, "total": total}


OBJECTIVES: Final[dict[str, Callable[[FinetuneSettings, Distance], ImageObjective]]] = {"image": ImageObjective}
