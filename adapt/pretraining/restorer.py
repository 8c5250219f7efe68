"""Pre-training of a SwinIR restorer on the blind degradation: DT-BFR Eq. (9), losses of Eq. (8) without the GAN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adapt.restorers.swinir import SwinIR
from adapt.settings import BlindSettings, OneStepTrainingSettings, RestorerSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.sampling import step_generator
from degradations.blind import BlindRanges, degrade_blind, draw_blind, to_grey
from degradations.chain import degrade
from degradations.pieces.base import Degradation, new_seed

Distance = Callable[[Tensor, Tensor], Tensor]


def blind_ranges(settings: BlindSettings, size: int) -> BlindRanges:
    """The published ranges, their lengths scaled from 512 pixels to `size`."""
    return BlindRanges(**settings.model_dump()).scaled(size)


def clean_images(faces: Tensor, generator: torch.Generator) -> Tensor:
    """One batch of uint8 faces as (B, 3, H, W) in [0, 1], each mirrored or not at random."""
    clean = faces.float() / 255
    mirrored = torch.rand(len(clean), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), clean.flip(-1), clean)


def blind_pairs(
    faces: Tensor,
    ranges: BlindRanges,
    generator: torch.Generator,
    *,
    chain: Sequence[Degradation] = (),
    share: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Degraded and clean images of one batch of uint8 faces, both (B, 3, H, W) in [0, 1], mirrored at random.

    Args:
        faces: (B, 3, H, W) uint8.
        ranges: of the blind degradation, for this size.
        generator: of all that is random.
        chain: degradations that a share of the images get in its place.
        share: that share.
    """
    clean = clean_images(faces, generator)
    damaged: list[Tensor] = []
    truths: list[Tensor] = []
    for image in clean:
        if share and float(torch.rand((), generator=generator)) < share:
            damaged.append(degrade(image, chain, new_seed(generator))[0])
            truths.append(image)
            continue
        parameters = draw_blind(ranges, generator)
        damaged.append(degrade_blind(image, parameters, generator))
        truths.append(to_grey(image[None])[0] if parameters.grey else image)
    return torch.stack(damaged), torch.stack(truths)


def image_losses(
    restored: Tensor, clean: Tensor, settings: RestorerSettings | OneStepTrainingSettings, distance: Distance | None
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
    settings: RestorerSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    distance: Distance | None = None,
) -> dict[str, Tensor]:
    """Train SwinIR, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        distance: perceptual distance; needed where settings.perceptual > 0.

    Returns:
        The averaged weights, in the public layout.

    Raises:
        TrainingError: a loss is not finite.
    """
    network = SwinIR(settings.network)
    initialise(network, settings.seed)
    ranges = blind_ranges(settings.degradation, settings.size)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = step.batch(faces, settings)
        damaged, clean = (part.to(step.device) for part in blind_pairs(chosen, ranges, step.generator))
        return image_losses(forward(damaged).float(), clean, settings, distance)

    return train(network, losses, settings, context=context, steps=settings.steps)


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
