"""Identity guidance: the clean image should show the person whom the restored photo shows (Diffuse and Restore).

The guide is what the restorer made of the photo: the paper's identity-preserving conditioner g(x). The further it is
from the photo at a pixel, the more of the person was recovered there, and there alone the image may be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from adapt.diffusion.sampler import Conditioning, GuidanceLoss
from adapt.diffusion.steps import Step
from adapt.errors import UsageError
from adapt.faces.recogniser import FaceIdentifier
from adapt.guidance.mask import IdentityMask, changed
from adapt.images import to_unit


class IdentityMemory(NamedTuple):
    """What the term remembers.

    Attributes:
        guide: the embeddings of the restored photos, (B, D).
        mask: where the image may be moved, (B, 1, H, W): 1, or 0.
    """

    guide: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Descends the recogniser's distance of the prediction from the restored photo.

    Attributes:
        recogniser: tells people apart.
        scale: how strongly: up to a quarter in proportion, above it as a quarter where `limit` holds.
        first_t, last_t: it acts from the one timestep down to above the other.
        mask: what names the pixels that may be moved (M); or delta of Eq. (8): where photo and restored photo differ by
            more, on the scale of [0, 1] (M'); None: everywhere.
        through_network: whether the gradient is taken with respect to x_t, as in the paper, or stays at x0.
        limit: as of every gradient term.
        most: root mean square of what a step may move the clean image by, on the scale of [-1, 1].

    Source: Diffuse and Restore, Eq. (6) to (9). Differs: the gradient is brought to the length at which the distance
    would vanish, were it linear, so that a scale means the same at every timestep and for every recogniser; the paper
    adds the raw one. The mask acts at the clean image instead of the noisy one.
    """

    recogniser: FaceIdentifier
    scale: float = 0.25
    first_t: int = 999
    last_t: int = 0
    mask: IdentityMask | float | None = None
    through_network: bool = True
    limit: bool = True
    most: float = 0.05
    acts_on: Literal["gradient"] = "gradient"

    @property
    def facts(self) -> Mapping[str, int]:
        """Nothing."""
        return {}

    def begin(self, conditioning: Conditioning) -> IdentityMemory:
        """The guides' embeddings and masks.

        Raises:
            UsageError: a mask is asked for, and the conditioning has no photo.
        """
        restored = conditioning.restored
        with torch.no_grad():
            guide = self.recogniser.unchecked(to_unit(restored))
        if self.mask is None:
            return IdentityMemory(guide, torch.ones_like(restored[:, :1]))
        if conditioning.photo is None:
            raise UsageError("identity: the mask needs the photos beside the restored ones")
        if isinstance(self.mask, IdentityMask):
            return IdentityMemory(guide, self.mask(conditioning.photo, restored))
        return IdentityMemory(guide, changed(conditioning.photo, restored, self.mask))

    def starting_image(self, memory: IdentityMemory) -> Tensor | None:
        """Left to others: the restored photo, as in the paper."""
        return None

    def guidance_loss(self, x0: Tensor, step: Step, memory: IdentityMemory) -> GuidanceLoss | None:
        """The squared way to where the distance would vanish, times the scale; none outside of its timesteps."""
        if not self.last_t < step.t <= self.first_t:
            return None
        way = way_to(x0, memory.guide, self.recogniser, mask=memory.mask, most=self.most)
        return GuidanceLoss(self.scale * way.square().sum(dim=(1, 2, 3)), 2 * self.scale * way)

    def apply(
        self, direction: Tensor, step: Step, memory: IdentityMemory, *, x0: Tensor, guidance_loss: GuidanceLoss
    ) -> tuple[Tensor, IdentityMemory]:
        """As it is."""
        return direction, memory


def way_to(x0: Tensor, guide: Tensor, recogniser: FaceIdentifier, *, mask: Tensor, most: float) -> Tensor:
    """What would bring the recogniser's distance of clean images from their guides to zero, were it linear.

    Args:
        x0: (B, 3, H, W) in [-1, 1].
        guide: embeddings, (B, D).
        recogniser: tells people apart.
        mask: where the images may be moved, (B, 1, H, W) in [0, 1]; gradients reach it.
        most: root mean square of the longest way.

    Returns:
        What is to be taken from x0, the same shape.
    """
    with torch.enable_grad():
        image = x0.detach().requires_grad_(True)
        apart = recogniser.distance(recogniser.unchecked(to_unit(image)), guide)
        (gradient,) = torch.autograd.grad(apart.sum(), image)
    gradient = gradient * mask
    tiny = torch.finfo(gradient.dtype).tiny
    steepness = gradient.square().sum(dim=(1, 2, 3)).clamp(min=tiny)
    way = (apart.detach() / steepness).view(-1, 1, 1, 1) * gradient
    far = way.square().mean(dim=(1, 2, 3), keepdim=True).clamp(min=tiny).sqrt()
    return way * (most / far).clamp(max=1)
