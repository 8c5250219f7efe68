"""What every training here shares: a generator per step, EMA, learning-rate curves, and a state that resumes exactly.

Every random number of step s comes from a generator seeded by (seed, s, rank): a resumed run needs no generator
state, and draws what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from adapt.disk import write_atomic
from adapt.errors import TrainingError, UsageError


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The CPU generator of one training step of one process."""
    digest = hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order in which an epoch visits `count` items, as (count,) indices."""
    return torch.randperm(count, generator=step_generator(seed, -1 - epoch))


def batch_indices(seed: int, step: int, *, batch: int, count: int) -> list[int]:
    """Items of one step: epochs of shuffled items laid end to end, so that each is seen equally often."""
    first = step * batch
    orders: dict[int, list[int]] = {}
    chosen: list[int] = []
    for position in range(first, first + batch):
        epoch, index = divmod(position, count)
        if epoch not in orders:
            orders[epoch] = epoch_order(seed, epoch, count).tolist()
        chosen.append(orders[epoch][index])
    return chosen


def cosine(step: int, steps: int, *, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 to `last` at step `steps`."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1)))


def trapezoid(step: int, steps: int, peak: float, *, warmup: int, cooldown: float = 0.2) -> float:
    """Linear warm-up, a plateau, and a linear cool-down to zero over the last share of the steps.

    The plateau does not depend on `steps`, so that a run can be prolonged from a state on the plateau.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (steps - step) / max(1.0, cooldown * steps))
    return peak * min(rise, fall)


class Ema:
    """Exponential moving average of a network's floating tensors.

    The decay warms up as (1 + s) / (10 + s), so that an early average is not of the random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's weights after step `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            shadow = self.shadow[key]
            if shadow.is_floating_point():
                shadow.lerp_(value.to(shadow.dtype), 1 - decay)
            else:
                shadow.copy_(value)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Take over a stored average."""
        for key, value in shadow.items():
            self.shadow[key].copy_(value)


def check_finite(losses: Mapping[str, Tensor], step: int) -> None:
    """Stop at the first loss that is not finite, naming it.

    Raises:
        TrainingError: a loss is NaN or infinite.
    """
    for name, value in losses.items():
        if not bool(torch.isfinite(value).all()):
            raise TrainingError(
                f"step {step}: the {name} loss is {value.detach().float().mean().item():g};"
                " stopped at the last saved state. Lower the learning rate, or the weight of that loss"
            )


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state atomically (tensors, numbers, strings, and containers of them)."""
    write_atomic(path, lambda stream: torch.save(dict(state), stream))


def load_state(path: Path, digest: str) -> dict[str, Any]:
    """Read a training state written with the same settings.

    Raises:
        UsageError: the state belongs to a run with other settings, or is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        belongs = state["digest"] == digest
    except (EOFError, RuntimeError, UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: is damaged, no state of a training; put it back from a copy, or start anew with --overwrite"
        ) from error
    if not belongs:
        raise UsageError(
            f"{path}: this run was started with other settings; use another output folder, or --overwrite to start anew"
        )
    return state
