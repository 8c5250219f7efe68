"""The simple camera of night mode: against the light it averages and the noise it renders."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import seeded, smooth_image
from torch import Tensor

from adapt.settings import DegradeSettings
from adapt.settings.recipe import load_recipe
from degradations.camera.camera_noise import CameraNoise
from degradations.camera.steps import to_linear, to_tone
from degradations.pieces.camera_noise import CameraNoise as CameraNoiseDegradation


def night_mode(strength: str) -> CameraNoise:
    """The camera of a recipe that ships."""
    (degradation,) = load_recipe(f"camera-noise-{strength}", DegradeSettings).degradations
    assert isinstance(degradation, CameraNoiseDegradation)
    return CameraNoise(**degradation.model_dump(exclude={"name", "probability"}))


SEVERE = night_mode("severe")
SILENT = CameraNoise(scale=1, gain=0.0, read_noise=0.0)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_without_noise_flat_colours_pass(scale: int) -> None:
    """White balance and tone undo themselves. Up to 1 / gain the sensor does not saturate."""
    flat = (torch.tensor([200.0, 120.0, 31.0]) / 255)[:, None, None].expand(3, 16, 24)
    camera = replace(SILENT, scale=scale)
    torch.testing.assert_close(camera.apply(flat, camera.draw(seeded(0)), seeded(0)), flat, rtol=0, atol=1e-6)


def test_the_camera_averages_light_not_values() -> None:
    """A fine black and white grid looks as bright as half the light: 188, not 128."""
    grid = ((torch.arange(16)[:, None] + torch.arange(16)[None, :]) % 2).float().expand(3, 16, 16)
    camera = replace(SILENT, scale=2)
    assert (camera.apply(grid, camera.draw(seeded(0)), seeded(0)) * 255).round().unique().tolist() == [188]


def _rendered_noise(side: int = 256) -> tuple[np.ndarray, float, float]:
    """Noise of a flat grey after demosaicing and white balance, in linear light, and the white-balance gains."""
    camera = CameraNoise(scale=1, gain=0.004, read_noise=0.01)
    light = camera.draw(seeded(2))
    grey = torch.full((3, side, side), 0.7)
    noise = torch.randn(side, side, generator=seeded(3))
    rendered = to_linear(camera.apply(grey, light, noise).double(), "srgb")
    return (rendered - rendered.mean((1, 2), keepdim=True)).numpy(), light.red, light.blue


def test_red_and_blue_are_noisier_than_green_by_their_white_balance() -> None:
    """In units of the sensor the signal of a grey is s / w, so after the gain w a photosite's variance is
    w^2 (gain s / w + read^2). At its own photosites a colour is not interpolated."""
    noise, red, blue = _rendered_noise()
    exposure = CameraNoise(scale=1, gain=0.004, read_noise=0.01).draw(seeded(2))
    signal = float(to_linear(torch.tensor(0.7, dtype=torch.float64), "srgb"))
    sites = {0: (slice(0, None, 2), slice(1, None, 2)), 1: (slice(0, None, 2), slice(0, None, 2))}
    sites[2] = (slice(1, None, 2), slice(0, None, 2))
    for channel, white in ((0, red), (1, 1.0), (2, blue)):
        expected = white**2 * (exposure.gain * signal / white + exposure.read_noise**2)
        found = noise[channel][sites[channel]].var()
        # 16384 photosites: 5.5 % at five sigma; the 8-bit rounding and its tone curve stay well below.
        assert found == pytest.approx(expected, rel=0.06), channel


def test_noise_is_smeared_over_neighbours_and_coloured() -> None:
    """White noise would have no correlation with the next pixel; the tent of the demosaicing has one half and more."""
    noise, _, _ = _rendered_noise()
    for channel, least in ((0, 0.5), (1, 0.2), (2, 0.5)):
        plane = noise[channel]
        assert (plane[:, 1:] * plane[:, :-1]).mean() / plane.var() > least
    chroma = noise[0] - noise[1]
    assert chroma.var() > 0.5 * (noise[0].var() + noise[1].var())  # the channels do not share their noise


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 4},
        {"gain": 0.03},
        {"read_noise": 0.05},
        {"exposure_spread": 1.0},
        {"red": (3.0, 3.0)},
        {"blue": (3.0, 3.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_of_the_camera_changes_the_result(change: dict[str, Any]) -> None:
    image = smooth_image(32, 24)

    def photograph(camera: CameraNoise) -> Tensor:
        generator = seeded(8)
        return camera.apply(image, camera.draw(generator), generator)

    assert torch.equal(photograph(SEVERE), photograph(SEVERE))
    assert not torch.equal(photograph(SEVERE), photograph(replace(SEVERE, **change)))


def test_the_sensor_saturates_before_its_colours_are_interpolated() -> None:
    """One dazzled photosite is worth no more than white to its neighbours, which are dark here."""
    camera = CameraNoise(scale=1, gain=0.01, read_noise=0.0)
    noise = torch.full((8, 8), -2.0)
    noise[4, 4] = 1000.0  # green
    damaged = camera.apply(torch.ones(3, 8, 8), camera.draw(seeded(0)), noise)
    exposure = camera.draw(seeded(0)).gain
    expected = to_tone(torch.tensor((1 + 3 * (1 - 2 * math.sqrt(exposure))) / 4), "srgb")
    assert float(damaged[1, 4, 5]) == pytest.approx(float(expected), abs=0.51 / 255)


def test_exposure_and_light_stay_in_their_ranges() -> None:
    drawn = [SEVERE.draw(seeded(seed)) for seed in range(300)]
    for one in drawn:
        assert 2**-0.25 <= one.gain / SEVERE.gain <= 2**0.25
        assert one.gain / SEVERE.gain == pytest.approx(one.read_noise / SEVERE.read_noise)
        # Warm light has much red, so it needs little gain there and much in blue.
        assert (2.1 - one.red) / 0.7 == pytest.approx((one.blue - 1.5) / 0.9)
    assert max(one.red for one in drawn) > 2.05
    assert min(one.red for one in drawn) < 1.45


def test_camera_says_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"resize_area: .* got 2 for an image of 15 x 16"):
        SEVERE.apply(torch.rand(3, 15, 16), SEVERE.draw(seeded(0)), seeded(0))
    with pytest.raises(ValueError, match=r"camera noise: read_noise must be 0 or more, got -1"):
        replace(SEVERE, read_noise=-1)
    with pytest.raises(ValueError, match=r"camera noise: scale must be 1 or more, got 0"):
        replace(SEVERE, scale=0)
    with pytest.raises(ValueError, match=r"camera noise: blue gains must be 1 or more, got 0.5 and 2"):
        replace(SEVERE, blue=(0.5, 2.0))
    with pytest.raises(ValueError, match=r"camera noise: expected one image of shape \(3, H, W\)"):
        SEVERE.apply(torch.rand(1, 3, 16, 16), SEVERE.draw(seeded(0)), seeded(0))


def test_decibels_of_the_recipes(shared: Path) -> None:
    """The figures in the module's docstring, on every test portrait."""
    from PIL import Image

    files = sorted((shared / "faces" / "test" / "128").rglob("*.jpg"))
    assert files, "no portraits in faces/test/128"
    cameras = {strength: night_mode(strength) for strength in ("moderate", "severe", "starlight")}
    cameras["silent"] = replace(SEVERE, gain=0.0, read_noise=0.0)
    found = dict.fromkeys(cameras, 0.0)
    for index, file in enumerate(files):
        with Image.open(file) as image:
            image = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
        for name, camera in cameras.items():
            generator = seeded(index)
            error = camera.apply(image, camera.draw(generator), generator) - image
            found[name] -= 10 * math.log10(float(error.square().mean())) / len(files)
    assert found == pytest.approx({"silent": 26.3, "moderate": 24.4, "severe": 22.0, "starlight": 15.4}, abs=0.1)
