"""Scores of images in memory."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adapt.evaluation.metrics import Perceptual
from adapt.evaluation.scores import Evaluation, Tally


def evaluate_images(
    restored: Tensor,
    truth: Tensor,
    *,
    distance: Perceptual | None,
    ids: Sequence[str] | None = None,
    match_statistics: bool = False,
) -> Evaluation:
    """As `evaluate_folder` does with files: (N, 3, H, W) in [0, 1] each; their ids are their numbers if None."""
    names = [str(index) for index in range(len(restored))] if ids is None else ids
    tally = Tally(distance, match_statistics=match_statistics, device="cpu")
    for name, image in zip(names, truth, strict=True):
        tally.note_content("truth", name, str(image.tolist()))
    tally.add(names, restored, truth=truth, photos=None)
    return tally.evaluation()
