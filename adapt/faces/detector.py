"""Where faces are in a photo: what a detector must do, and the two that see a photo at one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.errors import ShapeError, UsageError, WeightsError
from adapt.faces.crops import Window, letterbox, resized_from_corner
from adapt.faces.entries import ARCHITECTURES, DETECTOR, SSD_DETECTOR, TINY_DETECTOR
from adapt.faces.ssd import SsdNetwork, folded
from adapt.faces.stored import restored
from adapt.faces.tiny_yolo import TinyYoloNetwork
from adapt.images import check_image
from adapt.weights import load_weights

if TYPE_CHECKING:
    from adapt.faces.mtcnn import CascadeDetector

Network = SsdNetwork | TinyYoloNetwork
_REDUCED_ABOVE = 4  # times the network's side: from here on pixels are averaged first


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face in a photo.

    Attributes:
        box: in pixels of the photo, within it.
        score: how sure the detector is, in [0, 1].
        points: both eyes (the left one in the image first), nose and corners of the mouth, where the detector gives
            them, as RetinaFace and YuNet do.
    """

    box: Window
    score: float
    points: tuple[tuple[float, float], ...] = ()


class Scores(NamedTuple):
    """How sure a detector is of what, in [0, 1]: a kind of detector has its own.

    Attributes:
        least: below it lies no face.
        sure: from here on a find is a face; of others `adapt.faces.find` looks at the upright crop again ...
        again: ... and there it must have this score.
    """

    least: float
    sure: float
    again: float


ONE_LOOK: Final = Scores(0.35, 0.85, 0.6)  # of detectors that see a photo at one size, and of those that are not known


class Detector(Protocol):
    """What can stand in for the detectors that ship, such as one around a YuNet or RetinaFace file."""

    @property
    def name(self) -> str:
        """What its numbers must be reported with."""
        ...

    def find(self, photo: Tensor) -> list[FoundFace]:
        """The faces of a photo, (3, H, W) in [0, 1], the surest first; none is no error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceDetector:
    """A detector that is ready to use.

    Attributes:
        name: what the user calls it.
        network: gives a photo's boxes and scores.
        min_score: what is less sure than this, in (0, 1), is no face.
        max_overlap: of two boxes that share more than this of their union, in (0, 1], the surer one is kept.
        scores: what its scores mean.

    Raises:
        UsageError: a setting outside its range.
    """

    name: str
    network: Network
    min_score: float = 0.5
    max_overlap: float = 0.5
    scores: Scores = ONE_LOOK

    def __post_init__(self) -> None:
        if not 0 < self.min_score < 1:
            raise UsageError(f"{self.name}: min_score: expected a score between 0 and 1, got {self.min_score:g}")
        if not 0 < self.max_overlap <= 1:
            raise UsageError(f"{self.name}: max_overlap: expected a share in (0, 1], got {self.max_overlap:g}")

    def find(self, photo: Tensor) -> list[FoundFace]:
        """The faces of one photo, the surest first.

        Args:
            photo: (3, H, W) in [0, 1], of any size; what is missing to a square is black, on the right or below.

        Raises:
            ShapeError, RangeError: not such a photo.
        """
        if isinstance(photo, Tensor) and photo.ndim != 3:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(f"{self.name}: expected one photo of shape (3, H, W), got {tuple(photo.shape)}")
        return self.find_all(photo[None])[0]

    @torch.no_grad()
    def find_all(self, photos: Tensor) -> list[list[FoundFace]]:
        """The faces of each of (B, 3, H, W) photos of one size in [0, 1]; as above. None depends on the others."""
        from torchvision.ops import nms

        check_image(photos, self.name)
        height, width = photos.shape[2:]
        window = letterbox(height, width, centred=False)
        boxes, scores = self.network(self._brought_to_side(photos, window))
        limits = boxes.new_tensor([width, height, width, height])
        found: list[list[FoundFace]] = []
        for own_boxes, own_scores in zip(boxes * max(height, width), scores, strict=True):
            sure = own_scores > self.min_score
            own_boxes, own_scores = own_boxes[sure], own_scores[sure]
            kept = nms(own_boxes, own_scores, self.max_overlap)  # the surest first
            inside = own_boxes[kept].clamp(min=0).minimum(limits).tolist()
            found.append(
                [
                    FoundFace(Window(*box), score)
                    for box, score in zip(inside, own_scores[kept].tolist(), strict=True)
                    if box[0] < box[2] and box[1] < box[3]
                ]
            )
        return found

    def _brought_to_side(self, photos: Tensor, window: Window) -> Tensor:
        """The square around photos at the network's side; of large ones whole blocks of pixels are averaged first."""
        side = self.network.side
        weights = next(self.network.parameters())
        photos = photos.to(weights.device, weights.dtype)
        blocks = int(window.right / side / (_REDUCED_ABOVE / 2))
        if window.right > _REDUCED_ABOVE * side:
            photos = F.avg_pool2d(photos, blocks, ceil_mode=True)
            window = Window(*(edge / blocks for edge in window))
        return resized_from_corner(photos, window, side)

    def to(self, device: torch.device | str) -> FaceDetector:
        """Move the network; returns itself."""
        self.network.to(device)
        return self


def _as_it_is(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)


# By architecture: the network, how its tensors are made ready, and the overlap its authors allow.
NETWORKS: Final[dict[str, tuple[type[Network], Callable[[Mapping[str, Tensor]], dict[str, Tensor]], float]]] = {
    ARCHITECTURES[SSD_DETECTOR]: (SsdNetwork, folded, 0.5),
    ARCHITECTURES[TINY_DETECTOR]: (TinyYoloNetwork, _as_it_is, 0.4),
}


def build_detector(
    name: str, state: Mapping[str, Tensor], header: Mapping[str, str]
) -> FaceDetector | CascadeDetector:
    """Rebuild a detector from the tensors and the header of its file.

    Raises:
        WeightsError: of another architecture, or weights that do not fit.
    """
    from adapt.faces.mtcnn import build_cascade  # which finds faces as they are told of here

    architecture = header.get("architecture", "nothing")
    if architecture == ARCHITECTURES[DETECTOR]:
        return build_cascade(name, state)
    if architecture not in NETWORKS:
        known = ", ".join((ARCHITECTURES[DETECTOR], *NETWORKS))
        raise WeightsError(f"{name}: expected one of {known}, its header names {architecture}")
    kind, ready, max_overlap = NETWORKS[architecture]
    network = kind()
    load_weights(network, ready(restored(name, state, header, architecture)), source=name)
    return FaceDetector(name=name, network=network.eval().requires_grad_(False), max_overlap=max_overlap)
