"""`adapt evaluate`: metrics of a folder of restored photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapt.disk import optional_path
from adapt.loading import load_distance, measuring_networks
from adapt.packs.pack import load_pack

if TYPE_CHECKING:
    from adapt.evaluation.scores import Evaluation


def evaluate(
    restored: str | Path,
    *,
    truth: str | Path | None = None,
    photos: str | Path | None = None,
    reference: str | Path | None = None,
    pack: str | Path = "tiny",
    half_raw: bool = False,
    recogniser: str | Path | None = None,
) -> tuple[Evaluation, str]:
    """Metrics of a folder of restored photos, and a table of them with what was left out.

    Arguments as for `adapt.evaluation.compare.evaluate_folder`; `recogniser` as `adapt.loading.load_recogniser`, that
    of the pack where None.
    """
    from adapt.evaluation.compare import evaluate_folder
    from adapt.evaluation.tables import text_table
    from adapt.photos.folder import find_photos, photos_of

    restored = Path(restored)
    find_photos(restored)
    for option, folder, what in (
        ("truth", truth, "clean originals, named like the restored photos"),
        ("photos", photos, "the photos they were restored from, named alike"),
        ("reference", reference, "clean faces of other people"),
    ):
        if folder is not None:
            photos_of(option, Path(folder), what)
    opened = load_pack(pack)
    distance = load_distance(opened)
    evaluation = evaluate_folder(
        restored,
        truth=optional_path(truth),
        photos=optional_path(photos),
        reference=optional_path(reference),
        distance=distance,
        networks=measuring_networks(opened, recogniser),
        half_raw=half_raw,
    )
    table = text_table({restored.name: evaluation}, everything=True)
    lines = [table, f"perceptual network: {distance.name}", *evaluation.notes]
    return evaluation, "\n".join(lines)
