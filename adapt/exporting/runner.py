"""Restores a folder of aligned face photos with model.onnx: python run_model.py PHOTOS OUT [--fidelity W]

Needs numpy, Pillow and onnxruntime. Lies beside model.onnx and bundle.json. Photos of a size that the model does not
take are resized, and named. Grey photos stay grey. Pictures that are there are left alone; those of another model or
another W are not mixed in: OUT/restored.json tells which they are of. What is not restored is named with the reason:
camera RAW and HEIC, which Pillow does not read, photos that are damaged, files of other kinds.
W is in [0, 1], for models that take it: 0 quality, 1 fidelity. Exit code 3: some photos could not be read.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".avif", ".mpo"}
RAW = (
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
)
UNREAD = {f".{kind}" for kind in (*RAW.split(), "heic", "heif", "hif")}  # photos too, but not for Pillow
GREY = ("1", "L", "LA", "La")


def read(path: Path) -> tuple[np.ndarray, bool]:
    """A picture as (1, 3, H, W) float32 RGB in [0, 1], the way up it was taken, and whether the file is grey."""
    if path.suffix.lower() in UNREAD:
        raise ValueError(f"{path.suffix} is camera RAW or HEIC, which Pillow does not read; convert it to PNG first")
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I"):  # 16-bit grey, which convert() would clip to white
            return np.repeat(np.asarray(picture, dtype=np.float32)[None, None] / 65535, 3, axis=1).clip(0, 1), True
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32).transpose(2, 0, 1)[None] / 255
        return pixels, picture.mode in GREY


def fit(pixels: np.ndarray, side: int, path: Path) -> np.ndarray:
    """A picture at the only size the model takes, (1, 3, side, side)."""
    height, width = pixels.shape[2:]
    if abs(height - width) > 0.01 * max(height, width):
        raise ValueError(f"not an aligned face: expected a square picture, got {width} x {height}; crop the face first")
    sys.stderr.write(f"{path}: resized from {width} x {height} to {side} x {side}\n")
    planes = [Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC) for plane in pixels[0]]
    return np.stack([np.asarray(plane) for plane in planes])[None].clip(0, 1)


def claim(out: Path, fidelity: float | None) -> dict[str, np.ndarray]:
    """Take a folder that is new, or of an earlier run that made the same; what the model takes beside the photo."""
    bundle = json.loads(Path(__file__).with_name("bundle.json").read_text(encoding="utf-8"))
    about = bundle["fidelity"]
    if fidelity is not None and not (about and 0 <= fidelity <= 1):
        sys.exit(f"--fidelity {fidelity}: " + ("expected a number in [0, 1]" if about else "this model takes none"))
    wanted = about and (about["default"] if fidelity is None else fidelity)
    made = {"model": bundle["sha256"]["model.onnx"], **({"fidelity": wanted} if about else {})}
    path, part = out / "restored.json", out / ".restored.json.part"
    if not path.exists():
        if out.exists() and any(not each.name.startswith(".") for each in out.iterdir()):
            sys.exit(f"{out}: expected a new folder or one of an earlier run; it holds other files")
        out.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        os.replace(part, path)
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["model"] != made["model"]:
        sys.exit(f"{out}: holds pictures of another model; choose another folder")
    if (known := found.get("fidelity")) != wanted:
        sys.exit(f"{out}: holds pictures of fidelity {known}, not {wanted}; choose another folder")
    return {about["name"]: np.array([wanted], np.float32)} if about else {}


def open_model() -> onnxruntime.InferenceSession:
    """The model, on CUDA where onnxruntime has it."""
    cuda = [("CUDAExecutionProvider", {"use_tf32": "0"})]
    available = cuda if cuda[0][0] in onnxruntime.get_available_providers() else []
    model = Path(__file__).with_name("model.onnx")
    return onnxruntime.InferenceSession(str(model), providers=[*available, "CPUExecutionProvider"])


def main(photos: Path, out: Path, fidelity: float | None) -> int:
    """Restore every photo; the number of photos that could not be read."""
    if photos.resolve() in (out.resolve(), *out.resolve().parents):
        sys.exit(f"{out}: lies inside the photos; choose an output folder elsewhere")
    found = sorted(path for path in photos.rglob("*") if not path.is_dir())
    shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(photos).parts)]
    files = [path for path in shown if path.suffix.lower() in SUFFIXES | UNREAD]
    for path in sorted({*shown} - {*files}):
        sys.stderr.write(f"{path}: left out, no photo by its name\n")
    if not files:
        sys.exit(f"{photos}: no photos there")
    chosen, session = claim(out, fidelity), open_model()
    name, (_, _, *sides) = session.get_inputs()[0].name, session.get_inputs()[0].shape
    shared = Counter(str(path.with_suffix("")).casefold() for path in files)
    failed = 0
    for path in files:
        alone = shared[str(path.with_suffix("")).casefold()] == 1  # else a.jpg and a.png would both become a.png
        stem = path.stem if alone else f"{path.stem}_{path.suffix[1:]}"
        target = out / path.relative_to(photos).with_name(f"{stem}.png")
        if target.exists():
            sys.stderr.write(f"{target}: exists already, left alone\n")
            continue
        try:
            pixels, grey = read(path)
            if isinstance(sides[0], int) and pixels.shape[2:] != tuple(sides):
                pixels = fit(pixels, sides[0], path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            sys.stderr.write(f"{path}: cannot be read ({error})\n")
            failed += 1
            continue
        restored = np.asarray(session.run(None, {name: pixels, **chosen})[0])[0].clip(0, 1)
        if grey:  # the network may tint: the mean of its channels, in all three
            restored = np.repeat(restored.mean(axis=0, keepdims=True), 3, axis=0)
        rounded = (restored * 255).round().astype(np.uint8).transpose(1, 2, 0)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        Image.fromarray(rounded).save(part, format="PNG")
        os.replace(part, target)  # whole or not there
        sys.stderr.write(f"{target}\n")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument, kind in (("photos", Path), ("out", Path), ("--fidelity", float)):
        parser.add_argument(argument, type=kind)
    given = parser.parse_args()
    sys.exit(3 if main(given.photos, given.out, given.fidelity) else 0)
