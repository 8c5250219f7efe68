"""The bundle: model.onnx and model.safetensors, bundle.json, a model card and a runner; whole or not there."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from adapt._version import versions
from adapt.digests import bytes_digest, file_digest, is_unchanged
from adapt.disk import is_marked, marked, read_json, short_sibling, shown_files, write_json, write_text
from adapt.errors import UsageError, WeightsError
from adapt.exporting import runner
from adapt.exporting.card import model_card
from adapt.exporting.finding import LICENCES as OF_FINDING
from adapt.exporting.finding import FindingNetworks, write_finding
from adapt.exporting.onnx import FIDELITY, INPUT, OPSET, OUTPUT, export_onnx, open_session, providers_for
from adapt.exporting.runner import WHOLE
from adapt.exporting.verify import check_inputs, verify
from adapt.images import check_image, clamped
from adapt.locks import locked_beside
from adapt.restorers.base import Restorer, choose_fidelity
from adapt.restorers.vqgan import refuse_other_sizes
from adapt.settings.paths import BUNDLE, MODEL, ONNX

KIND: Final = "bundle"
FILES: Final = (ONNX, MODEL, "run_model.py", "README.md", BUNDLE, *WHOLE)
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
    fidelity: float | None = None,
    evaluation: str | dict[str, Any] | None = None,
    photos: Sequence[Tensor] = (),
    tolerance: float | None = None,
    finding: FindingNetworks | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a restorer, run the file, and put the bundle in place only if it computes the same.

    Args:
        restorer: what to export; left as it is, on its device.
        out: the bundle's folder, or a link to it, which stays one.
        source: where the weights come from, for card and bundle.json; values that JSON takes.
        fidelity: what the bundle restores at where none is given; the restorer's own where None.
        evaluation: what was measured: Markdown, or figures by name.
        photos: photos of the user's, (3, H, W) in [0, 1], on which it is checked too.
        tolerance: largest absolute difference that is let through, on the scale of [0, 1]; the restorer's `parity`
            where None.
        finding: what finds faces, for a bundle that takes whole photographs too.
        overwrite: replace a bundle that is there; it stays until the new one has been checked. Files beside the
            bundle's own are kept.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: the folder holds something, and `overwrite` is off or it is not a bundle; or a fidelity for a
            restorer that takes none.
        RangeError: a fidelity outside [0, 1].
        VerificationError: the network cannot be exported, or the file computes something else; nothing is written.
    """
    own = restorer.chosen_fidelity(fidelity)
    home = out.resolve()
    with locked_beside(home):
        part, old = short_sibling(home, "part"), short_sibling(home, "old")
        if not home.exists() and is_marked(old / BUNDLE, KIND):
            old.rename(home)  # an earlier export was killed between its two renames
        _refuse_occupied(home, overwrite)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            allowed = restorer.parity if tolerance is None else tolerance
            _write_bundle(
                restorer, part, source=source, own=own, evaluation=evaluation, photos=photos, tolerance=allowed,
                finding=finding,
            )
            _keep_others(old, home)
            if home.exists():
                home.rename(old)
            part.rename(home)
            _keep_others(old, home)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return out


def changed_files(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Which files of a bundle somebody has changed since it was exported.

    Args:
        folder: of the bundle.
        about: what its bundle.json says.
    """
    digests = _digests(about).items()
    return [name for name, sha256 in digests if (folder / name).exists() and not is_unchanged(folder / name, sha256)]


def lost_files(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Which files of a bundle are not there any more. Arguments as `changed_files`."""
    return [name for name in _digests(about) if not (folder / name).is_file()]


def _digests(about: Mapping[str, Any]) -> dict[str, Any]:
    written = about.get("sha256")
    return written if isinstance(written, dict) else {}


def _keep_others(old: Path, out: Path) -> None:
    """Move what is not a bundle's from an old one into the new, then remove the old; nothing where there is no old."""
    if not old.exists():
        return
    for other in list(old.iterdir()):
        if other.name not in FILES and not (out / other.name).exists():
            other.rename(out / other.name)
    if {each.name for each in old.iterdir()} <= {*FILES}:
        shutil.rmtree(old)


def _refuse_occupied(out: Path, overwrite: bool) -> None:
    """Only an empty folder, or a bundle that is to be replaced, may stand where the bundle goes."""
    if not out.exists() or (out.is_dir() and not shown_files(out)):
        return
    if not is_marked(out / BUNDLE, KIND):
        raise UsageError(f"{out}: expected a new or empty folder or a bundle; it is something else and is not replaced")
    if not overwrite:
        raise UsageError(f"{out}: exists already; choose another folder, or --overwrite to replace it")


def _write_bundle(
    restorer: Restorer,
    folder: Path,
    *,
    source: dict[str, Any],
    own: float | None,
    evaluation: str | dict[str, Any] | None,
    photos: Sequence[Tensor],
    tolerance: float,
    finding: FindingNetworks | None,
) -> None:
    """Fill a folder with the files of a bundle, the checked model first; `own` is the fidelity it has by itself."""
    network = copy.deepcopy(restorer.network).cpu().float().eval()
    multiple = max(int(getattr(network, "multiple", 8)), 16)
    side = restorer.size if restorer.one_size else None
    export_onnx(network, folder / ONNX, multiple=multiple, side=side, fidelity=own is not None)
    inputs = check_inputs(restorer.size, multiple, photos, one_size=restorer.one_size)
    fidelities = () if own is None else tuple(dict.fromkeys((own, 0.0, 0.5, 1.0)))
    parity = verify(folder / ONNX, network, inputs, tolerance=tolerance, fidelities=fidelities)
    restorer.save(folder / MODEL)
    shutil.copyfile(runner.__file__, folder / "run_model.py")
    whole = write_finding(finding, folder) if finding is not None else None
    shape = f"(B, 3, {side}, {side})" if side else "(B, 3, H, W)"
    about: dict[str, Any] = {
        "architecture": restorer.architecture,
        "settings": restorer.settings.model_dump(mode="json"),
        "size": restorer.size,
        "one_size": restorer.one_size,
        "size_rule": restorer.size_rule,
        "input": {"name": INPUT, "shape": shape, "dtype": "float32", "range": [0, 1], "colour": "RGB"},
        "fidelity": own if own is None else {**FIDELITY_INPUT, "default": own},
        "output": {"name": OUTPUT, "shape": shape, "dtype": "float32", "clamp": [0, 1], "colour": "RGB"},
        "opset": OPSET,
        "sha256": {name: file_digest(folder / name) for name in FILES if (folder / name).exists()},
        "parity": [item.as_json() for item in parity],
        "tolerance": tolerance,
        "whole": whole,
        "source": source,
        "evaluation": evaluation,
        "licences": [*LICENCES, *(() if finding is None else OF_FINDING)],
        "versions": versions(),
    }
    card = model_card(about)
    about["sha256"]["README.md"] = hashlib.sha256(card.encode("utf-8", "backslashreplace")).hexdigest()
    write_text(folder / "README.md", card)
    write_json(folder / BUNDLE, marked(KIND, about))


# The second input of networks that take one, as bundle.json tells it.
FIDELITY_INPUT: Final = {
    "name": FIDELITY,
    "shape": "(1,)",
    "dtype": "float32",
    "range": [0, 1],
    "meaning": "0 quality: what faces look like; 1 fidelity: what the photo shows",
}


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UsageError) else repr(error)


class BundleModel:
    """A bundle that runs through onnxruntime, on the device that is given, else on CUDA where onnxruntime has it.

    Attributes:
        name: the bundle's folder.
        size: side of the aligned faces it was made for, in pixels.
        about: the contents of bundle.json.
        digest: sha256 of the model.onnx that it runs.

    Raises:
        UsageError: a device that onnxruntime does not have.
        WeightsError: not a bundle, or a model.onnx that is not the one bundle.json names.
    """

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        try:
            self.about: dict[str, Any] = read_json(folder / BUNDLE, "export it again")
            expected = self.about["sha256"][ONNX]
            self.size = int(self.about["size"])
            fidelity = self.about.get("fidelity")
            self._fidelity = None if fidelity is None else float(fidelity["default"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{folder}: not a bundle: its bundle.json cannot be read ({_reason(error)})") from error
        path = folder / ONNX
        data = path.read_bytes() if path.is_file() else b""
        if bytes_digest(data) != expected:
            raise WeightsError(f"{path}: is not the file that bundle.json names; export it again")
        self.name = str(folder)
        self.digest: str = expected
        self._session = open_session(path, providers_for(device), data)

    def chosen_fidelity(self, given: float | None = None) -> float | None:
        """The fidelity it restores at: the one that is given, else its own; None where it takes none.

        Raises:
            UsageError, RangeError: as `adapt.restorers.base.choose_fidelity`.
        """
        return choose_fidelity(self.name, self.about["architecture"], own=self._fidelity, given=given)

    def __call__(self, photo: Tensor, fidelity: float | None = None) -> Tensor:
        """Restore (B, 3, H, W) RGB in [0, 1] to the same shape, clamped to [0, 1], on the photo's device.

        Args:
            photo: the batch.
            fidelity: from 0, what faces look like, to 1, what the photo shows; the bundle's default where None.

        Raises:
            ShapeError, RangeError: not such a batch, one of another size than the only one it takes, or a fidelity
                outside [0, 1].
            UsageError: a fidelity for a network that takes none.
        """
        check_image(photo, self.name)
        if self.about.get("one_size"):
            refuse_other_sizes(photo, self.size, self.name)
        chosen = self.chosen_fidelity(fidelity)
        given = {INPUT: photo.detach().float().cpu().numpy()}
        if chosen is not None:
            given[FIDELITY] = np.array([chosen], dtype=np.float32)
        restored = self._session.run(None, given)[0]
        return clamped(torch.from_numpy(restored)).to(photo.device)


def load_bundle(folder: Path, device: torch.device | None = None) -> BundleModel:
    """Open a bundle, as `BundleModel`; called like a restorer, it gives what the trained network gives."""
    return BundleModel(folder, device)
