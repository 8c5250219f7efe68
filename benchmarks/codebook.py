"""What a codebook gives back of clean faces: what its codes cannot say, or its generator cannot draw, is missing.

    python benchmarks/codebook.py FACES [--codebooks NAME,...] [--limit N] [--pack PACK] [--sheet FILE]

FACES is a folder of clean aligned faces. A row has PSNR, perceptual distance and identity distance to the original, and
sharpness as a share of its. Codebooks are names of packs, files or runs. --sheet draws six of the faces.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from domain import spread
from torch import Tensor

from adapt.evaluation.metrics import psnr
from adapt.evaluation.sheets import write_sheet
from adapt.faces.measures import identity_distance
from adapt.images import fine_detail
from adapt.loading import load_codebook, load_distance, load_face_networks
from adapt.packs.pack import load_pack
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted

AT_ONCE = 8
SHOWN = 6


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--codebooks", default="tiny", help="separated by commas")
    parser.add_argument("--limit", type=int, help="faces, spread evenly")
    parser.add_argument("--pack", default="tiny", help="whose networks measure")
    parser.add_argument("--sheet", type=Path, help="picture of some faces")
    arguments = parser.parse_args()
    pack = load_pack(arguments.pack)
    distance = load_distance(pack, "pack")
    recogniser = load_face_networks(arguments.pack, torch.device("cpu"))[0].recogniser
    chosen = spread(find_photos(arguments.faces), arguments.limit)
    faces = torch.stack([load_fitted(photo.path, pack.card.size) for photo in chosen])
    columns: dict[str, Tensor] = {"original": faces}
    print(f"{len(faces)} faces\n\n| codebook | PSNR | perceptual | identity | sharpness |\n{'| --- ' * 5}|")
    for name in arguments.codebooks.split(","):
        network = load_codebook(name)
        made = torch.cat([network(batch).image.clamp(0, 1) for batch in faces.split(AT_ONCE)])
        detail = fine_detail(made).std((1, 2, 3)) / fine_detail(faces).std((1, 2, 3))
        found = (psnr(made, faces), distance(made, faces), identity_distance(made, faces, recogniser), detail)
        cells = [f"{each.mean():.{digits}f}" for each, digits in zip(found, (2, 4, 3, 2), strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        columns[name] = made
    if arguments.sheet is not None:
        rows = range(0, len(faces), -(-len(faces) // SHOWN))
        write_sheet(arguments.sheet, list(columns), [[images[row] for images in columns.values()] for row in rows])


if __name__ == "__main__":
    main()
