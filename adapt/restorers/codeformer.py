"""CodeFormer (Zhou et al. 2022, arXiv:2206.11253) in the layout of the public checkpoint.

An encoder for damaged photos, a transformer that predicts which codes the clean photo would have, and the generator
that turns codes into an image; how far the photo's own features steer the generator is the fidelity w. Shapes as in
`adapt.restorers.vqgan`. Written from the paper, and from names and shapes of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import UsageError, WeightsError
from adapt.images import to_signed
from adapt.restorers.vqgan import (
    Codebook,
    Encoder,
    Generator,
    ResidualBlock,
    refuse_other_sizes,
    vqgan_settings,
)
from adapt.settings import CodeFormerSettings

DEFAULT_FIDELITY: Final = 0.5  # DT-BFR App. E.2, and the public script
PUBLIC_HEAD: Final = 64  # width of one attention head in the public file, of which its tensors do not tell

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "encoder": ("encoder.",),
    "transformer": ("position_emb", "feat_emb.", "ft_layers.", "idx_pred_layer."),
    "codebook": ("quantize.",),
    "generator": ("generator.",),
    "fusion": ("fuse_convs_dict.",),
}


class SelfAttention(nn.Module):
    """Attention whose queries and keys know their places and whose values do not; one tensor projects all three."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        _, tokens, width = x.shape
        placed = x + position
        parts = zip((placed, placed, x), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        query, key, value = (
            F.linear(part, weight, bias).view(-1, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part, weight, bias in parts
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return self.out_proj(mixed.reshape(-1, tokens, width))


class TransformerLayer(nn.Module):
    """Attention and an MLP, both residual and both behind their normalisation. (B, N, D) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm1(x), position)
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


def _two_convolutions(width: int) -> nn.Sequential:
    first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.LeakyReLU(0.2), second)


class Fusion(nn.Module):
    """Controllable feature transformation: what is made, scaled and shifted by what the photo shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode_enc = ResidualBlock(2 * width, width)
        self.scale, self.shift = _two_convolutions(width), _two_convolutions(width)

    def forward(self, shown: Tensor, made: Tensor, fidelity: float | Tensor) -> Tensor:
        """Features of encoder and generator, both (B, width, h, w), to those the generator goes on with."""
        both = self.encode_enc(torch.cat([shown, made], dim=1))
        return made + fidelity * (made * self.scale(both) + self.shift(both))


class Reading(NamedTuple):
    """What CodeFormer reads in a batch of damaged photos.

    Attributes:
        logits: of each code at each place, (B, N, K).
        feature: what the encoder says, (B, C, h, h).
        shown: the encoder's features for the fusion, by the side of their maps.
    """

    logits: Tensor
    feature: Tensor
    shown: dict[int, Tensor]

    def lead(self) -> Tensor:
        """By how much the likeliest code leads before the next where it leads least, (B,), in logits.

        Where that is no more than rounding, two right programs may choose differently and give other images.
        """
        first, second = self.logits.topk(2, dim=-1).values.unbind(-1)
        return (first - second).amin(dim=1)

    def detached(self) -> Reading:
        """The same, out of the reach of gradients: so an image's loss trains the fusion alone (CodeFormer's stage III,
        where the public code detaches)."""
        shown = {side: feature.detach() for side, feature in self.shown.items()}
        return Reading(self.logits.detach(), self.feature.detach(), shown)


class CodeFormer(nn.Module):
    """Restores (B, 3, S, S) RGB in [0, 1] to the same, not clamped, S being `settings.img_size` and no other.

    Gradients of the image reach all parts: the encoder through the fusion, and both encoder and transformer through
    the choice of codes, as if their expectation had been taken (straight-through). Differs from the public code, which
    takes and gives [-1, 1], cuts all of these gradients (`Reading.detached` does), and decides by the number w whether
    to fuse; here w may be a tensor, so that an exported graph has it as an input.

    Args:
        settings: the layout.
    """

    def __init__(self, settings: CodeFormerSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.dim_embd
        self.position_emb = nn.Parameter(torch.zeros(settings.grid**2, width))
        self.encoder = Encoder(settings)
        self.quantize = Codebook(settings.codebook_size, settings.emb_dim)
        self.generator = Generator(settings)
        self.feat_emb = nn.Linear(settings.emb_dim, width)
        self.ft_layers = nn.ModuleList(TransformerLayer(width, settings.n_head) for _ in range(settings.n_layers))
        self.idx_pred_layer = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, settings.codebook_size, bias=False)
        )
        widths = dict(zip(settings.sides, settings.ch_mult, strict=True))
        self.fuse_convs_dict = nn.ModuleDict(
            {str(side): Fusion(settings.nf * widths[side]) for side in settings.connect_list}
        )

    def forward(self, photo: Tensor, fidelity: float | Tensor = DEFAULT_FIDELITY) -> Tensor:
        """Restore.

        Args:
            photo: (B, 3, S, S) in [0, 1].
            fidelity: w in [0, 1], from what faces look like to what the photo shows; a number, or one for each photo
                as a tensor of shape (B,) or (1,).

        Raises:
            ShapeError: photos of another size.
        """
        return self.generate(self.read(photo), fidelity)

    def read(self, photo: Tensor) -> Reading:
        """Encode photos (B, 3, S, S) in [0, 1] and predict the codes of what they show.

        Raises:
            ShapeError: photos of another size.
        """
        refuse_other_sizes(photo, self.settings.img_size, "CodeFormer")
        feature, shown = self.encoder.pyramid(to_signed(photo), tuple(self.settings.connect_list))
        tokens = self.feat_emb(feature.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            tokens = layer(tokens, self.position_emb)
        return Reading(self.idx_pred_layer(tokens), feature, shown)

    def codes(self, image: Tensor) -> Tensor:
        """The codes nearest to what the encoder says of images (B, 3, S, S) in [0, 1], without the transformer:
        (B, N) int64.

        Raises:
            ShapeError: images of another size.
        """
        refuse_other_sizes(image, self.settings.img_size, "CodeFormer")
        return self.quantize.nearest(self.encoder(to_signed(image)))

    def generate(self, reading: Reading, fidelity: float | Tensor = DEFAULT_FIDELITY) -> Tensor:
        """The image of the likeliest codes, (B, 3, S, S), about [0, 1]; `fidelity` as in `forward`."""
        x = self._chosen(reading.logits)
        if self.settings.adain:
            x = with_statistics_of(x, reading.feature)
        fused = {self.generator.taps[side]: side for side in self.settings.connect_list}
        if isinstance(fidelity, Tensor):
            fidelity = fidelity.to(x.dtype).view(-1, 1, 1, 1)
        elif fidelity == 0:
            fused = {}
        for index, block in enumerate(self.generator.blocks):
            x = block(x)
            if index in fused:
                side = fused[index]
                x = cast(Fusion, self.fuse_convs_dict[str(side)])(reading.shown[side], x, fidelity)
        return x / 2 + 0.5

    def _chosen(self, logits: Tensor) -> Tensor:
        """The rows of the likeliest codes, (B, C, h, h), with the gradient of the expected row."""
        hard = self.quantize.look_up(logits.argmax(dim=-1))
        if not logits.requires_grad:
            return hard
        rows = self.quantize.embedding.weight.detach()
        soft = (logits.softmax(dim=-1) @ rows).transpose(1, 2).reshape(hard.shape)
        return hard + (soft - soft.detach())  # which is hard to the last bit

    def train_only(self, parts: Collection[str]) -> None:
        """Let gradients reach these of `PARTS` and freeze the others.

        Raises:
            UsageError: no such part.
        """
        if unknown := sorted(set(parts) - set(PARTS)):
            raise UsageError(f"CodeFormer: no part {', '.join(unknown)}; its parts are {', '.join(PARTS)}")
        prefixes = tuple(prefix for part in parts for prefix in PARTS[part])
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(bool(prefixes) and name.startswith(prefixes))


def with_statistics_of(x: Tensor, model: Tensor, eps: float = 1e-5) -> Tensor:
    """`x` with the mean and standard deviation that `model` has in each channel of each photo, both (B, C, h, w).

    Adaptive instance normalisation (Huang & Belongie 2017, arXiv:1703.06868, Eq. 8); variances are unbiased, and `eps`
    is added to them, as in the public code.
    """
    mean, model_mean = x.mean((2, 3), keepdim=True), model.mean((2, 3), keepdim=True)
    std, model_std = ((part.var((2, 3), keepdim=True) + eps).sqrt() for part in (x, model))
    return (x - mean) / std * model_std + model_mean


def codeformer_settings(state: Mapping[str, Tensor]) -> CodeFormerSettings:
    """Read the settings of a public-layout checkpoint off its tensor names and shapes.

    Heads are taken to be 64 wide, as in the public file.

    Raises:
        WeightsError: the tensors are not those of a CodeFormer.
    """
    position = state.get("position_emb")
    if position is None or position.ndim != 2 or math.isqrt(position.shape[0]) ** 2 != position.shape[0]:
        raise WeightsError("not a CodeFormer in the public layout: no position_emb of a square grid of codes")
    coarse = vqgan_settings(state, grid=math.isqrt(position.shape[0]))
    width = int(position.shape[1])
    layers = [int(key.split(".")[1]) for key in state if key.startswith("ft_layers.")]
    sides = {int(key.split(".")[1]) for key in state if key.startswith("fuse_convs_dict.")}
    return CodeFormerSettings(
        **coarse.model_dump(),
        dim_embd=width,
        n_head=max(1, width // PUBLIC_HEAD),
        n_layers=max(layers, default=0) + 1,
        connect_list=sorted(sides),
    )
