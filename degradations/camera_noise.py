"""A phone's night mode without its denoiser: few photons, a Bayer mosaic, and a plain rendering.

Noise is independent only from one photosite to the next. White balance then makes it stronger in red and blue than in
green, the demosaicing smears it over neighbours, the gamma lifts it in the shadows, and the enlargement turns it into
coloured blotches of several pixels: nothing that a restorer trained on white noise has seen.

Source: DT-BFR Eq. (10)/(12), with simpler parts: the sRGB curve for tone, one light temperature for the illuminant, no
colour matrix, and bilinear demosaicing instead of a network. Differs: the noise figures are no calibrated sensor's.

The named strengths are for portraits of 128 pixels, where shrinking by 4 alone costs more (22.1 dB) than the noise
should. Mean PSNR to the clean picture on the 186 test portraits, and its range:

    shrunk by 2, no noise   26.3 dB (23.2 to 31.2)
    MODERATE                24.4 dB (21.8 to 27.5)
    SEVERE                  22.0 dB (20.0 to 23.6)
    STARLIGHT               15.4 dB (14.5 to 16.6)

`pytest tests/test_degradations.py -k decibels` measures them again. For pictures of 512 pixels take scale 4 or 8, as
the paper does: `dataclasses.replace(SEVERE, scale=4)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from degradations.filters import check_one, mirror, resize_area, resize_linear
from degradations.noise import signal_dependent

# Row and column, modulo 2, of the photosites of each colour: GRBG, as in the paper's sensor.
_SITES = (((0, 1),), ((0, 0), (1, 1)), ((1, 0),))


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraParameters:
    """One photograph: light and exposure.

    red, blue: white-balance gains against green, 1 or more.
    gain: variance of the noise per unit of signal, where 1 is the full range of the sensor.
    read_noise: standard deviation of the noise in the dark, on the same scale.
    """

    red: float
    blue: float
    gain: float
    read_noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraNoise:
    """A camera at one sensitivity.

    scale: by how much both sides shrink before the sensor sees them; must divide them.
    gain, read_noise: as in `CameraParameters`, before the exposure of the single photograph.
    exposure_spread: half width, in stops, of the uniform range around them; one stop doubles the gain and the
        variance in the dark by four, as one more stop of amplification does.
    red, blue: white-balance gains in daylight and in the light of a bulb; the light is uniform between them.

    Raises:
        ValueError: a number outside what it means.
    """

    scale: int = 4
    gain: float
    read_noise: float
    exposure_spread: float = 0.25
    red: tuple[float, float] = (2.1, 1.4)
    blue: tuple[float, float] = (1.5, 2.4)

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"camera noise: scale must be 1 or more, got {self.scale}")
        for name in ("gain", "read_noise", "exposure_spread"):
            value: float = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"camera noise: {name} must be 0 or more, got {value}")
        for name in ("red", "blue"):
            gains: tuple[float, float] = getattr(self, name)
            if not 1 <= min(gains) <= max(gains) < math.inf:
                raise ValueError(f"camera noise: {name} gains must be 1 or more, got {gains[0]} and {gains[1]}")

    def scaled(self, size: int) -> CameraNoise:
        """The same camera: its numbers are ratios or belong to a photosite, and hold for pictures of any size."""
        del size
        return self

    def draw(self, generator: torch.Generator) -> CameraParameters:
        """The light and the exposure of one photograph, from its own generator."""
        draws: list[float] = torch.rand(2, generator=generator, device=generator.device, dtype=torch.float64).tolist()
        amplification = math.exp2(self.exposure_spread * (2 * draws[1] - 1))
        return CameraParameters(
            red=self.red[0] + (self.red[1] - self.red[0]) * draws[0],
            blue=self.blue[0] + (self.blue[1] - self.blue[0]) * draws[0],
            gain=self.gain * amplification,
            read_noise=self.read_noise * amplification,
        )

    def apply(self, image: Tensor, parameters: CameraParameters, noise: torch.Generator | Tensor) -> Tensor:
        """The photograph: (3, H, W) in [0, 1], whole 255ths.

        Args:
            image: (3, H, W) in [0, 1], sRGB.
            parameters: from `draw`.
            noise: the image's generator, or the N(0, 1) field of the mosaic itself, (H / scale, W / scale).

        Raises:
            ValueError: another shape, or sides that `scale` does not divide.
        """
        check_one(image, "camera noise")
        white = image.new_tensor([parameters.red, 1.0, parameters.blue])[:, None, None]
        scene = resize_area(to_linear(image.clamp(0, 1))[None], self.scale)[0]
        signal = mosaic(scene / white)
        # The sensor saturates at 1; below its black level it still counts, so shadows are unbiased until rendered.
        sensor = signal_dependent(signal, parameters.gain, parameters.read_noise**2, noise).clamp(max=1)
        rendered = to_srgb((demosaic(sensor) * white).clamp(0, 1))
        large = resize_linear(rendered[None], (image.shape[1], image.shape[2]))[0]
        return large.clamp(0, 1).mul(255).round() / 255


# ---------------------------------------------------------------- tone


def to_linear(image: Tensor) -> Tensor:
    """sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Linear light in [0, 1] to sRGB values in [0, 1]: the inverse of `to_linear`."""
    # The power of what is below the straight part is thrown away; clamped, it stays finite for gradients too.
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


# ---------------------------------------------------------------- mosaic


def _site_masks(height: int, width: int, like: Tensor) -> Tensor:
    masks = like.new_zeros(3, height, width)
    for channel, sites in enumerate(_SITES):
        for row, column in sites:
            masks[channel, row::2, column::2] = 1
    return masks


def mosaic(image: Tensor) -> Tensor:
    """What a GRBG sensor sees of (3, H, W): the one colour of each photosite, (H, W)."""
    return (image * _site_masks(image.shape[1], image.shape[2], image)).sum(0)


def demosaic(sensor: Tensor) -> Tensor:
    """Missing colours of a GRBG mosaic (H, W) as the mean of the nearest photosites that have them: (3, H, W).

    Borders are mirrored about the outermost pixels, which keeps the colours of the mosaic in step.
    """
    height, width = sensor.shape
    if min(height, width) < 2:
        raise ValueError(f"demosaic: expected at least 2 x 2 photosites, got {height} x {width}")
    colours = sensor * _site_masks(height, width, sensor)
    rows = mirror(torch.arange(-1, height + 1, device=sensor.device), height)
    columns = mirror(torch.arange(-1, width + 1, device=sensor.device), width)
    sparse = sensor.new_tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4  # red, blue: one photosite in four
    dense = sensor.new_tensor([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4  # green: every other photosite
    weights = torch.stack([sparse, dense, sparse])[:, None]
    return functional.conv2d(colours[:, rows][:, :, columns][None], weights, groups=3)[0]


MODERATE = CameraNoise(scale=2, gain=0.005, read_noise=0.010)
"""Night mode at a middling sensitivity, for portraits of 128 pixels."""

SEVERE = CameraNoise(scale=2, gain=0.014, read_noise=0.022)
"""Night mode at a high sensitivity, for portraits of 128 pixels."""

STARLIGHT = CameraNoise(scale=2, gain=0.112, read_noise=0.062)
"""Far beyond what the sensor is made for, three stops above `SEVERE`: the noise outweighs the picture's texture."""
