"""Where a training runs and how it is watched: what all trainings are given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from adapt.training.run import Run

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after each step with steps done, steps in all, and the parts of the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContext:
    """What a training is given beside its settings and its data.

    Attributes:
        run: the open run folder; a training goes on where its `last/state.pt` stands.
        device: where to compute, as `adapt.devices.pick_device` says.
        on_step: called after each step.
        max_steps: stop, resumably, after so many steps of this call; `run.stopped` then says where.
        minutes: end after so long a training, over all calls, instead of the recipe's steps: the learning rate and all
            else that goes by them then goes by the clock. Such a run is no other's twin.
        workers: processes that make damaged images ahead, where a training needs some.
    """

    run: Run
    device: torch.device
    on_step: Progress | None = None
    max_steps: int | None = None
    minutes: float | None = None
    workers: int = 0

    def stop(self, first: int, steps: int) -> int:
        """The step before which this call ends, where it begins at `first` of `steps`."""
        return steps if self.max_steps is None else min(steps, first + self.max_steps)


class Clock:
    """How far a training has come: by its steps, or by the time that it has taken.

    Args:
        steps: of the recipe.
        minutes: as `TrainingContext.minutes`.
        spent: seconds that calls before this one took.
    """

    def __init__(self, steps: int, minutes: float | None, spent: float) -> None:
        self._steps, self._minutes = steps, minutes
        self._began = time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds, over all calls."""
        return time.monotonic() - self._began

    def place(self, step: int) -> int:
        """Which of the recipe's steps a step counts as."""
        if self._minutes is None:
            return step
        return min(self._steps, int(self._steps * self.spent / (60 * self._minutes)))

    def total(self, step: int) -> int:
        """How many steps it will have been, as far as that can be told before a step."""
        if self._minutes is None:
            return self._steps
        return max(step + 1, round(step * 60 * self._minutes / max(self.spent, 1e-6)))
