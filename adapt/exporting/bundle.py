"""The bundle: model.onnx and model.safetensors, bundle.json, a model card and a runner; whole or not there."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapt.digests import file_digest
from adapt.disk import write_json, write_text
from adapt.errors import UsageError, WeightsError
from adapt.exporting import runner
from adapt.exporting.card import model_card
from adapt.exporting.onnx import INPUT, OPSET, OUTPUT, export_onnx, fastest_providers, open_session
from adapt.exporting.verify import check_inputs, verify
from adapt.images import check_image
from adapt.restorers.base import Restorer
from adapt.runs import versions

LICENCES = (
    "code: Apache-2.0",
    "weights of the embedded pack: CC BY 4.0; portraits of the US Government Printing Office (public domain),"
    " Face Research Lab London Set (DeBruine & Jones 2017, CC BY 4.0), UK Parliament (CC BY 3.0)",
    "weights adapted from another checkpoint keep that checkpoint's licence",
)


def export_bundle(
    restorer: Restorer,
    out: Path,
    *,
    source: dict[str, Any],
    evaluation: str | dict[str, Any] | None = None,
    photos: Sequence[Tensor] = (),
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> Path:
    """Export a restorer, run the file, and put the bundle in place only if it computes the same.

    Args:
        restorer: what to export; left as it is, on its device.
        out: the bundle's folder.
        source: where the weights come from, for card and bundle.json; values that JSON takes.
        evaluation: what was measured: Markdown, or figures by name.
        photos: photos of the user's, (3, H, W) in [0, 1], on which it is checked too.
        tolerance: largest absolute difference that is let through, on the scale of [0, 1].
        overwrite: replace a bundle that is there; it stays until the new one has been checked.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: the folder holds something, and `overwrite` is off or it is not a bundle.
        VerificationError: the network cannot be exported, or the file computes something else; nothing is written.
    """
    _refuse_occupied(out, overwrite)
    part, old = (out.resolve().with_name(f".{out.resolve().name}.{kind}") for kind in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write_bundle(restorer, part, source=source, evaluation=evaluation, photos=photos, tolerance=tolerance)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return out


def _refuse_occupied(out: Path, overwrite: bool) -> None:
    """Only an empty folder, or a bundle that is to be replaced, may stand where the bundle goes."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "bundle.json").is_file():
        raise UsageError(f"{out}: expected a new or empty folder or a bundle; it is something else and is not replaced")
    if not overwrite:
        raise UsageError(f"{out}: exists already; choose another folder, or --overwrite to replace it")


def _write_bundle(
    restorer: Restorer,
    folder: Path,
    *,
    source: dict[str, Any],
    evaluation: str | dict[str, Any] | None,
    photos: Sequence[Tensor],
    tolerance: float,
) -> None:
    """Fill a folder with the files of a bundle, the checked model first."""
    network = copy.deepcopy(restorer.network).cpu().float().eval()
    multiple = max(int(getattr(network, "multiple", 8)), 16)
    export_onnx(network, folder / "model.onnx", multiple=multiple)
    inputs = check_inputs(restorer.size, multiple, photos)
    parity = verify(folder / "model.onnx", network, inputs, tolerance=tolerance)
    restorer.save(folder / "model.safetensors")
    shutil.copyfile(runner.__file__, folder / "run_model.py")
    about = {
        "architecture": restorer.architecture,
        "settings": restorer.settings.model_dump(mode="json"),
        "size": restorer.size,
        "size_rule": "any batch, height and width; made for aligned faces of `size` pixels, so resize to that first",
        "input": {"name": INPUT, "shape": "(B, 3, H, W)", "dtype": "float32", "range": [0, 1], "colour": "RGB"},
        "output": {"name": OUTPUT, "shape": "(B, 3, H, W)", "dtype": "float32", "clamp": [0, 1], "colour": "RGB"},
        "opset": OPSET,
        "sha256": {name: file_digest(folder / name) for name in ("model.onnx", "model.safetensors", "run_model.py")},
        "parity": [item.as_json() for item in parity],
        "tolerance": tolerance,
        "source": source,
        "evaluation": evaluation,
        "licences": list(LICENCES),
        "versions": versions(),
    }
    write_json(folder / "bundle.json", about)
    write_text(folder / "README.md", model_card(about))


class BundleModel:
    """A bundle that runs through onnxruntime, on CUDA where onnxruntime has it.

    Attributes:
        name: the bundle's folder.
        size: side of the aligned faces it was made for, in pixels.
        about: the contents of bundle.json.

    Raises:
        WeightsError: not a bundle, or a model.onnx that is not the one bundle.json names.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.about: dict[str, Any] = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
            expected = self.about["sha256"]["model.onnx"]
            self.size = int(self.about["size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{folder}: not a bundle: its bundle.json cannot be read ({error!r})") from error
        path = folder / "model.onnx"
        if not path.is_file() or file_digest(path) != expected:
            raise WeightsError(f"{path}: is not the file that bundle.json names; export it again")
        self.name = str(folder)
        self._session = open_session(path, fastest_providers())

    def __call__(self, photo: Tensor) -> Tensor:
        """Restore (B, 3, H, W) RGB in [0, 1] to the same shape, clamped to [0, 1], on the photo's device.

        Raises:
            ShapeError, RangeError: not such a batch.
        """
        check_image(photo, self.name)
        restored = self._session.run(None, {INPUT: photo.detach().float().cpu().numpy()})[0]
        return torch.from_numpy(restored).clamp(0, 1).to(photo.device)


def load_bundle(folder: Path) -> BundleModel:
    """Open a bundle; called like a restorer, it gives what the trained network gives."""
    return BundleModel(folder)
