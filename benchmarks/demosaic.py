"""Our demosaicing next to LibRaw's on the same mosaics: dB to the original image, and to each other.

    python benchmarks/demosaic.py FACES [--count 24] [--iso 1600] [--json]

FACES is a folder of clean portraits. Each is put into linear light, seen through a Bayer filter (the four phases in
turn), written as an uncompressed 16-bit DNG, and demosaiced by LibRaw (through rawpy) and by us; nothing else is done
to it. With --iso the mosaics have the noise of the profile generic-phone, without it none. dB are means over the
images, of values after the power of 1 / 2.2, without the outermost four pixels. Times are for one thread; those of
LibRaw have all that its `postprocess` does.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from degradations.camera.bayer import Demosaic, demosaic, mosaic
from degradations.camera.photograph import Camera, Shot, draw_fields, sensor_offset, shot_at
from degradations.camera.profiles import Phase, read_profile
from degradations.camera.steps import to_linear, to_tone

BORDER = 4
LIBRAW = ("LINEAR", "VNG", "PPG", "AHD", "DCB", "DHT", "AAHD")
PARTNERS = ("LibRaw LINEAR", "LibRaw AHD")  # what ours are compared with
FULL = 65535


# ---------------------------------------------------------------- LibRaw


def dng(raw: np.ndarray, phase: Phase) -> bytes:
    """A mosaic of 16-bit numbers, (H, W), as an uncompressed DNG: white is 65535, gains are 1, primaries sRGB's."""
    import tifffile

    xyz_to_srgb = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
    byte, text, short, fraction, signed = 1, 2, 3, 5, 10
    tags = [
        (50706, byte, 4, (1, 4, 0, 0), True),  # DNGVersion
        (50707, byte, 4, (1, 1, 0, 0), True),  # DNGBackwardVersion
        (50708, text, 0, "mosaic", True),  # UniqueCameraModel
        (33421, short, 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, byte, 4, tuple("RGB".index(colour) for colour in phase), True),  # CFAPattern
        (50714, short, 1, 0, True),  # BlackLevel
        (50717, short, 1, FULL, True),  # WhiteLevel
        (50721, signed, 9, tuple(n for v in xyz_to_srgb for n in (round(v * 10000), 10000)), True),  # ColorMatrix1
        (50778, short, 1, 21, True),  # CalibrationIlluminant1: D65
        (50728, fraction, 3, (1, 1) * 3, True),  # AsShotNeutral
    ]
    file = io.BytesIO()
    tifffile.imwrite(file, raw, photometric="CFA", extratags=tags, metadata=None, software=None)
    return file.getvalue()


def by_libraw(raw: Tensor, phase: Phase, method: str) -> Tensor:
    """A mosaic (1, 1, H, W) in [0, 1] demosaiced by LibRaw, with nothing else done to it: (1, 3, H, W)."""
    import rawpy

    numbers = (raw[0, 0].clamp(0, 1) * FULL).round().numpy().astype(np.uint16)
    with rawpy.imread(io.BytesIO(dng(numbers, phase))) as file:
        image: Any = file.postprocess(
            demosaic_algorithm=getattr(rawpy.DemosaicAlgorithm, method),
            output_color=getattr(rawpy.ColorSpace, "raw"),  # noqa: B009 -- its stubs leave the names out
            user_wb=[1, 1, 1, 1],
            gamma=(1, 1),
            no_auto_bright=True,
            adjust_maximum_thr=0,  # or the brightest photosite becomes white
            output_bps=16,
            user_flip=0,
        )
    return torch.from_numpy(image.astype(np.float32) / FULL).permute(2, 0, 1)[None]


# ---------------------------------------------------------------- the comparison


def neutral_shot(iso: float | None, phase: Phase) -> Shot:
    """A photograph whose colours need nothing done; without an ISO it has no noise."""
    shot = shot_at(read_profile("generic-phone"), iso or 100, 0.5)
    shot = replace(shot, phase=phase, red=1.0, blue=1.0, matrix=((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    return shot if iso else replace(shot, beta1=(0, 0, 0, 0), beta2=(0, 0, 0, 0))


def seen(light: Tensor, shot: Shot, seed: int) -> Tensor:
    """The mosaic of (1, 3, H, W) linear light, in [0, 1], with the noise of the shot."""
    clean = mosaic(light, shot.phase)
    field, rows = draw_fields((clean.shape[2], clean.shape[3]), torch.Generator().manual_seed(seed), clean)
    span = shot.white - shot.black
    offset = sensor_offset(clean * span + shot.black, [shot], Camera(), fields=field[None], rows=rows[None])
    return (clean + offset / span).clamp(0, 1)


def decibels(a: Tensor, b: Tensor) -> float:
    """PSNR of linear light after the tone curve, without the border."""
    inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    error = float((to_tone(a.clamp(0, 1)) - to_tone(b.clamp(0, 1)))[inside].square().mean())
    return -10 * math.log10(max(error, 1e-12))


def compare(faces: Path, count: int, iso: float | None) -> list[dict[str, Any]]:
    """One row for each method: dB to the original and to `PARTNERS`, and milliseconds for a megapixel."""
    methods: dict[str, Callable[[Tensor, Phase], Tensor]] = {}
    for method in get_args(Demosaic):
        methods[f"ours {method}"] = lambda raw, phase, method=method: demosaic(raw, phase, method)
    for method in LIBRAW:
        methods[f"LibRaw {method}"] = lambda raw, phase, method=method: by_libraw(raw, phase, method)
    totals = {name: {"original": 0.0, **dict.fromkeys(PARTNERS, 0.0), "seconds": 0.0} for name in methods}
    phases: tuple[Phase, ...] = get_args(Phase)
    photos = find_photos(faces)[:count]
    megapixels = 0.0
    for index, photo in enumerate(photos):
        light = to_linear(read_image(photo.path)[None])
        megapixels += light.shape[2] * light.shape[3] / 1e6
        phase = phases[index % 4]
        raw = seen(light, neutral_shot(iso, phase), index)
        found: dict[str, Tensor] = {}
        for name, method in methods.items():
            begun = time.perf_counter()
            found[name] = method(raw, phase)
            totals[name]["seconds"] += time.perf_counter() - begun
        for name, image in found.items():
            totals[name]["original"] += decibels(image, light)
            for partner in PARTNERS:
                totals[name][partner] += decibels(image, found[partner])
    return [
        {
            "method": name,
            "original": total["original"] / len(photos),
            **{partner: None if partner == name else total[partner] / len(photos) for partner in PARTNERS},
            "ms_per_megapixel": 1000 * total["seconds"] / megapixels,
        }
        for name, total in totals.items()
    ]


def main() -> None:
    """Print the table, or its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--count", type=int, default=24, help="images at most")
    parser.add_argument("--iso", type=float, help="noise of generic-phone at this ISO, 100 to 3200")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = compare(arguments.faces, arguments.count, arguments.iso)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"| demosaicing | dB to the original | {' | '.join(f'dB to {name}' for name in PARTNERS)} | ms / megapixel |")
    print("|---|---:|" + "---:|" * len(PARTNERS) + "---:|")
    for row in rows:
        numbers = [row["original"], *(row[partner] for partner in PARTNERS)]
        cells = ["" if number is None else f"{number:.2f}" for number in numbers]
        print(f"| {row['method']} | {' | '.join(cells)} | {row['ms_per_megapixel']:.0f} |")


if __name__ == "__main__":
    main()
