"""In which part of an aligned face the landmark network is most at one with itself:
python benchmarks/landmark_window.py FACES [--count N]

FACES are aligned as those of FFHQ are, at 256 px or more; they are read at 256 px. What it prints is in shares of the
eye distance. A face's points are compared with the median over all windows and their mirror images ("median"), with
those of the mirrored face ("mirror"), with those of windows moved by 4 % and stretched by 7 % ("moved"), and with those
of the face at 128 px ("128 px").
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from adapt.faces.crops import Window, resized
from adapt.faces.landmarks import Landmarks, eye_distance
from adapt.loading import load_detector, load_landmarks
from adapt.pretraining.faces import load_faces

SIDE = 256
SHARES = (0.6, 0.65, 0.7, 0.75)  # sides of the windows
MIDDLES = (0.58, 0.6, 0.62, 0.64, 0.66, 0.68)  # how far down they lie
EYES = (45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40)
MOUTH = (54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65)
RIDGE = (27, 28, 29, 30)  # in the middle of the face: stays
MIRRORED = (*range(16, -1, -1), *range(26, 16, -1), *RIDGE, *range(35, 30, -1), *EYES, *MOUTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--count", type=int, default=48)
    arguments = parser.parse_args()

    every = load_faces(arguments.faces, SIDE)
    chosen = torch.linspace(0, len(every) - 1, min(arguments.count, len(every))).long()
    faces = every[chosen].float() / 255
    landmarks, detector = load_landmarks("tiny"), load_detector("tiny")
    with torch.no_grad():
        found: dict[tuple[float, float], tuple[Tensor, Tensor]] = {}
        for share, middle in product(SHARES, MIDDLES):
            own = points(landmarks, faces, window(share, middle))
            found[share, middle] = own, mirrored(landmarks, faces, window(share, middle))
        median = torch.stack([(own + mirror) / 2 for own, mirror in found.values()]).median(0).values
        for (share, middle), (own, mirror) in found.items():
            small = points(landmarks, resized(faces, Window(0, 0, SIDE, SIDE), 128), window(share, middle)) * 2
            moved = [points(landmarks, faces, each) for each in neighbours(share, middle)]
            numbers = {
                "median": apart(own, median),
                "mirror": apart(own, mirror),
                "moved": sum(apart(each, own) for each in moved) / len(moved),
                "128 px": apart(small, own),
            }
            shown = "  ".join(f"{name} {100 * value:.2f} %" for name, value in numbers.items())
            print(f"side {share:g}, middle {middle:g} down: {shown}")
        boxes = [detector.find(face) for face in faces]
        seen = [index for index, each in enumerate(boxes) if each]
        by_box = torch.cat([landmarks.inside(faces[index : index + 1], boxes[index][0].box) for index in seen])
        print(f"through the box of the detector: median {100 * apart(by_box, median[seen]):.2f} % ({len(seen)} found)")


def window(share: float, middle: float) -> Window:
    """In shares of the face's side."""
    return Window(0.5 - share / 2, middle - share / 2, 0.5 + share / 2, middle + share / 2)


def neighbours(share: float, middle: float) -> list[Window]:
    """The window moved by 4 % of its side, four times, and stretched by 7 %, twice."""
    left, top, right, bottom = window(share, middle)
    step = 0.04 * share
    moves = ((step, 0), (-step, 0), (0, step), (0, -step))
    moved = [Window(left + x, top + y, right + x, bottom + y) for x, y in moves]
    return [*moved, window(share * 0.93, middle), window(share * 1.07, middle)]


def points(landmarks: Landmarks, faces: Tensor, part: Window) -> Tensor:
    """Points in part of aligned faces, in pixels of these."""
    return landmarks.inside(faces, Window(*(share * faces.shape[-1] for share in part)))


def mirrored(landmarks: Landmarks, faces: Tensor, part: Window) -> Tensor:
    """Points of the mirrored faces, mirrored back."""
    found = points(landmarks, faces.flip(-1), part)[:, MIRRORED]
    return torch.stack([faces.shape[-1] - 1 - found[..., 0], found[..., 1]], dim=-1)


def apart(a: Tensor, b: Tensor) -> float:
    """Mean distance of points, in shares of b's eye distance."""
    return float((torch.linalg.vector_norm(a - b, dim=-1).mean(1) / eye_distance(b)).mean())


if __name__ == "__main__":
    main()
