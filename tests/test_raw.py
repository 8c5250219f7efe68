"""Camera RAW files where photos are read: recognised, developed by one rule, refused by name and reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import adapt
from PIL import Image
from raw_files import write_dng

from adapt.errors import PhotoError
from adapt.photos.files import read_photo
from adapt.photos.pairs import load_fitted
from adapt.photos.raw import raw_kind, read_sensor

GAINS = (2.0, 1.6)
SITES = {"R": 1 / GAINS[0], "G": 1.0, "B": 1 / GAINS[1]}
"""What each site counts of a grey, against green."""


def grey(phase: str, light: float, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """The mosaic of a grey of linear light in [0, 1], black level 64, white level 1023."""
    cell = np.array([SITES[colour] for colour in phase]).reshape(2, 2)
    tiled = np.tile(cell, (size[0] // 2, size[1] // 2))
    return np.round(64 + light * 959 * tiled).astype(np.uint16)


def srgb(light: float) -> float:
    """IEC 61966-2-1."""
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


@pytest.mark.parametrize("phase", ["RGGB", "GRBG", "GBRG", "BGGR"])
@pytest.mark.parametrize("light", [0.002, 0.1, 0.5])
def test_grey_is_developed_to_its_srgb_value(phase: str, light: float, tmp_path: Path):
    """White balance, black and white level, matrix, curve: a DN of rounding is the tolerance."""
    photo = read_photo(write_dng(tmp_path / "grey.dng", grey(phase, light), phase=phase))
    assert (photo.format, photo.bits, photo.grey, photo.notes) == ("RAW DNG", 16, False, ())
    low, high = srgb(light - 1 / 959), srgb(light + 1 / 959)
    inner = photo.image[:, 8:-8, 8:-8]
    assert low <= float(inner.min())
    assert float(inner.max()) <= high
    sensor = read_sensor(tmp_path / "grey.dng")
    assert (sensor.phase, sensor.black, sensor.white, sensor.iso) == (phase, (64, 64, 64, 64), 1023, None)
    assert np.array_equal(sensor.mosaic, grey(phase, light))
    assert (sensor.light.red, sensor.light.blue) == pytest.approx(GAINS, rel=1e-3)


def test_brightness_is_never_adapted_to_the_content(tmp_path: Path):
    """A dark photograph stays dark; what is clipped is white, not magenta."""
    dark = read_photo(write_dng(tmp_path / "dark.dng", grey("RGGB", 0.02))).image
    assert float(dark.mean()) == pytest.approx(srgb(0.02), rel=0.02)
    # One site differs, or the file would be one of those that were pruned.
    mosaic = np.full((64, 64), 1023, np.uint16)
    mosaic[0, 0] = 900
    clipped = read_photo(write_dng(tmp_path / "clipped.dng", mosaic)).image[:, 8:, 8:]
    assert float(clipped.min()) == 1


def test_half_size_where_that_is_enough(tmp_path: Path):
    path = write_dng(tmp_path / "a.dng", grey("RGGB", 0.4, (64, 96)))
    for needed, shape, notes in (
        (None, (3, 64, 96), ()),
        (33, (3, 64, 96), ()),
        (32, (3, 32, 48), ("developed at half size",)),
    ):
        photo = read_photo(path, at_least=needed)
        assert (tuple(photo.image.shape), photo.notes) == (shape, notes)
        assert float(photo.image.mean()) == pytest.approx(srgb(0.4), rel=0.01)


def test_turned_upright(tmp_path: Path):
    mosaic = grey("RGGB", 0.1)
    mosaic[:, :48] = grey("RGGB", 0.6)[:, :48]  # bright on the left
    upright = read_photo(write_dng(tmp_path / "1.dng", mosaic)).image
    turned = read_photo(write_dng(tmp_path / "6.dng", mosaic, orientation=6)).image
    assert torch.equal(turned, upright.rot90(-1, (1, 2)))


def test_what_is_no_raw_file_is_said(tmp_path: Path):
    whole = write_dng(tmp_path / "whole.dng", grey("RGGB", 0.3)).read_bytes()
    for name, data, reason in (
        ("cut.dng", whole[:-4000], "damaged or incomplete"),
        ("head.dng", whole[:300], "damaged"),
        ("noise.nef", bytes(range(256)) * 40, "named as a camera RAW file (.nef), but its content is none"),
        ("buffer.raw", bytes(1000), "a headerless buffer of samples: nothing in it says its width"),
        ("empty.cr2", b"", "the file is empty"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PhotoError) as caught:
            read_photo(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {reason}")
        assert "\n" not in str(caught.value)
    Image.new("RGB", (8, 8)).save(tmp_path / "preview.jpg")
    preview = (tmp_path / "preview.jpg").rename(tmp_path / "preview.arw")
    with pytest.raises(PhotoError, match=r"preview\.arw: named as a camera RAW file .* it holds a JPEG image"):
        read_photo(preview)
    zeros = write_dng(tmp_path / "zeros.dng", np.zeros((64, 64), np.uint16))
    for read in (read_photo, read_sensor):
        with pytest.raises(PhotoError, match=r"zeros\.dng: holds no image: every sample"):
            read(zeros)


def test_a_tiff_is_no_raw_file(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    assert raw_kind((tmp_path / "a.tif").read_bytes()) is None
    assert raw_kind(write_dng(tmp_path / "a.dng", grey("RGGB", 0.3)).read_bytes()) == "DNG"


def test_restoring_a_raw_photo(small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A RAW file among others: restored to the size of the network; a broken one is named, the rest goes on."""
    photos = tmp_path / "photos"
    photos.mkdir()
    data = write_dng(photos / "face.dng", grey("GRBG", 0.3, (64, 64)), phase="GRBG").read_bytes()
    (photos / "broken.dng").write_bytes(data[:-4000])
    assert tuple(load_fitted(photos / "face.dng", 16).shape) == (3, 16, 16)
    assert adapt(monkeypatch, "restore", small_pack, photos, "-o", tmp_path / "out", "--device", "cpu") == 3
    assert tuple(read_photo(tmp_path / "out" / "face.png").image.shape) == (3, 16, 16)


def test_where_no_photo_could_be_read_each_is_named(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, side in (("a.dng", 64), ("b.dng", 72)):
        write_dng(photos / name, np.zeros((64, side), np.uint16))
    arguments = ["run", photos, "-o", tmp_path / "out", "--pack", small_pack, "--device", "cpu"]
    assert adapt(monkeypatch, *arguments, "--method", "low-frequency", "targets.guidance.0.factor=4") == 2
    said = capsys.readouterr().err
    assert "holds no accepted targets" in said
    assert [line.split(": ")[1] for line in said.splitlines() if "every sample" in line] == ["a", "b"]


def test_real_files(shared: Path):
    for name, kind, size in (
        ("Canon_PowerShot_G2_CRW_0304.CRW", "CRW", (1720, 2312)),
        ("Canon_PowerShot_S40_CRW_0101.CRW", "CRW", (1720, 2312)),
        ("imagemeta_canon_D30.CRW", "CRW", (1448, 2176)),
        ("Kodak_DC50_DC50IMG_DC0010S.KDC", "TIFF", (512, 768)),
        ("Kodak_DC120_DC120IMG_P003908.KDC", "TIFF", (976, 1301)),
        ("tinydng_colorchart.dng", "DNG", (1156, 1734)),
    ):
        photo = read_photo(shared / "raw" / name, at_least=240)
        assert photo.format == f"RAW {kind}"
        assert tuple(photo.image.shape[1:]) == (size[0] // 2, size[1] // 2 + size[1] % 2)
        assert 0.1 < float(photo.image.mean()) < 0.6


def test_real_files_that_cannot_be_read(shared: Path):
    reasons = {
        "exiv2_pruned_Canon-R6.CR3": "damaged or incomplete: its RAW data cannot be read whole",
        "exiv2_pruned_IMG_1361.dng": "holds no image: every sample of its RAW data is the same",
        "nikon_truncated_247-1.nef": "it holds a JPEG image and no RAW data",
        "nikon_truncated_247-2.nef": "it holds a JPEG image and no RAW data",
        "nikon_truncated_247-3.nef": "it holds a JPEG image and no RAW data",
        "nikon_truncated_247-4.nef": "it holds a JPEG image and no RAW data",
    }
    files = sorted((shared / "raw" / "unreadable").iterdir())
    assert [file.name for file in files] == sorted(reasons)
    for file in files:
        with pytest.raises(PhotoError) as caught:
            read_photo(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert reasons[file.name] in str(caught.value)
        assert "\n" not in str(caught.value)
