"""What a bundle finds faces with: a detector and landmarks as ONNX, each held against its network, and their code."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from adapt.devices import full_precision
from adapt.errors import VerificationError
from adapt.exporting import face_detector, whole_photographs
from adapt.exporting.onnx import INPUT, export_finding, open_session
from adapt.exporting.runner import WHOLE
from adapt.exporting.verify import smooth_images
from adapt.faces.landmarks import SIDE as LANDMARKS_SIDE
from adapt.faces.mtcnn import SIDES

if TYPE_CHECKING:
    from adapt.faces.landmarks import Landmarks
    from adapt.faces.mtcnn import CascadeDetector

*DETECTOR_ONNX, LANDMARKS_ONNX, DETECTING, CODE = WHOLE
AGREES: Final = 1e-4  # of scores in [0, 1], and of places in shares of the side
LICENCES: Final = (
    "detector: MTCNN by Kaipeng Zhang and others, as facenet-pytorch has it, MIT, Copyright (c) 2019 Timothy Esler",
    "landmarks: face-api.js, MIT, Copyright (c) 2018 Vincent Mühler",
)


@dataclass(frozen=True, slots=True)
class FindingNetworks:
    """What finds faces: the detector's cascade and the landmarks."""

    detector: CascadeDetector
    landmarks: Landmarks


def write_finding(networks: FindingNetworks, folder: Path) -> dict[str, float]:
    """Write all that whole photographs need into a bundle's folder.

    Returns:
        By file, the largest difference to the network.

    Raises:
        VerificationError: a network cannot be exported, or its file computes something else.
    """
    for code, name in ((face_detector.__file__, DETECTING), (whole_photographs.__file__, CODE)):
        shutil.copyfile(str(code), folder / name)
    cascade = networks.detector.network
    first, second, third = DETECTOR_ONNX
    parts: tuple[tuple[str, nn.Module, int | None, tuple[str, ...]], ...] = (
        (first, cascade.proposal, None, ("offsets", "scores")),
        (second, cascade.refine, SIDES[0], ("offsets", "scores")),
        (third, cascade.output, SIDES[1], ("offsets", "scores", "points")),
        (LANDMARKS_ONNX, networks.landmarks.network, LANDMARKS_SIDE, ("points",)),
    )
    return {name: _written(network, folder / name, side, outputs) for name, network, side, outputs in parts}


def _written(network: nn.Module, path: Path, side: int | None, outputs: tuple[str, ...]) -> float:
    own = network.cpu().float().eval()
    export_finding(own, path, side, outputs)
    images = smooth_images((3, side or 61, side or 47))
    with torch.inference_mode(), full_precision():
        expected = own(images)
    found = open_session(path).run(None, {INPUT: images.numpy()})
    pairs = zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True)
    worst = max(float(np.abs(each.numpy() - other).max()) for each, other in pairs)
    if not worst <= AGREES:
        raise VerificationError(f"{path.name}: differs from the network by {worst:.2g}; at most {AGREES:g} is allowed")
    return worst
