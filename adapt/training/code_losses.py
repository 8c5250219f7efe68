"""Losses of a restorer that predicts codes, and what they ask of its network (CodeFormer's stage II).

Source: Zhou et al. 2022, arXiv:2206.11253; one value per photo.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from adapt.restorers.codeformer import DEFAULT_FIDELITY, Reading
from adapt.restorers.vqgan import Codebook


def code_feature(feature: Tensor, rows: Tensor) -> Tensor:
    """L_code^feat: mean squared distance of what the encoder says to the rows it should be near, all (B, C, h, h).

    (B,); gradients reach the encoder alone.
    """
    return (feature - rows.detach()).square().mean(dim=(1, 2, 3))


def code_token(logits: Tensor, codes: Tensor) -> Tensor:
    """L_code^token: cross-entropy of logits (B, N, K) against codes (B, N), averaged over places -> (B,)."""
    return F.cross_entropy(logits.transpose(1, 2), codes, reduction="none").mean(dim=1)


class Teacher(Protocol):
    """What knows the codes of a clean image: a VQGAN, or another CodeFormer."""

    quantize: Codebook

    def codes(self, image: Tensor) -> Tensor:
        """The codes of images (B, 3, S, S) in [0, 1]: (B, N) int64."""
        ...


class PredictsCodes(Teacher, Protocol):
    """What the objective asks of a network, of whatever architecture; a CodeFormer has it all."""

    def read(self, photo: Tensor) -> Reading:
        """What it takes photos (B, 3, S, S) in [0, 1] to show: the codes' logits, and what the encoder says."""
        ...

    def generate(self, reading: Reading, fidelity: float) -> Tensor:
        """The image of a reading, (B, 3, S, S), about [0, 1]."""
        ...

    def train_only(self, parts: Collection[str]) -> None:
        """Let gradients reach these of its parts, as `CodeFinetuneSettings.trains` names them, and no other."""
        ...


class Attempt(NamedTuple):
    """What a network makes of photos: what it reads in them, and the image where one was asked for."""

    reading: Reading
    image: Tensor | None


class Attempts(nn.Module):
    """A network that predicts codes, as its training runs it: photos (B, 3, S, S) in [0, 1] to an `Attempt`.

    In training an image is made only if a loss looks at it, and nothing of it reaches encoder or transformer: it
    trains the fusion. In evaluation it is the image that the restorer gives.

    Args:
        network: a module; its weights are shared.
        fidelity: w of the training's image; None for no image.
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
