"""All degradations by name: the one table that recipes, messages and lists go by.

Degradations that hold others, resampling and mixing, hold any but these two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import Field

from degradations.pieces.archive import Banding, Dust, Fading, Grey, Halftone, ScanLines, Scratches, Sepia
from degradations.pieces.base import (
    Degradation,
    Factors,
    Parameters,
    Positive,
    Shares,
    apply_all,
    draw_all,
    fractions,
    new_seed,
    shrinking,
    stretched,
    within,
)
from degradations.pieces.blind import Blind
from degradations.pieces.blur import Defocus, GaussianBlur, MotionBlur
from degradations.pieces.camera import CameraDegradation
from degradations.pieces.camera_noise import CameraNoise
from degradations.pieces.compression import DoubleJpeg, Jpeg, Webp
from degradations.pieces.noise import GaussianNoise, PoissonNoise, SpeckleNoise
from degradations.pieces.phone import ChromaNoise, Sharpen, Smear, Tint
from degradations.pieces.turbulence import Turbulence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_Plain: TypeAlias = (
    Banding
    | Blind
    | CameraNoise
    | CameraDegradation
    | ChromaNoise
    | Defocus
    | DoubleJpeg
    | Dust
    | Fading
    | GaussianBlur
    | GaussianNoise
    | Grey
    | Halftone
    | Jpeg
    | MotionBlur
    | PoissonNoise
    | ScanLines
    | Scratches
    | Sepia
    | Sharpen
    | Smear
    | SpeckleNoise
    | Tint
    | Turbulence
    | Webp
)
PlainDegradation: TypeAlias = Annotated[_Plain, Field(discriminator="name")]

Kernel = Literal["nearest", "box", "bilinear", "bicubic", "lanczos", "bilinear-aliased"]


class Resample(Degradation):
    """Shrunk and enlarged again, each with one of several kernels; `degradations` damage the small image in between.

    Lengths of these degradations are in pixels of the small image, and are not scaled.
    """

    name: Literal["resample"] = "resample"
    factor: Factors = Field(description="by how much both sides shrink, 1 or more")
    down: list[Kernel] = Field(default=["box", "bilinear", "bicubic", "lanczos"], min_length=1)
    up: list[Kernel] = Field(default=["nearest", "bilinear", "bicubic", "lanczos"], min_length=1)
    degradations: list[PlainDegradation] = Field(
        default=[], description="what happens to the small image, in this order"
    )

    def identity(self) -> Parameters:
        return {**super().identity(), "degradations": [degradation.identity() for degradation in self.degradations]}

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"factor": shrinking(self.factor, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        factor, down, up = fractions(generator, 3)
        drawn = within(self.factor, factor)
        small = (max(1, int(shape[0] / drawn)), max(1, int(shape[1] / drawn)))
        return {
            "size": list(small),
            "down": self.down[int(down * len(self.down))],
            "up": self.up[int(up * len(self.up))],
            "degradations": draw_all(self.degradations, new_seed(generator), small),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.resampling import resize

        height, width = parameters["size"]
        small = resize(image, (height, width), parameters["down"]).clamp(0, 1)
        small = apply_all(small, self.degradations, parameters["degradations"])
        return resize(small, (image.shape[1], image.shape[2]), parameters["up"])


InnerDegradation: TypeAlias = Annotated[_Plain | Resample, Field(discriminator="name")]


class Mixed(Degradation):
    """Damage that varies over the image: one chain in some patches, another one elsewhere, softly blended.

    No single kernel, noise or quality is right for such an image: what DynFaceRestore states as its limit (Fig. 19).
    """

    name: Literal["mixed"] = "mixed"
    first: list[InnerDegradation] = Field(description="damage of the patches")
    second: list[InnerDegradation] = Field(description="damage of the rest; [] leaves it as it is")
    length: Positive = Field(default=(40.0, 80.0), description="size of the patches, pixels")
    share: Shares = Field(default=(0.3, 0.7), description="of the area that the first chain gets")
    softness: Shares = Field(default=(0.3, 0.6), description="width of the edges; 0 is hard")

    def identity(self) -> Parameters:
        chains = {name: [degradation.identity() for degradation in getattr(self, name)] for name in ("first", "second")}
        return {**super().identity(), **chains}

    def scaled(self, factor: float) -> Self:
        return self.model_copy(
            update={
                "first": [degradation.scaled(factor) for degradation in self.first],
                "second": [degradation.scaled(factor) for degradation in self.second],
                "length": stretched(self.length, factor),
            }
        )

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        length, share, softness = fractions(generator, 3)
        return {
            "length": within(self.length, length),
            "share": within(self.share, share),
            "softness": within(self.softness, softness),
            "seed": new_seed(generator),
            "first": draw_all(self.first, new_seed(generator), shape),
            "second": draw_all(self.second, new_seed(generator), shape),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.fields import smooth_mask

        settings = {key: parameters[key] for key in ("seed", "length", "share", "softness")}
        mask = smooth_mask((image.shape[1], image.shape[2]), **settings).to(image)
        first = apply_all(image, self.first, parameters["first"])
        second = apply_all(image, self.second, parameters["second"])
        return second + mask * (first - second)


AnyDegradation: TypeAlias = Annotated[_Plain | Resample | Mixed, Field(discriminator="name")]
