"""The fidelity of a CodeFormer from the command line to the exported file: given, checked, recorded, and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import adapt
from networks import SMALL_CODEFORMER, lively_codeformer
from torch import Tensor, nn

from adapt.commands.restore import restore
from adapt.errors import RangeError, ShapeError, UsageError, VerificationError
from adapt.exporting.bundle import export_bundle, load_bundle
from adapt.exporting.verify import LEAD, check_inputs, smooth_images, verify
from adapt.photos.files import read_image, write_image
from adapt.restorers.base import Restorer
from adapt.restorers.codeformer import CodeFormer

SIDE = SMALL_CODEFORMER.img_size


def small_restorer() -> Restorer:
    return Restorer("small test", "codeformer", SMALL_CODEFORMER, lively_codeformer())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "codeformer.safetensors"
    small_restorer().save(path)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = list(smooth_images((2, SIDE, SIDE), seed=1))
    return export_bundle(small_restorer(), tmp_path_factory.mktemp("export") / "bundle", source={}, photos=photos)


def by_network(photo: Tensor, fidelity: float) -> Tensor:
    with torch.no_grad():
        return lively_codeformer()(photo, fidelity).clamp(0, 1)


# ---------------------------------------------------------------- restoring


def test_restore_at_a_fidelity(
    weights: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    command = ["restore", weights, small_photos, "--device", "cpu"]
    photo = read_image(small_photos / "a.png")[None]
    for name, options, fidelity in (("own", [], 0.5), ("quality", ["--fidelity", 0], 0.0),
                                    ("fidelity", ["--fidelity", 1], 1.0)):
        assert adapt(monkeypatch, *command, "-o", tmp_path / name, *options) == 0
        got = read_image(tmp_path / name / "a.png")[None]
        torch.testing.assert_close(got, by_network(photo, fidelity), rtol=0, atol=0.51 / 255)
        assert json.loads((tmp_path / name / "restored.json").read_text())["fidelity"] == fidelity
    assert (by_network(photo, 0.0) - by_network(photo, 1.0)).abs().max() > 0.05, "else this shows nothing"

    capsys.readouterr()
    assert adapt(monkeypatch, *command, "-o", tmp_path / "own", "--fidelity", 0.5) == 0
    assert "0 restored, 6 already there" in capsys.readouterr().out, "its own fidelity, said aloud, is the same"
    assert adapt(monkeypatch, *command, "-o", tmp_path / "own", "--fidelity", 0.25) == 2
    assert "holds images of fidelity 0.5, not 0.25; choose another folder" in capsys.readouterr().err
    assert adapt(monkeypatch, *command, "-o", tmp_path / "own", "--fidelity", 0.25, "--overwrite") == 0


def test_a_network_without_one_refuses_before_anything_is_written(
    small_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    assert adapt(monkeypatch, "restore", small_pack, small_photos, "-o", tmp_path / "out", "--fidelity", 0.5) == 2
    error = capsys.readouterr().err.strip()
    assert error == "adapt: small/swinir: a swinir has no fidelity to choose; known with one: codeformer"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fidelity", [-0.1, 1.5, float("nan")])
def test_a_number_outside_is_refused(
    fidelity: float, weights: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command = ["restore", weights, small_photos, "-o", tmp_path / "out", "--fidelity", fidelity]
    assert adapt(monkeypatch, *command) == 2
    with pytest.raises(RangeError, match=r"fidelity: expected a number in \[0, 1\], got"):
        restore(str(weights), small_photos, tmp_path / "out", fidelity=fidelity)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- exporting


def test_the_second_input_is_stated(bundle: Path):
    import onnx

    graph = onnx.load(bundle / "model.onnx").graph
    sides = {value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
             for value in (*graph.input, *graph.output)}
    assert sides == {"photo": ["batch", 3, SIDE, SIDE], "fidelity": [1], "restored": ["batch", 3, SIDE, SIDE]}
    about = json.loads((bundle / "bundle.json").read_text())
    stated = {key: about["fidelity"][key] for key in ("name", "shape", "range", "default")}
    assert stated == {"name": "fidelity", "shape": "(1,)", "range": [0, 1], "default": 0.5}
    assert about["one_size"]
    assert f"{SIDE} by {SIDE} pixels and no other" in about["size_rule"]
    tried = [(item["shape"][0], item["fidelity"]) for item in about["parity"]]
    assert tried == [(1, 0.5), (1, 0.0), (1, 1.0), (3, 0.5), (1, 0.5), (2, 0.5)]
    assert all(item["largest"] < 1e-5 and not item["undecided"] for item in about["parity"])
    card = (bundle / "README.md").read_text()
    assert "run_model.py PHOTOS OUT --fidelity W" in card
    assert "w in [0, 1]: how far the result keeps to the photo" in card


def test_a_bundle_has_the_fidelity_it_was_exported_with(
    bundle: Path, weights: Path, small_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def known(network: nn.Module, path: Path, *, multiple: int, side: int | None, fidelity: bool) -> None:
        shutil.copyfile(bundle / "model.onnx", path)  # the same graph, without the seconds of the exporter

    monkeypatch.setattr("adapt.exporting.bundle.export_onnx", known)
    out = tmp_path / "out"
    assert adapt(monkeypatch, "export", weights, "-o", out, "--fidelity", 0.25) == 0
    about = json.loads((out / "bundle.json").read_text())
    assert about["fidelity"]["default"] == 0.25
    assert [item["fidelity"] for item in about["parity"]][:4] == [0.25, 0.0, 0.5, 1.0]
    assert "The default is 0.25." in (out / "README.md").read_text()
    photo = read_image(small_photos / "a.png")[None]
    torch.testing.assert_close(load_bundle(out)(photo), by_network(photo, 0.25), rtol=0, atol=1e-5)
    assert run_model(out / "run_model.py", small_photos, tmp_path / "run").returncode == 0
    got = read_image(tmp_path / "run" / "a.png")[None]
    torch.testing.assert_close(got, by_network(photo, 0.25), rtol=0, atol=0.51 / 255)

    capsys.readouterr()
    assert adapt(monkeypatch, "export", small_pack, "-o", tmp_path / "none", "--fidelity", 0.5) == 2
    error = capsys.readouterr().err.strip()
    assert error == "adapt: small/swinir: a swinir has no fidelity to choose; known with one: codeformer"
    with pytest.raises(RangeError, match=r"fidelity: expected a number in \[0, 1\], got 1.5"):
        export_bundle(small_restorer(), tmp_path / "none", source={}, fidelity=1.5)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("fidelity", [None, 0.0, 0.3, 0.5, 1.0])
def test_the_file_at_fidelities_and_batches_that_were_not_tried(bundle: Path, fidelity: float | None):
    photo = smooth_images((5, SIDE, SIDE), seed=7)
    expected = by_network(photo, 0.5 if fidelity is None else fidelity)
    torch.testing.assert_close(load_bundle(bundle)(photo, fidelity), expected, rtol=0, atol=1e-5)


def test_what_a_bundle_refuses(bundle: Path):
    model = load_bundle(bundle)
    with pytest.raises(ShapeError, match=r"expected a batch of shape \(B, 3, 16, 16\), got \(1, 3, 32, 32\); it knows"):
        model(torch.zeros(1, 3, 32, 32))
    with pytest.raises(RangeError, match=r"fidelity: expected a number in \[0, 1\], got 2"):
        model(torch.zeros(1, 3, SIDE, SIDE), fidelity=2)
    model.about["architecture"], model._fidelity = "swinir", None
    with pytest.raises(UsageError, match="a swinir has no fidelity to choose"):
        model(torch.zeros(1, 3, SIDE, SIDE), fidelity=0.5)


def test_a_file_whose_fidelity_does_nothing_is_refused(bundle: Path, tmp_path: Path):
    """What an export that keeps the traced number would be like: right at its own fidelity, wrong at 0 and 1."""
    import onnx

    model = onnx.load(bundle / "model.onnx")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "fidelity":
                node.input[index] = "constant"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.5], np.float32), "constant"))
    onnx.save(model, tmp_path / "model.onnx")
    inputs = check_inputs(SIDE, 16, one_size=True)
    assert [tuple(batch.shape) for batch in inputs] == [(1, 3, SIDE, SIDE), (3, 3, SIDE, SIDE)]
    with pytest.raises(VerificationError, match=r"differs from the network by .* \(1, 3, 16, 16\) at fidelity 0;"):
        verify(tmp_path / "model.onnx", lively_codeformer(), inputs, tolerance=1e-3, fidelities=(0.5, 0.0, 1.0))


# ---------------------------------------------------------------- codes as good as each other


def torn(between: float) -> CodeFormer:
    """The network with a code of logit 1 at every place, one that follows by so much, and the others at 0."""
    network = lively_codeformer()
    norm, scores = network.idx_pred_layer
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(scores, nn.Linear)
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(1.0)
        scores.weight.zero_()
        scores.weight[0] = 1.0 / scores.in_features
        scores.weight[1] = (1.0 - between) / scores.in_features
    return network


def test_the_lead_is_the_smallest_difference_of_the_best_two():
    photo = smooth_images((2, SIDE, SIDE))
    with torch.no_grad():
        reading = lively_codeformer().read(photo)
        ordered = reading.logits.double().sort(dim=-1, descending=True).values
        expected = (ordered[..., 0] - ordered[..., 1]).min(dim=1).values
        torch.testing.assert_close(reading.lead().double(), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(torn(0.01).read(photo).lead(), torch.full((2,), 0.01), rtol=0, atol=1e-6)


def test_a_photo_where_rounding_chooses_the_code_is_left_out_and_counted(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    """The file and the network choose different codes in one of three photos: an error only where one clearly leads."""
    inputs, network = [smooth_images((3, SIDE, SIDE))], lively_codeformer()
    leads = torch.tensor([1.0, 0.5 * LEAD, 1.0])
    generate = network.generate
    monkeypatch.setattr(network, "generate", lambda *given: turned(generate(*given)))
    monkeypatch.setattr("adapt.restorers.codeformer.Reading.lead", lambda self: leads)
    (found,) = verify(bundle / "model.onnx", network, inputs, tolerance=1e-3, fidelities=(0.5,))
    assert (found.undecided, found.largest < 1e-5) == (1, True)
    leads[1] = 2 * LEAD
    with pytest.raises(VerificationError, match=r"differs from the network by 1 at"):
        verify(bundle / "model.onnx", network, inputs, tolerance=1e-3, fidelities=(0.5,))
    monkeypatch.setattr(network, "generate", lambda *given: generate(*given) + 1)
    leads[:] = 0.0
    with pytest.raises(VerificationError, match="in every photo two codes are as good as each other"):
        verify(bundle / "model.onnx", network, inputs, tolerance=1e-3, fidelities=(0.5,))


def turned(image: Tensor) -> Tensor:
    """A batch whose second image is another."""
    image[1] += 1
    return image


# ---------------------------------------------------------------- the runner


def run_model(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_runner(bundle: Path, small_photos: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    shutil.copytree(small_photos, photos)
    large = smooth_images((1, 40, 40), seed=5)[0]
    write_image(photos / "large.png", large)
    write_image(photos / "wide.png", smooth_images((1, 16, 24))[0])
    runner = bundle / "run_model.py"
    done = {name: run_model(runner, photos, tmp_path / name, *options)
            for name, options in (("own", []), ("w1", ["--fidelity", "1"]))}
    for each in done.values():
        assert each.returncode == 3
        assert "wide.png: cannot be read (not an aligned face: expected a square image, got 24 x 16" in each.stderr
        assert "large.png: resized from 40 x 40 to 16 x 16" in each.stderr
        assert each.stderr.count("resized from") == 1
        assert each.stderr.endswith("\n1 of them resized to the model's 16 x 16\n")
    photo = read_image(photos / "a.png")[None]
    for name, fidelity in (("own", 0.5), ("w1", 1.0)):
        got = read_image(tmp_path / name / "a.png")[None]
        torch.testing.assert_close(got, by_network(photo, fidelity), rtol=0, atol=0.51 / 255)
    # Each folder is of one fidelity, whether it was named or not.
    again = run_model(runner, photos, tmp_path / "own", "--fidelity", "0.5")
    assert (again.returncode, again.stderr.count("exists already, left alone")) == (3, 7)
    for name, options, known, asked in (("own", ["--fidelity", "0"], "0.5", "0.0"), ("w1", [], "1.0", "0.5")):
        other = run_model(runner, photos, tmp_path / name, *options)
        expected = f"{tmp_path / name}: holds images of fidelity {known}, not {asked}; choose another folder"
        assert (other.returncode, other.stderr.strip()) == (2, expected)
    # The same resizing as adapt restore's, up to rounding: PyTorch's and Pillow's are two programs.
    restore(str(bundle), photos / "large.png", tmp_path / "ours")
    ours, theirs = (read_image(tmp_path / name / "large.png") for name in ("ours", "own"))
    assert (ours - theirs).abs().max() <= 2.01 / 255


def test_runner_refuses(bundle: Path, small_photos: Path, tmp_path: Path):
    other = shutil.copytree(bundle, tmp_path / "other")
    about: dict[str, Any] = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps({**about, "fidelity": None}))
    for folder, value, message in ((bundle, "1.5", "--fidelity 1.5: expected a number in [0, 1]"),
                                   (other, "0.5", "--fidelity 0.5: this model takes none")):
        done = run_model(folder / "run_model.py", small_photos, tmp_path / "out", "--fidelity", value)
        assert (done.returncode, done.stderr.strip()) == (2, message)
