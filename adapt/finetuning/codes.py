"""The code-level objective: a restorer that predicts codes learns which the target has (DT-BFR Sec. 4.1, App. C.2).

Its losses are those of CodeFormer's stage II (Zhou et al. 2022, arXiv:2206.11253), one value per photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from adapt.errors import UsageError
from adapt.faces.recogniser import FaceIdentifier
from adapt.finetuning.image_losses import AdversarialTerm, ImageLosses, Photos, Terms
from adapt.restorers.codeformer import Reading
from adapt.settings import CodeFinetuneSettings
from adapt.training.code_losses import Attempt, Attempts, PredictsCodes, Teacher, code_feature, code_token
from adapt.training.losses import Distance

STORED_AS_HALF = 2e-3  # how far rows of one codebook may be apart, next to the largest, where a file holds 16 bits


CODE_NEEDS: Final = ("quantize", "codes", "read", "generate", "train_only")  # the members of `PredictsCodes`


@dataclass(frozen=True, slots=True)
class CodeObjective:
    """DT-BFR Eq. (13), L = L_code^feat + 0.5 L_code^token, and the losses on images of Table 5's last row.

    Attributes:
        settings: the weights; a part of weight 0 is not computed.
        network: what is trained; `code_objective` freezes the parts that `settings.trains` leaves out.
        teacher: gives the target's codes, frozen. The paper takes the encoder of the codebook's own VQGAN; the public
            code takes the pre-trained CodeFormer's.
        distance: the perceptual distance.
        recogniser: needed where `face_identity` has a weight.
    """

    settings: CodeFinetuneSettings
    network: PredictsCodes
    teacher: Teacher
    distance: Distance
    recogniser: FaceIdentifier | None = None

    def module(self) -> nn.Module:
        """What training runs."""
        settings = self.settings
        return Attempts(self.network, settings.fidelity if settings.looks_at_images else None)

    def image(self, output: Attempt) -> Tensor:
        """The image of an attempt at which a loss looks, (B, 3, S, S)."""
        return cast(Tensor, output.image).float()

    def losses(
        self, output: Attempt, target: Tensor, gan: AdversarialTerm | None, photos: Photos | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo; the output is the module's, target (B, 3, S, S) in [0, 1]."""
        settings = self.settings
        parts = self._of_codes(output.reading, target)
        weights = {"feature": settings.feature, "token": settings.token}
        kept = [name for name in parts if weights[name]]
        codes = Terms({name: parts[name] for name in kept}, {name: weights[name] for name in kept})
        if output.image is None:
            return codes.joined(Terms({}, {}))
        return codes.joined(self._images().terms(self.image(output), target, gan, photos))

    def score(self, output: Attempt, target: Tensor) -> dict[str, Tensor]:
        """How far validation photos are from their targets, per photo; `total` decides which weights are best.

        It is Eq. (13), and the identity where that has a weight. How far the images are is told beside it.
        """
        settings = self.settings
        parts = self._of_codes(output.reading, target)
        total = settings.feature * parts["feature"] + settings.token * parts["token"]
        parts |= self._images().scores(self.image(output).clamp(0, 1), target)
        if settings.face_identity:
            total = total + settings.face_identity * parts["face_identity"]
        return {**parts, "total": total}

    def _images(self) -> ImageLosses:
        return ImageLosses(self.settings, self.distance, self.recogniser)

    def _of_codes(self, reading: Reading, target: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(target.device.type, enabled=False):
            codes = self.teacher.codes(target)
            rows = self.network.quantize.look_up(codes)
        return {
            "feature": code_feature(reading.feature.float(), rows.float()),
            "token": code_token(reading.logits.float(), codes),
        }


def code_objective(
    settings: CodeFinetuneSettings,
    network: PredictsCodes,
    *,
    teacher: Teacher,
    distance: Distance,
    recogniser: FaceIdentifier | None = None,
) -> CodeObjective:
    """Freeze all that `settings.trains` does not name, and see that teacher and network mean the same by a code.

    Raises:
        UsageError: their codebooks differ.
    """
    own, theirs = network.quantize.embedding.weight, teacher.quantize.embedding.weight
    if own.shape != theirs.shape:
        raise UsageError(
            f"teacher: its codebook has {theirs.shape[0]} codes of {theirs.shape[1]} numbers, and the restorer's"
            f" {own.shape[0]} of {own.shape[1]}; take the codebook the restorer was trained with, or teacher: restorer"
        )
    if (own - theirs.to(own)).abs().max() > STORED_AS_HALF * own.abs().max():
        raise UsageError(
            "teacher: its codebook is not the restorer's, so its codes mean other things;"
            " take the codebook the restorer was trained with, or teacher: restorer"
        )
    network.train_only(settings.trains)
    return CodeObjective(settings, network, teacher, distance, recogniser)
