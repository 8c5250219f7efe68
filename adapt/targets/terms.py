"""Guidance terms by the name that a recipe gives them: settings and a photo's blur level to what the loop applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from adapt.blur.parts import BlurParts
from adapt.diffusion.sampler import AnyTerm
from adapt.faces.recogniser import FaceIdentifier
from adapt.guidance.gaussian_blur import GaussianBlur
from adapt.guidance.identity import Identity
from adapt.guidance.low_frequency import LowFrequency, factor_for
from adapt.guidance.mask import IdentityMask
from adapt.settings import GaussianBlurSettings, IdentitySettings, LowFrequencySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TermInputs:
    """What a term may be made of, beside its settings.

    Attributes:
        std: the photo's blur level in pixels, its blurriest region's; None where the recipe asks for none.
        size: height and width of the images.
        parts: what the pack knows of blur.
        own_start: whether each photo has a start step of its own.
        recogniser: tells people apart; None where the recipe asks for none.
        mask: has learned where the person is; the same.
    """

    std: float | None
    size: tuple[int, int]
    parts: BlurParts
    own_start: bool
    recogniser: FaceIdentifier | None = None
    mask: IdentityMask | None = None

    @property
    def known_std(self) -> float:
        """The blur level, where `adapt.targets.methods.target_maker` made sure that there is one."""
        assert self.std is not None
        return self.std


def low_frequency(settings: LowFrequencySettings, inputs: TermInputs) -> LowFrequency:
    """The low-frequency constraint, its factor by the photo's blur where the recipe has none."""
    factor = settings.factor or factor_for(inputs.known_std, inputs.size)
    return LowFrequency(factor=factor, last_t=settings.last_t, acts_on=settings.acts_on)


def gaussian_blur(settings: GaussianBlurSettings, inputs: TermInputs) -> GaussianBlur:
    """Guidance by Gaussian blurs; where photos start by their own table, so do its guidances (Algorithm 3)."""
    table = inputs.parts.start_steps if inputs.own_start else None
    return GaussianBlur(
        weights=tuple(settings.weights),
        scale=settings.scale,
        std_rate=settings.std_rate,
        through_network=settings.gradient == "network",
        limit=settings.limit,
        regions=settings.regions,
        start_t=table.start_t if table is not None else None,
        adjuster=inputs.parts.adjuster if settings.adjuster else None,
    )


def identity(settings: IdentitySettings, inputs: TermInputs) -> Identity:
    """Guidance towards the person whom the restored photo shows."""
    assert inputs.recogniser is not None  # `target_maker` made sure of it
    return Identity(
        recogniser=inputs.recogniser,
        scale=settings.scale,
        first_t=settings.first_t,
        last_t=settings.last_t,
        mask=inputs.mask if settings.mask == "learned" else settings.mask,
        through_network=settings.gradient == "network",
        limit=settings.limit,
        most=settings.most,
    )


TERMS: Final[dict[str, Callable[[Any, TermInputs], AnyTerm]]] = {
    "low_frequency": low_frequency,
    "gaussian_blur": gaussian_blur,
    "identity": identity,
}
