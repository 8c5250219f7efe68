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
from adapt.exporting.onnx import INPUT, open_session
from adapt.images import check_image


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


def check_inputs(size: int, multiple: int, photos: Sequence[Tensor] = ()) -> list[Tensor]:
    """What the file is tried on: two odd sizes, then the user's photos, one alone and those of one size together.

    Args:
        size: side of the pictures the restorer was made for, in pixels.
        multiple: what the network pads to; the second input is one pixel too high for it.
        photos: (3, H, W) in [0, 1], of any sizes.

    Raises:
        ShapeError, RangeError: not such photos.
    """
    inputs = [smooth_pictures((1, size - 3, size + 5)), smooth_pictures((3, 2 * multiple + 1, multiple))]
    if not photos:
        return [*inputs, smooth_pictures((2, size, size))]
    together: dict[tuple[int, ...], list[Tensor]] = {}
    for photo in photos:
        check_image(photo[None], "photo for the check")
        together.setdefault(tuple(photo.shape), []).append(photo.float().cpu())
    batches = [torch.stack(batch) for batch in together.values()]
    return [*inputs, *([batches[0][:1]] if len(batches[0]) > 1 else []), *batches]


@torch.inference_mode()
def verify(path: Path, network: nn.Module, inputs: Sequence[Tensor], *, tolerance: float) -> list[Parity]:
    """Run the file with onnxruntime on the CPU and compare with the network.

    Returns:
        The differences at each input, all of them within the tolerance.

    Raises:
        VerificationError: a difference above the tolerance or not finite, another shape, or an input or a model that
            onnxruntime refuses.
    """
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    session = open_session(path)
    found: list[Parity] = []
    for batch in inputs:
        shape = tuple(batch.shape)
        expected = network.eval()(batch)
        try:
            got = torch.from_numpy(session.run(None, {INPUT: batch.numpy()})[0])
        except (Fail, InvalidArgument, RuntimeException) as error:
            reason = str(error).splitlines()[0]
            raise VerificationError(f"{path.name}: refuses an input of shape {shape} ({reason})") from error
        if not got.shape == expected.shape == batch.shape:
            raise VerificationError(
                f"{path.name}: of {shape} it makes {tuple(got.shape)}, the network {tuple(expected.shape)};"
                " a restorer keeps the size"
            )
        difference = (got - expected).abs()
        found.append(Parity(shape, float(difference.max()), float(difference.mean())))
        if not found[-1].largest <= tolerance:  # written so that NaN fails too
            raise VerificationError(
                f"{path.name}: differs from the network by {found[-1].largest:.2g} at an input of shape {shape};"
                f" at most {tolerance:g} is allowed. Nothing was exported"
            )
    return found
