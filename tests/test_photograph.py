"""Photographs by the camera model, and the degradation of damage that takes them: what they return repeats and undoes it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from cameras import COMPACT, CURVES, PHONE, decibels, quiet, scenes
from images import seeded
from pydantic import ValidationError
from torch import Tensor

from degradations.camera.photograph import (
    Camera,
    Shot,
    develop,
    draw_fields,
    expose,
    finish,
    photograph,
    sensor_offset,
    shot_at,
)
from degradations.camera.profiles import CameraProfile, read_profile
from degradations.camera.steps import quantise, to_linear
from degradations.pieces.camera import CameraDegradation

# ---------------------------------------------------------------- photographs


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("shot", [PHONE, COMPACT], ids=["phone", "compact"])
@pytest.mark.parametrize("curve", CURVES)
def test_without_noise_flat_colours_pass(shot: Shot, scale: int, curve: Any) -> None:
    """Every step undoes its partner. A level of the sensor is a 959th; in shadows the tone curve makes more of it."""
    flat = torch.tensor([0.6, 0.45, 0.4])[:, None, None].expand(1, 3, 9, 14)
    camera = Camera(scale=scale, curve=curve, quantise=False, rounding="round")
    found = photograph(flat, [quiet(shot)], [seeded(0)], camera=camera)
    torch.testing.assert_close(found.images, flat, rtol=0, atol=1.01 / 255)
    assert float(found.offset.abs().max()) == 0
    assert found.raw.shape[2:] == (math.ceil(9 / scale), math.ceil(14 / scale))


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
def test_a_photograph_does_not_depend_on_its_batch(noise: Any) -> None:
    images = scenes(3, 22, 17)
    shots = [PHONE, COMPACT, replace(PHONE, phase="BGGR", row=4.0)]
    camera = Camera(scale=2, noise=noise)

    def taken(chosen: list[int]) -> Tensor:
        picked = [shots[index] for index in chosen]
        return photograph(images[chosen], picked, [seeded(index) for index in chosen], camera=camera).images

    together = taken([0, 1, 2])
    # Products of whole batches may round otherwise: a level at most, and rarely.
    for chosen in ([0], [1], [2], [2, 0]):
        difference = (taken(chosen) - together[chosen]).abs() * 255
        assert float(difference.max()) < 1.01
        assert float(difference.mean()) < 0.01


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
def test_what_a_photograph_returns_repeats_and_undoes_it(noise: Any) -> None:
    images = scenes(2, 20, 16).double()
    shots, camera = [PHONE, COMPACT], Camera(scale=2, noise=noise)
    found = photograph(images, shots, [seeded(0), seeded(1)], camera=camera)
    clean = expose(images, shots, camera)
    white = torch.tensor([shot.white for shot in shots])
    assert torch.equal(quantise(clean + found.offset, white), found.raw)
    assert torch.equal(finish(develop(found.raw, shots, camera), (20, 16), camera), found.images)
    # The sensor's own rounding is all that is left after the noise is taken away, where it did not clip.
    open_range = (found.raw > 0) & (found.raw < white.view(-1, 1, 1, 1))
    assert float(((found.raw - found.offset) - clean)[open_range].abs().max()) <= 0.5 + 1e-9
    if noise == "gaussian":
        generators = [seeded(0), seeded(1)]
        drawn = [draw_fields((10, 8), generator, clean) for generator in generators]
        fields, rows = (torch.stack(each) for each in zip(*drawn, strict=True))
        assert torch.equal(sensor_offset(clean, shots, camera, fields=fields, rows=rows), found.offset)


def test_more_iso_is_more_noise() -> None:
    images = scenes(1, 64, 64)
    profile = read_profile("generic-phone")
    errors = [
        decibels(photograph(images, [shot_at(profile, iso, 0.5)], [seeded(0)], camera=Camera(scale=1)).images, images)
        for iso in (100, 800, 1600, 3200)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] - errors[-1] > 8


def test_gradients_reach_the_image() -> None:
    """Along a direction, as finite differences do: the camera without the steps that round is smooth, piecewise."""
    images = scenes(2, 12, 16).double()
    shots, camera = [PHONE, COMPACT], Camera(scale=2, demosaic="malvar", clip_black=False)
    rows = torch.zeros(2, 1, 6, 1, dtype=torch.float64)
    fields = 0.3 * torch.randn(2, 1, 6, 8, generator=seeded(3), dtype=torch.float64)

    def taken(images: Tensor) -> Tensor:
        clean = expose(images, shots, camera)
        return develop(clean + sensor_offset(clean, shots, camera, fields=fields, rows=rows), shots, camera).sum()

    start = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(taken(start), start)
    step = 1e-6 * torch.randn(images.shape, generator=seeded(4), dtype=torch.float64)
    expected = (taken(images + step) - taken(images - step)) / 2
    torch.testing.assert_close((slope * step).sum(), expected, rtol=1e-4, atol=1e-12)
    whole = images.float().requires_grad_()
    finished = photograph(whole, shots, [seeded(0), seeded(1)], camera=Camera(scale=2)).images
    (passed,) = torch.autograd.grad(finished.sum(), whole)
    assert bool(passed.isfinite().all())
    assert float(passed.abs().mean()) > 0.01


def test_a_camera_shrinks_light_not_values() -> None:
    """A fine black and white grid looks as bright as half the light: 0.5^(1 / 2.2) is 186 of 255, not 128."""
    grid = ((torch.arange(16)[:, None] + torch.arange(16)[None, :]) % 2).float().expand(1, 3, 16, 16)
    camera = Camera(scale=2, quantise=False, rounding="round")
    found = photograph(grid, [quiet(PHONE)], [seeded(0)], camera=camera).images
    assert (found * 255).round().unique().tolist() == [186]


def test_shadows_are_less_biased_where_black_is_not_clipped() -> None:
    """Noise below black, cut off, leaves light where there was none; otherwise the neighbours' mean cancels some."""
    dark = torch.full((1, 3, 128, 128), 0.1)
    bias: dict[bool, float] = {}
    for clip in (True, False):
        camera = Camera(scale=1, clip_black=clip, demosaic="bilinear")
        raw = photograph(dark, [PHONE], [seeded(0)], camera=camera).raw
        bias[clip] = float((to_linear(develop(raw, [PHONE], camera)) - to_linear(dark)).mean())
    assert 0 < bias[False] < 0.95 * bias[True]


def test_photographs_say_what_they_refuse() -> None:
    images = scenes(2, 8, 8)
    with pytest.raises(ValueError, match=r"camera: expected a shot for each of 2 images, got 1"):
        expose(images, [PHONE], Camera(scale=2))
    with pytest.raises(ValueError, match=r"camera: expected a generator for each of 2 images, got 1"):
        photograph(images, [PHONE, PHONE], [seeded(0)], camera=Camera(scale=2))
    with pytest.raises(ValueError, match=r"camera: expected a batch of shape \(B, 3, H, W\)"):
        photograph(images[0], [PHONE], [seeded(0)], camera=Camera(scale=2))
    with pytest.raises(ValueError, match=r"camera: scale must be 1 or more, got 0"):
        Camera(scale=0)


# ---------------------------------------------------------------- the degradation


def degradation(**settings: Any) -> CameraDegradation:
    return CameraDegradation.model_validate({"name": "camera", "iso": [1500, 1700], "scale": 2} | settings)


def test_the_degradation_repeats_itself_from_what_it_logged() -> None:
    image = scenes(1, 30, 25)[0]
    parameters = degradation().draw(seeded(5), (30, 25))
    assert json.loads(json.dumps(parameters)) == parameters
    assert 1500 <= parameters["iso"] <= 1700
    taken = degradation().apply(image, parameters)
    assert taken.shape == image.shape
    assert torch.equal(degradation().apply(image, json.loads(json.dumps({"name": "camera", **parameters}))), taken)
    assert not torch.equal(degradation().apply(image, parameters | {"seed": parameters["seed"] + 1}), taken)


@pytest.mark.parametrize(
    "setting",
    [
        {"profile": "generic-compact", "iso": [300, 400]},
        {"iso": [3000, 3200]},
        {"scale": 3},
        {"curve": "srgb"},
        {"curve": "smoothstep"},
        {"demosaic": "malvar"},
        {"demosaic": "hamilton-adams"},
        {"demosaic": "bilinear"},
        {"noise": "poisson"},
        {"quantise": False},
        {"clip_black": False},
        {"rounding": "round"},
    ],
    ids=str,
)
def test_every_setting_of_the_degradation_changes_the_result(setting: dict[str, Any]) -> None:
    image = scenes(1, 32, 24)[0] ** 3  # with shadows

    def taken(**settings: Any) -> Tensor:
        chosen = degradation(**settings)
        return chosen.apply(image, chosen.draw(seeded(5), (32, 24)))

    default = setting == {"demosaic": degradation().demosaic}
    assert not torch.equal(taken(demosaic="malvar") if default else taken(), taken(**setting))


def test_the_degradation_keeps_its_sensor_as_images_get_smaller() -> None:
    assert [degradation(scale=4).scaled(factor).scale for factor in (1.0, 0.5, 0.25, 0.1)] == [4, 2, 1, 1]
    assert degradation(scale=8).scaled(0.25).scale == 2


def test_the_degradation_refuses_what_its_camera_does_not_know() -> None:
    with pytest.raises(ValidationError, match=r"knows the noise from ISO 100 to 3200, not at 6400"):
        degradation(iso=[3200, 6400])
    with pytest.raises(ValidationError, match=r"no camera profile 'nokia'"):
        degradation(profile="nokia")
    with pytest.raises(ValidationError, match=r"scale"):
        degradation(scale=0)


def test_a_shot_is_plain_numbers() -> None:
    assert json.loads(json.dumps(asdict(PHONE)))["matrix"] == [list(row) for row in PHONE.matrix]
    assert isinstance(read_profile("generic-phone"), CameraProfile)
