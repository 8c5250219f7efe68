"""Pre-training of the diffusion prior that sees the photo: Diffuse and Restore, Sec. 3.2.

It begins as a prior without photo, or as a thinner part of one, whose first convolution does not look at the photo yet,
so that it costs a fraction of a training anew. Losses as of that prior (`adapt.pretraining.prior`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapt.diffusion.prior import SEEING
from adapt.diffusion.unet import UNet
from adapt.images import to_signed
from adapt.pretraining.pairs import Pairs
from adapt.pretraining.prior import denoising
from adapt.pretraining.thinning import thinned
from adapt.settings import ConditionalPriorSettings, UNetSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train


@torch.no_grad()
def seeing(network: nn.Module, layout: UNetSettings | None = None) -> UNet:
    """A U-Net that takes the photo as three more channels, and does not look at them yet.

    Args:
        network: the U-Net of a prior; it stays as it is. One that sees the photo already goes on with what it sees.
        layout: with fewer channels or blocks at some levels; its own where None.

    Raises:
        UsageError: a layout that is no part of the network's.
    """
    assert isinstance(network, UNet)
    known = network.settings.in_channels
    thin = thinned(network, (layout or network.settings).model_copy(update={"in_channels": known}))
    if known == SEEING:
        return thin
    made = UNet(thin.settings.model_copy(update={"in_channels": SEEING}))
    first = "input_blocks.0.0.weight"
    state = thin.state_dict()
    state[first] = torch.cat([state[first], torch.zeros_like(state[first])], dim=1)
    made.load_state_dict(state)
    return made


def train_conditional_prior(
    settings: ConditionalPriorSettings, faces: Tensor, context: TrainingContext, *, start: nn.Module
) -> tuple[UNetSettings, dict[str, Tensor]]:
    """Train it, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        start: the U-Net of a prior; it stays as it is.

    Returns:
        Its layout and its averaged weights.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: as `seeing`.
    """
    network = seeing(start, settings.network)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        damaged, clean = (to_signed(part) for part in pairs(step))
        return denoising(forward, clean, settings, step.generator, photos=damaged)

    with Pairs(faces, settings, context) as pairs:
        state = train(network, losses, settings, context=context, steps=settings.steps)
    return network.settings, state
