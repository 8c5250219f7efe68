"""Whose face it is: dlib's residual network, whose embeddings of one person lie near each other.

Source: Davis King, dlib_face_recognition_resnet_model_v1, in the public domain; weights as face-api.js rounded them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError
from adapt.faces.crops import Window, check_square, resized, share_of
from adapt.faces.entries import ARCHITECTURES, RECOGNISER
from adapt.faces.stored import restored
from adapt.images import check_image
from adapt.weights import load_weights

SIDE: Final = 150
FEATURES: Final = 128
LOST: Final = 0.37  # of two photos of one person 1 in 100 is farther, of strangers 1 in 100 nearer (London set, 128 px)
INSIDE: Final = Window(0.1, 0.1, 0.9, 0.9)  # of an aligned face, in shares of its side
UNITS: Final = (  # name, width, whether it halves the image; in the order of the way through
    ("conv32_1", 32, False), ("conv32_2", 32, False), ("conv32_3", 32, False),
    ("conv64_down", 64, True), ("conv64_1", 64, False), ("conv64_2", 64, False), ("conv64_3", 64, False),
    ("conv128_down", 128, True), ("conv128_1", 128, False), ("conv128_2", 128, False),
    ("conv256_down", 256, True), ("conv256_1", 256, False), ("conv256_2", 256, False),
    ("conv256_down_out", 256, True),
)  # fmt: skip
_MEAN = (122.782, 117.001, 104.298)  # of RGB in [0, 255]


class ResidualUnit(nn.Module):
    """Two convolutions and a way around them; where it halves the image, the way around is a mean of 2 x 2 pixels."""

    def __init__(self, before: int, width: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1 = nn.Conv2d(before, width, 3, 2 if halves else 1, 0 if halves else 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv2(F.relu(self.conv1(x)))
        if not self.halves:
            return F.relu(main + x)
        around = F.avg_pool2d(x, 2)
        high, wide = (around.shape[i] - main.shape[i] for i in (2, 3))  # the main path is one smaller on odd sides
        main = F.pad(main, (0, wide, 0, high))
        return F.relu(main + F.pad(around, (0, 0, 0, 0, 0, main.shape[1] - around.shape[1])))


class RecogniserNetwork(nn.Module):
    """(B, 3, 150, 150) in [0, 1], not checked and not clipped, to embeddings (B, 128).

    Differs from dlib: every convolution's scale and shift per channel are part of it.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = nn.Conv2d(3, 32, 7, 2)
        before = 32
        for name, width, halves in UNITS:
            self.add_module(name, ResidualUnit(before, width, halves))
            before = width
        self.fc = nn.Linear(before, FEATURES, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        if faces.ndim != 4 or faces.shape[1:] != (3, SIDE, SIDE):
            raise ShapeError(f"recogniser: expected faces of (B, 3, {SIDE}, {SIDE}), got {tuple(faces.shape)}")
        x = F.relu(self.conv32_down((faces * 255 - self.mean) / 256))
        x = F.max_pool2d(x, 3, 2)
        for name, _, _ in UNITS:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean(dim=(2, 3)))


class FaceIdentifier(Protocol):
    """What tells people apart: the pack's recogniser, or one of a user's (`adapt.faces.arcface`, and for scores alone
    `adapt.faces.onnx_recogniser`)."""

    @property
    def name(self) -> str:
        """What its numbers must be reported with."""
        ...

    @property
    def lost_from(self) -> float:
        """Distance from which a restored face counts as somebody else's."""
        ...

    @property
    def by_angle(self) -> bool:
        """Whether the angle between embeddings tells people apart, and their lengths say nothing."""
        ...

    def of_aligned(self, faces: Tensor) -> Tensor:
        """Embeddings (B, D) of faces aligned as those of FFHQ are, (B, 3, S, S) in [0, 1]; none depends on others."""
        ...

    def unchecked(self, faces: Tensor) -> Tensor:
        """The same of faces that may leave [0, 1]. Gradients flow to the faces, never to the weights."""
        ...

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Of embeddings from their counterparts, (B,): 0 for one face, larger for strangers."""
        ...

    def to(self, device: torch.device | str) -> FaceIdentifier:
        """Move its network; returns itself."""
        ...


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A recogniser that is ready to use. Gradients flow to the faces, never to the weights.

    Attributes:
        name: what the user calls it.
        network: for a loss on images that may leave [0, 1], call it on `crop` of them.
        by_angle: it was trained for distances.
        lost_from: as of every `FaceIdentifier`.
    """

    name: str
    network: RecogniserNetwork
    by_angle: bool = False
    lost_from: float = LOST

    def __call__(self, faces: Tensor) -> Tensor:
        """Embeddings of faces as dlib crops them; they have no norm in common.

        Args:
            faces: (B, 3, S, S) in [0, 1], brought to 150 px; the eyes at about 36 % of the height.

        Returns:
            (B, 128); no face's depends on the others of its batch.

        Raises:
            ShapeError, RangeError: not such a batch, or not square.
        """
        check_image(faces, self.name)
        side = check_square(faces, self.name)
        return self.network(faces if side == SIDE else resized(faces, Window(0, 0, side, side), SIDE))

    def of_aligned(self, faces: Tensor) -> Tensor:
        """Embeddings of faces aligned as those of FFHQ are; arguments, result and errors as above."""
        check_image(faces, self.name)
        return self.unchecked(faces)

    def unchecked(self, faces: Tensor) -> Tensor:
        """The same of faces that may leave [0, 1], as a network's in training do."""
        return self.network(crop(faces))

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """`euclidean_distance`."""
        return euclidean_distance(a, b)

    def to(self, device: torch.device | str) -> Recogniser:
        """Move the network; returns itself."""
        self.network.to(device)
        return self


def crop(faces: Tensor) -> Tensor:
    """The middle of aligned faces, as the network takes it: from 10 % to 90 % of both sides.

    Args:
        faces: (B, 3, S, S), aligned as those of FFHQ are, any range.

    Returns:
        (B, 3, 150, 150): bilinear, over all pixels where it shrinks. Differentiable.

    Raises:
        ShapeError: not square.
    """
    return resized(faces, share_of(check_square(faces, "crop"), INSIDE), SIDE)


def euclidean_distance(a: Tensor, b: Tensor) -> Tensor:
    """How far embeddings (B, 128) lie from their counterparts, (B,): what dlib's network was trained for.

    Where two are equal its gradient is 0.
    """
    return torch.linalg.vector_norm(a - b, dim=-1)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between embeddings (B, 128) and their counterparts, (B,) in [-1, 1].

    By this measure this network finds all people alike: 0.92 of two people on average, 0.99 of one (London set, aligned
    faces, neutral and smiling); the distances of these are 0.55 and 0.19.
    """
    return F.cosine_similarity(a, b, dim=-1)


def build_recogniser(name: str, state: Mapping[str, Tensor], header: Mapping[str, str]) -> Recogniser:
    """Rebuild a recogniser from the tensors and the header of its file.

    Raises:
        WeightsError: of another architecture, or weights that do not fit.
    """
    network = RecogniserNetwork()
    tensors = restored(name, state, header, ARCHITECTURES[RECOGNISER])
    load_weights(network, _folded(tensors), source=name)
    return Recogniser(name, network.eval().requires_grad_(False))


def _folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions with the scale and shift per channel that follow them worked into their weights and biases."""
    folded = {key: value for key, value in state.items() if not key.endswith((".scale", ".shift"))}
    for key, scale in state.items():
        conv = key.removesuffix(".scale")
        parts = [f"{conv}.{part}" for part in ("weight", "bias", "shift")]
        if key.endswith(".scale") and all(part in state for part in parts):
            weight, bias, shift = (state[part] for part in parts)
            folded[f"{conv}.weight"] = weight * scale[:, None, None, None]
            folded[f"{conv}.bias"] = bias * scale + shift
    return folded
