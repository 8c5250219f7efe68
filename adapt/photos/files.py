"""Image files in and out: any of the usual formats to RGB float32 (3, H, W) in [0, 1], and back.

What a file is, its content says, not its name. What cannot be read whole is an error that names file and reason.
"""

from __future__ import annotations

import errno
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

import numpy as np
import torch
from PIL import Image

from adapt.disk import write_atomic
from adapt.errors import PhotoError, ShapeError, UsageError
from adapt.images import check_image, from_uint8, to_uint8
from adapt.photos.colour import narrow_to_srgb, wide_to_srgb
from adapt.photos.decode import DECODER_ERRORS, Samples, decode
from adapt.photos.folder import RAW_SUFFIXES
from adapt.photos.png import encode_16bit
from adapt.photos.raw import not_raw, raw_kind

if TYPE_CHECKING:
    from torch import Tensor

WRITTEN: Final = {
    ".png": (8, 16),
    ".tif": (8, 16),
    ".tiff": (8, 16),
    ".jpg": (8,),
    ".jpeg": (8,),
    ".webp": (8,),
}


@dataclass(frozen=True)
class Photo:
    """An image as read.

    Attributes:
        image: (3, H, W) RGB, sRGB, float32 in [0, 1], upright.
        bits: how many bits each sample of the file gave: 8, or 16 for everything above (10- and 12-bit files too).
        grey: the file was greyscale.
        alpha: (1, H, W) in [0, 1], 1 opaque, or None. The colours are not multiplied with it and not laid over any
            background: where an image is transparent, they are whatever the file stores there.
        format: what the content is: "PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "HEIF", or "RAW " and
            the kind of RAW file, as `adapt.photos.raw.raw_kind` names it.
        sha256: digest of the file's bytes, equal to `adapt.digests.file_digest`.
        notes: what was decided on the way and a reader may want to know (first of several frames, a colour profile
            that could not be used, damaged EXIF data); empty for most files.
    """

    image: Tensor
    bits: Literal[8, 16]
    grey: bool
    alpha: Tensor | None
    format: str
    sha256: str
    notes: tuple[str, ...] = ()


def read_photo(path: str | Path, *, at_least: int | None = None) -> Photo:
    """The image in a file: PNG, JPEG, TIFF (8, 12 or 16 bits), WebP, BMP, GIF, AVIF, HEIC with the extra `heif`, or
    camera RAW, developed as `adapt.photos.raw.develop` says.

    EXIF orientation is applied; ICC profiles are converted to sRGB, for 16-bit images with all their bits where the
    profile is made of curves and a matrix. Of animations and multi-page files the first image is read, with a note.
    A JPEG file with flipped bits inside may decode without complaint to a damaged image: the format has no checksum.

    Args:
        path: the file.
        at_least: the shorter side that the caller needs, in pixels; RAW files of at least twice that are developed at
            half their size, with a note.

    Raises:
        PhotoError: no such file, empty, not an image, cut short, damaged, a decompression bomb (more pixels than
            Pillow's `Image.MAX_IMAGE_PIXELS`, about 89 million), samples without a known white (floating point), or
            a file named as camera RAW that holds something else: most often the small preview that is left of one.
    """
    return decoded(Path(path), at_least=at_least)[0]


def decoded(path: Path, *, at_least: int | None = None) -> tuple[Photo, Samples]:
    """`read_photo`, and the samples as they are in the file."""
    try:
        if not path.is_file():
            raise PhotoError("no such file" if not path.exists() else "not a regular file")
        data = path.read_bytes()
        if data and path.suffix.lower() in RAW_SUFFIXES and raw_kind(data) is None:
            raise PhotoError(not_raw(path, data))
        samples = decode(data, at_least=at_least)
        if isinstance(samples.colour, np.ndarray):
            pixels, bits, notes = wide_to_srgb(samples.colour, samples.peak, samples.profile)
            image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
        else:
            pixels, notes = narrow_to_srgb(samples.colour, samples.profile)
            image, bits = from_uint8(pixels), 8
    except PhotoError as error:
        raise PhotoError(f"{_shown(path)}: {error}") from error
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "not enough memory"
        raise PhotoError(f"{_shown(path)}: cannot be read: {reason}") from error
    alpha = samples.alpha
    photo = Photo(
        image=image,
        bits=16 if bits == 16 else 8,
        grey=samples.grey,
        alpha=None if alpha is None else torch.from_numpy(alpha.astype(np.float32) / samples.peak)[None],
        format=samples.format,
        sha256=hashlib.sha256(data).hexdigest(),
        notes=samples.notes + notes,
    )
    return photo, samples


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height that the head of a file tells, not turned upright; None where that cannot be told cheaply."""
    try:
        with Image.open(path) as image:
            return image.size
    except DECODER_ERRORS:
        return None


def read_image(path: Path) -> Tensor:
    """`read_photo(path).image`: (3, H, W) RGB float32 in [0, 1]."""
    return read_photo(path).image


def write_image(
    path: Path, image: Tensor, *, bits: int = 8, overwrite: bool = False, lossless: bool = False
) -> None:
    """Write an image, whole or not at all; the format is that of the suffix.

    Args:
        path: .png, .tif, .tiff (8 or 16 bits), .jpg, .jpeg (quality 95, 4:4:4), .webp (quality 95).
        image: (3, H, W) RGB in [0, 1].
        bits: 8 or 16 per sample.
        overwrite: replace a file that is there.
        lossless: for .webp: every pixel as it is.

    Raises:
        ShapeError, RangeError: not (3, H, W); values not finite or outside [0, 1]. Clamp before, knowingly.
        UsageError: an unknown suffix, or bits that the format cannot hold.
        PhotoError: the file exists already, or the format cannot hold the image.
        OSError: it cannot be written, as on a full disk; names the file. No fault of the image or its name: the next
            one will not fare better.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        raise UsageError(f"{_shown(path)}: cannot write {suffix or 'a file without suffix'}; use {', '.join(WRITTEN)}")
    if bits not in WRITTEN[suffix]:
        allowed = " or ".join(map(str, WRITTEN[suffix]))
        raise UsageError(f"{_shown(path)}: {suffix} holds {allowed} bits, not {bits}; use .png or .tif for 16")
    _check(image, _shown(path))
    try:
        if not overwrite and path.exists():
            raise PhotoError(f"{_shown(path)}: exists already and is not replaced unless overwriting is asked for")
        write_atomic(path, lambda stream: _write(stream, image, suffix, bits=bits, lossless=lossless))
    except PhotoError:
        raise
    except (OSError, ValueError) as error:  # more pixels on a side than the format can hold
        if isinstance(error, OSError) and error.errno not in (None, errno.ENAMETOOLONG):
            raise
        raise PhotoError(f"{_shown(path)}: cannot be written: {error}") from error


def encode_png(image: Tensor, *, bits: int = 8) -> bytes:
    """A PNG file of a (3, H, W) image in [0, 1]: the same bytes for the same pixels, without time or names.

    Raises: ShapeError, RangeError: as `write_image`. UsageError: bits other than 8 or 16.
    """
    _check(image, "image")
    if bits not in WRITTEN[".png"]:
        raise UsageError(f"PNG holds 8 or 16 bits, not {bits}")
    stream = io.BytesIO()
    _write(stream, image, ".png", bits=bits, lossless=True)
    return stream.getvalue()


def _check(image: Tensor, name: str) -> None:
    if image.ndim != 3 or image.numel() == 0:
        raise ShapeError(f"{name}: expected one image of shape (3, H, W), got {tuple(image.shape)}")
    check_image(image[None], name)


def _write(stream: BinaryIO, image: Tensor, suffix: str, *, bits: int, lossless: bool) -> None:
    pixels = to_uint8(image) if bits == 8 else _to_uint16(image)
    if suffix in (".tif", ".tiff"):
        import tifffile

        tifffile.imwrite(stream, pixels, photometric="rgb", compression="zlib", metadata=None, software="adapt")
    elif bits == 16:
        stream.write(encode_16bit(pixels))
    elif suffix == ".png":
        Image.fromarray(pixels).save(stream, "PNG")
    elif suffix == ".webp":
        Image.fromarray(pixels).save(stream, "WEBP", quality=95, lossless=lossless)
    else:
        Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)


def _to_uint16(image: Tensor) -> np.ndarray:
    """As `adapt.images.to_uint8`, to 16 bits."""
    values = image.detach().double().clamp(0, 1).mul(65535).round().permute(1, 2, 0)
    return values.cpu().contiguous().numpy().astype(np.uint16)


def _shown(path: Path) -> str:
    """The path as it can be printed and stored: names that are not Unicode get escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()
