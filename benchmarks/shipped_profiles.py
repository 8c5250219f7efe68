"""Writes the profiles that ship: python benchmarks/shipped_profiles.py ../shared/raw [--out FOLDER]

Two photographs of test charts, released under CC0, are measured by `adapt calibrate`: a Canon PowerShot G2's and a
PowerShot S40's, compact cameras with a sensor of the same kind. What they measure is averaged at their ISO, 50.
`generic-compact` is that, with higher ISOs and daylight by a rule. `generic-phone` is made up by rules and not
measured, for no RAW file of a phone could be had under a free licence; its source compares it with the compact
cameras. The `source` of each profile says which number is which.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rawpy

from adapt.commands.calibrate import calibrate
from degradations.camera.profiles import SHIPPED, CameraProfile, Light, NoiseLevel, PerSite, read_profile, write_profile

FILES = ("Canon_PowerShot_G2_CRW_0304.CRW", "Canon_PowerShot_S40_CRW_0101.CRW")
GAINS = (1, 2, 4, 8)  # of the ISO the files were taken at, up to 400: the highest of both cameras
COMPACT = (
    "Levels, filter and the noise of ISO 50 are measured by adapt calibrate in {files} (CC0, one chart each; variance"
    " is {slopes[0]:.4g} and {slopes[1]:.4g} x signal over all sites): beta1 and beta2 are the means of both, by site,"
    " row is their root mean square. ISO 100, 200 and 400 are not measured, but follow by a rule: at g times the ISO"
    " beta1 is g times, beta2 g^2 times, row g times as large, as if all read noise arose before the amplifier, which"
    " is the most it can be. Lights: the white balances that the files record (red {shot[0]:g} and {shot[1]:g}), and by"
    " a rule the daylight of both cameras (red {day[0]:g} and {day[1]:g}), the gains that make D65 white by LibRaw's"
    " colour matrices; the matrices of all four are LibRaw's. Made by benchmarks/shipped_profiles.py."
)

PHONE_ISOS = (100.0, 800.0, 1600.0, 3200.0)
PHONE_BLACK, PHONE_WHITE = 64.0, 1023.0  # the usual levels of 10 bits
COMPACT_PITCH, PHONE_PITCH = 3.16, 1.4  # micrometres: 7.18 mm for 2272 photosites; main cameras of about 2013 to 2018
PHONE_SLOPE = 0.004  # DN of ISO 1: 12 at ISO 3000, as published for the phone sensor of DT-BFR
READ_NOISE = 250 / 150  # electrons
AFTER_AMPLIFIER = 0.56  # DN^2, rounding to whole DN among it
PHONE = (
    "Made up, nothing is measured: there was no RAW file of a phone whose licence allows it. Noise of light is a"
    " rule, beta1 = {slope:g} DN x ISO: 12 DN at ISO 3000, as published for the phone sensor of DT-BFR, whose"
    " table is not in here. What adapt calibrate measures of generic-compact's files would be {carried:.2g} DN x"
    " ISO on photosites of 1.4 instead of 3.16 micrometres that use light no better. Noise in the dark is a rule:"
    " {electrons:.3g} electrons before the amplifier and {rest:g} DN^2 after it, rounded to whole DN^2."
    " docs/calibration.md compares both with three phones that others have measured. Levels are the usual ones of"
    " 10 bits. Lights are made up: six steps from tungsten to shade, with the colour matrices of no real camera."
    " Made by benchmarks/shipped_profiles.py."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="the folder of the two files")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    profile = compact(arguments.raw)
    for each in (profile, phone(profile)):
        write_profile(arguments.out / f"{each.name}.json", each)


def compact(folder: Path) -> CameraProfile:
    """The profile of a compact camera, from the folder that holds both files."""
    paths = [folder / name for name in FILES]
    with tempfile.TemporaryDirectory() as scratch:
        results = [calibrate([path], Path(scratch) / f"{path.stem}.json") for path in paths]
    measured = [result.profile for result in results]
    first, second = measured
    if (first.cfa, first.black, first.white) != (second.cfa, second.black, second.white):
        raise ValueError(f"expected two sensors of one kind: {' and '.join(FILES)} differ in phase or levels")
    shot = [profile.lights[0] for profile in measured]
    day = [daylight(path, light) for path, light in zip(paths, shot, strict=True)]
    levels = [profile.levels[0] for profile in measured]
    return CameraProfile(
        name="generic-compact",
        description="A compact camera of the early 2000s, 4 megapixels, 10 bits, RGGB, with a little row noise.",
        source=COMPACT.format(
            files=" and ".join(FILES),
            slopes=[result.levels[0].fit.common[0] for result in results],
            shot=[light.red for light in shot],
            day=[light.red for light in day],
        ),
        licence="Apache-2.0",
        cfa=first.cfa,
        black=first.black,
        white=first.white,
        levels=tuple(level_at(levels, gain) for gain in GAINS),
        lights=tuple(sorted((*shot, *day), key=lambda light: light.red)),
    )


def phone(compact: CameraProfile) -> CameraProfile:
    """The profile of a phone, by rules, beside the measured noise of a compact camera; its lights stay as they are."""
    lowest = compact.levels[0]
    span = (PHONE_WHITE - PHONE_BLACK) / (compact.white - compact.black)
    area = (COMPACT_PITCH / PHONE_PITCH) ** 2
    carried = sum(lowest.beta1) / 4 / lowest.iso * span * area
    return CameraProfile(
        name="generic-phone",
        description="A phone's main camera, 10 bits, GRBG. Row noise is taken out by the sensor itself.",
        source=PHONE.format(
            slope=PHONE_SLOPE, carried=carried, electrons=READ_NOISE, rest=AFTER_AMPLIFIER,
        ),
        licence="Apache-2.0",
        cfa="GRBG",
        black=PHONE_BLACK,
        white=PHONE_WHITE,
        levels=tuple(phone_level(iso) for iso in PHONE_ISOS),
        lights=read_profile("generic-phone").lights,
    )


def phone_level(iso: float) -> NoiseLevel:
    """Noise of a phone: photons, and the read noise before and after the amplifier."""
    gain = _short(PHONE_SLOPE * iso)  # DN of one electron
    dark = float(round((READ_NOISE * gain) ** 2 + AFTER_AMPLIFIER))
    return NoiseLevel(iso=iso, beta1=(gain, gain, gain, gain), beta2=(dark, dark, dark, dark))


def level_at(measured: Sequence[NoiseLevel], gain: float) -> NoiseLevel:
    """The mean of measured noise, at so many times its ISO."""
    rows = sum(level.row**2 for level in measured) / len(measured)
    return NoiseLevel(
        iso=measured[0].iso * gain,
        beta1=_mean([level.beta1 for level in measured], gain),
        beta2=_mean([level.beta2 for level in measured], gain**2),
        row=_short(rows**0.5 * gain),
    )


def daylight(path: Path, light: Light) -> Light:
    """The light of D65 by LibRaw's colour matrix of a file's camera."""
    with rawpy.imread(str(path)) as raw:
        red, green, blue = (float(gain) for gain in raw.daylight_whitebalance[:3])
    return Light(red=_short(red / green), blue=_short(blue / green), matrix=light.matrix)


def _mean(values: Sequence[PerSite], factor: float) -> PerSite:
    first, second, third, fourth = (_short(sum(site) / len(site) * factor) for site in zip(*values, strict=True))
    return first, second, third, fourth


def _short(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
