"""The start-step table: from which timestep on a blurred image looks like the sharp one (DSST of DynFaceRestore).

The paper compares "expected values" of x_t (Eq. 11, 23), which blur leaves as they are. What differs is their power at
each frequency, and that is known without drawing anything: noise at timestep t turns power P(f) into
abar_t P(f) + 1 - abar_t, and a Gaussian blur before it turns P(f) into P(f) G(f)^2.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from torch import Tensor

from adapt.blur.labels import std_levels
from adapt.diffusion.schedule import TIMESTEPS, linear_schedule
from adapt.disk import write_json
from adapt.errors import ShapeError, UsageError, WeightsError
from adapt.images import to_signed
from adapt.settings import Settings, StartStepsSettings, Timestep
from degradations.cosines import gaussian_transfer

ENTRY: Final = "start-steps"  # of a pack
FILE: Final = "start-steps.json"
_BATCH: Final = 16  # images transformed at once


class StartSteps(Settings):
    """A start-step table, as it lies in its file.

    `steps[i]` is the timestep, 0 to 999, from which an image blurred by `stds[i]` pixels may start.
    """

    kind: Literal["start-steps"] = "start-steps"
    size: PositiveInt = Field(description="side of the images, in pixels")
    statistic: Literal["share", "mean", "largest"]
    share: float
    tol: PositiveFloat
    images: PositiveInt = Field(description="how many the spectrum was taken of")
    spectrum: list[float] = Field(description="mean power in [-1, 1] at 0, 1, 2, ... cycles per image; noise: 1")
    stds: list[float] = Field(min_length=1, description="pixels, ascending")
    steps: list[Timestep]

    @model_validator(mode="after")
    def _columns_agree(self) -> StartSteps:
        ascending = all(a < b for a, b in zip(self.stds, self.stds[1:], strict=False))
        if len(self.stds) != len(self.steps) or not ascending:
            raise ValueError(f"expected ascending stds with a step each, got {len(self.stds)} and {len(self.steps)}")
        return self

    def start_t(self, std: float) -> int:
        """The start timestep of a photo whose blur level is `std` pixels; between two levels, between their steps.

        Differs: the paper rounds the std to a level of the table. Outside the table its ends hold.
        """
        upper = bisect_left(self.stds, std)
        if upper == 0:
            return self.steps[0]
        if upper == len(self.stds):
            return self.steps[-1]
        low, high = self.stds[upper - 1], self.stds[upper]
        part = (std - low) / (high - low)
        return round(self.steps[upper - 1] + part * (self.steps[upper] - self.steps[upper - 1]))

    def std_for(self, start_t: int) -> float:
        """The blur level in pixels of a photo that starts from a timestep: `start_t` the other way round.

        Where no level starts as early as that, the least one of the table.
        """
        upper = bisect_right(self.steps, start_t)
        if upper == 0:
            return self.stds[0]
        if upper == len(self.steps):
            return self.stds[-1]
        low, high = self.steps[upper - 1], self.steps[upper]
        part = (start_t - low) / (high - low)
        return self.stds[upper - 1] + part * (self.stds[upper] - self.stds[upper - 1])

    def save(self, path: Path) -> None:
        """Write the table as JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))


def power_spectrum(images: Iterable[Tensor]) -> Tensor:
    """Expected power of images against the radius of the frequency.

    Args:
        images: batches (B, 3, S, S) in [-1, 1], all of one size.

    Returns:
        (S // 2 + 1,) float64 at 0, 1, 2, ... cycles per image: mean over images, channels, and the frequencies
        whose radius rounds to it. White noise of variance 1 has 1 everywhere.

    Raises:
        ShapeError: not square, or of different sizes.
        UsageError: no images.
    """
    total: Tensor | None = None
    count = 0
    for batch in images:
        differs = total is not None and batch.shape[2:] != total.shape
        if batch.ndim != 4 or batch.shape[2] != batch.shape[3] or differs:
            raise ShapeError(f"spectrum: expected square images of one size, got {tuple(batch.shape)}")
        power = torch.fft.fft2(batch, norm="ortho").abs().double().square().sum(dim=(0, 1)).cpu()
        total = power if total is None else total + power
        count += batch.shape[0] * batch.shape[1]
    if total is None or not count:
        raise UsageError("spectrum: no images")
    side = total.shape[0]
    line = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    radius = torch.hypot(line[:, None], line[None, :]).round().long().flatten()
    rings = torch.bincount(radius, total.flatten()) / torch.bincount(radius)
    return rings[: side // 2 + 1] / count


def differences(spectrum: Tensor, std: float, abar: Tensor) -> Tensor:
    """log E|X_t(f)|^2 - log E|Y_t(f)|^2 of sharp and blurred images under noise, not negative.

    Args:
        spectrum: (F,) of `power_spectrum`.
        std: of the blur, pixels.
        abar: (T,) alpha-bar.

    Returns:
        (T, F) float64; it falls with t.
    """
    side = 2 * (len(spectrum) - 1)  # an odd side has its last ring half a cycle further; the blur there is the same
    frequency = torch.arange(len(spectrum), dtype=torch.float64) / max(side, 1)
    kept = gaussian_transfer(frequency, torch.tensor(std**2, dtype=torch.float64)).square()
    signal, noise = abar[:, None] * spectrum, 1 - abar[:, None]
    return torch.log((signal + noise) / (signal * kept + noise))


def first_step(values: Tensor, settings: StartStepsSettings) -> int | None:
    """The first timestep at which (T, F) differences are within the tolerance; None if there is none.

    "share": at that share of the frequencies; "mean": on average; "largest": at all of them.
    """
    match settings.statistic:
        case "share":
            within = (values <= settings.tol).double().mean(1) >= settings.share
        case "mean":
            within = values.mean(1) <= settings.tol
        case "largest":
            within = values.amax(1) <= settings.tol
    return int(within.int().argmax()) if bool(within.any()) else None


def build_start_steps(images: Tensor, settings: StartStepsSettings) -> StartSteps:
    """The table of a set of sharp, aligned faces; seconds, and no network.

    Args:
        images: (N, 3, S, S) uint8, S = settings.size.
        settings: statistic and tolerance.

    Raises:
        UsageError: no images, or a tolerance that is never met.
        ShapeError: images of another shape.

    Source: Eq. (11)/(23), tol = 1e-3; the statistic is ours (module docstring). On portraits of 512 pixels it starts
    between about 690 and 925, as the paper does.
    """
    if images.shape[1:] != (3, settings.size, settings.size):
        raise ShapeError(f"start steps: expected (N, 3, {settings.size}, {settings.size}), got {tuple(images.shape)}")
    spectrum = power_spectrum(to_signed(batch.float() / 255) for batch in images.split(_BATCH))
    return table_of(spectrum, settings, images=len(images))


def table_of(spectrum: Tensor, settings: StartStepsSettings, *, images: int) -> StartSteps:
    """The table that follows from a power spectrum; see `build_start_steps`."""
    abar = linear_schedule().abar
    stds: Sequence[float] = std_levels(settings.size).tolist()
    steps: list[int] = []
    for std in stds:
        values = differences(spectrum, std, abar)
        step = first_step(values, settings)
        if step is None:
            raise UsageError(
                f"start steps: a blur of {std:g} pixels is not within tol {settings.tol:g} at any of {TIMESTEPS}"
                f" timesteps ({settings.statistic} of the differences); raise tol, or use statistic share"
            )
        steps.append(step)
    return StartSteps(
        size=settings.size,
        statistic=settings.statistic,
        share=settings.share,
        tol=settings.tol,
        images=images,
        spectrum=spectrum.tolist(),
        stds=list(stds),
        steps=steps,
    )


def load_start_steps_file(path: Path) -> StartSteps:
    """Read a table that `StartSteps.save` wrote.

    Raises:
        WeightsError: no such file, or not a start-step table.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_start_steps(data, path)


def parse_start_steps(data: bytes, path: Path) -> StartSteps:
    """The table that a file of this content holds. Raises WeightsError: it is none."""
    try:
        return StartSteps.model_validate_json(data.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise WeightsError(f"{path}: not a start-step table ({what}); build it with adapt pretrain") from error
