"""VQGAN (Esser et al. 2021, arXiv:2012.09841) in the layout of the public CodeFormer (arXiv:2206.11253), stage I.

An encoder, a codebook in which every feature is replaced by the nearest of its rows, and a generator. Shapes: B batch,
S side of the image, h = S / 2^(levels - 1) side of the grid of codes, N = h * h codes, C width of a code, K size of
the codebook. State-dict names are the public ones. Written from descriptions and from names and shapes of tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError, WeightsError
from adapt.images import to_signed
from adapt.settings import VQGANSettings
from adapt.weights import load_weights, settings_of

ARCHITECTURE: Final = "vqgan"  # in the header of a file

GROUPS = 32
EPS = 1e-6  # of the public files; the default of 1e-5 differs by 4e-5 in the image
PUBLIC_GRID = 16  # codes along a side, in every public file


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=EPS)


def _conv(width: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(width, out, 3, padding=1)


class ResidualBlock(nn.Module):
    """Two times normalisation, SiLU and convolution, around which the input goes."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(width), _conv(width, out)
        self.norm2, self.conv2 = _norm(out), _conv(out, out)
        self.conv_out = nn.Conv2d(width, out, 1) if width != out else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_out is None else self.conv_out(x))


class SpatialAttention(nn.Module):
    """Every place of a feature map looks at all others, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        _, width, rows, columns = x.shape
        h = self.norm(x)
        query, key, value = (conv(h).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return x + self.proj_out(mixed.transpose(1, 2).reshape(-1, width, rows, columns))


class Halve(nn.Module):
    """Half the size by a strided convolution; the border is one row and column of zeros at the bottom and right."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Double(nn.Module):
    """Twice the size: the nearest pixel, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def _middle(width: int) -> list[nn.Module]:
    return [ResidualBlock(width, width), SpatialAttention(width), ResidualBlock(width, width)]


class Encoder(nn.Module):
    """(B, 3, S, S) in [-1, 1] to features (B, C, h, h).

    Attributes:
        taps: for each side of its feature maps, the block whose output stands for that level.
    """

    def __init__(self, settings: VQGANSettings) -> None:
        super().__init__()
        side, width = settings.img_size, settings.nf
        blocks: list[nn.Module] = [_conv(3, width)]
        self.taps: dict[int, int] = {}
        for level, multiple in enumerate(settings.ch_mult):
            if level:
                blocks.append(Halve(width))
                side //= 2
            for _ in range(settings.res_blocks):
                blocks.append(ResidualBlock(width, settings.nf * multiple))
                width = settings.nf * multiple
                self.taps[side] = len(blocks) - 1
                if side in settings.attn_resolutions:
                    blocks.append(SpatialAttention(width))
        self.blocks = nn.ModuleList([*blocks, *_middle(width), _norm(width), _conv(width, settings.emb_dim)])

    def forward(self, image: Tensor) -> Tensor:
        return self.pyramid(image, ())[0]

    def pyramid(self, image: Tensor, sides: tuple[int, ...]) -> tuple[Tensor, dict[int, Tensor]]:
        """The features, and those on the way to them whose maps have one of `sides`, by side."""
        kept = {self.taps[side]: side for side in sides}
        found: dict[int, Tensor] = {}
        x = image
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in kept:
                found[kept[index]] = x
        return x, found


class Codebook(nn.Module):
    """K rows of C numbers, each the centre of what it stands for."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)

    def distances(self, feature: Tensor) -> Tensor:
        """Squared distances of features (B, C, h, w) to all rows, (B, h * w, K), in full precision: bfloat16 would
        name other rows."""
        with torch.autocast(feature.device.type, enabled=False):
            rows, flat = self.embedding.weight.float(), feature.float().flatten(2).transpose(1, 2)
            return flat.square().sum(-1, keepdim=True) + rows.square().sum(-1) - 2 * (flat @ rows.T)

    def nearest(self, feature: Tensor) -> Tensor:
        """The nearest row to each place of features (B, C, h, w): (B, h * w) int64, row by row of the grid."""
        return self.distances(feature).argmin(dim=-1)

    def look_up(self, codes: Tensor) -> Tensor:
        """Rows of codes (B, N) on their square grid, (B, C, h, h)."""
        side = math.isqrt(codes.shape[1])
        return self.embedding(codes).transpose(1, 2).unflatten(2, (side, side))


class Generator(nn.Module):
    """Quantised features (B, C, h, h) to an image (B, 3, S, S), about [-1, 1], not clamped.

    Attributes:
        taps: for each side of its feature maps, the first residual block of that level.
    """

    def __init__(self, settings: VQGANSettings) -> None:
        super().__init__()
        side = settings.grid
        width = settings.nf * settings.ch_mult[-1]
        blocks: list[nn.Module] = [_conv(settings.emb_dim, width), *_middle(width)]
        self.taps: dict[int, int] = {}
        for level, multiple in reversed(list(enumerate(settings.ch_mult))):
            for _ in range(settings.res_blocks):
                self.taps.setdefault(side, len(blocks))
                blocks.append(ResidualBlock(width, settings.nf * multiple))
                width = settings.nf * multiple
                if side in settings.attn_resolutions:
                    blocks.append(SpatialAttention(width))
            if level:
                blocks.append(Double(width))
                side *= 2
        self.blocks = nn.ModuleList([*blocks, _norm(width), _conv(width, 3)])

    def forward(self, quantised: Tensor) -> Tensor:
        x = quantised
        for block in self.blocks:
            x = block(x)
        return x


class Reconstruction(NamedTuple):
    """What a VQGAN makes of a batch of images.

    Attributes:
        image: (B, 3, S, S), about [0, 1], not clamped.
        feature: what the encoder says, (B, C, h, h).
        quantised: the nearest row of the codebook at each place, same shape; gradients reach the codebook.
        codes: which rows those are, (B, N) int64.
    """

    image: Tensor
    feature: Tensor
    quantised: Tensor
    codes: Tensor


class VQGAN(nn.Module):
    """Images (B, 3, S, S) in [0, 1] through the codebook and back. Differs: the public code takes [-1, 1].

    The image's gradient reaches the encoder as if nothing had been quantised (straight-through).

    Args:
        settings: the layout.
    """

    def __init__(self, settings: VQGANSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(settings)
        self.quantize = Codebook(settings.codebook_size, settings.emb_dim)
        self.generator = Generator(settings)

    def forward(self, image: Tensor) -> Reconstruction:
        """Encode, quantise and generate; square crops (B, 3, H, H) as well, whose side is a whole number of codes.

        Raises:
            ShapeError: of another shape.
        """
        stride = self.settings.img_size // self.settings.grid
        shape = tuple(image.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[2] % stride:
            raise ShapeError(f"VQGAN: expected a batch of shape (B, 3, H, H), H a multiple of {stride}, got {shape}")
        feature = self.encoder(to_signed(image))
        codes = self.quantize.nearest(feature)
        quantised = self.quantize.look_up(codes)
        made = self.generator(quantised.detach() + (feature - feature.detach()))  # which is quantised to the last bit
        return Reconstruction(made / 2 + 0.5, feature, quantised, codes)

    def codes(self, image: Tensor) -> Tensor:
        """The nearest codes of images (B, 3, S, S) in [0, 1]: (B, N) int64.

        Raises:
            ShapeError: images of another size than the network's.
        """
        refuse_other_sizes(image, self.settings.img_size, "VQGAN")
        return self.quantize.nearest(self.encoder(to_signed(image)))


def refuse_other_sizes(image: Tensor, size: int, name: str) -> None:
    """Raise ShapeError unless (B, 3, size, size): a network whose codes stand on one grid knows no other."""
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != size or image.shape[3] != size:
        raise ShapeError(
            f"{name}: expected a batch of shape (B, 3, {size}, {size}), got {tuple(image.shape)}; it knows this one"
            f" size, so resize to {size} by {size} pixels first"
        )


def build_vqgan(name: str, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> VQGAN:
    """Rebuild a VQGAN, in evaluation mode, from its tensors and, where there are some, the settings in a file's header.

    Raises:
        WeightsError: of another architecture, or weights that do not fit.
    """
    known = metadata.get("architecture", ARCHITECTURE)
    if known != ARCHITECTURE:
        raise WeightsError(f"{name}: expected a {ARCHITECTURE}, got a {known}")
    stored = metadata.get("settings")
    with settings_of(name, ARCHITECTURE):
        settings = VQGANSettings.model_validate_json(stored) if stored else vqgan_settings(state)
    network = VQGAN(settings)
    load_weights(network, state, source=name)
    return network.eval()


def vqgan_settings(state: Mapping[str, Tensor], grid: int = PUBLIC_GRID) -> VQGANSettings:
    """Read the settings of a public-layout checkpoint off its tensor names and shapes.

    Args:
        state: tensors by name; others than those of the VQGAN are passed over.
        grid: codes along a side, of which these tensors do not tell.

    Raises:
        WeightsError: the tensors are not those of such a VQGAN.
    """
    first, rows = state.get("encoder.blocks.0.weight"), state.get("quantize.embedding.weight")
    if first is None or rows is None or first.ndim != 4 or rows.ndim != 2:
        raise WeightsError("not a VQGAN in the public layout: no encoder.blocks.0.weight or quantize.embedding.weight")
    kinds, widths = _blocks_of(state)
    levels: list[list[str]] = [[]]
    multiples: list[int] = []
    for kind, width in zip(kinds[1:-5], widths[1:-5], strict=True):  # between the first convolution and the middle
        if kind == "halve":
            levels.append([])
        elif kind == "residual":
            multiples[len(levels) - 1 :] = [width // int(first.shape[0])]
        levels[-1].append(kind)
    size = grid * 2 ** (len(levels) - 1)
    return VQGANSettings(
        img_size=size,
        nf=int(first.shape[0]),
        ch_mult=multiples,
        res_blocks=levels[0].count("residual"),
        attn_resolutions=sorted(size >> level for level, kinds in enumerate(levels) if "attention" in kinds),
        emb_dim=int(rows.shape[1]),
        codebook_size=int(rows.shape[0]),
    )


def _blocks_of(state: Mapping[str, Tensor]) -> tuple[list[str], list[int]]:
    """What each block of the encoder is, by the names of its tensors, and how wide it is at its end."""
    kinds: dict[int, str] = {}
    widths: dict[int, int] = {}
    marks = {"conv1.weight": "residual", "q.weight": "attention", "conv.weight": "halve", "weight": "plain"}
    for key, value in state.items():
        found = re.fullmatch(r"encoder\.blocks\.(\d+)\.(.+)", key)
        if found is not None and found[2] in marks:
            kinds[int(found[1])] = marks[found[2]]
            widths[int(found[1])] = int(value.shape[0])
    order = sorted(kinds)
    if order != list(range(len(order))) or len(order) < 7:
        raise WeightsError("not a VQGAN in the public layout: blocks of its encoder are missing")
    return [kinds[index] for index in order], [widths[index] for index in order]
