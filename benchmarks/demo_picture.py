"""Draws the README's picture of the demo: python benchmarks/demo_picture.py RESULT [--faces 01,02,...] [--out FILE]

RESULT is what `adapt demo -o RESULT` made. For each face photo, restored photo and original, two faces in a row; at one
and a half times their size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from PIL import Image

SIDE: Final = 192
GAP: Final = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--faces", default="01,02,04,05,06,09", help="numbers, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.jpg"))
    arguments = parser.parse_args()
    folders = [arguments.result / each for each in ("photos", "restored", "truth")]
    faces = [[folder / f"face-{number}.png" for folder in folders] for number in arguments.faces.split(",")]
    rows = [[path for face in faces[first : first + 2] for path in face] for first in range(0, len(faces), 2)]
    step = SIDE + GAP
    sheet = Image.new("RGB", (len(rows[0]) * step + GAP, len(rows) * step + GAP), "white")
    for row, paths in enumerate(rows):
        for column, path in enumerate(paths):
            with Image.open(path) as image:
                shown = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(shown, (GAP + column * step, GAP + row * step))
    sheet.save(arguments.out, quality=90)


if __name__ == "__main__":
    main()
