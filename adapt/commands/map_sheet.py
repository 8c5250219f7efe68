"""Guidance maps as an image (DynFaceRestore Fig. 12): where a face is held, and where the prior is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from adapt.errors import UsageError
from adapt.evaluation.sheets import write_sheet
from adapt.guidance.maps import MapSnapshot


def write_maps(path: Path, faces: Mapping[str, Sequence[MapSnapshot]]) -> None:
    """Write a contact sheet (.jpg or .png), atomically: a row of clean images for each face, and one of maps under it.

    Args:
        path: of the sheet; an older one is replaced.
        faces: what was seen of each, by name; all at the same timesteps.

    Raises:
        UsageError: no faces, or other timesteps than the first one's.
    """
    timesteps = [[each.t for each in seen] for seen in faces.values()]
    if not timesteps or any(other != timesteps[0] for other in timesteps):
        raise UsageError(f"{path}: expected faces that were seen at the same timesteps, got {timesteps or 'none'}")
    rows: list[list[Tensor]] = []
    for seen in faces.values():
        rows += [[each.clean for each in seen], [each.scale for each in seen]]
    names = [f"{name}, {what}" for name in faces for what in ("clean image", "map")]
    write_sheet(path, [f"t = {t}" for t in timesteps[0]], rows, row_names=names)
