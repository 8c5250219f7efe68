"""Camera RAW files and sensors for tests: made up, with everything about them known."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

COLOUR_MATRIX = ((0.8, -0.2, -0.1), (-0.4, 1.2, 0.2), (-0.1, 0.2, 0.6))
"""XYZ to camera RGB, as DNG files say it."""

_EXIF = 34665
_SPARE = 34666  # tifffile writes no pointer to EXIF data: this entry is made one


def write_dng(
    path: Path,
    mosaic: np.ndarray,
    *,
    phase: str = "RGGB",
    black: int = 64,
    white: int = 1023,
    iso: int | None = None,
    gains: tuple[float, float] = (2.0, 1.6),
    orientation: int = 1,
) -> Path:
    """An uncompressed DNG file of a mosaic, (H, W) uint16, by the DNG specification 1.4.

    Args:
        iso: in an EXIF directory behind the image.
        gains: of red and blue, against green.
    """

    def ratios(*values: float) -> tuple[int, ...]:
        return tuple(number for value in values for number in (round(value * 10_000), 10_000))

    tags: list[tuple[int | str, int | str, int | None, Any, bool]] = [
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),  # size and colours of the filter's cell
        (33422, "B", 4, tuple("RGB".index(colour) for colour in phase), True),
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNG version
        (50708, "s", 0, "Made up", True),
        (50714, "H", 1, black, True),
        (50717, "H", 1, white, True),
        (50721, 10, 9, ratios(*np.ravel(COLOUR_MATRIX)), True),
        (50728, 5, 3, ratios(1 / gains[0], 1, 1 / gains[1]), True),  # neutral in this light
        (50778, "H", 1, 21, True),  # the matrix is for D65
        (_SPARE, "I", 1, 0, True),
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, metadata=None, byteorder="<", extratags=tags)
    if iso is not None:
        data = path.read_bytes()
        pointer = struct.pack("<HHII", _EXIF, 4, 1, len(data))
        directory = struct.pack("<HHHIII", 1, 34855, 3, 1, iso, 0)
        path.write_bytes(data.replace(struct.pack("<HHII", _SPARE, 4, 1, 0), pointer) + directory)
    return path


def sensor(
    light: np.ndarray,
    generator: torch.Generator,
    *,
    slope: tuple[float, float, float, float],
    dark: tuple[float, float, float, float],
    row: float = 0.0,
    uneven: float = 0.0,
    black: float = 64,
    white: float = 1023,
) -> np.ndarray:
    """What a sensor counts of an expected signal: photons by Poisson's law, Gaussian read noise, rounding, clipping.

    Args:
        light: (H, W) DN above black.
        slope, dark: DN per electron and variance of the read noise at the sites of the 2 x 2 cell.
        row: standard deviation of the rows' offsets.
        uneven: standard deviation of the photosites' response.
    """
    height, width = light.shape
    cell = np.tile(np.arange(4).reshape(2, 2), (height // 2 + 1, width // 2 + 1))[:height, :width]
    gain, read = np.array(slope)[cell], np.array(dark)[cell] ** 0.5

    def normal(*shape: int) -> np.ndarray:
        return torch.randn(shape, generator=generator, dtype=torch.float64).numpy()

    response = light * (1 + uneven * normal(height, width))
    electrons = torch.poisson(torch.from_numpy(np.maximum(response, 0) / gain), generator=generator).numpy()
    counted = black + gain * electrons + read * normal(height, width) + row * normal(height, 1)
    return np.clip(np.round(counted), 0, white).astype(np.uint16)


def scene(generator: torch.Generator, *, step: int = 112, top: float = 900, textured: bool = True) -> np.ndarray:
    """A chart of 6 x 8 fields of `step` pixels, (H, W) DN, from dark to `top`, and two beyond the white level.

    A third of the fields are textured, some so faintly that the eye would call them flat.
    """
    rows, columns = 6, 8
    height, width = rows * step, columns * step
    fine = torch.randn((1, 1, height, width), generator=generator, dtype=torch.float64)
    blurred = torch.nn.functional.avg_pool2d(fine, 5, 1, 2)[0, 0].numpy() * 5
    levels = np.linspace(0.05, 1, rows * columns) ** 2 * top
    levels[-2:] = 1.3 * top  # beyond the white level
    order = torch.randperm(rows * columns, generator=generator).numpy()
    image = np.empty((height, width))
    for place, field in enumerate(order):
        y, x = place // columns * step, place % columns * step
        strength = (0.02, 0.05, 0.2)[place // 3 % 3] if textured and place % 3 == 0 else 0
        shade = np.linspace(0.98, 1.02, step)[:, None]  # light falls off across a field
        image[y : y + step, x : x + step] = (
            levels[field] * shade * (1 + strength * blurred[y : y + step, x : x + step])
        )
    return np.maximum(image, 0)
