"""Draws the faces that ship: python benchmarks/make_demo.py KNOWN [DEMO] [--out FOLDER] [--size PX]

KNOWN and DEMO are folders of aligned faces of nobody (SFHQ-T2I, drawn by SDXL and FLUX.1-schnell, MIT): of the one some
become the known faces that the verdict tries models on (`known_faces`), of the other some become the demo's, clean and
as a camera shows them in little light (`demo_data`). They are taken evenly through the folders; the demo's should be of
the part that no network of the pack was trained on. A pack for larger faces has known ones of its own: --out is then
its folder, and DEMO is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from domain import spread

from adapt.commands.demo import DATA
from adapt.loading import KNOWN
from adapt.packs.pack import load_pack
from adapt.photos.files import write_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted
from adapt.settings import DegradeSettings
from adapt.settings.recipe import load_recipe
from degradations.chain import degrade

DAMAGE: Final = "camera-noise-moderate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("known", type=Path)
    parser.add_argument("demo", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=DATA.parent, help="where known_faces and demo_data are")
    parser.add_argument("--count", type=int, nargs=2, default=(24, 36), help="of known and of demo faces")
    parser.add_argument("--size", type=int, default=load_pack("tiny").card.size, help="their side in pixels")
    arguments = parser.parse_args()
    size = arguments.size
    damage = load_recipe(DAMAGE, DegradeSettings).degradations
    known, demo = arguments.out / KNOWN.name, arguments.out / DATA.name
    for index, photo in enumerate(spread(find_photos(arguments.known), arguments.count[0]), start=1):
        write_image(known / f"face-{index:02d}.png", load_fitted(photo.path, size), overwrite=True)
    if arguments.demo is None:
        return
    for index, photo in enumerate(spread(find_photos(arguments.demo), arguments.count[1]), start=1):
        image = load_fitted(photo.path, size)
        write_image(demo / "clean" / f"face-{index:02d}.png", image, overwrite=True)
        write_image(demo / "photos" / f"face-{index:02d}.png", degrade(image, damage, seed=index)[0], overwrite=True)


if __name__ == "__main__":
    main()
