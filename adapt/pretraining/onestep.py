"""What the one-step student begins as: a prior or a student, a thinner part of it, or one for images twice as large.

It begins as a denoiser of faces, so that a few hundred steps of `adapt.pretraining.restorer` go far.
"""

from __future__ import annotations

from torch import nn

from adapt.diffusion.unet import UNet
from adapt.pretraining.growing import grown, is_grown
from adapt.pretraining.thinning import thinned
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepSettings, OneStepTrainingSettings


def student_of(network: nn.Module, settings: OneStepTrainingSettings) -> OneStep:
    """The student that a training begins with.

    Args:
        network: the U-Net of a prior or of a student; it stays as it is.
        settings: t, and the layout where it is not the network's.

    Raises:
        UsageError: a layout that is no part of the network's, nor it with one more level outside.
    """
    assert isinstance(network, UNet)
    layout = settings.network or network.settings
    student = OneStep(OneStepSettings(network=layout, t=settings.t))
    larger = is_grown(network.settings, layout)
    student.network = grown(network, layout, settings.seed) if larger else thinned(network, layout)
    return student
