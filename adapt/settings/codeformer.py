"""Settings of pre-training CodeFormer: its three stages, from a codebook to the fusion."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from adapt.settings.base import Distance, Weight
from adapt.settings.damage import BlindSettings
from adapt.settings.networks import PatchDiscriminatorSettings, VQGANSettings
from adapt.settings.paths import WeightsName
from adapt.settings.pretraining import TrainingSettings


class CodebookSettings(TrainingSettings):
    """Pre-training of a codebook: stage I of CodeFormer."""

    kind: Literal["pretrain-codebook"] = "pretrain-codebook"
    start: WeightsName | None = Field(
        default=None, description="weights of a codebook of that layout: a run, a file or PACK; left out, new ones"
    )
    generator_only: bool = Field(
        default=False, description="leave encoder and codes as they are, so that what predicts them stays right"
    )
    network: VQGANSettings
    l1: Weight = 1.0
    perceptual: Weight = 1.0
    distance: Distance = Field(default="pack", description="which perceptual distance that weight is for")
    codebook: Weight = Field(default=1.0, description="pulls codes to what the encoder says")
    commitment: Weight = Field(default=0.25, description="beta: holds what the encoder says to the codes")
    adversarial: Weight = Field(default=0.8, description="times the weight that balances the gradients; 0: no GAN")
    adversarial_from: Annotated[int, Field(ge=0)] = Field(default=0, description="the step at which the GAN begins")
    discriminator: PatchDiscriminatorSettings = PatchDiscriminatorSettings()
    detail: bool = Field(
        default=False, description="let the discriminator see the image less its blur too, as that of restorers does"
    )
    idle: PositiveInt = Field(default=100, description="steps after which a code that none chose is placed anew")
    crop: PositiveInt | None = Field(default=None, description="side of the random crops of the first steps")
    whole_from: Annotated[int, Field(ge=0)] = Field(default=0, description="the step from which no crop is taken")

    @model_validator(mode="after")
    def _sizes_agree(self) -> CodebookSettings:
        if self.size != self.network.img_size:
            raise ValueError(f"size {self.size} is not network.img_size {self.network.img_size}; they must agree")
        if (self.crop is None) != (self.whole_from == 0):
            raise ValueError("crop and whole_from belong together: crops of that side are taken before that step")
        stride = 2 ** (len(self.network.ch_mult) - 1)
        if self.crop is not None and (self.crop > self.size or self.crop % stride):
            raise ValueError(f"crop {self.crop} must be a multiple of {stride} up to size {self.size}")
        if self.generator_only and self.start is None:
            raise ValueError("generator_only: needs a start, whose codes it draws from")
        return self

    def identity(self) -> dict[str, Any]:
        """The settings without the path of weights, for which their content stands."""
        return self.model_dump(mode="json", exclude={"start"})


class CodePredictorSettings(TrainingSettings):
    """Pre-training of CodeFormer's encoder and transformer: stage II."""

    kind: Literal["pretrain-code-predictor"] = "pretrain-code-predictor"
    codebook: WeightsName | None = Field(
        default=None, description="weights of stage I: a run or a file; left out, the pack's codebook"
    )
    dim_embd: PositiveInt = Field(default=512, description="width of the transformer; its MLP is twice as wide")
    n_head: PositiveInt = 8
    n_layers: PositiveInt = 9
    connect_list: list[PositiveInt] = Field(
        default=[32, 64, 128, 256], description="sides of the feature maps on which fidelity acts; stage III trains it"
    )
    adain: bool = Field(default=True, description="give codes the mean and spread of the photo's features")
    feature: Weight = Field(default=1.0, description="of the encoder's distance to the clean face's codes")
    token: PositiveFloat = Field(default=0.5, description="of the cross-entropy on the clean face's codes")
    degradation: BlindSettings = BlindSettings()

    def identity(self) -> dict[str, Any]:
        """The settings without the path of the codebook, for which its content stands."""
        return self.model_dump(mode="json", exclude={"codebook"})


class FusionSettings(TrainingSettings):
    """Pre-training of CodeFormer's controllable feature transformation: stage III."""

    kind: Literal["pretrain-fusion"] = "pretrain-fusion"
    codebook: WeightsName | None = Field(
        default=None, description="weights of stage I: a run or a file; left out, the pack's codebook"
    )
    start: WeightsName | None = Field(
        default=None, description="weights of stage II: a run or a file; left out, the pack's codeformer"
    )
    fidelity: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="w of the images trained on")
    l1: Weight = 1.0
    perceptual: Weight = 1.0
    distance: Distance = Field(default="pack", description="which perceptual distance that weight is for")
    adversarial: Weight = Field(default=0.8, description="times the weight that balances the gradients; 0: no GAN")
    adversarial_from: Annotated[int, Field(ge=0)] = Field(default=0, description="the step at which the GAN begins")
    discriminator: PatchDiscriminatorSettings = PatchDiscriminatorSettings()
    detail: bool = Field(
        default=False, description="let the discriminator see the image less its blur too, as that of restorers does"
    )
    feature: Weight = Field(default=1.0, description="of the encoder's distance to the clean face's codes")
    token: PositiveFloat = Field(default=0.5, description="of the cross-entropy on the clean face's codes")
    degradation: BlindSettings = BlindSettings()

    def identity(self) -> dict[str, Any]:
        """The settings without the paths of weights, for which their contents stand."""
        return self.model_dump(mode="json", exclude={"codebook", "start"})
