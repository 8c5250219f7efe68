"""The losses on images, one value per photo: what every objective that looks at images weighs, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.errors import UsageError
from adapt.faces.measures import identity_loss
from adapt.faces.recogniser import FaceIdentifier
from adapt.images import block_side
from adapt.settings import TuningSettings
from adapt.training.adversary import balance
from adapt.training.losses import Distance, l1, weighted
from degradations.cosines import gaussian_blur


class Photos(NamedTuple):
    """What was restored.

    Attributes:
        images: (B, 3, S, S) in [0, 1].
        blur: the std of each photo's blur in pixels, (B,); nan where it is not known, or the pair was made up.
    """

    images: Tensor
    blur: Tensor


class AdversarialTerm(NamedTuple):
    """The generator's side of the adversarial training.

    Attributes:
        loss: of images (B, 3, S, S): (B,).
        last: weights of the last layer that learns, where the discriminator's pull there is held against that of the
            other losses; None where its weight is fixed.
    """

    loss: Callable[[Tensor], Tensor]
    last: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """Losses by name, and their weights.

    Attributes:
        parts: (B,) each.
        weights: of the same names; one may be a tensor.
        told: what else is logged, (1,) each.
    """

    parts: dict[str, Tensor]
    weights: dict[str, float | Tensor]
    told: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def joined(self, others: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """The total of these and others, and every part with what else is told."""
        parts, weights = {**self.parts, **others.parts}, {**self.weights, **others.weights}
        return weighted(parts, weights), {**parts, **self.told, **others.told}


@dataclass(frozen=True, slots=True)
class ImageLosses:
    """L1, perceptual and adversarial loss (DT-BFR Eq. 8), and two that are in neither paper: identity and consistency.

    Attributes:
        settings: the weights; a part of weight 0 is not computed.
        distance: the perceptual distance, (B, 3, H, W) twice -> (B,).
        recogniser: whose embeddings tell faces apart; needed where `face_identity` has a weight.
    """

    settings: TuningSettings
    distance: Distance
    recogniser: FaceIdentifier | None = None

    def terms(self, image: Tensor, target: Tensor, gan: AdversarialTerm | None, photos: Photos | None) -> Terms:
        """Every loss that has a weight.

        Args:
            image: restored photos, (B, 3, S, S), about [0, 1], float32.
            target: what they should be, in [0, 1].
            gan: None leaves the adversarial loss out.
            photos: what they were restored from; None leaves the consistency out.
        """
        settings = self.settings
        parts: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        if settings.l1:
            parts["l1"], weights["l1"] = l1(image, target), settings.l1
        if settings.perceptual:
            parts["perceptual"], weights["perceptual"] = self.distance(image, target), settings.perceptual
        if settings.face_identity:
            parts["face_identity"], weights["face_identity"] = self._identity(image, target), settings.face_identity
        if settings.consistency and photos is not None:
            parts["consistency"], weights["consistency"] = consistency(image, photos), settings.consistency
        if gan is None:
            return Terms(parts, weights)
        adversarial = gan.loss(image)
        share = None if gan.last is None else balance(weighted(parts, weights), adversarial.mean(), gan.last)
        parts["adversarial"] = adversarial
        weights["adversarial"] = settings.adversarial * (1.0 if share is None else share)
        return Terms(parts, weights, {} if share is None else {"balance": share[None]})

    def scores(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """How far images are from their targets, per photo: l1, perceptual, and the identity where it has a weight.

        The adversarial part is left out: it compares with a discriminator that changes.
        """
        scores = {"l1": l1(image, target), "perceptual": self.distance(image, target)}
        if self.settings.face_identity:
            scores["face_identity"] = self._identity(image, target)
        return scores

    def _identity(self, image: Tensor, target: Tensor) -> Tensor:
        if self.recogniser is None:
            raise UsageError("face_identity: has a weight, and there is no recogniser to tell faces apart")
        return identity_loss(image, target, self.recogniser)


def consistency(restored: Tensor, photos: Photos) -> Tensor:
    """Mean absolute difference of restored and photo under the photo's own blur, of the means of blocks, (B,).

    Restoring may add what blur and noise have hidden, and nothing else: under the same blur, and where noise averages
    out (`adapt.images.block_side`: 32 blocks along a side), the photo comes back. 0 where the blur is not known.
    """
    known = photos.blur.isfinite()
    change = gaussian_blur(restored - photos.images, torch.where(known, photos.blur, 0.0))
    blocks = F.avg_pool2d(change, block_side(change.shape[2], change.shape[3]), ceil_mode=True, count_include_pad=False)
    return torch.where(known, blocks.abs().mean(dim=(1, 2, 3)), 0.0).to(restored.dtype)
