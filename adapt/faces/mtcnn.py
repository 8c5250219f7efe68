"""The detector that is taken where none is named: three small networks in a cascade, over a pyramid of the photo.

The first looks at every place of every size and proposes windows; the second throws most of them away; the third says
which are faces, and where eyes, nose and mouth are.

Source: Zhang et al. 2016 (arXiv:1604.02878), the authors' weights as facenet-pytorch passes them on, MIT. Differs:
places are counted from the outer edges of pixels and not rounded in between, and the third network's score is asked for
0.85 (there: 0.7): below it lie false alarms (docs/photographs.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import ShapeError, UsageError
from adapt.faces.crops import Window
from adapt.faces.detector import FoundFace, Scores
from adapt.images import check_image
from adapt.weights import load_weights

CELL: Final = 12  # side of the windows that the first network sees, every STRIDE pixels
STRIDE: Final = 2
SMALLEST: Final = 20.0  # side of the smallest windows, in pixels of the photo
FACTOR: Final = 0.709  # from one size of the pyramid to the next: half the area
SIDES: Final = (24, 48)  # at which the second and the third network see a window
PROPOSED, REFINED = 0.6, 0.7  # scores from which a window goes on
SCORES: Final = Scores(0.85, 0.95, 0.9)  # faces have 0.98 and more, but for the smallest
SAME_AT_ONE_SIZE, SAME = 0.5, 0.7  # shares of the union from which two windows are one
SCORE_STEPS: Final = 1_000  # that scores are rounded to: many are 1 but for the last bits, which must not decide
ROUNDED: Final = 0.01  # pixels by which an edge may reach into the next one: no last bit decides what is seen
INSIDE: Final = 0.7  # share of the smaller of two faces: from there on one lies in the other
MORE: Final = 1e-3  # by which a share must be larger than these: two windows of one size often share just a half


class ProposalNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] to offsets (B, 4, h, w), in shares of a window's side, and scores (B, h, w) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(_scaled(photos))), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)[:, 1]


class RefineNetwork(nn.Module):
    """(B, 3, 24, 24) in [0, 1] to offsets (B, 4) and scores (B,) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(_scaled(windows))), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu4(self.dense4(self.prelu3(self.conv3(x)).flatten(1)))
        return self.dense5_2(x), self.dense5_1(x).softmax(1)[:, 1]


class OutputNetwork(nn.Module):
    """(B, 3, 48, 48) in [0, 1] to offsets (B, 4), scores (B,) in [0, 1], and points (B, 5, 2) in shares of the side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(_scaled(windows))), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu5(self.dense5(self.prelu4(self.conv4(x)).flatten(1)))
        points = self.dense6_3(x).unflatten(1, (2, 5)).transpose(1, 2)
        return self.dense6_2(x), self.dense6_1(x).softmax(1)[:, 1], points


class MtcnnNetwork(nn.Module):
    """The three of them."""

    def __init__(self) -> None:
        super().__init__()
        self.proposal, self.refine, self.output = ProposalNetwork(), RefineNetwork(), OutputNetwork()


def _scaled(images: Tensor) -> Tensor:
    return (images * 255 - 127.5) / 128


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeDetector:
    """The cascade, ready to use; a `Detector`.

    Attributes:
        name: what the user calls it.
        network: its networks.
        min_score: what the last one is less sure of, in (0, 1), is no face.
        scores: what its scores mean.

    Raises:
        UsageError: a score outside its range.
    """

    name: str
    network: MtcnnNetwork
    min_score: float = SCORES.least
    scores: Scores = SCORES

    def __post_init__(self) -> None:
        if not 0 < self.min_score < 1:
            raise UsageError(f"{self.name}: min_score: expected a score between 0 and 1, got {self.min_score:g}")

    @torch.no_grad()
    def find(self, photo: Tensor) -> list[FoundFace]:
        """The faces of one photo, the surest first, each with its five points.

        Args:
            photo: (3, H, W) in [0, 1], of any size; faces from about 20 px are found.

        Raises:
            ShapeError, RangeError: not such a photo.
        """
        if isinstance(photo, Tensor) and photo.ndim != 3:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(f"{self.name}: expected one photo of shape (3, H, W), got {tuple(photo.shape)}")
        check_image(photo[None], self.name)
        weight = next(self.network.parameters())
        seen = photo.to(weight.device, weight.dtype)
        windows = self._proposed(seen)
        windows = self._refined(seen, windows)
        windows, scores, points = self._found(seen, windows)
        height, width = photo.shape[1:]
        limits = windows.new_tensor([width, height, width, height])
        return [
            FoundFace(Window(*box), score, tuple((x, y) for x, y in five))
            for box, score, five in zip(
                windows.clamp(min=0).minimum(limits).tolist(), scores.tolist(), points.tolist(), strict=True
            )
            if box[0] < box[2] and box[1] < box[3]
        ]

    def _proposed(self, photo: Tensor) -> Tensor:
        """Windows (N, 4) of the first network: the same size once, then all."""
        height, width = photo.shape[1:]
        windows, scores = [photo.new_zeros(0, 4)], [photo.new_zeros(0)]
        for size in pyramid(height, width):
            view = F.interpolate(photo[None], size, mode="area")
            offsets, sure = (each[0] for each in self.network.proposal(view))
            rows, columns = (sure >= PROPOSED).nonzero(as_tuple=True)
            scale = photo.new_tensor([width / size[1], height / size[0]])
            corner = STRIDE * torch.stack([columns, rows], dim=1)
            own = torch.cat([corner * scale, (corner + CELL) * scale], dim=1)
            own_scores = sure[rows, columns]
            kept = each_once(own, own_scores, SAME_AT_ONE_SIZE)
            windows.append(torch.cat([own, offsets[:, rows, columns].T], dim=1)[kept])
            scores.append(own_scores[kept])
        every = torch.cat([F.pad(windows[0], (0, 4)), *windows[1:]])
        kept = each_once(every[:, :4], torch.cat(scores), SAME)
        return squared(moved(every[kept, :4], every[kept, 4:]))

    def _refined(self, photo: Tensor, windows: Tensor) -> Tensor:
        if not len(windows):
            return windows
        offsets, scores = self.network.refine(looked_at(photo, windows, SIDES[0]))
        sure = scores > REFINED
        windows, offsets, scores = windows[sure], offsets[sure], scores[sure]
        kept = each_once(windows, scores, SAME)
        return squared(moved(windows[kept], offsets[kept]))

    def _found(self, photo: Tensor, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not len(windows):
            return windows, windows.new_zeros(0), windows.new_zeros(0, 5, 2)
        offsets, scores, points = self.network.output(looked_at(photo, windows, SIDES[1]))
        sure = scores > self.min_score
        windows, offsets, scores, points = windows[sure], offsets[sure], scores[sure], points[sure]
        points = windows[:, None, :2] + points * (windows[:, None, 2:] - windows[:, None, :2])
        windows = moved(windows, offsets)
        kept = each_once(windows, scores, INSIDE, of_smaller=True)
        return windows[kept], scores[kept].mul(SCORE_STEPS).round() / SCORE_STEPS, points[kept]

    def to(self, device: torch.device | str) -> CascadeDetector:
        """Move the networks; returns itself."""
        self.network.to(device)
        return self


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes at which the first network sees a photo, (height, width): from where `SMALLEST` windows fill a cell."""
    scale, sizes = CELL / SMALLEST, list[tuple[int, int]]()
    while min(height, width) * scale >= CELL:
        sizes.append((math.ceil(height * scale), math.ceil(width * scale)))
        scale *= FACTOR
    return sizes


def looked_at(photo: Tensor, windows: Tensor, side: int) -> Tensor:
    """Windows of a photo at a side, (N, 3, side, side): new pixels are means over those they touch; black outside."""
    height, width = photo.shape[1:]
    seen: list[Tensor] = []
    for left, top, right, bottom in windows.tolist():
        x0, y0 = math.floor(left + ROUNDED), math.floor(top + ROUNDED)
        x1, y1 = math.ceil(right - ROUNDED), math.ceil(bottom - ROUNDED)
        part = photo[:, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        missing = (max(-x0, 0), max(x1 - width, 0), max(-y0, 0), max(y1 - height, 0))
        if part.numel() == 0:
            seen.append(photo.new_zeros(1, 3, side, side))
        else:
            seen.append(F.interpolate(F.pad(part, missing)[None], (side, side), mode="area"))
    return torch.cat(seen)


def moved(windows: Tensor, offsets: Tensor) -> Tensor:
    """Windows (N, 4) whose edges move by shares of their sides (N, 4)."""
    sides = (windows[:, 2:] - windows[:, :2]).repeat(1, 2)
    return windows + offsets * sides


def squared(windows: Tensor) -> Tensor:
    """The squares around the same middles, of the longer sides."""
    middle = (windows[:, :2] + windows[:, 2:]) / 2
    half = (windows[:, 2:] - windows[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half], dim=1)


def each_once(windows: Tensor, scores: Tensor, most: float, *, of_smaller: bool = False) -> list[int]:
    """Which windows stay, the surest first: none that shares more with a surer one.

    Args:
        windows: (N, 4).
        scores: (N,) in [0, 1]; of equal ones, as `SCORE_STEPS` counts them, the first stays.
        most: share of the union, or of the smaller one's area, that two may have in common.
        of_smaller: which of both.
    """
    kept: list[int] = []
    left = scores.mul(SCORE_STEPS).round().argsort(descending=True, stable=True)
    areas = (windows[:, 2:] - windows[:, :2]).clamp(min=0).prod(1)
    while len(left):
        first, left = int(left[0]), left[1:]
        kept.append(first)
        own, others = windows[first], windows[left]
        both = (torch.minimum(others[:, 2:], own[2:]) - torch.maximum(others[:, :2], own[:2])).clamp(min=0).prod(1)
        whole = torch.minimum(areas[left], areas[first]) if of_smaller else areas[left] + areas[first] - both
        left = left[both <= (most + MORE) * whole.clamp(min=1e-9)]
    return kept


def build_cascade(name: str, state: Mapping[str, Tensor]) -> CascadeDetector:
    """Rebuild the cascade from the tensors of its file. Raises WeightsError: weights that do not fit."""
    network = MtcnnNetwork()
    load_weights(network, dict(state), source=name)
    return CascadeDetector(name=name, network=network.eval().requires_grad_(False))
