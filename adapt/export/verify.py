"""An exported file against the network it was made from, at sizes and batches that were not traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import VerificationError
from adapt.export.onnx import INPUT


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences at one input: its shape, and the largest and mean absolute difference in [0, 1]."""

    shape: tuple[int, ...]
    largest: float
    mean: float

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return asdict(self)


def smooth_pictures(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Picture-like noise, (B, 3, H, W) in [0, 1], for checks without photos."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, max(height // 8, 2), max(width // 8, 2), generator=generator)
    fine = torch.rand(batch, 3, height, width, generator=generator)
    return (0.9 * F.interpolate(coarse, (height, width), mode="bilinear") + 0.1 * fine).clamp(0, 1)


def check_inputs(size: int, multiple: int, photos: Sequence[Tensor]) -> list[Tensor]:
    """What the file is tried on: photos of the user's, one alone and all together, and two odd sizes."""
    inputs = [smooth_pictures((1, size - 3, size + 5)), smooth_pictures((3, 2 * multiple + 1, multiple))]
    if photos:
        inputs += [photos[0][None], torch.stack(list(photos))]
    else:
        inputs.append(smooth_pictures((2, size, size)))
    return inputs


@torch.inference_mode()
def verify(path: Path, network: nn.Module, inputs: Sequence[Tensor], *, tolerance: float) -> list[Parity]:
    """Run the file with onnxruntime and compare with the network.

    Raises:
        VerificationError: a difference above the tolerance, or an input that the file refuses.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: list[Parity] = []
    for batch in inputs:
        expected = network.eval()(batch)
        try:
            got = torch.from_numpy(session.run(None, {INPUT: batch.numpy()})[0])
        except (RuntimeError, Fail, InvalidArgument) as error:
            raise VerificationError(f"{path}: refuses an input of shape {tuple(batch.shape)}: {error}") from error
        if got.shape != expected.shape:
            raise VerificationError(
                f"{path}: of {tuple(batch.shape)} it makes {tuple(got.shape)}, the network {tuple(expected.shape)}"
            )
        difference = (got - expected).abs()
        found.append(Parity(tuple(batch.shape), float(difference.max()), float(difference.mean())))
    worst = max(found, key=lambda parity: parity.largest)
    if not worst.largest <= tolerance:
        raise VerificationError(
            f"{path}: differs from the network by {worst.largest:.2g} at an input of shape {worst.shape};"
            f" at most {tolerance:g} is allowed. Nothing was exported"
        )
    return found
