"""Settings of pre-training what DynFaceRestore adds: blur estimator, start-step table, guidance adjuster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from adapt.settings.base import Settings, Weight
from adapt.settings.damage import BlindSettings
from adapt.settings.networks import SwinIRSettings
from adapt.settings.pretraining import TrainingSettings
from degradations.pieces.base import Positive


class BlurEstimatorSettings(TrainingSettings):
    """Pre-training of the blur estimator: DynFaceRestore Eq. (20)-(22)."""

    kind: Literal["pretrain-blur-estimator"] = "pretrain-blur-estimator"
    transfer: SwinIRSettings | None = Field(
        default=None, description="layout of TM; left out, TM begins as a copy of the pack's restorer"
    )
    channels: list[PositiveInt] = Field(
        default=[64, 128, 256], min_length=1, description="width of each pair of SDE's convolutions"
    )
    first_stage: Annotated[int, Field(ge=0)] = Field(
        description="steps of SDE alone, on true Gaussian blurs; the rest train TM and SDE together on degraded photos"
    )
    xi: PositiveFloat | None = Field(
        default=None,
        description="tolerance of the labels, mean absolute difference in [0, 1]; left out, the one that spreads them"
        " most evenly",
    )
    survey: PositiveInt = Field(default=256, description="faces whose labels are counted before the first step")
    image: Weight = Field(
        default=50.0, description="gamma: weight of TM's image in [0, 1] next to the std in pixels at 512"
    )
    degradation: BlindSettings = Field(
        default=BlindSettings(isotropic=1.0, grey=0.0), description="of the second stage; the paper's, Eq. (18)"
    )

    @model_validator(mode="after")
    def _stages_fit(self) -> BlurEstimatorSettings:
        if self.first_stage > self.steps:
            raise ValueError(f"first_stage {self.first_stage} is more than all {self.steps} steps")
        return self


class StartStepsSettings(Settings):
    """The start-step table of DynFaceRestore, Eq. (11): from which timestep on a blur no longer shows."""

    kind: Literal["pretrain-start-steps"] = "pretrain-start-steps"
    size: PositiveInt = Field(description="side of the square images, in pixels")
    statistic: Literal["share", "mean", "largest"] = Field(
        default="share", description="which difference of the log spectra over the frequencies must be within tol"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95, description="of the frequencies, for the statistic of that name"
    )
    tol: PositiveFloat = Field(default=1e-3, description="largest difference of the log spectra")


class AdjusterSettings(TrainingSettings):
    """Pre-training of the guidance adjuster: DynFaceRestore Algorithm 2."""

    kind: Literal["pretrain-guidance-adjuster"] = "pretrain-guidance-adjuster"
    features: PositiveInt = Field(default=64, description="width of the adjuster's two hidden layers")
    first_stage: Annotated[int, Field(ge=0)] = Field(
        description="steps towards faces with a true Gaussian blur; the rest are towards the blur-level mapping"
    )
    stride: PositiveInt = Field(default=1, description="timesteps between x_t and the sample that is judged")
    blur_std: Positive = Field(
        default=(0.1, 15.0), description="of the first stage, in pixels at 512; scaled to `size`"
    )
    degradation: BlindSettings = Field(default=BlindSettings(), description="of the second stage")
    wavelet: str = Field(default="sym19", description="PyWavelets' name of it")
    bands: tuple[Weight, Weight, Weight, Weight] = Field(
        default=(0.0, 0.01, 0.01, 0.05), description="loss weights of the sub-bands LL, LH, HL and HH"
    )
    perceptual: Weight = Field(default=1.0, description="weight of DISTS, or of the pack's perceptual distance")
    distance: Literal["pack", "dists", "auto"] = Field(default="pack", description="which of them the weight is for")

    @model_validator(mode="after")
    def _stages_fit(self) -> AdjusterSettings:
        if self.first_stage > self.steps:
            raise ValueError(f"first_stage {self.first_stage} is more than all {self.steps} steps")
        return self
