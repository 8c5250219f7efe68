"""The fast detector: a YOLO v2 of separable convolutions, 30 times smaller, for faces that look at the camera.

Source: face-api.js, tiny_face_detector, MIT; Redmon and Farhadi 2016 (arXiv:1612.08242).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError
from adapt.faces.layers import SeparableConv

SIDE: Final = 416
WIDTHS: Final = (16, 32, 64, 128, 256, 512)
ANCHORS: Final = (  # width and height, in cells of the grid
    (1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308),
)  # fmt: skip
VALUES: Final = 5  # of each anchor: where its middle is, how it is stretched, whether it is a face
_SLOPE = 0.1
_MEAN = (117.001, 114.697, 97.404)  # of RGB in [0, 255]


class TinyYoloNetwork(nn.Module):
    """(B, 3, 416, 416) in [0, 1] to boxes (B, 845, 4), xyxy in shares of the side, and scores (B, 845) in [0, 1]."""

    side: Final = SIDE
    mean: Tensor
    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv2d(3, WIDTHS[0], 3)
        self.convs = nn.ModuleList(SeparableConv(before, width) for before, width in pairwise(WIDTHS))
        self.head = nn.Conv2d(WIDTHS[-1], len(ANCHORS) * VALUES, 1)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("anchors", torch.tensor(ANCHORS), persistent=False)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        if photos.ndim != 4 or photos.shape[1:] != (3, SIDE, SIDE):
            raise ShapeError(f"detector: expected photos of (B, 3, {SIDE}, {SIDE}), got {tuple(photos.shape)}")
        x = F.leaky_relu(self.start(photos - self.mean / 255), _SLOPE)
        for conv in self.convs:
            x = F.leaky_relu(conv(F.max_pool2d(x, 2, ceil_mode=True)), _SLOPE)
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 2, 1)
        x = self.head(x).unflatten(1, (len(ANCHORS), VALUES)).permute(0, 3, 4, 1, 2)  # (B, rows, columns, anchors, 5)
        cells = x.shape[1]
        index = torch.arange(cells, device=x.device, dtype=x.dtype)
        corner = torch.stack(torch.meshgrid(index, index, indexing="xy"), dim=-1)[:, :, None]
        middle = (corner + torch.sigmoid(x[..., :2])) / cells
        half = torch.exp(x[..., 2:4]) * self.anchors / (2 * cells)
        boxes = torch.cat([middle - half, middle + half], dim=-1)
        return boxes.flatten(1, 3), torch.sigmoid(x[..., 4]).flatten(1)
