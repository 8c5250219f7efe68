"""Pre-training of a codebook: stage I of CodeFormer (Zhou et al. 2022, arXiv:2206.11253, Sec. 3.1).

A VQGAN (Esser et al. 2021, arXiv:2012.09841) learns to give faces back through a few hundred codes. Codes that no
place of any face has chosen for a while are placed anew on what the encoder says just then (as in Jukebox, Dhariwal
et al. 2020, arXiv:2005.00341): without it most of a codebook is never used after so short a training.

The generator may go on alone, from codes that stay, against a discriminator that sees fine detail: what is too soft is
what it draws, and not what the codes say.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from adapt.pretraining.pairs import clean_images
from adapt.restorers.vqgan import VQGAN, Reconstruction
from adapt.settings import CodebookSettings
from adapt.training.adversary import (
    PatchDiscriminator,
    Verdict,
    balance,
    discriminator_loss,
    generator_loss,
    patch_discriminator,
)
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.losses import Distance
from adapt.training.sampling import step_generator

PLACED_UNTIL: Final = 0.8  # of the steps: then the learning rate falls, and what is placed anew would not be learnt


class Autoencoding(nn.Module):
    """A VQGAN with its discriminator, and how many steps ago each code was last chosen: all that a step runs."""

    idle: Tensor

    def __init__(self, network: VQGAN, discriminator: PatchDiscriminator | None, idle: int) -> None:
        super().__init__()
        self.network = network
        self.discriminator = discriminator
        self.register_buffer("idle", torch.full((network.settings.codebook_size,), idle))

    def forward(self, image: Tensor, judged: bool) -> tuple[Reconstruction, Verdict | None]:
        made = self.network(image)
        if not judged or self.discriminator is None:
            return made, None
        return made, self.discriminator.judge(image, made.image)


def train_codebook(
    settings: CodebookSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    distance: Distance | None = None,
    start: VQGAN | None = None,
) -> dict[str, Tensor]:
    """Train a VQGAN, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        distance: perceptual distance; needed where settings.perceptual > 0.
        start: what it begins as, of the recipe's layout; None: drawn anew.

    Returns:
        The averaged weights, in the public layout.

    Raises:
        TrainingError: a loss is not finite.
    """
    generator = step_generator(settings.seed, 0, rank=-1)
    network = VQGAN(settings.network)
    initialise(network, generator)
    if start is not None:
        network.load_state_dict(start.state_dict())
    if settings.generator_only:
        network.encoder.requires_grad_(False)
        network.quantize.requires_grad_(False)
    discriminator: PatchDiscriminator | None = None
    if settings.adversarial:
        judged = settings.crop if settings.crop and settings.adversarial_from < settings.whole_from else settings.size
        discriminator = patch_discriminator(settings.discriminator, judged, generator, detail=settings.detail)
    both = Autoencoding(network, discriminator, idle=settings.idle)
    last = list(network.generator.parameters())[-2]
    placed_until = PLACED_UNTIL * settings.steps

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = step.batch(faces, settings)
        image = clean_images(chosen, step.generator)
        if settings.crop is not None and step.place < settings.whole_from:
            image = random_crops(image, settings.crop, step.generator)
        image = image.to(step.device)
        made: Reconstruction
        made, verdict = forward(image, step.place >= settings.adversarial_from)
        restored = made.image.float()
        parts = {"l1": (restored - image).abs().mean()}
        if not settings.generator_only:
            parts["codebook"] = (made.quantised - made.feature.detach()).float().square().mean()
            parts["commitment"] = (made.quantised.detach() - made.feature).float().square().mean()
        given_back = settings.l1 * parts["l1"]
        if settings.perceptual and distance is not None:
            parts["perceptual"] = distance(restored, image).mean()
            given_back = given_back + settings.perceptual * parts["perceptual"]
        total = given_back
        if not settings.generator_only:
            total = total + settings.codebook * parts["codebook"] + settings.commitment * parts["commitment"]
        if verdict is not None:
            parts["adversarial"], parts["discriminator"] = generator_loss(verdict), discriminator_loss(verdict)
            weight = settings.adversarial * balance(given_back, parts["adversarial"], last)
            total = total + weight * parts["adversarial"] + parts["discriminator"]
        placed = step.place < placed_until and not settings.generator_only
        reset_dead_codes(both, made, after=settings.idle if placed else None, step=step)
        parts["chosen"] = (both.idle < settings.idle).float().mean()
        return total, parts

    state = train(
        both, losses, settings, context=context, steps=settings.steps, resting=True
    )
    return {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}


def random_crops(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square of each image (B, 3, H, W) at a place of its own: (B, 3, side, side).

    What a code stands for is small against a face, so most of a codebook is learnt as well from crops, at their price.
    """
    height, width = images.shape[-2:]
    tops = torch.randint(height - side + 1, (len(images),), generator=generator).tolist()
    lefts = torch.randint(width - side + 1, (len(images),), generator=generator).tolist()
    crops = [
        image[:, top : top + side, left : left + side]
        for image, top, left in zip(images, tops, lefts, strict=True)
    ]
    return torch.stack(crops)


@torch.no_grad()
def reset_dead_codes(both: Autoencoding, made: Reconstruction, *, after: int | None, step: StepContext) -> None:
    """Count how long each code was not chosen; those for `after` steps and more become features of this batch.

    Which features is drawn from the step's generator. All processes count what all have chosen, and take the first
    one's codebook.
    """
    rows = both.network.quantize.embedding.weight
    chosen = torch.bincount(made.codes.flatten(), minlength=len(rows))
    if step.world > 1:
        torch.distributed.all_reduce(chosen)
    both.idle.copy_(torch.where(chosen > 0, 0, both.idle + 1))
    if after is None:
        return
    due = (both.idle >= after).nonzero().flatten()
    if len(due):
        features = made.feature.flatten(2).transpose(1, 2).flatten(0, 1)
        drawn = torch.randint(len(features), (len(due),), generator=step.generator).to(features.device)
        rows[due] = features[drawn].to(rows)
        both.idle[due] = 0
        if step.world > 1:
            torch.distributed.broadcast(rows, 0)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of a VQGAN or a CodeFormer from the run's own generator; a fusion begins with no effect."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = math.prod(parameter.shape[1:])
            if name.endswith("embedding.weight"):
                bound = 1 / len(parameter)
                parameter.uniform_(-bound, bound, generator=generator)
            elif parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.startswith("fuse_convs_dict.") and name.endswith((".scale.2.weight", ".shift.2.weight")):
                parameter.zero_()
            elif parameter.ndim == 4:
                parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
            else:
                parameter.normal_(std=0.02, generator=generator)
