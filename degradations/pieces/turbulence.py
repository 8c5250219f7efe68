"""Atmospheric turbulence as one degradation: tilt, then blur."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from degradations.pieces.base import (
    Degradation,
    NonNegative,
    Parameters,
    Positive,
    fractions,
    new_seed,
    stretched,
    within,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHAKE = 2.0  # the whole image shifts by up to so many standard deviations of the tilt


class Turbulence(Degradation):
    """One frame from far away through hot air: a smooth field of shifts, then a blur that varies over the image.

    Made for the TURB set of Diffuse and Restore, faces from the BRIAR and LRFID recordings.
    """

    name: Literal["turbulence"] = "turbulence"
    tilt: NonNegative = Field(description="standard deviation of the shifts, pixels")
    length: Positive = Field(description="over which neighbouring shifts stay alike, pixels")
    blur: Positive = Field(description="standard deviation of the blur, pixels; it varies within the image")

    def scaled(self, factor: float) -> Self:
        lengths = {name: stretched(getattr(self, name), factor) for name in ("tilt", "length", "blur")}
        return self.model_copy(update=lengths)

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        tilt, length, first, second, down, right = fractions(generator, 6)
        strength = within(self.tilt, tilt)
        return {
            "tilt": strength,
            "length": within(self.length, length),
            "blur": sorted([within(self.blur, first), within(self.blur, second)]),
            "shake": [SHAKE * strength * (2 * down - 1), SHAKE * strength * (2 * right - 1)],
            "seed": new_seed(generator),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.turbulence import turbulent

        calm, troubled = parameters["blur"]
        down, right = parameters["shake"]
        return turbulent(
            image,
            parameters["seed"],
            tilt=parameters["tilt"],
            length=parameters["length"],
            blur=(calm, troubled),
            shake=(down, right),
        )
