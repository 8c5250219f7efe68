"""Whole photographs written again: what does not change keeps its samples, and what the file says stays."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from images import smooth_image
from PIL import Image, ImageCms

from adapt.images import to_uint8
from adapt.photos.files import decoded, read_photo, write_image
from adapt.photos.photograph import CONVERTED, read_photograph
from adapt.photos.png import encode_16bit, with_metadata

HEIGHT, WIDTH = 40, 56


def shifted(path: Path, *, by: float = 0.1) -> tuple[bytes, tuple[str, ...], np.ndarray]:
    """The photo with a brighter rectangle; the file, its notes, and where it changed."""
    whole = read_photograph(path)
    part = (whole.photo.image[:, 10:20, 12:30] + by).clamp(0, 1)
    data, notes = whole.with_parts([((12, 10), part)])
    changed = np.zeros(whole.photo.image.shape[1:], bool)
    changed[10:20, 12:30] = True
    return data, notes, changed


def test_pixels_outside_stay_and_those_inside_change(tmp_path: Path):
    image = smooth_image(HEIGHT, WIDTH) * 0.8
    write_image(tmp_path / "a.png", image)
    data, notes, changed = shifted(tmp_path / "a.png")
    before, after = to_uint8(image).astype(int), np.array(Image.open(io.BytesIO(data))).astype(int)
    assert notes == ()
    assert np.array_equal(after[~changed], before[~changed])
    assert np.abs(after[changed] - before[changed] - 25.5).max() <= 1


def test_16_bits_stay_16_bits(tmp_path: Path):
    image = smooth_image(HEIGHT, WIDTH) * 0.8
    write_image(tmp_path / "a.tif", image, bits=16)
    data, _, changed = shifted(tmp_path / "a.tif", by=0.001)  # less than a step of 8 bits
    (tmp_path / "b.png").write_bytes(data)
    before, after = read_photo(tmp_path / "a.tif"), read_photo(tmp_path / "b.png")
    assert after.bits == 16
    moved = (after.image - before.image).numpy()
    assert np.all(moved[:, ~changed] == 0)
    assert np.allclose(moved[:, changed], 0.001, atol=2e-5)


def test_exif_and_resolution_stay_and_the_orientation_is_applied_once(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "Maker", "1999:12:31 23:59:59"
    Image.fromarray(to_uint8(smooth_image(HEIGHT, WIDTH))).save(
        tmp_path / "a.jpg", exif=exif, dpi=(300, 200), quality=95
    )
    upright = read_photo(tmp_path / "a.jpg").image
    assert upright.shape == (3, WIDTH, HEIGHT)
    data, _, changed = shifted(tmp_path / "a.jpg")
    written = Image.open(io.BytesIO(data))
    kept = written.getexif()
    assert (kept.get(0x010F), kept.get(0x0132), kept.get(0x0112, 1)) == ("Maker", "1999:12:31 23:59:59", 1)
    assert [round(each) for each in written.info["dpi"]] == [200, 300]
    assert np.array_equal(np.array(written)[~changed], to_uint8(upright)[~changed])


def wide_gamut() -> bytes:
    """A matrix profile whose colours are not sRGB's: sRGB with its primaries turned around."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    turned = bytearray(profile)
    turned[red : red + 4], turned[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(turned)


def test_a_colour_profile_stays_and_what_is_restored_is_written_in_its_colours(tmp_path: Path):
    profile = wide_gamut()
    Image.fromarray(to_uint8(smooth_image(HEIGHT, WIDTH) * 0.6 + 0.1)).save(tmp_path / "a.png", icc_profile=profile)
    data, notes, changed = shifted(tmp_path / "a.png")
    assert notes == ()
    written = Image.open(io.BytesIO(data))
    assert written.info["icc_profile"] == profile
    stored = np.array(Image.open(tmp_path / "a.png"))
    assert np.array_equal(np.array(written)[~changed], stored[~changed])
    (tmp_path / "b.png").write_bytes(data)
    before, after = read_photo(tmp_path / "a.png").image, read_photo(tmp_path / "b.png").image
    moved = (after - before).numpy()[:, changed]
    assert np.abs(moved - 0.1).max() < 3 / 255


def gamma_grey() -> bytes:
    """A profile of grey with a gamma of 2.2, made from its definition (ICC.1:2022)."""
    curve = struct.pack(">4s4xIH2x", b"curv", 1, round(2.2 * 256))
    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)
    described = struct.pack(">4s4xI5s", b"desc", 5, b"grey\0") + bytes(78)
    blocks, place, table = [described, white, curve], 128 + 4 + 3 * 12, b""
    for name, block in zip((b"desc", b"wtpt", b"kTRC"), blocks, strict=True):
        table += struct.pack(">4sII", name, place, len(block))
        place += len(block) + -len(block) % 4
    body = struct.pack(">I", 3) + table + b"".join(block + bytes(-len(block) % 4) for block in blocks)
    head = struct.pack(">I4xI4s4s4s12x4s4x", 128 + len(body), 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    head += bytes(68 - len(head)) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + body


@pytest.mark.parametrize("kind", ["16 bits", "grey", "16 bits of grey"])
def test_samples_of_other_files_with_a_profile_stay_too(kind: str, tmp_path: Path):
    wide = smooth_image(HEIGHT, WIDTH).permute(1, 2, 0).numpy() * 0.6 + 0.1
    grey = "grey" in kind
    profile = gamma_grey() if grey else wide_gamut()
    if kind == "grey":
        Image.fromarray(np.rint(wide[..., 0] * 255).astype(np.uint8)).save(tmp_path / "a.png", icc_profile=profile)
    else:
        samples = np.rint((wide[..., :1] if grey else wide) * 65535).astype(np.uint16)
        (tmp_path / "a.png").write_bytes(with_metadata(encode_16bit(samples), profile=profile, exif=b"", dpi=None))
    before = decoded(tmp_path / "a.png")[1]
    assert before.profile == profile
    whole = read_photograph(tmp_path / "a.png")
    assert not whole._is_plain(np.array(before.colour).reshape(HEIGHT, WIDTH, -1)), "the profile says something"
    (tmp_path / "same.png").write_bytes(whole.with_parts([])[0])
    data, notes, changed = shifted(tmp_path / "a.png")
    assert notes == ()
    (tmp_path / "b.png").write_bytes(data)
    for name, kept in (("same", np.ones_like(changed)), ("b", ~changed)):
        after = decoded(tmp_path / f"{name}.png")[1]
        assert (after.profile, after.grey) == (profile, grey)
        assert np.array_equal(np.array(after.colour)[kept], np.array(before.colour)[kept])
    one, other = read_photo(tmp_path / "a.png").image, read_photo(tmp_path / "b.png").image
    step = 3 / 255 if kind == "grey" else 2 / 65535
    assert np.abs((other - one).numpy()[:, changed] - 0.1).max() < step


def test_a_profile_in_which_colours_fall_together_is_of_no_use(tmp_path: Path):
    flat = bytearray(wide_gamut())
    for name in (b"rXYZ", b"gXYZ", b"bXYZ"):
        place = flat.index(name)
        (offset,) = struct.unpack_from(">I", flat, place + 4)
        flat[offset + 8 : offset + 20] = bytes(12)
    samples = np.rint(smooth_image(HEIGHT, WIDTH).permute(1, 2, 0).numpy() * 65535).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(with_metadata(encode_16bit(samples), profile=bytes(flat)))
    data, _, changed = shifted(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(data)
    after, before = read_photo(tmp_path / "b.png").image, read_photo(tmp_path / "a.png").image
    assert float((after - before)[:, torch.from_numpy(~changed)].abs().max()) < 1 / 255


def test_colours_of_print_become_srgb_with_a_note(tmp_path: Path):
    Image.fromarray(to_uint8(smooth_image(HEIGHT, WIDTH))).convert("CMYK").save(tmp_path / "a.tif")
    data, notes, changed = shifted(tmp_path / "a.tif")
    assert notes == (CONVERTED,)
    written = Image.open(io.BytesIO(data))
    assert written.mode == "RGB"
    assert np.array_equal(np.array(written)[~changed], to_uint8(read_photo(tmp_path / "a.tif").image)[~changed])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_grey_stays_grey_and_transparency_stays(mode: str, tmp_path: Path):
    Image.fromarray(to_uint8(smooth_image(HEIGHT, WIDTH) * 0.8)).convert(mode).save(tmp_path / "a.png")
    data, _, changed = shifted(tmp_path / "a.png")
    written = Image.open(io.BytesIO(data))
    assert written.mode == mode
    assert np.array_equal(np.array(written)[~changed], np.array(Image.open(tmp_path / "a.png"))[~changed])


def test_grey_of_16_bits_stays_so(tmp_path: Path):
    grey = (smooth_image(HEIGHT, WIDTH)[0].numpy() * 50000).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    data, _, changed = shifted(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(data)
    after = read_photo(tmp_path / "b.png")
    assert (after.bits, after.grey) == (16, True)
    assert torch.equal(after.image[:, ~changed], read_photo(tmp_path / "a.png").image[:, ~changed])


def test_the_same_photo_gives_the_same_bytes(tmp_path: Path):
    write_image(tmp_path / "a.png", smooth_image(HEIGHT, WIDTH))
    assert shifted(tmp_path / "a.png")[0] == shifted(tmp_path / "a.png")[0]
