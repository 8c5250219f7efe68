"""Archive damage as degradations: grey, fading, sepia, halftone, scratches, dust, scan lines, banding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field

from degradations.pieces.base import (
    Counts,
    Degradation,
    NonNegative,
    Parameters,
    Positive,
    Range,
    Share,
    Shares,
    fractions,
    new_seed,
    stretched,
    whole_within,
    within,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FINEST = 2.0  # pixels: what repeats faster than that, pixels cannot show


def _coarse(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] < FINEST:
        raise ValueError(f"expected periods of at least {FINEST:g} pixels, got {limits[0]:g}")
    return limits


def _several(limits: tuple[int, int]) -> tuple[int, int]:
    if limits[0] < 2:
        raise ValueError(f"expected two levels or more, got {limits[0]}")
    return limits


Periods = Annotated[Positive, AfterValidator(_coarse)]
Levels = Annotated[Counts, AfterValidator(_several)]


def _periods(limits: tuple[float, float], factor: float) -> tuple[float, float]:
    low, high = (max(FINEST, limit * factor) for limit in limits)
    return low, high


class Grey(Degradation):
    """Without colour, as a film or plate sees it; the default is luma."""

    name: Literal["grey"] = "grey"
    red: Shares = Field(default=(0.299, 0.299), description="what red is worth; old plates are blind to it")
    blue: Annotated[Shares, Field(description="what blue is worth; green takes the rest")] = (0.114, 0.114)

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        red, blue = fractions(generator, 2)
        drawn = within(self.red, red)
        return {"red": drawn, "blue": min(within(self.blue, blue), 1 - drawn)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import one_colour

        return one_colour(image, parameters["red"], parameters["blue"])


class Fading(Degradation):
    """The dyes of a colour print have faded and the paper has yellowed; equal shares fade a grey print."""

    name: Literal["fading"] = "fading"
    cyan: Shares = Field(description="share of the dye that is left")
    magenta: Shares = Field(description="likewise")
    yellow: Shares = Field(description="likewise")
    stain: NonNegative = Field(default=(0.0, 0.0), description="density that the paper adds in blue")
    together: bool = Field(default=False, description="one draw for the three dyes: a grey print stays grey")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        cyan, magenta, yellow, stain = fractions(generator, 4)
        if self.together:
            magenta = yellow = cyan
        return {
            "cyan": within(self.cyan, cyan),
            "magenta": within(self.magenta, magenta),
            "yellow": within(self.yellow, yellow),
            "stain": within(self.stain, stain),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import faded

        return faded(image, **{key: parameters[key] for key in ("cyan", "magenta", "yellow", "stain")})


class Sepia(Degradation):
    """A grey print toned brown."""

    name: Literal["sepia"] = "sepia"
    strength: Shares = Field(default=(0.5, 1.0), description="0 is grey, 1 fully toned")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        return {"strength": within(self.strength, fractions(generator, 1)[0])}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import sepia

        return sepia(image, parameters["strength"])


class Halftone(Degradation):
    """Printed in dots of ink."""

    name: Literal["halftone"] = "halftone"
    period: Periods = Field(description="from dot to dot, pixels, at least 2")
    angle: Range = Field(default=(30.0, 60.0), description="of the grid, degrees")
    coloured: Share = Field(default=0.0, description="share of images in three inks; the others are black on white")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"period": _periods(self.period, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        period, angle, coloured, across, along = fractions(generator, 5)
        return {
            "period": within(self.period, period),
            "angle": within(self.angle, angle),
            "coloured": coloured < self.coloured,
            "phase": [across, along],
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import halftone

        across, along = parameters["phase"]
        return halftone(
            image,
            period=parameters["period"],
            angle=math.radians(parameters["angle"]),
            phase=(across, along),
            coloured=parameters["coloured"],
        )


class Scratches(Degradation):
    """Long thin lines, white where the emulsion is gone, dark where dirt has filled them."""

    name: Literal["scratches"] = "scratches"
    count: Counts = Field(description="how many")
    width: Positive = Field(default=(0.8, 2.0), description="pixels")
    white: Share = Field(default=0.8, description="share of images whose scratches are white; the others are dark")
    upright: Share = Field(default=0.5, description="share of images scratched along a film, not in all directions")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"width": stretched(self.width, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        count, width, white, upright, tone = fractions(generator, 5)
        return {
            "count": whole_within(self.count, count),
            "width": within(self.width, width),
            "tone": within((0.75, 1.0) if white < self.white else (0.05, 0.25), tone),
            "upright": upright < self.upright,
            "seed": new_seed(generator),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import scratched

        return scratched(image, **{key: parameters[key] for key in ("seed", "count", "width", "tone", "upright")})


class Dust(Degradation):
    """Specks: white from dust on a negative, dark from dust on a print."""

    name: Literal["dust"] = "dust"
    count: Counts = Field(description="how many")
    radius: Positive = Field(default=(2.0, 5.0), description="of the largest, pixels; most are far smaller")
    white: Share = Field(default=0.7, description="share of images whose specks are white; the others are dark")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"radius": stretched(self.radius, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        count, radius, white, tone = fractions(generator, 4)
        return {
            "count": whole_within(self.count, count),
            "radius": within(self.radius, radius),
            "tone": within((0.8, 1.0) if white < self.white else (0.05, 0.3), tone),
            "seed": new_seed(generator),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import dusty

        return dusty(image, **{key: parameters[key] for key in ("seed", "count", "radius", "tone")})


class ScanLines(Degradation):
    """Dark lines across, as between the rows of a tube."""

    name: Literal["scan_lines"] = "scan_lines"
    period: Periods = Field(description="from line to line, pixels, at least 2")
    depth: Shares = Field(description="share of the light missing between the rows")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"period": _periods(self.period, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        period, depth, phase = fractions(generator, 3)
        return {"period": within(self.period, period), "depth": within(self.depth, depth), "phase": phase}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import scan_lines

        return scan_lines(image, **{key: parameters[key] for key in ("period", "depth", "phase")})


class Banding(Degradation):
    """Few levels in each channel, without dither: smooth shades break into bands."""

    name: Literal["banding"] = "banding"
    levels: Levels = Field(description="of each channel, at least 2")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        return {"levels": whole_within(self.levels, fractions(generator, 1)[0])}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.archive import few_levels

        return few_levels(image, parameters["levels"])
