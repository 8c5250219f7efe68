"""A U-Net for images twice as large, which begins as one for the smaller ones: one more level outside.

Everything inside is carried over. The new level hands down nearly what the old first convolution made of the image at
half its size, and brings back up the old features, interpolated; its own blocks begin as nothing. So the grown network
begins as the old one, enlarged, and learns what only the larger image shows.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from adapt.diffusion.schedule import TIMESTEPS, linear_schedule
from adapt.diffusion.unet import ResBlock, UNet, timestep_embedding
from adapt.errors import UsageError
from adapt.settings import UNetSettings
from adapt.training.sampling import step_generator

SHIFTS: Final = 9  # of 3 x 3 pixels: the copies of each channel that the new first convolution hands down
FREE: Final = {  # what may differ from the old layout
    "image_size", "channel_mult", "num_res_blocks", "out_channels", "mean_colour", "output_gain"
}  # fmt: skip


def is_grown(small: UNetSettings, large: UNetSettings) -> bool:
    """Whether a layout has one level more than another, for images twice as large."""
    return large.image_size == 2 * small.image_size and len(large.channel_mult) == len(small.channel_mult) + 1


@torch.no_grad()
def grown(small: UNet, settings: UNetSettings, seed: int = 0, *, noisy: bool = False) -> UNet:
    """A U-Net of the given layout with all weights of one for images of half the side.

    Args:
        small: stays as it is.
        settings: its layout with one more level outside, as wide as its first one; with fewer outputs, the first.
        seed: of what the new blocks begin with.
        noisy: it is shown noise, and gives it back, as a prior does. At half the size there is half as much of it: the
            inner levels are told the timestep at which they knew so little of it, and what they find counts half.

    Raises:
        UsageError: another layout.
    """
    _refuse_no_growth(small.settings, settings)
    large = UNet(settings)
    _draw(large, seed)
    large.time_embed.load_state_dict(small.time_embed.state_dict())
    if small.colour is not None and large.colour is not None:
        large.colour.load_state_dict(small.colour.state_dict())
    blocks = settings.num_res_blocks[0]
    inputs, outputs = list(large.input_blocks), list(large.output_blocks)
    _hand_down(small.input_blocks[0][0], inputs[0][0], inputs[blocks + 1][0].op)  # pyright: ignore
    for theirs, own in zip(list(small.input_blocks)[1:], inputs[blocks + 2 :], strict=True):
        own.load_state_dict(theirs.state_dict())
    large.middle_block.load_state_dict(small.middle_block.state_dict())
    inner = len(small.output_blocks)
    for theirs, own in zip(small.output_blocks, outputs[:inner], strict=True):
        own.load_state_dict(theirs.state_dict(), strict=own is not outputs[inner - 1])  # the last one doubles as well
    _interpolate(outputs[inner - 1][-1].conv)  # pyright: ignore
    for stage in outputs[inner:]:
        _pass_on(stage[0])  # pyright: ignore
    large.out[0].load_state_dict(small.out[0].state_dict())
    kept = settings.out_channels
    large.out[2].weight.copy_(small.out[2].weight[:kept])  # pyright: ignore
    large.out[2].bias.copy_(small.out[2].bias[:kept])  # pyright: ignore
    if noisy:
        _tell_half_the_noise(large)
    return large


def _refuse_no_growth(small: UNetSettings, large: UNetSettings) -> None:
    """Raise UsageError where the large layout is not the small one with a level outside."""

    def refuse(name: str, expected: Any, got: Any) -> None:
        raise UsageError(
            f"network.{name}: to begin as a network for {small.image_size} px, expected {expected}, got {got}"
        )

    mults, blocks = small.channel_mult, small.num_res_blocks
    if large.image_size != 2 * small.image_size:
        refuse("image_size", 2 * small.image_size, large.image_size)
    if large.channel_mult != [mults[0], *mults]:
        refuse("channel_mult", [mults[0], *mults], large.channel_mult)
    if large.num_res_blocks[1:] != blocks:
        refuse("num_res_blocks", f"any number, then {blocks}", large.num_res_blocks)
    if large.out_channels > small.out_channels:
        refuse("out_channels", f"at most {small.out_channels}", large.out_channels)
    for name in sorted(UNetSettings.model_fields.keys() - FREE):
        if getattr(small, name) != getattr(large, name):
            refuse(name, getattr(small, name), getattr(large, name))
    if small.resblock_updown or not small.conv_resample:
        refuse("conv_resample", "convolutions that halve and double", "none")
    width = mults[0] * small.model_channels
    if small.in_channels * SHIFTS > width:
        refuse("channel_mult", f"{small.in_channels * SHIFTS} channels or more at the first level", width)


def _draw(network: UNet, seed: int) -> None:
    """All convolutions and linear layers anew, from a generator of their own; what begins as zero stays so."""
    generator = step_generator(seed, 0, rank=-1)
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and bool(module.weight.any()):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(-bound, bound, generator=generator)


def _hand_down(first: Any, outer: Any, halving: Any) -> None:
    """Make outer, then halving, nearly what `first` is of the image at half its size.

    That is a kernel of 6 x 6 pixels, and both together reach over 5 x 5: the outermost row and column are added to the
    next. `outer` copies the image's channels, shifted by up to a pixel; its other channels stay as they were drawn.
    """
    fold = torch.zeros(5, 6)
    fold[range(5), range(5)] = 1
    fold[4, 5] = 1
    wide = first.weight.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4
    kernels = fold @ wide @ fold.T  # (out, in, 5, 5), from two pixels before to two after
    ways = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])  # in which two shifts of -1 to 1 can add up to each
    kernels = kernels / (ways[:, None] * ways)
    channels = first.in_channels
    outer.weight[: channels * SHIFTS] = 0
    outer.bias[: channels * SHIFTS] = 0
    halving.weight.zero_()
    halving.bias.copy_(first.bias)
    for channel in range(channels):
        for shift in range(SHIFTS):
            row, column = divmod(shift, 3)
            place = channel * SHIFTS + shift
            outer.weight[place, channel, row, column] = 1
            halving.weight[:, place] = kernels[:, channel, row : row + 3, column : column + 3]


def _tell_half_the_noise(network: UNet) -> None:
    """Change what the timesteps are embedded as, to what earlier ones were, and halve the noise that comes out.

    A mean over 2 x 2 pixels has half the noise: of signal-to-noise ratio abar / (1 - abar) it makes four times as much,
    as at an earlier timestep. The last linear layer is fitted so, over all timesteps, by least squares.
    """
    abar = linear_schedule().abar
    known = (abar / (1 - abar)).log()  # falls
    wanted = (known + math.log(4)).clamp(max=known[0])
    earlier = np.interp(-wanted.numpy(), -known.numpy(), np.arange(TIMESTEPS))
    first, activation, last = network.time_embed
    width = first.in_features  # pyright: ignore

    def inside(timesteps: Tensor) -> Tensor:
        return activation(first(timestep_embedding(timesteps, width)))  # pyright: ignore

    targets = last(inside(torch.from_numpy(earlier)))
    features = torch.cat([inside(torch.arange(TIMESTEPS)), torch.ones(TIMESTEPS, 1)], dim=1)
    found = torch.linalg.lstsq(features.double(), targets.double()).solution
    last.weight.copy_(found[:-1].T)  # pyright: ignore
    last.bias.copy_(found[-1])  # pyright: ignore
    colours = network.settings.in_channels
    network.out[2].weight[:colours] /= 2  # pyright: ignore
    network.out[2].bias[:colours] /= 2  # pyright: ignore


def _interpolate(convolution: Any) -> None:
    """After doubling by nearest neighbours: linear interpolation of each channel."""
    line = torch.tensor([0.25, 0.5, 0.25])
    convolution.weight.zero_()
    convolution.bias.zero_()
    for channel in range(convolution.out_channels):
        convolution.weight[channel, channel] = line[:, None] * line


def _pass_on(block: ResBlock) -> None:
    """A block that begins as what comes from below, without what lies beside it."""
    around = block.skip_connection
    assert isinstance(around, nn.Conv2d)
    around.weight.zero_()
    around.weight[range(around.out_channels), range(around.out_channels)] = 1
    assert around.bias is not None
    around.bias.zero_()
