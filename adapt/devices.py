"""Where to compute, how precisely, and in how many processes: decided here, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from adapt.errors import UsageError

if TYPE_CHECKING:
    from accelerate import PartialState


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: `auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: cannot be used here ({reason}); try auto or cpu") from error
    return device


def processes() -> PartialState:
    """The processes that a launcher started to train together, and which of them this one is; most often it is alone.

    Without it accelerate takes the processes of `torchrun` on a machine without GPU for strangers to each other.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = "LOCAL_RANK" in os.environ and not torch.cuda.is_available()
    return PartialState(cpu=cpu or bool(parse_flag_from_env("ACCELERATE_USE_CPU")))


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
