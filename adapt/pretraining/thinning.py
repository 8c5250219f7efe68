"""A thinner U-Net that begins as a part of a thicker one: the channels that are written most, group by group.

Levels, time embedding and the kind of blocks stay; levels may have fewer channels, fewer blocks and no attention. Of
each group of a normalisation the same number of channels is kept, so that its mean and deviation are about those of
before. What was read from channels that are gone is not made up for: a training has to follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from adapt.diffusion.unet import AttentionBlock, Downsample, ResBlock, Stage, UNet, Upsample
from adapt.errors import UsageError
from adapt.settings import UNetSettings
from adapt.settings.networks import NORM_GROUPS

SAME: Final = (
    "image_size", "model_channels", "in_channels", "num_head_channels", "use_scale_shift_norm", "resblock_updown",
    "use_new_attention_order",
)  # fmt: skip

Place = tuple[str, int, int]
"""What a stage is for (`down` keeps the size, `halve` does not), at which level, and the how manieth there."""


@dataclass(frozen=True, slots=True)
class Channels:
    """Which channels of a feature map of the thick network the thin one has: their indices, and out of how many."""

    kept: Tensor
    count: int

    def beside(self, other: Channels) -> Channels:
        """Those of both maps, laid one behind the other."""
        return Channels(torch.cat([self.kept, other.kept + self.count]), self.count + other.count)


@torch.no_grad()
def thinned(thick: UNet, settings: UNetSettings) -> UNet:
    """A U-Net of the given layout with a part of the weights of a thicker one; of the same layout it is its copy.

    Of a level with fewer blocks the first ones are kept, and on the way back up the last as well, which reads what the
    level above has seen.

    Raises:
        UsageError: a layout that is no part of the other.
    """
    _refuse_no_part(thick.settings, settings)
    thin = UNet(settings)
    thin.time_embed.load_state_dict(thick.time_embed.state_dict())
    if thin.colour is not None and thick.colour is not None:
        thin.colour.load_state_dict(thick.colour.state_dict())
    if thin.gain is not None and thick.gain is not None and settings.plain == thick.settings.plain:
        thin.gain.load_state_dict(thick.gain.state_dict())
    stages = dict(_stages(thick))
    map_in = Channels(torch.arange(settings.in_channels), settings.in_channels)
    skips: list[Channels] = []
    for (what, level, index), stage in _stages(thin):
        last = what == "up" and index == settings.num_res_blocks[level]
        source = stages[what, level, thick.settings.num_res_blocks[level] if last else index]
        if what == "up":
            map_in = map_in.beside(skips.pop())
        map_in = _take_stage(source, stage, map_in)
        if what in ("down", "halve"):
            skips.append(map_in)
    norm, _, convolution = thin.out
    _take_norm(thick.out[0], norm, map_in)
    _take_convolution(thick.out[2], convolution, map_in, _first(settings.out_channels))
    return thin


def _refuse_no_part(thick: UNetSettings, thin: UNetSettings) -> None:
    """Raise UsageError where the thin layout is no part of the thick one."""

    def refuse(name: str, expected: str) -> None:
        raise UsageError(
            f"network.{name}: the network to start from has {getattr(thick, name)}, expected {expected}, got"
            f" {getattr(thin, name)}"
        )

    for name in SAME:
        if getattr(thick, name) != getattr(thin, name):
            refuse(name, "the same")
    for name in ("channel_mult", "num_res_blocks"):
        before, wanted = getattr(thick, name), getattr(thin, name)
        if len(before) != len(wanted) or any(a < b for a, b in zip(before, wanted, strict=True)):
            refuse(name, "as many levels, and no more at any of them")
    if not set(thin.attention_resolutions) <= set(thick.attention_resolutions):
        refuse("attention_resolutions", "some of these")
    steps = zip(pairwise(thick.channel_mult), pairwise(thin.channel_mult), strict=True)
    if any(before[0] == before[1] and wanted[0] != wanted[1] for before, wanted in steps):
        refuse("channel_mult", "levels that are equally wide where these are")
    if any(bool(a) != bool(b) for a, b in zip(thick.num_res_blocks, thin.num_res_blocks, strict=True)):
        refuse("num_res_blocks", "at least one where these have one")
    if thin.conv_resample and not thick.conv_resample:
        refuse("conv_resample", "the same")
    if thin.mean_colour and not thick.mean_colour:
        refuse("mean_colour", "a network that has it, fitted to faces")
    if thin.out_channels > thick.out_channels:
        refuse("out_channels", "no more")


def _stages(network: UNet) -> Iterator[tuple[Place, Stage]]:
    """The stages in their order, each with its place."""
    blocks = list(enumerate(network.settings.num_res_blocks))
    places: list[Place] = [("down", 0, -1)]  # the first convolution
    for level, count in blocks:
        places += [("down", level, index) for index in range(count)]
        places += [("halve", level, 0)] * (level < len(blocks) - 1)
    places.append(("middle", 0, 0))
    places += [("up", level, index) for level, count in reversed(blocks) for index in range(count + 1)]
    stages = [*network.input_blocks, network.middle_block, *network.output_blocks]
    return zip(places, cast(list[Stage], stages), strict=True)


def _take_stage(source: Stage, stage: Stage, map_in: Channels) -> Channels:
    """Fill a stage from the thick network's; layers that the thin one lacks are passed over. What goes out of it."""
    theirs = iter(source)
    for layer in stage:
        match = next(each for each in theirs if type(each) is type(layer))
        map_in = _take(match, layer, map_in)
    return map_in


def _take(source: Any, own: Any, map_in: Channels) -> Channels:
    if isinstance(own, ResBlock):
        return _take_block(source, own, map_in)
    if isinstance(own, AttentionBlock):
        _take_attention(source, own, map_in)
        return map_in
    if isinstance(own, Downsample | Upsample):
        name = "op" if isinstance(own, Downsample) else "conv"
        source, own = getattr(source, name), getattr(own, name)
        if not isinstance(own, nn.Conv2d):
            return map_in
    map_out = _strongest(_written(source), own.out_channels)
    _take_convolution(source, own, map_in, map_out)
    return map_out


def _take_block(source: Any, own: Any, map_in: Channels) -> Channels:
    theirs = source.skip_connection
    first, second = source.in_layers[2], source.out_layers[3]
    inside = _strongest(second.weight.square().sum(dim=(0, 2, 3)), own.out_layers[3].in_channels)
    map_out = map_in
    if isinstance(theirs, nn.Conv2d):
        map_out = _strongest(_written(second) + _written(theirs), own.out_layers[3].out_channels)
        if isinstance(own.skip_connection, nn.Conv2d):  # else two levels are equally wide, and the projection is lost
            _take_convolution(theirs, own.skip_connection, map_in, map_out)
    _take_norm(source.in_layers[0], own.in_layers[0], map_in)
    _take_convolution(first, own.in_layers[2], map_in, inside)
    parts = 2 if own.scale_shift else 1
    rows = torch.cat([inside.kept + part * inside.count for part in range(parts)])
    own.emb_layers[1].weight.copy_(source.emb_layers[1].weight[rows])
    own.emb_layers[1].bias.copy_(source.emb_layers[1].bias[rows])
    _take_norm(source.out_layers[0], own.out_layers[0], inside)
    _take_convolution(second, own.out_layers[3], inside, map_out)
    return map_out


def _take_attention(source: Any, own: Any, channels: Channels) -> None:
    """The heads that write most; queries, keys and values of each stay together."""
    width = channels.count // source.heads
    strength = source.proj_out.weight.square().sum(dim=(0, 2)).view(source.heads, width).sum(dim=1)
    heads = strength.topk(own.heads).indices.sort().values
    inside = (heads[:, None] * width + torch.arange(width)).flatten()
    each = torch.arange(channels.count * 3)
    if source.heads_first:
        rows = each.view(source.heads, 3 * width)[heads].flatten()
    else:
        rows = each.view(3, channels.count)[:, inside].flatten()
    _take_norm(source.norm, own.norm, channels)
    own.qkv.weight.copy_(source.qkv.weight[rows][:, channels.kept])
    own.proj_out.weight.copy_(source.proj_out.weight[channels.kept][:, inside])
    own.qkv.bias.copy_(source.qkv.bias[rows])
    own.proj_out.bias.copy_(source.proj_out.bias[channels.kept])


def _take_convolution(source: Any, own: Any, map_in: Channels, map_out: Channels) -> None:
    own.weight.copy_(source.weight[map_out.kept][:, map_in.kept])
    own.bias.copy_(source.bias[map_out.kept])


def _take_norm(source: Any, own: Any, channels: Channels) -> None:
    own.weight.copy_(source.weight[channels.kept])
    own.bias.copy_(source.bias[channels.kept])


def _written(convolution: Any) -> Tensor:
    """How much a convolution writes to each of its channels."""
    return convolution.weight.square().sum(dim=(1, 2, 3))


def _strongest(strength: Tensor, wanted: int) -> Channels:
    """The strongest channels, as many of each group of a normalisation."""
    count = len(strength)
    groups = strength.view(NORM_GROUPS, count // NORM_GROUPS)
    inside = groups.topk(wanted // NORM_GROUPS, dim=1).indices.sort(dim=1).values
    first = torch.arange(NORM_GROUPS)[:, None] * groups.shape[1]
    return Channels((first + inside).flatten(), count)


def _first(count: int) -> Channels:
    """The first channels of an image: its noise, without the variance."""
    return Channels(torch.arange(count), count)
