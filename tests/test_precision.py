"""Full float32 where results are compared or must not show their batch; what was allowed before comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import lively_codeformer
from torch import Tensor, nn

from adapt.commands.restore import restore
from adapt.devices import full_precision
from adapt.evaluation.compare import evaluate_folder
from adapt.exporting import verify as verifying
from adapt.loading import load_distance, load_restorer
from adapt.packs.pack import load_pack
from adapt.restorers.base import Restorer, build_restorer

CONVOLUTIONS = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
PRODUCTS = torch.backends.cuda.matmul


def allowed() -> tuple[Any, Any]:
    return CONVOLUTIONS.fp32_precision, PRODUCTS.fp32_precision


@pytest.fixture
def seen() -> Generator[list[tuple[Any, Any]]]:
    """What is allowed as each network begins, where a user allows TF32."""
    found: list[tuple[Any, Any]] = []
    before = allowed()
    hook = nn.modules.module.register_module_forward_pre_hook(lambda *_: found.append(allowed()))
    try:
        CONVOLUTIONS.fp32_precision = PRODUCTS.fp32_precision = "tf32"
        yield found
    finally:
        hook.remove()
        CONVOLUTIONS.fp32_precision, PRODUCTS.fp32_precision = before


class Session:
    """Runs the network that the file was made from."""

    def run(self, outputs: None, given: dict[str, Any]) -> list[Any]:
        return list(given.values())


Work = Callable[[Path, Path, Path], object]


def restore_photo(photos: Path, pack: Path, out: Path) -> object:
    return load_restorer(pack)(torch.full((1, 3, 16, 16), 0.5))


def restore_by_codes(photos: Path, pack: Path, out: Path) -> object:
    return build_restorer("x", lively_codeformer().state_dict(), {})(torch.full((1, 3, 16, 16), 0.5), 0.3)


def restore_folder(photos: Path, pack: Path, out: Path) -> object:
    return restore(pack, photos, out, device="cpu")


def evaluate_files(photos: Path, pack: Path, out: Path) -> object:
    return evaluate_folder(photos, truth=photos, distance=load_distance(load_pack(pack)))


def compare_with_the_file(photos: Path, pack: Path, out: Path) -> object:
    return verifying.verify(out, nn.Identity(), [torch.full((1, 3, 16, 16), 0.5)], tolerance=0)


@pytest.mark.parametrize("work", [
    restore_photo, restore_by_codes, restore_folder, evaluate_files, compare_with_the_file,
])
def test_networks_run_in_full_precision(
    work: Work, small_photos: Path, small_pack: Path, tmp_path: Path, seen: list[tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(verifying, "open_session", lambda *_: Session())
    work(small_photos, small_pack, tmp_path / "out")
    assert seen
    assert set(seen) == {("ieee", "ieee")}
    assert allowed() == ("tf32", "tf32"), "as before"


@pytest.mark.usefixtures("seen")
def test_what_was_allowed_comes_back_after_a_failure_too(small_pack: Path):
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

        def forward(self, photo: Tensor) -> Tensor:
            raise RuntimeError(f"with {allowed()}")

    whole = load_restorer(small_pack)
    broken = Restorer(whole.name, whole.architecture, whole.settings, Broken())
    with pytest.raises(RuntimeError, match=r"with \('ieee', 'ieee'\)"):
        broken(torch.full((1, 3, 16, 16), 0.5))
    assert allowed() == ("tf32", "tf32")
    with full_precision(), full_precision():
        assert allowed() == ("ieee", "ieee")
    assert allowed() == ("tf32", "tf32")


# ---------------------------------------------------------------- the switches that a user turned

TURNED: dict[str, str] = {
    "nothing": "pass",
    "the older flag": "torch.backends.cuda.matmul.allow_tf32 = True",
    "the older flag, off": "torch.backends.cuda.matmul.allow_tf32 = False",
    "high": "torch.set_float32_matmul_precision('high')",
    "medium": "torch.set_float32_matmul_precision('medium')",
    "cuDNN's older flag": "torch.backends.cudnn.allow_tf32 = False",
    "the newer one": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "the newer one of all": "torch.backends.fp32_precision = 'tf32'",
    "the newer one of a CPU": "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "the older and the newer": "torch.set_float32_matmul_precision('high')\n"
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'",
}
STATE = """
import json, torch
from adapt.devices import full_precision

def older():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer switches say something else
        return "mixed"

def state():
    b = torch.backends
    return [older(), *(each.fp32_precision for each in (
        b, b.cuda.matmul, b.cudnn, b.cudnn.conv, b.cudnn.rnn, b.mkldnn, b.mkldnn.matmul, b.mkldnn.conv, b.mkldnn.rnn))]

{turned}
before = state()
found = []
for _ in range(2):
    try:
        with full_precision(), full_precision():
            found.append(state())
            # What PyTorch asks before every product on a GPU: it raises where older and newer switches disagree.
            assert torch.backends.cuda.matmul.allow_tf32 is False
            raise KeyError
    except KeyError:
        pass
    assert state() == before, (state(), before)
print(json.dumps(found[-1]))
"""


@pytest.mark.parametrize("name", TURNED)
def test_whatever_a_user_turned_float32_is_exact_within_and_as_before_behind(name: str):
    """In a process of its own: some of PyTorch's switches cannot be turned back by name."""
    script = STATE.replace("{turned}", TURNED[name])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    within = json.loads(done.stdout)
    assert within[0] == "highest"
    assert [within[index] for index in (2, 4, 7, 8)] == ["ieee"] * 4
