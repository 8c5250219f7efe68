"""Writes the profile generic-compact: python benchmarks/compact_profile.py ../shared/raw [--out FILE]

Two photographs of test charts, released under CC0, are measured by `adapt calibrate`: a Canon PowerShot G2's and a
PowerShot S40's, compact cameras with a sensor of the same kind. What they measure is averaged at their ISO, 50; higher
ISOs follow by a rule, and so does daylight. The profile's own `source` says which number is which.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rawpy

from adapt.calibrating import calibrate
from degradations.profiles import SHIPPED, CameraProfile, Light, NoiseLevel, PerSite, write_profile

FILES = ("Canon_PowerShot_G2_CRW_0304.CRW", "Canon_PowerShot_S40_CRW_0101.CRW")
GAINS = (1, 2, 4, 8)  # of the ISO the files were taken at, up to 400: the highest of both cameras
SOURCE = (
    "Levels, filter and the noise of ISO 50 are measured by adapt calibrate in {files} (CC0, one chart each; variance"
    " is {slopes[0]:.4g} and {slopes[1]:.4g} x signal over all sites): beta1 and beta2 are the means of both, by site,"
    " row is their root mean square. ISO 100, 200 and 400 are not measured, but follow by a rule: at g times the ISO"
    " beta1 is g times, beta2 g^2 times, row g times as large, as if all read noise arose before the amplifier, which"
    " is the most it can be. Lights: the white balances that the files record (red {shot[0]:g} and {shot[1]:g}), and by"
    " a rule the daylight of both cameras (red {day[0]:g} and {day[1]:g}), the gains that make D65 white by LibRaw's"
    " colour matrices; the matrices of all four are LibRaw's. Written by benchmarks/compact_profile.py."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="the folder of the two files")
    parser.add_argument("--out", type=Path, default=SHIPPED / "generic-compact.json")
    arguments = parser.parse_args()
    write_profile(arguments.out, compact(arguments.raw))


def compact(folder: Path) -> CameraProfile:
    """The profile, from the folder that holds both files."""
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
        source=SOURCE.format(
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
