"""What a decoder must not do: give part of an image, drop bits, turn it wrongly, or raise anything but PhotoError."""

from __future__ import annotations

import io
import random
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from encoded import png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile
from torch.nn import functional

from adapt.errors import PhotoError, ShapeError, UsageError
from adapt.photos.decode import decode
from adapt.photos.files import encode_png, read_photo, write_image

HEIGHT, WIDTH = 19, 23


def narrow() -> np.ndarray:
    """(H, W, 3) uint8, smooth and noisy at once, so that every filter and predictor has work."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([x * 9 + y, y * 11, x * y // 2], axis=-1)
    return (smooth + np.random.default_rng(0).integers(0, 30, smooth.shape)).clip(0, 255).astype(np.uint8)


def wide(channels: int = 3) -> np.ndarray:
    """(H, W, channels) uint16 whose low bytes cannot be guessed from the high ones."""
    low = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, channels))
    return (np.resize(narrow(), low.shape).astype(int) * 256 + low).astype(np.uint16)


def pillow(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(narrow()).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def unfiltered(data: bytes) -> np.ndarray:
    """(H, W, C) samples of a PNG file without interlacing, by section 9 of the specification, byte by byte."""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        chunks[name] = chunks.get(name, b"") + data[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, colour_type = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    step = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type] * depth // 8
    body, stride = zlib.decompress(chunks[b"IDAT"]), width * step
    rows = [bytes(stride)]
    for y in range(height):
        kind, row = body[y * (stride + 1)], bytearray(body[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for i in range(stride):
            a, c = (row[i - step], rows[-1][i - step]) if i >= step else (0, 0)
            b = rows[-1][i]
            paeth = min((a, b, c), key=lambda v, p=a + b - c: abs(p - v))
            row[i] = (row[i] + (0, a, b, (a + b) // 2, paeth)[kind]) % 256
        rows.append(bytes(row))
    return np.frombuffer(b"".join(rows[1:]), ">u2" if depth == 16 else "u1").reshape(height, width, -1)


def planes() -> np.ndarray:
    return np.moveaxis(wide(), -1, 0)


FILES: dict[str, Callable[[], bytes]] = {
    "png": lambda: pillow("PNG"),
    "png 16": lambda: encode_png(torch.from_numpy(wide() / 65535).permute(2, 0, 1).float(), bits=16),
    "jpeg": lambda: pillow("JPEG"),
    "jpeg progressive": lambda: pillow("JPEG", progressive=True),
    "jpeg restarts": lambda: pillow("JPEG", restart_marker_blocks=2),
    "jpeg cmyk": lambda: pillow("JPEG", "CMYK"),
    "webp": lambda: pillow("WEBP"),
    "webp lossless": lambda: pillow("WEBP", lossless=True),
    "gif": lambda: pillow("GIF", "P"),
    "bmp": lambda: pillow("BMP"),
    "avif": lambda: pillow("AVIF"),
    "tiff lzw": lambda: pillow("TIFF", compression="tiff_lzw"),
    "tiff jpeg": lambda: pillow("TIFF", compression="jpeg"),
    "tiff g4": lambda: pillow("TIFF", "1", compression="group4"),
    "tiff strips": lambda: tiff(narrow(), photometric="rgb", rowsperstrip=5),
    "tiff tiles": lambda: tiff(narrow(), photometric="rgb", tile=(16, 16)),
    "tiff 16": lambda: tiff(wide(), photometric="rgb"),
    "tiff 16 zlib": lambda: tiff(wide(), photometric="rgb", compression="zlib"),
    "tiff 16 planes": lambda: tiff(planes(), photometric="rgb", planarconfig="separate"),
    "tiff 16 planes zlib": lambda: tiff(planes(), photometric="rgb", planarconfig="separate", compression="zlib"),
}


def samples_of(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).colour)


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused_or_whole(name: str):
    data = FILES[name]()
    whole = samples_of(data)
    refused = 0
    cuts = {*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 6, len(data))}
    for cut in sorted(cuts):
        try:
            part = samples_of(data[:cut])
        except PhotoError:
            refused += 1
        else:
            np.testing.assert_array_equal(part, whole)  # padding behind the pixels may be missing
    assert refused >= len(cuts) // 2


def test_another_librarys_leniency_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(PhotoError, match="truncated"):
        decode(pillow("JPEG")[:-40])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("name", FILES)
def test_changed_bytes_raise_nothing_else(name: str, tmp_path: Path):
    chance = random.Random(name)
    path = tmp_path / "x"
    for _ in range(25):
        data = bytearray(FILES[name]())
        for _ in range(chance.choice((1, 2, 8))):
            data[chance.randrange(chance.choice((len(data), 160)))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            photo = read_photo(path)
        except PhotoError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert bool(photo.image.isfinite().all())
            assert 0 <= float(photo.image.min()) <= float(photo.image.max()) <= 1


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF89a", b"BM", b"RIFF"]),
       st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(start: bytes, rest: bytes):
    with pytest.raises(PhotoError):
        decode(start + rest)


def test_a_flipped_bit_in_a_png_is_seen():
    data = bytearray(pillow("PNG"))
    at = data.index(b"IDAT") + 40
    data[at] ^= 1
    with pytest.raises(PhotoError, match="wrong checksum in the PNG chunk 'IDAT'"):
        decode(bytes(data))


LARGE = b"words " * 500_000  # 3 MB, in a few thousand bytes of a file


def with_chunks(data: bytes, *extra: tuple[bytes, bytes], at: int = 33) -> bytes:
    """A PNG file with more chunks behind its header, or wherever they are to go."""
    chunks = b"".join(
        struct.pack(">I", len(text)) + name + text + struct.pack(">I", zlib.crc32(name + text)) for name, text in extra
    )
    return data[:at] + chunks + data[at:]


@pytest.mark.parametrize("chunk", [
    (b"zTXt", b"workflow\0\0" + zlib.compress(LARGE)),
    (b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(LARGE)),
    (b"iTXt", b"workflow\0\x01\0\0\0" + zlib.compress(LARGE * 20)),
    (b"tEXt", b"workflow\0" + LARGE),
    (b"tEXt", b"gamma\0of no use"), (b"tEXt", b"transparency\0none"), (b"tEXt", b"icc_profile\0none"),
    (b"zTXt", b"xmp\0\0" + zlib.compress(b"none")), (b"tEXt", b"srgb\0none"), (b"zTXt", b"cut\0\0x"),
], ids=lambda chunk: f"{chunk[0].decode()} {chunk[1].partition(bytes(1))[0].decode()} {len(chunk[1])}")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_texts_of_a_png_do_not_matter(chunk: tuple[bytes, bytes], last: bool, bits: int):
    """Large ones, and such as are named like what Pillow itself keeps of a file; before the pixels or behind them."""
    data = pillow("PNG") if bits == 8 else png(wide(), 2)
    samples = decode(with_chunks(data, chunk, at=len(data) - 12 if last else 33))
    np.testing.assert_array_equal(np.asarray(samples.colour), narrow() if bits == 8 else wide())
    assert (samples.alpha, samples.profile, samples.notes) == (None, None, ())


@pytest.mark.parametrize("chunk", [
    (b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(LARGE + b'tiff:Orientation="6"')),
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LARGE + b'tiff:Orientation="6"'),
    (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(
        b"\nexif\n      26\n" + (b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)).hex().encode())),
], ids=["packed XMP", "plain XMP", "EXIF in a text"])
def test_orientation_in_a_text_of_any_size_turns_a_png(chunk: tuple[bytes, bytes]):
    np.testing.assert_array_equal(samples_of(with_chunks(pillow("PNG"), chunk)), np.rot90(narrow(), -1))


def test_a_large_profile_of_a_png_is_used(tmp_path: Path):
    """As the same profile without its 3 MB of nothing is."""
    images: list[torch.Tensor] = []
    for padding in (0, 3_000_000):
        icc = profile(*[curve(1.4)] * 3) + bytes(padding)
        icc = struct.pack(">I", len(icc)) + icc[4:]
        (tmp_path / "x.png").write_bytes(
            with_chunks(pillow("PNG"), (b"iCCP", b"large\0\0" + zlib.compress(icc)))
        )
        photo = read_photo(tmp_path / "x.png")
        assert photo.notes == ()
        images.append(photo.image)
    assert torch.equal(*images)
    assert not torch.equal(images[0], read_photo_of(pillow("PNG"), tmp_path))


@pytest.mark.parametrize(("content", "note"), [
    (b"large\0\0" + zlib.compress(bytes(65 << 20)), "its colour profile has more than 64 MB and was left out"),
    (b"cut\0\0" + zlib.compress(LARGE)[:20] + b"rubbish" * 9, "its colour profile is damaged and was left out"),
    (b"other\0\x07" + zlib.compress(LARGE), "its colour profile is damaged and was left out"),
], ids=["large", "damaged", "unknown"])
def test_a_profile_of_a_png_that_cannot_be_unpacked_is_noted(content: bytes, note: str, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(with_chunks(pillow("PNG"), (b"iCCP", content)))
    photo = read_photo(tmp_path / "x.png")
    assert [each.partition(":")[0] for each in photo.notes] == [note]
    assert torch.equal(photo.image, read_photo_of(pillow("PNG"), tmp_path))


def read_photo_of(data: bytes, folder: Path) -> torch.Tensor:
    (folder / "plain.png").write_bytes(data)
    return read_photo(folder / "plain.png").image


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("width", [16, 40, 53, 54, 72, 128, 160, 164, 216, 540])
def test_a_bmp_of_any_width_is_read(mode: str, width: int):
    """Row lengths in bytes such as 16, 160, 164, 216 and 1620: digits that are also those of 16-bit samples."""
    image = Image.fromarray(np.resize(narrow(), (3, width, 3))).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "BMP")
    samples = decode(stream.getvalue())
    assert (samples.format, samples.peak) == ("BMP", 255)
    grey = mode in ("1", "L")
    np.testing.assert_array_equal(np.asarray(samples.colour), np.asarray(image.convert("L" if grey else "RGB")))
    with pytest.raises(PhotoError, match="damaged or incomplete"):
        decode(stream.getvalue()[: -len(stream.getvalue()) // 3])


@pytest.mark.parametrize(("masks", "shifts", "bits"), [
    ((0xF800, 0x7E0, 0x1F), (11, 5, 0), (5, 6, 5)),
    ((0x7C00, 0x3E0, 0x1F), (10, 5, 0), (5, 5, 5)),
])
def test_a_bmp_of_16_bits_for_a_pixel(masks: tuple[int, ...], shifts: tuple[int, ...], bits: tuple[int, ...]):
    values = np.random.default_rng(0).integers(0, 2 ** min(bits), (3, 8, 3))
    shifted = np.stack([values[..., i] << shifts[i] for i in range(3)]).sum(axis=0)
    words = shifted.astype("<u2")[::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, 8, 3, 1, 16, 3, len(words), 0, 0, 0, 0) + struct.pack("<3I", *masks)
    data = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(words), 0, 0, 14 + len(header)) + header + words
    expected = np.stack([values[..., i] * 255 // (2 ** bits[i] - 1) for i in range(3)], axis=-1)
    np.testing.assert_allclose(samples_of(data), expected, atol=1)


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_by_their_header(width: int, height: int):
    """100 million pixels, where Pillow only warns, and more, where it raises."""
    data = bytearray(encode_png(torch.zeros(3, 1, 1)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(PhotoError, match="decompression bomb"):
        decode(bytes(data))


# ---------------------------------------------------------------- all bits


@pytest.mark.parametrize("data", [
    png(wide(), 2),
    tiff(wide(), photometric="rgb"),
    tiff(wide(), photometric="rgb", byteorder=">"),
    tiff(wide(), photometric="rgb", compression="zlib"),
    tiff(wide(), photometric="rgb", tile=(16, 16)),
    tiff(planes(), photometric="rgb", planarconfig="separate"),
    tiff(planes(), photometric="rgb", planarconfig="separate", tile=(16, 16), compression="zlib"),
    FILES["png 16"](),
], ids=["png", "tiff", "big-endian", "zlib", "tiles", "planes", "planes-tiles", "ours"])
def test_16_bit_colour_is_exact(data: bytes):
    samples = decode(data)
    assert (samples.peak, samples.grey, samples.alpha) == (65535, False, None)
    np.testing.assert_array_equal(samples.colour, wide())


def test_16_bit_alpha_is_exact():
    four = wide(4)
    for data in (png(four, 6), tiff(four, photometric="rgb", extrasamples=["unassalpha"])):
        samples = decode(data)
        np.testing.assert_array_equal(samples.colour, four[..., :3])
        np.testing.assert_array_equal(samples.alpha, four[..., 3])
    samples = decode(png(four[..., :2], 4))
    assert samples.grey
    np.testing.assert_array_equal(samples.colour, four[..., :1])
    np.testing.assert_array_equal(samples.alpha, four[..., 1])


def test_premultiplied_16_bit_colour_is_divided_with_all_its_bits():
    alpha = np.full((HEIGHT, WIDTH, 1), 40_000, np.uint16)
    stored = np.rint(wide() * (40_000 / 65535)).astype(np.uint16)
    samples = decode(tiff(np.concatenate([stored, alpha], -1), photometric="rgb", extrasamples=["assocalpha"]))
    np.testing.assert_allclose(np.asarray(samples.colour).astype(int), wide(), atol=1)


def test_the_transparent_colour_of_a_16_bit_png():
    """A colour that differs from the key in a low byte only is opaque."""
    colour = wide()
    key = colour[3, 4].astype(">u2").tobytes()
    colour[0, 0] = colour[3, 4] ^ np.array([1, 0, 0], np.uint16)
    alpha = decode(png(colour, 2, (b"tRNS", key))).alpha
    assert alpha is not None
    assert alpha[3, 4] == 0
    assert alpha[0, 0] == 65535


def test_white_is_zero():
    grey = wide(1)
    samples = decode(tiff(grey[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(samples.colour, 65535 - grey)


def test_samples_without_a_white_are_refused():
    with pytest.raises(PhotoError, match="no known white: save it with 8 or 16 bits"):
        decode(tiff(narrow()[..., 0].astype(np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_images_are_turned(orientation: int):
    """Reference: tag 274 says where row 0 and column 0 of the stored image are (TIFF 6.0, page 36)."""
    stored = wide()
    tags = [(274, "H", 1, orientation, True)]
    swaps, bottom, right = orientation > 4, orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    upright = stored.transpose(1, 0, 2) if swaps else stored
    upright = upright[:: -1 if bottom else 1, :: -1 if right else 1]
    options = {"photometric": "rgb", "extratags": tags}
    for data in (tiff(stored, **options), tiff(np.moveaxis(stored, -1, 0), planarconfig="separate", **options)):
        np.testing.assert_array_equal(decode(data).colour, upright)
    np.testing.assert_array_equal(decode(tiff(stored[..., 0], extratags=tags)).colour, upright[..., :1])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([8, 16]))
@settings(max_examples=40, deadline=None)
def test_png_round_trip(height: int, width: int, seed: int, bits: int):
    """References: Pillow for 8 bits, and for both a reader straight from the specification."""
    peak = 2**bits - 1
    values = np.random.default_rng(seed).integers(0, peak + 1, (3, height, width))
    data = encode_png(torch.from_numpy(values / peak).float(), bits=bits)
    np.testing.assert_array_equal(np.moveaxis(samples_of(data), -1, 0), values)
    np.testing.assert_array_equal(np.moveaxis(unfiltered(data), -1, 0), values)


# ---------------------------------------------------------------- colour profiles


def curve(*numbers: float, kind: int = 0) -> bytes:
    return b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", kind, 0, *(round(n * 65536) for n in numbers))


def table(values: np.ndarray) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + np.rint(values * 65535).astype(">u2").tobytes()


def profile(*curves: bytes) -> bytes:
    """An ICC profile, version 4: three curves and the primaries of ProPhoto RGB, or one curve for grey."""
    white = (0.9642, 1.0, 0.8249)
    primaries = [(0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82490)]

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    tags = {b"wtpt": xyz(white)}
    if len(curves) == 3:
        tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries), strict=True))
        tags |= dict(zip((b"rTRC", b"gTRC", b"bTRC"), curves, strict=True))
    else:
        tags[b"kTRC"] = curves[0]
    index, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        index += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    size = start + len(body)
    space = b"RGB " if len(curves) == 3 else b"GRAY"
    head = struct.pack(">I4sI4s4s4s12x4s", size, b"\0\0\0\0", 0x04200000, b"mntr", space, b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", *(round(v * 65536) for v in white))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


CURVES = {
    "gamma": curve(1.8),
    "kind 1": curve(2.0, 1.1, -0.1, kind=1),
    "kind 2": curve(2.0, 0.9, -0.05, 0.05, kind=2),
    "srgb": curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, kind=3),
    "kind 4": curve(2.2, 0.9, 0.1, 0.286, 0.05, 0.0, 0.0, kind=4),
    "table": table(np.linspace(0, 1, 33) ** 1.5),
    "one number": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_profiles_agree_with_littlecms(name: str, channels: int, tmp_path: Path):
    """littleCMS on the same image in 8 bits: equal to a step of 255, two where its own curves are 8-bit steep."""
    icc = profile(*[CURVES[name]] * channels)
    eight = narrow()[..., :channels]
    source = Image.fromarray(np.ascontiguousarray(eight if channels == 3 else eight[..., 0]))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    expected = ImageCms.profileToProfile(
        source, ImageCms.ImageCmsProfile(io.BytesIO(icc)), srgb, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB"
    )
    chunk = (b"iCCP", b"icc\0\0" + zlib.compress(icc))
    (tmp_path / "x.png").write_bytes(png(eight.astype(np.uint16) * 257, 2 if channels == 3 else 0, chunk))
    photo = read_photo(tmp_path / "x.png")
    assert (photo.bits, photo.notes) == (16, ())
    np.testing.assert_allclose(photo.image.permute(1, 2, 0).numpy() * 255, np.asarray(expected), atol=2)


def test_16_bit_conversion_keeps_its_bits(tmp_path: Path):
    """A ramp finer than 8 bits stays strictly rising, and follows the two curves in float64."""
    ramp = np.arange(20_000, 20_064, dtype=np.uint16).reshape(1, 64, 1)
    (tmp_path / "x.png").write_bytes(png(ramp, 0, (b"iCCP", b"icc\0\0" + zlib.compress(profile(curve(1.8))))))
    read = read_photo(tmp_path / "x.png").image[0, 0].double().numpy()
    assert (np.diff(read) > 0).all()
    linear = (ramp.ravel() / 65535) ** (round(1.8 * 65536) / 65536)
    np.testing.assert_allclose(read, 1.055 * linear ** (1 / 2.4) - 0.055, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_profile_that_says_srgb_leaves_every_bit(bits: int, tmp_path: Path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = png(wide(), 2, (b"iCCP", b"icc\0\0" + zlib.compress(icc))) if bits == 16 else pillow("PNG", icc_profile=icc)
    (tmp_path / "x.png").write_bytes(data)
    peak, expected = (65535, wide()) if bits == 16 else (255, narrow())
    read = read_photo(tmp_path / "x.png").image.permute(1, 2, 0).double().numpy() * peak
    np.testing.assert_array_equal(np.rint(read), expected)


@pytest.mark.parametrize("icc", [
    b"rubbish", profile(curve(1.8))[:150], profile(*[curve(1.8, 0.0, 1.0, kind=1)] * 3),
    profile(*[curve(-1.0)] * 3), profile(*[b"what" + bytes(20)] * 3), profile(curve(1.8)),
], ids=["rubbish", "cut", "flat", "falling", "unknown", "grey"])
@pytest.mark.parametrize("bits", [8, 16])
def test_an_unusable_profile_is_noted(icc: bytes, bits: int, tmp_path: Path):
    """Damaged, or for greyscale where the image is in colour. A note or a conversion, never another exception."""
    data = tiff(wide() if bits == 16 else narrow(), photometric="rgb", iccprofile=icc)
    (tmp_path / "x.tif").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = read_photo(tmp_path / "x.tif")
    plain = wide() / 65535 if bits == 16 else narrow() / 255
    as_stored = np.allclose(photo.image.permute(1, 2, 0).numpy(), plain, atol=1e-6)
    assert bool(photo.image.isfinite().all())
    assert any("profile" in note for note in photo.notes) or not as_stored


# ---------------------------------------------------------------- what the reader is told


def test_notes(tmp_path: Path):
    frames = [Image.fromarray(narrow()), Image.fromarray(narrow()[::-1])]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert read_photo(tmp_path / "x.gif").notes == ("the first of its 2 frames or pages",)
    (tmp_path / "x.jpg").write_bytes(FILES["jpeg cmyk"]())
    assert read_photo(tmp_path / "x.jpg").notes == ("CMYK without a colour profile: converted by the plain formula",)
    (tmp_path / "x.png").write_bytes(png(wide(), 2, (b"gAMA", struct.pack(">I", 100_000))))
    assert read_photo(tmp_path / "x.png").notes == ("its gamma of 1 was not applied: taken as sRGB",)


def test_damaged_exif_is_a_note_not_a_warning(tmp_path: Path):
    data = pillow("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01")
    (tmp_path / "x.jpg").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = read_photo(tmp_path / "x.jpg").notes
    assert any("EXIF" in note for note in notes)


def test_heic_without_its_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(PhotoError, match=r"adapt-bfr\[heif\]"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_white_of_a_10_bit_heic_is_one(shared: Path):
    pytest.importorskip("pi_heif")
    photo = read_photo(shared / "awkward" / "heif" / "L_10__128x128.heif")
    assert (photo.bits, photo.grey, float(photo.image.max()), float(photo.image.min())) == (16, True, 1.0, 0.0)


def test_turned_photographs_are_one_photograph(shared: Path):
    """Families that differ in their orientation tag only: upright, all have the same coarse image.

    Coarse, since each was compressed by itself and some are a pixel off.
    """
    folder = shared / "awkward"
    for name in ("libvips_rotation/[1-4].jpg", "libvips_rotation/[5-8].jpg", "made/face_exif*.jpg",
                 "pillow_orientation/g4*", "pillow_orientation/hopper*", "exif_samples/portrait_[1368].jpg"):
        images = [read_photo(path).image for path in sorted(folder.glob(name))]
        assert len({image.shape for image in images}) == 1, name
        first, *rest = (functional.adaptive_avg_pool2d(image, 6) for image in images)
        right = max(float((other - first).abs().mean()) for other in rest)
        wrong = min(float((first.flip(sides) - first).abs().mean()) for sides in ((1,), (2,), (1, 2)))
        assert right < 0.02 < 0.05 < wrong, name


def test_pngs_of_all_kinds_agree_with_the_specification(shared: Path):
    for path in sorted((shared / "awkward" / "png16").glob("*.png")):
        stored = unfiltered(path.read_bytes())
        photo, peak = read_photo(path), np.iinfo(stored.dtype).max
        colours = stored[..., :3] if stored.shape[-1] > 2 else stored[..., :1].repeat(3, -1)
        np.testing.assert_array_equal((photo.image.double() * peak).round().permute(1, 2, 0), colours, path.name)
        if stored.shape[-1] in (2, 4):
            assert photo.alpha is not None
            np.testing.assert_array_equal((photo.alpha[0].double() * peak).round(), stored[..., -1], path.name)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize(("name", "shape", "error"), [
    ("x.webp", (3, 1, 20_000), PhotoError),
    ("x.jpg", (3, 1, 70_000), PhotoError),
    ("x" * 300 + ".png", (3, 2, 2), PhotoError),
    ("x.png", (3, 0, 5), ShapeError),
    ("x.png", (1, 4, 4), ShapeError),
    ("x.png", (1, 3, 4, 4), ShapeError),
])
def test_what_cannot_be_written_is_named_and_leaves_nothing(
    name: str, shape: tuple[int, ...], error: type[Exception], tmp_path: Path
):
    with pytest.raises(error, match=name):
        write_image(tmp_path / name, torch.zeros(shape))
    assert list(tmp_path.iterdir()) == []


def test_bits_that_a_format_cannot_hold(tmp_path: Path):
    with pytest.raises(UsageError, match=r"x\.jpg: \.jpg holds 8 bits, not 16"):
        write_image(tmp_path / "x.jpg", torch.zeros(3, 2, 2), bits=16)
