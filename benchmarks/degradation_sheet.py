"""Lays every recipe of damage that ships over the same four faces: python benchmarks/degradation_sheet.py [--out FILE]

The faces are the demo's, 128 px: SFHQ-T2I's, of nobody.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from adapt.commands.demo import DATA
from adapt.disk import write_atomic
from adapt.evaluation.sheets import PAPER, contact_sheet
from adapt.photos.files import read_image
from adapt.settings import DegradeSettings
from adapt.settings.recipe import list_recipes, load_recipe
from degradations.chain import degrade
from degradations.pieces.base import derived_seed

FACES = ("face-04", "face-10", "face-25", "face-33")
SHEET = Path(__file__).parents[1] / "docs" / "images" / "degradations.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHEET)
    parser.add_argument("--scale", type=int, default=1, help="every pixel becomes a square of this side")
    arguments = parser.parse_args()
    faces = {name: read_image(DATA / "clean" / f"{name}.png") for name in FACES}
    rows = {"original": list(faces.values())}
    for info in list_recipes("degrade"):
        degradations = load_recipe(info.name, DegradeSettings).degradations
        damaged = [degrade(image, degradations, derived_seed(0, id))[0] for id, image in faces.items()]
        rows[info.name.rpartition("/")[2]] = damaged

    names = list(rows)
    half = (len(names) + 1) // 2
    sheets = [
        contact_sheet([""] * len(faces), [rows[name] for name in part], row_names=part, scale=arguments.scale)
        for part in (names[:half], names[half:])
    ]
    whole = Image.new("RGB", (sum(sheet.width for sheet in sheets), sheets[0].height), PAPER)
    whole.paste(sheets[0], (0, 0))
    whole.paste(sheets[1], (sheets[0].width, 0))
    write_atomic(arguments.out, lambda stream: whole.save(stream, "JPEG", quality=85, subsampling=0))


if __name__ == "__main__":
    main()
