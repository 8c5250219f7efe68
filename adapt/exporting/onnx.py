"""A restorer as an ONNX file with free batch, height and width."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from adapt.errors import UsageError, VerificationError

INPUT: Final = "photo"
OUTPUT: Final = "restored"
FIDELITY: Final = "fidelity"
SIDES: Final = {0: "batch", 2: "height", 3: "width"}
OF_MAPS: Final = {0: SIDES[0], **{index: f"side {index}" for index in (1, 2, 3)}}  # of outputs of other sizes
OPSET: Final = 20
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"


def export_onnx(
    network: nn.Module, path: Path, *, multiple: int, side: int | None = None, fidelity: bool = False
) -> None:
    """Write `network`, (B, 3, H, W) -> the same, as ONNX.

    Args:
        network: not clamped, in evaluation mode, float32, on the CPU; its parameters are cut off from gradients.
        path: the file; weights are inside.
        multiple: sides of the traced example are no multiples of it, so that padding is traced too.
        side: of the images of a network that takes no others; the batch alone is free then.
        fidelity: the network takes one; it becomes the second input, of shape (1,).

    Raises:
        VerificationError: the exporter cannot follow the network at free sizes.
    """
    # DYNAMIC and not AUTO: where the network fixes a side, AUTO would quietly write a file for that side alone.
    dynamic = torch.export.Dim.DYNAMIC
    free = SIDES if side is None else {0: SIDES[0]}
    height, width = (2 * multiple + 8, 3 * multiple - 8) if side is None else (side, side)
    examples = (torch.zeros(2, 3, height, width), *([torch.full((1,), 0.5)] if fidelity else []))
    _write(
        network, path, examples, free, free, dynamic_shapes=(dict.fromkeys(free, dynamic), *([{}] if fidelity else [])),
        inputs=[INPUT, *([FIDELITY] if fidelity else [])], outputs=[OUTPUT],
    )


def export_finding(network: nn.Module, path: Path, side: int | None, outputs: Sequence[str]) -> None:
    """Write a network that finds faces as ONNX: (B, 3, side, side), of which the batch is free, or any size.

    Raises:
        VerificationError: the exporter cannot follow the network.
    """
    free, dynamic = SIDES if side is None else {0: SIDES[0]}, torch.export.Dim.DYNAMIC
    height, width = (37, 53) if side is None else (side, side)
    _write(
        network, path, (torch.zeros(2, 3, height, width),), free, OF_MAPS,
        dynamic_shapes=(dict.fromkeys(free, dynamic),), inputs=[INPUT], outputs=outputs,
    )


def _write(
    network: nn.Module, path: Path, examples: tuple[Tensor, ...], free: dict[int, str], given: dict[int, str], *,
    dynamic_shapes: tuple[Any, ...], inputs: Sequence[str], outputs: Sequence[str],
) -> None:
    import onnx
    from torch.onnx.errors import OnnxExporterError

    with _quiet():
        try:
            program = torch.onnx.export(
                network.eval().requires_grad_(False),
                examples,
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                input_names=[*inputs],
                output_names=[*outputs],
                opset_version=OPSET,
                verbose=False,
            )
        except (OnnxExporterError, torch.jit.TracerWarning) as error:
            reason = " ".join(line.strip() for line in str(error.__cause__ or error).strip().splitlines()[:2])
            raise VerificationError(f"{path.name}: the network cannot be exported at any size ({reason})") from error
        assert program is not None
        model = program.model_proto
    _anonymise(model, free, given)
    onnx.save(model, str(path))


def _anonymise(model: Any, free: dict[int, str], given: dict[int, str]) -> None:
    """Drop what the exporter notes of the source: it holds the paths of this machine, and weighs as much as the graph.

    The traced sizes have names by chance (`s15`); those of the input and of what is given become what they are.
    """
    graphs = [model.graph]
    del model.metadata_props[:]
    while graphs:
        graph = graphs.pop()
        del graph.value_info[:]  # shapes in terms of the old names; every runtime infers them anew
        for item in [graph, *graph.node, *graph.input, *graph.output, *graph.initializer]:
            del item.metadata_props[:]
            item.ClearField("doc_string")
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    for value, names in ((model.graph.input[0], free), *((output, given) for output in model.graph.output)):
        for index, side in enumerate(value.type.tensor_type.shape.dim):
            if side.dim_param:
                side.dim_param = names[index]


def open_session(path: Path, providers: Sequence[Any] = (CPU,), data: bytes | None = None) -> Any:
    """An onnxruntime session that keeps its warnings to itself.

    Args:
        path: the model.
        providers: what it computes with.
        data: the content of the file, where it has been read and checked already.

    Raises:
        VerificationError: not a model that onnxruntime takes.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Unsupported

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()  # left alone, it takes cores that we were told not to use
    try:
        return onnxruntime.InferenceSession(data or str(path), options, providers=list(providers))
    except (Fail, InvalidGraph, InvalidProtobuf, Unsupported) as error:
        raise VerificationError(f"{path.name}: onnxruntime does not take it ({str(error).splitlines()[0]})") from error


def providers_for(device: torch.device | None = None) -> list[Any]:
    """What onnxruntime computes with; on CUDA in full float32, as on the CPU that the file was checked on.

    Args:
        device: where; where None on CUDA if onnxruntime has it, else on the CPU.

    Raises:
        UsageError: a device that onnxruntime does not have.
    """
    import onnxruntime

    on_cuda = CUDA in onnxruntime.get_available_providers()
    if device is None:
        device = torch.device("cuda" if on_cuda else "cpu")
    if device.type == "cpu":
        return [CPU]
    if device.type != "cuda" or not on_cuda:
        raise UsageError(f"--device {device}: onnxruntime, which runs bundles, has none here; try auto or cpu")
    return [(CUDA, {"use_tf32": "0", "device_id": str(device.index or 0)}), CPU]


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
