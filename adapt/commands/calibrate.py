"""A camera profile from the RAW files of a camera: levels and colours as they say, noise as flat patches show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from adapt.commands.noise_plot import draw_noise
from adapt.disk import optional_path, write_atomic
from adapt.errors import PhotoError, UsageError
from adapt.photos.raw import Sensor, read_sensor
from degradations.camera.calibrate import NoiseFit, Patches, find_patches, fit_noise, join_patches
from degradations.camera.profiles import CameraProfile, Light, write_profile

OnFile = Callable[[int, int], None]

_SAME_LEVEL = 0.01  # of the range from black to white: some makers write the black level that each image measured
_SAME_MATRIX = 1e-3


@dataclass(frozen=True)
class Measured:
    """The noise at one ISO: whose patches it is from, and the lines through them."""

    iso: float
    files: tuple[str, ...]
    patches: Patches
    fit: NoiseFit


@dataclass(frozen=True)
class Calibration:
    """How a calibration came out.

    Attributes:
        profile: as written.
        levels: in order of their ISO.
        notes: what was decided on the way.
        problems: files that could not be read, and ISO values that could not be measured, each with its reason.
    """

    profile: CameraProfile
    levels: tuple[Measured, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Shot:
    """What is kept of a file; of the sensor all but the mosaic, which is large."""

    path: Path
    sensor: Sensor
    iso: float
    patches: Patches


def calibrate(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | None = None,
    iso: float | None = None,
    plot: str | Path | None = None,
    overwrite: bool = False,
    on_file: OnFile | None = None,
) -> Calibration:
    """Measure a camera and write its profile.

    Files of one ISO are measured together, each ISO is a level of the profile, each white balance one of its lights.
    What cannot be read or measured is a problem of its own, and the rest goes on. The same files give the same profile.

    Args:
        files: RAW files of one camera.
        out: the profile, JSON; read by `degradations.camera.profiles.read_profile`.
        name: of the profile; that of `out` where None.
        iso: of the files that do not say theirs.
        plot: a drawing of the measurement, PNG; see `adapt.commands.noise_plot`.
        overwrite: replace what is there.
        on_file: called with files read and files in all.

    Raises:
        UsageError: no files, files of different cameras, or an output that exists.
        PhotoError: nothing could be measured; a line for each file or ISO says why.
    """
    files, out, plot = [Path(file) for file in files], Path(out), optional_path(plot)
    for path, suffix in ((out, ".json"), (plot, ".png")):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise UsageError(f"{path}: expected a name that ends in {suffix}")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already and is not replaced without --overwrite")
    if not files:
        raise UsageError("expected one RAW file or more")
    if iso is not None and not 0 < iso < float("inf"):
        raise UsageError(f"--iso {iso:g}: expected a number above 0")
    shots, problems = _read(files, iso, on_file)
    _check_one_camera(shots)
    levels = _measure(shots, problems)
    if not levels:
        raise PhotoError("\n".join(problems))
    profile = _profile(name or out.stem, shots, levels)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_profile(out, profile)
    if plot is not None:
        image = draw_noise(profile.name, profile.cfa, [(level.iso, level.patches, level.fit) for level in levels])
        write_atomic(plot, lambda stream: image.save(stream, "PNG"))
    notes = [f"{shot.path}: {note}" for shot in shots for note in shot.sensor.notes]
    if iso is not None and all(shot.sensor.iso for shot in shots):
        notes.append(f"--iso {iso:g}: not used; every file says its own ISO")
    return Calibration(profile, tuple(levels), tuple(notes), tuple(problems))


def _read(files: Sequence[Path], iso: float | None, on_file: OnFile | None) -> tuple[list[_Shot], list[str]]:
    shots: list[_Shot] = []
    problems: list[str] = []
    for index, path in enumerate(dict.fromkeys(files)):
        try:
            sensor = read_sensor(path)
            taken_at = sensor.iso or iso
            if taken_at is None:
                raise PhotoError(f"{path}: does not say at which ISO it was taken; say it with --iso")
            patches = _patches(path, sensor)
            shots.append(_Shot(path, replace(sensor, mosaic=sensor.mosaic[:0].copy()), taken_at, patches))
        except PhotoError as error:
            problems.append(str(error))
        if on_file is not None:
            on_file(index + 1, len(files))
    return shots, problems


def _patches(path: Path, sensor: Sensor) -> Patches:
    try:
        return find_patches(sensor.mosaic, black=sensor.black, white=sensor.white)
    except ValueError as error:
        raise PhotoError(f"{path}: {error}") from error


def _check_one_camera(shots: Sequence[_Shot]) -> None:
    for shot in shots[1:]:
        first, other = shots[0].sensor, shot.sensor
        range_ = first.white - max(first.black)
        levels = np.abs(np.subtract((*first.black, first.white), (*other.black, other.white))).max()
        matrices = np.abs(np.subtract(first.light.matrix, other.light.matrix)).max()
        if first.phase != other.phase or levels > _SAME_LEVEL * range_ or matrices > _SAME_MATRIX:
            raise UsageError(
                f"{shot.path}: of another camera than {shots[0].path}: {_camera(other)}, not {_camera(first)};"
                " a profile is of one camera"
            )


def _camera(sensor: Sensor) -> str:
    row = " ".join(f"{value:.3f}" for value in sensor.light.matrix[0])
    return f"{sensor.phase}, {np.mean(sensor.black):g} to {sensor.white:g} DN, colour matrix {row} ..."


def _measure(shots: Sequence[_Shot], problems: list[str]) -> list[Measured]:
    """The levels that could be measured, in order of their ISO; the others become problems."""
    groups: dict[float, list[_Shot]] = defaultdict(list)
    for shot in shots:
        groups[shot.iso].append(shot)
    levels: list[Measured] = []
    for iso, group in sorted(groups.items()):
        patches = join_patches([shot.patches for shot in group])
        try:
            fit = fit_noise(patches, torch.Generator().manual_seed(0))
        except ValueError as error:
            names = ", ".join(str(shot.path) for shot in group)
            problems.append(f"{names} (ISO {iso:g}): {error}")
            continue
        levels.append(Measured(iso, tuple(shot.path.name for shot in group), patches, fit))
    return levels


def _profile(name: str, shots: Sequence[_Shot], levels: Sequence[Measured]) -> CameraProfile:
    lights: dict[tuple[float, float], Light] = {}
    for shot in shots:
        light = shot.sensor.light
        red, blue = float(f"{light.red:.4g}"), float(f"{light.blue:.4g}")
        lights.setdefault((red, blue), Light(red=red, blue=blue, matrix=light.matrix))
    slopes = "; ".join(f"ISO {level.iso:g}: {describe(level.fit)}" for level in levels)
    return CameraProfile(
        name=name,
        description=f"Measured by adapt calibrate. {slopes}.",
        source=", ".join(file for level in levels for file in level.files),
        licence="not stated: numbers measured from the files of `source`",
        cfa=shots[0].sensor.phase,
        black=float(f"{np.mean([shot.sensor.black for shot in shots]):.6g}"),
        white=shots[0].sensor.white,
        levels=tuple(level.fit.level(level.iso) for level in levels),
        lights=tuple(lights[key] for key in sorted(lights)),
    )


def describe(fit: NoiseFit) -> str:
    """A measurement in one line: slope and dark with their 95 % intervals, and what it rests on."""
    low, high = fit.slope_interval
    dark_low, dark_high = fit.dark_interval
    parts = [
        f"slope {fit.common[0]:.4g} DN^2 per DN (95 %: {low:.4g} to {high:.4g})",
        f"in the dark {fit.common[1]:.3g} DN^2 ({dark_low:.3g} to {dark_high:.3g})",
        *([f"rows {fit.row:.2g} DN"] if fit.row else []),
        *([f"unevenness {100 * fit.uneven:.2g} % of the signal, left out"] if fit.uneven else []),
        f"{fit.patches} flat patches from {fit.span[0]:.0f} to {fit.span[1]:.0f} DN",
    ]
    return ", ".join(parts)
