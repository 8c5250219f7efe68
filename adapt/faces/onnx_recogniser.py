"""Whose face it is, by an ONNX file as insightface passes them on: it scores, and gives no gradients.

Source: Deng et al. 2019 (arXiv:1801.07698); input and crop as insightface's ArcFaceONNX has them. Its weights do not
ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from adapt.errors import UsageError, WeightsError
from adapt.faces.arcface import LOST
from adapt.faces.crops import Window, check_square, resized, share_of
from adapt.faces.recogniser import cosine_similarity
from adapt.images import check_image

SIDE: Final = 112
SUFFIX: Final = ".onnx"
INSIDE: Final = Window(0.12649, 0.11950, 0.87540, 0.86841)  # of an FFHQ face: brings its five points nearest to
# insightface's template of 112 px, by least squares; what is left is 2 px of it, and no turn
FIRST: Final = 8  # nodes among which a file's own normalisation lies, if it has one


@dataclass(frozen=True, slots=True)
class OnnxRecogniser:
    """Such a recogniser, ready to use; a `FaceIdentifier` for scores alone. It computes on the CPU.

    Attributes:
        name: what the user calls it.
        session: of onnxruntime.
        normalised: the file wants RGB in [-1, 1]; else in [0, 255], which it normalises itself.
        several: it takes more than one face at a time.
        by_angle: it was trained for angles.
        lost_from: as of every `FaceIdentifier`.
    """

    name: str
    session: Any
    normalised: bool
    several: bool
    by_angle: bool = True
    lost_from: float = LOST

    @torch.no_grad()
    def of_aligned(self, faces: Tensor) -> Tensor:
        """Embeddings (B, D) of faces (B, 3, S, S) in [0, 1], aligned as those of FFHQ are. The middle of each is cut
        out where insightface's own alignment would, at 112 px. No face's depends on the others of its batch.

        Differs: one crop for all, where insightface fits one to five points of each face.

        Raises:
            ShapeError, RangeError: not such a batch, or not square.
        """
        check_image(faces, self.name)
        side = check_square(faces, self.name)
        crops = resized(faces.detach().float().cpu(), share_of(side, INSIDE), SIDE)
        given = crops * 2 - 1 if self.normalised else crops * 255
        (first,) = self.session.get_inputs()
        parts = given.split(len(given) if self.several else 1)
        found = [self.session.run(None, {first.name: part.numpy()})[0] for part in parts]
        return torch.cat([torch.from_numpy(each) for each in found]).to(faces.device)

    def unchecked(self, faces: Tensor) -> Tensor:
        """Raises UsageError: no gradient flows through such a file, so nothing can be trained or guided by it."""
        raise UsageError(
            f"{self.name}: an ONNX file only scores; to train or guide by a recogniser, give weights in the layout of"
            " arcface_resnet18.pth, or the pack's"
        )

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine distance of embeddings (B, D) from their counterparts, (B,) in [0, 2]."""
        return 1 - cosine_similarity(a, b)

    def to(self, device: torch.device | str) -> OnnxRecogniser:
        """Itself: it stays where it is, and gives embeddings where the faces are."""
        return self


def build_onnx_recogniser(name: str, session: Any, model: bytes) -> OnnxRecogniser:
    """The recogniser of a file.

    Args:
        name: of the file.
        session: of onnxruntime, opened from it.
        model: what the file holds.

    Raises:
        WeightsError: no network from faces of 112 px to embeddings.
    """
    import onnx

    inputs, outputs = session.get_inputs(), session.get_outputs()
    shapes = [list(each.shape) for each in (*inputs[:1], *outputs[:1])]
    if len(inputs) != 1 or shapes[0][1:] != [3, SIDE, SIDE] or len(shapes[1]) != 2:
        takes, gives = (", ".join(str(each.shape) for each in ends) for ends in (inputs, outputs))
        raise WeightsError(
            f"{name}: expected a recogniser from (N, 3, {SIDE}, {SIDE}) to (N, D), it takes {takes} and gives {gives}"
        )
    nodes = onnx.load_model_from_string(model).graph.node[:FIRST]
    own = {"Sub", "Mul"} <= {node.op_type for node in nodes}  # as those converted from MXNet begin
    return OnnxRecogniser(name, session, not own, not isinstance(shapes[0][0], int))
