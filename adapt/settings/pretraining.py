"""Settings of pre-training: what all share, the diffusion prior, SwinIR and the perceptual network."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from adapt.settings.base import Distance, Settings, Weight
from adapt.settings.damage import BlindSettings
from adapt.settings.networks import PatchDiscriminatorSettings, SwinIRSettings, UNetSettings
from adapt.settings.paths import WeightsName
from degradations.pieces.base import Share
from degradations.pieces.names import AnyDegradation


class TrainingSettings(Settings):
    """What every pre-training shares."""

    steps: PositiveInt
    batch: PositiveInt
    size: PositiveInt = Field(description="side of the square images, in pixels")
    learning_rate: PositiveFloat
    warmup: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    save_every: PositiveInt = 500
    seed: Annotated[int, Field(ge=0)] = 0


class PriorPhase(Settings):
    """A stretch of the prior's training at one resolution."""

    steps: PositiveInt
    size: PositiveInt
    batch: PositiveInt


class PriorSettings(Settings):
    """Pre-training of the diffusion prior."""

    kind: Literal["pretrain-prior"] = "pretrain-prior"
    network: UNetSettings
    start: WeightsName | None = Field(
        default=None, description="weights of a prior of that layout: a run, a file or a pack; left out, new ones"
    )
    phases: list[PriorPhase] = Field(min_length=1, description="from small and cheap to full resolution")
    learning_rate: PositiveFloat = 3e-4
    warmup: Annotated[int, Field(ge=0)] = 200
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    snr_cap: PositiveFloat = Field(default=5.0, description="gamma of min-SNR loss weights")
    coarse: Weight = Field(
        default=0.0, description="weight of the noise's error in means over 8, 32 and 128 px; keeps colour casts away"
    )
    variance_weight: Weight = Field(
        default=0.001, description="weight of the variational bound that trains the variance"
    )
    save_every: PositiveInt = 500
    seed: Annotated[int, Field(ge=0)] = 0


class RestorerSettings(TrainingSettings):
    """Pre-training of SwinIR on the blind degradation."""

    kind: Literal["pretrain-restorer"] = "pretrain-restorer"
    network: SwinIRSettings
    degradation: BlindSettings = BlindSettings()
    l1: Weight = 1.0
    perceptual: Weight = 0.1
    distance: Distance = Field(default="pack", description="which perceptual distance that weight is for")


class OneStepTrainingSettings(TrainingSettings):
    """Pre-training of the one-step student on known damage; it begins as a prior, as a part of one, or as a student."""

    kind: Literal["pretrain-onestep"] = "pretrain-onestep"
    start: WeightsName | None = Field(
        default=None,
        description="weights of a prior or a student: a run, a file or PACK/NAME; left out, the pack's prior",
    )
    network: UNetSettings | None = Field(
        default=None, description="a layout with fewer channels or blocks at some levels; left out, the prior's own"
    )
    t: Annotated[int, Field(ge=0, lt=1000)] = Field(default=300, description="timestep that the network is told")
    degradation: BlindSettings = BlindSettings()
    chain: list[AnyDegradation] = Field(
        default=[], description="degradations laid over a share of the images in place of the blind one"
    )
    chain_share: Share = Field(default=0.0, description="that share")
    l1: Weight = 1.0
    perceptual: Weight = 0.4
    distance: Distance = Field(default="pack", description="which perceptual distance that weight is for")
    recognition: Weight = Field(
        default=0.0, description="weight of the distance between the embeddings of the pack's recogniser"
    )
    adversarial: Weight = Field(default=0.0, description="of the pull of L1 and perceptual loss")
    adversarial_from: Annotated[int, Field(ge=0)] = Field(
        default=0, description="the first step whose images the discriminator changes"
    )
    discriminator: PatchDiscriminatorSettings = PatchDiscriminatorSettings(features=32, layers=2)

    @model_validator(mode="after")
    def _some_chain(self) -> Self:
        if self.chain_share and not self.chain:
            raise ValueError(f"chain_share: is {self.chain_share:g}, and chain has no degradation to lay over them")
        return self

    def identity(self) -> dict[str, Any]:
        """The settings without the path of weights, for which their content stands; of a camera's profile likewise."""
        return {
            **self.model_dump(mode="json", exclude={"start"}), "chain": [each.identity() for each in self.chain]
        }


class PerceptualSettings(TrainingSettings):
    """Pre-training of the pack's perceptual network."""

    kind: Literal["pretrain-perceptual"] = "pretrain-perceptual"
    channels: list[PositiveInt] = Field(description="width of each stage; each halves the resolution of the last")
