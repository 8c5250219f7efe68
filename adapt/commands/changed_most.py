"""Of a run's restored faces those whose person is farthest from the photo's: who looks at the page looks there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from adapt.evaluation.catalogue import PERSON
from adapt.evaluation.report import Example
from adapt.evaluation.scores import Evaluation
from adapt.photos.files import read_image

SHOWN: Final = 10


def changed_most(
    out: Path, evaluations: Mapping[str, Evaluation], named: Mapping[str, str], shown: str, *, lost_from: float
) -> tuple[list[Example], str]:
    """The faces that changed most, with their images, and how far all are, in sentences.

    Args:
        out: of `adapt.commands.run.run`.
        evaluations: the table's rows.
        named: folders of images by the names of the rows.
        shown: the row of what is exported.
        lost_from: of the recogniser that measured: from that distance on a face is somebody else's.

    Returns:
        At most ten, the farthest first, each called by its photo and its distance; nothing where none was measured.
    """
    key = next((key for key in PERSON if key in evaluations[shown].scores), None)
    if key is None:
        return [], ""
    distances = {str(row["id"]): float(row[key]) for row in evaluations[shown].rows if key in row}
    farthest = sorted(distances, key=lambda id: (-distances[id], id))[:SHOWN]
    names = dict.fromkeys(("photo", "pre-trained", shown))
    examples = [
        Example(
            f"{id}: {distances[id]:.2f}",
            {name: read_image(out / named[name] / f"{id}.png") for name in names},
        )
        for id in farthest
    ]
    whom = "the photo" if key == PERSON[0] else "the original"
    spreads: list[str] = []
    strangers: list[str] = []
    for name in dict.fromkeys(("pre-trained", shown, "target")):
        values = [float(row[key]) for row in evaluations[name].rows if key in row] if name in evaluations else []
        if values:
            spreads.append(f"{name} {_spread(values)}")
            strangers.append(f"{name} {sum(value > lost_from for value in values)} of {len(values)}")
    return examples, (
        f"Distance of the recogniser's embeddings to {whom}, median and 95th of 100: {', '.join(spreads)}. As far as"
        f" strangers are from each other, beyond {lost_from:g}: {', '.join(strangers)}. Look at these first: what a"
        " photo hardly shows, a restorer may have made somebody else's."
    )


def _spread(values: list[float]) -> str:
    ordered = sorted(values)
    middle, high = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95))
    return f"{middle:.2f} and {high:.2f}"
