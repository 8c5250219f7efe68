"""Whether a prior can tell an image's colour from that of the noise; one that cannot draws colour casts.

    python benchmarks/colour_casts.py FACES [--prior tiny] [--limit N]

FACES is a folder of clean aligned faces. For each timestep: the squared error of the predicted noise in means over
blocks (1 is of a network that knows nothing), and by how much the mean of the predicted noise follows that of what is
shown, beside by how much it should: a network that is shown a little more red has to say how much of it is noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from domain import spread

from adapt.diffusion.schedule import linear_schedule
from adapt.images import to_signed
from adapt.loading import load_prior
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted

STEPS: Final = (100, 300, 500, 700, 850, 950)
BLOCKS: Final = (8, 32)
SHIFT: Final = 0.05


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--prior", default="tiny", help="of a pack, a run or a file")
    parser.add_argument("--limit", type=int, default=12, help="faces, spread evenly")
    arguments = parser.parse_args()
    prior = load_prior(arguments.prior)
    chosen = spread(find_photos(arguments.faces), arguments.limit)
    faces = to_signed(torch.stack([load_fitted(photo.path, prior.size) for photo in chosen]))
    colours = faces.mean(dim=(2, 3)).var(dim=0).mean()
    blocks = [*BLOCKS, prior.size]
    errors = " | ".join(f"error over {block} px" for block in blocks)
    print(f"| t | {errors} | follows the colour | should |\n{'| ---: ' * (len(blocks) + 3)}|")
    shift = torch.tensor([SHIFT, 0.0, 0.0]).view(1, 3, 1, 1)
    for t in STEPS:
        abar = float(linear_schedule().abar[t])
        noise = torch.randn(faces.shape, generator=torch.Generator().manual_seed(t))
        x_t, told = abar**0.5 * faces + (1 - abar) ** 0.5 * noise, torch.full((len(faces),), t)
        found, shifted = (prior.network(each, told)[:, :3] for each in (x_t, x_t + shift))
        cells = [float((F.avg_pool2d(found - noise, block) * block).square().mean()) for block in blocks]
        follows = float((shifted - found)[:, 0].mean() / SHIFT)
        of_noise = (1 - abar) / prior.size**2  # the variance of its mean, beside that of colours
        should = of_noise / (of_noise + abar * float(colours)) / (1 - abar) ** 0.5
        print(f"| {t} | {' | '.join(f'{cell:.3f}' for cell in cells)} | {follows:.3f} | {should:.3f} |", flush=True)


if __name__ == "__main__":
    main()
