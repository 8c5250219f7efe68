"""Photographs in a second: the camera of `degradations`, next to the same steps in numpy + OpenCV, in one run.

    python benchmarks/camera_throughput.py [--threads 1] [--batch 16] [--seconds 2] [--json]

Both take the same random images at ISO 1600 with the profile generic-phone, 4 times smaller at 512 px and not smaller
at 128 px, as the recipe dtbfr-4x-moderate has it: tone to light, shrink, colour matrix, white balance, mosaic, noise,
rounding, demosaicing (bilinear), white balance, colour matrix, tone, enlarge, whole 255ths. The last column is how far
the results lie apart when both are given one noise field, in grey levels: the mean, and the largest, without the
outermost two pixels of the sensor, which OpenCV demosaics otherwise.

OpenCV is no dependency of the project: `pip install opencv-python-headless` into an environment of your own, or the
table has numpy alone. Rounds of all contenders alternate; the fastest round of each counts. With one thread the time is
the processor's, which other work on the machine hardly changes; with more it is that of the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from degradations.camera.photograph import (
    Camera,
    Shot,
    develop,
    draw_fields,
    expose,
    finish,
    photograph,
    sensor_offset,
    shot_at,
)
from degradations.camera.profiles import read_profile
from degradations.camera.steps import quantise

ISO = 1600
SIZES = {128: 1, 512: 4}  # side and scale
GAMMA = 2.2
SITES = ((0, 0), (0, 1), (1, 0), (1, 1))
INSTALL = "numpy + OpenCV is left out: pip install opencv-python-headless"

Steps = dict[str, Callable[..., Any]]


# ---------------------------------------------------------------- the same steps, elsewhere


def numpy_steps() -> Steps:
    """The steps that OpenCV has functions for, in plain numpy, on float32 (H, W, 3)."""

    def shrink(image: np.ndarray, scale: int) -> np.ndarray:
        height, width = image.shape[0] // scale, image.shape[1] // scale
        return image.reshape(height, scale, width, scale, 3).mean((1, 3))

    def demosaic(raw: np.ndarray) -> np.ndarray:  # GRBG
        padded = np.pad(raw, 1, mode="reflect")
        along = (padded[1:-1, :-2] + padded[1:-1, 2:]) / 2
        across = (padded[:-2, 1:-1] + padded[2:, 1:-1]) / 2
        diagonal = (padded[:-2, :-2] + padded[:-2, 2:] + padded[2:, :-2] + padded[2:, 2:]) / 4
        cross = (along + across) / 2
        image = np.empty((*raw.shape, 3), np.float32)
        sources = {
            (0, 0): (along, raw, across),
            (0, 1): (raw, cross, diagonal),
            (1, 0): (diagonal, cross, raw),
            (1, 1): (across, raw, along),
        }
        for (row, column), planes in sources.items():
            for channel, plane in enumerate(planes):
                image[row::2, column::2, channel] = plane[row::2, column::2]
        return image

    def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
        for axis in (1, 0):
            old = image.shape[axis]
            at = np.clip((np.arange(old * scale) + 0.5) / scale - 0.5, 0, old - 1)
            low = at.astype(int)
            share = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            below, above = image.take(low, axis), image.take(np.minimum(low + 1, old - 1), axis)
            image = below + (above - below) * share
        return image

    return {
        "power": lambda image, exponent: np.power(image, np.float32(exponent)),
        "matrix": lambda image, matrix: image @ matrix.T,
        "shrink": shrink,
        "demosaic": demosaic,
        "enlarge": enlarge,
    }


def opencv_steps(threads: int) -> Steps:
    """The same by OpenCV. Its demosaicing takes whole numbers: 16 bits.

    Raises:
        ImportError: OpenCV is not installed.
    """
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(threads)

    def demosaic(raw: np.ndarray) -> np.ndarray:  # OpenCV names a phase by its second row and column: GB is GRBG
        return cv2.cvtColor((raw * 65535 + 0.5).astype(np.uint16), cv2.COLOR_BayerGB2RGB) * np.float32(1 / 65535)

    return {
        "power": cv2.pow,
        "matrix": cv2.transform,
        "shrink": lambda image, scale: cv2.resize(image, None, None, 1 / scale, 1 / scale, cv2.INTER_AREA),
        "demosaic": demosaic,
        "enlarge": lambda image, scale: cv2.resize(image, None, None, scale, scale, cv2.INTER_LINEAR),
    }


def elsewhere(image: np.ndarray, shot: Shot, field: np.ndarray, scale: int, steps: Steps) -> np.ndarray:
    """One photograph, (H, W, 3) in [0, 1] float32, by `numpy_steps` or `opencv_steps`."""
    matrix = np.array(shot.matrix, np.float32)
    gains = np.array([shot.red, 1, shot.blue], np.float32)
    light = steps["power"](image, GAMMA)
    if scale > 1:
        light = steps["shrink"](light, scale)
    camera = np.clip(steps["matrix"](light, np.linalg.inv(matrix)) / gains, 0, 1)
    signal = np.empty(camera.shape[:2], np.float32)
    balance = np.ones((2, 2), np.float32)
    noise = np.empty_like(signal)
    span = np.float32(shot.white - shot.black)
    for site, (row, column) in enumerate(SITES):
        channel = "RGB".index(shot.phase[site])
        part = (slice(row, None, 2), slice(column, None, 2))
        signal[part] = camera[part][..., channel] * span
        noise[part] = np.sqrt(signal[part] * np.float32(shot.beta1[site]) + np.float32(shot.beta2[site]))
        balance[row, column] = gains[channel]
    dn = np.clip(np.rint(signal + np.float32(shot.black) + noise * field), 0, np.float32(shot.white))
    seen = np.clip((dn - np.float32(shot.black)) / span, 0, 1)
    for row, column in SITES:
        seen[row::2, column::2] *= balance[row, column]
    image = steps["demosaic"](np.minimum(seen, 1))
    tone = steps["power"](np.clip(steps["matrix"](image, matrix), 0, 1), 1 / GAMMA)
    if scale > 1:
        tone = steps["enlarge"](tone, scale)
    return np.floor(np.clip(tone, 0, 1) * 255) / np.float32(255)


# ---------------------------------------------------------------- the race


def ours_with(images: Tensor, shots: Sequence[Shot], fields: Tensor, camera: Camera) -> Tensor:
    """Our photographs, with the noise field given."""
    clean = expose(images, shots, camera)
    rows = clean.new_zeros(len(clean), 1, clean.shape[2], 1)
    noisy = clean + sensor_offset(clean, shots, camera, fields=fields, rows=rows)
    size = (images.shape[2], images.shape[3])
    return finish(develop(quantise(noisy, shots[0].white), shots, camera), size, camera)


def race(side: int, scale: int, batch: int, threads: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each contender at one size."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, side // 8, side // 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").clamp(0, 1)
    profile = read_profile("generic-phone")
    shots = [shot_at(profile, ISO, (index + 0.5) / batch) for index in range(batch)]
    camera = Camera(scale=scale)
    small = (side // scale, side // scale)
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    random = np.random.default_rng(0)

    def batched() -> None:
        photograph(images, shots, [torch.Generator().manual_seed(seed) for seed in range(batch)], camera=camera)

    def one_by_one() -> None:
        for index in range(batch):
            picked = slice(index, index + 1)
            photograph(images[picked], shots[picked], [torch.Generator().manual_seed(index)], camera=camera)

    def by(steps: Steps) -> Callable[[], None]:
        def run() -> None:
            for array, shot in zip(arrays, shots, strict=True):
                elsewhere(array, shot, random.standard_normal(small, np.float32), scale, steps)

        return run

    others = {"numpy": numpy_steps()}
    with contextlib.suppress(ImportError):
        others["numpy + OpenCV"] = opencv_steps(threads)
    contenders = {
        f"degradations, {batch} at a time": batched,
        "degradations, one at a time": one_by_one,
        **{name: by(steps) for name, steps in others.items()},
    }
    clock = time.process_time if threads == 1 else time.perf_counter
    fastest = dict.fromkeys(contenders, float("inf"))
    ends = time.perf_counter() + seconds * len(contenders)
    while time.perf_counter() < ends:
        for name, contender in contenders.items():
            begun = clock()
            contender()
            fastest[name] = min(fastest[name], clock() - begun)
    fields = torch.stack([draw_fields(small, torch.Generator().manual_seed(seed), images)[0] for seed in range(batch)])
    ours = ours_with(images, shots, fields, camera)
    rows: list[dict[str, Any]] = []
    for name, elapsed in fastest.items():
        row: dict[str, Any] = {"size": side, "contender": name, "images_per_second": batch / elapsed}
        if name in others:
            theirs = [
                elsewhere(array, shot, field[0].numpy(), scale, others[name])
                for array, shot, field in zip(arrays, shots, fields, strict=True)
            ]
            inside = slice(2 * scale, -2 * scale)
            apart = (np.abs(np.stack(theirs) - ours.permute(0, 2, 3, 1).numpy()) * 255)[:, inside, inside]
            row |= {"mean_levels_apart": float(apart.mean()), "most_levels_apart": float(apart.max())}
        rows.append(row)
    return rows


def main() -> None:
    """Print the table, or its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2, help="for each contender and size")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [
        row
        for side, scale in SIZES.items()
        for row in race(side, scale, arguments.batch, arguments.threads, arguments.seconds)
    ]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print("| size | contender | images / s | grey levels apart: mean, most |")
    print("|---:|---|---:|---:|")
    for row in rows:
        apart = f"{row['mean_levels_apart']:.3f}, {row['most_levels_apart']:.0f}" if "mean_levels_apart" in row else ""
        print(f"| {row['size']} | {row['contender']} | {row['images_per_second']:.1f} | {apart} |")
    if not any("OpenCV" in row["contender"] for row in rows):
        print(INSTALL)


if __name__ == "__main__":
    main()
