"""What a metric is computed from: images and their partners, features of whole sets, and networks."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor

from adapt.evaluation.metrics import Network, Perceptual

Side = Literal["truth", "photos", "reference"]
"""What images are held against: what they should be, what they were restored from (both photo by photo), and clean
images of other people or scenes (as a set)."""

SIDES: Final[tuple[Side, ...]] = typing.get_args(Side)

_SEED: Final = 0  # the same draws for every model, so that differences between models are not differences of the draw


class Networks:
    """Networks that metrics ask for by name, each loaded when the first metric does, and only once.

    Args:
        loaders: what loads each; what is not among them leaves the metrics out that need it.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Network]]) -> None:
        self._loaders = {name: functools.cache(loader) for name, loader in loaders.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._loaders

    def __getitem__(self, name: str) -> Any:
        return self._loaders[name]()

    def with_perceptual(self, distance: Perceptual | None) -> Networks:
        """These and a perceptual distance, if there is one; what was loaded stays so for both."""
        return self if distance is None else Networks({**self._loaders, "perceptual": lambda: distance})

    @property
    def perceptual(self) -> Perceptual:
        return cast(Perceptual, self["perceptual"])


@dataclass(frozen=True, slots=True)
class Measuring:
    """A network by which a metric measures, with the name and digest that its protocol tells.

    Attributes:
        name: for tables.
        digest: sha256 of its weights.
        network: what the metric's function calls.
    """

    name: str
    digest: str
    network: Any


@dataclass(frozen=True, slots=True)
class Batch:
    """Images to judge with their partners.

    Attributes:
        restored: (B, 3, H, W) in [0, 1].
        sides: "truth" and "photos" where the metric needs them, of the same shape.
        networks: those that the metric needs are among them.
        match_statistics: as for `adapt.evaluation.metrics.psnr`.
    """

    restored: Tensor
    sides: Mapping[str, Tensor]
    networks: Networks
    match_statistics: bool


@dataclass(frozen=True, slots=True)
class Sets:
    """Features of all images.

    Attributes:
        restored: (N, D).
        sides: of the sides that the metric needs: (N, D), row i that of the same photo, or of the reference (M, D).
    """

    restored: Tensor
    sides: Mapping[str, Tensor]

    @property
    def fewest(self) -> int:
        """Images on the side that has the fewest."""
        return min(len(features) for features in (self.restored, *self.sides.values()))

    def generator(self) -> torch.Generator:
        """For what is drawn at random: of one seed, so that every model gets the same draws over the same photos."""
        return torch.Generator().manual_seed(_SEED)


@dataclass(frozen=True, slots=True)
class FromImages:
    """A number of each photo that comes from it and its partners.

    Attributes:
        compute: gives (B,); nan for a photo that has no such number.
    """

    compute: Callable[[Batch], Tensor]


@dataclass(frozen=True, slots=True)
class FromFeatures:
    """What only whole sets of images give.

    Attributes:
        features: of (B, 3, H, W) images in [0, 1], as (B, D). Metrics with the same function share its results.
        compute: of a metric per photo (N,), nan for a photo that has no such number. Of one per set (K,) estimates:
            their mean is the number, their deviation its error, and estimate k is of the same photos for every model.
    """

    features: Callable[[Tensor, Networks], Tensor]
    compute: Callable[[Sets], Tensor]
