"""An exported file against the network it was made from, at sizes and batches that were not traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.devices import full_precision
from adapt.errors import VerificationError
from adapt.exporting.onnx import FIDELITY, INPUT, open_session
from adapt.images import check_image
from adapt.restorers.codeformer import CodeFormer

LEAD: Final = 1e-3  # of logits of about 1: how near two codes may be for rounding, 1e-5, to choose between them


@dataclass(frozen=True, slots=True)
class Parity:
    """What one input showed.

    Attributes:
        shape: the input's.
        largest, mean: the largest and mean absolute difference, on the scale of [0, 1].
        fidelity: where there is one.
        undecided: photos left out because they differ, and two codes are so near there that rounding chooses.
    """

    shape: tuple[int, ...]
    largest: float
    mean: float
    fidelity: float | None = None
    undecided: int = 0

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return asdict(self)


def smooth_images(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Image-like noise, (B, 3, H, W) in [0, 1], for checks without photos."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, max(height // 8, 2), max(width // 8, 2), generator=generator)
    fine = torch.rand(batch, 3, height, width, generator=generator)
    return (0.9 * F.interpolate(coarse, (height, width), mode="bilinear") + 0.1 * fine).clamp(0, 1)


def check_inputs(
    size: int, multiple: int, photos: Sequence[Tensor] = (), *, one_size: bool = False
) -> list[Tensor]:
    """What the file is tried on: two odd sizes, then the user's photos, one alone and those of one size together.

    Args:
        size: side of the images the restorer was made for, in pixels.
        multiple: what the network pads to; the second input is one pixel too high for it.
        photos: (3, H, W) in [0, 1], of any sizes.
        one_size: the network takes no other size; one image alone and three stand in for the odd sizes.

    Raises:
        ShapeError, RangeError: not such photos.
    """
    if one_size:
        inputs = [smooth_images((1, size, size)), smooth_images((3, size, size), seed=1)]
    else:
        inputs = [smooth_images((1, size - 3, size + 5)), smooth_images((3, 2 * multiple + 1, multiple))]
    if not photos:
        return inputs if one_size else [*inputs, smooth_images((2, size, size))]
    together: dict[tuple[int, ...], list[Tensor]] = {}
    for photo in photos:
        check_image(photo[None], "photo for the check")
        together.setdefault(tuple(photo.shape), []).append(photo.float().cpu())
    batches = [torch.stack(batch) for batch in together.values()]
    return [*inputs, *([batches[0][:1]] if len(batches[0]) > 1 else []), *batches]


@torch.inference_mode()
@full_precision()
def verify(
    path: Path, network: nn.Module, inputs: Sequence[Tensor], *, tolerance: float, fidelities: Sequence[float] = ()
) -> list[Parity]:
    """Run the file with onnxruntime on the CPU and compare with the network.

    Args:
        path: the file.
        network: what it was made from.
        inputs: batches, (B, 3, H, W) in [0, 1].
        tolerance: largest absolute difference that is let through.
        fidelities: of a network that takes one: the first input is tried at all of these, the others at the first.

    Returns:
        The differences at each input, all of them within the tolerance.

    Raises:
        VerificationError: a difference above the tolerance or not finite, another shape, or an input or a model that
            onnxruntime refuses; or photos of which none can be compared.
    """
    session = open_session(path)
    found: list[Parity] = []
    for index, batch in enumerate(inputs):
        for fidelity in (fidelities if index == 0 else fidelities[:1]) or (None,):
            found.append(_compared(session, path.name, network, batch, fidelity, tolerance))
    if inputs and not any(item.undecided < item.shape[0] for item in found):
        raise VerificationError(
            f"{path.name}: cannot be compared with the network: in every photo two codes are as good as each other."
            " Nothing was exported; the network is hardly trained, or give other photos"
        )
    return found


def _compared(
    session: Any, name: str, network: nn.Module, batch: Tensor, fidelity: float | None, tolerance: float
) -> Parity:
    """What one input shows, if it shows no fault."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    shape = tuple(batch.shape)
    given = {INPUT: batch.numpy()}
    if fidelity is None:
        expected = network.eval()(batch)
    else:
        expected = network.eval()(batch, fidelity)
        given[FIDELITY] = np.array([fidelity], dtype=np.float32)
    where = f"an input of shape {shape}" + ("" if fidelity is None else f" at fidelity {fidelity:g}")
    try:
        got = torch.from_numpy(session.run(None, given)[0])
    except (Fail, InvalidArgument, RuntimeException) as error:
        raise VerificationError(f"{name}: refuses {where} ({str(error).splitlines()[0]})") from error
    if not got.shape == expected.shape == batch.shape:
        raise VerificationError(
            f"{name}: of {shape} it makes {tuple(got.shape)}, the network {tuple(expected.shape)};"
            " a restorer keeps the size"
        )
    difference = (got - expected).abs()
    agrees = difference.flatten(1).amax(dim=1) <= tolerance  # written so that NaN does not
    compared = agrees | (torch.ones_like(agrees) if bool(agrees.all()) else _decided(network, batch))
    worst = float(difference[compared].max()) if bool(compared.any()) else 0.0
    if not bool(agrees[compared].all()):
        raise VerificationError(
            f"{name}: differs from the network by {worst:.2g} at {where}; at most {tolerance:g} is allowed."
            " Nothing was exported"
        )
    mean = float(difference[compared].mean()) if bool(compared.any()) else 0.0
    return Parity(shape, worst, mean, fidelity, int((~compared).sum()))


def _decided(network: nn.Module, batch: Tensor) -> Tensor:
    """In which photos, (B,), rounding cannot turn the network's choice of a code, and with it the image."""
    if isinstance(network, CodeFormer):
        return ~(network.read(batch).lead() < LEAD)  # NaN is decided: it must not excuse itself
    return torch.ones(len(batch), dtype=torch.bool)
