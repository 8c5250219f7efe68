"""How far a restored photo can be trusted, by what the prior would change of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapt.blur.labels import blur_errors
from adapt.diffusion.prior import Predictor
from adapt.diffusion.sampler import PhotoNoise
from adapt.diffusion.schedule import linear_schedule, noised
from adapt.diffusion.steps import Step
from adapt.images import to_signed, to_unit
from adapt.settings import DoubtSettings
from degradations.blind import PUBLISHED_SIZE


@torch.no_grad()
def doubted_std(prior: Predictor, restored: Tensor, seeds: Sequence[int], *, settings: DoubtSettings) -> Tensor:
    """The blur level below which the prior says not to trust restored photos: (B,) float64, pixels, from 0.

    An estimator of blur has only seen what its training damaged, and calls what a restorer makes of other damage
    sharp: of the blotches that it leaves of strong noise, or of eyes in the wrong place, it knows nothing. The prior
    knows faces. It is shown the restored photo under noise and gives it back; where what it gives back differs in
    coarse structure, and not in detail alone, the photo is no face to it. How much differs goes with the true level
    (std* of DynFaceRestore, Eq. 9) along a line, the same for damage of all kinds; `benchmarks/trust.py` measures it.

    Args:
        prior: the diffusion prior.
        restored: (B, 3, H, W) in [0, 1].
        seeds: of the noise, one per photo.
        settings: how it is shown, and the line.

    Source: none of the papers. Each photo is looked at by itself, so that no last bit comes from its batch.
    """
    scale = restored.shape[-1] / PUBLISHED_SIZE
    level = torch.tensor([settings.blur_std * scale], dtype=torch.float64)
    changes = torch.cat([
        blur_errors(photo, given_back(prior, photo, seed, settings.timestep), level)
        for photo, seed in zip(restored.split(1), seeds, strict=True)
    ])
    return (settings.slope * (changes[:, 0].double() - settings.floor)).clamp(min=0) * scale


def given_back(prior: Predictor, picture: Tensor, seed: int, timestep: int) -> Tensor:
    """What the prior makes of one picture, (1, 3, H, W) in [0, 1], that is noised to a timestep."""
    abar = float(linear_schedule().abar[timestep])
    noise = PhotoNoise([seed], (picture.shape[1], picture.shape[2], picture.shape[3]), picture.device)()
    step = Step(timestep, -1, abar, 1.0, 0.0)
    return to_unit(prior.predict(noised(to_signed(picture), abar, noise), step).x0)
