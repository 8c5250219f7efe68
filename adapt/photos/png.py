"""PNG where Pillow does not reach: checksums of the pixel data, large profiles and texts, writing 16-bit samples, and
what a file says beside its pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from adapt.errors import PhotoError

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION_TEXTS: Final = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif")  # where Pillow looks for it
_COLOUR_TYPES: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
_METRES_PER_INCH: Final = 0.0254
_MOST_PROFILE: Final = 64 << 20  # bytes of a colour profile; printers' have a few million
_MOST_TEXT: Final = 32 << 20  # bytes of all the texts that may tell the orientation


def check_chunks(data: bytes) -> None:
    """Refuse a PNG file that was cut short, or whose critical chunks do not match their checksums.

    Raises:
        PhotoError: the reason, without a file name.
    """
    for kind, start, end in _chunks(data):
        critical = not kind[0] & 0x20
        if (critical or kind == b"iCCP") and zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], "big"
        ):
            raise PhotoError(f"damaged or incomplete: wrong checksum in the PNG chunk {kind.decode('latin-1')!r}")


def without_profile_and_texts(data: bytes) -> tuple[bytes, bytes | None, tuple[str, ...]]:
    """A checked PNG file without what Pillow need not see of it, its colour profile, and what is to be noted of that.

    Pillow unpacks the profile and every text, refuses the file where one has more than a megabyte, and takes texts
    for settings of its own where their names are the same. Texts say nothing of the pixels: they are left out, but for
    those that may tell which side is up.
    """
    kept: list[bytes] = []
    profile: bytes | None = None
    notes: tuple[str, ...] = ()
    whole, room = True, _MOST_TEXT
    for kind, start, end in _chunks(data):
        content = data[start + 8 : end - 4]
        if kind == b"iCCP":
            profile, notes = _profile(content)
        elif kind in _TEXTS:
            plain = _plain_text(kind, content, room)
            room -= len(plain)
            kept.append(plain)
        else:
            kept.append(data[start:end])
            continue
        whole = False
    return data if whole else _SIGNATURE + b"".join(kept), profile, notes


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG file to the last: name, where it starts, and where it ends. Raises PhotoError: cut short."""
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise PhotoError("damaged or incomplete: the PNG file was cut short")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise PhotoError("damaged or incomplete: the PNG file was cut short")
        yield kind, at, end
        at = end


def _profile(content: bytes) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile of an iCCP chunk: its name, a zero, the method of compression (0 is the only one), and itself."""
    _, _, packed = content.partition(b"\0")
    try:
        if packed[:1] != b"\0":
            raise zlib.error("no known compression")
        profile = _unpacked(packed[1:], _MOST_PROFILE)
    except zlib.error:
        return None, ("its colour profile is damaged and was left out: taken as sRGB",)
    if profile is None:
        most = f"{_MOST_PROFILE >> 20} MB"
        return None, (f"its colour profile has more than {most} and was left out: taken as sRGB",)
    return profile, ()


def _plain_text(kind: bytes, content: bytes, room: int) -> bytes:
    """A text that may tell the orientation, as a chunk without compression; b"" for all others, or without room.

    Source: PNG specification, third edition, section 11.3.3.
    """
    name, _, rest = content.partition(b"\0")
    if name not in _ORIENTATION_TEXTS:
        return b""
    before, packed = b"", kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        language, _, after = rest[2:].partition(b"\0")
        keyword, _, text = after.partition(b"\0")
        before, packed, rest = b"\0\0" + language + b"\0" + keyword + b"\0", rest[:1] == b"\x01", text
    try:
        text = _unpacked(rest, room) if packed else rest
    except zlib.error:
        return b""
    if text is None or len(text) > room:
        return b""
    return _chunk(b"iTXt" if kind == b"iTXt" else b"tEXt", name + b"\0" + before + text)


def _unpacked(packed: bytes, most: int) -> bytes | None:
    """What was compressed; None where that is more than so many bytes. Raises zlib.error: damaged."""
    decompressor = zlib.decompressobj()
    unpacked = decompressor.decompress(packed, most)
    return None if decompressor.unconsumed_tail else unpacked


def encode_16bit(pixels: np.ndarray) -> bytes:
    """A PNG file of (H, W, C) uint16 pixels, grey, grey and alpha, RGB or RGBA; the same bytes for the same pixels.

    Each row gets the filter with the smallest sum of absolute differences.
    Source: PNG specification, third edition, sections 9.2 (filters) and 12.7 (choosing one).
    """
    height, width, channels = pixels.shape
    raw = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    step = 2 * channels  # bytes per pixel
    padded = np.zeros((height + 1, raw.shape[1] + step), np.uint8)
    padded[1:, step:] = raw
    left, above, corner = padded[1:, :-step], padded[:-1, step:], padded[:-1, :-step]
    mean = ((left.astype(np.uint16) + above) // 2).astype(np.uint8)
    predictions = (np.zeros_like(raw), left, above, mean, _paeth(left, above, corner))
    rows = np.stack([raw - predicted for predicted in predictions])  # wraps modulo 256, as the filters do
    best = np.abs(rows.view(np.int8).astype(np.int16)).sum(axis=2).argmin(axis=0)
    body = np.concatenate([best[:, None].astype(np.uint8), rows[best, np.arange(height)]], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body.tobytes(), 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def with_metadata(
    data: bytes, *, profile: bytes | None = None, exif: bytes = b"", dpi: tuple[float, float] | None = None
) -> bytes:
    """A PNG file of ours with a colour profile, EXIF data (without its prefix) and dots per inch in their chunks."""
    chunks: list[bytes] = []
    if profile:
        chunks.append(_chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile, 6)))
    if dpi is not None:
        metre = (round(each / _METRES_PER_INCH) for each in dpi)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *metre, 1)))
    if exif:
        chunks.append(_chunk(b"eXIf", exif))
    end_of_header = len(_SIGNATURE) + 25  # 13 bytes of content
    return data[:end_of_header] + b"".join(chunks) + data[end_of_header:]


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    a, b, c = (plane.astype(np.int16) for plane in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
