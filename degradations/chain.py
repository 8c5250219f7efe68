"""The degradations by name, and one call that damages one image reproducibly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from degradations.blind import DYNFACE, SWINIR, BlindParameters, BlindRanges, degrade_blind, draw_blind
from degradations.camera_noise import MODERATE, SEVERE, STARLIGHT, CameraNoise
from degradations.filters import check_one


@dataclass(frozen=True, slots=True)
class Blind:
    """The blind degradation with its ranges, in the form the table wants: `scaled`, `draw`, `apply`."""

    ranges: BlindRanges

    def scaled(self, size: int) -> Blind:
        """For pictures of `size` pixels: see `BlindRanges.scaled`."""
        return Blind(self.ranges.scaled(size))

    def draw(self, generator: torch.Generator) -> BlindParameters:
        """One image's parameters: see `draw_blind`."""
        return draw_blind(self.ranges, generator)

    def apply(self, image: Tensor, parameters: BlindParameters, noise: torch.Generator | Tensor) -> Tensor:
        """One damaged image: see `degrade_blind`."""
        return degrade_blind(image, parameters, noise)


DEGRADATIONS: Final[MappingProxyType[str, Blind | CameraNoise]] = MappingProxyType(
    {
        "blind": Blind(SWINIR),
        "dynface": Blind(DYNFACE),
        "camera-noise-moderate": MODERATE,
        "camera-noise-severe": SEVERE,
        "camera-noise-starlight": STARLIGHT,
    }
)


def degrade(image: Tensor, name: str, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """One image damaged as the table says, with everything random following from the seed.

    Args:
        image: (3, H, W) in [0, 1], on any device.
        name: a key of `DEGRADATIONS`. Ranges for 512 pixels are scaled to the shorter side where that is less.
        seed: of this image; 0 or more.

    Returns:
        The damaged image, (3, H, W) in [0, 1], and its parameters as a plain dict that JSON can hold. Where "grey" is
        true, the ground truth is `to_grey(image)`.

    Raises:
        ValueError: an unknown name, another shape, values outside [0, 1], a negative seed.
    """
    degradation = DEGRADATIONS.get(name)
    if degradation is None:
        near = get_close_matches(name, DEGRADATIONS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"no degradation {name!r}{hint} Known: {', '.join(DEGRADATIONS)}")
    check_one(image, name)
    lowest, highest = (float(value) for value in image.aminmax())
    if not (lowest >= 0 and highest <= 1):  # written so that NaN fails too
        raise ValueError(f"{name}: expected values in [0, 1], got [{lowest:.3g}, {highest:.3g}]")
    if seed < 0:
        raise ValueError(f"{name}: expected a seed of 0 or more, got {seed}")
    generator = torch.Generator().manual_seed(seed)
    degradation = degradation.scaled(min(image.shape[1:]))
    if isinstance(degradation, Blind):
        drawn = degradation.draw(generator)
        return degradation.apply(image, drawn, generator), asdict(drawn)
    light = degradation.draw(generator)
    return degradation.apply(image, light, generator), asdict(light)
