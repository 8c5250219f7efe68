"""Blur as degradations: a soft lens, a moving camera, an aperture out of focus."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from degradations.pieces.base import (
    Degradation,
    NonNegative,
    Parameters,
    Positive,
    Range,
    Share,
    fractions,
    stretched,
    within,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class GaussianBlur(Degradation):
    """Gaussian blur of the values as they are stored; turned where it is not round."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    std: Positive = Field(description="standard deviation, pixels")
    isotropic: Share = Field(default=1.0, description="share of round kernels; others have two stds and any angle")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"std": stretched(self.std, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        choice, first, second, turn = fractions(generator, 4)
        std_x = within(self.std, first)
        if choice < self.isotropic:
            return {"std_x": std_x, "std_y": std_x, "angle": 0.0}
        return {"std_x": std_x, "std_y": within(self.std, second), "angle": within((-math.pi, math.pi), turn)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.kernels import gaussian_blur

        return gaussian_blur(image, parameters["std_x"], parameters["std_y"], parameters["angle"])


class MotionBlur(Degradation):
    """A camera that moves while the shutter is open, along an arc, at constant speed; in linear light."""

    name: Literal["motion_blur"] = "motion_blur"
    length: NonNegative = Field(description="of the path, pixels")
    angle: Range = Field(default=(-90.0, 90.0), description="direction of the path, degrees from the right")
    bend: Range = Field(default=(0.0, 0.0), description="by how much the direction turns on the way, degrees")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"length": stretched(self.length, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        length, angle, bend = fractions(generator, 3)
        return {
            "length": within(self.length, length),
            "angle": within(self.angle, angle),
            "bend": within(self.bend, bend),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.kernels import blur_light, motion_kernel

        angle, bend = (math.radians(parameters[key]) for key in ("angle", "bend"))
        return blur_light(image, motion_kernel(parameters["length"], angle, bend))


class Defocus(Degradation):
    """A lens out of focus: a disk, in linear light."""

    name: Literal["defocus"] = "defocus"
    radius: Positive = Field(description="of the disk, pixels")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"radius": stretched(self.radius, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        return {"radius": within(self.radius, fractions(generator, 1)[0])}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.kernels import blur_light, disk_kernel

        return blur_light(image, disk_kernel(parameters["radius"]))
