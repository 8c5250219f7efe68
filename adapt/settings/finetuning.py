"""Settings of fine-tuning: of any restorer by images, of a CodeFormer by its codes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from adapt.settings.base import Distance, Settings, Weight
from adapt.settings.networks import PatchDiscriminatorSettings
from adapt.settings.paths import RecipeName, weights_path


class DiscriminatorSettings(Settings):
    """The U-Net discriminator with spectral norm (FACTS: num_feat 64)."""

    kind: Literal["unet"] = "unet"
    features: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-5


class PatchAdversarySettings(PatchDiscriminatorSettings):
    """A discriminator of patches and of their fine detail, with the hinge loss: it learns within a hundred steps."""

    kind: Literal["patch"] = "patch"
    features: PositiveInt = Field(default=32, description="width of the first layer; each doubles it, up to 8 times")
    layers: PositiveInt = Field(default=2, description="layers that halve the size; it judges patches of 34 px by 2")
    learning_rate: PositiveFloat = 4e-4
    first_steps: Annotated[int, Field(ge=0)] = Field(
        default=60, description="of its own, on targets and what the restorer makes of photos before it learns"
    )
    pretrained: bool = Field(
        default=False,
        description="begin with the pack's discriminator, which learned beside its restorer: a sharp restorer gets soft"
        " before a new one has learned",
    )
    balance: bool = Field(
        default=False,
        description="let `adversarial` be the share, at the restorer's last layer, of the pull of the other losses on"
        " images (VQGAN's Eq. 7), at most the weight itself",
    )


class ReplaySettings(Settings):
    """Source replay: pairs of clean faces, damaged as the restorer's first training did, among those of the batches."""

    share: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.25, description="of the pairs of a batch, on average")
    degradation: RecipeName = Field(default="blind", description="name or file of the recipe of damage")


class TuningSettings(Settings):
    """What every fine-tuning shares; the losses are those on images, DT-BFR Eq. (6)-(8)."""

    steps: PositiveInt
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-5
    final_learning_rate: PositiveFloat = Field(
        default=5e-6, description="end of the cosine; the discriminator's is constant"
    )
    weight_decay: Weight = 0.0
    l1: Weight = 1.0
    perceptual: Weight = Field(default=0.1, description="weight of the mean perceptual distance")
    distance: Distance = Field(default="pack", description="which perceptual distance that weight is for")
    adversarial: Weight = 0.1
    discriminator: Annotated[DiscriminatorSettings | PatchAdversarySettings, Field(discriminator="kind")] = (
        DiscriminatorSettings()
    )
    face_identity: Weight = Field(
        default=0.0, description="of the distance that a recogniser finds between the faces of output and target"
    )
    consistency: Weight = Field(
        default=0.0, description="of the low frequencies in which output and photo differ under the photo's own blur"
    )
    consistency_std: PositiveFloat | None = Field(
        default=None,
        description="that blur, in pixels, of photos whose targets tell none; left out, such photos are refused",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.999, description="decay per step; 0 switches it off")
    flips: bool = Field(default=True, description="mirror half of the pairs")
    transplant: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="share of the pairs whose photo is their target under another photo's damage"
    )
    replay: ReplaySettings | None = Field(
        default=None, description="mix in pairs of clean faces, from the folder of --replay; left out, none"
    )
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of photos kept back for `best`; at least 4, but no more than a third"
    )
    evaluate_every: PositiveInt = Field(
        default=500, description="steps between evaluations, checkpoints and sample sheets"
    )
    seed: Annotated[int, Field(ge=0)] = 0

    def identity(self) -> dict[str, Any]:
        """The settings without the name of the replay's damage, for which the content of its recipe stands."""
        found = super().identity()
        if self.replay is not None:
            found["replay"] = self.replay.model_dump(mode="json", exclude={"degradation"})
        return found

    @property
    def learns_codes(self) -> bool:
        """Whether what is learnt is the choice of codes, and not what an image looks like."""
        return False

    @property
    def looks_at_images(self) -> bool:
        """Whether any loss does."""
        return bool(self.l1 or self.perceptual or self.face_identity or self.consistency or self.adversarial)

    @property
    def balanced(self) -> bool:
        """Whether the discriminator's weight follows the other losses."""
        return bool(self.adversarial) and self.discriminator.kind == "patch" and self.discriminator.balance

    @field_validator("discriminator", mode="before")
    @classmethod
    def _papers_where_none_is_named(cls, given: Any) -> Any:
        """A recipe that names no kind means the papers', the U-Net."""
        return {"kind": "unet", **cast(dict[str, Any], given)} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _what_belongs_together_is_there(self) -> TuningSettings:
        if self.consistency_std is not None and not self.consistency:
            raise ValueError("consistency_std: is for `consistency`, which has no weight; give it one, or drop this")
        if self.balanced and not (self.l1 or self.perceptual or self.face_identity or self.consistency):
            raise ValueError("discriminator.balance: needs another loss on images to be weighed against, as l1")
        return self


class FinetuneSettings(TuningSettings):
    """Fine-tuning of any restorer on (photo, pseudo-target) pairs: DT-BFR Eq. (6)-(8)."""

    kind: Literal["finetune"] = "finetune"
    objective: Literal["image"] = "image"
    student: str = Field(
        default="restorer",
        description="what is fine-tuned where no restorer is named: `restorer`, the pack's own, or its entry of that"
        " name, which the targets come from too; where it has no `onestep`, its prior as one, and where it has no"
        " `swinir`, its own restorer",
    )

    def identity(self) -> dict[str, Any]:
        """The settings without the student, for which the digest of its weights stands."""
        found = super().identity()
        del found["student"]
        return found


class CodeFinetuneSettings(TuningSettings):
    """Fine-tuning of a CodeFormer by its codes: DT-BFR Eq. (13), App. C.2; rate, batch, EMA of the public code."""

    kind: Literal["finetune-codes"] = "finetune-codes"
    objective: Literal["codes"] = "codes"
    batch: PositiveInt = 8
    learning_rate: PositiveFloat = 1e-4
    final_learning_rate: PositiveFloat = Field(default=2.5e-5, description="end of the cosine")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.995, description="decay per step; 0 switches it off")
    feature: Weight = Field(default=1.0, description="of the encoder's distance to the target's codes")
    token: Weight = Field(default=0.5, description="lambda_token: of the cross-entropy on the target's codes")
    trains: list[Literal["encoder", "transformer", "fusion"]] = Field(
        default=["encoder", "transformer"], min_length=1, description="parts that learn (Table 5); the rest is frozen"
    )
    teacher: str = Field(
        default="codebook",
        description="whose encoder gives the target's codes: `codebook`, the pack's VQGAN, as in the paper; `restorer`,"
        " the frozen CodeFormer's own, as in the public code; or a VQGAN's file",
    )
    l1: Weight = Field(default=0.0, description="of the image at `fidelity`; like the next two, it trains the fusion")
    perceptual: Weight = 0.0
    adversarial: Weight = 0.0
    fidelity: Annotated[float, Field(ge=0, le=1)] = Field(default=1.0, description="w of the images trained on")

    @property
    def learns_codes(self) -> bool:
        """Whether what is learnt is the choice of codes, and not what an image looks like."""
        return True

    def identity(self) -> dict[str, Any]:
        """The settings without the path of a teacher, for which the content of its file stands."""
        named = self.teacher if self.teacher in ("codebook", "restorer") else "a file"
        return {**super().identity(), "teacher": named}

    @field_validator("teacher")
    @classmethod
    def _there(cls, teacher: str, info: ValidationInfo) -> str:
        return teacher if teacher in ("codebook", "restorer") else weights_path(teacher, info)

    @model_validator(mode="after")
    def _losses_have_what_they_train(self) -> CodeFinetuneSettings:
        images = self.looks_at_images
        if images != ("fusion" in self.trains) or (images and not self.fidelity):
            raise ValueError(
                "losses on images (l1, perceptual, face_identity, consistency, adversarial) train the fusion at a"
                " fidelity above 0, and nothing else does: name fusion in trains and give one of them a weight, or"
                " neither"
            )
        if not (self.feature or self.token) and set(self.trains) != {"fusion"}:
            raise ValueError("feature and token: one needs a weight, to train the encoder or the transformer")
        if not self.token and "transformer" in self.trains:
            raise ValueError("token: the transformer learns from nothing else, so it needs a weight")
        return self
