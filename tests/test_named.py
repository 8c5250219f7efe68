"""What a name of weights means: the same file or network to who loads it and to who compares its digest."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from networks import SMALL_CODEFORMER, lively_swinir, lively_vqgan

from adapt.commands.generate_targets import generate_targets
from adapt.digests import file_digest
from adapt.errors import UsageError, WeightsError
from adapt.loading import load_codebook, load_model, load_prior, load_restorer, read_codebook, weights_digest
from adapt.packs.named import named_network, named_restorer
from adapt.packs.pack import load_pack
from adapt.restorers.base import Restorer
from adapt.settings import VQGANSettings
from adapt.settings.paths import WEIGHT_FILES
from adapt.weights import write_state

ROOT = Path(__file__).resolve().parents[1]


def write_swinir(path: Path, seed: int) -> Path:
    network = lively_swinir(seed=seed)
    Restorer("x", "swinir", network.settings, network).save(path)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder that is a bundle by its files; what is in its model.onnx does not matter."""
    folder = tmp_path / "bundle"
    write_swinir(folder / "model.safetensors", 0)
    (folder / "model.onnx").write_bytes(b"a model")
    (folder / "bundle.json").write_text(json.dumps({
        "sha256": {"model.onnx": file_digest(folder / "model.onnx")}, "size": 16, "fidelity": None,
    }))
    return folder


def test_each_command_has_the_digest_of_the_file_that_it_loads(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a bundle `adapt restore` runs the model.onnx, and all that trains or exports takes the weights beside it."""
    monkeypatch.setattr("adapt.exporting.bundle.open_session", lambda *_: None)
    assert load_restorer(bundle).digest == named_restorer(bundle).digest() == file_digest(bundle / "model.safetensors")
    assert load_model(bundle).digest == weights_digest(bundle) == file_digest(bundle / "model.onnx")
    result = bundle.parent  # as `adapt run` leaves it: the bundle is in it
    assert load_model(result).digest == weights_digest(result) == file_digest(bundle / "model.onnx")


@pytest.mark.parametrize("others", [(), ("model.safetensors",), WEIGHT_FILES])
def test_of_several_files_the_first_is_meant_by_all(others: tuple[str, ...], tmp_path: Path):
    for seed, name in enumerate(dict.fromkeys((*others, "weights.safetensors"))):
        write_swinir(tmp_path / name, seed)
    meant = tmp_path / next(name for name in WEIGHT_FILES if (tmp_path / name).is_file())
    loaded = load_restorer(tmp_path)
    assert loaded.digest == weights_digest(tmp_path) == file_digest(meant)
    expected = load_restorer(meant)
    photo = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded(photo), expected(photo))


def test_a_folder_whose_name_ends_like_a_file_is_a_folder(tmp_path: Path):
    write_swinir(tmp_path / "run.pt" / "best.safetensors", 0)
    assert load_restorer(tmp_path / "run.pt").digest == weights_digest(tmp_path / "run.pt")


def test_a_codebook_of_a_run_or_file_has_its_digest(tmp_path: Path):
    settings = VQGANSettings.model_validate(SMALL_CODEFORMER.model_dump(include={*VQGANSettings.model_fields}))
    network = lively_vqgan(settings)
    header = {"architecture": "vqgan", "settings": settings.model_dump_json()}
    file = tmp_path / "weights.safetensors"
    write_state(file, network.state_dict(), header)
    for name in (tmp_path, file):
        assert read_codebook(name)[1] == named_network(name, "codebook").digest() == file_digest(file)
        assert load_codebook(name).settings == settings


def test_a_pack_is_meant_by_its_name_folder_and_card(small_pack: Path):
    expected = load_pack(small_pack).network_digest("swinir")
    for name in (small_pack, small_pack / "pack.yaml", f"{small_pack}/swinir"):
        assert load_restorer(name).digest == weights_digest(name) == expected
    assert load_prior(small_pack).digest == load_pack(small_pack).network_digest("prior")


def test_a_name_of_nothing_is_the_same_mistake_for_all(tmp_path: Path):
    for meant in (load_restorer, weights_digest):
        with pytest.raises(UsageError, match="no restorer 'nothing/at all': expected a checkpoint file, a run"):
            meant("nothing/at all")
        with pytest.raises(WeightsError, match=r"none\.pth: no such weights file"):
            meant(tmp_path / "none.pth")


def test_targets_guided_by_a_bundle_are_those_of_its_weights(
    bundle: Path, small_photos: Path, small_pack: Path, tmp_path: Path
):
    """Other weights beside the same model.onnx are another restorer."""
    overrides = ["guidance.0.factor=4", "steps=2", "gate.max_low_frequency_change=1", "gate.min_contrast=0"]

    def make() -> None:
        generate_targets(
            small_photos, tmp_path / "out", method="low-frequency", pack=small_pack, restorer=bundle, limit=1,
            overrides=overrides, device="cpu",
        )

    make()
    shutil.copyfile(write_swinir(tmp_path / "other.safetensors", 1), bundle / "model.safetensors")
    with pytest.raises(UsageError, match="restorer"):
        make()


def test_files_of_weights_are_named_in_one_table():
    """A second list, or a name in a string, is where a loader and a digest come to disagree."""
    files = [path for path in (ROOT / "adapt").rglob("*.py") if path.name not in ("paths.py", "runner.py")]
    literal = re.compile(r"[\"'](?:best\.safetensors|model\.safetensors|weights\.safetensors)[\"'](?!\})")
    found = [f"{path.name}: {line.strip()}" for path in files for line in path.read_text(encoding="utf-8").splitlines()
             if literal.search(line)]
    assert found == []
