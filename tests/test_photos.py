"""Reading and writing: every format made here, every awkward file of ../shared, the size the networks take."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from adapt.errors import PhotoError, RangeError, UsageError
from adapt.photos.files import encode_png, read_image, read_photo, write_image
from adapt.photos.pairs import enlarged_warning, fit, load_fitted, read_fitted


def ramp(height: int = 5, width: int = 7) -> np.ndarray:
    """A small RGB image without symmetry, (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(path: Path) -> np.ndarray:
    """What is read, as (H, W, 3) on the scale of 255."""
    return read_image(path).permute(1, 2, 0).double().numpy() * 255


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", ".gif"])
def test_lossless_formats(suffix: str, tmp_path: Path):
    path = tmp_path / f"x{suffix}"
    image = Image.fromarray(ramp())
    if suffix == ".gif":
        image = image.quantize(256)
    image.save(path, lossless=True)  # WebP reads it, the others pass it by
    np.testing.assert_allclose(pixels(path), np.asarray(image.convert("RGB")), atol=1e-4)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_survive(suffix: str, tmp_path: Path, gen: torch.Generator):
    values = torch.randint(0, 65536, (3, 5, 7), generator=gen).double() / 65535
    write_image(tmp_path / f"x{suffix}", values.float(), bits=16)
    photo = read_photo(tmp_path / f"x{suffix}")
    assert photo.bits == 16
    assert float((photo.image.double() - values).abs().max()) < 0.4 / 65535


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_8_bits_survive(suffix: str, tmp_path: Path):
    image = torch.from_numpy(ramp()).permute(2, 0, 1).float() / 255
    write_image(tmp_path / f"x{suffix}", image)
    assert torch.equal(read_image(tmp_path / f"x{suffix}"), image)


def test_16_bit_grey_is_not_clipped(tmp_path: Path):
    grey = np.linspace(0, 65535, 35).astype(np.uint16).reshape(5, 7)
    Image.fromarray(grey).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", grey)
    for name in ("x.png", "x.tif"):
        photo = read_photo(tmp_path / name)
        assert photo.grey
        np.testing.assert_allclose(photo.image[0].numpy(), grey / 65535, atol=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, tmp_path: Path):
    """Reference: the eight cases as array operations on the stored image."""
    stored = np.asarray(Image.fromarray(ramp()).resize((56, 40), Image.Resampling.NEAREST))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored),
    }[orientation]
    np.testing.assert_allclose(pixels(tmp_path / "x.png"), upright, atol=1e-4)


def test_grey_palette_alpha(tmp_path: Path):
    Image.fromarray(ramp()[..., 0]).save(tmp_path / "grey.png")
    assert read_photo(tmp_path / "grey.png").grey
    palette = Image.fromarray(ramp()).quantize(8)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_allclose(pixels(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")), atol=1e-4)
    rgba = np.dstack([ramp(), ramp()[..., 0]])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    photo = read_photo(tmp_path / "rgba.png")
    assert photo.alpha is not None
    np.testing.assert_allclose(photo.alpha[0].numpy() * 255, rgba[..., 3], atol=1e-4)
    np.testing.assert_allclose(pixels(tmp_path / "rgba.png"), rgba[..., :3], atol=1e-4)


def test_cmyk_jpeg_is_read_as_colour(tmp_path: Path):
    red = Image.new("RGB", (16, 16), (220, 20, 30)).convert("CMYK")
    red.save(tmp_path / "x.jpg", quality=100)
    mean = pixels(tmp_path / "x.jpg").mean(axis=(0, 1))
    np.testing.assert_allclose(mean, (220, 20, 30), atol=6)


def test_a_profile_other_than_srgb_is_converted(tmp_path: Path):
    """An image stored in linear XYZ-like Lab must come out as the sRGB it shows."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    colour = Image.new("RGB", (8, 8), (200, 90, 40))
    stored = ImageCms.profileToProfile(colour, srgb, lab, outputMode="LAB")
    assert stored is not None
    stored.save(tmp_path / "x.tif", icc_profile=lab.tobytes())
    np.testing.assert_allclose(pixels(tmp_path / "x.tif").mean(axis=(0, 1)), (200, 90, 40), atol=3)


def test_srgb_profile_changes_nothing(tmp_path: Path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(ramp()).save(tmp_path / "x.png", icc_profile=profile)
    np.testing.assert_allclose(pixels(tmp_path / "x.png"), ramp(), atol=1e-4)


def test_content_decides_not_the_name(tmp_path: Path):
    stream = io.BytesIO()
    Image.fromarray(ramp()).save(stream, "PNG")
    (tmp_path / "x.jpg").write_bytes(stream.getvalue())
    assert read_photo(tmp_path / "x.jpg").format == "PNG"


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "the file is empty"),
    (b"just text", "not an image"),
    (encode_png(torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)))[:-30], "cut short"),
])
def test_bad_files_are_named(data: bytes, reason: str, tmp_path: Path):
    path = tmp_path / "bäd.png"
    path.write_bytes(data)
    with pytest.raises(PhotoError, match=rf"bäd\.png: .*{reason}") as error:
        read_image(path)
    assert "\n" not in str(error.value)


def test_truncated_jpeg_is_an_error(tmp_path: Path):
    stream = io.BytesIO()
    Image.fromarray(ramp(64, 64)).save(stream, "JPEG")
    (tmp_path / "x.jpg").write_bytes(stream.getvalue()[:-200])
    with pytest.raises(PhotoError, match="truncated"):
        read_image(tmp_path / "x.jpg")


def test_awkward_files(shared: Path):
    """Each reads whole and finite, or is refused in one line that names it; nothing else gets out."""
    read = 0
    refused: dict[Path, str] = {}
    for path in sorted((shared / "awkward").rglob("*")):
        if path.is_dir() or path.suffix == ".md":
            continue
        try:
            photo = read_photo(path)
        except PhotoError as error:
            refused[path] = str(error)
            continue
        assert photo.image.shape[0] == 3
        assert photo.image.dtype == torch.float32
        assert float(photo.image.min()) >= 0
        assert float(photo.image.max()) <= 1
        read += 1
    assert read >= 140
    assert len(refused) >= 25
    assert all(path.name in message and "\n" not in message for path, message in refused.items())


# ---------------------------------------------------------------- writing


def test_nothing_is_replaced_or_half_written(tmp_path: Path):
    image = torch.zeros(3, 4, 4)
    write_image(tmp_path / "x.png", image)
    with pytest.raises(PhotoError, match=r"x\.png: exists already"):
        write_image(tmp_path / "x.png", image + 1)
    write_image(tmp_path / "x.png", image + 1, overwrite=True)
    with pytest.raises(RangeError, match=r"y\.png: expected values in \[0, 1\], got \[nan, nan\]"):
        write_image(tmp_path / "y.png", image / 0)
    with pytest.raises(UsageError, match=r"cannot write \.xyz"):
        write_image(tmp_path / "y.xyz", image)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_png_bytes_depend_on_pixels_alone():
    image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(1))
    assert encode_png(image) == encode_png(image.clone())


# ---------------------------------------------------------------- fitting


def test_fit(tmp_path: Path):
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert fit(image, 32) == (image, False)
    smaller, resized = fit(image, 16)
    assert smaller.shape == (3, 16, 16)
    assert resized
    assert float((smaller.mean() - image.mean()).abs()) < 0.01
    for side, times in ((8, 2.0), (16, None), (32, None)):
        write_image(tmp_path / f"{side}.png", torch.zeros(3, side, side))
        assert read_fitted(tmp_path / f"{side}.png", 16).enlarged == times
    assert enlarged_warning({"a": 1.99}) == ""
    assert enlarged_warning({"a": 1.99, "b": 2}).startswith("1 photo was enlarged 2 times or more (b: 2 times); most")
    write_image(tmp_path / "wide.png", torch.zeros(3, 20, 30))
    with pytest.raises(PhotoError, match=r"wide\.png: not an aligned face: expected a square image, got 30 x 20"):
        load_fitted(tmp_path / "wide.png", 16)
