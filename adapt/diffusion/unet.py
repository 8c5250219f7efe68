"""The noise predictor in the public U-Net layout (Dhariwal & Nichol 2021, arXiv:2105.05233; Nichol & Dhariwal 2021).

Shapes: B batch, C channels, H and W sides, E = 4 * model_channels the width of the time embedding.
State-dict names are those of the public checkpoints, so their files load as they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from adapt.diffusion.colours import CHANNELS, MeanColour
from adapt.diffusion.gain import EARLY, OutputGain, of_lightness
from adapt.errors import WeightsError
from adapt.settings import UNetSettings
from adapt.settings.networks import NORM_GROUPS

LOWEST_SIDE = 8  # the public networks end at 8 x 8; used where a file does not tell its image size
DOUBLED = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Which of a convolution's three taps over doubled pixels fall on the same pixel of before."""


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps: (B,) on the 1000-step scale -> (B, width), cosines first, then sines."""
    half = width // 2
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32, device=timesteps.device) * (-math.log(10000) / half)
    )
    angles = timesteps.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of 32 groups, computed in float32 whatever the input's precision."""

    def __init__(self, channels: int) -> None:
        super().__init__(NORM_GROUPS, channels, eps=1e-5)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).type(input.dtype)


class Resample(nn.Module):
    """Halving or doubling of the sides without weights: mean of 2 x 2, or nearest neighbour."""

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else F.avg_pool2d(x, 2)


class Downsample(nn.Module):
    """Halving of the sides: convolution of stride 2, or the mean."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if convolve else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Doubling of the sides: nearest neighbour, then a convolution.

    Three taps over doubled pixels see two pixels of before, so both are one transposed convolution of 4 x 4 taps, with
    4 products for each pixel, input and output channel, where the convolution alone has 9.
    """

    taps: Tensor

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if convolve else nn.Identity()
        self.register_buffer("taps", torch.tensor(DOUBLED), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.conv, nn.Conv2d):
            return F.interpolate(x, scale_factor=2, mode="nearest")
        weight = torch.einsum("km,ln,oimn->iokl", self.taps, self.taps, self.conv.weight)
        return F.conv_transpose2d(x, weight, self.conv.bias, stride=2, padding=1)


class ResBlock(nn.Module):
    """Residual block with the time embedding as scale and shift (or added), at the same or half or double size."""

    def __init__(
        self, channels: int, out_channels: int, settings: UNetSettings, *, resample: Resample | None = None
    ) -> None:
        super().__init__()
        embedding = settings.model_channels * 4
        self.scale_shift = settings.use_scale_shift_norm
        self.in_layers = nn.Sequential(
            GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding, 2 * out_channels if self.scale_shift else out_channels)
        )
        self.out_layers = nn.Sequential(
            GroupNorm(out_channels),
            nn.SiLU(),
            nn.Dropout(settings.dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        nn.init.zeros_(self.out_layers[3].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.out_layers[3].bias)  # pyright: ignore[reportArgumentType]
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = activation(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = convolution(h)
        shift = self.emb_layers(embedding).type(h.dtype)[:, :, None, None]
        if self.scale_shift:
            scale, shift = shift.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + shift)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Residual self-attention over all positions of a feature map."""

    def __init__(self, channels: int, settings: UNetSettings) -> None:
        super().__init__()
        if channels % settings.num_head_channels:
            raise WeightsError(
                f"attention over {channels} channels cannot be split into heads of {settings.num_head_channels}"
            )
        self.heads = channels // settings.num_head_channels
        self.heads_first = not settings.use_new_attention_order
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, height * width)
        qkv = self.qkv(self.norm(flat))
        if self.heads_first:  # per head: query, key, value
            parts = qkv.reshape(batch, self.heads, 3, channels // self.heads, height * width).unbind(2)
        else:  # all queries, all keys, all values; heads inside each
            parts = qkv.reshape(batch, 3, self.heads, channels // self.heads, height * width).unbind(1)
        query, key, value = (part.transpose(2, 3) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(2, 3).reshape(batch, channels, height * width)
        return (flat + self.proj_out(mixed)).reshape(batch, channels, height, width)


class Stage(nn.ModuleList):
    """Layers in a row; residual blocks are given the time embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNet(nn.Module):
    """Predicts the noise in x_t, and the variance of the step back: (B, 3, H, W), (B,) -> (B, 6, H, W).

    A network that sees the photo takes it as three more channels. H and W must be multiples of 2 ** (levels - 1). Clean
    images lie in [-1, 1]; timesteps count on the 1000-step scale; channels 3-5 of what comes out interpolate the
    log-variance (nominally in [-1, 1], not bounded).

    Differs from guided-diffusion: ``attention_resolutions`` are sides of feature maps (at ``image_size``), and
    ``num_res_blocks`` is given per level, as in the public face prior (DifFace, iddpm_ffhq512). With ``mean_colour``
    the blocks are told the image's mean colour and contrast, and the predicted noise has the mean that follows from it;
    with ``output_gain`` its lightness is multiplied by a number of the image's own.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        base = settings.model_channels
        embedding = base * 4
        self.time_embed = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.colour = MeanColour(embedding) if settings.mean_colour else None

        width = base * settings.channel_mult[0]
        side = settings.image_size
        self.input_blocks = nn.ModuleList([Stage([nn.Conv2d(settings.in_channels, width, 3, padding=1)])])
        skips = [width]
        last_level = len(settings.channel_mult) - 1
        for level, mult in enumerate(settings.channel_mult):
            for _ in range(settings.num_res_blocks[level]):
                stage = Stage([ResBlock(width, base * mult, settings)])
                width = base * mult
                if side in settings.attention_resolutions:
                    stage.append(AttentionBlock(width, settings))
                self.input_blocks.append(stage)
                skips.append(width)
            if level != last_level:
                self.input_blocks.append(
                    Stage(
                        [
                            ResBlock(width, width, settings, resample=Resample(up=False))
                            if settings.resblock_updown
                            else Downsample(width, settings.conv_resample)
                        ]
                    )
                )
                skips.append(width)
                side //= 2

        early = skips[:EARLY]
        self.middle_block = Stage(
            [ResBlock(width, width, settings), AttentionBlock(width, settings), ResBlock(width, width, settings)]
        )

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(settings.channel_mult))):
            for index in range(settings.num_res_blocks[level] + 1):
                stage = Stage([ResBlock(width + skips.pop(), base * mult, settings)])
                width = base * mult
                if side in settings.attention_resolutions:
                    stage.append(AttentionBlock(width, settings))
                if level and index == settings.num_res_blocks[level]:
                    stage.append(
                        ResBlock(width, width, settings, resample=Resample(up=True))
                        if settings.resblock_updown
                        else Upsample(width, settings.conv_resample)
                    )
                    side *= 2
                self.output_blocks.append(stage)

        self.gain = OutputGain([*early, width]) if settings.output_gain else None
        self.out = nn.Sequential(
            GroupNorm(width), nn.SiLU(), nn.Conv2d(width, settings.out_channels, 3, padding=1)
        )
        nn.init.zeros_(self.out[2].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.out[2].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        embedding = self.time_embed(timestep_embedding(timesteps, self.settings.model_channels))
        noise_mean: Tensor | None = None
        if self.colour is not None:
            told, noise_mean = self.colour(x, timesteps)
            embedding = embedding + told
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            x = stage(x, embedding)
            skips.append(x)
        early = skips[:EARLY]
        x = self.middle_block(x, embedding)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding)
        out = self.out(x)
        if self.gain is not None:
            noise = of_lightness(out[:, :CHANNELS], self.gain([*early, x]).to(out.dtype))
            out = torch.cat([noise, out[:, CHANNELS:]], dim=1)
        return out if noise_mean is None else _with_mean(out, noise_mean)


def _with_mean(output: Tensor, mean: Tensor) -> Tensor:
    """The output with the given mean, (B, 3), over the pixels of each of its first three channels."""
    noise, others = output[:, :CHANNELS].float(), output[:, CHANNELS:]
    noise = noise + mean[:, :, None, None] - noise.mean(dim=(2, 3), keepdim=True)
    return torch.cat([noise.to(output.dtype), others], dim=1)


def unet_settings(state: dict[str, Tensor], image_size: int | None = None) -> UNetSettings:
    """Read the settings of a public-layout checkpoint off its tensor names and shapes.

    What a file does not tell is taken as in the public face prior: heads of 64 channels, legacy attention order,
    and, unless given, an image size whose lowest feature map is 8 x 8.

    Raises:
        WeightsError: the tensors are not those of this U-Net.
    """
    if "input_blocks.0.0.weight" not in state or "time_embed.0.weight" not in state:
        raise WeightsError("not a U-Net in the public layout: no time_embed.0.weight or input_blocks.0.0.weight")
    try:
        return _settings_read_off(state, image_size)
    except (LookupError, StopIteration, ValidationError) as error:
        raise WeightsError(
            "not a U-Net in the public layout: it begins like one, but its blocks are others, or some are missing"
        ) from error


def _settings_read_off(state: dict[str, Tensor], image_size: int | None) -> UNetSettings:
    """What `unet_settings` gives; raises LookupError, StopIteration or ValidationError where the tensors are not so."""
    channels = state["time_embed.0.weight"].shape[1]
    widths: list[int] = []
    blocks: list[int] = []
    attention: list[bool] = []
    updown = False
    fresh = True
    for index in range(1, 1 + max(int(key.split(".")[1]) for key in state if key.startswith("input_blocks."))):
        prefix = f"input_blocks.{index}"
        convolution = state.get(f"{prefix}.0.in_layers.2.weight")
        residual_half = (
            convolution is not None
            and not fresh
            and f"{prefix}.0.skip_connection.weight" not in state
            and _is_resampling(state, index)
        )
        if convolution is None or residual_half:
            updown = updown or residual_half
            if fresh:  # a level without blocks of its own
                widths.append(int(state[f"{prefix}.0.op.weight"].shape[0]))
                blocks.append(0)
                attention.append(False)
            fresh = True
            continue
        if fresh:
            widths.append(int(convolution.shape[0]))
            blocks.append(0)
            attention.append(False)
            fresh = False
        blocks[-1] += 1
        attention[-1] = attention[-1] or f"{prefix}.1.qkv.weight" in state
    size = image_size or LOWEST_SIDE * 2 ** (len(widths) - 1)
    first = next(key for key in sorted(state) if key.startswith("input_blocks.") and ".emb_layers.1.weight" in key)
    block_width = state[first.replace("emb_layers.1", "in_layers.2")].shape[0]
    return UNetSettings(
        image_size=size,
        model_channels=channels,
        channel_mult=[width // channels for width in widths],
        num_res_blocks=blocks,
        attention_resolutions=[size >> level for level, used in enumerate(attention) if used],
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=state["out.2.weight"].shape[0],
        use_scale_shift_norm=state[first].shape[0] == 2 * block_width,
        resblock_updown=updown,
        conv_resample=updown or any(key.endswith(".0.op.weight") for key in state),
        mean_colour="colour.mean" in state,
        output_gain="gain.weigh.weight" in state,
    )


def _is_resampling(state: dict[str, Tensor], index: int) -> bool:
    """Whether a residual block of the encoder halves: the next one then starts a level, or changes its width."""
    if any(key.endswith(".0.op.weight") for key in state):
        return False
    upward = state.get(f"input_blocks.{index + 1}.0.skip_connection.weight")
    return upward is not None
