"""The state a training goes on from, bit for bit, and the check that it is worth storing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from adapt.disk import write_atomic
from adapt.errors import TrainingError, UsageError


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
