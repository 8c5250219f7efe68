"""Weight files: read safely in every wrapping, put into a network with a full report, written as safetensors."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapt.disk import write_atomic
from adapt.errors import WeightsError

WRAPPINGS = ("params_ema", "params", "state_dict", "model")  # in the order in which they are preferred
SHOWN = 5


@dataclass(frozen=True, slots=True)
class KeyReport:
    """How a state dict differs from the network's: names, and for mis-shaped tensors both shapes."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts: list[str] = []
        for title, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("mis-shaped", self.misshapen),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                parts.append(f"{len(names)} {title} ({', '.join(names[:SHOWN])}{more})")
        return "; ".join(parts)


class MismatchError(WeightsError):
    """Weights that are not those of the network; `report` holds every name."""

    def __init__(self, message: str, report: KeyReport) -> None:
        super().__init__(message)
        self.report = report


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a checkpoint: safetensors, or a torch file read with ``weights_only=True``.

    Wrappings (`params_ema`, `params`, `state_dict`, `model`, nested too) are taken off, and a `module.` prefix
    that all names share.

    Returns:
        The tensors by name, and the metadata of a safetensors header ({} for torch files).

    Raises:
        WeightsError: no such file, not a checkpoint, damaged, or one that would run code.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = str(error).split("\n")[0]
        raise WeightsError(
            f"{path}: holds more than tensors and was not opened, because that could run code ({blocked})."
            " Save its state dict alone"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or ["empty"])[0]
        raise WeightsError(f"{path}: not a readable checkpoint ({reason})") from error
    return _unwrapped(loaded, path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error


def _unwrapped(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The innermost state dict of a loaded file."""
    while isinstance(loaded, Mapping):
        wrapping = next((name for name in WRAPPINGS if isinstance(loaded.get(name), Mapping)), None)
        if wrapping is None:
            break
        loaded = loaded[wrapping]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path}: expected a state dict, got a {type(loaded).__name__}")
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{path}: holds no tensors; its keys are {list(loaded)[:SHOWN]}")
    while all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def compare_keys(network: nn.Module, state: Mapping[str, Tensor], ignore: Collection[str] = ()) -> KeyReport:
    """Names and shapes on which a state dict and a network disagree; names ending in one of `ignore` do not count."""
    endings = tuple(ignore)
    own = network.state_dict()

    def counts(key: str) -> bool:
        return not (endings and key.endswith(endings))

    return KeyReport(
        missing=[key for key in own if key not in state and counts(key)],
        unexpected=[key for key in state if key not in own and counts(key)],
        misshapen=[
            f"{key}: expected {tuple(own[key].shape)}, got {tuple(state[key].shape)}"
            for key in own
            if key in state and own[key].shape != state[key].shape and counts(key)
        ],
    )


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], *, source: str, ignore: Collection[str] = ()
) -> None:
    """Put a state dict into a network, all of it or none.

    Args:
        network: takes the weights in its own precision.
        state: tensors by name.
        source: what the weights are, for the message.
        ignore: endings of names that may be missing, left over or of another shape (recomputed buffers).

    Raises:
        MismatchError: a name or shape differs; the message counts, `report` lists all.
        WeightsError: a tensor holds values that are not finite.
    """
    report = compare_keys(network, state, ignore)
    if report:
        raise MismatchError(f"{source}: not the weights of this {type(network).__name__}: {report}", report)
    broken = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(f"{source}: {len(broken)} tensors hold NaN or infinity ({', '.join(broken[:SHOWN])})")
    own = network.state_dict()
    taken = {key: state[key] for key in own if key in state and own[key].shape == state[key].shape}
    network.load_state_dict({**own, **taken})


def write_state(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str], *, half: bool = False) -> None:
    """Write tensors and metadata as safetensors, atomically; `half` stores floating tensors as float16."""
    from safetensors.torch import save

    stored = {
        key: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in state.items()
    }
    write_atomic(path, lambda stream: stream.write(save(stored, dict(metadata))))
