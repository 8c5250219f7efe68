"""The accurate detector: a single-shot detector over MobileNet v1, trained on WIDER FACE.

Source: face-api.js, ssd_mobilenetv1, MIT; Howard et al. 2017 (arXiv:1704.04861), Liu et al. 2016 (arXiv:1512.02325).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError
from adapt.faces.layers import SameConv

SIDE: Final = 512
MOBILENET: Final = (  # width and stride of each pair of convolutions
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
SEEN_EARLIER: Final = 10  # the pair whose features make the finest grid
EXTRA: Final = ((256, 512), (128, 256), (128, 256), (64, 128))  # widths of the pairs that make the coarser grids
GRIDS: Final = (32, 16, 8, 4, 2, 1)  # cells along a side
SMALLEST, LARGEST = 0.2, 0.95  # sizes of the anchors, in shares of the side
_BN_EPSILON = 0.001


class SsdNetwork(nn.Module):
    """(B, 3, 512, 512) in [0, 1] to boxes (B, 5118, 4), xyxy in shares of the side, and scores (B, 5118) in [0, 1]."""

    side: Final = SIDE
    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.start = SameConv(3, 32, 3, 2)
        self.depthwise, self.pointwise = nn.ModuleList(), nn.ModuleList()
        before = 32
        for width, stride in MOBILENET:
            self.depthwise.append(SameConv(before, before, 3, stride, groups=before))
            self.pointwise.append(SameConv(before, width, 1))
            before = width
        self.extra = nn.ModuleList()
        widths = [MOBILENET[SEEN_EARLIER][0], before]
        for narrow, width in EXTRA:
            self.extra += [SameConv(before, narrow, 1), SameConv(narrow, width, 3, 2)]
            before = width
            widths.append(width)
        counts = [3, *[6] * (len(GRIDS) - 1)]
        self.boxes = nn.ModuleList(nn.Conv2d(w, n * 4, 1) for w, n in zip(widths, counts, strict=True))
        self.classes = nn.ModuleList(nn.Conv2d(w, n * 3, 1) for w, n in zip(widths, counts, strict=True))
        self.register_buffer("anchors", anchor_boxes(), persistent=False)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        if photos.ndim != 4 or photos.shape[1:] != (3, SIDE, SIDE):
            raise ShapeError(f"detector: expected photos of (B, 3, {SIDE}, {SIDE}), got {tuple(photos.shape)}")
        features: list[Tensor] = []
        x = F.relu6(self.start(photos * 2 - 1))
        for index, (depthwise, pointwise) in enumerate(zip(self.depthwise, self.pointwise, strict=True)):
            x = F.relu6(pointwise(F.relu6(depthwise(x))))
            if index in (SEEN_EARLIER, len(MOBILENET) - 1):
                features.append(x)
        for index, conv in enumerate(self.extra):
            x = F.relu6(conv(x))
            if index % 2:
                features.append(x)
        boxes, classes = (
            torch.cat([_per_anchor(head(x), n) for head, x in zip(heads, features, strict=True)], dim=1)
            for heads, n in ((self.boxes, 4), (self.classes, 3))
        )
        middle = boxes[..., :2] / 10 * self.anchors[:, 2:] + self.anchors[:, :2]
        half = torch.exp(boxes[..., 2:] / 5) * self.anchors[:, 2:] / 2
        found = torch.cat([middle - half, middle + half], dim=-1)[..., [1, 0, 3, 2]]  # of rows and columns: xyxy
        return found, torch.sigmoid(classes[..., 1])  # 0 is the background; nothing was trained to be 2


def _per_anchor(x: Tensor, values: int) -> Tensor:
    """(B, anchors * values, H, W) to (B, H * W * anchors, values)."""
    return x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values))


def anchor_boxes() -> Tensor:
    """The boxes that the network moves and stretches, (5118, 4): middle y and x, height and width, in shares."""
    step = (LARGEST - SMALLEST) / (len(GRIDS) - 1)
    sizes = [*(SMALLEST + step * index for index in range(len(GRIDS))), 1.0]
    boxes: list[tuple[float, float, float, float]] = []
    for index, (cells, (size, larger)) in enumerate(zip(GRIDS, pairwise(sizes), strict=True)):
        shapes = [(size, 1.0), (math.sqrt(size * larger), 1.0), *((size, ratio) for ratio in (2, 0.5, 3, 0.3333))]
        if index == 0:
            shapes = [(0.1, 1.0), (size, 2.0), (size, 0.5)]
        boxes += [
            ((row + 0.5) / cells, (column + 0.5) / cells, size / math.sqrt(ratio), size * math.sqrt(ratio))
            for row in range(cells)
            for column in range(cells)
            for size, ratio in shapes
        ]
    return torch.tensor(boxes)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The depthwise convolutions with the batch normalisation behind each worked into weight and bias."""
    found = {key: value for key, value in state.items() if ".norm." not in key}
    for key, variance in state.items():
        conv = key.removesuffix(".norm.variance")
        parts = [f"{conv}.weight", *(f"{conv}.norm.{part}" for part in ("gamma", "beta", "mean"))]
        if key.endswith(".norm.variance") and all(part in state for part in parts):
            weight, gamma, beta, mean = (state[part] for part in parts)
            scale = gamma / torch.sqrt(variance + _BN_EPSILON)
            found[f"{conv}.weight"] = weight * scale[:, None, None, None]
            found[f"{conv}.bias"] = beta - mean * scale
    return found
