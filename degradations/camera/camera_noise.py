"""A phone's night mode without its denoiser: few photons, a Bayer mosaic, and a plain rendering.

Noise is independent only from one photosite to the next. White balance then makes it stronger in red and blue than in
green, the demosaicing smears it over neighbours, the gamma lifts it in the shadows, and the enlargement turns it into
coloured blotches of several pixels: nothing that a restorer trained on white noise has seen.

Source: DT-BFR Eq. (10)/(12), with simpler parts: the sRGB curve for tone, one light temperature for the illuminant, no
colour matrix, and bilinear demosaicing instead of a network. Differs: the noise figures are no calibrated sensor's.

The recipes `camera-noise-*` are for portraits of 128 pixels, where shrinking by 4 alone costs more (22.1 dB) than the
noise should. Mean PSNR to the clean image on the 186 test portraits, and its range:

    shrunk by 2, no noise     26.3 dB (23.2 to 31.2)
    camera-noise-moderate     24.4 dB (21.8 to 27.5)
    camera-noise-severe       22.0 dB (20.0 to 23.6)
    camera-noise-starlight    15.4 dB (14.5 to 16.6)

`pytest tests/test_camera_noise.py -k decibels` measures them again. For images of 512 pixels take scale 4 or 8, as
the paper does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from degradations.camera.bayer import demosaic, mosaic
from degradations.camera.steps import balance, to_linear, to_tone, unbalance
from degradations.filters import check_one, resize_area, resize_linear
from degradations.noise import signal_dependent


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
        gains = image.new_tensor([parameters.red, 1.0, parameters.blue])
        scene = resize_area(to_linear(image[None].clamp(0, 1), "srgb"), self.scale)
        signal = mosaic(unbalance(scene, gains), "GRBG")[0, 0]
        # The sensor saturates at 1; below its black level it still counts, so shadows are unbiased until rendered.
        sensor = signal_dependent(signal, parameters.gain, parameters.read_noise**2, noise=noise).clamp(max=1)
        light = balance(demosaic(sensor[None, None], "GRBG", "bilinear"), gains).clamp(0, 1)
        large = resize_linear(to_tone(light, "srgb"), (image.shape[1], image.shape[2]))[0]
        return large.clamp(0, 1).mul(255).round() / 255
