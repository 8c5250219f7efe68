"""Where to compute, how precisely, and in how many processes: decided here, and nowhere else.

accelerate, which joins the processes of one training, has an opinion of its own on the first two; it is told, never
asked. Otherwise a training would mix tensors of two devices wherever both disagree: on a Mac, whose GPU accelerate
takes by itself, or where ACCELERATE_USE_CPU is set on a machine with a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from adapt.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState
    from torch import Tensor


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        name: a device of PyTorch's, or `auto`: CUDA where there is one and ACCELERATE_USE_CPU is not set, of several
            processes each its own, else the CPU.

    Raises:
        UsageError: a device that is not there.
    """
    if name == "auto":
        return _own_gpu() if torch.cuda.is_available() and not _cpu_is_wanted() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: cannot be used here ({reason}); try auto or cpu") from error
    return device


def _own_gpu() -> torch.device:
    rank = os.environ.get("LOCAL_RANK", "")
    return torch.device("cuda", int(rank) % torch.cuda.device_count()) if rank.isdigit() else torch.device("cuda")


def _cpu_is_wanted() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t")


def trains_in_half(device: torch.device) -> bool:
    """Whether networks are trained there in bfloat16: on CUDA. Weights, averages and scores are float32 anywhere."""
    return device.type == "cuda"


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Within it a training computes in bfloat16 where that is done on this device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=trains_in_half(device))


def as_float32(output: Any) -> Any:
    """What a network gave, tensors in tuples and dictionaries too, with every half-precision tensor as float32."""
    from accelerate.utils.operations import convert_to_fp32

    return convert_to_fp32(output)


def processes(device: torch.device | None = None) -> PartialState:
    """The processes that a launcher started to train together, and which of them this one is; most often it is alone.

    Without it accelerate takes the processes of `torchrun` on a machine without GPU for strangers to each other.

    Args:
        device: where this one computes; as `pick_device` says where None.
    """
    from accelerate import PartialState

    device = pick_device() if device is None else device
    with _unasked():
        together = PartialState(cpu=device.type == "cpu")
    together.device = device
    return together


def join_processes(device: torch.device, *, resting: bool = False) -> Accelerator:
    """accelerate for a training on this device, in float32: `autocast` decides what is computed in less.

    Args:
        device: where this process computes; what is prepared must be there already.
        resting: in some steps a part of the network has no share in the loss, which several processes must expect.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    class Told(Accelerator):
        """Asks the environment nothing when it prepares networks and optimizers, either."""

        def prepare(self, *parts: Any, device_placement: list[bool] | None = None) -> Any:
            with _unasked():
                return super().prepare(*parts, device_placement=device_placement)

    processes(device)
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=resting)
    with _unasked():
        return Told(mixed_precision="no", device_placement=False, kwargs_handlers=[kwargs])


@contextmanager
def _unasked() -> Generator[None]:
    """Within it accelerate's own variables are not there.

    They would choose the device, the precision, how many steps share an update, what is compiled; and one that says
    what accelerate does not understand, or what a process has not begun with, would stop a training. The processes
    find each other by those of `torchrun`.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("ACCELERATE_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def within_memory(work: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """What `work` makes of a batch (B, ...), in one go, or in halves where the device runs out of memory.

    Raises:
        torch.OutOfMemoryError: one alone is too much.
    """
    try:
        return work(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return torch.cat([within_memory(work, batch[:half]), within_memory(work, batch[half:])])


@contextmanager
def full_precision() -> Generator[None]:
    """Within it a CUDA device computes float32 as float32; what was allowed before is allowed again afterwards.

    PyTorch lets cuDNN round what goes into a convolution to TF32, 10 bits of mantissa, unless it is told otherwise. A
    convolution of another batch size may be another algorithm, and what two of them then disagree on is no last bit
    any more. A CPU has no TF32.
    """
    convolutions = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    products = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    try:
        convolutions.fp32_precision = products.fp32_precision = "ieee"
        yield
    finally:
        convolutions.fp32_precision, products.fp32_precision = before
