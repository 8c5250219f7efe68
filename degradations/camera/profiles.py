"""Camera profiles: how noisy a sensor is at each ISO, and the light its images are taken in.

A profile is a small JSON file. Those in `degradations/profiles` are ours; `read_profile` also reads a user's own, and
the noise tables of the public code of DT-BFR, which are licensed for non-commercial use and therefore do not ship.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import secrets
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from degradations.places import HERE, told, whole_path

Phase = Literal["RGGB", "GRBG", "GBRG", "BGGR"]
PerSite = tuple[float, float, float, float]
Row = tuple[float, float, float]

SHIPPED = Path(__file__).parent / "profiles"
ROW_SUM_TOLERANCE = 1e-3  # matrices are written with a few decimals

# The public code of DT-BFR: the sensor its tables belong to, and what the file of such a table is called.
PUBLIC_TABLE = "model_params.npy"
PUBLIC_BLACK, PUBLIC_WHITE = 64.0, 1023.0


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NoiseLevel(_Model):
    """The noise of a sensor at one ISO, in DN (the sensor's own digital numbers).

    beta1, beta2: variance = beta1 * (DN above black) + beta2, in DN^2, for each site of the 2 x 2 colour filter in the
        order (0, 0), (0, 1), (1, 0), (1, 1). beta1 is photon noise, beta2 read noise.
    row: standard deviation of the offset that a whole row shares, in DN.

    Source: Foi et al. 2008, named in DT-BFR below Eq. (12). Differs from the tables of its public code, which count the
    signal with the black level, so that their beta2 is negative.
    """

    iso: float = Field(gt=0)
    beta1: Annotated[PerSite, Field(description="DN of variance for each DN of signal")]
    beta2: Annotated[PerSite, Field(description="variance in the dark, DN^2")]
    row: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _not_negative(self) -> NoiseLevel:
        for name, values in (("beta1", self.beta1), ("beta2", self.beta2)):
            if min(values) < 0:
                raise ValueError(f"{name} must be 0 or more at every site, got {list(values)} at ISO {self.iso:g}")
        return self


class Light(_Model):
    """One light: the white-balance gains it asks for, and the colour matrix that goes with them.

    red, blue: gains against green.
    matrix: white-balanced camera RGB to linear sRGB; each row sums to 1, so that white stays white.
    """

    red: float = Field(gt=0)
    blue: float = Field(gt=0)
    matrix: tuple[Row, Row, Row]

    @model_validator(mode="after")
    def _invertible(self) -> Light:
        for row in self.matrix:
            if abs(sum(row) - 1) > ROW_SUM_TOLERANCE:
                raise ValueError(f"each row of matrix must sum to 1, got {list(row)} with sum {sum(row):g}")
        (a, b, c), (d, e, f), (g, h, i) = self.matrix
        if abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) < 1e-3:
            raise ValueError("matrix has no inverse: its determinant is 0")
        return self


class CameraProfile(_Model):
    """One camera.

    cfa: colours of the filter's 2 x 2 cell, read like a line of text.
    black, white: DN of no light, and of saturation.
    levels: noise at each measured ISO, ascending.
    lights: in order of their colour; that of a photograph lies anywhere on the way from the first to the last.
    """

    name: str
    description: str
    source: str
    licence: str
    cfa: Phase
    black: float = Field(ge=0)
    white: float
    levels: Annotated[tuple[NoiseLevel, ...], Field(min_length=1)]
    lights: Annotated[tuple[Light, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> CameraProfile:
        if self.white <= self.black:
            raise ValueError(f"white must be above black, got {self.white:g} and {self.black:g}")
        isos = [level.iso for level in self.levels]
        if any(low >= high for low, high in itertools.pairwise(isos)):
            raise ValueError(f"levels must be in ascending order of ISO, each once, got {isos}")
        return self

    def digest(self) -> str:
        """sha256 of all that its images follow from, however the file is written: its words are left out."""
        numbers = self.model_dump(mode="json", exclude={"name", "description", "source", "licence"})
        return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()

    def at_iso(self, iso: float) -> NoiseLevel:
        """The noise at any ISO between the lowest and the highest level.

        Between two levels beta1 is linear in the ISO, and beta2 and the variance of the rows are linear in its square:
        exact for a sensor whose read noise is partly before and partly after its amplifier.

        Raises:
            ValueError: an ISO outside the levels.
        """
        lowest, highest = self.levels[0].iso, self.levels[-1].iso
        if not lowest <= iso <= highest:
            raise ValueError(f"profile {self.name}: knows the noise from ISO {lowest:g} to {highest:g}, not at {iso:g}")
        above = next(index for index, level in enumerate(self.levels) if level.iso >= iso)
        if self.levels[above].iso == iso:
            return self.levels[above]
        low, high = self.levels[above - 1], self.levels[above]
        share = (iso - low.iso) / (high.iso - low.iso)
        squared = (iso**2 - low.iso**2) / (high.iso**2 - low.iso**2)
        return NoiseLevel(
            iso=iso,
            beta1=_between(low.beta1, high.beta1, share),
            beta2=_between(low.beta2, high.beta2, squared),
            row=math.sqrt(low.row**2 + (high.row**2 - low.row**2) * squared),
        )

    def light_at(self, place: float) -> Light:
        """The light at a place on the way from the first of `lights` (0) to the last (1), each step equally long.

        Raises:
            ValueError: a place outside [0, 1].
        """
        if not 0 <= place <= 1:
            raise ValueError(f"profile {self.name}: expected the place of a light from 0 to 1, got {place}")
        position = place * (len(self.lights) - 1)
        index = min(int(position), len(self.lights) - 2)
        if index < 0:
            return self.lights[0]
        low, high, share = self.lights[index], self.lights[index + 1], position - index
        rows = (
            tuple(a + (b - a) * share for a, b in zip(*pair, strict=True))
            for pair in zip(low.matrix, high.matrix, strict=True)
        )
        return Light.model_validate(
            {
                "red": low.red + (high.red - low.red) * share,
                "blue": low.blue + (high.blue - low.blue) * share,
                "matrix": tuple(rows),
            }
        )


def _between(low: PerSite, high: PerSite, share: float) -> PerSite:
    first, second, third, fourth = (a + (b - a) * share for a, b in zip(low, high, strict=True))
    return first, second, third, fourth


# ---------------------------------------------------------------- files


def profile_names() -> list[str]:
    """Names of the profiles that ship, in alphabetical order."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def find_profile(path_or_name: str, folders: Sequence[Path] = (HERE,)) -> str:
    """The whole path of a user's own profile, or the name of one that ships.

    Args:
        path_or_name: as `read_profile` takes it.
        folders: where a relative path is looked up, in order.

    Raises:
        ValueError: as `read_profile`, of a name that is none.
    """
    found = whole_path(path_or_name, folders, lambda path: path.is_file() or (path / PUBLIC_TABLE).is_file())
    if found is not None:
        return found
    if path_or_name in profile_names():
        return path_or_name
    raise _no_profile(path_or_name, told(path_or_name, folders))


def read_profile(path_or_name: str | Path) -> CameraProfile:
    """A profile that ships, by its name, or a user's own from a file.

    Besides our JSON it reads the noise tables of DT-BFR's public code: the folder that holds `model_params.npy`, that
    file, or the same table as JSON (`table`, with rows of ISO, site, beta1, beta2). Such a table has no colours: GRBG,
    10 bits over a black level of 64 are those of the public code, the lights those of `generic-phone`.

    Raises:
        ValueError: no such profile or file, or one whose content is no profile.
    """
    path = Path(path_or_name)
    if (path / PUBLIC_TABLE).is_file():
        return _public_profile(path.name, _read_table(path / PUBLIC_TABLE), path / PUBLIC_TABLE)
    if path.is_file() and path.suffix == ".npy":
        return _public_profile(path.parent.name or path.stem, _read_table(path), path)
    if path.is_file():
        return _read_json(path)
    name = str(path_or_name)
    if name in profile_names():
        return _read_json(SHIPPED / f"{name}.json")
    raise _no_profile(name)


def _no_profile(name: str, where: str = "") -> ValueError:
    """What to say of a name or path that is no profile; `where` it was looked for, if a path."""
    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        return ValueError(f"{path}: there is no such profile file{where}")
    known = profile_names()
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"no camera profile {name!r}{hint} Known: {', '.join(known)}; or give the path of a JSON file")


def write_profile(path: str | Path, profile: CameraProfile) -> None:
    """Write a profile as JSON that a person can read and edit, whole or not at all; the folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(profile.model_dump(mode="json"), indent=1, ensure_ascii=False)
    path = Path(path)
    part = path.with_name(f".adapt-{os.getpid()}-{secrets.token_hex(4)}.part")  # short: the file's name may be long
    try:
        part.write_text(_numbers_on_one_line(text) + "\n", encoding="utf-8", errors="backslashreplace")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _numbers_on_one_line(text: str) -> str:
    """Indented JSON with each innermost list of numbers on one line."""
    lines: list[str] = []
    opened: int | None = None
    for line in text.split("\n"):
        if line.rstrip().endswith("["):
            opened = len(lines)
        elif line.strip() in ("]", "],") and opened is not None:
            parts = [part.strip() for part in lines[opened + 1 :]]
            lines[opened:] = [lines[opened] + " ".join(parts) + line.strip()]
            opened = None
            continue
        elif line.rstrip().endswith(("{", "}", "},")):
            opened = None
        lines.append(line)
    return "\n".join(lines)


def _read_json(path: Path) -> CameraProfile:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a camera profile as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object with the fields of a camera profile")
    if "table" in content:
        return _public_profile(str(content.get("name", path.stem)), content["table"], path)
    return _checked(content, path)


def _checked(content: dict[str, Any], path: Path) -> CameraProfile:
    try:
        return CameraProfile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {place + ': ' if place else ''}{message}{more}") from error


def _read_table(path: Path) -> list[list[float]]:
    import numpy as np

    try:
        # Without pickles: a file from elsewhere must not be able to run anything.
        return np.load(path, allow_pickle=False).tolist()
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: expected a numpy array of plain numbers: {error}") from error


def _public_profile(name: str, table: Any, path: Path) -> CameraProfile:
    """A table of the public code, with its black level taken out of the signal.

    There variance = beta1 * DN + beta2; with DN = black + signal, beta2 grows by beta1 * black. Where the fit left a
    little less than nothing in the dark (under 1 DN^2, at the lowest ISOs), it is nothing.
    """
    sites: dict[float, dict[int, tuple[float, float]]] = {}
    try:
        for iso, site, beta1, beta2 in table:
            sites.setdefault(float(iso), {})[int(site)] = (float(beta1), float(beta2))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected rows of four numbers: ISO, site, beta1, beta2") from error
    levels: list[dict[str, Any]] = []
    for iso, found in sorted(sites.items()):
        if sorted(found) != [0, 1, 2, 3]:
            raise ValueError(f"{path}: expected the sites 0, 1, 2, 3 at ISO {iso:g}, got {sorted(found)}")
        shot = [found[site][0] for site in range(4)]
        dark = [max(0.0, found[site][1] + found[site][0] * PUBLIC_BLACK) for site in range(4)]
        levels.append({"iso": iso, "beta1": shot, "beta2": dark})
    lights: Sequence[Light] = read_profile("generic-phone").lights
    return _checked(
        {
            "name": name,
            "description": "Noise table of DT-BFR's public code, with the lights of generic-phone.",
            "source": str(path),
            "licence": "as its source: CC BY-NC-SA 4.0 for the tables of DT-BFR, not for commercial use",
            "cfa": "GRBG",
            "black": PUBLIC_BLACK,
            "white": PUBLIC_WHITE,
            "levels": levels,
            "lights": [light.model_dump() for light in lights],
        },
        path,
    )
