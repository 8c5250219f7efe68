"""How well a recogniser tells people apart on aligned faces: pairs of one person against pairs of strangers.

    python benchmarks/verification.py FACES... [--recogniser FILE] [--pack PACK] [--plot FILE]

FACES are folders of clean aligned faces whose names begin with that of the person and two underscores (London set).
Every pair of photos is compared once. Printed are the area under the curve with its 95 % interval (from 1,000 draws of
people, with replacement), what of both kinds lies beyond the distance from which a face counts as lost, and quantiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adapt.loading import load_recogniser
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos

DRAWS: Final = 1000
SIZE: Final = (720, 480)
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 30, 48
INK, GRID, ONE, OTHER, LIMIT = (40, 40, 40), (228, 228, 228), (40, 140, 60), (200, 50, 40), (50, 80, 200)


def all_distances(embeddings: Tensor, by_angle: bool) -> Tensor:
    """Of every photo from every other, (N, N)."""
    if by_angle:
        unit = torch.nn.functional.normalize(embeddings.double(), dim=-1)
        return 1 - unit @ unit.T
    return torch.cdist(embeddings.double(), embeddings.double(), compute_mode="donot_use_mm_for_euclid_dist")


def area(same: Tensor, strangers: Tensor) -> float:
    """The probability that a pair of one person is nearer than one of strangers; of equal distances half counts."""
    ordered = strangers.sort().values
    above = len(ordered) - torch.searchsorted(ordered, same, right=True)
    level = torch.searchsorted(ordered, same, right=True) - torch.searchsorted(ordered, same)
    return float((above + level / 2).double().mean() / len(ordered))


def interval(distances: Tensor, people: Tensor) -> tuple[float, float]:
    """The area's 95 % interval, people drawn with replacement."""
    generator = torch.Generator().manual_seed(0)
    names = people.unique()
    rows = {int(name): (people == name).nonzero()[:, 0] for name in names}
    found: list[float] = []
    for _ in range(DRAWS):
        drawn = names[torch.randint(len(names), (len(names),), generator=generator)]
        place = torch.cat([rows[int(name)] for name in drawn])
        whose = people[place]
        again = distances[place][:, place]
        upper = torch.ones_like(again, dtype=torch.bool).triu(1)
        one = (whose[:, None] == whose[None]) & upper & (place[:, None] != place[None])
        found.append(area(again[one], again[(whose[:, None] != whose[None]) & upper]))
    low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def draw(path: Path, same: Tensor, strangers: Tensor, limit: float, title: str) -> None:
    """Which share of the pairs of each kind is nearer than each distance."""
    most = float(strangers.quantile(0.999))
    sheet = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)

    def at(distance: float, share: float) -> tuple[float, float]:
        return (
            LEFT + distance / most * (SIZE[0] - LEFT - RIGHT), SIZE[1] - BOTTOM - share * (SIZE[1] - TOP - BOTTOM)
        )

    for tenth in range(0, 11, 2):
        pen.line([at(0, tenth / 10), at(most, tenth / 10)], fill=GRID)
        pen.text((8, at(0, tenth / 10)[1] - 8), f"{10 * tenth} %", fill=INK, font=font)
    for step in range(int(most * 10) + 1):
        pen.line([at(step / 10, 0), at(step / 10, 1)], fill=GRID)
        pen.text((at(step / 10, 0)[0] - 9, SIZE[1] - BOTTOM + 6), f"{step / 10:.1f}", fill=INK, font=font)
    for values, colour, name in ((same, ONE, "one person"), (strangers, OTHER, "strangers")):
        ordered = values.sort().values
        distances = torch.linspace(0, most, 400, dtype=torch.float64)
        shares = torch.searchsorted(ordered, distances, right=True) / len(ordered)
        points = [at(d, s) for d, s in zip(distances.tolist(), shares.tolist(), strict=True)]
        pen.line(points, fill=colour, width=2)
        middle = at(float(values.median()), 0.5)
        pen.text((middle[0] - 80, middle[1] - 20), name, fill=colour, font=font)
    pen.line([at(limit, 0), at(limit, 1)], fill=LIMIT)
    pen.text((at(limit, 0)[0] + 4, TOP), f"lost from {limit:g}", fill=LIMIT, font=font)
    pen.text((LEFT, 8), title, fill=INK, font=font)
    pen.text((LEFT, SIZE[1] - 20), "share of pairs that are nearer than this distance", fill=INK, font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="+")
    parser.add_argument("--recogniser", help="an ArcFace file; left out, the pack's recogniser")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--plot", type=Path, help="shares of both kinds of pairs over their distance, as a PNG")
    arguments = parser.parse_args()
    recogniser = load_recogniser(arguments.recogniser or arguments.pack)
    paths = [photo.path for folder in arguments.faces for photo in find_photos(folder)]
    if any("__" not in path.name for path in paths):
        parser.error("names: expected PERSON__PHOTO, as those of the London set")
    names = [path.name.partition("__")[0] for path in paths]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    people = torch.tensor([numbers[name] for name in names])
    with torch.no_grad():
        embeddings = torch.cat([recogniser.of_aligned(read_image(path)[None]) for path in paths])
    distances = all_distances(embeddings, recogniser.by_angle)
    upper = torch.ones_like(distances, dtype=torch.bool).triu(1)
    one = people[:, None] == people[None]
    same, strangers = distances[one & upper], distances[~one & upper]
    low, high = interval(distances, people)
    limit = recogniser.lost_from
    print(f"{recogniser.name}: {len(paths)} photos of {len(numbers)} people, {len(same)} pairs of one person and"
          f" {len(strangers)} of strangers\n")
    print("| area under the curve | 95 % interval | lost from | of one person beyond | of strangers nearer |")
    print("| ---: | --- | ---: | ---: | ---: |")
    beyond, nearer = float((same > limit).double().mean()), float((strangers <= limit).double().mean())
    print(f"| {area(same, strangers):.5f} | {low:.5f} to {high:.5f} | {limit:g} | {beyond:.3f} | {nearer:.4f} |\n")
    print("| distance of | mean | median | 1 % | 99 % |\n| --- | ---: | ---: | ---: | ---: |")
    for name, values in (("one person", same), ("strangers", strangers)):
        quantiles = values.quantile(torch.tensor([0.5, 0.01, 0.99], dtype=torch.float64)).tolist()
        print(f"| {name} | {float(values.mean()):.3f} | {' | '.join(f'{each:.3f}' for each in quantiles)} |")
    if arguments.plot is not None:
        draw(arguments.plot, same, strangers, limit, f"{recogniser.name}, {len(numbers)} people")


if __name__ == "__main__":
    main()
