"""The bytes of an image file to its samples, upright and whole, or an error: never a part, never fewer bits silently.

Pillow decodes, pi-heif does where the file is HEIC, LibRaw where it is a camera's RAW. Two of Pillow's habits are
undone here: it drops the low byte of 16-bit colour, and it only warns of decompression bombs.
"""

from __future__ import annotations

import io
import struct
import sys
import threading
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from adapt.errors import PhotoError
from adapt.photos.png import check_chunks, without_profile_and_texts
from adapt.photos.raw import develop, raw_kind

FORMATS: Final = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "AVIF")

# What decoders raise on damaged bytes. Pillow's parsers are Python code that indexes, unpacks and divides what the
# file says; the list is long because each of these has been seen for some damaged file.
DECODER_ERRORS: Final = (
    OSError,  # UnidentifiedImageError too
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_GREY_MODES: Final = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")
_ORIENTATION: Final = 0x0112  # EXIF tag
_TOLD_BY_TIFF: Final = {270, 271, 272, 305, 306, 315, 33432}  # description, camera, software, date, artist, copyright
_MOST_DPI: Final = 100_000
_HEIF_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

# Warning filters and Pillow's switch for truncated files are global to the process.
_decoding = threading.Lock()


@dataclass(frozen=True)
class Samples:
    """A decoded image before its colours are converted.

    Attributes:
        colour: 8 bits: a Pillow image of mode L, RGB, CMYK or LAB; else a (H, W, 1 or 3) uint16 array.
        alpha: (H, W) uint8 or uint16, or None.
        peak: the sample that means white or opaque (255, 4095, 65535, ...).
        grey: the file is greyscale.
        format: "PNG", "JPEG", ..., "RAW DNG", ...
        profile: the ICC profile of the file, or None.
        notes: what the reader should know and the samples do not say.
        exif: the file's EXIF data without prefix and orientation, for it is upright; b"" where there is none.
        dpi: dots per inch, to the right and down, where the file says.
    """

    colour: Image.Image | np.ndarray
    alpha: np.ndarray | None
    peak: int
    grey: bool
    format: str
    profile: bytes | None
    notes: tuple[str, ...]
    exif: bytes = b""
    dpi: tuple[float, float] | None = None


def decode(data: bytes, *, at_least: int | None = None) -> Samples:
    """The samples of the image in `data`, turned upright; of several frames or pages the first.

    Args:
        data: the file.
        at_least: the shorter side that is needed, in pixels: what is far larger may be decoded at half its size.
            Only RAW files are.

    Raises:
        PhotoError: for every image that cannot be decoded whole; the message is the reason, without a file name.
    """
    if not data:
        raise PhotoError("the file is empty")
    if (kind := raw_kind(data)) is not None:
        return _decode_raw(data, kind, at_least)
    with _decoding, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            samples = _decode_heif(data) if _is_heif(data) else _decode_pillow(data)
        except UnidentifiedImageError as error:
            known = "PNG, JPEG, TIFF, WebP, BMP, GIF, AVIF, HEIC or a camera's RAW"
            raise PhotoError(f"not an image ({known}), or its header is damaged") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise PhotoError(f"refused as a decompression bomb: {_one_line(error)}") from error
        except PhotoError:
            raise
        except DECODER_ERRORS as error:
            raise PhotoError(f"damaged or incomplete: {_one_line(error)}") from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient
    ours = [w for w in caught if {"PIL", "pi_heif", "tifffile"} & set(Path(w.filename).parts)]
    for other in caught:
        if other not in ours:  # raised by another thread while this one was decoding
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    notes = dict.fromkeys((*samples.notes, *(_one_line(w.message) for w in ours)))
    return replace(samples, notes=tuple(notes))


# ---------------------------------------------------------------- Pillow


def _decode_pillow(data: bytes) -> Samples:
    profile: bytes | None = None
    of_profile: tuple[str, ...] = ()
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        check_chunks(data)  # Pillow does not look at the checksums of the pixel data
        data, profile, of_profile = without_profile_and_texts(data)
    image = _open(data)
    depth = _depth(image)
    if image.format == "TIFF" and depth == 16 and _tag(image, 284) == 2:
        data = _interleaved(data)
        image = _open(data)
    profile = profile or image.info.get("icc_profile") or None
    notes = (*of_profile, *_notes(image, data, depth, profile))
    common: dict[str, Any] = {"format": str(image.format), "profile": profile, **_beside(image)}
    if depth > 8 and image.mode != "CMYK":
        colour, alpha, grey = _wide(image, data)
        return Samples(colour=colour, alpha=alpha, grey=grey, peak=2**depth - 1, notes=notes, **common)
    image.load()
    upright = ImageOps.exif_transpose(image)
    colour, alpha = _split(upright)
    grey = image.mode in _GREY_MODES
    return Samples(colour=colour, alpha=alpha, grey=grey, peak=255, notes=notes, **common)


def _open(data: bytes) -> Any:
    """The image, its header read; typed loosely because every format has attributes of its own."""
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _beside(image: Any) -> dict[str, Any]:
    """EXIF data and resolution, as fields of `Samples`; damaged ones are left out."""
    found: dict[str, Any] = {}
    try:
        exif = Image.Exif()  # its own: Pillow turns the image upright by the one that it keeps
        if image.format == "TIFF":
            for tag in _TOLD_BY_TIFF & set(image.tag_v2):
                exif[tag] = image.tag_v2[tag]
            turned = _tag(image, _ORIENTATION, 1) in (5, 6, 7, 8)
        else:
            exif.load(image.info.get("exif") or b"")  # getexif() would decode a PNG file first
            turned = exif.pop(_ORIENTATION, 1) in (5, 6, 7, 8)
        found["exif"] = _exif_bytes(exif)
        across, down = image.info["dpi"]
        dpi = (float(down), float(across)) if turned else (float(across), float(down))
        if all(0 < each < _MOST_DPI for each in dpi):
            found["dpi"] = dpi
    except DECODER_ERRORS:
        pass
    return found


def _exif_bytes(exif: Image.Exif) -> bytes:
    return exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else b""


def _depth(image: Any) -> int:
    """Bits per sample: 8 for everything that Pillow reads exactly into 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;32"):
        raise PhotoError(
            f"samples of Pillow's mode {image.mode} (signed, 32-bit or floating-point) have no known white:"
            " save it with 8 or 16 bits"
        )
    if image.format == "TIFF":
        bits = _tag(image, 258, (1,))
        return max(8, *(bits if isinstance(bits, tuple) else (bits,)))
    # Only PNG is left with more than 8 bits. BGR;16 is a BMP with 16 bits for all three colours of a pixel.
    return 16 if image.format == "PNG" and any(";16" in _raw_mode(tile) for tile in image.tile) else 8


def _raw_mode(tile: Any) -> str:
    """How the samples of a tile lie in the file: of a decoder's arguments the first, or the only one."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _tag(image: Any, number: int, default: Any = None) -> Any:
    return image.tag_v2.get(number, default)


def _split(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """Colour (L, RGB, CMYK, LAB) and alpha of an 8-bit image; colour stays as stored, transparent or not."""
    grey = image.mode in _GREY_MODES
    if image.mode == "La":  # premultiplied: Pillow converts it to LA only
        image = image.convert("LA")
    if image.has_transparency_data:
        bands = image.convert("RGBA").split()
        return bands[0] if grey else Image.merge("RGB", bands[:3]), np.array(bands[3])
    if image.mode in ("CMYK", "LAB"):
        return image, None
    return image.convert("L" if grey else "RGB"), None


def _wide(image: Any, data: bytes) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Colour, alpha and greyness of an image with more than 8 bits per sample."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        white_is_zero = image.format == "TIFF" and _tag(image, 262) == 0  # Pillow inverts this for 8 bits only
        grey = _upright(image)[..., None].astype(np.uint16)
        if white_is_zero:
            grey = 65535 - grey
        alpha = None if key is None else np.where(grey[..., 0] == key, 0, 65535).astype(np.uint16)
        return grey, alpha, True
    raw = _raw_mode(image.tile[0])
    if raw == "LA;16B":  # four bytes per pixel, as plain RGBA has: L high, L low, A high, A low
        halves = _upright(_retiled(data, "RGBA")).astype(np.uint16)
        return halves[..., 0:1] << 8 | halves[..., 1:2], halves[..., 2] << 8 | halves[..., 3], True
    # Pillow keeps the high byte of each sample. Told the other byte order it keeps the low one.
    layout, order = raw.split(";16")
    swapped = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}[order]
    straight = layout.replace("a", "A")  # premultiplied samples as stored: undone below with all their bits
    high, low = (_upright(_retiled(data, f"{straight};16{half}")).astype(np.uint16) for half in (order, swapped))
    pixels = high << 8 | low
    colour, alpha = pixels[..., :3], pixels[..., 3] if pixels.shape[2] == 4 else None
    if straight != layout and alpha is not None:
        colour = np.minimum(np.rint(colour * (65535.0 / np.maximum(alpha, 1))[..., None]), 65535).astype(np.uint16)
    if key is not None:
        alpha = np.where((colour == np.array(key, np.uint16)).all(-1), 0, 65535).astype(np.uint16)
    return colour, alpha, False


def _retiled(data: bytes, rawmode: str) -> Any:
    """The image, to be unpacked from its raw bytes in another way."""
    image = _open(data)
    for index, tile in enumerate(image.tile):
        args = (rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
        image.tile[index] = tile._replace(args=args)
    return image


def _upright(image: Any) -> np.ndarray:
    image.load()
    return np.array(ImageOps.exif_transpose(image))


def _interleaved(data: bytes) -> bytes:
    """A 16-bit TIFF with its colours in separate planes, rewritten with the colours of a pixel side by side."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page: Any = tiff.pages[0]
        if page.photometric.name != "RGB" or page.dtype != np.uint16 or page.samplesperpixel not in (3, 4):
            raise PhotoError("16-bit samples in separate planes, and not RGB: save it interleaved")
        end = page.dataoffsets[-1] + page.databytecounts[-1]
        if any(count == 0 for count in page.databytecounts) or end > len(data):
            raise PhotoError("damaged or incomplete: strips of the image are missing")
        pixels = np.moveaxis(page.asarray(), 0, -1)
        orientation = page.tags.valueof(274, 1)
        stream = io.BytesIO()
        tifffile.imwrite(
            stream,
            pixels,
            photometric="rgb",
            planarconfig="contig",
            extrasamples=[int(kind) for kind in page.extrasamples] or None,
            iccprofile=page.iccprofile,
            metadata=None,
            extratags=[(274, "H", 1, orientation, True)],
        )
    return stream.getvalue()


def _notes(image: Any, data: bytes, depth: int, profile: bytes | None) -> tuple[str, ...]:
    notes: list[str] = []
    if getattr(image, "is_animated", False):
        notes.append(f"the first of its {image.n_frames} frames or pages")
    if image.mode == "CMYK" and depth > 8:
        notes.append("16-bit CMYK, read with 8 bits")
    if image.format == "AVIF":
        box = data.find(b"av1C")  # its name, a byte each of version and profile, then in bit 6: more than 8 bits
        if 0 <= box < len(data) - 6 and data[box + 6] & 0x40:
            notes.append("AVIF of 10 or 12 bits, read with 8 bits")
    gamma = image.info.get("gamma")
    if gamma and abs(gamma - 1 / 2.2) > 0.01 and profile is None and "srgb" not in image.info:
        notes.append(f"its gamma of {gamma:g} was not applied: taken as sRGB")
    return tuple(notes)


# ---------------------------------------------------------------- RAW and HEIC


def _decode_raw(data: bytes, kind: str, at_least: int | None) -> Samples:
    developed = develop(data, at_least=at_least)
    return Samples(
        colour=developed.pixels,
        alpha=None,
        peak=65535,
        grey=developed.pixels.shape[2] == 1,
        format=f"RAW {kind}",
        profile=None,
        notes=developed.notes,
    )


def _is_heif(data: bytes) -> bool:
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & _HEIF_BRANDS) and not brands & {b"avif", b"avis"}


def _decode_heif(data: bytes) -> Samples:
    try:
        import pi_heif
    except ImportError as error:
        raise PhotoError("a HEIC image: to read it, pip install 'adapt-bfr[heif]' (the extra `heif`)") from error
    # libheif turns the image as its boxes say; the EXIF orientation beside them must not turn it again.
    container: Any = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    image: Any = container[container.primary_index]
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise PhotoError(f"refused as a decompression bomb: {width}x{height} pixels, the limit is {limit}")
    pixels = np.asarray(image).reshape(height, width, -1)
    layout = image.mode.split(";")[0]
    colour, alpha = (pixels[..., :-1], pixels[..., -1]) if layout.endswith(("A", "a")) else (pixels, None)
    # Samples of 10 and 12 bits come shifted to the top of 16: their white is not 65535.
    bits = int(image.info.get("bit_depth", 8)) if pixels.dtype == np.uint16 else 8
    peak = (2**bits - 1) << (16 - bits) if bits > 8 else 255
    if image.premultiplied_alpha and alpha is not None:
        straight = np.rint(colour * (float(peak) / np.maximum(alpha, 1))[..., None])
        colour = np.minimum(straight, peak).astype(pixels.dtype)
    grey = layout in ("L", "LA", "La", "I")  # I: grey of more than 8 bits
    notes = (f"the primary of its {len(container)} images",) if len(container) > 1 else ()
    exif = b""
    try:
        known = Image.Exif()
        known.load(image.info.get("exif") or b"")
        known.pop(_ORIENTATION, None)
        exif = _exif_bytes(known)
    except DECODER_ERRORS:
        pass
    return Samples(
        exif=exif,
        colour=colour if peak > 255 else Image.fromarray(np.ascontiguousarray(colour[..., 0] if grey else colour)),
        alpha=alpha,
        peak=peak,
        grey=grey,
        format="HEIF",
        profile=image.info.get("icc_profile") or None,
        notes=notes,
    )


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
