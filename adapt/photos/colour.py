"""Samples to sRGB by the file's ICC profile: 8 bits through littleCMS, 16 bits through the profile's own curves.

The littleCMS that Pillow brings converts 8-bit images only. Profiles made of three curves and a matrix (cameras,
displays, the working spaces of photographers) are therefore computed here for 16-bit images; profiles with
look-up tables convert through 8 bits, with a note.
"""

from __future__ import annotations

import io
import struct
from typing import Any, Final, cast

import numpy as np
from PIL import Image, ImageCms

from adapt.errors import PhotoError

# Columns: the sRGB primaries relative to D50, from the profile of IEC 61966-2-1 (Bradford adaptation of D65).
_SRGB_TO_XYZ: Final = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
FLAT: Final = 1e-4  # determinant of a matrix below which colours fall together: no profile of a device
_SPACES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


def narrow_to_srgb(image: Image.Image, profile: bytes | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """An 8-bit image of mode L, RGB, CMYK or LAB as (H, W, 3) uint8 sRGB, and notes.

    An image whose profile says nothing else than sRGB (to one step of 255) stays bit for bit as it is. CMYK without
    a usable profile is converted by the plain formula, with a note.
    Raises: PhotoError: littleCMS fails on the pixels.
    """
    notes: list[str] = []
    source = _open_profile(profile, notes)
    if source is not None:
        space = _SPACES.get(cast(Any, source).profile.xcolor_space.strip(), "")
        if image.mode == "L" and space == "RGB":
            image = image.convert("RGB")
        if space == image.mode:
            try:
                return _convert(image, source), tuple(notes)
            except ImageCms.PyCMSError as error:
                notes.append(f"its colour profile cannot be used and was left out ({' '.join(str(error).split())})")
        else:
            notes.append(f"its colour profile is for {space or 'other'} images, not {image.mode}, and was left out")
    if image.mode == "LAB":
        try:
            return _convert(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))), tuple(notes)
        except ImageCms.PyCMSError as error:
            raise PhotoError(f"its Lab colours cannot be converted: {error}") from error
    if image.mode == "CMYK":
        notes.append("CMYK without a colour profile: converted by the plain formula")
    return np.array(image.convert("RGB")), tuple(notes)


def narrow_from_srgb(pixels: np.ndarray, profile: bytes, mode: str) -> np.ndarray | None:
    """sRGB colours, (N, 3) uint8, as an 8-bit file of mode L or RGB with this profile stores them: (N, 1 or 3) uint8,
    what `narrow_to_srgb` undoes.

    None where it cannot be told: a damaged profile, or one of another space or without a way back.
    """
    source = _open_profile(profile, [])
    space = "" if source is None else _SPACES.get(cast(Any, source).profile.xcolor_space.strip(), "")
    if source is None or space not in ("L", "RGB") or (space, mode) == ("L", "RGB"):
        return None
    image, srgb = Image.fromarray(np.ascontiguousarray(pixels[None])), ImageCms.createProfile("sRGB")
    try:
        if _is_srgb(ImageCms.buildTransform(source, srgb, space, "RGB"), space):
            converted = image
        else:
            converted = ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, source, "RGB", space))
    except ImageCms.PyCMSError:
        return None
    assert converted is not None  # None only where it works in place
    samples = np.array(converted)[0].reshape(len(pixels), -1)
    if samples.shape[1] == 3 and mode == "L":
        samples = np.rint(samples.mean(axis=1, keepdims=True)).astype(np.uint8)
    return samples


def wide_to_srgb(samples: np.ndarray, peak: int, profile: bytes | None) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """(H, W, 1 or 3) uint16 samples as (H, W, 3) float32 sRGB in [0, 1], the bits that are left, and notes.

    Colours outside sRGB are clipped, as relative colorimetric rendering does. Bits: 16, or 8 where the profile has
    look-up tables.
    """
    plain = np.broadcast_to(samples.astype(np.float32) / peak, (*samples.shape[:2], 3))
    if profile is None:
        return plain, 16, ()
    curves, matrix = _curves_and_matrix(profile)
    space = profile[16:20].decode("latin-1").strip()
    if not curves:
        eight = np.rint(plain * 255).astype(np.uint8)
        grey = samples.shape[2] == 1 and space == "GRAY"
        image = Image.fromarray(np.ascontiguousarray(eight[..., 0]) if grey else eight)
        converted, notes = narrow_to_srgb(image, profile)
        if notes:  # the profile was of no use: nothing needs to be lost
            return plain, 16, notes
        if np.array_equal(converted, eight):
            return plain, 16, ()
        return converted.astype(np.float32) / 255, 8, ("its colour profile has tables: converted with 8 bits",)
    if len(curves) < samples.shape[2]:
        return plain, 16, (f"its colour profile is for {space} images, not RGB, and was left out",)
    steps = np.arange(peak + 1) / peak
    tables = [curve(steps) for curve in curves]
    if _means_srgb(tables, matrix):
        return plain, 16, ()
    tables = tables * (3 // len(tables))
    indices = np.broadcast_to(np.minimum(samples, peak), plain.shape)
    linear = np.stack([table.astype(np.float32)[indices[..., c]] for c, table in enumerate(tables)], axis=-1)
    if matrix is not None:
        linear = linear @ matrix.T.astype(np.float32)
    return _encode(linear.clip(0, 1)).astype(np.float32), 16, ()


def wide_from_srgb(pixels: np.ndarray, channels: int, profile: bytes) -> np.ndarray | None:
    """sRGB colours, (N, 3) in [0, 1], as a file of more than 8 bits with this profile stores them: (N, channels) in
    [0, 1], what `wide_to_srgb` undoes. None where there is no way back: look-up tables."""
    curves, matrix = _curves_and_matrix(profile)
    if not curves or len(curves) < channels:
        return None
    steps = np.linspace(0, 1, 65536)
    tables = [curve(steps) for curve in curves]
    if _means_srgb(tables, matrix):
        return pixels if channels == 3 else pixels.mean(axis=1, keepdims=True)
    linear = _decode(pixels)
    if matrix is not None:
        linear = (linear @ np.linalg.inv(matrix).T).clip(0, 1)
    if channels == 1:
        linear = linear.mean(axis=1, keepdims=True)
    return np.stack([np.interp(linear[:, c], tables[c], steps) for c in range(channels)], axis=1)


# ---------------------------------------------------------------- littleCMS


def _open_profile(profile: bytes | None, notes: list[str]) -> ImageCms.ImageCmsProfile | None:
    if profile is None:
        return None
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, ImageCms.PyCMSError):
        notes.append("its colour profile is damaged and was left out: taken as sRGB")
        return None


def _convert(image: Image.Image, source: ImageCms.ImageCmsProfile) -> np.ndarray:
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, image.mode, "RGB")
    if image.mode in ("RGB", "L") and _is_srgb(transform, image.mode):
        return np.array(image.convert("RGB"))
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None only where it works in place
    return np.array(converted)


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform to sRGB leaves colours as they are, to one step of 255."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    probe = Image.fromarray(cube if mode == "RGB" else np.ascontiguousarray(cube[..., 0]))
    before = np.array(probe.convert("RGB")).astype(int)
    return bool(np.abs(np.array(ImageCms.applyTransform(probe, transform)).astype(int) - before).max() <= 1)


# ---------------------------------------------------------------- curves and a matrix


class _Curve:
    """A tone curve of an ICC profile: values in [0, 1] to linear light in [0, 1].

    Source: ICC.1:2022, 10.6 (curveType) and 10.18 (parametricCurveType).
    """

    def __init__(self, tag: bytes) -> None:
        self.table: np.ndarray | None = None
        self.kind, self.numbers = 0, (1.0,)
        if tag[:4] == b"curv":
            (count,) = struct.unpack_from(">I", tag, 8)
            if count == 1:
                self.numbers = (struct.unpack_from(">H", tag, 12)[0] / 256,)
            elif count > 1:
                self.table = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535
        elif tag[:4] == b"para":
            (self.kind,) = struct.unpack_from(">H", tag, 8)
            count = (1, 3, 4, 5, 7)[self.kind]
            self.numbers = tuple(n / 65536 for n in struct.unpack_from(f">{count}i", tag, 12))
        else:
            raise ValueError("not a tone curve")
        gamma, slope = (*self.numbers, 1.0)[:2]
        if not (gamma > 0 and slope > 0):
            raise ValueError("a tone curve that does not rise")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.table is not None:
            return np.interp(x, np.linspace(0, 1, len(self.table)), self.table)
        gamma, a, b, c, d, e, f = (*self.numbers, *(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)[len(self.numbers) - 1 :])
        power = np.maximum(a * x + b, 0) ** gamma
        if self.kind in (0, 1, 2):
            low_end = -b / a if self.kind else 0.0
            offset = c if self.kind == 2 else 0.0
            return (np.where(x >= low_end, power, 0.0) + offset).clip(0, 1)
        return np.where(x >= d, power + e, c * x + f).clip(0, 1)


def _curves_and_matrix(profile: bytes) -> tuple[list[_Curve], np.ndarray | None]:
    """The tone curves and the matrix from device to linear sRGB; no curves where the profile is of another make."""
    try:
        tags = _tags(profile)
        if b"A2B0" in tags or profile[20:24] != b"XYZ ":
            return [], None
        if profile[16:20] == b"GRAY":
            return [_Curve(tags[b"kTRC"])], None
        curves = [_Curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        columns = [struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    except (struct.error, ValueError, KeyError, IndexError):
        return [], None
    matrix = np.linalg.inv(_SRGB_TO_XYZ) @ (np.array(columns).T / 65536)
    return (curves, matrix) if abs(np.linalg.det(matrix)) > FLAT else ([], None)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 200)))
    return {name: profile[offset : offset + size] for name, offset, size in entries}


def _means_srgb(tables: list[np.ndarray], matrix: np.ndarray | None) -> bool:
    """Whether curves and matrix say sRGB, to half a step of 255."""
    steps = np.linspace(0, 1, len(tables[0]))
    straight = all(np.abs(_encode(table) - steps).max() < 0.5 / 255 for table in tables)
    return straight and (matrix is None or bool(np.abs(matrix - np.eye(3)).max() < 2e-3))


def _encode(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB values. Source: IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def _decode(values: np.ndarray) -> np.ndarray:
    """sRGB values to linear light. Source: IEC 61966-2-1."""
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0.04045) + 0.055) / 1.055) ** 2.4)
