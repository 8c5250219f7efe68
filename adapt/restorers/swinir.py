"""SwinIR (Liang et al. 2021, arXiv:2108.10257) in the layout of the public face restorers.

Shapes: B batch, C embedding width, H and W sides in tokens, M window side, N = M * M tokens of a window,
nW windows of an image. State-dict names are the public ones.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import UsageError, WeightsError
from adapt.restorers.padding import mirrored_to_multiple
from adapt.settings import SwinIRSettings

RGB_MEAN = (0.4488, 0.4371, 0.4040)


def to_windows(x: Tensor, side: int) -> Tensor:
    """(B, H, W, C) -> (B * nW, N, C), windows row by row."""
    _, height, width, channels = x.shape
    x = x.view(-1, height // side, side, width // side, side, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, channels)


def from_windows(windows: Tensor, side: int, *, height: int, width: int) -> Tensor:
    """Undo `to_windows`; the batch is what is left over, so that exported graphs take any batch."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // side, width // side, side, side, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


def _bands(length: int, side: int, reference: Tensor) -> Tensor:
    """Which of three bands a shifted row (or column) came from: (length,) of 0, 1, 2."""
    position = torch.arange(length, device=reference.device)
    return (position >= length - side).to(torch.int64) + (position >= length - side // 2).to(torch.int64)


def shift_mask(height: int, width: int, side: int, *, reference: Tensor) -> Tensor:
    """Additive mask of shifted windows, (nW, 1, N, N): 0 inside one neighbourhood, -100 across the wrap.

    Built from comparisons alone, without slices of fixed length: an exported graph computes it at any size.
    """
    region = _bands(height, side, reference)[:, None] * 3 + _bands(width, side, reference)[None, :]
    windows = to_windows(region[None, :, :, None], side)[..., 0]
    differs = windows[:, None, :, None] != windows[:, None, None, :]
    return torch.where(differs, -100.0, 0.0).to(reference.dtype)


def relative_index(side: int) -> Tensor:
    """Row of the bias table for every pair of tokens of a window, (N, N) int64."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None, :] + side - 1
    right = columns[:, None] - columns[None, :] + side - 1
    return down * (2 * side - 1) + right


class WindowAttention(nn.Module):
    """Self-attention inside windows with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, width: int, side: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_index(side))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        _, tokens, width = x.shape
        qkv = self.qkv(x).view(-1, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1)[None]
        if mask is not None:
            windows = mask.shape[0]  # folded into the heads, because exporters know attention in four dimensions only
            bias = (bias + mask).reshape(1, windows * self.heads, tokens, tokens)
            shape = (-1, windows * self.heads, tokens, width // self.heads)
            query, key, value = query.reshape(shape), key.reshape(shape), value.reshape(shape)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        mixed = mixed.reshape(-1, self.heads, tokens, width // self.heads).transpose(1, 2)
        # A real copy: the fused kernel's strides make a view of it here, those of its exported parts do not.
        return self.proj(mixed.clone(memory_format=torch.contiguous_format).view(-1, tokens, width))


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Windowed attention (every second one shifted by half a window) and an MLP, both residual."""

    def __init__(self, settings: SwinIRSettings, heads: int, *, shifted: bool) -> None:
        super().__init__()
        width = settings.embed_dim
        self.side = settings.window_size
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, self.side, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * settings.mlp_ratio))
        if shifted:  # stored in public files; recomputed here for the size at hand
            grid = settings.img_size
            self.register_buffer("attn_mask", shift_mask(grid, grid, self.side, reference=torch.zeros(1))[:, 0])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        _, height, width, _ = x.shape
        h = self.norm1(x)
        if self.shifted:
            h = torch.roll(h, (-(self.side // 2), -(self.side // 2)), (1, 2))
        windows = self.attn(to_windows(h, self.side), mask if self.shifted else None)
        h = from_windows(windows, self.side, height=height, width=width)
        if self.shifted:
            h = torch.roll(h, (self.side // 2, self.side // 2), (1, 2))
        x = x + h
        return x + self.mlp(self.norm2(x))


class ResidualGroup(nn.Module):
    """The Swin blocks of one stage."""

    def __init__(self, settings: SwinIRSettings, stage: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(settings, settings.num_heads[stage], shifted=index % 2 == 1)
            for index in range(settings.depths[stage])
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


def _residual_conv(settings: SwinIRSettings) -> nn.Module:
    """The convolution at the end of a stage: one, or three with a bottleneck."""
    width = settings.embed_dim
    if settings.resi_connection == "1conv":
        return nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(width, width // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 4, width // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 4, width, 3, padding=1),
    )


class Stage(nn.Module):
    """Residual Swin transformer block: Swin blocks, a convolution, and a skip around both."""

    def __init__(self, settings: SwinIRSettings, stage: int) -> None:
        super().__init__()
        self.residual_group = ResidualGroup(settings, stage)
        self.conv = _residual_conv(settings)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.residual_group(x, mask)
        return x + self.conv(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PatchNorm(nn.Module):
    """Layer normalisation after the first convolution (its name is the public one)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def _check(settings: SwinIRSettings) -> None:
    """Refuse numbers that would make another network than they say, or none."""
    if len(settings.depths) != len(settings.num_heads):
        raise UsageError(
            "SwinIR: depths and num_heads must be equally long,"
            f" got {len(settings.depths)} and {len(settings.num_heads)}"
        )
    for heads in settings.num_heads:
        if settings.embed_dim % heads:
            raise UsageError(f"SwinIR: embed_dim {settings.embed_dim} is not a multiple of {heads} heads")
    if settings.upsampler and settings.sf & (settings.sf - 1):
        raise UsageError(f"SwinIR: nearest+conv doubles the size: sf must be a power of two, got {settings.sf}")
    unshuffle = (settings.unshuffle_scale or 1) if settings.unshuffle else 1
    if settings.sf % unshuffle:
        raise UsageError(f"SwinIR: sf {settings.sf} is not a multiple of unshuffle_scale {unshuffle}")


class SwinIR(nn.Module):
    """Restores (B, 3, H, W) RGB in [0, 1] to (B, 3, s H, s W), not clamped; s is 1 for the face restorers.

    Any H and W: the image is mirrored at the right and bottom up to a multiple of window and unshuffle factor,
    and the result cropped. Differs from the public code, which pads to the window alone and then fails with
    unshuffle, and which bakes the attention masks of one size. In training it drops no blocks at random (the public
    code: up to 0.1 of them), so that the same step from the same state gives the same weights.

    Args:
        settings: the layout.

    Raises:
        UsageError: numbers that do not make a network.
    """

    def __init__(self, settings: SwinIRSettings) -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        width, features = settings.embed_dim, settings.num_feat
        self.unshuffle = (settings.unshuffle_scale or 1) if settings.unshuffle else 1
        self.multiple = settings.window_size * self.unshuffle
        self.scale = settings.sf // self.unshuffle if settings.unshuffle else settings.sf
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        first = nn.Conv2d(settings.in_chans * self.unshuffle**2, width, 3, padding=1)
        self.conv_first = nn.Sequential(nn.PixelUnshuffle(self.unshuffle), first) if settings.unshuffle else first
        self.patch_embed = PatchNorm(width)
        self.layers = nn.ModuleList(Stage(settings, stage) for stage in range(len(settings.depths)))
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = _residual_conv(settings)
        self.doublings = int(math.log2(settings.sf)) if settings.upsampler else 0
        if settings.upsampler:
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(width, features, 3, padding=1), nn.LeakyReLU(0.01))
            for index in range(self.doublings):
                self.add_module(f"conv_up{index + 1}", nn.Conv2d(features, features, 3, padding=1))
            self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
            self.conv_last = nn.Conv2d(features, settings.in_chans, 3, padding=1)
        else:
            self.conv_last = nn.Conv2d(width, settings.in_chans, 3, padding=1)

    def forward(self, photo: Tensor) -> Tensor:
        height, width = photo.shape[-2:]
        x = (mirrored_to_multiple(photo, self.multiple) - cast(Tensor, self.mean)) * self.settings.img_range
        if self.settings.upsampler:
            first = self.conv_first(x)
            h = self.conv_before_upsample(self._body(first) + first)
            for index in range(self.doublings):
                up = F.interpolate(h, scale_factor=2, mode="nearest")
                h = F.leaky_relu(self.get_submodule(f"conv_up{index + 1}")(up), 0.2)
            x = self.conv_last(F.leaky_relu(self.conv_hr(h), 0.2))
        else:
            first = self.conv_first(x)
            x = x + self.conv_last(self._body(first) + first)
        x = x / self.settings.img_range + cast(Tensor, self.mean)
        return x[..., : height * self.scale, : width * self.scale]

    def _body(self, x: Tensor) -> Tensor:
        mask = shift_mask(x.shape[2], x.shape[3], self.settings.window_size, reference=x)
        tokens = self.patch_embed(x.permute(0, 2, 3, 1))
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2))


def swinir_settings(state: dict[str, Tensor]) -> SwinIRSettings:
    """Read the settings of a public-layout checkpoint off its tensor names and shapes.

    Raises:
        WeightsError: the tensors are not those of this SwinIR.
    """
    table = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
    unshuffled = "conv_first.1.weight" in state
    first = state.get("conv_first.1.weight" if unshuffled else "conv_first.weight")
    if table not in state or first is None:
        raise WeightsError(f"not a SwinIR in the public layout: no {table} or conv_first")
    depths: list[int] = []
    heads: list[int] = []
    while (prefix := f"layers.{len(depths)}.residual_group.blocks.") + "0.norm1.weight" in state:
        heads.append(int(state[f"{prefix}0.attn.relative_position_bias_table"].shape[1]))
        depths.append(1 + max(int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix)))
    window = (math.isqrt(state[table].shape[0]) + 1) // 2
    width = int(first.shape[0])
    doublings = sum(f"conv_up{index}.weight" in state for index in range(1, 9))
    upsampled = "conv_before_upsample.0.weight" in state
    mask = state.get("layers.0.residual_group.blocks.1.attn_mask")
    hidden = state["layers.0.residual_group.blocks.0.mlp.fc1.weight"].shape[0]
    return SwinIRSettings(
        img_size=math.isqrt(mask.shape[0]) * window if mask is not None else 8 * window,
        embed_dim=width,
        depths=depths,
        num_heads=heads,
        window_size=window,
        mlp_ratio=hidden / width,
        sf=2**doublings if upsampled else 1,
        num_feat=int(state["conv_before_upsample.0.weight"].shape[0]) if upsampled else 64,
        upsampler="nearest+conv" if upsampled else "",
        resi_connection="1conv" if "conv_after_body.weight" in state else "3conv",
        unshuffle=unshuffled,
        unshuffle_scale=math.isqrt(first.shape[1] // 3) if unshuffled else None,
    )
