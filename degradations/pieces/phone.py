"""What a phone does to its own pictures, as degradations: tinted light, blotches of colour, smearing, sharpening."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self

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

# R, G and B that one unit of Cb and of Cr adds (ITU-R BT.601, as in JPEG).
_CB: Final = (0.0, -0.344136, 1.772)
_CR: Final = (1.402, -0.714136, 0.0)


class Tint(Degradation):
    """Less light, of another colour, in linear light: a lamp that the white balance did not follow."""

    name: Literal["tint"] = "tint"
    exposure: Positive = Field(default=(1.0, 1.0), description="light that is left")
    red: Positive = Field(default=(1.0, 1.0), description="gain of red, next to green")
    blue: Positive = Field(default=(1.0, 1.0), description="gain of blue, next to green")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        exposure, red, blue = fractions(generator, 3)
        return {
            "exposure": within(self.exposure, exposure),
            "red": within(self.red, red),
            "blue": within(self.blue, blue),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.camera.steps import to_linear, to_tone

        gains = image.new_tensor([parameters["red"], 1.0, parameters["blue"]]) * parameters["exposure"]
        return to_tone((to_linear(image, "srgb") * gains[:, None, None]).clamp(0, 1), "srgb")


class ChromaNoise(Degradation):
    """Noise in colour alone, in soft blotches: what is left of a sensor's noise where luminance was cleaned."""

    name: Literal["chroma_noise"] = "chroma_noise"
    std: NonNegative = Field(description="standard deviation of Cb and of Cr, on the scale of 255")
    grain: NonNegative = Field(default=(0.0, 0.0), description="std of the Gaussian that softens it, pixels")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"grain": stretched(self.grain, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        std, grain = fractions(generator, 2)
        return {"std": within(self.std, std), "grain": within(self.grain, grain), "seed": new_seed(generator)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.fields import smooth_field

        shape = (image.shape[1], image.shape[2])
        cb, cr = (parameters["std"] / 255 * smooth_field(shape, parameters["grain"], parameters["seed"], count=2)).to(
            image
        )
        blue, red = (image.new_tensor(part)[:, None, None] for part in (_CB, _CR))
        return image + blue * cb + red * cr


class Smear(Degradation):
    """A denoiser that keeps edges and wipes what is weaker away, skin and hair too: a guided filter of the image by
    itself (He et al. 2013), each channel alone."""

    name: Literal["smear"] = "smear"
    radius: Positive = Field(description="of its window, pixels")
    strength: Positive = Field(description="deviation on the scale of 255 below which texture goes")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"radius": stretched(self.radius, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        radius, strength = fractions(generator, 2)
        return {"radius": within(self.radius, radius), "strength": within(self.strength, strength)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.kernels import gaussian_blur

        def mean(values: Tensor) -> Tensor:  # a Gaussian window, so that a radius need not be whole
            return gaussian_blur(values, parameters["radius"], parameters["radius"], 0.0)

        average = mean(image)
        variance = (mean(image.square()) - average.square()).clamp(min=0)
        kept = variance / (variance + (parameters["strength"] / 255) ** 2)
        return mean(kept) * image + mean((1 - kept) * average)


class Sharpen(Degradation):
    """Unsharp masking: what a Gaussian blur takes away is added once more, rims and all."""

    name: Literal["sharpen"] = "sharpen"
    std: Positive = Field(description="of the blur, pixels")
    amount: NonNegative = Field(description="how much of what it takes away is added")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"std": stretched(self.std, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        std, amount = fractions(generator, 2)
        return {"std": within(self.std, std), "amount": within(self.amount, amount)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.kernels import gaussian_blur

        std = parameters["std"]
        return image + parameters["amount"] * (image - gaussian_blur(image, std, std, 0.0))
