"""Objectives: what a recipe minimises, on images or on codes. A new one is a class and a line in the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from torch import Tensor, nn

from adapt.errors import UsageError
from adapt.faces.recogniser import FaceIdentifier
from adapt.finetuning.codes import CODE_NEEDS, CodeObjective, code_objective
from adapt.finetuning.image_losses import AdversarialTerm, ImageLosses, Photos, Terms
from adapt.restorers.base import Restorer
from adapt.settings import CodeFinetuneSettings, FinetuneSettings
from adapt.training.code_losses import PredictsCodes, Teacher
from adapt.training.losses import Distance


class Objective(Protocol):
    """What fine-tuning asks of an objective; the output is what the module makes of photos (B, 3, S, S) in [0, 1]."""

    def module(self) -> nn.Module:
        """What training and scoring run; its weights are the restorer's network's."""
        ...

    def losses(
        self, output: Any, target: Tensor, gan: AdversarialTerm | None, photos: Photos | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo; without `gan` none is adversarial, without photos none consistency."""
        ...

    def image(self, output: Any) -> Tensor:
        """The image that a discriminator looks at, (B, 3, S, S)."""
        ...

    def score(self, output: Any, target: Tensor) -> dict[str, Tensor]:
        """How far validation photos are from their targets, per photo: l1, perceptual, `face_identity` where it has a
        weight, what else the objective counts, and `total`, which decides which weights are best. The module is in
        evaluation."""
        ...


@dataclass(frozen=True, slots=True)
class ImageObjective:
    """Losses on images alone (DT-BFR Eq. 8, and what `ImageLosses` adds).

    Attributes:
        settings: the weights; a part of weight 0 is not computed.
        network: the restorer's.
        distance: the perceptual distance, (B, 3, H, W) twice -> (B,).
        recogniser: needed where `face_identity` has a weight.
    """

    settings: FinetuneSettings
    network: nn.Module
    distance: Distance
    recogniser: FaceIdentifier | None = None

    def module(self) -> nn.Module:
        """The network itself."""
        return self.network

    def image(self, output: Tensor) -> Tensor:
        """The output itself."""
        return output.float()

    def losses(
        self, output: Tensor, target: Tensor, gan: AdversarialTerm | None, photos: Photos | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo."""
        return self._images().terms(self.image(output), target, gan, photos).joined(Terms({}, {}))

    def score(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """How far validation photos are from their targets, per photo; `total` decides which weights are best."""
        parts = self._images().scores(output.float().clamp(0, 1), target)
        settings = self.settings
        total = settings.l1 * parts["l1"] + settings.perceptual * parts["perceptual"]
        if settings.face_identity:
            total = total + settings.face_identity * parts["face_identity"]
        return {**parts, "total": total}

    def _images(self) -> ImageLosses:
        return ImageLosses(self.settings, self.distance, self.recogniser)


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


def _image(
    settings: FinetuneSettings, restorer: Restorer, distance: Distance, _: Teacher | None,
    recogniser: FaceIdentifier | None,
) -> ImageObjective:
    return ImageObjective(settings, restorer.network, distance, recogniser)


def _codes(
    settings: CodeFinetuneSettings,
    restorer: Restorer,
    distance: Distance,
    teacher: Teacher | None,
    recogniser: FaceIdentifier | None,
) -> CodeObjective:
    network = network_with_codes(restorer)
    if teacher is None:
        raise UsageError(f"{restorer.name}: `objective: codes` needs a teacher, which gives the codes of the targets")
    return code_objective(settings, network, teacher=teacher, distance=distance, recogniser=recogniser)


# Each of: its settings, the restorer, the perceptual distance, and where there is one a teacher and a recogniser.
OBJECTIVES: Final[
    dict[str, Callable[[Any, Restorer, Distance, Teacher | None, FaceIdentifier | None], Objective]]
] = {
    "image": _image,
    "codes": _codes,
}
