"""The bundle: model.onnx and model.safetensors, bundle.json, a model card and a runner; whole or not there."""

from __future__ import annotations

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
from adapt.export import runner
from adapt.export.card import model_card
from adapt.export.onnx import INPUT, OPSET, OUTPUT, export_onnx
from adapt.export.verify import check_inputs, verify
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
    evaluation: Any = None,
    photos: Sequence[Tensor] = (),
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> Path:
    """Export a restorer, run the file, and put the bundle in place only if it computes the same.

    Args:
        restorer: what to export; moved to the CPU.
        out: the bundle's folder.
        source: where the weights come from, for card and bundle.json.
        evaluation: what was measured, or None.
        photos: photos of the user's, (3, H, W) in [0, 1], all of one size, on which it is checked.
        tolerance: largest absolute difference that is let through.
        overwrite: replace a bundle that is there.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: the folder exists.
        VerificationError: the file computes something else; nothing is written.
    """
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise UsageError(f"{out}: exists already; choose another folder, or --overwrite to replace it")
        if not (out / "bundle.json").is_file():
            raise UsageError(f"{out}: is not a bundle, and is not replaced")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        network = restorer.to("cpu").network
        multiple = int(getattr(network, "multiple", 8))
        export_onnx(network, part / "model.onnx", multiple=max(multiple, 16))
        inputs = check_inputs(restorer.size, max(multiple, 16), photos)
        parity = verify(part / "model.onnx", network, inputs, tolerance=tolerance)
        restorer.save(part / "model.safetensors")
        about = {
            "architecture": restorer.architecture,
            "settings": restorer.settings.model_dump(mode="json"),
            "size": restorer.size,
            "size_rule": "any height and width; made for aligned faces of this size",
            "input": {"name": INPUT, "shape": "(B, 3, H, W)", "dtype": "float32", "range": [0, 1], "colour": "RGB"},
            "output": {"name": OUTPUT, "shape": "(B, 3, H, W)", "dtype": "float32", "clamp": [0, 1], "colour": "RGB"},
            "opset": OPSET,
            "sha256": {name: file_digest(part / name) for name in ("model.onnx", "model.safetensors")},
            "parity": [item.as_json() for item in parity],
            "tolerance": tolerance,
            "source": source,
            "evaluation": evaluation,
            "licences": list(LICENCES),
            "versions": versions(),
        }
        write_json(part / "bundle.json", about)
        write_text(part / "README.md", model_card(about))
        shutil.copyfile(runner.__file__, part / "run_model.py")
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


class BundleModel:
    """A bundle that runs through onnxruntime.

    Raises:
        WeightsError: not a bundle, or a model.onnx that is not the one bundle.json names.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        try:
            about = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
            expected = about["sha256"]["model.onnx"]
            self.size = int(about["size"])
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{folder}: not a bundle ({error})") from error
        path = folder / "model.onnx"
        if not path.is_file() or file_digest(path) != expected:
            raise WeightsError(f"{path}: is not the file that bundle.json names; export it again")
        self.name = str(folder)
        self._session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())

    def __call__(self, photo: Tensor) -> Tensor:
        """Restore (B, 3, H, W) RGB in [0, 1] to the same shape, clamped."""
        check_image(photo, self.name)
        restored = self._session.run(None, {INPUT: photo.float().cpu().numpy()})[0]
        return torch.from_numpy(restored).clamp(0, 1).to(photo.device)


def load_bundle(folder: Path) -> BundleModel:
    """Open a bundle."""
    return BundleModel(folder)
