"""Full float32 where results are to be the same however they are batched."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

EXACT: Final = "highest"  # what PyTorch's older switch calls full float32; the newer ones say "ieee"


@contextmanager
def full_precision() -> Generator[None]:
    """Within it float32 is computed as float32; what was allowed before is allowed again afterwards.

    PyTorch lets cuDNN round what goes into a convolution to TF32, 10 bits of mantissa, unless it is told otherwise. A
    convolution of another batch size may be another algorithm, and what two of them then disagree on is no last bit
    any more. A CPU has no TF32, but may be allowed bfloat16.

    It has switches of two ages. Where a user has turned the older one (`torch.backends.cuda.matmul.allow_tf32`,
    `torch.set_float32_matmul_precision`) and only a newer one is turned back, PyTorch refuses every product on a GPU as
    one of mixed settings. So the older one is turned as well. It turns newer ones with it, and cannot even be read
    while they say otherwise: they are turned before and behind it.
    """
    switches = _switches()
    before = [switch.fp32_precision for switch in switches]
    older = EXACT
    try:
        _turn(switches, ["ieee"] * len(switches))
        older = torch.get_float32_matmul_precision()
        if older != EXACT:
            torch.set_float32_matmul_precision(EXACT)
            _turn(switches, ["ieee"] * len(switches))
        yield
    finally:
        if older != EXACT:
            torch.set_float32_matmul_precision(older)
        _turn(switches, before)


def _turn(switches: Sequence[Any], precisions: Sequence[str]) -> None:
    for switch, precision in zip(switches, precisions, strict=True):
        switch.fp32_precision = precision


def _switches() -> tuple[Any, ...]:
    """Where PyTorch's newer switches are: products and convolutions, on GPU and CPU."""
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv
