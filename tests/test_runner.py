"""A bundle's runner beside `adapt restore` of the same bundle: the same images, names, failures and exit codes."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import adapt
from encoded import png, tiff
from PIL import Image

from adapt.digests import file_digest
from adapt.exporting import runner
from adapt.photos.files import read_image

SIDE = 32


def make_bundle(folder: Path, *, fidelity: bool) -> Path:
    """A bundle with a network of one layer, written by hand: it blurs, tints, and keeps to no size."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[range(3), range(3)] = [[0.02, 0.05, 0.03], [0.1, 0.6, 0.05], [0.04, 0.06, 0.05]]
    tint = np.array([0.06, 0.0, -0.03], np.float32)
    nodes = [helper.make_node("Conv", ["photo", "kernel", "tint"], ["blurred"], pads=[1, 1, 1, 1])]
    inputs = [helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["batch", 3, "height", "width"])]
    if fidelity:
        inputs.append(helper.make_tensor_value_info("fidelity", TensorProto.FLOAT, [1]))
        nodes += [helper.make_node("Sub", ["photo", "blurred"], ["detail"]),
                  helper.make_node("Mul", ["detail", "fidelity"], ["kept"]),
                  helper.make_node("Add", ["blurred", "kept"], ["restored"])]
    else:
        nodes[0].output[0] = "restored"
    output = helper.make_tensor_value_info("restored", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    weights = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(tint, "tint")]
    graph = helper.make_graph(nodes, "one layer", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    folder.mkdir()
    save(model, str(folder / "model.onnx"))
    shutil.copyfile(runner.__file__, folder / "run_model.py")
    about = {
        "architecture": "codeformer" if fidelity else "swinir",
        "size": SIDE,
        "one_size": False,
        "fidelity": {"name": "fidelity", "default": 0.25} if fidelity else None,
        "sha256": {"model.onnx": file_digest(folder / "model.onnx")},
    }
    (folder / "bundle.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {name: make_bundle(folder / name, fidelity=name == "fidelity") for name in ("plain", "fidelity")}


def run_model(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)


def restore(monkeypatch: pytest.MonkeyPatch, bundle: Path, photos: Path, out: Path) -> int:
    return adapt(monkeypatch, "restore", bundle, photos, "-o", out, "--device", "cpu", "--faces", "aligned")


def made(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


# ---------------------------------------------------------------- photos of every kind


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: shades, edges and a little noise."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    shades = np.stack([255 * x, 255 * y * y, 120 + 100 * np.sin(9 * x + 5 * y)], axis=-1)
    shades[(x > 0.6) & (y < 0.4)] = (230, 40, 90)
    noise = np.random.default_rng(seed).normal(0, 6, shades.shape)
    return (shades + noise).clip(0, 255).astype(np.uint8)


def deep(seed: int = 1) -> np.ndarray:
    """The same with 16 bits, (H, W, 3) uint16, the low bytes unlike the high ones."""
    low = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3))
    return (image(SIDE, SIDE).astype(int) * 256 + low).astype(np.uint16)


def pillow(kind: str, mode: str = "RGB", sides: tuple[int, int] = (SIDE, SIDE), **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image(*sides)).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def curve(*numbers: float, kind: int) -> bytes:
    """A tone curve by its formula, as the ICC numbers them."""
    return b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", kind, 0, *(round(n * 65536) for n in numbers))


GAMMA = curve(1.8, kind=0)
SRGB_COLUMNS = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
GENERIC_COLUMNS = ((0.4543, 0.2420, 0.0149), (0.3533, 0.6736, 0.0906), (0.1566, 0.0844, 0.7194))


def icc(space: str, gamma: bytes = GAMMA, columns: tuple[tuple[float, ...], ...] = GENERIC_COLUMNS) -> bytes:
    """An ICC profile, version 4: for grey, or for colours with the primaries of "Generic RGB"."""
    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    white = (0.9642, 1.0, 0.8249)
    tags = {b"wtpt": xyz(*white)}
    if space == "RGB ":
        tags |= {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
        tags |= {b"rTRC": gamma, b"gTRC": gamma, b"bTRC": gamma}
    else:
        tags[b"kTRC"] = gamma
    index, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        index += struct.pack(">4sII", name, start + len(body), len(content))
        body += content
    kinds = (b"mntr", space.encode(), b"XYZ ", b"acsp")
    head = struct.pack(">I4sI4s4s4s12x4s", start + len(body), b"", 0x04200000, *kinds)
    head = head.ljust(68, b"\0") + struct.pack(">3i", *(round(value * 65536) for value in white))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def in_png(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"icc\0\0" + zlib.compress(profile)


def turned(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right shows it upright
    return pillow(kind, exif=exif)


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(image(SIDE, SIDE, seed)[:: 1 - 2 * seed]) for seed in (0, 1)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def flipped(data: bytes, kind: bytes) -> bytes:
    """One bit of the checksum of a PNG chunk turned over."""
    at = data.index(kind)
    end = at + 4 + struct.unpack_from(">I", data, at - 4)[0]
    return data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]


NEARLY_SRGB = icc("RGB ", curve(2.39, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, kind=3), SRGB_COLUMNS)
GREY16 = deep()[..., :1]
ALPHA16 = deep(2)[..., 2:]

GOOD: dict[str, Callable[[], bytes]] = {
    "same.png": lambda: pillow("PNG"),
    "twice.png": lambda: pillow("PNG", sides=(64, 64)),
    "nearly square.png": lambda: pillow("PNG", sides=(129, 130)),
    "six.png": lambda: pillow("PNG", sides=(6, 6)),
    "one.png": lambda: pillow("PNG", sides=(1, 1)),
    "large.jpg": lambda: pillow("JPEG", sides=(1200, 1200)),
    "progressive.jpe": lambda: pillow("JPEG", progressive=True),
    "webp.webp": lambda: pillow("WEBP"),
    "bmp.bmp": lambda: pillow("BMP"),
    "row of 216.bmp": lambda: pillow("BMP", sides=(72, 72)),
    "avif.avif": lambda: pillow("AVIF"),
    "named otherwise.jpg": lambda: pillow("PNG"),
    "bit.png": lambda: pillow("PNG", "1"),
    "grey.jpg": lambda: pillow("JPEG", "L"),
    "la.png": lambda: pillow("PNG", "LA"),
    "rgba.png": lambda: pillow("PNG", "RGBA"),
    "palette.png": lambda: pillow("PNG", "P"),
    "palette seen through.png": lambda: pillow("PNG", "P", transparency=3),
    "key.png": lambda: pillow("PNG", transparency=(230, 40, 90)),
    "cmyk.jpg": lambda: pillow("JPEG", "CMYK"),
    "cmyk.tif": lambda: pillow("TIFF", "CMYK"),
    "lab.tif": lambda: pillow("TIFF", "LAB"),
    "ycbcr.tif": lambda: pillow("TIFF", "YCbCr"),
    "colour 16.png": lambda: png(deep(), 2),
    "colour 16.tif": lambda: tiff(deep(), photometric="rgb"),
    "alpha 16.png": lambda: png(np.concatenate([deep(), ALPHA16], axis=2), 6),
    "grey 16.png": lambda: png(GREY16, 0),
    "grey alpha 16.png": lambda: png(np.concatenate([GREY16, ALPHA16], axis=2), 4),
    "grey 16.tif": lambda: tiff(GREY16[..., 0], photometric="minisblack"),
    "white is zero.tif": lambda: tiff(GREY16[..., 0], photometric="miniswhite"),
    "grey 12.tif": lambda: tiff12(),
    "profile.jpg": lambda: pillow("JPEG", icc_profile=icc("RGB ")),
    "profile.png": lambda: pillow("PNG", "P", icc_profile=icc("RGB ")),
    "profile grey.png": lambda: pillow("PNG", "L", icc_profile=icc("GRAY")),
    "profile of colour on grey.png": lambda: pillow("PNG", "L", icc_profile=icc("RGB ")),
    "profile of grey on colour.png": lambda: pillow("PNG", icc_profile=icc("GRAY")),
    "profile cut.png": lambda: pillow("PNG", icc_profile=icc("RGB ")[:200]),
    "profile odd.png": lambda: pillow("PNG", icc_profile=icc("RGB ", b"what" + bytes(20))),
    "profile srgb.png": lambda: pillow("PNG", icc_profile=NEARLY_SRGB),
    "profile 16.png": lambda: png(deep(), 2, in_png(icc("RGB "))),
    "profile grey 16.png": lambda: png(GREY16, 0, in_png(icc("GRAY"))),
    "profile of colour on grey 16.png": lambda: png(GREY16, 0, in_png(icc("RGB "))),
    "profile of 3 MB.png": lambda: pillow("PNG", icc_profile=icc("RGB ") + bytes(3_000_000)),
    "text of 3 MB 16.png": lambda: png(deep(), 2, (b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3_000_000)))),
    "turned.jpg": lambda: turned("JPEG"),
    "turned.png": lambda: turned("PNG"),
    "turned.tif": lambda: turned("TIFF"),
    "turned.webp": lambda: turned("WEBP"),
    "moving.gif": lambda: animated("GIF"),
    "moving.png": lambda: animated("PNG"),
    "pages.tif": lambda: animated("TIFF"),
    "mpo.mpo": lambda: animated("MPO"),
}  # fmt: skip
BAD: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"no image",
    "portable.png": lambda: pillow("PPM"),
    "bomb.png": lambda: bomb(),
    "wide.png": lambda: pillow("PNG", sides=(32, 40)),
    "cut.jpg": lambda: pillow("JPEG")[:-200],
    "cut.png": lambda: pillow("PNG")[:-200],
    "without end.png": lambda: pillow("PNG")[:-12],
    "cut.tif": lambda: pillow("TIFF", compression="tiff_lzw")[:-200],
    "cut.webp": lambda: pillow("WEBP")[:-50],
    "cut.avif": lambda: pillow("AVIF")[:-100],
    "cut.gif": lambda: pillow("GIF", "P")[:-200],
    "checksum.png": lambda: flipped(pillow("PNG"), b"IDAT"),
    "float.tif": lambda: tiff(image(SIDE, SIDE)[..., 0].astype(np.float32) / 255),
    "long.tif": lambda: tiff(image(SIDE, SIDE)[..., 0].astype(np.int32)),
    "raw.dng": lambda: b"II*\0",
}


def bomb() -> bytes:
    """A PNG that says it has 100 million pixels."""
    data = pillow("PNG", "1")
    header = b"IHDR" + struct.pack(">II", 10_000, 10_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def tiff12() -> bytes:
    """Grey of 12 bits: two samples in three bytes."""
    values = GREY16[..., 0] >> 4
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(SIDE, SIDE, 2), axis=2)[..., 4:]
    strip = np.packbits(bits.reshape(-1)).tobytes()
    entries = [(256, 4, SIDE), (257, 4, SIDE), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
               (278, 4, SIDE), (279, 4, len(strip))]
    table = b"".join(
        struct.pack("<HHI", tag, kind, 1) + (struct.pack("<I", value) if kind == 4 else struct.pack("<HH", value, 0))
        for tag, kind, value in entries
    )
    return struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + struct.pack("<H", len(entries)) + table + bytes(4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, make in (GOOD | BAD).items():
        (folder / name).write_bytes(make())
    return folder


@pytest.fixture(scope="module", params=["plain", "fidelity"])
def pair(
    request: pytest.FixtureRequest, bundles: dict[str, Path], photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, str]:
    """What the runner and `adapt restore` made of all the photos, and what the runner said."""
    bundle, out = bundles[request.param], tmp_path_factory.mktemp("out")
    done = run_model(bundle / "run_model.py", photos, out / "runner")
    with pytest.MonkeyPatch.context() as monkeypatch:
        code = restore(monkeypatch, bundle, photos, out / "restore")
    assert (done.returncode, code) == (3, 3), done.stderr
    return out / "runner", out / "restore", done.stderr


@pytest.mark.parametrize("name", GOOD)
def test_the_same_image(name: str, pair: tuple[Path, Path, str]):
    ours, theirs, _ = pair
    stem, suffix = name.rsplit(".", 1)
    both = [f"{stem}_{suffix}.png", f"{stem}.png"]
    file = next(each for each in both if (theirs / each).exists())
    got, expected = (read_image(folder / file) for folder in (ours, theirs))
    assert got.shape == expected.shape == (3, SIDE, SIDE)
    # Of 16 bits the runner converts 8, by a curve that is steep below; what is sRGB is not converted at all.
    steps = {"profile 16.png": 2, "profile srgb.png": 0, "same.png": 0}.get(name, 1)
    assert (got - expected).abs().max() <= (steps + 0.01) / 255
    assert got.std() > 0.02 or name == "one.png", "else this shows nothing"


@pytest.mark.parametrize("name", BAD)
def test_the_same_failures(name: str, photos: Path, pair: tuple[Path, Path, str]):
    ours, theirs, said = pair
    reason = "Image size (100000000 pixels) exceeds limit" if name == "bomb.png" else ""
    assert f"{photos / name}: cannot be read ({reason}" in said
    assert not {f"{name[:-4]}.png", f"{name[:-4]}_{name[-3:]}.png"} & (made(ours) | made(theirs))


def test_planes_that_pillow_mixes_up_are_refused(bundles: dict[str, Path], tmp_path: Path):
    """Pillow gives noise for them, without a word; `adapt restore` reads them another way."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.tif").write_bytes(tiff(np.moveaxis(deep(), -1, 0), photometric="rgb", planarconfig="separate"))
    done = run_model(bundles["plain"] / "run_model.py", photos, tmp_path / "out")
    assert (done.returncode, "16-bit colours in separate planes" in done.stderr) == (3, True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much was taken")
def test_a_photo_of_a_camera_takes_little_memory(bundles: dict[str, Path], tmp_path: Path):
    """36 million pixels: the network never sees them, and floating-point numbers are made of one band at a time."""
    photos, small = tmp_path / "photos", tmp_path / "small"
    for folder in (photos, small):
        folder.mkdir()
        (folder / "b.png").write_bytes(pillow("PNG"))
    Image.fromarray(image(60, 60)).resize((6000, 6000)).save(photos / "a.jpg")
    program = (
        "import runpy, sys; del sys.argv[0]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    outs = tmp_path / "out", tmp_path / "alone"
    used = [run_model("-c", program, bundles["plain"] / "run_model.py", source, out)
            for source, out in zip((photos, small), outs, strict=True)]
    assert [each.returncode for each in used] == [0, 0], used[0].stderr
    assert f"{photos / 'a.jpg'}: resized from 6000 x 6000 to 32 x 32" in used[0].stderr
    assert [made(out) for out in outs] == [{"a.png", "b.png"}, {"b.png"}]
    with_it, without = (int(each.stdout) / 1024 for each in used)
    assert with_it - without < 600  # MiB: Pillow takes 137 for the image, float32 takes 412


# ---------------------------------------------------------------- folders, names, and going on


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pillow("PNG"))
    return folder


def test_the_same_names(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    apart = unicodedata.normalize("NFD", "Jürgen.png")
    assert apart != "Jürgen.png"
    photos = fill(
        tmp_path / "photos", apart, "sub/ä/測 1.png", "a.png", "a.jpg", "a_png.gif", "sub/c.JPG", "sub/c.png",
        "d.e.png", "notes.txt", ".hidden.png", ".hidden/b.png",
    )  # fmt: skip
    os.symlink(fill(tmp_path / "elsewhere", "one.png", "two/three.png"), photos / "linked")
    os.symlink(photos, photos / "sub" / "round")
    os.symlink(photos / "sub", photos / "before the folder itself")
    os.symlink(tmp_path / "gone", photos / "gone.png")
    bundle = bundles["plain"]
    done = run_model(bundle / "run_model.py", photos, tmp_path / "runner")
    assert (done.returncode, restore(monkeypatch, bundle, photos, tmp_path / "restore")) == (3, 3), done.stderr
    named = made(tmp_path / "restore")
    assert made(tmp_path / "runner") == named
    assert {"Jürgen.png", "sub/ä/測 1.png", "linked/one.png", "linked/two/three.png", "d.e.png"} < named
    assert len(named) == 10
    assert f"{photos / 'gone.png'}: cannot be read (no such file)" in done.stderr
    assert f"{photos / 'notes.txt'}: left out, no photo by its name" in done.stderr
    assert "hidden" not in done.stderr
    assert done.stderr.endswith(f"10 restored, 0 already there, 1 failed; in {tmp_path / 'runner'}\n")


def test_one_file(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photos = fill(tmp_path / "photos", "a.png", "b.png", "ü.txt")
    (photos / "cut.png").write_bytes(pillow("PNG")[:-200])
    program = bundles["fidelity"] / "run_model.py"
    for name, code in (("a.png", 0), ("ü.txt", 0), ("cut.png", 3)):
        out = tmp_path / "runner" / name, tmp_path / "restore" / name
        done = run_model(program, photos / name, out[0])
        assert (done.returncode, restore(monkeypatch, bundles["fidelity"], photos / name, out[1])) == (code, code)
        assert made(out[0]) == made(out[1]) == ({f"{name[:-4]}.png"} if code == 0 else set())
    for source, out, message in (
        (tmp_path / "none", tmp_path / "new", f"{tmp_path / 'none'}: no such folder or file"),
        (photos / "a.png", photos / "b.png", f"{photos / 'b.png'}: is a file; choose a folder"),
        (photos, photos / "out", f"{photos / 'out'}: lies inside the photos; choose an output folder elsewhere"),
        (tmp_path / "empty", tmp_path / "new", f"{tmp_path / 'empty'}: no photos there"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        done = run_model(program, source, out)
        assert (done.returncode, done.stderr.strip()) == (2, message)
    assert not (tmp_path / "new").exists()


def test_going_on(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photos, out = fill(tmp_path / "photos", "a.png", "sub/b.png"), tmp_path / "out"
    program = bundles["plain"] / "run_model.py"
    assert restore(monkeypatch, bundles["plain"], photos, out) == 0
    fill(photos, "sub/c.png")
    for counted in ("1 restored, 2 already there, 0 failed", "0 restored, 3 already there, 0 failed"):
        done = run_model(program, photos, out)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, f"{counted}; in {out}")
    assert [path.name for path in out.rglob("*") if path.name.endswith(".part")] == []
    claim = out / "restored.json"
    before = claim.read_text()
    for key, value in (("strength", 0.5), ("largest", True), ("max_faces", 2), ("boxes", "0"), ("frames", True)):
        claim.write_text(json.dumps(json.loads(before) | {key: value}))
        done = run_model(program, photos, out)
        option = key.replace("_", "-")
        assert done.stderr.strip() == f"{out}: holds images made with --{option}; choose another folder"
    claim.write_text(json.dumps(json.loads(before) | {"size": 64}))
    done = run_model(program, photos, out)
    message = f"{out}: holds images of 64 px, not 32; choose another folder"
    assert (done.returncode, done.stderr.strip()) == (2, message)
    for content in ("[" * 100_000, '{"size": ' + "9" * 5000 + "}", "[1]"):
        claim.write_text(content)
        done = run_model(program, photos, out)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"{claim}: ")


def test_another_model_than_the_bundles_is_refused(bundles: dict[str, Path], tmp_path: Path):
    bundle = shutil.copytree(bundles["plain"], tmp_path / "bundle")
    shutil.copyfile(bundles["fidelity"] / "model.onnx", bundle / "model.onnx")
    done = run_model(bundle / "run_model.py", fill(tmp_path / "photos", "a.png"), tmp_path / "out")
    message = f"{bundle / 'model.onnx'}: is not the file that bundle.json names; export it again"
    assert (done.returncode, done.stderr.strip()) == (2, message)


def test_help(bundles: dict[str, Path]):
    done = run_model(bundles["plain"] / "run_model.py", "--help")
    assert done.returncode == 0
    assert "PHOTOS is a folder, with the folders in it, or one file" in done.stdout


def test_what_is_not_the_runners_stays_and_is_named(bundles: dict[str, Path], tmp_path: Path):
    photos, out = fill(tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "out"
    program = bundles["plain"] / "run_model.py"
    assert run_model(program, photos / "a.png", out).returncode == 0
    before = (out / "a.png").read_bytes()
    (out / "a.png").write_bytes(pillow("PNG"))
    (out / "b.png").write_bytes(b"mine")
    done = run_model(program, photos, out)
    assert done.returncode == 3
    for name in ("a", "b"):
        assert f"{out / name}.png: is not what was made here, and is kept; move it elsewhere" in done.stderr
    assert ((out / "a.png").read_bytes(), (out / "b.png").read_bytes()) == (pillow("PNG"), b"mine")
    assert done.stderr.endswith(f"1 restored, 0 already there, 2 failed; in {out}\n")
    for name in ("a", "b"):
        (out / f"{name}.png").unlink()
    assert run_model(program, photos, out).returncode == 0
    assert (out / "a.png").read_bytes() == before


def test_runner_takes_every_name(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With separators of lines in it, of no Unicode, the longest there is; one that only the output cannot have fails.

    Then `adapt restore` finds all of it there."""
    longest = "x" * 251
    photos, out = fill(tmp_path / "photos", "gran\u2028ma.png", "aunt\x85x.png", "zzz.png"), tmp_path / "out"
    fill(photos, f"{longest}.png", f"y{longest[1:]}.png", f"y{longest[1:]}.bmp", os.fsdecode(b"m\xfcller.png"))
    program = bundles["plain"] / "run_model.py"
    for counted in ("5 restored, 0 already there, 2 failed", "0 restored, 5 already there, 2 failed"):
        done = run_model(program, photos, out)
        assert (done.returncode, done.stderr.count("cannot be written (File name too long)")) == (3, 2), done.stderr
        assert done.stderr.endswith(f"{counted}; in {out}\n")
    assert made(out) == {"gran\u2028ma.png", "aunt\x85x.png", f"{longest}.png", "zzz.png", "m\ufffdller.png"}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert restore(monkeypatch, bundles["plain"], photos, out) == 3
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}


@pytest.mark.parametrize(("file", "text", "message"), [
    ("restored.json", b"", "restored.json: is damaged (empty); choose another folder, or remove this one"),
    ("restored.json", b"garbage", "restored.json: is damaged (Expecting value"),
    ("restored.json", b"[]", "restored.json: is damaged (expected an object)"),
    ("restored.json", b"{}", "its restored.json is of something else"),
    ("log.jsonl", b"garbage\n", "log.jsonl, line 1: is damaged (Expecting value"),
])
def test_runner_names_a_damaged_state_file(
    file: str, text: bytes, message: str, bundles: dict[str, Path], tmp_path: Path
):
    photos, out = fill(tmp_path / "photos", "a.png"), tmp_path / "out"
    program = bundles["plain"] / "run_model.py"
    assert run_model(program, photos, out).returncode == 0
    good = (out / file).read_bytes()
    (out / file).write_bytes(text)
    done = run_model(program, photos, out)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    (out / file).write_bytes(b"\xef\xbb\xbf" + good)
    assert run_model(program, photos, out).returncode == 0
