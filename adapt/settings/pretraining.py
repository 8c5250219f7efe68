"""Settings of pre-training: what all share, diffusion priors, restorers and the perceptual network."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from adapt.settings.base import Distance, Settings, Weight
from adapt.settings.damage import AugmentationSettings, BlindSettings
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


class NoiseLossSettings(Settings):
    """How a prior's errors are weighed: `adapt.pretraining.prior.prior_losses`."""

    snr_cap: PositiveFloat = Field(default=5.0, description="gamma of min-SNR loss weights")
    coarse: Weight = Field(
        default=0.0, description="weight of the noise's error in means over 8, 32 and 128 px"
    )
    variance_weight: Weight = Field(
        default=0.001, description="weight of the variational bound that trains the variance"
    )


class PriorSettings(NoiseLossSettings):
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
    save_every: PositiveInt = 500
    seed: Annotated[int, Field(ge=0)] = 0

    def identity(self) -> dict[str, Any]:
        """The settings without the path of weights, for which their content stands."""
        return self.model_dump(mode="json", exclude={"start"})


class DamageTrainingSettings(TrainingSettings):
    """What every pre-training on known damage shares: where the damage comes from."""

    degradation: BlindSettings = BlindSettings()
    chain: list[AnyDegradation] = Field(
        default=[], description="degradations laid over a share of the images in place of the blind one"
    )
    chain_share: Share = Field(default=0.0, description="that share")
    augmentation: AugmentationSettings = AugmentationSettings()

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


class RestorerTrainingSettings(DamageTrainingSettings):
    """What the pre-trainings of restorers share: their losses."""

    l1: Weight = 1.0
    perceptual: Weight = 0.1
    distance: Distance = Field(default="pack", description="which perceptual distance that weight is for")
    recognition: Weight = Field(
        default=0.0, description="weight of the distance between the embeddings of the pack's recogniser"
    )
    adversarial: Weight = Field(default=0.0, description="of the pull of L1 and perceptual loss")
    adversarial_from: Annotated[int, Field(ge=0)] = Field(
        default=0, description="the first step whose images the discriminator changes"
    )
    discriminator: PatchDiscriminatorSettings = PatchDiscriminatorSettings(features=32, layers=2)


class RestorerSettings(RestorerTrainingSettings):
    """Pre-training of SwinIR on known damage."""

    kind: Literal["pretrain-restorer"] = "pretrain-restorer"
    start: WeightsName | None = Field(
        default=None, description="weights of a SwinIR of that layout: a run, a file or PACK/NAME; left out, new ones"
    )
    network: SwinIRSettings


class OneStepTrainingSettings(RestorerTrainingSettings):
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
    perceptual: Weight = 0.4
    gain_pairs: Annotated[int, Field(ge=0)] = Field(
        default=0, description="pairs by which the gain of a layout with `output_gain` is fitted after the training"
    )
    gain_chain: list[AnyDegradation] = Field(
        default=[], description="degradations laid over half of those pairs in place of the training's: slight damage"
    )

    @model_validator(mode="after")
    def _gain_to_fit(self) -> Self:
        if self.gain_pairs and not (self.network and self.network.output_gain):
            raise ValueError("gain_pairs: needs a network with output_gain: true")
        return self

    def identity(self) -> dict[str, Any]:
        """As of every training on known damage."""
        return {**super().identity(), "gain_chain": [each.identity() for each in self.gain_chain]}


class ConditionerSettings(RestorerTrainingSettings):
    """Training of an identity-preserving conditioner (Diffuse and Restore, Eq. 4): a restorer goes on towards the
    person."""

    kind: Literal["pretrain-identity-conditioner"] = "pretrain-identity-conditioner"
    start: WeightsName | None = Field(
        default=None,
        description="the restorer that it begins as: a run, a file or PACK/NAME; left out, the pack's swinir",
    )
    perceptual: Weight = 0.0
    recognition: Weight = Field(
        default=1.0, description="weight of the distance between the embeddings of the pack's recogniser"
    )


class ConditionalPriorSettings(DamageTrainingSettings, NoiseLossSettings):
    """Pre-training of a diffusion prior that sees the photo (Diffuse and Restore, Eq. 5)."""

    kind: Literal["pretrain-conditional-prior"] = "pretrain-conditional-prior"
    start: WeightsName | None = Field(
        default=None,
        description="weights of a prior, with or without photo: a run, a file or a pack; left out, the pack's",
    )
    network: UNetSettings | None = Field(
        default=None, description="a layout with fewer channels or blocks at some levels; left out, the prior's own"
    )


class IdentityMaskSettings(DamageTrainingSettings):
    """Training of the mask that says where identity guidance may act (Diffuse and Restore, Sec. 3.2.1)."""

    kind: Literal["pretrain-identity-mask"] = "pretrain-identity-mask"
    features: PositiveInt = Field(default=16, description="channels at full size; twice as many at each half of it")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="of Eq. 8, on the scale of [0, 1]: pixels that the conditioner changed by more"
    )
    start_t: Annotated[int, Field(ge=1, lt=1000)] = Field(
        default=400, description="T' of the sampling; the timesteps of the training lie below"
    )
    conditioner: WeightsName | None = Field(
        default=None, description="weights of the conditioner: a run, a file or PACK/NAME; left out, the pack's"
    )
    prior: WeightsName | None = Field(
        default=None, description="weights of the prior: a run, a file or a pack; left out, the pack's conditional one"
    )
    recognition: Weight = Field(default=1.0, description="weight of the guidance loss of Eq. 7 after the step")
    perceptual: Weight = Field(default=1.0, description="weight of the perceptual distance to the clean image")
    area: Weight = Field(default=0.0, description="weight of the share of pixels that may be moved, so that it is few")
    distance: Distance = Field(default="pack", description="which perceptual distance that weight is for")

    def identity(self) -> dict[str, Any]:
        """The settings without the paths of weights, for which their contents stand."""
        found = super().identity()
        return {key: value for key, value in found.items() if key not in ("conditioner", "prior")}


class PerceptualSettings(TrainingSettings):
    """Pre-training of the pack's perceptual network."""

    kind: Literal["pretrain-perceptual"] = "pretrain-perceptual"
    channels: list[PositiveInt] = Field(description="width of each stage; each halves the resolution of the last")
