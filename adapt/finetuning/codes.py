"""The code-level objective: a restorer that predicts codes learns which the target has (DT-BFR Sec. 4.1, App. C.2).

Its losses are those of CodeFormer's stage II (Zhou et al. 2022, arXiv:2206.11253), one value per photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from adapt.errors import UsageError
from adapt.restorers.codeformer import Reading
from adapt.settings import CodeFinetuneSettings
from adapt.training.code_losses import Attempt, Attempts, PredictsCodes, Teacher, code_feature, code_token
from adapt.training.losses import Distance, generator_loss, l1, weighted

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
    """

    settings: CodeFinetuneSettings
    network: PredictsCodes
    teacher: Teacher
    distance: Distance

    def module(self) -> nn.Module:
        """What training runs."""
        settings = self.settings
        looked_at = settings.l1 or settings.perceptual or settings.adversarial
        return Attempts(self.network, settings.fidelity if looked_at else None)

    def image(self, output: Attempt) -> Tensor:
        """The image of an attempt at which a loss looks, (B, 3, S, S)."""
        return cast(Tensor, output.image).float()

    def losses(
        self, output: Attempt, target: Tensor, discriminator: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo; the output is the module's, target (B, 3, S, S) in [0, 1]."""
        settings = self.settings
        parts = self._of_codes(output.reading, target)
        weights = {"feature": settings.feature, "token": settings.token}
        parts = {name: part for name, part in parts.items() if weights[name]}
        weights = {name: weights[name] for name in parts}
        if output.image is not None:
            image = self.image(output)
            if settings.l1:
                parts["l1"], weights["l1"] = l1(image, target), settings.l1
            if settings.perceptual:
                parts["perceptual"], weights["perceptual"] = self.distance(image, target), settings.perceptual
            if discriminator is not None:
                parts["adversarial"] = generator_loss(discriminator(image).float())
                weights["adversarial"] = settings.adversarial
        return weighted(parts, weights), parts

    def score(self, output: Attempt, target: Tensor) -> dict[str, Tensor]:
        """How far validation photos are from their targets, per photo; `total` decides which weights are best.

        It is Eq. (13). How far the images are is told beside it.
        """
        parts = self._of_codes(output.reading, target)
        total = self.settings.feature * parts["feature"] + self.settings.token * parts["token"]
        image = self.image(output).clamp(0, 1)
        return {**parts, "l1": l1(image, target), "perceptual": self.distance(image, target), "total": total}

    def _of_codes(self, reading: Reading, target: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(target.device.type, enabled=False):
            codes = self.teacher.codes(target)
            rows = self.network.quantize.look_up(codes)
        return {
            "feature": code_feature(reading.feature.float(), rows.float()),
            "token": code_token(reading.logits.float(), codes),
        }


def code_objective(
    settings: CodeFinetuneSettings, network: PredictsCodes, *, teacher: Teacher, distance: Distance
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
    return CodeObjective(settings, network, teacher, distance)
