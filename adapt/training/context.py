"""Where a training runs and how it is watched: what all trainings are given."""

from __future__ import annotations

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
    """

    run: Run
    device: torch.device
    on_step: Progress | None = None
    max_steps: int | None = None

    def stop(self, first: int, steps: int) -> int:
        """The step before which this call ends, where it begins at `first` of `steps`."""
        return steps if self.max_steps is None else min(steps, first + self.max_steps)
