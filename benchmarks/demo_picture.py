"""Draws the README's picture of the demo: python benchmarks/demo_picture.py RESULT [--faces 02,04,05,06] [--out FILE]

RESULT is what `adapt demo -o RESULT` made. A row for each face: photo, pre-trained restorer, target, adapted restorer,
original; at one and a half times their size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from PIL import Image

from adapt.targets.store import accepted_targets

SIDE: Final = 192
GAP: Final = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--faces", default="02,04,05,06", help="numbers, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.jpg"))
    arguments = parser.parse_args()
    result, targets = arguments.result, accepted_targets(arguments.result / "targets")
    adapted = result / "adapted" if (result / "adapted").is_dir() else result / "restored"
    rows: list[list[Path]] = []
    for number in arguments.faces.split(","):
        name = f"face-{number}"
        folders = (result / "photos", result / "base", adapted, result / "truth")
        photo, base, own, truth = (folder / f"{name}.png" for folder in folders)
        rows.append([photo, base, targets[name][0], own, truth])
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
