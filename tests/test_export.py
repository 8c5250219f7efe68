"""A small SwinIR exported, verified, run by its runner; and a broken one refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.build import load_model, load_restorer
from adapt.errors import UsageError, VerificationError, WeightsError
from adapt.export.bundle import export_bundle, load_bundle
from adapt.export.verify import smooth_pictures, verify
from adapt.pretrain.restorer import initialise
from adapt.restorers.base import Restorer
from adapt.restorers.swinir import SwinIR
from adapt.settings import SwinIRSettings

SETTINGS = SwinIRSettings(
    img_size=8, embed_dim=12, depths=[2], num_heads=[2], window_size=4, sf=4, num_feat=8, unshuffle=True,
    unshuffle_scale=4,
)


def tiny_restorer(seed: int = 0) -> Restorer:
    network = SwinIR(SETTINGS)
    initialise(network, seed)
    return Restorer("tiny test", "swinir", SETTINGS, network.eval())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "bundle"
    photos = list(smooth_pictures((2, 32, 32), seed=1))
    return export_bundle(tiny_restorer(), out, source={"weights": "a test"}, photos=photos)


def test_contents(bundle: Path):
    names = {path.name for path in bundle.iterdir()}
    assert names == {"model.onnx", "model.safetensors", "bundle.json", "README.md", "run_model.py"}
    about = json.loads((bundle / "bundle.json").read_text())
    shapes = {tuple(item["shape"]) for item in about["parity"]}
    assert len(shapes) >= 4
    assert all(item["largest"] < 1e-5 for item in about["parity"])
    assert "a test" in (bundle / "README.md").read_text()


@pytest.mark.parametrize("shape", [(1, 16, 16), (5, 37, 51), (2, 64, 8)])
def test_untraced_sizes(bundle: Path, shape: tuple[int, int, int]):
    photo = smooth_pictures(shape, seed=2)
    torch.testing.assert_close(load_bundle(bundle)(photo), tiny_restorer()(photo), rtol=0, atol=1e-5)


def test_weights_file_opens_as_a_restorer(bundle: Path):
    photo = smooth_pictures((1, 32, 32))
    torch.testing.assert_close(load_restorer(bundle)(photo), tiny_restorer()(photo), rtol=0, atol=0)
    assert type(load_model(bundle)).__name__ == "BundleModel"


def test_other_weights_fail_and_leave_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(VerificationError, match=r"differs from the network by .* at most 0\.0001"):
        verify(bundle / "model.onnx", tiny_restorer(seed=1).network, [smooth_pictures((1, 32, 32))], tolerance=1e-4)
    with pytest.raises(VerificationError, match="Nothing was exported"):
        export_bundle(tiny_restorer(), tmp_path / "out", source={}, tolerance=-1.0)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_unasked(bundle: Path):
    with pytest.raises(UsageError, match="--overwrite to replace"):
        export_bundle(tiny_restorer(), bundle, source={})


def test_a_changed_file_is_noticed(bundle: Path, tmp_path: Path):
    for name in ("bundle.json", "model.onnx"):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    with (tmp_path / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(WeightsError, match=r"not the file that bundle\.json names"):
        load_bundle(tmp_path)


def test_runner(bundle: Path, tmp_path: Path):
    photos, out = tmp_path / "phötös", tmp_path / "out"
    (photos / "deep").mkdir(parents=True)
    pixels = (smooth_pictures((1, 40, 27))[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(photos / "deep" / "ä 1.png")
    (photos / "bad.png").write_bytes(b"no picture")
    command = [sys.executable, str(bundle / "run_model.py"), str(photos), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "bad.png: cannot be read" in done.stderr
    restored = np.asarray(Image.open(out / "deep" / "ä 1.png")).astype(float)
    expected = tiny_restorer()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0] * 255
    assert np.abs(restored - expected.permute(1, 2, 0).numpy()).max() <= 0.51
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "exists already, left alone" in again.stderr
    assert len((bundle / "run_model.py").read_text().splitlines()) < 80
