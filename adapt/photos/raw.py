"""Camera RAW files: recognised by their content, developed to images, or opened as what the sensor counted.

LibRaw (through rawpy) reads them, but does not decide here what is a RAW file: it would take any file of the right
length for that of some old camera without a header.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import numpy as np
from PIL import Image

from adapt.errors import PhotoError
from adapt.photos.folder import RAW_SUFFIXES
from degradations.camera.profiles import Light, Phase

if TYPE_CHECKING:
    import rawpy

_STARTS: Final = {
    b"FUJIFILMCCD-RAW": "RAF",
    b"FOVb": "X3F",
    b"\0MRM": "MRW",
    b"IIRO": "ORF",
    b"IIRS": "ORF",
    b"MMOR": "ORF",
    b"IIU\0": "RW2",
}
_IMAGES: Final = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_SUB_DIRECTORIES, _PHOTOMETRIC, _DNG_VERSION = 330, 262, 50706
_TAGS: Final = (_SUB_DIRECTORIES, _PHOTOMETRIC, _DNG_VERSION)
_COLOUR_FILTER, _LINEAR_RAW = 32803, 34892  # values of _PHOTOMETRIC
_SAMPLE_FORMATS: Final = {1: "B", 3: "H", 4: "I", 13: "I"}  # TIFF types that hold numbers and pointers
_MOST_DIRECTORIES = 64

_SRGB_GAMMA: Final = (2.4, 12.92)  # LibRaw's own default is the curve of BT.709

# Columns: the sRGB primaries under D65, IEC 61966-2-1; the space in which LibRaw's camera matrices are defined.
_SRGB_TO_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


@dataclass(frozen=True)
class Developed:
    """A RAW file as an image.

    Attributes:
        pixels: (H, W, 3) uint16 in sRGB, upright; (H, W, 1) of a camera without colours.
        notes: what was decided on the way and a reader may want to know.
    """

    pixels: np.ndarray
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Sensor:
    """What a sensor with a Bayer filter counted, and what its file says of it.

    Attributes:
        mosaic: (H, W) uint16 in DN, black level included, without the masked borders; not turned upright.
        phase: the colours of the 2 x 2 cell at the top left.
        black: DN of no light at the sites (0, 0), (0, 1), (1, 0), (1, 1).
        white: DN of saturation.
        iso: what the camera was set to; None where the file does not say.
        light: the camera's white balance and its colour matrix.
        notes: as for `Developed`.
    """

    mosaic: np.ndarray
    phase: Phase
    black: tuple[float, float, float, float]
    white: float
    iso: float | None
    light: Light
    notes: tuple[str, ...]


def raw_kind(data: bytes) -> str | None:
    """Which RAW format a file's content is ("CRW", "CR2", "CR3", "DNG", ...), "TIFF" for makers' own TIFF files.

    None for everything else: images, headerless sensor buffers, and files too damaged to say.
    """
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    if data[6:14] == b"HEAPCCDR":
        return "CRW"
    if data[4:12] == b"ftypcrx ":
        return "CR3"
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    if data[8:10] == b"CR":
        return "CR2"
    if data[8:12] in (b"IIII", b"MMMM"):
        return "IIQ"
    found: str | None = None
    for tags in _directories(data):
        if _DNG_VERSION in tags:
            return "DNG"
        if {_COLOUR_FILTER, _LINEAR_RAW} & set(tags.get(_PHOTOMETRIC, ())):
            found = "TIFF"
    return found


def develop(data: bytes, *, at_least: int | None = None) -> Developed:
    """A RAW file as the camera would show it, always by the same rules.

    The camera's white balance (daylight's where it recorded none), LibRaw's colour matrix to sRGB, AHD demosaicing, the
    curve of sRGB, highlights clipped, turned upright. No brightening by content: what was exposed alike looks alike,
    and darker than the camera's own JPEG, whose tone curve no file carries.

    Args:
        data: the file.
        at_least: the shorter side that is needed, in pixels. Where half of the image's has it, each cell of 2 x 2
            sites becomes one pixel, which is four times as fast and invents no colours.

    Raises:
        PhotoError: damaged, cut short, without an image in it, of a kind that LibRaw cannot read, or rawpy is missing.
    """
    import rawpy

    with _opened(data) as raw:
        _check_content(raw)
        sizes = raw.sizes
        half = at_least is not None and min(sizes.iheight, sizes.iwidth) // 2 >= at_least
        notes = [*_white_balance_note(raw), *(["developed at half size"] if half else [])]
        pixels: Any = raw.postprocess(
            use_camera_wb=True,
            half_size=half,
            output_bps=16,
            output_color=cast(Any, rawpy.ColorSpace).sRGB,
            gamma=_SRGB_GAMMA,
            no_auto_bright=True,
            adjust_maximum_thr=0.0,
        )
    return Developed(pixels.reshape(*pixels.shape[:2], -1), tuple(notes))


def read_sensor(path: Path) -> Sensor:
    """What the sensor counted, with black and white level, filter, ISO, white balance and colour matrix.

    Raises:
        PhotoError: as `develop`, not a RAW file, no Bayer filter, or without white level or colour matrix.
    """
    try:
        data = path.read_bytes()
        if raw_kind(data) is None:
            raise PhotoError(not_raw(path, data))
        with _opened(data) as raw:
            return _sensor(raw)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read: {error.strerror or error}") from error


def not_raw(path: Path, data: bytes) -> str:
    """Why a file without the content of a RAW file is refused where it is named like one, or has to be one."""
    kind = next((kind for start, kind in _IMAGES.items() if data.startswith(start)), None)
    if path.suffix.lower() not in RAW_SUFFIXES:
        holds = "no RAW data" if kind is None else f"a {kind} image, and no RAW data"
        return f"no camera RAW file: it holds {holds}; name a file as the camera wrote it, such as .dng, .cr3 or .nef"
    if kind is not None:
        return (
            f"named as a camera RAW file ({path.suffix}), but it holds a {kind} image and no RAW data, as files that"
            f" were cut down to their preview do; to use that image, rename the file to .{kind.lower()}"
        )
    if path.suffix.lower() == ".raw":
        return (
            "a headerless buffer of samples: nothing in it says its width, bits, colour filter or black level;"
            " convert it to DNG with a program that knows the camera"
        )
    return f"named as a camera RAW file ({path.suffix}), but its content is none: its setup is damaged"


def _check_content(raw: rawpy.RawPy) -> None:
    """Refuse a file whose image was cut out: it opens, and says nothing of it."""
    samples = raw.raw_image_visible  # a value for each pixel, or several
    if (samples == samples[0, 0]).all():
        raise PhotoError("holds no image: every sample of its RAW data is the same; the file was pruned")


def _sensor(raw: rawpy.RawPy) -> Sensor:
    _check_content(raw)
    pattern = raw.raw_pattern
    if raw.raw_type.name != "Flat" or pattern is None or pattern.shape != (2, 2):
        raise PhotoError("expected a sensor with a 2 x 2 Bayer filter; this one has another filter, or none")
    sites = raw.raw_colors_visible[:2, :2].ravel().tolist()
    colours = "".join(chr(raw.color_desc[site]) for site in sites)
    if colours not in get_args(Phase):
        raise PhotoError(f"expected a Bayer filter of red, green and blue; this one has the colours {colours}")
    black = raw.black_level_per_channel
    white = float(raw.white_level)
    if white <= max(black):
        raise PhotoError(f"its white level of {white:g} is not above its black level of {max(black):g}")
    gains = raw.daylight_whitebalance if _lacks_white_balance(raw) else raw.camera_whitebalance
    red, green, blue = (float(gains[colour]) for colour in range(3))
    return Sensor(
        mosaic=raw.raw_image_visible.copy(),
        phase=cast(Phase, colours),
        black=cast(Any, tuple(float(black[site]) for site in sites)),
        white=white,
        iso=float(raw.other.iso_speed) or None,
        light=Light(red=red / green, blue=blue / green, matrix=_to_srgb(raw)),
        notes=tuple(_white_balance_note(raw)),
    )


def _to_srgb(raw: rawpy.RawPy) -> Any:
    """White-balanced camera RGB to linear sRGB, rows that sum to 1.

    LibRaw knows a camera by its matrix from XYZ, or (DNG) only by the finished product.
    """
    from_xyz = np.array(raw.rgb_xyz_matrix, float)[:3]
    if from_xyz.any():
        from_srgb = from_xyz @ _SRGB_TO_XYZ
        matrix = np.linalg.inv(from_srgb / from_srgb.sum(axis=1, keepdims=True))
    else:
        matrix = np.array(raw.color_matrix, float)[:3, :3]
        if not matrix.any():
            raise PhotoError("carries no colour matrix, and LibRaw knows none for this camera")
    matrix /= matrix.sum(axis=1, keepdims=True)
    return tuple(tuple(round(value, 6) for value in row) for row in matrix.tolist())


def _lacks_white_balance(raw: rawpy.RawPy) -> bool:
    """LibRaw gives -1 or 0 for the red of a camera that recorded none."""
    return min(raw.camera_whitebalance[:3]) <= 0


def _white_balance_note(raw: rawpy.RawPy) -> list[str]:
    return ["its file records no white balance: daylight's was used"] if _lacks_white_balance(raw) else []


@contextmanager
def _opened(data: bytes) -> Generator[rawpy.RawPy]:
    """The file opened and unpacked by LibRaw, whose errors become ours."""
    try:
        import rawpy
    except ImportError as error:
        raise PhotoError("a camera RAW file: to read it, pip install rawpy") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            limit = Image.MAX_IMAGE_PIXELS
            width, height = raw.sizes.raw_width, raw.sizes.raw_height
            if limit is not None and width * height > limit:
                raise PhotoError(f"refused as a decompression bomb: {width}x{height} pixels, the limit is {limit}")
            yield raw
    except rawpy.LibRawFileUnsupportedError as error:
        version = ".".join(map(str, rawpy.libraw_version))
        raise PhotoError(f"damaged, or of a camera or compression that LibRaw {version} does not know") from error
    except rawpy.LibRawError as error:
        reason = error.args[0].decode("latin-1") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise PhotoError(f"damaged or incomplete: its RAW data cannot be read whole ({reason})") from error
    except (rawpy.NotSupportedError, ValueError, MemoryError) as error:
        if isinstance(error, PhotoError):
            raise
        raise PhotoError(f"its RAW data cannot be read: {' '.join(str(error).split())}") from error


def _directories(data: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """The directories of a TIFF file, those below others included, as {tag: numbers}; what lies outside is left out.

    Source: TIFF 6.0, section 2; Adobe's technical note 1 for SubIFDs.
    """
    order = "<" if data.startswith(b"II") else ">"

    def numbers(layout: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(order + layout, data, at)
        except struct.error:
            return ()

    waiting, seen = list(numbers("I", 4)), set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop(0)
        if at in seen or not 0 < at < len(data):
            continue
        seen.add(at)
        count = (*numbers("H", at), 0)[0]
        tags: dict[int, tuple[int, ...]] = {}
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, length = (*numbers("HHI", entry), 0, 0, 0)[:3]
            sample = _SAMPLE_FORMATS.get(kind)
            if tag not in _TAGS or sample is None or length > _MOST_DIRECTORIES:
                continue
            layout = f"{length}{sample}"
            inline = struct.calcsize(order + layout) <= 4
            tags[tag] = numbers(layout, entry + 8 if inline else (*numbers("I", entry + 8), len(data))[0])
        waiting += [*tags.get(_SUB_DIRECTORIES, ()), *numbers("I", at + 2 + 12 * count)]
        yield tags
