"""What a bundle finds faces with: a detector and landmarks as ONNX, each held against its network, and their code."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from adapt.devices import full_precision
from adapt.errors import VerificationError
from adapt.exporting import whole_photographs
from adapt.exporting.onnx import INPUT, export_for_side, open_session
from adapt.exporting.runner import WHOLE
from adapt.exporting.verify import smooth_images
from adapt.faces.landmarks import SIDE as LANDMARKS_SIDE

if TYPE_CHECKING:
    from adapt.faces.detector import FaceDetector
    from adapt.faces.landmarks import Landmarks

DETECTOR_ONNX, LANDMARKS_ONNX, CODE = WHOLE
AGREES: Final = 1e-4  # of scores in [0, 1], and of places in shares of the side
LICENCE: Final = "detector and landmarks: face-api.js, MIT, Copyright (c) 2018 Vincent Mühler"


@dataclass(frozen=True, slots=True)
class FindingNetworks:
    """What finds faces: the detector, whose boxes and scores are of a square image, and the landmarks."""

    detector: FaceDetector
    landmarks: Landmarks


def write_finding(networks: FindingNetworks, folder: Path) -> dict[str, Any]:
    """Write all that whole photographs need into a bundle's folder.

    Returns:
        By file, the largest difference to the network.

    Raises:
        VerificationError: a network cannot be exported, or its file computes something else.
    """
    shutil.copyfile(whole_photographs.__file__, folder / CODE)
    return {
        DETECTOR_ONNX: _written(
            networks.detector.network, folder / DETECTOR_ONNX, networks.detector.network.side, ("boxes", "scores")
        ),
        LANDMARKS_ONNX: _written(networks.landmarks.network, folder / LANDMARKS_ONNX, LANDMARKS_SIDE, ("points",)),
    }


def _written(network: nn.Module, path: Path, side: int, outputs: tuple[str, ...]) -> float:
    own = network.cpu().float().eval()
    export_for_side(own, path, side, outputs)
    images = smooth_images((1, side, side))
    with torch.inference_mode(), full_precision():
        expected = own(images)
    found = open_session(path).run(None, {INPUT: images.numpy()})
    pairs = zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True)
    worst = max(float(np.abs(each.numpy() - other).max()) for each, other in pairs)
    if not worst <= AGREES:
        raise VerificationError(f"{path.name}: differs from the network by {worst:.2g}; at most {AGREES:g} is allowed")
    return worst
