"""Noise measured in RAW files: against sensors made up from physics, and against real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rawpy
import torch
from command_line import adapt
from images import seeded
from PIL import Image
from raw_files import COLOUR_MATRIX, scene, sensor, write_dng

from adapt.commands.calibrate import calibrate
from adapt.commands.noise_plot import PANEL
from adapt.errors import PhotoError, UsageError
from degradations.camera.calibrate import SIDE, Patches, find_patches, fit_noise, join_patches
from degradations.camera.profiles import CameraProfile, read_profile, write_profile

SLOPE = (0.9, 1.2, 1.25, 0.95)
DARK = (14.0, 20.0, 21.0, 15.0)


def alike(value: float) -> tuple[float, float, float, float]:
    """The same at all four sites."""
    return (value, value, value, value)


def patches_of(mosaic: np.ndarray) -> Patches:
    return find_patches(mosaic, black=alike(64), white=1023)


# ---------------------------------------------------------------- the measurement


@pytest.mark.parametrize(("row", "uneven"), [(0, 0), (1.5, 0.012)])
def test_a_known_sensor_is_recovered(row: float, uneven: float, tmp_path: Path):
    """A RAW file of 2 megapixels, photons counted by Poisson's law, textured and clipped fields among the flat ones:
    what the profile says of each site is within 5 %."""
    generator = seeded(1)
    mosaic = sensor(scene(generator, step=200), generator, slope=SLOPE, dark=DARK, row=row, uneven=uneven)
    result = calibrate([write_dng(tmp_path / "a.dng", mosaic, phase="BGGR", iso=100)], tmp_path / "a.json")
    level = read_profile(tmp_path / "a.json").at_iso(100)
    assert level.beta1 == pytest.approx(SLOPE, rel=0.05)
    assert level.beta2 == pytest.approx(DARK, rel=0.05)
    assert level.row == pytest.approx(row, rel=0.10), "a standard error of 4 %"
    measured = result.levels[0]
    assert measured.patches.clipped.sum() > 30
    assert measured.fit.uneven == pytest.approx(uneven, rel=0.25)
    assert measured.fit.shared == (False, False, False, False)
    assert level.beta1 == pytest.approx(measured.fit.lines[:, 0], rel=1e-3)
    assert level.beta2 == pytest.approx(measured.fit.lines[:, 1], rel=1e-3)


def test_the_interval_holds_the_truth_and_is_narrow():
    generator = seeded(2)
    mosaic = sensor(scene(generator, step=80, textured=False), generator, slope=alike(1.0), dark=alike(16.0))
    patches = patches_of(mosaic)
    fit = fit_noise(patches, seeded(0))
    (low, high), (dark_low, dark_high) = fit.slope_interval, fit.dark_interval
    assert low < 1 < high < low + 0.05
    assert dark_low < 16 < dark_high < dark_low + 4
    below, above = fit.band(np.array([0.0, 400.0]))
    expected = fit.expected(np.array([0.0, 400.0]), fit.common)
    assert (below < expected).all()
    assert (expected < above).all()
    again = fit_noise(patches, seeded(0))
    assert np.array_equal(again.lines, fit.lines)
    assert again.slope_interval == fit.slope_interval


def test_picking_flat_patches_does_not_favour_quiet_ones():
    """Of pure noise the picked patches have the variance of all, to within three standard errors."""
    noise = 300 + 10 * torch.randn((1024, 1024), generator=seeded(3), dtype=torch.float64).numpy()
    patches = patches_of(noise)
    assert 0.6 < patches.flat.mean() < 0.99
    error = 100 * (2 / (1024 * 1024)) ** 0.5
    assert patches.variance.mean() == pytest.approx(100, abs=3 * error)
    assert patches.variance[patches.flat].mean() == pytest.approx(100, abs=4 * error)


@pytest.mark.parametrize("period", [3, 8, 24, 60, 100])
@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1), (1, -1)])
def test_stripes_are_not_flat(period: int, direction: tuple[int, int]):
    """As strong as the noise, of any direction; the widest are nearly planes, which may pass but add little."""
    y, x = np.mgrid[:256, :256]
    stripes = np.sin(2 * np.pi * (direction[0] * y + direction[1] * x) / period) * 2**0.5
    noise = torch.randn((256, 256), generator=seeded(4), dtype=torch.float64).numpy()
    patches = patches_of(300 + 5 * (noise + stripes))
    assert patches.flat.mean() < 0.02 or patches.variance[patches.flat].mean() == pytest.approx(25, rel=0.1)
    assert patches.flat.mean() < 0.02 or period > 50


def test_planes_are_flat_and_hot_photosites_are_not():
    y, x = np.mgrid[:256, :256]
    noise = 5 * torch.randn((256, 256), generator=seeded(5), dtype=torch.float64).numpy()
    tilted = 300 + 0.8 * y - 0.5 * x + noise
    patches = patches_of(tilted)
    assert patches.flat.mean() > 0.6
    assert patches.variance[patches.flat].mean() == pytest.approx(25, rel=0.03)
    tilted[::SIDE, ::SIDE] += 60
    assert not patches_of(tilted).flat.any()


@pytest.mark.parametrize(("signal", "black", "white"), [(957.0, 64, 1023), (5.0, 0, 1023), (700.0, 64, 16383)])
def test_clipped_patches_are_left_out(signal: float, black: int, white: int):
    """At the white level, at 0, and at a saturation below the white level that the file names."""
    noise = sensor(np.full((256, 256), signal), seeded(6), slope=alike(1.0), dark=alike(30.0), black=black, white=white)
    if white > 1023:
        noise = np.minimum(noise, 770)
    patches = find_patches(noise, black=alike(black), white=white)
    assert patches.clipped.mean() > 0.95
    assert not (patches.flat & patches.clipped).any()


@pytest.mark.parametrize("kind", ["texture", "smoothed", "one brightness"])
def test_too_little_flat_area_is_said(kind: str):
    generator = seeded(7)
    light = np.full((320, 320), 200.0)
    if kind == "texture":
        leaves = torch.rand((1, 1, 320, 320), generator=generator, dtype=torch.float64)
        light = 100 + 400 * torch.nn.functional.avg_pool2d(leaves, 5, 1, 2)[0, 0].numpy()
    mosaic = sensor(light, generator, slope=alike(1.0), dark=alike(9.0)).astype(float)
    if kind == "smoothed":
        mosaic = (mosaic + np.roll(mosaic, 2, axis=0) + np.roll(mosaic, 2, axis=1)) / 3
    reason = r"signals from 19\d to 20\d DN leave the slope between" if kind == "one brightness" else (
        r"not enough flat area: \d+ of 361 patches of 32 x 32 pixels are flat \(0 are clipped, .*; 30 are needed"
    )
    with pytest.raises(ValueError, match=reason):
        fit_noise(patches_of(mosaic), generator)


def test_a_site_that_says_too_little_takes_the_common_line():
    """Under green light only the green sites see more than one brightness."""
    generator = seeded(8)
    light = scene(generator, step=80)
    light[::2, ::2] = light[1::2, 1::2] = 40
    fit = fit_noise(patches_of(sensor(light, generator, slope=alike(1.0), dark=alike(9.0))), generator)
    assert fit.shared == (True, False, False, True)
    assert fit.lines[0].tolist() == fit.lines[3].tolist() == fit.common.tolist()
    assert fit.lines[:, 0] == pytest.approx([1.0] * 4, rel=0.05)


def test_mosaics_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match=r"sides of 32 pixels or more, got \(31, 64\)"):
        patches_of(np.zeros((31, 64)))
    parts = [patches_of(np.zeros((64, 96)))] * 2
    joined = join_patches(parts)
    assert len(joined) == 2 * len(parts[0])
    assert len(np.unique(joined.block)) == 2 * len(np.unique(parts[0].block))


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAW files of one camera at two ISO values, one that does not say its ISO, one textured, one of another camera."""
    folder = tmp_path_factory.mktemp("camera")
    generator = seeded(9)
    light = scene(generator, step=72)

    def shot(factor: float) -> np.ndarray:
        return sensor(light, generator, slope=alike(0.4 * factor), dark=alike(4.0 * factor**2))

    write_dng(folder / "high.dng", shot(4), phase="GRBG", iso=400, gains=(1.5, 2.5))
    write_dng(folder / "low.dng", shot(1), phase="GRBG", iso=100)
    write_dng(folder / "silent.dng", shot(1), phase="GRBG")
    leaves = torch.randint(64, 1000, (512, 512), generator=generator).numpy().astype(np.uint16)
    write_dng(folder / "leaves.dng", leaves, phase="GRBG", iso=200)
    write_dng(folder / "other.dng", shot(1), phase="RGGB", iso=100)
    (folder / "broken.dng").write_bytes((folder / "low.dng").read_bytes()[:5000])
    return folder


def test_a_profile_from_files(camera: Path, tmp_path: Path):
    out, plot = tmp_path / "new" / "mine.json", tmp_path / "plot.png"
    result = calibrate([camera / "high.dng", camera / "leaves.dng", camera / "low.dng"], out, plot=plot)
    profile = read_profile(out)
    assert profile == result.profile
    assert (profile.name, profile.cfa, profile.black, profile.white) == ("mine", "GRBG", 64, 1023)
    assert [level.iso for level in profile.levels] == [100, 400]
    for level, slope in zip(profile.levels, (0.4, 1.6), strict=True):
        assert level.beta1 == pytest.approx([slope] * 4, rel=0.06)
    assert [(light.red, light.blue) for light in profile.lights] == [(1.5, 2.5), (2.0, 1.6)]
    # XYZ of the light's white to camera white, both balanced: the inverse of the matrix that DNG files carry.
    primaries = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    forward = np.array(COLOUR_MATRIX) @ primaries
    expected = np.linalg.inv(forward / forward.sum(axis=1, keepdims=True))
    assert np.array(profile.lights[0].matrix) == pytest.approx(expected, abs=2e-3)
    assert len(result.problems) == 1
    assert "leaves.dng (ISO 200): not enough flat area" in result.problems[0]
    with Image.open(plot) as drawn:
        assert drawn.size == (PANEL[0], 2 * PANEL[1])
        assert len(drawn.getcolors(1 << 20) or []) > 5
    with pytest.raises(UsageError, match=r"mine\.json: exists already and is not replaced without --overwrite"):
        calibrate([camera / "low.dng"], out)


def test_what_cannot_be_measured_is_named(camera: Path, tmp_path: Path):
    out = tmp_path / "p.json"
    with pytest.raises(PhotoError, match=r"silent\.dng: does not say at which ISO it was taken; say it with --iso"):
        calibrate([camera / "silent.dng"], out)
    with pytest.raises(UsageError, match=r"other\.dng: of another camera than .*low\.dng: RGGB, .*, not GRBG"):
        calibrate([camera / "low.dng", camera / "other.dng"], out)
    with pytest.raises(PhotoError, match=r"broken\.dng: (damaged|holds)"):
        calibrate([camera / "broken.dng"], out)
    for name, kind in (("plain.png", "PNG"), ("plain.tif", "TIFF"), ("plain.jpg", "JPEG"), ("plain", "PNG")):
        Image.new("RGB", (8, 8)).save(tmp_path / name, kind)
        with pytest.raises(PhotoError, match=f"{name}: no camera RAW file: it holds a {kind} image, and") as caught:
            calibrate([tmp_path / name], out)
        assert "rename" not in str(caught.value)
    (tmp_path / "notes.txt").write_text("no image either")
    with pytest.raises(PhotoError, match=r"notes\.txt: no camera RAW file: it holds no RAW data; name a file as"):
        calibrate([tmp_path / "notes.txt"], out)
    with pytest.raises(UsageError, match=r"p\.txt: expected a name that ends in \.json"):
        calibrate([camera / "low.dng"], tmp_path / "p.txt")
    with pytest.raises(UsageError, match="--iso -1: expected a number above 0"):
        calibrate([camera / "low.dng"], out, iso=-1)
    assert not out.exists()


def test_an_iso_that_no_file_needed_is_named(camera: Path, tmp_path: Path):
    result = calibrate([camera / "low.dng"], tmp_path / "p.json", iso=400)
    assert [level.iso for level in result.levels] == [100]
    assert "--iso 400: not used; every file says its own ISO" in result.notes
    mixed = calibrate([camera / "low.dng", camera / "silent.dng"], tmp_path / "q.json", iso=400)
    assert not [note for note in mixed.notes if "--iso" in note]


def test_the_command(
    camera: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "p.json"
    arguments = ["calibrate", camera / "silent.dng", camera / "broken.dng", "--iso", 50, "--name", "pocket", "-o", out]
    assert adapt(monkeypatch, *arguments) == 3, "one file of the two could not be read"
    printed = capsys.readouterr()
    assert "ISO 50: slope 0.4" in printed.out
    assert "  G: variance = 0." in printed.out
    assert f"failed: {camera / 'broken.dng'}: " in printed.err
    assert read_profile(out).name == "pocket"
    assert (tmp_path / "p.png").is_file(), "drawn beside the profile where --plot names no other place"
    assert [level.iso for level in read_profile(out).levels] == [50]


def test_the_command_needs_no_more_than_the_files(camera: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert adapt(monkeypatch, "calibrate", camera / "low.dng") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["low.json", "low.png"]
    assert adapt(monkeypatch, "calibrate", camera / "low.dng") == 2, "nothing is replaced unasked"


# ---------------------------------------------------------------- real files


CANONS = ("Canon_PowerShot_G2_CRW_0304.CRW", "Canon_PowerShot_S40_CRW_0101.CRW")


@pytest.fixture(scope="module")
def canons(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[CameraProfile]:
    """The two CC0 files with flat area, measured."""
    folder = tmp_path_factory.mktemp("canons")
    return [calibrate([shared / "raw" / name], folder / f"{name}.json").profile for name in CANONS]


def test_real_files(canons: list[CameraProfile], shared: Path, tmp_path: Path):
    """The chart of the G2 has variance = 0.11 x signal; the D30's photograph is a landscape."""
    profile = canons[0]
    assert profile.levels[0].beta1 == pytest.approx([0.11] * 4, rel=0.15)
    assert (profile.cfa, profile.black, profile.levels[0].iso) == ("RGGB", 32, 50)
    with pytest.raises(PhotoError, match=r"imagemeta_canon_D30\.CRW \(ISO 100\): not enough flat area: \d+ of 12015"):
        calibrate([shared / "raw" / "imagemeta_canon_D30.CRW"], tmp_path / "d30.json")


def test_generic_compact_is_what_its_source_says(canons: list[CameraProfile], shared: Path):
    """ISO 50 as measured, the mean of both; above it photon noise grows with the ISO, read noise with its square."""
    shipped = read_profile("generic-compact")
    both = [profile.levels[0] for profile in canons]
    assert [level.iso for level in shipped.levels] == [50, 100, 200, 400]
    for level in shipped.levels:
        gain = level.iso / 50
        assert level.beta1 == pytest.approx(gain * np.mean([one.beta1 for one in both], axis=0), rel=0.01)
        assert level.beta2 == pytest.approx(gain**2 * np.mean([one.beta2 for one in both], axis=0), rel=0.01)
        assert level.row**2 == pytest.approx(gain**2 * np.mean([one.row**2 for one in both]), rel=0.02)
    assert len(shipped.lights) == 4
    for profile, name in zip(canons, CANONS, strict=True):
        assert (profile.cfa, profile.black, profile.white) == (shipped.cfa, shipped.black, shipped.white)
        assert profile.lights[0] in shipped.lights
        with rawpy.imread(str(shared / "raw" / name)) as raw:
            red, green, blue = raw.rgb_xyz_matrix[:3] @ (0.9505, 1.0, 1.089)  # what the sensor makes of D65
        assert any(
            light.matrix == profile.lights[0].matrix
            and (light.red, light.blue) == pytest.approx((green / red, green / blue), rel=1e-3)
            for light in shipped.lights
        )


def test_a_profile_may_have_any_name(tmp_path: Path):
    """The longest, and one that is not Unicode."""
    for name in ("x" * 250, "caf\udce9"):
        path = tmp_path / f"{name}.json"
        write_profile(path, read_profile("generic-phone").model_copy(update={"name": name}))
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert read_profile(path).name == name
    assert len(list(tmp_path.iterdir())) == 2
