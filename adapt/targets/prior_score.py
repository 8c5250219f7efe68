"""What the prior thinks of an image: it is shown the image under noise, and what it gives back is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from adapt.blur.labels import blur_errors
from adapt.diffusion.prior import Predictor
from adapt.diffusion.sampler import PhotoNoise
from adapt.diffusion.schedule import linear_schedule, noised
from adapt.diffusion.steps import Step
from adapt.images import to_signed, to_unit
from degradations.blind import PUBLISHED_SIZE
from degradations.cosines import gaussian_blur

SHOWN_AT: Final = 300  # timestep: enough noise to hide grain, too little to hide a face
COARSE: Final = 10.0  # std in pixels at 512: what is left under this blur is structure
LITTLE: Final = 1e-4  # a change below it is none
FINE: Final = 4.0  # what this blur takes away is detail


@dataclass(frozen=True, slots=True)
class PriorScore:
    """Of each image.

    Attributes:
        change: mean absolute difference, in [0, 1], between the image and what the prior gives back, both blurred:
            how much of its coarse structure is no face's. (B,) float64.
        detail: standard deviation of the fine detail that the prior gives back; what it takes for noise is not in it,
            what it expects of a face is. (B,) float64.
    """

    change: Tensor
    detail: Tensor


@torch.no_grad()
def score_by_prior(prior: Predictor, images: Tensor, seeds: Sequence[int]) -> PriorScore:
    """What the prior thinks of images (B, 3, H, W) in [0, 1], under noise of a seed each.

    Each is shown by itself, so that no last bit of it comes from its batch. Source: none of the papers.
    """
    scale = images.shape[-1] / PUBLISHED_SIZE
    coarse = torch.tensor([COARSE * scale], dtype=torch.float64)
    changes: list[Tensor] = []
    details: list[Tensor] = []
    for image, seed in zip(images.split(1), seeds, strict=True):
        given = _given_back(prior, image, seed)
        changes.append(blur_errors(image, given, coarse)[:, 0].double())
        details.append(fine_detail(given))
    return PriorScore(torch.cat(changes), torch.cat(details))


def fine_detail(images: Tensor) -> Tensor:
    """How much of images (B, 3, H, W) is fine detail: the standard deviation of what a small blur takes away, (B,)
    float64."""
    std = torch.full((len(images),), FINE * images.shape[-1] / PUBLISHED_SIZE, device=images.device)
    return (images - gaussian_blur(images, std)).double().std(dim=(1, 2, 3))


def _given_back(prior: Predictor, image: Tensor, seed: int) -> Tensor:
    abar = float(linear_schedule().abar[SHOWN_AT])
    noise = PhotoNoise([seed], (image.shape[1], image.shape[2], image.shape[3]), image.device)()
    step = Step(SHOWN_AT, -1, abar, 1.0, 0.0)
    return to_unit(prior.predict(noised(to_signed(image), abar, noise), step).x0)
