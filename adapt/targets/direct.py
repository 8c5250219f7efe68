"""Photos that their restorer makes worse, told without a reference.

DT-BFR App. F suggests to feed a photo directly where the restorer fails completely, and leaves it to the eye.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapt.diffusion.prior import Predictor
from adapt.diffusion.sampler import PhotoNoise
from adapt.diffusion.schedule import linear_schedule, noised
from adapt.diffusion.steps import Step
from adapt.images import to_signed
from adapt.settings import DirectSettings
from adapt.targets.gate import low_frequency_change
from degradations.cosines import gaussian_blur

JUDGED_AT = 300  # timestep: enough noise to hide grain, too little to hide a face


@torch.no_grad()
def made_worse(
    prior: Predictor,
    photos: Tensor,
    restored: Tensor,
    std: Tensor,
    seeds: Sequence[int],
    *,
    settings: DirectSettings,
) -> Tensor:
    """Which photos are better fed as they are: (B,) bool.

    A restored photo is worse than its photo if it left it, that is if the two differ by more than
    `max_low_frequency_change` at 16 x 16 pixels; or if the prior finds it less like a face, that is if its error in
    denoising it is more than `error_ratio` times that in denoising the photo. For the second, both are blurred by the
    photo's std first: sharpness alone, which a prior always finds harder, must not count against the restorer.

    Args:
        prior: the diffusion prior.
        photos, restored: (B, 3, H, W) in [0, 1].
        std: the photos' blur levels, (B,) in pixels.
        seeds: one per photo; both pictures of a photo get the same noise.
        settings: the limits.
    """
    left = [
        low_frequency_change(after, before) > settings.max_low_frequency_change
        for before, after in zip(photos, restored, strict=True)
    ]
    errors = [
        torch.cat([denoising_error(prior, photo, [seed]) for photo, seed in zip(blurred.split(1), seeds, strict=True)])
        for blurred in (gaussian_blur(restored, std), gaussian_blur(photos, std))
    ]  # one at a time, so that a limit is never passed by what the batch does to the last bit
    unlike = errors[0] > settings.error_ratio * errors[1]
    return torch.tensor(left, device=photos.device) | unlike


@torch.no_grad()
def denoising_error(prior: Predictor, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
    """Mean squared error (B,), in [-1, 1], of the prior's clean image from the pictures noised to timestep 300."""
    abar = float(linear_schedule().abar[JUDGED_AT])
    step = Step(JUDGED_AT, -1, abar, 1.0, 0.0)
    clean = to_signed(pictures)
    shape = (clean.shape[1], clean.shape[2], clean.shape[3])
    noise = PhotoNoise(seeds, shape, clean.device)()
    return (prior.predict(noised(clean, abar, noise), step).x0 - clean).square().mean(dim=(1, 2, 3))
