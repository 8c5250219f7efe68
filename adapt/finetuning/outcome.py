"""How a fine-tuning ended, in numbers and in words, and what the number of photos lets one expect of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from torch import Tensor

from adapt.intervals import Interval
from adapt.settings import TuningSettings

FEWEST_HELD: Final = 4  # the 95 % interval of their mean reaches 1.6 standard deviations to each side; that of 2, 9
FEW: Final = 100  # DT-BFR Table 4: from here on SwinIR gained


class CheckpointSelector(Protocol):
    """What decides which weights are best, in place of their agreement with the targets."""

    def judged(self, count: int) -> Sequence[int]:
        """Which of so many validation photos it asks for, by index."""
        ...

    def begin(self, photos: Tensor, restore: Callable[[Tensor], Tensor]) -> None:
        """Take in those, (N, 3, S, S) in [0, 1], and what restores them at the start."""
        ...

    def gain(self, restore: Callable[[Tensor], Tensor]) -> float:
        """How much better other weights restore; above 0 where they do."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a fine-tuning ended.

    Attributes:
        improved: whether the adapted weights beat those it started from on the validation photos.
        best_step: the step of the weights in `best.safetensors`; 0 means the start.
        base, best: the scores of both, by part.
        gain: by how much the score fell on each validation photo, or None where nothing was gained. It flatters a
            little: the same photos chose the step.
        evidence: the selector's gain of the best weights, where one chose them.
        trained, validation: numbers of photos.
        resized: how many of both were brought to the restorer's size first.
        resized_targets: how many of their targets were.
        enlarged: how many times longer the side of each photo became that was smaller, by id.
        warning: what speaks against trusting it, in a sentence or two; empty where nothing does.
        notes: what else is to be told, each in a sentence: of targets that were left out, of a run made anew.
        main: this process is the one that writes and speaks, where several train together.
    """

    improved: bool
    best_step: int
    base: dict[str, float]
    best: dict[str, float]
    gain: Interval | None
    trained: int
    validation: int
    resized: int
    resized_targets: int
    enlarged: Mapping[str, float] = field(default_factory=dict[str, float])
    warning: str = ""
    notes: tuple[str, ...] = ()
    main: bool = True
    evidence: float | None = None

    @property
    def verdict(self) -> str:
        """One sentence for the user, and where few photos were held back a second."""
        photos = f"{self.validation} validation photo{'' if self.validation == 1 else 's'}"
        few = (
            ""
            if self.validation >= FEWEST_HELD
            else f" The choice between old and new weights rests on {photos} alone: take it as a hint."
        )
        by = "" if self.evidence is None else ", by evidence that does not come from the targets"
        if not self.improved or self.gain is None:
            return (
                f"The adapted model is not better than the one it started from on {photos}{by}; best.safetensors holds"
                f" the old weights.{few}"
            )
        told = [name for name in ("l1", "perceptual", "face_identity") if name in self.base]
        parts = ", ".join(f"{name} {self.base[name]:.4f} -> {self.best[name]:.4f}" for name in told)
        if self.evidence is not None:
            return (
                f"Adapted: step {self.best_step} is the best on {photos}{by} ({self.evidence:+.3f}); its agreement with"
                f" them: {parts}.{few}"
            )
        doubt = "" if self.gain.decided else ", so it may be chance"
        return (
            f"Adapted: step {self.best_step} is the best on {photos} ({parts}); the score"
            f" falls by {self.gain.mean:.4f} ({self.gain.shown('.4f')}{doubt}).{few}"
        )


def few_photos(settings: TuningSettings, photos: int) -> str:
    """A warning where a restorer would learn from too few photos; empty where they are enough.

    A restorer that learns from images over-fits a few (DT-BFR Table 4: SwinIR). One that learns which of the
    codebook's codes to choose does not (Table 9: CodeFormer).

    Args:
        settings: the recipe.
        photos: photos with targets, those held back among them.
    """
    if photos >= FEW or settings.learns_codes:
        return ""
    return (
        f"Only {photos} photos: a restorer that learns from images can over-fit so few, and come out worse in what"
        " the score does not see. DT-BFR's SwinIR did with 20 (FID 74.1 before, 77.1 after) and gained from"
        f" {FEW} on (62.6; Table 4), where its CodeFormer gained with 20 already (53.0 to 46.1; Table 9)."
        " Take more photos, or --recipe codeformer."
    )
