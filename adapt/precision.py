"""Full float32 where results are to be the same however they are batched."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


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
