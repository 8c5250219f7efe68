"""Restorers as they are, before any adaptation, on faces that nobody trained on: every model, in every domain.

    python benchmarks/restorers.py FACES [--models PACK/NAME,...] [--degradation RECIPE,...] [--limit N] [--pack PACK]
                                   [--out DIR]

FACES is a folder of clean aligned faces, taken at the size of the pack. A model of a smaller size restores them as
`adapt restore` does, reduced, and what it gives is enlarged again. A cell is PSNR, perceptual distance and identity
distance to the original, and sharpness as a share of the original's, each the mean over the faces; the first column is
the photo itself. Below stands the mean over all domains, of all faces and of each set, which is a subfolder of FACES. A
sheet of some faces of each domain is in --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from domain import degrade_faces, spread
from torch import Tensor
from verdict import DOMAINS

from adapt.evaluation.metrics import psnr
from adapt.evaluation.sheets import write_sheet
from adapt.faces.measures import identity_distance
from adapt.images import fine_detail
from adapt.loading import load_distance, load_face_networks, load_restorer
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import fit
from adapt.restorers.base import Restorer

AT_ONCE = 16
SHOWN = 8  # faces of a sheet
MODELS = "tiny/swinir,tiny/codeformer,tiny/onestep,tiny/onestep-thin"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--models", default=MODELS, help="separated by commas")
    parser.add_argument("--degradation", default=DOMAINS, help="recipes, separated by commas")
    parser.add_argument("--limit", type=int, help="faces, spread evenly")
    parser.add_argument("--pack", default="tiny", help="whose networks measure")
    parser.add_argument("--out", type=Path, default=Path("runs/restorers"))
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    models = [load_restorer(name) for name in names]
    distance = load_distance(load_pack(arguments.pack), "pack")
    recogniser = load_face_networks(arguments.pack, torch.device("cpu"))[0].recogniser
    size = load_pack(arguments.pack).card.size
    chosen = spread(find_photos(arguments.faces), arguments.limit)

    @torch.no_grad()
    def restored(model: Restorer, photos: Tensor) -> Tensor:
        if model.size in (None, size):
            return model(photos)
        made = model(torch.stack([fit(photo, model.size)[0] for photo in photos]))
        return torch.stack([fit(image, size)[0] for image in made])

    @torch.no_grad()
    def numbers(images: Tensor, clean: Tensor) -> Tensor:
        detail = fine_detail(images).std((1, 2, 3)) / fine_detail(clean).std((1, 2, 3))
        found = (psnr(images, clean), distance(images, clean), identity_distance(images, clean, recogniser), detail)
        return torch.stack(found, dim=1)

    def cell(means: Tensor) -> str:
        return " / ".join(f"{value:.{digits}f}" for value, digits in zip(means.tolist(), (2, 3, 3, 2), strict=True))

    print(f"{len(chosen)} faces\n\n| damage | photo | {' | '.join(names)} |\n{'| --- ' * (len(names) + 2)}|")
    everything: list[Tensor] = []  # of each domain: models, faces, numbers
    for damage in arguments.degradation.split(","):
        folder = arguments.out / damage
        ids = degrade_faces(chosen, folder, damage, size)
        clean, photos = (
            torch.stack([read_image(folder / part / f"{id}.png") for id in ids]) for part in ("hq", "lq")
        )
        batches = photos.split(AT_ONCE)
        results = [photos, *(torch.cat([restored(model, batch) for batch in batches]) for model in models)]
        everything.append(torch.stack([numbers(images, clean) for images in results]))
        rows = [[images[row] for images in (*results, clean)] for row in range(0, len(clean), -(-len(clean) // SHOWN))]
        write_sheet(arguments.out / f"{damage}.png", ["photo", *names, "original"], rows)
        print(f"| {damage} | {' | '.join(cell(means) for means in everything[-1].mean(dim=1))} |", flush=True)
    each_face = torch.stack(everything).mean(dim=0)
    print(f"| mean | {' | '.join(cell(means) for means in each_face.mean(dim=1))} |")
    sets = [photo.id.rpartition("/")[0] for photo in chosen]
    for name in sorted(set(sets) - {""}):
        own = torch.tensor([place == name for place in sets])
        cells = [cell(means) for means in each_face[:, own].mean(dim=1)]
        print(f"| {name}, {int(own.sum())} faces | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
