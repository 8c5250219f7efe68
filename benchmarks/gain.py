"""What a one-step student's gain is worth, and what a perfect one would be.

    python benchmarks/gain.py FACES [--model tiny/onestep] [--degradation RECIPE,...] [--limit N] [--out DIR]

FACES is a folder of clean aligned faces. Each recipe of damage is laid over them. A row has the mean of the student's
gains, of those by which each photo's error is least, and PSNR to the original with a gain of 1, with the student's own,
and with the best of each photo.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from domain import degrade_faces, spread
from torch import Tensor
from verdict import DOMAINS

from adapt.diffusion.gain import of_lightness
from adapt.evaluation.metrics import psnr
from adapt.loading import load_restorer
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from adapt.pretraining.gain import best_gain
from adapt.restorers.onestep import OneStep, without_gain

AT_ONCE = 8


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--model", default="tiny/onestep")
    parser.add_argument("--degradation", default=DOMAINS, help="recipes, separated by commas")
    parser.add_argument("--limit", type=int, help="faces, spread evenly")
    parser.add_argument("--out", type=Path, default=Path("runs/gain"))
    arguments = parser.parse_args()
    restorer = load_restorer(arguments.model)
    student, size = restorer.network, restorer.size
    assert isinstance(student, OneStep)
    assert student.network.gain is not None
    assert size is not None
    plain, own = without_gain(student), list[Tensor]()
    watch = student.network.gain.register_forward_hook(lambda *about: own.append(about[2].flatten()))
    chosen = spread(find_photos(arguments.faces), arguments.limit)
    rows: list[list[float]] = []
    print(f"{len(chosen)} faces\n\n| damage | gain | best | gain of 1 | the student's | the best |\n{'| --- ' * 6}|")
    for damage in arguments.degradation.split(","):
        folder = arguments.out / damage
        ids = degrade_faces(chosen, folder, damage, size)
        clean, photos = (torch.stack([read_image(folder / part / f"{id}.png") for id in ids]) for part in ("hq", "lq"))
        own.clear()
        for batch in photos.split(AT_ONCE):
            student(batch)
        gains = torch.cat(own)
        full = torch.cat([plain(batch) for batch in photos.split(AT_ONCE)])
        best = best_gain(full, photos, clean).clamp(0, 2)
        scores = [
            psnr((photos + of_lightness(full - photos, gain[:, None, None, None])).clamp(0, 1), clean).mean()
            for gain in (torch.ones_like(gains), gains, best)
        ]
        rows.append([float(gains.mean()), float(best.mean()), *map(float, scores)])
        print(f"| {damage} | {cells(rows[-1])} |", flush=True)
    watch.remove()
    print(f"| mean | {cells([sum(column) / len(rows) for column in zip(*rows, strict=True)])} |")


def cells(values: list[float]) -> str:
    return " | ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
