"""The blind degradation of the papers as one degradation: blur, shrink, noise, JPEG, enlarge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from degradations.pieces.base import (
    Degradation,
    NonNegative,
    Odd,
    Parameters,
    Positive,
    Qualities,
    Share,
    seeded,
    shrinking,
    stretched,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from degradations.blind import BlindRanges


class Blind(Degradation):
    """`degradations.blind` with its ranges; the defaults are those of SwinIR's pre-training.

    The noise follows the parameters in the image's own stream, as in `draw_blind` and `degrade_blind`: "seed" is that
    of the whole stream. Where "grey" was drawn, the ground truth is `degradations.blind.to_grey` of the original.

    Source: DT-BFR Eq. (9)/(11), DynFaceRestore Eq. (16)/(18), Diffuse and Restore Eq. (10), CodeFormer.
    """

    name: Literal["blind"] = "blind"
    blur_std: Positive = Field(default=(0.1, 15.0), description="standard deviation of the blur, pixels")
    downsample: Positive = Field(default=(0.8, 32.0), description="by how much both sides shrink; under 1 they grow")
    noise: NonNegative = Field(default=(0.0, 20.0), description="standard deviation on the scale of 255")
    jpeg: Qualities = Field(default=(30, 100), description="quality")
    isotropic: Share = Field(default=0.5, description="share of kernels that are round")
    grey: Share = Field(default=0.01, description="share of images turned grey")
    kernel_size: Odd = Field(default=41, description="side of the kernel, pixels, odd")

    def scaled(self, factor: float) -> Self:
        """Blur and shrinking for smaller images; the kernel keeps its taps, so that less of it is cut off."""
        return self.model_copy(
            update={
                "blur_std": stretched(self.blur_std, factor),
                "downsample": shrinking(self.downsample, factor),
            }
        )

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        from dataclasses import asdict

        from degradations.blind import draw_blind

        del shape
        return {**asdict(draw_blind(self._ranges(), generator)), "seed": generator.initial_seed()}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.blind import BlindParameters, degrade_blind, draw_blind

        noise = seeded(parameters["seed"])
        draw_blind(self._ranges(), noise)  # the noise comes after these draws
        drawn = {key: value for key, value in parameters.items() if key not in ("name", "seed")}
        return degrade_blind(image, BlindParameters(**drawn), noise)

    def _ranges(self) -> BlindRanges:
        from degradations.blind import BlindRanges

        return BlindRanges(**self.model_dump(exclude={"name", "probability"}))
