"""Settings of pseudo-targets: the terms that guide, the method that draws, the gate that refuses."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from adapt.settings.base import Settings, Timestep, Weight


class TermSettings(Settings):
    """What is asked of every guidance term's settings."""

    @property
    def needs_blur(self) -> bool:
        """Whether it needs the photo's blur level."""
        return False

    @property
    def needs_adjuster(self) -> bool:
        """Whether it needs the guidance adjuster."""
        return False

    @property
    def needs_recogniser(self) -> bool:
        """Whether it needs what tells people apart."""
        return False

    @property
    def needs_mask(self) -> bool:
        """Whether it needs what has learned where the person is."""
        return False

    @property
    def blur_regions(self) -> int:
        """Windows along a side with a blur level of their own."""
        return 1


class LowFrequencySettings(TermSettings):
    """The low-frequency constraint of DT-BFR, Algorithm 1."""

    name: Literal["low_frequency"] = "low_frequency"
    factor: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="N: the low-pass filter downsamples by this factor, and up again; left out, each photo has its own,"
        " by its blur",
    )
    last_t: Timestep = Field(description="L: the constraint acts while t is above this timestep")
    acts_on: Literal["sample", "x0"] = Field(
        default="sample", description="sample: after each step, freshly noised, as in the paper; x0: on the prediction"
    )

    @property
    def needs_blur(self) -> bool:
        """Where N is each photo's own."""
        return self.factor is None


class GaussianBlurSettings(TermSettings):
    """Guidance by Gaussian blurs: DynFaceRestore, Algorithms 1 and 3."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    weights: list[PositiveFloat] = Field(
        default=[1.0], min_length=1, max_length=4, description="lambda of one to four guidances (Table 7)"
    )
    scale: PositiveFloat = Field(default=1.0, description="s of the step along the gradient")
    std_rate: Weight = Field(default=1.0, description="s of the step that refines the std; 0 leaves it as estimated")
    gradient: Literal["network", "x0"] = Field(
        default="network", description="network: with respect to x_t, a backward pass; x0: cheaper, at the prediction"
    )
    limit: bool = Field(default=True, description="no step goes further than where a linear guidance_loss would vanish")
    adjuster: bool = Field(default=False, description="scale each pixel's gradient by the guidance adjuster's map")
    regions: PositiveInt = Field(default=1, description="windows along a side with a blur level of their own")

    @property
    def needs_blur(self) -> bool:
        """Always."""
        return True

    @property
    def needs_adjuster(self) -> bool:
        """As set."""
        return self.adjuster

    @property
    def blur_regions(self) -> int:
        """As set."""
        return self.regions


class IdentitySettings(TermSettings):
    """Identity guidance: Diffuse and Restore, Sec. 3.2."""

    name: Literal["identity"] = "identity"
    scale: PositiveFloat = Field(
        default=0.25, description="how strongly, in proportion up to 0.25 where limit is on; the same at every timestep"
    )
    first_t: Timestep = Field(default=999, description="it acts from this timestep ...")
    last_t: Timestep = Field(default=0, description="... down to above this one")
    mask: Annotated[float, Field(gt=0, lt=1)] | Literal["learned"] | None = Field(
        default=None,
        description="delta of Eq. 8: it moves pixels that the restorer changed by more; learned: those that the pack's"
        " identity-mask names; left out, all",
    )
    gradient: Literal["network", "x0"] = Field(
        default="network", description="network: with respect to x_t, a backward pass; x0: cheaper, at the prediction"
    )
    limit: bool = Field(default=True, description="no step goes further than where a linear guidance_loss would vanish")
    most: PositiveFloat = Field(
        default=0.05, description="root mean square of what a step may move the clean image by, in [-1, 1]"
    )

    @property
    def needs_recogniser(self) -> bool:
        """Always."""
        return True

    @property
    def needs_mask(self) -> bool:
        """Where it may act on what the pack's network names alone."""
        return self.mask == "learned"


class FallbackSettings(Settings):
    """When a photo is worse for having been restored, and is sampled towards as it is: DT-BFR App. F."""

    max_low_frequency_change: PositiveFloat = Field(
        default=0.08, description="mean absolute difference of photo and restored photo at 16 x 16, in [0, 1]"
    )
    change_ratio: PositiveFloat = Field(
        default=1.12,
        description="how much more of a photo's coarse structure the prior may change than of the restored one's, where"
        " it finds no less detail in the photo",
    )


class ReliabilitySettings(Settings):
    """How much blur the prior asks for of a restored photo that is no face to it; the line is one prior's own."""

    floor: Weight = Field(description="the prior's change of coarse structure, in [0, 1], from which it is doubted")
    slope: PositiveFloat = Field(description="std that each unit above it asks for, in pixels at 512")


class PhotoShareSettings(Settings):
    """How much of the photo stays in what its target is drawn towards: `adapt.targets.photo_share`. What no filter of
    the restored photo explains of the photo decides; the limits are one restorer's."""

    most: Annotated[float, Field(gt=0, le=1)] = Field(description="share of a photo that is damaged least")
    lightness: tuple[PositiveFloat, PositiveFloat] = Field(
        description="fine detail of lightness that stays unexplained, over the restored photo's coarse structure: all"
        " of the share below the first, nothing above the second"
    )
    colour: tuple[PositiveFloat, PositiveFloat] = Field(description="the same of colours in coarse structure")

    @model_validator(mode="after")
    def _lines_fall(self) -> PhotoShareSettings:
        for key, (all_below, none_above) in (("lightness", self.lightness), ("colour", self.colour)):
            if all_below >= none_above:
                raise ValueError(f"{key}: expected two rising limits, got {all_below} and {none_above}")
        return self


class RestraintSettings(Settings):
    """How late a photo may start, by how much more of it than of its restoration the prior would change. A restorer
    that brought it little nearer to a face had little damage before it; the ratios are one prior's."""

    ratio: list[PositiveFloat] = Field(min_length=1, description="how much more, rising: below the first ...")
    latest_t: list[Timestep] = Field(
        min_length=1, description="... a photo starts no later than this timestep; 0: what is restored is the target"
    )

    def latest(self, ratio: float) -> int | None:
        """The latest start step where the prior would change so much more; None where there is no such."""
        return next((t for limit, t in zip(self.ratio, self.latest_t, strict=True) if ratio < limit), None)

    @model_validator(mode="after")
    def _steps_rise(self) -> RestraintSettings:
        rise = all(a < b for each in (self.ratio, self.latest_t) for a, b in itertools.pairwise(each))
        if not rise or len(self.ratio) != len(self.latest_t):
            raise ValueError(
                f"ratio, latest_t: expected as many of both, rising, got {self.ratio} and {self.latest_t}"
            )
        return self


class LikenessSettings(Settings):
    """What a target must have kept of its photo, by `adapt.targets.likeness`; each limit can be left out."""

    max_identity: PositiveFloat | None = Field(
        default=None,
        description="largest distance of embeddings from restored photo or photo, the nearer, over that from which a"
        " face is somebody else's by the recogniser there is",
    )
    max_landmarks: PositiveFloat | None = Field(
        default=None, description="largest mean distance of the 68 points, in shares of the eye distance"
    )
    max_departure: PositiveFloat | None = Field(
        default=None, description="by how much farther from the photo, at its own blur, than the restored one is"
    )
    max_region_change: PositiveFloat | None = Field(
        default=None, description="largest change of one of 16 x 16 blocks at the photo's own blur, in [0, 1]"
    )
    max_colour_shift: PositiveFloat | None = Field(
        default=None, description="largest change of the mean of red, green or blue, in [0, 1]"
    )
    min_sharpness: PositiveFloat | None = Field(
        default=None, description="least fine detail, over that of the restored photo"
    )
    believed_to: PositiveFloat | None = Field(
        default=None,
        description="blur in pixels at 512: where photo and restored photo agree under more alone, they say nothing of"
        " what a target kept, and none of these is asked; left out, always",
    )


class GateSettings(Settings):
    """Which targets are good enough to train on."""

    max_low_frequency_change: PositiveFloat = Field(
        default=0.08,
        description="largest mean absolute difference of target and restored photo at 16 x 16, in [0, 1]",
    )
    min_contrast: Annotated[float, Field(ge=0)] = Field(
        default=0.02, description="smallest standard deviation of a target: below it the image is flat"
    )
    likeness: LikenessSettings | None = Field(
        default=None, description="what must be kept of person, scene and light; left out, nothing is asked"
    )
    redraws: Annotated[int, Field(ge=0, le=10)] = Field(
        default=0,
        description="how often a refused target is drawn again: first with other noise, then from half the start step"
        " each time",
    )


class TargetSettings(Settings):
    """How pseudo-targets are drawn. What is left out where the pack can tell is chosen for each photo by its blur."""

    kind: Literal["targets"] = "targets"
    method: str = Field(default="own", description="what the reader calls it; the list of terms decides")
    start_t: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="K: the photo is noised to this timestep; left out, each photo to its own of the start-step table",
    )
    prior: Literal["prior", "conditional-prior"] = Field(
        default="prior", description="which of the pack's: the one of faces alone, or the one that sees the photo too"
    )
    restorer: str | None = Field(
        default=None,
        description="which of the pack's networks restores where no other restorer is named; left out, its default",
    )
    guidance: list[
        Annotated[LowFrequencySettings | GaussianBlurSettings | IdentitySettings, Field(discriminator="name")]
    ] = Field(
        description="terms, applied in this order"
    )
    end_t: Annotated[int, Field(ge=0, le=998)] = Field(
        default=0, description="timestep of the last evaluation, whose clean image is the target; 0 is all the way"
    )
    steps: Annotated[int, Field(gt=0, le=1000)] = Field(
        description="network evaluations from start_t down to end_t; without a start_t, from 999, and each photo takes"
        " the share that lies below its own"
    )
    solver: Literal["ddpm", "ddim", "dpm++2m"] = "ddpm"
    eta: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=0.0, description="noise of DDIM: 0 none, 1 as ancestral; null: a tenth of each photo's std at 512 px"
    )
    fallback: FallbackSettings | None = Field(
        default=None, description="when to sample towards the photo itself; left out, never"
    )
    reliability: ReliabilitySettings | None = Field(
        default=None, description="how the prior widens the blur level of a photo restored badly; left out, never"
    )
    photo_share: PhotoShareSettings | None = Field(
        default=None, description="how much of the photo stays in what a target is drawn towards; left out, nothing"
    )
    restraint: RestraintSettings | None = Field(
        default=None, description="how late a photo may start that was damaged little; left out, as its blur says"
    )
    mean_of: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1, description="a target is the mean of so many draws: what they agree on stays, what one invents fades"
    )
    mirrored: bool = Field(
        default=False, description="restore each photo and its mirror image, and take the mean of both; twice the work"
    )
    match_mean_luminance: bool = Field(
        default=False, description="give each restored image its photo's mean light first; not with compat"
    )
    light_by_noise: PositiveFloat | None = Field(
        default=None, description="... only of photos with so much noise in colours (photo_share has it); left out, all"
    )
    draws: PositiveInt = Field(
        default=1, description="targets of each photo, of different noise; fine-tuning sees another one at each step"
    )
    seed: Annotated[int, Field(ge=0)] = 0
    batch: PositiveInt = Field(default=8, description="targets at a time on a GPU; halved when memory runs out")
    gate: GateSettings = GateSettings()
    compat: Literal["none", "dt-bfr"] = Field(default="none", description="dt-bfr: the public code's steps exactly")

    @property
    def needs_blur(self) -> bool:
        """Whether anything is chosen by a photo's blur level."""
        chosen = self.start_t is None or self.eta is None or self.fallback is not None or self.reliability is not None
        return chosen or any(term.needs_blur for term in self.guidance)

    @property
    def needs_ratio(self) -> bool:
        """Whether anything depends on how much more of a photo than of its restoration the prior would change."""
        return self.restraint is not None

    @property
    def needs_score(self) -> bool:
        """Whether anything depends on what the prior would change."""
        return self.needs_ratio or self.fallback is not None or self.reliability is not None

    @property
    def needs_recogniser(self) -> bool:
        """Whether a term asks for what tells people apart."""
        return any(term.needs_recogniser for term in self.guidance)

    @property
    def needs_mask(self) -> bool:
        """Whether a term asks for the mask that says where the person is."""
        return any(term.needs_mask for term in self.guidance)

    @property
    def has_maps(self) -> bool:
        """Whether a term acts here more and there less, by the guidance adjuster or a mask."""
        return any(term.needs_adjuster or (term.name == "identity" and term.mask) for term in self.guidance)

    @property
    def needs_adjuster(self) -> bool:
        """Whether a term asks for the guidance adjuster."""
        return any(term.needs_adjuster for term in self.guidance)

    @property
    def regions(self) -> int:
        """Windows along a side of which the blur level is asked for; 1 is the whole image."""
        return max((term.blur_regions for term in self.guidance), default=1)

    @model_validator(mode="after")
    def _regions_agree(self) -> TargetSettings:
        asked = {term.blur_regions for term in self.guidance if term.needs_blur} - {1}
        if len(asked) > 1:
            raise ValueError(f"guidance: terms ask for blur levels of {sorted(asked)} windows along a side; take one")
        return self
