"""Whose face it is, by a user's ArcFace file: the residual network of 18 layers whose weights GFPGAN passes on.

Source: Deng et al. 2019 (arXiv:1801.07698); layout of arcface_resnet18.pth. Its weights do not ship.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError
from adapt.faces.crops import check_square
from adapt.faces.recogniser import cosine_similarity
from adapt.images import check_image
from adapt.weights import load_weights

SIDE: Final = 128
FEATURES: Final = 512
WIDTHS: Final = (64, 128, 256, 512)
UNITS: Final = 2  # of each width
LOST: Final = 0.7  # a cosine below 0.3, the lowest that NTIRE's face restoration challenge asks of a restored face
GREY: Final = (0.2989, 0.5870, 0.1140)


class ArcFaceUnit(nn.Module):
    """Two normalised convolutions and a way around them, which is one of its own where the image changes its size."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, before, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or before != width:
            self.downsample = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        main = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.bn2(self.conv2(main)) + around)


class ArcFaceNetwork(nn.Module):
    """(B, 1, 128, 128) in [-1, 1], grey, not checked and not clipped, to embeddings (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU()
        before = WIDTHS[0]
        for number, width in enumerate(WIDTHS, start=1):
            units: list[nn.Module] = []
            for index in range(UNITS):
                units.append(ArcFaceUnit(before, width, 2 if index == 0 and number > 1 else 1))
                before = width
            self.add_module(f"layer{number}", nn.Sequential(*units))
        self.bn4 = nn.BatchNorm2d(before)
        self.fc5 = nn.Linear(before * 8 * 8, FEATURES)
        self.bn5 = nn.BatchNorm1d(FEATURES)

    def forward(self, faces: Tensor) -> Tensor:
        if faces.ndim != 4 or faces.shape[1:] != (1, SIDE, SIDE):
            raise ShapeError(f"arcface: expected grey faces of (B, 1, {SIDE}, {SIDE}), got {tuple(faces.shape)}")
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(faces))), 2, 2)
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.bn5(self.fc5(self.bn4(x).flatten(1)))


@dataclass(frozen=True, slots=True)
class ArcFace:
    """Such a recogniser, ready to use; a `FaceIdentifier`. Gradients flow to the faces, never to the weights.

    Attributes:
        name: what the user calls it.
        network: the network.
        by_angle: it was trained for angles.
        lost_from: as of every `FaceIdentifier`.
    """

    name: str
    network: ArcFaceNetwork
    by_angle: bool = True
    lost_from: float = LOST

    def of_aligned(self, faces: Tensor) -> Tensor:
        """Embeddings (B, 512) of faces (B, 3, S, S) in [0, 1], aligned as those of FFHQ are: of the whole, as GFPGAN
        feeds it. No face's depends on the others of its batch.

        Raises:
            ShapeError, RangeError: not such a batch, or not square.
        """
        check_image(faces, self.name)
        return self.unchecked(faces)

    def unchecked(self, faces: Tensor) -> Tensor:
        """The same of faces that may leave [0, 1], as a network's in training do."""
        check_square(faces, self.name)
        weights = torch.tensor(GREY, dtype=faces.dtype, device=faces.device).view(1, 3, 1, 1)
        grey = ((faces * 2 - 1) * weights).sum(1, keepdim=True)
        if grey.shape[-1] != SIDE:
            grey = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.network(grey)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine distance of embeddings (B, 512) from their counterparts, (B,) in [0, 2]."""
        return 1 - cosine_similarity(a, b)

    def to(self, device: torch.device | str) -> ArcFace:
        """Move the network; returns itself."""
        self.network.to(device)
        return self


def is_arcface(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are of that layout, by their names."""
    return {"bn5.weight", "fc5.weight", "layer4.1.prelu.weight"} <= {key.removeprefix("module.") for key in state}


def build_arcface(name: str, state: Mapping[str, Tensor]) -> ArcFace:
    """The recogniser of a file's tensors.

    Raises:
        WeightsError: weights that do not fit.
    """
    network = ArcFaceNetwork()
    load_weights(network, {key.removeprefix("module."): value for key, value in state.items()}, source=name)
    return ArcFace(name, network.eval().requires_grad_(False))
