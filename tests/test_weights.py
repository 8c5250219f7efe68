"""Checkpoint files as torch's own wrappers leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adapt.weights import load_weights, read_state


class Parallel(nn.Module):
    """What DataParallel and DistributedDataParallel do to the names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def network() -> nn.Sequential:
    """Parts of parts, one of them named as the wrappers name theirs."""
    inner = nn.Module()
    inner.module = nn.Linear(2, 3)
    return nn.Sequential(nn.Linear(1, 2), nn.Sequential(inner, nn.Linear(3, 1)))


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")  # pyright: ignore[reportReturnType]


def a_part_compiled(module: nn.Module) -> nn.Module:
    assert isinstance(module, nn.Sequential)
    module[1] = compiled(module[1])
    return module


WRAPPERS: dict[str, list[Callable[[nn.Module], nn.Module]]] = {
    "none": [],
    "compiled": [compiled],
    "parallel": [Parallel],
    "compiled, then parallel": [compiled, Parallel],
    "parallel, then compiled": [Parallel, compiled],
    "all of them twice": [compiled, Parallel, Parallel, compiled],
    "a part compiled": [a_part_compiled],
    "a part compiled, all compiled, parallel": [a_part_compiled, compiled, Parallel],
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "state_dict"])
def test_names_are_those_of_the_network_in_any_wrapper(name: str, suffix: str, tmp_path: Path):
    plain = network()
    expected = {key: value.clone() for key, value in plain.state_dict().items()}
    wrapped: nn.Module = plain
    for wrap in WRAPPERS[name]:
        wrapped = wrap(wrapped)
    state = dict(wrapped.state_dict())
    path = tmp_path / f"x.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if suffix == "state_dict" else state, path)
    found, _ = read_state(path)
    assert list(found) == list(expected) or (suffix == "safetensors" and set(found) == set(expected))
    fresh = network()
    load_weights(fresh, found, source="x")
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in expected.items())


def test_names_that_would_become_one_stay_two(tmp_path: Path):
    torch.save({"_orig_mod.a": torch.zeros(1), "a": torch.ones(1)}, tmp_path / "x.pth")
    assert set(read_state(tmp_path / "x.pth")[0]) == {"_orig_mod.a", "a"}
