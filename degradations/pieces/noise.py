"""Noise as degradations: Gaussian (white, grey, or in grains), photons, speckle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from degradations.pieces.base import (
    Degradation,
    NonNegative,
    Parameters,
    Positive,
    Share,
    fractions,
    new_seed,
    seeded,
    stretched,
    within,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class GaussianNoise(Degradation):
    """Gaussian noise; with `grain`, in soft grains of the same strength, as a film has."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    std: NonNegative = Field(description="standard deviation on the scale of 255")
    grey: Share = Field(default=0.0, description="share of images with one noise for all three channels")
    grain: NonNegative = Field(default=(0.0, 0.0), description="std of the Gaussian that softens it, pixels")

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"grain": stretched(self.grain, factor)})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        std, grey, grain = fractions(generator, 3)
        return {
            "std": within(self.std, std),
            "grey": grey < self.grey,
            "grain": within(self.grain, grain),
            "seed": new_seed(generator),
        }

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.fields import smooth_field

        channels = 1 if parameters["grey"] else 3
        shape = (image.shape[1], image.shape[2])
        field = smooth_field(shape, parameters["grain"], parameters["seed"], count=channels)
        return image + parameters["std"] / 255 * field.to(image)


class PoissonNoise(Degradation):
    """The noise of counted photons, in linear light, each channel for itself."""

    name: Literal["poisson_noise"] = "poisson_noise"
    photons: Positive = Field(description="counted in white; fewer are noisier")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        return {"photons": within(self.photons, fractions(generator, 1)[0]), "seed": new_seed(generator)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.camera.steps import to_linear, to_tone
        from degradations.noise import photons

        counted = photons(to_linear(image, "srgb"), parameters["photons"], seeded(parameters["seed"]))
        return to_tone(counted.clamp(0, 1), "srgb")


class SpeckleNoise(Degradation):
    """Noise in proportion to the value: bright parts are noisy, black stays black."""

    name: Literal["speckle_noise"] = "speckle_noise"
    std: NonNegative = Field(description="standard deviation as a share of the value")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        del shape
        return {"std": within(self.std, fractions(generator, 1)[0]), "seed": new_seed(generator)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.noise import speckle

        return speckle(image, parameters["std"], seeded(parameters["seed"]))
