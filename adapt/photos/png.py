"""PNG where Pillow does not reach: the checksums of the pixel data, and writing 16-bit colour."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np

from adapt.errors import PhotoError

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def check_chunks(data: bytes) -> None:
    """Refuse a PNG file that was cut short, or whose critical chunks do not match their checksums.

    Raises:
        PhotoError: the reason, without a file name.
    """
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise PhotoError("damaged or incomplete: the PNG file was cut short")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise PhotoError("damaged or incomplete: the PNG file was cut short")
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise PhotoError(f"damaged or incomplete: wrong checksum in the PNG chunk {kind.decode('latin-1')!r}")
        at = end


def encode_16bit(pixels: np.ndarray) -> bytes:
    """A PNG file of (H, W, 3) uint16 pixels; the same bytes for the same pixels.

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
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body.tobytes(), 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    a, b, c = (plane.astype(np.int16) for plane in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
