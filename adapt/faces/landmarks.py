"""Where 68 points of a face lie: jaw, brows, nose, eyes and mouth, in the order of the 300-W data.

Source: Vincent Mühler's face-api.js, face_landmark_68, MIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError
from adapt.faces.crops import Window, check_square, letterbox, resized_from_corner, share_of
from adapt.faces.entries import ARCHITECTURES, LANDMARKS
from adapt.faces.layers import SameConv, SeparableConv
from adapt.faces.stored import restored
from adapt.images import check_image
from adapt.weights import load_weights

SIDE: Final = 112
POINTS: Final = 68
WIDTHS: Final = (32, 64, 128, 256)
RIGHT_EYE: Final = slice(36, 42)  # the person's own right, left in the image
LEFT_EYE: Final = slice(42, 48)
AROUND: Final = Window(0.15, 0.29, 0.85, 0.99)  # of an aligned face, in shares of its side
_MEAN = (122.782, 117.001, 104.298)  # of RGB in [0, 255]


class DenseUnit(nn.Module):
    """Four convolutions, each of the sum of all before it; the first halves the image."""

    def __init__(self, before: int, width: int, first: bool) -> None:
        super().__init__()
        self.conv0 = SameConv(before, width, 3, 2) if first else SeparableConv(before, width, 2)
        self.conv1 = SeparableConv(width, width)
        self.conv2 = SeparableConv(width, width)
        self.conv3 = SeparableConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        total = F.relu(self.conv0(x))
        for conv in (self.conv1, self.conv2, self.conv3):
            # Only what goes on is cut off at 0: the sum keeps what is below it.
            total = total + conv(F.relu(total))
        return F.relu(total)


class LandmarkNetwork(nn.Module):
    """(B, 3, 112, 112) in [0, 1], not checked and not clipped, to points (B, 68, 2), x and y in shares of the side."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        for index, (before, width) in enumerate(pairwise((3, *WIDTHS))):
            self.add_module(f"dense{index}", DenseUnit(before, width, first=index == 0))
        self.fc = nn.Linear(WIDTHS[-1], POINTS * 2)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        if faces.ndim != 4 or faces.shape[1:] != (3, SIDE, SIDE):
            raise ShapeError(f"landmarks: expected faces of (B, 3, {SIDE}, {SIDE}), got {tuple(faces.shape)}")
        x = faces - self.mean / 255
        for index in range(len(WIDTHS)):
            x = self.get_submodule(f"dense{index}")(x)
        return self.fc(x.mean(dim=(2, 3))).unflatten(1, (POINTS, 2))


@dataclass(frozen=True, slots=True)
class Landmarks:
    """A landmark network that is ready to use. Gradients flow to the faces, never to the weights.

    Attributes:
        name: what the user calls it.
        network: for a loss on images that may leave [0, 1], call it on `resized_from_corner` windows of them.
    """

    name: str
    network: LandmarkNetwork

    def __call__(self, faces: Tensor) -> Tensor:
        """The points of faces that fill their images.

        Args:
            faces: (B, 3, H, W) in [0, 1]; what is missing to a square is black, on both sides alike.

        Returns:
            (B, 68, 2), x and y in pixels of the images, counted as their authors' code counts them: by mirrored faces
            all lie 0.4 % of the window's side too far left. No face's depend on the others of its batch.

        Raises:
            ShapeError, RangeError: not such a batch.
        """
        check_image(faces, self.name)
        return self._within(faces, letterbox(faces.shape[2], faces.shape[3], centred=True))

    def of_aligned(self, faces: Tensor) -> Tensor:
        """The points of faces aligned as those of FFHQ are, in pixels of the whole images; as above.

        The network sees `AROUND`: where it is most at one with itself (docs/measurements.md).

        Raises:
            ShapeError, RangeError: not such a batch, or not square.
        """
        check_image(faces, self.name)
        return self._within(faces, share_of(check_square(faces, self.name), AROUND))

    def inside(self, photos: Tensor, window: Window) -> Tensor:
        """The points of a face in part of a photo, such as a detector's box, in pixels of the photo; as above."""
        check_image(photos, self.name)
        left, top, right, bottom = window
        side = max(right - left, bottom - top) / 2  # the square around its middle that holds it
        x, y = (left + right) / 2, (top + bottom) / 2
        return self._within(photos, Window(x - side, y - side, x + side, y + side))

    def _within(self, images: Tensor, window: Window) -> Tensor:
        points = self.network(resized_from_corner(images, window, SIDE)) * (window.right - window.left)
        return points + points.new_tensor([window.left, window.top])

    def to(self, device: torch.device | str) -> Landmarks:
        """Move the network; returns itself."""
        self.network.to(device)
        return self


def eye_distance(points: Tensor) -> Tensor:
    """Between the middles of both eyes, (B,) in the unit of the points (B, 68, 2)."""
    return torch.linalg.vector_norm(points[:, RIGHT_EYE].mean(1) - points[:, LEFT_EYE].mean(1), dim=-1)


def build_landmarks(name: str, state: Mapping[str, Tensor], header: Mapping[str, str]) -> Landmarks:
    """Rebuild a landmark network from the tensors and the header of its file.

    Raises:
        WeightsError: of another architecture, or weights that do not fit.
    """
    network = LandmarkNetwork()
    load_weights(network, restored(name, state, header, ARCHITECTURES[LANDMARKS]), source=name)
    return Landmarks(name, network.eval().requires_grad_(False))
