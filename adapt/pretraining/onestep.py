"""Pre-training of the one-step student: a prior, or a thinner part of it, as a restorer on the blind degradation.

It begins as a denoiser of faces, so that a few hundred steps go far.
"""

from __future__ import annotations

from torch import Tensor, nn

from adapt.diffusion.prior import Prior
from adapt.diffusion.unet import UNet
from adapt.faces.recogniser import Recogniser, crop, euclidean_distance
from adapt.pretraining.restorer import blind_pairs, blind_ranges, image_losses
from adapt.pretraining.thinning import thinned
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepSettings, OneStepTrainingSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.losses import Distance


def student_of(network: nn.Module, settings: OneStepTrainingSettings) -> OneStep:
    """The student that a training begins with.

    Args:
        network: the prior's U-Net.
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
    start: Prior,
    distance: Distance | None = None,
    recogniser: Recogniser | None = None,
) -> tuple[OneStepSettings, dict[str, Tensor]]:
    """Train the student, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        start: the prior; it stays as it is.
        distance: perceptual distance; needed where settings.perceptual > 0.
        recogniser: frozen; needed where settings.recognition > 0.

    Returns:
        The student's settings, and its averaged weights.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: as `student_of`.
    """
    student = student_of(start.network, settings)
    ranges = blind_ranges(settings.degradation, settings.size)
    if recogniser is not None:
        recogniser.to(context.device)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = step.batch(faces, settings)
        damaged, clean = (part.to(step.device) for part in blind_pairs(chosen, ranges, step.generator))
        restored = forward(damaged).float()
        total, parts = image_losses(restored, clean, settings, distance)
        if settings.recognition and recogniser is not None:
            of_restored, of_clean = (recogniser.network(crop(each)) for each in (restored, clean))
            parts["recognition"] = euclidean_distance(of_restored, of_clean).mean()
            total = total + settings.recognition * parts["recognition"]
        return total, parts

    return student.settings, train(student, losses, settings, context=context, steps=settings.steps)
