"""The discriminators of fine-tuning, by the kind a recipe names: how each is built, and what each side loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from adapt.devices import autocast
from adapt.settings import PatchAdversarySettings, TuningSettings
from adapt.training.adversary import hinge, hinge_of_made, patch_discriminator
from adapt.training.discriminator import UNetDiscriminator
from adapt.training.losses import discriminator_loss, generator_loss
from adapt.training.sampling import batch_indices, step_generator
from adapt.training.state import check_finite
from adapt.weights import load_weights

MOMENTA = (0.5, 0.9)  # of Adam, for patches: VQGAN's


def build_discriminator(
    settings: TuningSettings, size: int, start: Mapping[str, Tensor] | None = None
) -> tuple[nn.Module, Optimizer] | None:
    """A discriminator before its first step, with its optimizer; None where the adversarial loss has no weight.

    Args:
        settings: the recipe.
        size: side of the images, in pixels.
        start: weights that it begins with; drawn at random where None. Only of patches.

    Raises:
        UsageError: more layers than images of this size can be halved.
        WeightsError: weights of another layout.
    """
    if not settings.adversarial:
        return None
    generator = step_generator(settings.seed, 0, rank=-1)
    chosen = settings.discriminator
    if isinstance(chosen, PatchAdversarySettings):
        patches = patch_discriminator(chosen, size, generator, detail=True).train()
        if start is not None:
            load_weights(patches, dict(start), source="the pack's discriminator")
        return patches, AdamW(patches.parameters(), lr=chosen.learning_rate, betas=MOMENTA, weight_decay=0.0)
    network = UNetDiscriminator(features=chosen.features, generator=generator).train()
    return network, AdamW(network.parameters(), lr=chosen.learning_rate, weight_decay=0.0)


@dataclass(frozen=True, slots=True)
class DiscriminatorTraining:
    """A discriminator that learns, and what it and the generator lose.

    Attributes:
        settings: the recipe.
        network, optimizer: as accelerate has prepared them.
        accelerator: theirs.
        device: where they compute.
    """

    settings: TuningSettings
    network: nn.Module
    optimizer: Optimizer
    accelerator: Any
    device: torch.device

    def generator_loss(self, image: Tensor) -> Tensor:
        """What the generator loses, of each image (B, 3, S, S): (B,)."""
        logits = self.network(image).float()
        return hinge_of_made(logits) if self.settings.discriminator.kind == "patch" else generator_loss(logits)

    def learn(self, real: Tensor, fake: Tensor, step: int) -> float:
        """One step of the discriminator, on images (B, 3, S, S) of each side; its loss.

        Raises:
            TrainingError: it is not finite; nothing was learnt from it.
        """
        self.network.requires_grad_(True)
        with autocast(self.device):
            verdicts = self.network(real.to(self.device)), self.network(fake.detach().to(self.device))
            patches = self.settings.discriminator.kind == "patch"
            loss = hinge(*verdicts) if patches else discriminator_loss(*verdicts)
        check_finite({"discriminator": loss}, step)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def first_steps(settings: TuningSettings, *, rank: int, world: int, photos: int, reals: int) -> Iterator[
    tuple[list[int], list[int]]
]:
    """What the discriminator's own first steps see: of each, which restored photos and which real images.

    Nothing of them is stored, for they lie before the first state: a run that is stopped in them begins anew.

    Args:
        settings: the recipe.
        rank, world: the process, and how many there are.
        photos, reals: how many of each there are.
    """
    chosen = settings.discriminator
    for step in range(chosen.first_steps if isinstance(chosen, PatchAdversarySettings) else 0):
        generator = step_generator(settings.seed, step, rank=-2 - rank)  # no other step's
        place = step * world + rank
        fakes = batch_indices(settings.seed, place, batch=settings.batch, count=photos)
        yield fakes, torch.randint(reals, (settings.batch,), generator=generator).tolist()


class AsBytes:
    """Images by number, kept with 8 bits a value, as the targets beside them are."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def keep(self, numbers: Sequence[int], images: Tensor) -> None:
        """Keep images (B, 3, S, S) in [0, 1]."""
        self._kept.update(zip(numbers, images.mul(255).round().byte().cpu(), strict=True))

    def batch(self, numbers: Sequence[int]) -> Tensor:
        """(B, 3, S, S) in [0, 1]."""
        return torch.stack([self._kept[number] for number in numbers]).float() / 255
