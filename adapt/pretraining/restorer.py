"""Pre-training of a restorer on known damage: DT-BFR Eq. (9), losses of Eq. (8), and what a recogniser says.

The discriminator that it may be trained against sees fine detail beside the image, as that of fine-tuning does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adapt.faces.measures import identity_loss
from adapt.faces.recogniser import FaceIdentifier
from adapt.pretraining.pairs import Pairs
from adapt.restorers.swinir import SwinIR
from adapt.settings import RestorerSettings, RestorerTrainingSettings
from adapt.training.adversary import (
    PatchDiscriminator,
    balance,
    discriminator_loss,
    generator_loss,
    last_layer,
    patch_discriminator,
)
from adapt.training.adversary import Verdict as Judgement
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.losses import Distance
from adapt.training.sampling import step_generator


class Judged(nn.Module):
    """A restorer and its discriminator, if it has one: all that a step runs."""

    def __init__(self, restorer: nn.Module, discriminator: PatchDiscriminator | None) -> None:
        super().__init__()
        self.restorer = restorer
        self.discriminator = discriminator

    def forward(self, damaged: Tensor, clean: Tensor) -> tuple[Tensor, Judgement | None]:
        restored = self.restorer(damaged)
        return restored, None if self.discriminator is None else self.discriminator.judge(clean, restored)


def image_losses(
    restored: Tensor, clean: Tensor, settings: RestorerTrainingSettings, distance: Distance | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 and perceptual loss of a batch, (B, 3, S, S) in [0, 1]: the total and its parts, scalars (DT-BFR Eq. 8).

    Args:
        restored, clean: what came out, and what should have.
        settings: the weights; a perceptual loss of weight 0 is not computed.
        distance: perceptual distance; needed where settings.perceptual > 0.
    """
    parts = {"l1": (restored - clean).abs().mean()}
    total = settings.l1 * parts["l1"]
    if settings.perceptual and distance is not None:
        parts["perceptual"] = distance(restored, clean).mean()
        total = total + settings.perceptual * parts["perceptual"]
    return total, parts


def train_restorer(
    network: nn.Module,
    settings: RestorerTrainingSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    distance: Distance | None = None,
    recogniser: FaceIdentifier | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train a restorer, or go on where the run folder's `last/state.pt` stands.

    Args:
        network: (B, 3, S, S) to the same, as it begins; trained in place.
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        distance: perceptual distance; needed where settings.perceptual > 0.
        recogniser: frozen; needed where settings.recognition > 0.

    Returns:
        Its averaged weights, and those of its discriminator, if it has one.

    Raises:
        TrainingError: a loss is not finite.
    """
    discriminator: PatchDiscriminator | None = None
    if settings.adversarial:
        generator = step_generator(settings.seed, 0, rank=-1)
        discriminator = patch_discriminator(settings.discriminator, settings.size, generator, detail=True)
    last = last_layer(network)
    if recogniser is not None:
        recogniser.to(context.device)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        damaged, clean = pairs(step)
        judgement: Judgement | None
        restored, judgement = forward(damaged, clean)
        restored = restored.float()
        total, parts = image_losses(restored, clean, settings, distance)
        if settings.recognition and recogniser is not None:
            parts["recognition"] = identity_loss(restored, clean, recogniser).mean()
            total = total + settings.recognition * parts["recognition"]
        if judgement is not None:
            adversarial, parts["discriminator"] = generator_loss(judgement), discriminator_loss(judgement)
            if step.place >= settings.adversarial_from:
                parts["adversarial"], parts["balance"] = adversarial, balance(total, adversarial, last)
                total = total + settings.adversarial * parts["balance"] * adversarial
            total = total + parts["discriminator"]
        return total, parts

    with Pairs(faces, settings, context) as pairs:
        state = train(Judged(network, discriminator), losses, settings, context=context, steps=settings.steps)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    return part("restorer."), part("discriminator.")


def new_swinir(settings: RestorerSettings) -> SwinIR:
    """The SwinIR that a training begins with where it begins anew: drawn from the run's own generator."""
    network = SwinIR(settings.network)
    initialise(network, settings.seed)
    return network


def initialise(network: SwinIR, seed: int) -> None:
    """Draw the weights anew from the run's own generator: PyTorch's defaults come from a global one."""
    generator = step_generator(seed, 0, rank=-1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("relative_position_bias_table") or parameter.ndim == 2:
                parameter.normal_(std=0.02, generator=generator).clamp_(-0.04, 0.04)
            elif parameter.ndim == 4:
                bound = 1 / math.sqrt(math.prod(parameter.shape[1:]))
                parameter.uniform_(-bound, bound, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
