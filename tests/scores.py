"""Scores of images in memory."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adapt.evaluation.inputs import Networks, Side
from adapt.evaluation.metrics import Perceptual
from adapt.evaluation.scores import Evaluation, Tally


def evaluate_images(
    restored: Tensor,
    truth: Tensor,
    *,
    distance: Perceptual | None,
    ids: Sequence[str] | None = None,
    photos: Tensor | None = None,
    match_statistics: bool = False,
) -> Evaluation:
    """As `evaluate_folder` does with files: (N, 3, H, W) in [0, 1] each; their ids are their numbers if None."""
    names = [str(index) for index in range(len(restored))] if ids is None else ids
    sides: dict[Side, Tensor] = {"truth": truth} if photos is None else {"truth": truth, "photos": photos}
    tally = Tally(sides, Networks({}).with_perceptual(distance), match_statistics=match_statistics, device="cpu")
    for side, images in sides.items():
        for name, image in zip(names, images, strict=True):
            tally.note_content(side, name, str(image.tolist()))
    tally.add(names, restored, sides)
    return tally.evaluation()
