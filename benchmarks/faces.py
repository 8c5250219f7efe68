"""How well faces are found in photographs, and how nearly they are placed: by size, by turn, and by detector.

    python benchmarks/faces.py FACES BACKGROUNDS [--photos N] [--detectors mtcnn,tiny]
                               [--min-score S] [--restored] [--pack PACK]

FACES is a folder of aligned faces, BACKGROUNDS one of pictures without any. Photographs are made: crops of backgrounds
with one to three faces laid in, scaled, turned and with soft edges, at places that are known. A face counts as found
where the middle of a found one's five points is nearer than half the eye distance to its own; every other find is a
false alarm. Eyes are held against those that the landmark network sees in the aligned face itself. The last rows are of
200 crops of the backgrounds alone. Size is the side of the aligned crop in the photograph; the face in it is half. Time
is the processor's, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.commands.photographs import Preparer
from adapt.faces.align import Placement, five_points, sampled
from adapt.faces.crops import Window
from adapt.faces.find import FaceFinder
from adapt.faces.landmarks import Landmarks
from adapt.loading import load_face_finder, load_landmarks
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import find_photos
from adapt.photos.photograph import read_photograph

SIZES: Final = ((48, 64), (64, 96), (96, 128), (128, 256), (256, 512), (512, 800))
TURNS: Final = ((0, 15), (15, 30), (30, 45))
MOST_FACES: Final = 3
EMPTY: Final = 200
FADED: Final = 0.06  # share of a face's side over which it fades into the background

Made = tuple[Tensor, list[tuple[Placement, Tensor]]]


def crop_of(backgrounds: list[Tensor], side: int, generator: torch.Generator) -> Tensor:
    """A square of a background, enlarged where it is smaller."""
    image = backgrounds[int(torch.randint(len(backgrounds), (), generator=generator))]
    share = 0.3 + 0.7 * float(torch.rand((), generator=generator))
    own = max(16, int(share * min(image.shape[1:])))
    top, left = (int(torch.randint(length - own + 1, (), generator=generator)) for length in image.shape[1:])
    part = image[:, top : top + own, left : left + own]
    return F.interpolate(part[None], (side, side), mode="bilinear", antialias=True)[0]


def photograph(
    faces: list[Tensor], backgrounds: list[Tensor], size: tuple[int, int], turn: tuple[int, int],
    generator: torch.Generator,
) -> Made:
    """A photo and its faces: of each the placement, and the aligned face."""

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    side = int(between(max(512, 1.8 * size[1]), max(1024, 2.5 * size[1])))
    photo = crop_of(backgrounds, side, generator)
    laid: list[tuple[Placement, Tensor]] = []
    for _ in range(1 + int(torch.randint(MOST_FACES, (), generator=generator))):
        face = faces[int(torch.randint(len(faces), (), generator=generator))]
        length = between(*size)
        angle = math.radians(between(*turn)) * (1 if between(0, 1) < 0.5 else -1)
        scale, reach = length / face.shape[-1], length * 0.75
        x, y = between(reach, side - reach), between(reach, side - reach)
        if any(math.dist((x, y), middle(other, known.shape[-1])) < 1.6 * length for other, known in laid):
            continue
        a, b = scale * math.cos(angle), scale * math.sin(angle)
        half = face.shape[-1] / 2
        place = Placement(a, b, x - a * half + b * half, y - b * half - a * half)
        photo = with_face(photo, face, place)
        laid.append((place, face))
    return photo, laid


def middle(place: Placement, size: int) -> tuple[float, float]:
    """Where the middle of a crop lies in the photo."""
    x, y = place.to_photo(torch.tensor([size / 2, size / 2], dtype=torch.float64)).tolist()
    return x, y


def with_face(photo: Tensor, face: Tensor, place: Placement) -> Tensor:
    """The photo with an aligned face laid over it, its edges faded."""
    size = face.shape[-1]
    edge = torch.minimum(torch.arange(size) + 0.5, size - torch.arange(size) - 0.5) / (FADED * size)
    mask = edge.clamp(0, 1)[None, :] * edge.clamp(0, 1)[:, None]
    everywhere = Window(0, 0, photo.shape[2], photo.shape[1])
    layers = sampled(torch.cat([face * mask, mask[None]]), place.inverse(), everywhere, outside="zeros")
    return (photo * (1 - layers[3:]) + layers[:3]).clamp(0, 1)


def measured(finder: FaceFinder, landmarks: Landmarks, made: Made) -> tuple[list[float | None], int, float]:
    """Of each face how far its eyes are off, in eye distances, or None; false alarms; seconds of the processor."""
    photo, laid = made
    begun = time.process_time()
    found = finder.find(photo)
    seconds = time.process_time() - begun
    errors: list[float | None] = []
    used: set[int] = set()
    for place, face in laid:
        true = place.to_photo(five_points(landmarks.of_aligned(face[None])[0].double()))
        eyes = float(torch.linalg.vector_norm(true[1] - true[0]))
        nearest, best = None, 0.5
        for index, each in enumerate(found):
            apart = float(torch.linalg.vector_norm(five_points(each.points).mean(0) - true.mean(0))) / eyes
            if apart < best and index not in used:
                nearest, best = index, apart
        if nearest is None:
            errors.append(None)
            continue
        used.add(nearest)
        own = five_points(found[nearest].points)
        errors.append(float(torch.linalg.vector_norm(own[:2] - true[:2], dim=-1).mean()) / eyes)
    return errors, len(found) - len(used), seconds


def unchanged(finder: FaceFinder, photo: Tensor) -> float:
    """The largest difference, of 255, between a photo and what comes back of it where its faces are left as they are,
    at their own scale: found, cut out, put back, written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        path, back = Path(folder) / "photo.png", Path(folder) / "back.png"
        write_image(path, photo)
        whole = read_photograph(path)
        before, worst = whole.photo.image, 0.0
        for face in finder.find(before):
            preparer = Preparer(size=max(16, round(face.side)), mode="whole", finder=finder)
            prepared = preparer.of_whole(whole, [face])
            back.write_bytes(prepared.finish(prepared.crops)[0])
            worst = max(worst, 255 * float((read_image(back) - before).abs().max()))
    return worst


def row(
    label: str, errors: list[float | None], false: int | None = None, photos: int = 0, seconds: float = 0.0
) -> str:
    """A line of the table; what is not counted by such lines is left out."""
    hits = sorted(error for error in errors if error is not None)
    recall = f"{len(hits)} of {len(errors)} ({len(hits) / len(errors):.3f})" if errors else "-"
    off = [f"{100 * hits[int(share * (len(hits) - 1))]:.1f} %" for share in (0.5, 0.95)] if hits else ["-", "-"]
    alarms, took = "-" if false is None else str(false), f"{1000 * seconds / photos:.0f}" if photos else "-"
    return f"| {label} | {recall} | {alarms} | {off[0]} | {off[1]} | {took} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("backgrounds", type=Path)
    parser.add_argument("--photos", type=int, default=8, help="made of each size and turn")
    parser.add_argument("--detectors", default="mtcnn,tiny", help="ssd too, of a pack that has it")
    parser.add_argument("--min-score", type=float, help="the detector's own where it is left out")
    parser.add_argument("--restored", action="store_true", help="put the faces back as they are, too")
    parser.add_argument("--pack", default="tiny")
    arguments = parser.parse_args()
    faces = [read_image(photo.path) for photo in find_photos(arguments.faces)]
    backgrounds = [read_image(photo.path) for photo in find_photos(arguments.backgrounds)]
    landmarks = load_landmarks(arguments.pack)
    for name in arguments.detectors.split(","):
        kind: Any = name
        finder = load_face_finder(
            arguments.pack, kind=kind, min_score=arguments.min_score, min_face=SIZES[0][0] / 3
        )
        print(f"\n{finder.name}\n\n| size, turn | found | false alarms | eyes, median | 95th | CPU ms a photo |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        everything: list[float | None] = []
        by_turn: dict[tuple[int, int], list[float | None]] = defaultdict(list)
        changed = 0.0
        for size in SIZES:
            generator = torch.Generator().manual_seed(size[0])
            errors: list[float | None] = []
            false, seconds, photos = 0, 0.0, 0
            for turn in TURNS:
                for _ in range(arguments.photos):
                    made = photograph(faces, backgrounds, size, turn, generator)
                    of_photo, wrong, took = measured(finder, landmarks, made)
                    if arguments.restored:
                        changed = max(changed, unchanged(finder, made[0]))
                    errors += of_photo
                    by_turn[turn] += of_photo
                    false, seconds, photos = false + wrong, seconds + took, photos + 1
            everything += errors
            print(row(f"{size[0]} to {size[1]} px", errors, false, photos, seconds), flush=True)
        for turn, errors in by_turn.items():
            print(row(f"turned {turn[0]} to {turn[1]}°", errors))
        print(row("all", everything))
        if arguments.restored:
            print(f"\nRestored by a model that leaves faces as they are: at most {changed:g} of 255 from the photo\n")
        generator = torch.Generator().manual_seed(0)
        begun = time.process_time()
        false = sum(len(finder.find(crop_of(backgrounds, 512, generator))) for _ in range(EMPTY))
        print(row(f"{EMPTY} without a face", [], false, EMPTY, time.process_time() - begun), flush=True)


if __name__ == "__main__":
    main()
