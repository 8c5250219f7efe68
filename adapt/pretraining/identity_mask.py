"""Training of the mask of identity guidance: Diffuse and Restore, Sec. 3.2.1.

A step: the conditioner restores a damaged face, the prior takes it from T' to a lower timestep and says what is clean
there, identity guidance moves that through the mask, and what comes out should show the person (Eq. 7) and look like
the clean face. Differs: the mask is soft in training, and 0 or 1 afterwards; the paper does not say how its own is made
binary. The way to the lower timestep is one step of the prior, where the paper samples. And the mask may cost something
(`area`): the guidance of this project keeps its length, so that it does no harm anywhere, and the two losses of the
paper then open the mask everywhere.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from adapt.diffusion.prior import Prior
from adapt.diffusion.schedule import linear_schedule, noised
from adapt.diffusion.steps import Step, plan_from
from adapt.faces.recogniser import FaceIdentifier
from adapt.guidance.identity import way_to
from adapt.guidance.mask import MaskNetwork, changed
from adapt.images import to_signed, to_unit
from adapt.pretraining.pairs import Pairs
from adapt.restorers.base import Restorer
from adapt.settings import IdentityMaskSettings, IdentitySettings
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.losses import Distance
from adapt.training.sampling import step_generator

MOST: Final = IdentitySettings().most  # of what guidance moves by, as recipes have it


def train_identity_mask(
    settings: IdentityMaskSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    conditioner: Restorer,
    prior: Prior,
    recogniser: FaceIdentifier,
    distance: Distance | None,
) -> dict[str, Tensor]:
    """Train it, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        conditioner, prior, recogniser: frozen.
        distance: perceptual distance; needed where settings.perceptual > 0.

    Returns:
        The averaged weights.

    Raises:
        TrainingError: a loss is not finite.
    """
    network = MaskNetwork(settings.features)
    _initialise(network, settings.seed)
    abar = linear_schedule().abar
    for frozen in (conditioner, prior, recogniser):
        frozen.to(context.device)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        damaged, clean = pairs(step)
        with torch.no_grad():
            restored = to_signed(conditioner(damaged))
            photos = to_signed(damaged)
            t = int(torch.randint(1, settings.start_t + 1, (), generator=step.generator))
            x0 = restored
            for level in sorted({settings.start_t, t}, reverse=True):
                noise = torch.randn(clean.shape, generator=step.generator).to(clean)
                x_t = noised(x0, float(abar[level]), noise)
                x0 = prior.predict(x_t, _step_at(level), photos).x0
            guide = recogniser.unchecked(to_unit(restored))
        mask = forward(photos, changed(photos, restored, settings.delta))
        moved = to_unit(x0 - way_to(x0, guide, recogniser, mask=mask, most=MOST))
        parts = {"recognition": recogniser.distance(recogniser.unchecked(moved), guide).mean()}
        total = settings.recognition * parts["recognition"]
        if settings.perceptual and distance is not None:
            parts["perceptual"] = distance(moved, clean).mean()
            total = total + settings.perceptual * parts["perceptual"]
        parts["area"] = mask.mean()
        return total + settings.area * parts["area"], parts

    with Pairs(faces, settings, context) as pairs:
        return train(network, losses, settings, context=context, steps=settings.steps)


def _step_at(t: int) -> Step:
    return plan_from(t, 1, 0).steps[0]


def _initialise(network: MaskNetwork, seed: int) -> None:
    """Draw the weights anew from the run's own generator: PyTorch's defaults come from a global one."""
    generator = step_generator(seed, 0, rank=-1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                bound = 1 / parameter[0].numel() ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.zero_()
