"""The one-step student: a diffusion prior's U-Net as a restorer, by one evaluation at a fixed timestep.

The photo stands in for x_t, and the clean image that the network sees in it is the output. State-dict names are those
of the U-Net, so that a prior's own file is one of these, and the other way round.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from adapt.diffusion.prior import predicted_x0
from adapt.diffusion.schedule import linear_schedule
from adapt.diffusion.unet import UNet, unet_settings
from adapt.images import to_signed
from adapt.restorers.inner import named_as_inner
from adapt.restorers.padding import mirrored_to_multiple
from adapt.settings import OneStepSettings, UNetSettings

STARTS = ("time_embed.0.weight", "input_blocks.0.0.weight")  # tensors by which a U-Net is known


class OneStep(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] to the same, not clamped.

    With y the photo in the prior's range [-1, 1], x_t = sqrt(abar_t) * y, as if y were what is seen of x_0 through no
    noise at all, and the output is the x_0 that the network's noise implies (Ho et al. 2020, Eq. 9). Any H and W: the
    image is mirrored at the right and bottom up to a multiple of what the levels halve, and the result cropped.

    Args:
        settings: the U-Net's layout, and t.
    """

    def __init__(self, settings: OneStepSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = UNet(settings.network)
        self.abar = float(linear_schedule().abar[settings.t])
        self.multiple = 2 ** (len(settings.network.channel_mult) - 1)
        named_as_inner(self)

    def forward(self, photo: Tensor) -> Tensor:
        height, width = photo.shape[-2:]
        x_t = self.abar**0.5 * to_signed(mirrored_to_multiple(photo, self.multiple))
        told = torch.full((1,), self.settings.t, device=photo.device)  # one for the batch: a constant of a graph
        noise = self.network(x_t, told)[:, :3]  # the other half, where there is one, is the variance
        x0 = predicted_x0(x_t, noise, self.abar)[..., :height, :width]
        return (x0 + 1) / 2  # as `to_unit`, not clamped: a loss has to see by how much it is outside


def without_gain(student: OneStep) -> OneStep:
    """A copy that changes every photo in full; see `adapt.diffusion.gain`."""
    full = copy.deepcopy(student)
    full.network.gain = None
    return full


def is_unet(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors are a U-Net's in the public layout: those of a prior, of a student, or of another."""
    return all(name in state for name in STARTS)


def onestep_settings(state: dict[str, Tensor]) -> OneStepSettings:
    """Read the settings of a U-Net off its tensor names and shapes, t being the default.

    Raises:
        WeightsError: the tensors are not those of this U-Net.
        ValidationError: it takes or makes no images.
    """
    return OneStepSettings(network=unet_settings(state))


def parse_onestep_settings(text: str) -> OneStepSettings:
    """The settings in a file's header: a student's own, or those of a prior. Raises ValidationError: neither."""
    values = TypeAdapter(dict[str, object]).validate_json(text)
    if "network" in values:
        return OneStepSettings.model_validate(values)
    return OneStepSettings(network=UNetSettings.model_validate(values))
