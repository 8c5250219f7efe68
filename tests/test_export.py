"""A small SwinIR exported, checked, and run by its runner; and every way in which a file can be wrong, refused."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import SMALL_SWINIR, lively_swinir
from PIL import Image
from torch import Tensor, nn

import adapt
from adapt.disk import short_sibling
from adapt.errors import RangeError, ShapeError, UsageError, VerificationError, WeightsError
from adapt.exporting import bundle as bundle_module
from adapt.exporting import runner
from adapt.exporting.bundle import export_bundle, load_bundle
from adapt.exporting.onnx import CPU, CUDA, export_onnx
from adapt.exporting.verify import check_inputs, smooth_images, verify
from adapt.loading import load_model, load_restorer
from adapt.photos.folder import RAW_SUFFIXES, SUFFIXES
from adapt.restorers.base import Restorer
from adapt.settings import SwinIRSettings

PLAIN = SwinIRSettings(
    img_size=8, embed_dim=8, depths=[2], num_heads=[2], window_size=4, sf=1, upsampler="", resi_connection="3conv"
)


def tiny_restorer(seed: int = 0) -> Restorer:
    return Restorer("tiny test", "swinir", SMALL_SWINIR, lively_swinir(seed=seed))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "bundle"
    photos = list(smooth_images((2, 32, 32), seed=1))
    return export_bundle(tiny_restorer(), out, source={"weights": "a test"}, photos=photos)


@pytest.fixture
def quick(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Instead of the exporter's seconds: the file that was exported once, changed by the functions in the list."""
    import onnx

    changes: list[Any] = []

    def copy_changed(network: nn.Module, path: Path, *, multiple: int, side: int | None, fidelity: bool) -> None:
        model = onnx.load(bundle / "model.onnx")
        for change in changes:
            change(model)
        onnx.save(model, path)

    monkeypatch.setattr(bundle_module, "export_onnx", copy_changed)
    return changes


def perturb(model: Any) -> None:
    """One weight of one layer, by a little: what a file exported before the last training step would be like."""
    from onnx import numpy_helper

    tensor = next(item for item in model.graph.initializer if item.name.endswith("conv_hr.weight"))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[5] += 0.01
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def fix_batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_small_network_shows_every_part(monkeypatch: pytest.MonkeyPatch):
    """Else the tests below could not fail."""
    from adapt.restorers import swinir

    photo, network = smooth_images((1, 40, 24)), lively_swinir()
    whole = network(photo)
    mask = swinir.shift_mask
    monkeypatch.setattr(swinir, "shift_mask", lambda *size, reference: mask(*size, reference=reference) * 0)
    assert (network(photo) - whole).abs().max() > 1e-2


def test_contents(bundle: Path):
    names = {path.name for path in bundle.iterdir()}
    assert names == {"model.onnx", "model.safetensors", "bundle.json", "README.md", "run_model.py"}
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
    about = json.loads((bundle / "bundle.json").read_text())
    assert SwinIRSettings(**about["settings"]) == SMALL_SWINIR
    assert set(about["sha256"]) == {"model.onnx", "model.safetensors", "run_model.py", "README.md"}
    shapes = [tuple(item["shape"]) for item in about["parity"]]
    assert {(1, 3, 32, 32), (2, 3, 32, 32)} < set(shapes)
    assert any(height % 2 and width % 2 for _, _, height, width in shapes)
    assert len({batch for batch, *_ in shapes}) == 3
    assert all(item["largest"] < 1e-5 for item in about["parity"])
    assert "a test" in (bundle / "README.md").read_text()


def test_the_file_holds_each_weight_once_and_nothing_of_this_machine(bundle: Path):
    import onnx

    data = (bundle / "model.onnx").read_bytes()
    assert str(Path(adapt.__file__).parent).encode() not in data
    assert b"site-packages" not in data
    graph = onnx.load(bundle / "model.onnx").graph
    large = sorted(item.raw_data for item in graph.initializer if len(item.raw_data) > 400)
    assert len(large) > 10
    assert all(one != other for one, other in pairwise(large))
    for value in (graph.input[0], graph.output[0]):
        sides = value.type.tensor_type.shape.dim
        assert [side.dim_param or side.dim_value for side in sides] == ["batch", 3, "height", "width"]
    assert max(item.version for item in onnx.load(bundle / "model.onnx").opset_import if not item.domain) >= 18


@pytest.mark.parametrize("shape", [(1, 16, 16), (5, 37, 51), (2, 64, 8), (3, 1, 3), (1, 5, 130)])
def test_untraced_sizes(bundle: Path, shape: tuple[int, int, int]):
    photo = smooth_images(shape, seed=2)
    expected = tiny_restorer()(photo)
    assert expected.std() > 0.05 or shape[1] == 1
    torch.testing.assert_close(load_bundle(bundle)(photo), expected, rtol=0, atol=1e-5)


def test_the_other_layout_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
):
    """No unshuffle, no upsampling, three convolutions; and the exporter says nothing to the user."""
    network = lively_swinir(PLAIN)
    export_onnx(network, tmp_path / "x.onnx", multiple=16)
    inputs = [smooth_images(shape) for shape in ((1, 7, 9), (3, 33, 50), (2, 3, 3))]
    found = verify(tmp_path / "x.onnx", network, inputs, tolerance=1e-5)
    assert [item.shape for item in found] == [(1, 3, 7, 9), (3, 3, 33, 50), (2, 3, 3, 3)]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_weights_file_opens_as_a_restorer(bundle: Path):
    photo = smooth_images((1, 32, 32))
    torch.testing.assert_close(load_restorer(bundle)(photo), tiny_restorer()(photo), rtol=0, atol=0)
    assert type(load_model(bundle)).__name__ == "BundleModel"


def test_the_restorer_is_left_as_it_was(quick: list[Any], tmp_path: Path):
    restorer = tiny_restorer()
    restorer.network.train()
    export_bundle(restorer, tmp_path / "out", source={}, evaluation={"psnr": 24.75})
    assert restorer.network.training
    assert "- psnr: 24.75" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("fault", "message"), [
    (perturb, r"^model\.onnx: differs from the network by .* at most 0\.0001 is allowed\. Nothing was exported"),
    (fix_batch, r"^model\.onnx: refuses an input of shape \(1, 3, 29, 37\) \(.*batch|dimension"),
])
def test_a_fault_planted_after_the_export_leaves_nothing(quick: list[Any], tmp_path: Path, fault: Any, message: str):
    quick.append(fault)
    with pytest.raises(VerificationError, match=message):
        export_bundle(tiny_restorer(), tmp_path / "out", source={})
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_not_finite_do_not_pass(bundle: Path):
    """NaN is not above any tolerance, and must not hide behind an input that agrees."""
    good = smooth_images((1, 16, 16))
    with pytest.raises(VerificationError, match="differs from the network by nan"):
        verify(bundle / "model.onnx", tiny_restorer().network, [good, good * float("nan"), good], tolerance=1e-4)


def test_no_model_at_all(tmp_path: Path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(VerificationError, match=r"x\.onnx: onnxruntime does not take it"):
        verify(tmp_path / "x.onnx", nn.Identity(), [], tolerance=1.0)


class OneSize(nn.Module):
    """Reshapes to the size of the traced image: the exporter writes it without complaint."""

    def forward(self, photo: Tensor) -> Tensor:
        return photo.reshape(2, 3, 40, 40) * 2


class OneBranch(nn.Module):
    """Goes a way of its own at the traced size: the exporter cannot tell what to do at others."""

    def forward(self, photo: Tensor) -> Tensor:
        return photo * 2 if photo.shape[2] == 40 else photo


@pytest.mark.parametrize(("network", "message"), [
    (OneSize(), r"x\.onnx: refuses an input of shape \(1, 3, 40, 40\) \("),
    (OneBranch(), r"x\.onnx: the network cannot be exported at any size \("),
])
def test_a_network_of_one_size_is_refused(tmp_path: Path, network: nn.Module, message: str):
    path = tmp_path / "x.onnx"
    with pytest.raises(VerificationError, match=message):  # noqa: PT012
        export_onnx(network, path, multiple=16)
        verify(path, nn.Identity(), [smooth_images((1, 40, 40))], tolerance=10.0)


def test_photos_of_several_sizes_are_all_tried():
    photos = [torch.zeros(3, 32, 32), torch.zeros(3, 20, 31), torch.zeros(3, 32, 32)]
    shapes = [tuple(batch.shape) for batch in check_inputs(32, 16, photos)]
    assert shapes[2:] == [(1, 3, 32, 32), (2, 3, 32, 32), (1, 3, 20, 31)]
    with pytest.raises(RangeError, match=r"photo for the check: .*8-bit data"):
        check_inputs(32, 16, [torch.full((3, 4, 4), 255.0)])


def test_only_a_bundle_is_replaced_and_only_by_a_checked_one(quick: list[Any], tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    export_bundle(tiny_restorer(), out, source={"weights": "first"})
    first = contents(out)
    with pytest.raises(UsageError, match="--overwrite to replace"):
        export_bundle(tiny_restorer(), out, source={})
    with pytest.raises(VerificationError):
        export_bundle(tiny_restorer(seed=1), out, source={}, overwrite=True)
    assert contents(out) == first
    (out / "restored").mkdir()
    (out / "restored" / "a.png").write_text("made by the runner")
    export_bundle(tiny_restorer(), out, source={"weights": "second"}, overwrite=True)
    assert "second" in (out / "README.md").read_text()
    assert (out / "restored" / "a.png").read_text() == "made by the runner"
    assert {path.name for path in out.iterdir()} == {*first, "restored"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    out.rename(short_sibling(out, "old"))  # as an export leaves it that is killed between its renames
    with pytest.raises(UsageError, match="exists already"):
        export_bundle(tiny_restorer(), out, source={})
    assert (out / "restored" / "a.png").is_file()
    (tmp_path / "file").write_text("a note")
    for other in (tmp_path, tmp_path / "file"):
        with pytest.raises(UsageError, match="is something else and is not replaced"):
            export_bundle(tiny_restorer(), other, source={}, overwrite=True)
    assert (tmp_path / "file").read_text() == "a note"


def never(*_: object, **__: object) -> None:
    raise AssertionError("a file that is not the right one was opened")


def test_overwrite_onto_a_link_replaces_the_bundle_it_leads_to(quick: list[Any], tmp_path: Path):
    home, link = tmp_path / "there" / "bundle", tmp_path / "link"
    home.parent.mkdir()
    link.symlink_to(home)  # to nowhere yet
    for turn in ("first", "second"):
        export_bundle(tiny_restorer(), link, source={"weights": turn}, overwrite=turn == "second")
        assert link.is_symlink()
        assert turn in (home / "README.md").read_text()
        assert [path.name for path in home.parent.iterdir()] == ["bundle"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    (home / "model.onnx").rename(tmp_path / "model.onnx")
    (home / "model.onnx").symlink_to(tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").read_bytes()
    quick.append(lambda model: setattr(model, "doc_string", "third"))
    export_bundle(tiny_restorer(), home, source={}, overwrite=True)
    assert not (home / "model.onnx").is_symlink()
    assert (tmp_path / "model.onnx").read_bytes() == before, "what a link in the bundle led to stays"


def test_a_bundle_of_the_longest_name(quick: list[Any], tmp_path: Path):
    out = tmp_path / ("x" * 255)
    for overwrite in (False, True):
        export_bundle(tiny_restorer(), out, source={}, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("text", ["{}", '{"name": "mine"}', '{"sha256": {}, "size": 4}'])
def test_a_folder_with_a_bundle_json_of_others_is_no_bundle(text: str, quick: list[Any], tmp_path: Path):
    (tmp_path / "bundle.json").write_text(text)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="is something else and is not replaced"):
        export_bundle(tiny_restorer(), tmp_path, source={}, overwrite=True)
    (tmp_path / "bundle.json").write_text("")
    with pytest.raises(UsageError, match=r"bundle\.json: is damaged \(empty\)"):
        export_bundle(tiny_restorer(), tmp_path, source={}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "bundle.json"]


def test_a_byte_order_mark_is_passed_over(bundle: Path, tmp_path: Path):
    copied = shutil.copytree(bundle, tmp_path / "bundle")
    (copied / "bundle.json").write_bytes(b"\xef\xbb\xbf" + (bundle / "bundle.json").read_bytes())
    assert load_bundle(copied).size == 32


def test_a_changed_file_is_noticed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copied = shutil.copytree(bundle, tmp_path / "bundle")
    with (copied / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with monkeypatch.context() as patched:
        patched.setattr("adapt.exporting.bundle.open_session", never)
        with pytest.raises(WeightsError, match=r"model\.onnx: is not the file that bundle\.json names"):
            load_bundle(copied)
    for text in ("[]", "{", "{}"):
        (copied / "bundle.json").write_text(text)
        with pytest.raises(WeightsError, match=r"not a bundle: its bundle\.json cannot be read"):
            load_bundle(copied)


def test_a_bundle_checks_its_input(bundle: Path):
    model = load_bundle(bundle)
    assert model.size == 32
    with pytest.raises(ShapeError, match="expected a batch"):
        model(torch.zeros(3, 16, 16))
    with pytest.raises(RangeError, match="divide by 255"):
        model(torch.full((1, 3, 16, 16), 255.0))


@pytest.mark.parametrize(("device", "available", "expected"), [
    (None, [CPU], [CPU]),
    (None, [CUDA, CPU], ["0", CPU]),
    ("cpu", [CUDA, CPU], [CPU]),
    ("cuda", [CUDA, CPU], ["0", CPU]),
    ("cuda:1", [CUDA, CPU], ["1", CPU]),
    ("cuda", [CPU], "--device cuda: onnxruntime, which runs bundles, has none here"),
    ("mps", [CUDA, CPU], "--device mps: onnxruntime, which runs bundles, has none here"),
])
def test_a_bundle_runs_on_the_device_that_is_named(
    device: str | None, available: list[str], expected: list[str] | str, bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[list[Any]] = []
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: available)
    monkeypatch.setattr("adapt.exporting.bundle.open_session", lambda path, providers, data: opened.append(providers))
    chosen = None if device is None else torch.device(device)
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            load_model(bundle, chosen)
        return
    load_model(bundle, chosen)
    assert [each if isinstance(each, str) else each[1]["device_id"] for each in opened[0]] == expected


def run_model(bundle: Path, photos: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(bundle / "run_model.py"), str(photos), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_runner(bundle: Path, tmp_path: Path):
    photos, out = tmp_path / "phötös", tmp_path / "out"
    (photos / "deep").mkdir(parents=True)
    pixels = (smooth_images((1, 32, 32))[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(photos / "deep" / "ä 1.png")
    lying = Image.fromarray(np.rot90(pixels))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise, to see it upright
    lying.save(photos / "turned.png", exif=exif)
    Image.fromarray(pixels).save(photos / "turned.bmp")
    grey = pixels[..., 1].astype(np.uint16) * 257
    Image.fromarray(grey).save(photos / "grey16.png")
    Image.fromarray(pixels[..., 1]).save(photos / "grey8.jpg", quality=100)
    with Image.open(photos / "grey8.jpg") as opened:
        grey8 = np.repeat(np.asarray(opened)[..., None], 3, axis=2)
    (photos / "bad.png").write_bytes(b"no image")
    done = run_model(bundle, photos, out)
    assert done.returncode == 3, done.stderr
    assert "bad.png: cannot be read" in done.stderr
    expected = {
        "deep/ä 1.png": pixels,
        "turned_png.png": pixels,
        "turned_bmp.png": pixels,
        "grey16.png": np.repeat(pixels[..., 1:2], 3, axis=2),
        "grey8.png": grey8,
    }
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {*expected, "restored.json", "log.jsonl"}
    for name, photo in expected.items():
        restored = np.asarray(Image.open(out / name)).astype(float)
        own = tiny_restorer()(torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255)[0] * 255
        if name.startswith("grey"):  # as adapt restore: the network's tint is taken away
            assert (own.amax(0) - own.amin(0)).max() > 2, "the network tints, else this shows nothing"
            own = own.mean(0, keepdim=True).expand(3, -1, -1)
        assert np.abs(restored - own.permute(1, 2, 0).numpy()).max() <= 0.51, name
    before = (out / "grey16.png").stat().st_mtime_ns
    again = run_model(bundle, photos, out)
    assert again.stderr.count("exists already, left alone") == 5
    assert (out / "grey16.png").stat().st_mtime_ns == before


def test_runner_names_what_it_leaves_out(bundle: Path, tmp_path: Path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (32, 32), (90, 80, 70)).save(photos / "a.gif")
    (photos / "._a.gif").write_bytes(b"hidden, beside every file on some discs")
    (photos / "notes.txt").write_text("no photo")
    done = run_model(bundle, photos, out)
    assert (done.returncode, f"{photos / 'notes.txt'}: left out, no photo by its name" in done.stderr) == (0, True)
    assert "._a.gif" not in done.stderr
    (photos / "b.DNG").write_bytes(b"II*\0")
    (photos / "c.heic").write_bytes(b"")
    done = run_model(bundle, photos, out)
    assert done.returncode == 3
    for file in (photos / "b.DNG", photos / "c.heic"):
        reason = f"{file.suffix} is camera RAW or HEIC, which Pillow does not read; convert it to PNG first"
        assert f"{file}: cannot be read ({reason})" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "log.jsonl", "restored.json"]


def test_runner_knows_the_same_photos_by_their_names():
    assert runner.SUFFIXES | runner.UNREAD == SUFFIXES
    assert runner.UNREAD > RAW_SUFFIXES


def test_runner_refuses(bundle: Path, tmp_path: Path):
    inside = run_model(bundle, tmp_path, tmp_path / "out")
    assert (inside.returncode, "lies inside the photos" in inside.stderr) == (2, True)
    empty = run_model(bundle, tmp_path / "none", tmp_path / "out")
    assert (empty.returncode, empty.stderr.strip()) == (2, f"{tmp_path / 'none'}: no such folder or file")
    photos, out = tmp_path / "photos", tmp_path / "out"
    for folder in (photos, out):
        folder.mkdir()
        Image.new("RGB", (32, 32), (90, 80, 70)).save(folder / "a.png")
    before = contents(out)
    occupied = run_model(bundle, photos, out)
    assert (occupied.returncode, occupied.stderr.strip()) == (
        2, f"{out}: expected a new folder or one of an earlier run; it holds other files"
    )
    assert contents(out) == before


def test_runner_and_restore_know_each_others_folders(bundle: Path, tmp_path: Path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (32, 32), (90, 80, 70)).save(photos / "a.png")
    assert run_model(bundle, photos, out).returncode == 0
    assert adapt.restore(bundle, photos, out, device="cpu").skipped == 1
    assert run_model(bundle, photos, out).stderr.count("exists already, left alone") == 1
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    about = json.loads((other / "bundle.json").read_text())
    about["sha256"]["model.onnx"] = "0" * 64
    (other / "bundle.json").write_text(json.dumps(about))
    before = contents(out)
    done = run_model(other, photos, out)
    assert (done.returncode, done.stderr.strip()) == (
        2, f"{out}: holds images of another model; choose another folder"
    )
    assert contents(out) == before


def test_runner_is_short_and_needs_three_libraries(bundle: Path):
    text = (bundle / "run_model.py").read_text()
    assert len(text.splitlines()) < 440
    imported: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == {
        "numpy", "onnxruntime", "PIL",
    }
