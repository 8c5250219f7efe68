"""Draws the README's whole photograph: python benchmarks/prints.py FACES [--out docs/images/whole.jpg] [--model tiny]

FACES is a folder of aligned faces of nobody. Some are printed with a white edge and laid on a table, turned, and the
table is photographed with a phone's noise. `adapt restore MODEL` restores the photograph; both are shown, one above the
other, and how many of the faces were found is printed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from domain import spread
from PIL import Image
from torch import Tensor

from adapt.commands.restore import restore
from adapt.faces.align import Placement, sampled
from adapt.faces.crops import Window
from adapt.images import to_uint8
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted
from degradations.cosines import gaussian_blur
from degradations.pieces.camera_noise import CameraNoise

HEIGHT, WIDTH, SIDE, EDGE = 330, 1060, 256, 14
PRINTS: Final = (  # x, y, side, turn
    (150, 165, 215, -9), (405, 168, 225, 6), (655, 160, 220, -4), (905, 170, 225, 11),
)  # fmt: skip
NOISE: Final = CameraNoise(name="camera_noise", scale=2, gain=0.008, read_noise=0.014)


def table(generator: torch.Generator) -> Tensor:
    """Wood, more or less."""
    grain = torch.randn(1, 3, HEIGHT, WIDTH // 40, generator=generator).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    grain = F.interpolate(grain, (HEIGHT, WIDTH), mode="bicubic")
    grain = gaussian_blur(grain, torch.tensor([1.5]))[0]
    return (torch.tensor([0.42, 0.29, 0.19])[:, None, None] * (1 + 0.18 * grain)).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/whole.jpg"))
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    photo = table(torch.Generator().manual_seed(0))
    everywhere = Window(0, 0, WIDTH, HEIGHT)
    for file, (x, y, side, turn) in zip(spread(find_photos(arguments.faces), len(PRINTS) + 1), PRINTS, strict=False):
        printed = F.pad(load_fitted(file.path, SIDE), (EDGE, EDGE, EDGE, EDGE), value=0.93)
        whole = printed.shape[-1]
        a, b = (side / whole * part(math.radians(turn)) for part in (math.cos, math.sin))
        place = Placement(a, b, x - (a - b) * whole / 2, y - (a + b) * whole / 2)
        layers = torch.cat([printed, torch.ones(1, whole, whole)])
        layers = sampled(layers, place.inverse(), everywhere, outside="zeros")
        cover = layers[3:].clamp(0, 1)
        shadow = gaussian_blur(cover[None].expand(-1, 3, -1, -1), torch.tensor([5.0]))[0].roll((4, 4), (1, 2))
        photo = photo * (1 - 0.45 * shadow)
        photo = (photo * (1 - cover) + layers[:3]).clamp(0, 1)
    damaged = NOISE.apply(photo, NOISE.draw(torch.Generator().manual_seed(1), (HEIGHT, WIDTH)))
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "photo.png"
        write_image(before, damaged)
        result = restore(arguments.model, before, Path(folder) / "out", faces="whole")
        after = read_image(Path(folder) / "out" / "photo.png")
    Image.fromarray(to_uint8(torch.cat([damaged, torch.ones(3, 6, WIDTH), after], dim=1))).save(
        arguments.out, quality=90
    )
    print(f"{result.faces['photo']} of {len(PRINTS)} faces found")


if __name__ == "__main__":
    main()
