"""Compression as degradations: JPEG, JPEG twice, WebP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from degradations.pieces.base import Degradation, Parameters, Qualities, fractions, whole_within

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Jpeg(Degradation):
    """Written as a JPEG file (4:2:0) and read again."""

    name: Literal["jpeg"] = "jpeg"
    quality: Qualities

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        return {"quality": whole_within(self.quality, fractions(generator, 1)[0])}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.jpeg import jpeg

        return jpeg(image[None], parameters["quality"])[0]


class DoubleJpeg(Degradation):
    """Written as a JPEG file twice, cropped in between, so that the second grid of blocks lies beside the first."""

    name: Literal["double_jpeg"] = "double_jpeg"
    first: Qualities
    second: Qualities
    shift: Annotated[int, Field(ge=0, le=7)] = Field(default=7, description="grids differ by up to so many pixels")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        first, second, down, right = fractions(generator, 4)
        return {
            "first": whole_within(self.first, first),
            "second": whole_within(self.second, second),
            "down": whole_within((0, self.shift), down),
            "right": whole_within((0, self.shift), right),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from torch.nn import functional

        from degradations.jpeg import jpeg

        down, right = parameters["down"], parameters["right"]
        # The first file shows a little more at the top and on the left, which is cropped away.
        larger = functional.pad(image[None], (right, 0, down, 0), mode="replicate")
        once = jpeg(larger, parameters["first"])[:, :, down:, right:]
        return jpeg(once, parameters["second"])[0]


class Webp(Degradation):
    """Written as a lossy WebP file and read again."""

    name: Literal["webp"] = "webp"
    quality: Qualities

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        return {"quality": whole_within(self.quality, fractions(generator, 1)[0])}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.webp import webp

        return webp(image, parameters["quality"])
