"""Settings of known damage: a chain of degradations, and the blind degradation that pre-training learns from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from adapt.settings.base import Settings
from degradations.pieces.base import NonNegative, Odd, Positive, Qualities, Share
from degradations.pieces.names import AnyDegradation


class DegradeSettings(Settings):
    """Damage for good images: a chain of degradations."""

    kind: Literal["degrade"] = "degrade"
    degradations: list[AnyDegradation] = Field(
        min_length=1, description="applied in this order; lengths are for 512 pixels"
    )
    seed: Annotated[int, Field(ge=0)] = 0

    def identity(self) -> dict[str, Any]:
        """The settings, with the content of a camera's profile in place of its path."""
        return {**super().identity(), "degradations": [degradation.identity() for degradation in self.degradations]}


class BlindSettings(Settings):
    """Ranges of the blind degradation, from low to high: DT-BFR Eq. (9)/(11)."""

    blur_std: Positive = (0.1, 15.0)
    downsample: Positive = (0.8, 32.0)
    noise: NonNegative = Field(default=(0.0, 20.0), description="standard deviation on the scale of 255")
    jpeg: Qualities = (30, 100)
    isotropic: Share = 0.5
    grey: Share = 0.01
    kernel_size: Odd = 41


class AugmentationSettings(Settings):
    """How clean faces are varied before they are damaged: `adapt.pretraining.augmentation`."""

    share: Share = Field(default=0.0, description="of the images; the others stay as they are")
    turn: Annotated[float, Field(ge=0, le=45)] = Field(default=6.0, description="degrees to either side at most")
    scale: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.06, description="largest logarithm of the enlargement, either way"
    )
    colour: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.04, description="deviation of the logarithm of each colour's gain"
    )
    exposure: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="deviation of the logarithm of the power that is taken of the values"
    )
