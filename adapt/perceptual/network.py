"""The pack's perceptual network: a small convolutional backbone under a distance of LPIPS form.

It is not LPIPS: the backbone is neither VGG nor AlexNet, and no human judgement trained the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError, UsageError

MIN_SIDE = 16  # pixels: below it the deepest of five stages sees nothing but its own border
_EPS = 1e-8  # inside the root, so that the gradient of the norm is finite where every channel is 0
_SLOPE = 0.1


class PerceptualNetwork(nn.Module):
    """A perceptual distance of two images, and features for comparing sets of images.

    Each stage is two 3x3 convolutions; between stages a binomial filter halves the resolution, so that a small
    shift of the image changes the features little (Zhang 2019, arXiv:1904.11486).

    Distance: Zhang et al. 2018 (arXiv:1801.03924), Eq. (1). Differs: the backbone; epsilon stands inside the root
    of the norm; the channel weights are positive by construction (softplus) and share one scale, so that images
    whose features are orthogonal everywhere are 1 apart.

    Args:
        channels: width of each stage; stage i works at 1 / 2**i of the resolution.

    Raises:
        UsageError: no stage at all.
    """

    raw_weights: nn.ParameterList
    kernel: Tensor

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        if not channels:
            raise UsageError("channels: expected the width of one stage or more, got an empty list")
        self.channels = tuple(channels)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, padding=1),
                nn.LeakyReLU(_SLOPE),
                nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(_SLOPE),
            )
            for before, width in zip((3, *self.channels[:-1]), self.channels, strict=True)
        )
        self.raw_weights = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in self.channels)
        binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", binomial[:, None] * binomial, persistent=False)

    def features(self, image: Tensor) -> list[Tensor]:
        """Activations after each stage, from fine to coarse.

        Args:
            image: (B, 3, H, W) in [0, 1], H and W at least 16.

        Returns:
            One (B, channels[i], H / 2**i, W / 2**i) tensor per stage, sizes rounded up.

        Raises:
            ShapeError: not a batch of RGB images, or too small.
        """
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < MIN_SIDE:
            raise ShapeError(
                f"perceptual network: expected a batch of shape (B, 3, H, W) with sides of {MIN_SIDE} pixels or more,"
                f" got {tuple(image.shape)}"
            )
        x = ((image - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        found: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            x = stage(self._halved(x) if index else x)
            found.append(x)
        return found

    def channel_weights(self) -> list[Tensor]:
        """The weights of each stage's channels, (channels[i],): positive; the stages' mean weights add up to 1 / 2.

        Unit vectors that are orthogonal differ by 2 in squares, hence the half.
        """
        positive = [F.softplus(raw) for raw in self.raw_weights]
        total = torch.stack([weights.mean() for weights in positive]).sum()
        return [weights / (2 * total) for weights in positive]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each image of `a` to its counterpart in `b`: (B,), not negative, 0 for equal images.

        Args:
            a, b: (B, 3, H, W) in [0, 1]; gradients reach both.

        Raises:
            ShapeError: the shapes differ, or are not those of images.
        """
        if a.shape != b.shape:
            raise ShapeError(
                f"perceptual distance: expected two batches of one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
            )
        return self.compare(self.features(a), self.features(b))

    def compare(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The distance, (B,), from the features of both sides."""
        total = a[0].new_zeros(a[0].shape[0])
        for first, second, weights in zip(a, b, self.channel_weights(), strict=True):
            squares = (_unit(first) - _unit(second)).square()
            total = total + (squares.mean(dim=(2, 3)) * weights).sum(dim=1)
        return total

    def embed(self, image: Tensor) -> Tensor:
        """Mean and standard deviation over the image of the two deepest stages: (B, D), for KID and the like.

        Raises:
            ShapeError: as `features`.
        """
        deep = self.features(image)[-2:]
        return torch.cat([pooled(stage) for stage in deep], dim=1)

    def _halved(self, x: Tensor) -> Tensor:
        """Half the resolution, sizes rounded up, each channel filtered with (1 2 1) / 4 in both directions."""
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=x.shape[1])


def pooled(features: Tensor) -> Tensor:
    """Mean and standard deviation of each channel over the image: (B, C, H, W) to (B, 2C)."""
    variance = features.var(dim=(2, 3), correction=0)
    return torch.cat([features.mean(dim=(2, 3)), (variance + _EPS).sqrt()], dim=1)


def initialise(network: nn.Module, draw: torch.Generator) -> None:
    """Draw every convolution and linear layer anew from `draw` (He et al. 2015, arXiv:1502.01852); biases are 0."""
    gain = math.sqrt(2 / (1 + _SLOPE**2))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in), generator=draw)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _unit(features: Tensor) -> Tensor:
    return features * (features.square().sum(dim=1, keepdim=True) + _EPS).rsqrt()
