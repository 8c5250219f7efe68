"""One kind of damage with its ranges: what every degradation of a chain is, and the ranges degradations are made of.

Degradations are data, so that a recipe can be checked without loading torch: neither this module nor the degradations import it at
the top.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Parameters: TypeAlias = dict[str, Any]
"""What was drawn for one image: numbers, words, and lists of these, as JSON holds them."""

PUBLISHED_SIZE = 512  # pixels; the lengths in the papers, and in recipes, are for images of this side


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"expected a range from low to high, got [{limits[0]:g}, {limits[1]:g}]")
    return limits


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"expected an odd number of pixels, got {size}")
    return size


_Share = Annotated[float, Field(ge=0, le=1)]
_Whole = Annotated[int, Field(ge=0)]
_Quality = Annotated[int, Field(ge=1, le=100)]
_Above = Annotated[float, Field(gt=0)]
_Least = Annotated[float, Field(ge=0)]
_Factor = Annotated[float, Field(ge=1)]

Share: TypeAlias = _Share
Odd: TypeAlias = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Range: TypeAlias = Annotated[tuple[float, float], AfterValidator(_ascending)]
Positive: TypeAlias = Annotated[tuple[_Above, _Above], AfterValidator(_ascending)]
NonNegative: TypeAlias = Annotated[tuple[_Least, _Least], AfterValidator(_ascending)]
Shares: TypeAlias = Annotated[tuple[_Share, _Share], AfterValidator(_ascending)]
Factors: TypeAlias = Annotated[tuple[_Factor, _Factor], AfterValidator(_ascending)]
Counts: TypeAlias = Annotated[tuple[_Whole, _Whole], AfterValidator(_ascending)]
Qualities: TypeAlias = Annotated[tuple[_Quality, _Quality], AfterValidator(_ascending)]


class Degradation(BaseModel):
    """One kind of damage. A subclass has a `name` of its own, a Literal, by which recipes call it.

    A range is [low, high] and uniform. Every number that decides what happens to an image is drawn by `draw` and
    handed to `apply`, which draws nothing: what was logged repeats the damage exactly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Any  # a str; said so here, a type checker would forbid the narrower types of the subclasses
    probability: Share = Field(default=1.0, description="share of images it is applied to")

    def identity(self) -> Parameters:
        """All that its damage follows from, as JSON holds it: the settings, a file's content for its path."""
        return self.model_dump(mode="json")

    def scaled(self, factor: float) -> Self:
        """The same damage for smaller images: lengths in pixels times `factor`, in (0, 1]. Here: has no lengths."""
        del factor
        return self

    @abstractmethod
    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        """One image's parameters, from a generator of this image's and this degradation's own.

        Args:
            generator: on the CPU, freshly seeded.
            shape: height and width of the image.
        """

    @abstractmethod
    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        """The damaged image: (3, H, W) in [0, 1], of the shape, type and device of `image`; draws nothing."""


# ---------------------------------------------------------------- drawing


def fractions(generator: torch.Generator, count: int) -> list[float]:
    """`count` numbers, uniform in [0, 1)."""
    import torch

    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def within(limits: tuple[float, float], fraction: float) -> float:
    """The number that lies so far between the limits."""
    return limits[0] + (limits[1] - limits[0]) * fraction


def whole_within(limits: tuple[int, int], fraction: float) -> int:
    """The whole number, both limits included, that lies so far between them."""
    return min(limits[1], limits[0] + int((limits[1] - limits[0] + 1) * fraction))


def new_seed(generator: torch.Generator) -> int:
    """A seed for a noise field; small enough (53 bits) for every reader of JSON."""
    import torch

    return int(torch.randint(2**53, (1,), generator=generator))


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU, so that an image meets the same noise on every device."""
    import torch

    return torch.Generator().manual_seed(seed)


def stretched(limits: tuple[float, float], factor: float) -> tuple[float, float]:
    """Both ends times `factor`."""
    return limits[0] * factor, limits[1] * factor


def shrinking(limits: tuple[float, float], factor: float) -> tuple[float, float]:
    """A range of downsampling factors for smaller images: times `factor`, but what shrinks never comes to enlarge."""
    low, high = (max(min(limit, 1.0), limit * factor) for limit in limits)
    return low, high


# ---------------------------------------------------------------- several in a row


def degradation_seed(seed: int, index: int) -> int:
    """The seed of the degradation at a place in the chain: the image's own for the first, of seed and place after it."""
    return seed if index == 0 else derived_seed(seed, f"piece {index}")


def derived_seed(seed: int, purpose: str) -> int:
    """Another seed of the same image."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


def draw_all(degradations: Sequence[Degradation], seed: int, shape: tuple[int, int]) -> list[Parameters]:
    """One image's parameters for each degradation, each with the degradation's name; `{"name", "skipped": true}` where left out.

    A degradation added at the end changes nothing for those before it.
    """
    chances = fractions(seeded(derived_seed(seed, "pieces left out")), len(degradations))
    return [
        {"name": degradation.name, **degradation.draw(seeded(degradation_seed(seed, index)), shape)}
        if chance < degradation.probability
        else {"name": degradation.name, "skipped": True}
        for index, (degradation, chance) in enumerate(zip(degradations, chances, strict=True))
    ]


def apply_all(image: Tensor, degradations: Sequence[Degradation], drawn: Sequence[Parameters]) -> Tensor:
    """The degradations in order, each with what was drawn for it, clamped to [0, 1] after each.

    Raises:
        ValueError: the parameters are not those of these degradations.
    """
    names, expected = [str(each.get("name")) for each in drawn], [degradation.name for degradation in degradations]
    if names != expected:
        raise ValueError(
            f"chain: expected parameters of {', '.join(expected) or 'no degradations'}, got {', '.join(names) or 'none'}"
        )
    for degradation, parameters in zip(degradations, drawn, strict=True):
        if not parameters.get("skipped", False):
            image = degradation.apply(image, parameters).clamp(0, 1)
    return image
