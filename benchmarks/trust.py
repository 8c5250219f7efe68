"""How well a photo's blur level is known: by the estimator, by the prior's doubt, and by the larger of both.

    python benchmarks/trust.py FACES [--degradation RECIPE,...] [--limit N] [--pack PACK] [--xi X]

FACES is a folder of clean aligned faces. Each recipe damages them, the pack's restorer restores them, and std*
(DynFaceRestore Eq. 9) is found with the clean face beside. Against it stand the estimator, which saw the damaged photo,
and the line that a targets recipe's `reliability` draws through what the prior changes of the restored one. Printed as
well is the line that fits these photos best; it belongs to a prior, and goes into the recipe of its pack.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from domain import degrade_faces, spread
from torch import Tensor

from adapt.blur.labels import std_labels, std_limits
from adapt.digests import file_digest, photo_seed
from adapt.errors import UsageError
from adapt.guidance.regions import region_stds
from adapt.loading import load_blur_parts, load_prior, load_restorer
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from adapt.settings import ReliabilitySettings, TargetSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.prior_score import score_by_prior
from adapt.targets.reliability import unreliable_std
from adapt.targets.restored import restored_for

DOMAINS = (
    "camera-noise-starlight,dtbfr-4x-moderate,dtbfr-4x-severe,dtbfr-8x-moderate,dtbfr-8x-severe,dynface"
)
FLOORS = torch.arange(0.005, 0.04, 0.0002, dtype=torch.float64)
SLOPES = torch.arange(100, 4000, 40, dtype=torch.float64)  # pixels at 512


def best_line(changes: Tensor, truth: Tensor, estimated: Tensor, size: int) -> tuple[float, float, float]:
    """Floor and slope (pixels at 512) whose line, or the estimate if larger, is nearest to std*; and how near.

    Args:
        changes: what the prior changed of each photo, (N,).
        truth, estimated: blur levels in pixels of images of `size`, (N,).
        size: side of the images.
    """
    highest = std_limits(size)[1]
    best = (float("inf"), 0.0, 0.0)
    for floor in FLOORS.tolist():
        asked = (SLOPES[:, None] * (changes - floor) * size / 512).clamp(0, highest)
        errors = (torch.maximum(asked, estimated) - truth).abs().mean(1)
        place = int(errors.argmin())
        best = min(best, (float(errors[place]), floor, float(SLOPES[place])))
    return best[1], best[2], best[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default=DOMAINS, help="recipes, separated by commas")
    parser.add_argument("--limit", type=int, default=16, help="photos, spread evenly")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--xi", type=float, default=0.0225, help="tolerance of std*; the tiny estimator's")
    parser.add_argument("--out", type=Path, default=Path("runs/trust"))
    arguments = parser.parse_args()
    settings = load_recipe("guided", TargetSettings, pack=arguments.pack)
    estimator = load_blur_parts(arguments.pack, settings, torch.device("cpu"))[0].estimator
    prior, restorer = load_prior(arguments.pack), load_restorer(arguments.pack)
    size = load_pack(arguments.pack).card.size
    if estimator is None:
        raise UsageError(f"{arguments.pack}: the pack has no blur estimator; adapt pretrain --recipe blur-estimator")
    never = ReliabilitySettings(floor=1.0, slope=1.0)  # where the recipe has no line yet
    line = settings.reliability or never
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    print("| mean of (pixels) | std* | estimator | reliability | larger | error of estimator | error of larger |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for recipe in arguments.degradation.split(","):
        folder = arguments.out / recipe
        names = degrade_faces(spread(find_photos(arguments.faces), arguments.limit), folder, recipe, size)
        paths = [folder / "lq" / f"{name}.png" for name in names]
        photos = torch.stack([read_image(path) for path in paths])
        truth = torch.stack([read_image(folder / "hq" / f"{name}.png") for name in names])
        restored = torch.cat([restored_for(photo, restorer, settings) for photo in photos.split(1)])
        levels = std_labels(restored, truth, xi=arguments.xi)
        estimated = torch.cat([region_stds(estimator, photo, 1)[:, 0] for photo in photos.split(1)]).double()
        seeds = [photo_seed(settings.seed, file_digest(path)) for path in paths]
        changes = score_by_prior(prior, restored, seeds).change
        asked = unreliable_std(changes, size, settings=line)
        larger = torch.maximum(estimated, asked)
        shown = [levels, estimated, asked, larger, (estimated - levels).abs(), (larger - levels).abs()]
        print(f"| {recipe} | {' | '.join(f'{float(column.mean()):.2f}' for column in shown)} |", flush=True)
        columns.append((changes, levels, estimated))
    changes, levels, estimated = (torch.cat(parts) for parts in zip(*columns, strict=True))
    floor, slope, error = best_line(changes, levels, estimated, size)
    related = torch.corrcoef(torch.stack([changes, levels]))[0, 1]
    print(f"\nWhat the prior changes and std* correlate by {related:.2f}, the estimate and std* by", end=" ")
    print(f"{torch.corrcoef(torch.stack([estimated, levels]))[0, 1]:.2f}.")
    print(f"Best line: floor {floor:.4f}, slope {slope:.0f} pixels at 512; mean error {error:.2f} pixels.")


if __name__ == "__main__":
    main()
