"""The U-Net discriminator with spectral norm (Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833) in the public layout."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError

EPS = 1e-12


class SpectralConv(nn.Module):
    """A convolution without bias whose weight is divided by its largest singular value (Miyato et al. 2018).

    One power iteration per forward in training, none in evaluation. State names are the public ones
    (`weight_orig`, `weight_u`, `weight_v`), which PyTorch's own parametrisation no longer writes.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.padding = 1
        self.weight_orig = nn.Parameter(torch.empty(out_channels, channels, kernel, kernel))
        nn.init.kaiming_uniform_(self.weight_orig, a=5**0.5)
        columns = channels * kernel * kernel
        self.register_buffer("weight_u", F.normalize(torch.ones(out_channels), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.ones(columns), dim=0))

    def normalised(self) -> Tensor:
        """The weight divided by its spectral norm; in float32 also where the rest is in half precision."""
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            matrix = self.weight_orig.flatten(1)
            if self.training:
                with torch.no_grad():
                    self.weight_v.copy_(F.normalize(matrix.t() @ self.weight_u, dim=0, eps=EPS))
                    self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=EPS))
            u, v = self.weight_u.clone(), self.weight_v.clone()  # a later forward must not change this one's graph
            return self.weight_orig / torch.dot(u, matrix @ v)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalised(), stride=self.stride, padding=self.padding)


class UNetDiscriminator(nn.Module):
    """Judges every pixel: (B, 3, H, W) RGB in [0, 1] -> (B, 1, H, W) logits, positive for real.

    Args:
        features: width of the first layer (64 in the public files).
        generator: draws the initial weights; PyTorch's global one where None.

    Raises (forward):
        ShapeError: a side is not a multiple of 8.
    """

    def __init__(self, in_channels: int = 3, features: int = 64, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        f = features
        self.conv0 = nn.Conv2d(in_channels, f, 3, padding=1)
        self.conv1 = SpectralConv(f, 2 * f, 4, stride=2)
        self.conv2 = SpectralConv(2 * f, 4 * f, 4, stride=2)
        self.conv3 = SpectralConv(4 * f, 8 * f, 4, stride=2)
        self.conv4 = SpectralConv(8 * f, 4 * f, 3)
        self.conv5 = SpectralConv(4 * f, 2 * f, 3)
        self.conv6 = SpectralConv(2 * f, f, 3)
        self.conv7 = SpectralConv(f, f, 3)
        self.conv8 = SpectralConv(f, f, 3)
        self.conv9 = nn.Conv2d(f, 1, 3, padding=1)
        if generator is not None:
            self._draw(generator)

    def _draw(self, generator: torch.Generator) -> None:
        """Initial weights from one generator; a few power iterations so that the first norm is near its value."""
        with torch.no_grad():
            for parameter in self.parameters():
                bound = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.0
                parameter.uniform_(-bound, bound, generator=generator) if bound else parameter.zero_()
            for layer in self.children():
                if isinstance(layer, SpectralConv):
                    layer.weight_u.normal_(generator=generator)
                    for _ in range(10):
                        layer.normalised()

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-1] % 8 or image.shape[-2] % 8:
            raise ShapeError(f"discriminator: expected sides that are multiples of 8, got {tuple(image.shape[-2:])}")

        def active(layer: nn.Module, x: Tensor) -> Tensor:
            return F.leaky_relu(layer(x), 0.2)

        def doubled(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

        x0 = active(self.conv0, image)
        x1 = active(self.conv1, x0)
        x2 = active(self.conv2, x1)
        x3 = active(self.conv3, x2)
        x4 = active(self.conv4, doubled(x3)) + x2
        x5 = active(self.conv5, doubled(x4)) + x1
        x6 = active(self.conv6, doubled(x5)) + x0
        return cast(Tensor, self.conv9(active(self.conv8, active(self.conv7, x6))))
