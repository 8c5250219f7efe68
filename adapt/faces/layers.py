"""What the networks of TensorFlow share: its way of padding, and convolutions of one channel each with a mixing one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "same": an odd pixel of padding comes below and on the right."""
    above, below = _padding(x.shape[2], kernel, stride)
    left, right = _padding(x.shape[3], kernel, stride)
    return F.pad(x, (left, right, above, below))


def _padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding."""

    def __init__(self, before: int, width: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = True):
        super().__init__(before, width, kernel, stride, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(padded(input, self.kernel_size[0], self.stride[0]))


class SeparableConv(nn.Module):
    """A 3 x 3 convolution of each channel by itself, and one of 1 x 1 that mixes them; only the second has a bias."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = SameConv(before, before, 3, stride, groups=before, bias=False)
        self.pointwise = nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))
