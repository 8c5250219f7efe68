"""How the weights of these networks lie in a file: as their authors rounded them, one byte each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from adapt.errors import WeightsError

HEADER_KEY: Final = "quantised"


def describe(steps: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """The header of a file whose uint8 tensors stand for value * scale + min.

    Args:
        steps: (scale, min) by the tensors' names.
    """
    return {HEADER_KEY: json.dumps({name: list(step) for name, step in steps.items()})}


def restored(name: str, state: Mapping[str, Tensor], header: Mapping[str, str], architecture: str) -> dict[str, Tensor]:
    """The tensors as float32.

    Args:
        name: what the weights are, for the message.
        state: as it was read from a file.
        header: of that file.
        architecture: the only one to accept.

    Raises:
        WeightsError: a file of another architecture, or a uint8 tensor of which the header says nothing.
    """
    if header.get("architecture") != architecture:
        got = header.get("architecture", "nothing")
        raise WeightsError(f"{name}: expected a {architecture} of ours, its header names {got}")
    try:
        steps = {key: (float(scale), float(low)) for key, (scale, low) in json.loads(header[HEADER_KEY]).items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{name}: its header does not say what its bytes stand for; fetch the file again") from error
    told = {key for key, value in state.items() if value.dtype == torch.uint8} - steps.keys()
    if told:
        raise WeightsError(f"{name}: its header does not say what the bytes of {', '.join(sorted(told))} stand for")
    return {
        key: value.float() * steps[key][0] + steps[key][1] if value.dtype == torch.uint8 else value.float()
        for key, value in state.items()
    }
