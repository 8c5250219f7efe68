"""Restores a folder of aligned face photos with model.onnx: python run_model.py PHOTOS OUT

Needs numpy, Pillow and onnxruntime. Lies beside model.onnx; any picture size, any format that Pillow reads.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def main(photos: Path, out: Path) -> int:
    """Restore every photo; the number of photos that could not be restored."""
    session = onnxruntime.InferenceSession(
        str(Path(__file__).with_name("model.onnx")), providers=onnxruntime.get_available_providers()
    )
    name = session.get_inputs()[0].name
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        sys.exit(f"{photos}: no photos there")
    failed = 0
    for path in files:
        target = (out / path.relative_to(photos)).with_suffix(".png")
        if target.exists():
            sys.stderr.write(f"{target}: exists already, left alone\n")
            continue
        try:
            with Image.open(path) as picture:
                pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), dtype=np.float32) / 255
        except OSError as error:
            sys.stderr.write(f"{path}: cannot be read ({error})\n")
            failed += 1
            continue
        restored = np.asarray(session.run(None, {name: pixels.transpose(2, 0, 1)[None]})[0])[0]
        rounded = (restored.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rounded).save(target)
        sys.stderr.write(f"{target}\n")
    return failed


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(3 if main(Path(sys.argv[1]), Path(sys.argv[2])) else 0)
