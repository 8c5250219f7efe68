"""The code-level objective: a restorer that predicts codes learns which the target has (DT-BFR Sec. 4.1, App. C.2).

Its losses are those of CodeFormer's stage II (Zhou et al. 2022, arXiv:2206.11253), one value per photo.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import UsageError
from adapt.finetuning.losses import Distance, fools, l1, weighted
from adapt.restorers.codeformer import DEFAULT_FIDELITY, Reading
from adapt.restorers.vqgan import Codebook
from adapt.settings import CodeFinetuneSettings

STORED_AS_HALF = 2e-3  # how far rows of one codebook may be apart, next to the largest, where a file holds 16 bits


def code_feature(feature: Tensor, rows: Tensor) -> Tensor:
    """L_code^feat: mean squared distance of what the encoder says to the rows it should be near, all (B, C, h, h).

    (B,); gradients reach the encoder alone.
    """
    return (feature - rows.detach()).square().mean(dim=(1, 2, 3))


def code_token(logits: Tensor, codes: Tensor) -> Tensor:
    """L_code^token: cross-entropy of logits (B, N, K) against codes (B, N), averaged over places -> (B,)."""
    return F.cross_entropy(logits.transpose(1, 2), codes, reduction="none").mean(dim=1)


class Teacher(Protocol):
    """What knows the codes of a clean picture: a VQGAN, or another CodeFormer."""

    quantize: Codebook

    def codes(self, picture: Tensor) -> Tensor:
        """The codes of pictures (B, 3, S, S) in [0, 1]: (B, N) int64."""
        ...


class PredictsCodes(Teacher, Protocol):
    """What the objective asks of a network, of whatever architecture; a CodeFormer has it all."""

    def read(self, photo: Tensor) -> Reading:
        """What it takes photos (B, 3, S, S) in [0, 1] to show: the codes' logits, and what the encoder says."""
        ...

    def generate(self, reading: Reading, fidelity: float) -> Tensor:
        """The picture of a reading, (B, 3, S, S), about [0, 1]."""
        ...

    def train_only(self, parts: Collection[str]) -> None:
        """Let gradients reach these of its parts, as `CodeFinetuneSettings.trains` names them, and no other."""
        ...


CODE_NEEDS: Final = ("quantize", "codes", "read", "generate", "train_only")  # the members of `PredictsCodes`


class Attempt(NamedTuple):
    """What a network makes of photos: what it reads in them, and the picture where one was asked for."""

    reading: Reading
    picture: Tensor | None


class Attempts(nn.Module):
    """A network that predicts codes, as its training runs it: photos (B, 3, S, S) in [0, 1] to an `Attempt`.

    In training a picture is made only if a loss looks at it, and nothing of it reaches encoder or transformer: it
    trains the fusion. In evaluation it is the picture that the restorer gives.

    Args:
        network: a module; its weights are shared.
        fidelity: w of the training's picture; None for no picture.
    """

    def __init__(self, network: PredictsCodes, fidelity: float | None) -> None:
        super().__init__()
        self.network = network
        self.fidelity = fidelity

    def forward(self, photo: Tensor) -> Attempt:
        reading = self.network.read(photo)
        if not self.training:
            return Attempt(reading, self.network.generate(reading, DEFAULT_FIDELITY))
        if self.fidelity is None:
            return Attempt(reading, None)
        return Attempt(reading, self.network.generate(reading.detached(), self.fidelity))


@dataclass(frozen=True, slots=True)
class CodeObjective:
    """DT-BFR Eq. (13), L = L_code^feat + 0.5 L_code^token, and the losses on pictures of Table 5's last row.

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

    def picture(self, output: Attempt) -> Tensor:
        """The picture of an attempt at which a loss looks, (B, 3, S, S)."""
        return cast(Tensor, output.picture).float()

    def losses(
        self, output: Attempt, target: Tensor, discriminator: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every part per photo; the output is the module's, target (B, 3, S, S) in [0, 1]."""
        settings = self.settings
        parts = self._of_codes(output.reading, target)
        weights = {"feature": settings.feature, "token": settings.token}
        parts = {name: part for name, part in parts.items() if weights[name]}
        weights = {name: weights[name] for name in parts}
        if output.picture is not None:
            picture = self.picture(output)
            if settings.l1:
                parts["l1"], weights["l1"] = l1(picture, target), settings.l1
            if settings.perceptual:
                parts["perceptual"], weights["perceptual"] = self.distance(picture, target), settings.perceptual
            if discriminator is not None:
                parts["adversarial"], weights["adversarial"] = fools(discriminator(picture)), settings.adversarial
        return weighted(parts, weights), parts

    def score(self, output: Attempt, target: Tensor) -> dict[str, Tensor]:
        """How far held-back photos are from their targets, per photo; `total` decides which weights are best.

        It is Eq. (13). How far the pictures are is told beside it.
        """
        parts = self._of_codes(output.reading, target)
        total = self.settings.feature * parts["feature"] + self.settings.token * parts["token"]
        picture = self.picture(output).clamp(0, 1)
        return {**parts, "l1": l1(picture, target), "perceptual": self.distance(picture, target), "total": total}

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
