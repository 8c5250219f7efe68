"""`adapt export`: a restorer as a checked bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapt.errors import UsageError
from adapt.loading import load_detector, load_landmarks, load_restorer
from adapt.training.run import distance_of

if TYPE_CHECKING:
    from adapt.exporting.finding import FindingNetworks


def export(
    model: str | Path,
    out: str | Path,
    *,
    fidelity: float | None = None,
    source: dict[str, Any] | None = None,
    evaluation: Any = None,
    photos: Sequence[torch.Tensor] = (),
    whole: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a restorer as a checked bundle; see `adapt.exporting.bundle.export_bundle`.

    `whole`: the pack whose detector and landmarks go with it, for whole photographs; none where None.
    """
    from adapt.exporting.bundle import export_bundle

    restorer = load_restorer(model)
    trained_with = distance_of(Path(model))
    about = source or {
        "weights": str(model),
        "weights sha256": restorer.digest,
        **({} if trained_with is None else {"perceptual distance of the training": trained_with}),
    }
    return export_bundle(
        restorer,
        Path(out),
        fidelity=fidelity,
        source=about,
        evaluation=evaluation,
        photos=photos,
        finding=None if whole is None else _finding(whole),
        overwrite=overwrite,
    )


def _finding(pack: str | Path) -> FindingNetworks:
    from adapt.exporting.finding import FindingNetworks
    from adapt.faces.mtcnn import CascadeDetector

    detector = load_detector(pack)
    if not isinstance(detector, CascadeDetector):
        raise UsageError(f"{pack}: bundles find faces by MTCNN, its detector is another; name a pack")
    return FindingNetworks(detector, load_landmarks(pack))
