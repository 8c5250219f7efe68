"""How often a distance puts two distortions in the order that is known by construction, next to L2 and SSIM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from adapt.errors import UsageError
from adapt.photos.files import read_image
from adapt.pretraining.distortions import DISTORTIONS, FORGIVEN, RESENTED, Triplets, at_equal_error, by_severity
from adapt.training.sampling import step_generator

Distance = Callable[[Tensor, Tensor], Tensor]
_BATCH: Final = 32
_TIE: Final = 1e-4  # relative: equal errors agree to rounding, not to the bit


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each pair, (B,)."""
    return (a - b).square().mean(dim=(1, 2, 3))


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM of each pair, (B,): window of 11 pixels, per channel (Wang et al. 2004)."""
    from kornia.metrics import ssim

    return 1 - ssim(a, b, window_size=11).mean(dim=(1, 2, 3))


def kinds_of_triplets() -> Iterator[tuple[str, Callable[[Tensor, torch.Generator], Triplets]]]:
    """Every comparison by name: each distortion against itself, then pairs of equal error."""
    for kind in DISTORTIONS:
        yield kind, lambda images, draw, kind=kind: by_severity(images, kind, draw)
    for forgiven, resented in product(FORGIVEN, RESENTED):
        yield (
            f"{forgiven} < {resented}",
            lambda images, draw, a=forgiven, b=resented: at_equal_error(images, a, b, draw=draw),
        )


def ordering_table(distance: Distance, folder: Path, *, seed: int = 0) -> dict[str, dict[str, float | int]]:
    """Share of triplets in the right order, by kind of comparison and by measure.

    Distances that agree to 1e-4 of their size count as half right. So plain L2 gets a half wherever errors are equal,
    by construction: its entry there says nothing against it. Comparisons for which no triplet could be made are left
    out.

    Args:
        distance: the perceptual distance, called with batches in [0, 1].
        folder: portraits of one size that took no part in training.
        seed: of the distortions; the same for every measure.

    Returns:
        {kind: {"tiny-perceptual": share, "l2": share, "1-ssim": share, "triplets": count}}.

    Raises:
        UsageError: no images in the folder.
        PhotoError: an image that cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise UsageError(f"{folder}: expected portraits to compare on, found no image")
    images = torch.stack([read_image(path) for path in paths])
    measures: dict[str, Distance] = {"tiny-perceptual": distance, "l2": squared_error, "1-ssim": dissimilarity}
    table: dict[str, dict[str, float | int]] = {}
    for number, (kind, make) in enumerate(kinds_of_triplets()):
        draw = step_generator(seed, number)
        right = dict.fromkeys(measures, 0.0)
        count = 0
        for batch in images.split(_BATCH):
            triplets = make(batch, draw)
            count += len(triplets.reference)
            for name, measure in measures.items():
                with torch.inference_mode():
                    better = measure(triplets.reference, triplets.better)
                    worse = measure(triplets.reference, triplets.worse)
                tied = (worse - better).abs() <= _TIE * worse.maximum(better)
                right[name] += float(torch.where(tied, 0.5, (worse > better).float()).sum())
        if count:
            table[kind] = {name: round(hits / count, 4) for name, hits in right.items()}
            table[kind]["triplets"] = count
    return table
