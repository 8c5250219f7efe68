"""Where trainings compute: where they are told to, whatever accelerate, its environment and its memory would choose."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState
from command_line import QUICK_FINETUNE, QUICK_TARGETS, adapt
from torch import Tensor, nn

from adapt.devices import join_processes, pick_device, processes
from adapt.weights import read_state

RESTORER = """kind: pretrain-restorer
network: {img_size: 4, embed_dim: 12, depths: [2], num_heads: [2], window_size: 4, sf: 4, num_feat: 8,
  unshuffle: true, unshuffle_scale: 4}
steps: 2
batch: 2
size: 16
learning_rate: 1.0e-3
"""


def forget() -> None:
    """What a process knows of accelerate before the first training: nothing."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _new_process() -> Generator[None]:
    forget()
    yield
    forget()


def whole_way(photos: Path, pack: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """`adapt run`, the way of the demo: the adapted weights."""
    settings = [*(f"targets.{each}" for each in QUICK_TARGETS), *(f"finetune.{each}" for each in QUICK_FINETUNE)]
    assert adapt(monkeypatch, "run", photos, "-o", out, "--pack", pack, "--method", "low-frequency", *settings) == 0
    return last_weights(out / "finetune")


def finetuned(photos: Path, pack: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """`adapt finetune` on photos that are their own targets: the adapted weights."""
    command = ["finetune", "--photos", photos, "--targets", photos, "-o", out, "--pack", pack, *QUICK_FINETUNE]
    assert adapt(monkeypatch, *command) == 0
    return last_weights(out)


def last_weights(run: Path) -> dict[str, Tensor]:
    return torch.load(run / "last" / "state.pt", weights_only=True)["network"]


def pretrained(photos: Path, pack: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """`adapt pretrain` of a restorer: its weights."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(RESTORER)
    command = ["pretrain", "--recipe", recipe, "--faces", photos, "-o", out, "--pack", pack]
    assert adapt(monkeypatch, *command) == 0
    return read_state(out / "weights.safetensors")[0]


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(value.device.type == "cpu" and torch.equal(value, theirs[key]) for key, value in ours.items())


WORK = (whole_way, finetuned, pretrained)


@pytest.fixture(scope="module")
def usual(small_photos: Path, small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """The weights that each leaves where nothing is out of the ordinary."""
    out = tmp_path_factory.mktemp("usual")
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget()
        return [work(small_photos, small_pack, out / work.__name__, monkeypatch) for work in WORK]


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_the_whole_way_is_on_one_device_whatever_accelerate_would_take(
    device: str, usual: list[dict[str, Tensor]], small_photos: Path, small_pack: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """A Mac's GPU is what accelerate takes, and we do not."""
    monkeypatch.setattr(PartialState, "default_device", torch.device(device))
    works = WORK if device == "mps" else WORK[1:]
    for work, weights in zip(works, usual[-len(works) :], strict=True):
        forget()
        assert_same(work(small_photos, small_pack, tmp_path / work.__name__, monkeypatch), weights)


@pytest.mark.parametrize("variable", [
    "ACCELERATE_TORCH_DEVICE=meta", "ACCELERATE_MIXED_PRECISION=fp16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4",
    "ACCELERATE_DYNAMO_BACKEND=EAGER", "ACCELERATE_USE_CPU=", "ACCELERATE_USE_FSDP=true",
])  # fmt: skip
def test_accelerates_variables_change_no_training(
    variable: str, usual: list[dict[str, Tensor]], small_photos: Path, small_pack: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    name, _, value = variable.partition("=")
    monkeypatch.setenv(name, value)
    assert pick_device() == torch.device("cpu")
    for work, weights in zip(WORK[1:], usual[1:], strict=True):
        forget()
        assert_same(work(small_photos, small_pack, tmp_path / work.__name__, monkeypatch), weights)
    assert os.environ[name] == value, "it is there for others"


def test_the_cpu_can_be_wanted_on_a_machine_with_a_gpu(
    usual: list[dict[str, Tensor]], small_photos: Path, small_pack: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    # PyTorch's optimizers ask the GPU itself, which is not there.
    monkeypatch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda optimizer: None)
    assert pick_device() == torch.device("cpu")
    for work, weights in zip(WORK[1:], usual[1:], strict=True):
        forget()
        assert_same(work(small_photos, small_pack, tmp_path / work.__name__, monkeypatch), weights)


@pytest.mark.parametrize("wanted", ["", "1"])
def test_a_process_trains_on_one_device_after_another(wanted: str, monkeypatch: pytest.MonkeyPatch):
    """accelerate remembers the first of its process, and refuses to change it."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", wanted)
    for name in ("cpu", "meta", "cpu", "meta"):
        device = torch.device(name)
        accelerator = join_processes(device)
        assert accelerator.device == processes(device).device == device
        network = nn.Linear(2, 1, device=device)
        prepared, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), 0.1))
        loss = prepared(torch.ones(3, 2, device=device)).sum()
        before = network.weight.detach().clone()
        accelerator.backward(loss)
        optimizer.step()
        assert network.weight.device == device
        assert name == "meta" or torch.allclose(before - network.weight, torch.full((1, 2), 0.3))


def test_two_trainings_in_one_process_are_those_of_two(
    usual: list[dict[str, Tensor]], small_photos: Path, small_pack: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The first where another device is found, as by a session that stays open."""
    join_processes(torch.device("meta"))
    assert_same(pretrained(small_photos, small_pack, tmp_path / "pretrain", monkeypatch), usual[2])
    assert processes(torch.device("meta")).device == torch.device("meta")
    assert_same(finetuned(small_photos, small_pack, tmp_path / "run", monkeypatch), usual[1])


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device() == torch.device("cuda")
    for rank, index in (("0", 0), ("1", 1), ("2", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert pick_device() == torch.device("cuda", index)
    for wanted in ("1", "true", "Yes"):
        monkeypatch.setenv("ACCELERATE_USE_CPU", wanted)
        assert pick_device() == torch.device("cpu")
