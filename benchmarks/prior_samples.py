"""What a prior draws from nothing: a contact sheet, and how far it is from photographs.

    python benchmarks/prior_samples.py FACES --priors tiny[,RUN,...] [--count 512] [--steps 20] [--out FOLDER]

FACES is a folder of clean aligned faces that no prior has seen. For each prior: KID against them, the deviation of the
samples' mean colours beside that of the faces', and a sheet of the first samples. Every prior begins with the same
noise. An hour for 512 samples of 128 px on one slow core.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from adapt.diffusion.prior import Prior
from adapt.diffusion.sampler import Conditioning, PhotoNoise, guided_sample
from adapt.diffusion.solvers import DpmSolver2M
from adapt.diffusion.steps import plan_from
from adapt.evaluation.metrics import kid
from adapt.evaluation.sheets import write_sheet
from adapt.images import to_unit
from adapt.loading import load_distance, load_prior
from adapt.packs.pack import load_pack
from adapt.perceptual.distance import PerceptualDistance
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted

BATCH: Final = 8
SHOWN: Final = (8, 6)  # columns and rows of the sheet


def samples(prior: Prior, count: int, steps: int) -> Tensor:
    """Images in [0, 1], (count, 3, S, S); number i begins with the noise of seed i."""
    plan, drawn = plan_from(999, steps), []
    for seeds in torch.arange(count).split(BATCH):
        draw = PhotoNoise(seeds.tolist(), (3, prior.size, prior.size))
        x = draw()
        drawn.append(guided_sample(
            prior, x, plan.steps, solver=DpmSolver2M(), terms=[], conditioning=Conditioning(x), draw=draw
        ))  # fmt: skip
    return to_unit(torch.cat(drawn)).clamp(0, 1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--priors", default="tiny", help="of packs, runs or files, with commas between")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/prior-samples"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    priors = {name: load_prior(name) for name in arguments.priors.split(",")}
    size = next(iter(priors.values())).size
    faces = torch.stack([load_fitted(photo.path, size) for photo in find_photos(arguments.faces)])
    distance = load_distance(load_pack("tiny"), "pack")
    known = features(distance, faces)
    print(f"{arguments.count} samples of {arguments.steps} steps, {len(faces)} faces\n")
    print("|  | KID x1000 ↓ | deviation of mean brightness | of mean colour |\n| --- | ---: | ---: | ---: |")
    print(f"| the faces | | {spread_of(faces)} |", flush=True)
    for name, prior in priors.items():
        drawn = samples(prior, arguments.count, arguments.steps)
        estimates = kid(features(distance, drawn), known, generator=torch.Generator().manual_seed(0)) * 1000
        print(f"| {name} | {estimates.mean():.3f} ± {1.96 * estimates.std():.3f} | {spread_of(drawn)} |", flush=True)
        columns, rows = SHOWN
        grid = [list(row) for row in drawn[: columns * rows].split(columns) if len(row) == columns]
        write_sheet(arguments.out / f"{Path(name).name}.png", [name] + [""] * (columns - 1), grid)


def features(distance: PerceptualDistance, images: Tensor) -> Tensor:
    """What KID compares, (N, D)."""
    return torch.cat([distance.features(batch) for batch in images.split(32)])


def spread_of(images: Tensor) -> str:
    """The deviations of mean brightness, and of what a mean colour has beside it, from image to image."""
    means = images.mean(dim=(2, 3))
    grey = means.mean(dim=1, keepdim=True)
    return f"{float(grey.std()):.3f} | {float((means - grey).std(dim=0).square().mean().sqrt()):.3f}"


if __name__ == "__main__":
    main()
