"""Pre-training of the one-step student: a prior, or a thinner part of it, as a restorer of known damage.

It begins as a denoiser of faces, so that a few hundred steps go far. The discriminator that it may be trained against
sees fine detail beside the image, as that of fine-tuning does.
"""

from __future__ import annotations

from torch import Tensor, nn

from adapt.diffusion.unet import UNet
from adapt.faces.measures import identity_loss
from adapt.faces.recogniser import FaceIdentifier
from adapt.pretraining.restorer import blind_pairs, blind_ranges, image_losses
from adapt.pretraining.thinning import thinned
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepSettings, OneStepTrainingSettings
from adapt.training.adversary import (
    PatchDiscriminator,
    balance,
    check_layers,
    discriminator_loss,
    generator_loss,
    last_layer,
)
from adapt.training.adversary import Verdict as Judgement
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.losses import Distance
from adapt.training.sampling import step_generator


class Judged(nn.Module):
    """A student and its discriminator, if it has one: all that a step runs."""

    def __init__(self, student: OneStep, discriminator: PatchDiscriminator | None) -> None:
        super().__init__()
        self.student = student
        self.discriminator = discriminator

    def forward(self, damaged: Tensor, clean: Tensor) -> tuple[Tensor, Judgement | None]:
        restored = self.student(damaged)
        return restored, None if self.discriminator is None else self.discriminator.judge(clean, restored)


def student_of(network: nn.Module, settings: OneStepTrainingSettings) -> OneStep:
    """The student that a training begins with.

    Args:
        network: the U-Net of a prior or of a student.
        settings: t, and the layout where it is not the prior's.

    Raises:
        UsageError: a layout that is no part of the prior's.
    """
    assert isinstance(network, UNet)
    layout = settings.network or network.settings
    student = OneStep(OneStepSettings(network=layout, t=settings.t))
    student.network = thinned(network, layout)
    return student


def train_onestep(
    settings: OneStepTrainingSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    start: nn.Module,
    distance: Distance | None = None,
    recogniser: FaceIdentifier | None = None,
) -> tuple[OneStepSettings, dict[str, Tensor], dict[str, Tensor]]:
    """Train the student, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        start: the U-Net of a prior or of a student; it stays as it is.
        distance: perceptual distance; needed where settings.perceptual > 0.
        recogniser: frozen; needed where settings.recognition > 0.

    Returns:
        The student's settings, its averaged weights, and those of its discriminator, if it has one.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: as `student_of`.
    """
    student = student_of(start, settings)
    ranges = blind_ranges(settings.degradation, settings.size)
    discriminator: PatchDiscriminator | None = None
    if settings.adversarial:
        check_layers(settings.discriminator, settings.size)
        generator = step_generator(settings.seed, 0, rank=-1)
        discriminator = PatchDiscriminator(settings.discriminator, generator, detail=True)
    both = Judged(student, discriminator)
    last = last_layer(student)
    if recogniser is not None:
        recogniser.to(context.device)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = blind_pairs(
            step.batch(faces, settings), ranges, step.generator, chain=settings.chain, share=settings.chain_share
        )
        damaged, clean = (part.to(step.device) for part in pairs)
        judgement: Judgement | None
        restored, judgement = forward(damaged, clean)
        restored = restored.float()
        total, parts = image_losses(restored, clean, settings, distance)
        if settings.recognition and recogniser is not None:
            parts["recognition"] = identity_loss(restored, clean, recogniser).mean()
            total = total + settings.recognition * parts["recognition"]
        if judgement is not None:
            adversarial, parts["discriminator"] = generator_loss(judgement), discriminator_loss(judgement)
            if step.index >= settings.adversarial_from:
                parts["adversarial"], parts["balance"] = adversarial, balance(total, adversarial, last)
                total = total + settings.adversarial * parts["balance"] * adversarial
            total = total + parts["discriminator"]
        return total, parts

    state = train(both, losses, settings, context=context, steps=settings.steps)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    return student.settings, part("student."), part("discriminator.")
