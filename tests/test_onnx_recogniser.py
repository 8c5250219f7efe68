"""A recogniser in an ONNX file, as insightface passes them on: its crop, its input, and that it only scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command_line import adapt
from onnx import TensorProto, helper, numpy_helper

from adapt.errors import UsageError, WeightsError
from adapt.faces.align import TEMPLATE, TEMPLATE_SIDE
from adapt.faces.crops import share_of
from adapt.faces.measures import identity_distance, identity_loss
from adapt.faces.onnx_recogniser import INSIDE, SIDE, OnnxRecogniser
from adapt.loading import load_recogniser
from adapt.photos.files import write_image

POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""insightface's template: where an aligned face of 112 px has eyes, nose and the corners of the mouth."""


def write_model(path: Path, *, own: bool = False, batch: str | int = "N", side: int = SIDE) -> Path:
    """Means over 16 x 16 blocks, mixed; `own`: after the normalisation that files converted from MXNet begin with."""
    generator = np.random.default_rng(0)
    cells = 3 * (side // 16) ** 2
    weights = {"mixing": np.asarray(generator.normal(size=(cells, 8)), dtype=np.float32)}
    nodes, last = list[onnx.NodeProto](), "data"
    if own:
        weights |= {"mean": np.full(1, 127.5, np.float32), "scale": np.full(1, 1 / 127.5, np.float32)}
        nodes = [helper.make_node("Sub", ["data", "mean"], ["a"]), helper.make_node("Mul", ["a", "scale"], ["b"])]
        last = "b"
    nodes += [
        helper.make_node("AveragePool", [last], ["c"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "mixing"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "recogniser",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def faces() -> torch.Tensor:
    return torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def test_the_crop_is_where_insightface_would_align():
    """The window's four numbers against the least-squares similarity of the two templates, which has no turn."""
    theirs, ours = np.array(POINTS), np.array(TEMPLATE)
    rows = [[x, -y, 1, 0] for x, y in ours] + [[y, x, 0, 1] for x, y in ours]
    wanted = [*theirs[:, 0], *theirs[:, 1]]
    (a, b, x, y), *_ = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)
    assert abs(b / a) < 1e-3
    corners = [-x / a, -y / a, (SIDE - x) / a, (SIDE - y) / a]
    assert list(share_of(TEMPLATE_SIDE, INSIDE)) == pytest.approx(corners, abs=0.05)


def test_embeddings(tmp_path: Path, faces: torch.Tensor):
    """The same whether the file normalises itself or takes one face at a time, and none depends on the others."""
    loaded = load_recogniser(write_model(tmp_path / "a.onnx"))
    assert isinstance(loaded, OnnxRecogniser)
    together = loaded.of_aligned(faces)
    assert together.shape == (3, 8)
    torch.testing.assert_close(together[1:2], loaded.of_aligned(faces[1:2]))
    for name, own, batch in (("own", True, "N"), ("single", False, 1)):
        other = load_recogniser(write_model(tmp_path / f"{name}.onnx", own=own, batch=batch))
        torch.testing.assert_close(other.of_aligned(faces), together, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(identity_distance(faces, faces, loaded), torch.zeros(3), rtol=0, atol=1e-6)
    assert float(identity_distance(faces[:1], faces[1:2], loaded)) > 1e-3


def test_it_only_scores(tmp_path: Path, faces: torch.Tensor):
    with pytest.raises(UsageError, match="only scores"):
        identity_loss(faces, faces, load_recogniser(write_model(tmp_path / "a.onnx")))


def test_what_is_no_recogniser_is_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"expected a recogniser from \(N, 3, 112, 112\)"):
        load_recogniser(write_model(tmp_path / "wide.onnx", side=128))
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="not an ONNX model"):
        load_recogniser(tmp_path / "broken.onnx")


def test_evaluate_measures_by_it(
    tmp_path: Path, faces: torch.Tensor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write_image(tmp_path / "a" / "x.png", faces[0])
    write_image(tmp_path / "b" / "x.png", faces[1])
    file = write_model(tmp_path / "a.onnx")
    command = ["evaluate", tmp_path / "a", "--truth", tmp_path / "b", "--json", "--recogniser", file]
    assert adapt(monkeypatch, *command) == 0
    told = json.loads(capsys.readouterr().out)["scores"]["identity"]
    loaded = load_recogniser(file)
    rounded = [(face * 255).round() / 255 for face in faces[:2]]
    assert told["mean"] == pytest.approx(float(identity_distance(rounded[0][None], rounded[1][None], loaded)), abs=1e-5)
    assert str(file) in json.dumps(told)
