"""Weight files: read safely in every wrapping, put into a network with a full report, written as safetensors."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from adapt.disk import write_atomic
from adapt.errors import WeightsError

WRAPPINGS = ("params_ema", "params", "state_dict", "model")  # in the order in which they are preferred
PREFIX = "module."  # of torch's parallel wrappers, round the whole network
COMPILED = "_orig_mod"  # of torch.compile, round the whole network or any part of it
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

    Wrappings (`params_ema`, `params`, `state_dict`, `model`, nested too) are taken off, and from the names what
    torch's own wrappers add, in any order: a `module.` prefix that all of them share, and `_orig_mod` wherever it is.

    What kind of file it is, is read off its first bytes and not its name.

    Returns:
        The tensors by name, and the metadata of a safetensors header ({} for torch files).

    Raises:
        WeightsError: no such file, not a checkpoint, damaged, or one that would run code; it is named, and so is what
            was blocked.
    """
    return parse_state(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The content of a file of weights, to be parsed after its digest is known. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise WeightsError(f"{path}: not enough memory to read its {path.stat().st_size} bytes") from error


def parse_state(data: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a checkpoint of this content holds; the rest as `read_state`, to which it owes the name of the file."""
    head = data[:64]
    if head[4:9] == b"\0\0\0\0{":  # a length in eight bytes, of at most 100 MB, and the header's JSON
        return _parse_safetensors(data, path)
    if not head.startswith((b"PK", b"\x80")):
        what = _taken_for_weights(head)
        raise WeightsError(f"{path}: expected a checkpoint (.pth, .safetensors), got {what}; fetch or choose it again")
    return _unwrapped(_parse_torch(data, path), path), {}


def _taken_for_weights(head: bytes) -> str:
    """What a file is that is no checkpoint, from its first bytes."""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the file it points to"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page"
    return f"a file that starts with {head[:12]!r}"


def _parse_torch(data: bytes, path: Path) -> Any:
    """What a torch file holds, read without running any of it."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
        if not blocked:
            raise WeightsError(f"{path}: damaged, or a pickle that holds more than tensors") from error
        raise WeightsError(
            f"{path}: not opened: to read it, {', '.join(blocked)} would have to be run."
            " Save its state dict alone, tensors and nothing else"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, OSError, tarfile.TarError) as error:
        reason = str(error).split(". ")[0].splitlines() or [type(error).__name__]
        raise WeightsError(f"{path}: damaged, or not a checkpoint ({reason[0]})") from error


def _parse_safetensors(data: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, RecursionError, KeyError) as error:  # KeyError: numbers torch does not know
        raise WeightsError(f"{path}: damaged, or not a safetensors file ({error})") from error
    return _plainly_named(state), dict(header.get("__metadata__") or {})


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
    return _plainly_named(state)


def _plainly_named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that the network itself gives them, whatever of torch's was put round it."""
    names = {key: ".".join(part for part in key.split(".") if part != COMPILED) for key in state}
    while state and all(name.startswith(PREFIX) for name in names.values()):
        names = {key: name.removeprefix(PREFIX) for key, name in names.items()}
    if len({*names.values()}) < len(state):  # two of one name: not what a wrapper made
        return state
    return {names[key]: value for key, value in state.items()}


@contextmanager
def settings_of(name: str, architecture: str) -> Generator[None]:
    """Within it, settings that do not pass, of a file's header or as its shapes tell them, are a WeightsError, and what
    is wrong with the tensors is said of the file."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        said = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise WeightsError(f"{name}: not the layout of a {architecture} ({said})") from error


def header_mapping(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The settings in a file's header where they have no schema; {} where it has none. Raises WeightsError."""
    try:
        found = json.loads(metadata.get("settings", "{}"))
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, and numbers of thousands of digits
        raise WeightsError(f"{name}: the settings in its header are not JSON ({error})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{name}: the settings in its header are a {type(found).__name__}, expected a mapping")
    return found


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


def refuse_not_finite(state: Mapping[str, Tensor], *, source: str) -> None:
    """Raise WeightsError where a tensor holds NaN or infinity."""
    broken = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise WeightsError(f"{source}: {len(broken)} tensors hold NaN or infinity ({', '.join(broken[:SHOWN])}{more})")


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], *, source: str, ignore: Collection[str] = ()
) -> None:
    """Put a state dict into a network, all of it or none.

    Args:
        network: takes the weights in its own precision.
        state: tensors by name.
        source: what the weights are, for the message.
        ignore: endings of names that are left as the network computed them, whatever the state dict says.

    Raises:
        MismatchError: a name or shape differs; the message counts, `report` lists all.
        WeightsError: a tensor holds values that are not finite.
    """
    report = compare_keys(network, state, ignore)
    if report:
        raise MismatchError(f"{source}: not the weights of this {type(network).__name__}: {report}", report)
    refuse_not_finite(state, source=source)
    own = network.state_dict()
    endings = tuple(ignore)
    network.load_state_dict(
        {key: value if endings and key.endswith(endings) else state[key] for key, value in own.items()}
    )


def write_state(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str], *, half: bool = False) -> None:
    """Write tensors and metadata as safetensors, atomically; the same ones are the same bytes.

    Args:
        path: the file.
        state: tensors by name, on any device; views and tensors that share memory are written as copies.
        metadata: goes into the header.
        half: store floating tensors as float16.

    Raises:
        WeightsError: a tensor that is too large for float16.
    """
    from safetensors.torch import save

    stored = {key: _stored(key, value, half=half, path=path) for key, value in state.items()}
    data = _ordered(save(stored, dict(metadata)))
    write_atomic(path, lambda stream: stream.write(data))


def _ordered(data: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names: the library leaves it to a random hash."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _stored(key: str, value: Tensor, *, half: bool, path: Path) -> Tensor:
    """A tensor as it goes into the file: contiguous, on the CPU, and with memory of its own."""
    value = value.detach().cpu()
    if not (half and value.is_floating_point()):
        return value.clone(memory_format=torch.contiguous_format)
    largest = torch.finfo(torch.float16).max
    if value.numel() and value.abs().max() > largest:
        raise WeightsError(f"{path}: {key} holds values above {largest:g}, too large for half precision")
    return value.to(torch.float16, memory_format=torch.contiguous_format, copy=True)
