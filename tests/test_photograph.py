"""Whole photographs written again: what does not change keeps its samples, and what the file says stays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from images import smooth_image
from PIL import Image, ImageCms

from adapt.images import to_uint8
from adapt.photos.files import read_photo, write_image
from adapt.photos.photograph import CONVERTED, read_photograph

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
