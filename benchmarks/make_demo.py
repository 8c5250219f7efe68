"""Draws the demo's photographs: python benchmarks/make_demo.py FACES [--out FOLDER]

Each face is a blend of four portraits of different people, noised to a timestep of 500 and drawn anew by the tiny
pack's prior: nobody in particular. The last is the astronaut of scikit-image, cropped as the faces are. A camera's
noise (camera-noise-starlight) is laid over all of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from skimage import data

from adapt.build import load_prior
from adapt.commands.demo import DATA
from adapt.commands.pretrain import load_faces
from adapt.diffusion.sampler import Conditioning, PhotoNoise, guided_sample, start
from adapt.diffusion.solvers import Ddim
from adapt.diffusion.steps import plan_from
from adapt.images import from_uint8, to_signed, to_unit
from adapt.photos.files import write_image
from adapt.settings import DegradeSettings
from adapt.settings.recipe import load_recipe
from degradations.chain import degrade

ASTRONAUT = (18, 136, 180)  # top, left, side: eyes at 46.9 % of the height, as in the aligned faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--count", type=int, default=35)
    arguments = parser.parse_args()

    prior = load_prior("tiny")
    faces = load_faces(arguments.faces, prior.size)
    generator = torch.Generator().manual_seed(2026)
    chosen = torch.stack([torch.randperm(len(faces), generator=generator)[:4] for _ in range(arguments.count)])
    blends = faces[chosen.flatten()].float().view(arguments.count, 4, 3, prior.size, prior.size).mean(dim=1) / 255
    images: list[torch.Tensor] = []
    for first in range(0, arguments.count, 8):
        job = Conditioning(to_signed(blends[first : first + 8]))
        noise = PhotoNoise(range(first, first + len(job.restored)), (3, prior.size, prior.size))
        plan = plan_from(500, 24)
        x = start(job, plan, noise)
        images += list(
            to_unit(guided_sample(prior, x, plan.steps, solver=Ddim(0.7), terms=[], job=job, draw=noise))
        )
    top, left, side = ASTRONAUT
    astronaut = from_uint8(data.astronaut())[:, top : top + side, left : left + side]
    images.append(F.interpolate(astronaut[None], prior.size, mode="bicubic", antialias=True)[0].clamp(0, 1))

    degradations = load_recipe("camera-noise-starlight", DegradeSettings).degradations
    for index, image in enumerate(images):
        name = "astronaut.png" if index == arguments.count else f"face-{index + 1:02d}.png"
        write_image(arguments.out / "clean" / name, image, overwrite=True)
        damaged, _ = degrade(image, degradations, seed=index)
        write_image(arguments.out / "photos" / name, damaged, overwrite=True)


if __name__ == "__main__":
    main()
