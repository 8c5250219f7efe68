"""A restorer as an ONNX file with free batch, height and width."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Final

import torch
from torch import nn

INPUT: Final = "photo"
OUTPUT: Final = "restored"
OPSET: Final = 20


def export_onnx(network: nn.Module, path: Path, *, multiple: int) -> None:
    """Write `network`, (B, 3, H, W) -> the same, as ONNX.

    Args:
        network: not clamped, in evaluation mode, on the CPU.
        path: the file; weights are inside.
        multiple: sides of the traced example are no multiples of it, so that padding is traced too.
    """
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 3, 2 * multiple + 8, 3 * multiple - 8)
    with _quiet():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the exporter's chatter from the user; a TracerWarning, which means a baked size, is an error."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", torch.jit.TracerWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
