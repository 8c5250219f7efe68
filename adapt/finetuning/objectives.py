"""Objectives: what a recipe minimises, on images or on codes. A new one is a class and a line in the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from torch import Tensor, nn

from adapt.errors import UsageError
from adapt.finetuning.codes import CODE_NEEDS, CodeObjective, code_objective
from adapt.restorers.base import Restorer
from adapt.settings import CodeFinetuneSettings, FinetuneSettings
from adapt.training.code_losses import PredictsCodes, Teacher
from adapt.training.losses import Distance, generator_loss, l1, weighted


class Objective(Protocol):
    """What fine-tuning asks of an objective; the output is what the module makes of photos (B, 3, S, S) in [0, 1]."""

    def module(self) -> nn.Module:
        """What training and scoring run; its weights are the restorer's network's."""
        ...

    def losses(
        self, output: Any, target: Tensor, discriminator: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo."""
        ...

    def image(self, output: Any) -> Tensor:
        """The image that a discriminator looks at, (B, 3, S, S)."""
        ...

    def score(self, output: Any, target: Tensor) -> dict[str, Tensor]:
        """How far validation photos are from their targets, per photo: l1, perceptual, what else the objective counts,
        and `total`, which decides which weights are best. The module is in evaluation."""
        ...


@dataclass(frozen=True, slots=True)
class ImageObjective:
    """L1, perceptual and adversarial loss on images (DT-BFR Eq. 8).

    Attributes:
        settings: the weights; a part of weight 0 is not computed.
        network: the restorer's.
        distance: the perceptual distance, (B, 3, H, W) twice -> (B,).
    """

    settings: FinetuneSettings
    network: nn.Module
    distance: Distance

    def module(self) -> nn.Module:
        """The network itself."""
        return self.network

    def image(self, output: Tensor) -> Tensor:
        """The output itself."""
        return output.float()

    def losses(
        self, output: Tensor, target: Tensor, discriminator: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo."""
        restored = output.float()
        parts: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        if self.settings.l1:
            parts["l1"], weights["l1"] = l1(restored, target), self.settings.l1
        if self.settings.perceptual:
            parts["perceptual"], weights["perceptual"] = self.distance(restored, target), self.settings.perceptual
        if discriminator is not None:
            parts["adversarial"] = generator_loss(discriminator(restored).float())
            weights["adversarial"] = self.settings.adversarial
        return weighted(parts, weights), parts

    def score(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """How far validation photos are from their targets, per photo; `total` decides which weights are best.

        The adversarial part is left out: it compares with a discriminator that changes.
        """
        restored = output.float().clamp(0, 1)
        parts = {"l1": l1(restored, target), "perceptual": self.distance(restored, target)}
        total = self.settings.l1 * parts["l1"] + self.settings.perceptual * parts["perceptual"]
        return {**parts, "total": total}


def network_with_codes(restorer: Restorer) -> PredictsCodes:
    """The network of a restorer that predicts codes, of whatever architecture.

    Raises:
        UsageError: it lacks something of that.
    """
    # Not by isinstance: from Python 3.12 on that does not see the submodules of a module.
    if missing := [name for name in CODE_NEEDS if not hasattr(restorer.network, name)]:
        raise UsageError(
            f"{restorer.name}: a {restorer.architecture} predicts no codes (it has no {', '.join(missing)}); a recipe"
            " with `objective: codes` needs a network that does, as a codeformer, and one with `objective: image` takes"
            " any restorer"
        )
    return cast(PredictsCodes, restorer.network)


def _image(settings: FinetuneSettings, restorer: Restorer, distance: Distance, _: Teacher | None) -> ImageObjective:
    return ImageObjective(settings, restorer.network, distance)


def _codes(
    settings: CodeFinetuneSettings, restorer: Restorer, distance: Distance, teacher: Teacher | None
) -> CodeObjective:
    network = network_with_codes(restorer)
    if teacher is None:
        raise UsageError(f"{restorer.name}: `objective: codes` needs a teacher, which gives the codes of the targets")
    return code_objective(settings, network, teacher=teacher, distance=distance)


# Each of: its settings, the restorer, the perceptual distance, and a teacher where there is one.
OBJECTIVES: Final[dict[str, Callable[[Any, Restorer, Distance, Teacher | None], Objective]]] = {
    "image": _image,
    "codes": _codes,
}
