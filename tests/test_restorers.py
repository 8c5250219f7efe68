"""SwinIR against the public implementation, and weight files in every wrapping."""

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SMALL_SWINIR, lively_swinir
from reference import Reference

from adapt.errors import RangeError, ShapeError, UsageError, WeightsError
from adapt.loading import load_restorer
from adapt.restorers.base import Restorer, load_restorer_file
from adapt.restorers.swinir import SwinBlock, SwinIR, shift_mask, swinir_settings
from adapt.settings import SwinIRSettings
from adapt.weights import MismatchError, load_weights, read_state, write_state


@pytest.mark.parametrize("name", [
    "swinir_small_unshuffle", "swinir_small_pad", "swinir_small_denoise", "swinir_official_128", "swinir_official_512",
])
def test_fixture(reference: Reference, name: str):
    fixture, arrays = reference.json(name), reference.arrays(name)
    network = reference.fill.load(SwinIR(SwinIRSettings(**fixture["config"])).eval())
    assert sum(p.numel() for p in network.parameters()) == fixture["n_params"]
    inferred = swinir_settings(network.state_dict()).model_dump()
    assert {key: inferred[key] for key in fixture["config"]} == fixture["config"]
    for tag, call in fixture["inputs"].items():
        found = re.match(r"fill.smooth\('([^']+)', \[([^\]]+)\]", call)
        assert found is not None
        x = torch.from_numpy(reference.fill.smooth(found[1], [int(n) for n in found[2].split(",")]))
        with torch.no_grad():
            output = network(x)
        stride = fixture["stride"]
        np.testing.assert_allclose(output[..., ::stride, ::stride], arrays[f"out_{tag}"], rtol=0, atol=1e-5)


def test_manifest(reference: Reference):
    manifest = reference.manifest("swinir_dtbfr_gan")
    state = {key: torch.empty(shape, device="meta") for key, shape in manifest["tensors"].items()}
    with torch.device("meta"):
        own = SwinIR(swinir_settings(state)).state_dict()
    assert {key: list(value.shape) for key, value in own.items()} == manifest["tensors"]


def test_stored_buffers(reference: Reference):
    """Other tools read masks and indices from our files, so they are those of the public files, value for value."""
    manifest = reference.manifest("swinir_dtbfr_gan")
    state = SwinIR(SwinIRSettings(**manifest["config"])).state_dict()
    for key, stored in manifest["not_filled"].items():
        values = state[key].numpy()
        assert values.dtype == stored["dtype"]
        assert hashlib.sha256(values.tobytes()).hexdigest() == stored["sha256_of_values"], key


@pytest.mark.parametrize("size", [(16, 16), (37, 51), (5, 70), (9, 9), (8, 15), (1, 3)])
def test_any_size_is_as_if_mirrored_by_hand(size: tuple[int, int], gen: torch.Generator):
    """Where the border is wider than the image, it is mirrored once, and then its last row or column goes on."""
    photo = torch.rand(2, 3, *size, generator=gen)
    borders = [-side % 16 for side in size]
    mirrored = [min(border, side - 1) for border, side in zip(borders, size, strict=True)]
    rest = [border - inner for border, inner in zip(borders, mirrored, strict=True)]
    around = [(0, 0), (0, 0)]
    by_hand = np.pad(photo.numpy(), around + [(0, n) for n in mirrored], mode="reflect")
    by_hand = np.pad(by_hand, around + [(0, n) for n in rest], mode="edge")
    assert by_hand.shape[2] % 16 == by_hand.shape[3] % 16 == 0
    network = lively_swinir()
    with torch.no_grad():
        expected = network(torch.from_numpy(by_hand))[..., : size[0], : size[1]]
        torch.testing.assert_close(network(photo), expected, rtol=0, atol=1e-6)


def test_a_shifted_block_sees_its_neighbourhood_and_no_more():
    """The shift cuts the image into bands: half a window, whole windows, half a window. What one token becomes
    depends on the tokens of its own cell of bands and on all of them; nothing comes around the edge."""
    side, height, width = 4, 8, 12
    block = SwinBlock(SMALL_SWINIR, 2, shifted=True)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    x = torch.randn(1, height, width, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = shift_mask(height, width, side, reference=x)
    rows = [0, 0, 1, 1, 1, 1, 2, 2]
    columns = [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    for row, column in ((0, 0), (1, 7), (3, 5), (7, 11), (6, 2)):
        (gradient,) = torch.autograd.grad(block(x, mask)[0, row, column].sum(), x)
        strength = gradient[0].abs().amax(dim=-1)
        seen = strength > 1e-9 * strength.max()  # the mask is -100, not minus infinity
        expected = torch.tensor([[a == rows[row] and b == columns[column] for b in columns] for a in rows])
        assert torch.equal(seen, expected), (row, column)


def test_a_photo_does_not_depend_on_its_batch(gen: torch.Generator):
    photos = torch.rand(3, 3, 32, 32, generator=gen)
    torch.testing.assert_close(lively_swinir()(photos)[1:2], lively_swinir()(photos[1:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("change", "message"), [
    ({"sf": 3}, "nearest[+]conv doubles the size: sf must be a power of two, got 3"),
    ({"num_heads": [5]}, "embed_dim 12 is not a multiple of 5 heads"),
    ({"num_heads": [2, 2]}, "depths and num_heads must be equally long, got 1 and 2"),
    ({"unshuffle_scale": 8}, "sf 4 is not a multiple of unshuffle_scale 8"),
])
def test_layouts_that_cannot_be_built(change: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        SwinIR(SMALL_SWINIR.model_copy(update=change))


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"state_dict": s},
    lambda s: {"params": {}, "params_ema": s},
    lambda s: {f"module.{k}": v for k, v in s.items()},
    lambda s: {"model": {"state_dict": {f"module.{k}": v for k, v in s.items()}}, "epoch": 3},
])
def test_wrappings(wrap, tmp_path: Path, gen: torch.Generator):
    network = lively_swinir()
    torch.save(wrap(network.state_dict()), tmp_path / "x.pth")
    photo = torch.rand(1, 3, 32, 32, generator=gen)
    restored = load_restorer_file(tmp_path / "x.pth")(photo)
    torch.testing.assert_close(restored, network(photo).clamp(0, 1), rtol=0, atol=1e-6)


def test_a_public_file_of_full_size_loads(reference: Reference, tmp_path: Path):
    manifest = reference.manifest("swinir_dtbfr_gan")
    network = reference.fill.load(SwinIR(SwinIRSettings(**manifest["config"])))
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, tmp_path / "swinir_gan_v1.pth")
    restorer = load_restorer(tmp_path / "swinir_gan_v1.pth")
    assert (restorer.architecture, restorer.size) == ("swinir", 512)


def test_a_checkpoint_opens_in_other_tools(tmp_path: Path, gen: torch.Generator):
    """Names and shapes are the public ones, so the loaders of the field take the file (with 64 features, their fixed
    width)."""
    spandrel = pytest.importorskip("spandrel", reason="the extra `models` is not installed")
    network = lively_swinir(SMALL_SWINIR.model_copy(update={"num_feat": 64}))
    torch.save(network.state_dict(), tmp_path / "x.pth")
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / "x.pth").model.eval()
    photo = torch.rand(1, 3, 32, 32, generator=gen)
    with torch.no_grad():
        torch.testing.assert_close(theirs(photo), network(photo), rtol=0, atol=1e-5)


def test_report_of_keys(tmp_path: Path):
    state = lively_swinir().state_dict()
    state["conv_last.bias"] = torch.zeros(5)
    state["more"] = state.pop("norm.weight")
    expected = r"1 missing \(norm\.weight\); 1 unexpected \(more\); 1 mis-shaped"
    with pytest.raises(MismatchError, match=expected) as error:
        load_weights(lively_swinir(), state, source="file")
    assert error.value.report.misshapen == ["conv_last.bias: expected (3,), got (5,)"]
    state = lively_swinir().state_dict()
    state["norm.bias"][0] = float("nan")
    with pytest.raises(WeightsError, match=r"1 tensors hold NaN or infinity \(norm\.bias\)"):
        load_weights(lively_swinir(), state, source="file")


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": Evil()}, tmp_path / "evil2.pth")
    with pytest.raises(WeightsError, match=r"evil.pth: damaged, or a pickle that holds more than tensors"):
        read_state(tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil2.pth: not opened: to read it, [\w.]*print would have to be run"):
        read_state(tmp_path / "evil2.pth")
    assert "ran" not in capsys.readouterr().out
    web_page, pointer = b"<!DOCTYPE html>\n<html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:00"
    for name, data, reason in (
        ("empty.pth", b"", "expected a checkpoint .*, got an empty file"),
        ("text.pth", b"hello there", "expected a checkpoint .*, got a file that starts with b'hello there'"),
        ("text.safetensors", b"hello there", "expected a checkpoint .*, got a file that starts with b'hello there'"),
        ("page.pth", web_page, "expected a checkpoint .*, got a web page; fetch or choose it again"),
        ("pointer.safetensors", pointer, "got a Git LFS pointer and not the file it points to"),
        ("cut.pth", (tmp_path / "evil2.pth").read_bytes()[:200], "damaged, or not a checkpoint"),
        ("cut.safetensors", b"\x40\0\0\0\0\0\0\0{cut", "damaged, or not a safetensors file"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match=f"{name}: .*{reason}"):
            read_state(tmp_path / name)
    torch.save({"epoch": 1}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_state(tmp_path / "none.pth")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not a restorer this version knows; known are: swinir"):
        load_restorer_file(tmp_path / "other.pth")


def test_the_same_weights_are_the_same_bytes_in_every_process(tmp_path: Path):
    code = (
        "import torch, sys; from pathlib import Path; from adapt.weights import write_state;"
        " write_state(Path(sys.argv[1]), {'b': torch.arange(3.0), 'a': torch.ones(2, 2)},"
        " {'settings': 'Größe', 'architecture': 'x', 'note': '1'})"
    )
    for name in ("1", "2", "3"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in ("1", "2", "3")}) == 1
    state, metadata = read_state((tmp_path / "1").rename(tmp_path / "1.safetensors"))
    assert torch.equal(state["b"], torch.arange(3.0))
    assert metadata == {"settings": "Größe", "architecture": "x", "note": "1"}


def test_the_ending_of_a_name_does_not_say_what_a_file_is(tmp_path: Path):
    write_state(tmp_path / "x.pth", {"a": torch.ones(2)}, {"note": "y"})
    torch.save({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert read_state(tmp_path / "x.pth")[1] == {"note": "y"}
    assert torch.equal(read_state(tmp_path / "x.safetensors")[0]["a"], torch.ones(2))


def test_half_precision_does_not_overflow(tmp_path: Path):
    with pytest.raises(WeightsError, match="big holds values above 65504, too large for half precision"):
        write_state(tmp_path / "x", {"big": torch.tensor([1e5])}, {}, half=True)
    assert not (tmp_path / "x").exists()


def test_half_precision_halves_the_file(tmp_path: Path):
    state = {"a": torch.rand(1000, generator=torch.Generator().manual_seed(0))}
    write_state(tmp_path / "a", state, {})
    write_state(tmp_path / "b", state, {"note": "x"}, half=True)
    assert (tmp_path / "b").stat().st_size < 0.6 * (tmp_path / "a").stat().st_size


def test_input_is_checked():
    restorer = load_restorer("tiny")
    with pytest.raises(RangeError, match=r"8-bit data\? divide by 255"):
        restorer(torch.full((1, 3, 16, 16), 200.0))
    with pytest.raises(ShapeError, match=r"expected a batch of shape \(B, 3, H, W\), got \(3, 16, 16\)"):
        restorer(torch.zeros(3, 16, 16))
    for shape in ((0, 3, 16, 16), (1, 3, 0, 16)):
        with pytest.raises(ShapeError, match=r"^tiny/onestep: expected one image or more, got an empty batch of shap"):
            restorer(torch.zeros(shape))
    for other, kind in ((np.zeros((1, 3, 16, 16), np.float32), "numpy.ndarray; torch.from_numpy"), ([0.5], "list")):
        with pytest.raises(ShapeError, match=f"^tiny/onestep: expected a tensor of shape .*, got a {kind}"):
            restorer(other)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8])
def test_a_photo_of_another_type_is_converted(dtype: torch.dtype, gen: torch.Generator):
    restorer = Restorer("small", "swinir", SMALL_SWINIR, lively_swinir())
    photo = torch.rand(2, 3, 16, 16, generator=gen).round(decimals=0 if dtype == torch.uint8 else 2).to(dtype)
    restored = restorer(photo)
    assert restored.dtype == torch.float32
    assert torch.equal(restored, restorer(photo.float()))
