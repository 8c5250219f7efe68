"""The camera model: against the public pipeline's arrays, plain loops, published formulas, and its own inverses."""

from __future__ import annotations

import itertools
import json
import math
import runpy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import ROOT
from pydantic import ValidationError
from reference import Reference
from torch import Tensor

from degradations.bayer import Demosaic, demosaic, mosaic, per_site, spread
from degradations.camera import (
    Curve,
    balance,
    from_camera,
    from_dn,
    gaussian_offset,
    poisson_offset,
    quantise,
    row_offset,
    to_camera,
    to_dn,
    to_linear,
    to_tone,
    unbalance,
)
from degradations.camera_piece import CameraPiece
from degradations.filters import enlarge_linear, resize_area, resize_linear
from degradations.photograph import (
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
from degradations.profiles import CameraProfile, NoiseLevel, Phase, profile_names, read_profile, write_profile

PHASES, METHODS, CURVES = get_args(Phase), get_args(Demosaic), get_args(Curve)
SITES = tuple(itertools.product((0, 1), (0, 1)))
PUBLIC_NOISE = "noise_hg-s22u-s908u-na-b0q-pr-t2-id35248-v7.json"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_pictures(count: int, height: int, width: int) -> Tensor:
    """Edges and shades in [0.05, 0.95]: white noise, enlarged."""
    coarse = torch.rand(count, 3, max(2, height // 6), max(2, width // 6), generator=seeded(0))
    return 0.05 + 0.9 * resize_linear(coarse, (height, width))


def quiet(shot: Shot) -> Shot:
    return replace(shot, beta1=(0.0,) * 4, beta2=(0.0,) * 4, row=0.0)


PHONE = shot_at(read_profile("generic-phone"), 1600, 0.4)
COMPACT = shot_at(read_profile("generic-compact"), 200, 0.8)


# ---------------------------------------------------------------- the public pipeline, stage by stage


class Stages:
    """The public pipeline's arrays as (1, C, H, W) batches, and its numbers."""

    def __init__(self, reference: Reference) -> None:
        self.arrays = reference.arrays("raw_pipeline")
        self.matrix = torch.from_numpy(self.arrays["ccm"])
        self.inverted = self.matrix / self.matrix.sum(1, keepdim=True)  # on the way in its rows are first scaled
        self.gains = torch.from_numpy(1 / self.arrays["illum"])

    def batch(self, name: str) -> Tensor:
        array = torch.from_numpy(self.arrays[name])
        return array.permute(2, 0, 1)[None] if array.ndim == 3 else array[None, None]

    def levels(self) -> tuple[Tensor, Tensor]:
        """beta1 and beta2 of each site, by least squares from the pipeline's own noise: it keeps no other record."""
        signal = self.arrays["raw_clean"].astype(np.float64) - 64
        drawn = self.arrays["z"].astype(np.float64)
        noise = self.arrays["raw_noisy"].astype(np.float64) - self.arrays["raw_clean"]
        found: list[np.ndarray] = []
        for row, column in SITES:
            site = (slice(row, None, 2), slice(column, None, 2))
            telling = np.abs(drawn[site]) > 0.3  # the rest is mostly rounding
            variance = (noise[site][telling] / drawn[site][telling]) ** 2
            system = np.stack([signal[site][telling], np.ones(variance.size)], 1)
            found.append(np.linalg.lstsq(system, variance, rcond=None)[0])
        beta1, beta2 = torch.tensor(np.array(found)).T
        return beta1, beta2

    def shot(self) -> Shot:
        beta1, beta2 = self.levels()
        numbers = {
            "beta1": tuple(beta1.tolist()),
            "beta2": tuple(beta2.tolist()),
            "red": float(self.gains[0]),
            "blue": float(self.gains[2]),
            "matrix": tuple(map(tuple, self.inverted.tolist())),
        }
        return replace(PHONE, phase="GRBG", black=64.0, white=1023.0, **numbers)


@pytest.fixture
def stages(reference: Reference) -> Stages:
    return Stages(reference)


def test_stages_up_to_the_mosaic_are_those_of_the_public_pipeline(stages: Stages) -> None:
    """float32 arrays in [0, 1]: 1e-6 is some of their last bits. DN are 959 times as large."""
    clean = stages.batch("hq_rgb_u8").float() / 255
    linear = unbalance(to_camera(to_linear(clean), stages.inverted), stages.gains)
    torch.testing.assert_close(linear, stages.batch("linear_raw_no_wb_rgb"), rtol=0, atol=1e-6)
    small = resize_area(linear, 2).clamp(0, 1)
    torch.testing.assert_close(small, stages.batch("lr_rgb"), rtol=0, atol=1e-6)
    raw = to_dn(mosaic(small, "GRBG"), 64, 1023)
    torch.testing.assert_close(raw, stages.batch("raw_clean"), rtol=0, atol=1e-3)


def test_noise_is_that_of_the_public_pipeline(stages: Stages) -> None:
    """Their one draw, with two numbers for each of the four sites: a DN of noise is met to a few 1e-5 of itself."""
    beta1, beta2 = stages.levels()
    clean, drawn = stages.batch("raw_clean").double(), stages.batch("z").double()
    noisy = (clean + gaussian_offset(clean - 64, beta1, beta2, field=drawn)).clamp(0, 1023)
    torch.testing.assert_close(noisy, stages.batch("raw_noisy").double(), rtol=0, atol=2e-3)


def test_noise_table_of_the_public_code_says_what_its_noise_is(stages: Stages, reference: Reference) -> None:
    """ISO 1500 is between two rows of the table. There beta1 is linear in both; ours is quadratic in beta2, theirs a
    cubic spline, which is 3 % more."""
    level = read_profile(reference.root / "data" / PUBLIC_NOISE).at_iso(1500)
    beta1, beta2 = stages.levels()
    np.testing.assert_allclose(level.beta1, beta1.numpy(), rtol=1e-4)
    np.testing.assert_allclose(level.beta2, beta2.numpy(), rtol=0.05)


def test_stages_after_the_noise_are_those_of_the_public_pipeline(stages: Stages) -> None:
    """All but its learned demosaicing, from whose picture the rendering starts."""
    seen = spread(from_dn(stages.batch("raw_noisy"), 64, 1023).clamp(0, 1), "GRBG")
    torch.testing.assert_close(seen, stages.batch("mosaic_rgb_01"), rtol=0, atol=1e-6)
    balanced = balance(stages.batch("demosaic_rgb"), stages.gains).clamp(0, 1)
    rendered = to_tone(from_camera(balanced, stages.matrix).clamp(0, 1))
    torch.testing.assert_close(rendered, stages.batch("rendered_rgb"), rtol=0, atol=2e-6)
    final = finish(rendered, (64, 64), Camera(scale=2)) * 255
    difference = (final - stages.batch("final_rgb_u8")).abs()
    assert float(difference.max()) < 1.01  # truncation: a last bit can be a level
    assert float((difference > 0.5).double().mean()) < 1e-3


def test_the_halves_of_the_camera_are_the_public_pipeline_in_a_row(stages: Stages) -> None:
    shot, camera = stages.shot(), Camera(scale=2)
    clean = expose(stages.batch("hq_rgb_u8").double() / 255, [shot], camera)
    torch.testing.assert_close(clean, stages.batch("raw_clean").double(), rtol=0, atol=1e-3)
    offset = sensor_offset(clean, [shot], camera, fields=stages.batch("z").double(), rows=clean[..., :1] * 0)
    torch.testing.assert_close(clean + offset, stages.batch("raw_noisy").double(), rtol=0, atol=5e-3)


def test_the_default_demosaicing_is_the_nearest_to_the_public_network(stages: Stages) -> None:
    """In camera RGB under their noise: 32.3 dB, where their network is 30.1 dB from the clean picture."""
    noisy, theirs = stages.batch("raw_noisy").double(), stages.batch("demosaic_rgb").double()
    gains = torch.tensor([[1.0, float(stages.gains[0]), float(stages.gains[2]), 1.0]], dtype=torch.float64)
    balanced = from_dn(noisy, 64, 1023).clamp(0, 1) * per_site(gains, (32, 32))
    found = {
        method: decibels(unbalance(demosaic(balanced, "GRBG", method), stages.gains), theirs)
        for method in METHODS
    }
    assert max(found, key=lambda method: found[method]) == Camera().demosaic
    assert found[Camera().demosaic] > decibels(theirs, stages.batch("lr_rgb").double()) + 2


def decibels(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a - b).square().mean()))


# ---------------------------------------------------------------- tone


@pytest.mark.parametrize("curve", CURVES)
def test_tone_and_light_undo_each_other(curve: Any) -> None:
    tone = torch.linspace(0, 1, 1001, dtype=torch.float64)
    # The two halves of the sRGB standard's own curve miss each other by 3e-8.
    torch.testing.assert_close(to_tone(to_linear(tone, curve), curve), tone, rtol=0, atol=1e-7)
    light = to_linear(tone, curve)
    assert bool((light.diff() >= 0).all())
    assert light[[0, -1]].tolist() == [0, 1]


def test_tone_curves_are_the_published_ones() -> None:
    grey, light = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    assert float(to_linear(grey, "gamma")) == pytest.approx(math.exp(2.2 * math.log(0.5)), abs=1e-12)
    assert float(to_linear(grey, "srgb")) == pytest.approx(0.21404114, abs=1e-8)
    root = 0.3 ** (1 / 2.2)
    assert float(to_tone(light, "smoothstep")) == pytest.approx(3 * root**2 - 2 * root**3, abs=1e-12)
    with pytest.raises(ValueError, match=r"tone curve: expected gamma, srgb or smoothstep, got 'log'"):
        to_linear(grey, "log")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"tone curve: expected gamma, srgb or smoothstep, got 'log'"):
        to_tone(grey, "log")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("curve", CURVES)
def test_gradients_of_tone_are_right_inside_and_finite_at_the_ends(curve: Any) -> None:
    inside = torch.linspace(0.05, 0.95, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: to_tone(x, curve), inside)
    assert torch.autograd.gradcheck(lambda x: to_linear(x, curve), inside)
    ends = torch.tensor([-0.1, 0.0, 1e-30, 1.0, 1.2], requires_grad=True)
    for function in (to_tone, to_linear):
        (slope,) = torch.autograd.grad(function(ends, curve).sum(), ends)
        assert bool(slope.isfinite().all()), function


# ---------------------------------------------------------------- colour


def test_colour_matrix_and_gains_are_those_of_each_image(gen: torch.Generator) -> None:
    images = torch.rand(2, 3, 3, 5, generator=gen, dtype=torch.float64)
    matrices = torch.rand(2, 3, 3, generator=gen, dtype=torch.float64) + 2 * torch.eye(3, dtype=torch.float64)
    gains = torch.tensor([[2.0, 1.0, 1.5], [1.2, 1.0, 2.4]], dtype=torch.float64)
    for index in range(2):
        pixels = images[index].reshape(3, -1).numpy()
        expected = (matrices[index].numpy() @ pixels).reshape(3, 3, 5)
        np.testing.assert_allclose(from_camera(images, matrices)[index].numpy(), expected, rtol=1e-13)
        np.testing.assert_allclose(from_camera(images, matrices[index])[index].numpy(), expected, rtol=1e-13)
        balanced = (pixels.T * gains[index].numpy()).T.reshape(3, 3, 5)
        np.testing.assert_allclose(balance(images, gains)[index].numpy(), balanced, rtol=1e-13)
    torch.testing.assert_close(from_camera(to_camera(images, matrices), matrices), images, rtol=0, atol=1e-13)
    torch.testing.assert_close(unbalance(balance(images, gains), gains), images, rtol=0, atol=1e-15)


def test_white_stays_white() -> None:
    for profile in map(read_profile, profile_names()):
        for place in (0.0, 0.3, 0.55, 1.0):
            matrix = torch.tensor(profile.light_at(place).matrix, dtype=torch.float64)
            white = torch.full((1, 3, 1, 1), 0.7, dtype=torch.float64)
            torch.testing.assert_close(from_camera(white, matrix), white, rtol=0, atol=1e-3)


# ---------------------------------------------------------------- digital numbers


def test_levels_are_those_of_each_image_and_undone() -> None:
    signal = torch.tensor([0.0, 0.5, 1.0, -0.1], dtype=torch.float64).expand(2, 1, 1, 4)
    black, white = torch.tensor([64.0, 32.0]), torch.tensor([1023.0, 4095.0])
    dn = to_dn(signal, black, white)
    assert dn[:, 0, 0, :3].tolist() == [[64, 543.5, 1023], [32, 2063.5, 4095]]
    torch.testing.assert_close(from_dn(dn, black, white), signal, rtol=0, atol=1e-14)
    torch.testing.assert_close(to_dn(signal, 64, 1023.0)[0], dn[0], rtol=0, atol=0)


def test_whole_numbers_let_gradients_pass_but_not_through_clipping() -> None:
    dn = torch.tensor([[-3.2, 0.4, 0.6, 1022.7, 1024.0]], requires_grad=True)
    whole = quantise(dn, 1023)
    assert whole.tolist() == [[0, 0, 1, 1023, 1023]]
    (slope,) = torch.autograd.grad(whole.sum(), dn)
    assert slope.tolist() == [[0, 1, 1, 1, 0]]
    assert quantise(torch.tensor([[5000.0], [5000.0]]), torch.tensor([1023.0, 4095.0])).tolist() == [[1023], [4095]]


# ---------------------------------------------------------------- mosaic


@pytest.mark.parametrize("phase", PHASES)
def test_mosaic_sees_the_colour_its_name_says(phase: Any, gen: torch.Generator) -> None:
    images = torch.rand(2, 3, 5, 7, generator=gen)
    seen = mosaic(images, phase)
    for image, y, x in itertools.product(range(2), range(5), range(7)):
        channel = "RGB".index(phase[2 * (y % 2) + x % 2])
        assert seen[image, 0, y, x] == images[image, channel, y, x]


@pytest.mark.parametrize("phase", PHASES)
def test_spread_is_the_adjoint_of_mosaic(phase: Any, gen: torch.Generator) -> None:
    images = torch.rand(2, 3, 5, 7, generator=gen, dtype=torch.float64)
    raw = torch.rand(2, 1, 5, 7, generator=gen, dtype=torch.float64)
    left, right = (mosaic(images, phase) * raw).sum(), (images * spread(raw, phase)).sum()
    torch.testing.assert_close(left, right, rtol=1e-13, atol=0)
    assert torch.equal(mosaic(spread(raw, phase), phase), raw)


@pytest.mark.parametrize("method", METHODS)
def test_every_image_has_its_own_phase(method: Any, gen: torch.Generator) -> None:
    images = torch.rand(4, 3, 6, 5, generator=gen)
    phases: Any = list(PHASES)
    raw = mosaic(images, phases)
    pictures = demosaic(raw, phases, method)
    for index, phase in enumerate(phases):
        assert torch.equal(raw[index], mosaic(images[index : index + 1], phase)[0])
        assert torch.equal(pictures[index], demosaic(raw[index : index + 1], phase, method)[0])


# ---------------------------------------------------------------- demosaic


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("height", "width"), [(8, 10), (7, 9), (2, 3)])
def test_demosaic_keeps_flat_colours_and_inside_slopes(phase: Any, method: Any, height: int, width: int) -> None:
    flat = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)[:, None, None].expand(1, 3, height, width)
    torch.testing.assert_close(demosaic(mosaic(flat, phase), phase, method), flat, rtol=0, atol=1e-12)
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    slope = torch.stack([0.1 * x + 0.2 * y, 0.3 * x - 0.1 * y, -0.2 * x + 0.05 * y])[None]
    reach = 1 if method == "bilinear" else 3
    inside = (slice(None), slice(None), slice(reach, -reach), slice(reach, -reach))
    found = demosaic(mosaic(slope, phase), phase, method)
    torch.testing.assert_close(found[inside], slope[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("phase", PHASES)
def test_demosaic_leaves_what_was_seen(phase: Any, method: Any, gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 7, 8, generator=gen, dtype=torch.float64)
    torch.testing.assert_close(mosaic(demosaic(raw, phase, method), phase), raw, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_phases_are_one_filter_at_four_places(method: Any, gen: torch.Generator) -> None:
    """A mosaic without its first column or row is one of another phase; away from the border nothing else changes."""
    raw = torch.rand(1, 1, 13, 14, generator=gen, dtype=torch.float64)
    whole = demosaic(raw, "RGGB", method)
    others: list[tuple[Phase, int, int]] = [("GRBG", 0, 1), ("GBRG", 1, 0), ("BGGR", 1, 1)]
    for phase, down, right in others:
        part = demosaic(raw[:, :, down:, right:], phase, method)
        torch.testing.assert_close(
            part[:, :, 4:-4, 4:-4], whole[:, :, down:, right:][:, :, 4:-4, 4:-4], rtol=0, atol=1e-14
        )


def test_bilinear_is_the_mean_of_the_nearest(gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 6, 8, generator=gen, dtype=torch.float64)
    picture, seen = demosaic(raw, "RGGB", "bilinear")[0], raw[0, 0]
    assert float(picture[1, 2, 4]) == pytest.approx(float(seen[1, 4] + seen[3, 4] + seen[2, 3] + seen[2, 5]) / 4)
    assert float(picture[2, 2, 4]) == pytest.approx(float(seen[1, 3] + seen[1, 5] + seen[3, 3] + seen[3, 5]) / 4)
    assert float(picture[0, 2, 3]) == pytest.approx(float(seen[2, 2] + seen[2, 4]) / 2)
    assert float(picture[2, 2, 3]) == pytest.approx(float(seen[1, 3] + seen[3, 3]) / 2)


@pytest.mark.parametrize("phase", PHASES)
def test_bilinear_is_that_of_libraw(phase: Any, gen: torch.Generator) -> None:
    """But for the border, which it fills otherwise. It truncates to 16 bits, and reads the phase from the file."""
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "demosaic.py"))
    raw = torch.rand(1, 1, 48, 64, generator=gen)
    theirs = benchmark["by_libraw"](raw, phase, "LINEAR")
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(demosaic(raw, phase, "bilinear")[inside], theirs[inside], rtol=0, atol=4 / 65535)


# Malvar, He and Cutler 2004, Fig. 2, in sixteenths: green at red, red at green in a row of reds, red at blue.
PUBLISHED = {
    "green at red": ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0)),
    "red at green": ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0)),
    "red at blue": ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0)),
}


def test_malvar_has_the_published_filters(gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 11, 13, generator=gen, dtype=torch.float64)
    found = demosaic(raw, "RGGB", "malvar")[0]
    padded = np.pad(raw[0, 0].numpy(), 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    by_filter = {name: (windows * np.array(taps)).sum((2, 3)) / 16 for name, taps in PUBLISHED.items()}
    turned = (windows * np.array(PUBLISHED["red at green"]).T).sum((2, 3)) / 16
    red, blue = (slice(0, None, 2), slice(0, None, 2)), (slice(1, None, 2), slice(1, None, 2))
    beside_red, below_red = (slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))
    for channel, site, expected in (
        (1, red, by_filter["green at red"]),
        (1, blue, by_filter["green at red"]),
        (0, beside_red, by_filter["red at green"]),
        (2, below_red, by_filter["red at green"]),
        (0, below_red, turned),
        (2, beside_red, turned),
        (0, blue, by_filter["red at blue"]),
        (2, red, by_filter["red at blue"]),
    ):
        np.testing.assert_allclose(found[channel].numpy()[site], expected[site], rtol=0, atol=1e-14)


@pytest.mark.parametrize("turned", [False, True])
def test_hamilton_adams_follows_an_edge(turned: bool) -> None:
    """A grey edge along the columns, or the rows: exact, where the others smear it."""
    edge = torch.where(torch.arange(12) < 5, 0.2, 0.8).double().expand(1, 3, 12, 12)
    edge = edge.transpose(2, 3) if turned else edge
    raw = mosaic(edge, "GRBG")
    torch.testing.assert_close(demosaic(raw, "GRBG", "hamilton-adams"), edge, rtol=0, atol=1e-12)
    assert float((demosaic(raw, "GRBG", "malvar") - edge).abs().max()) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_gradients_flow_through_the_demosaicing(method: Any, gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 5, 4, generator=gen, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: demosaic(x, "GBRG", method), raw)


def test_bayer_says_what_it_refuses() -> None:
    raw, picture = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"Bayer phase: expected RGGB, GRBG, GBRG or BGGR, got 'RGBG'"):
        mosaic(picture, "RGBG")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Bayer phase: expected one for each of 2 images, got 1"):
        demosaic(raw, ["RGGB"])
    with pytest.raises(ValueError, match=r"demosaic: .* mosaics of shape \(B, 1, H, W\), got \(2, 3, 4, 4\)"):
        demosaic(picture, "RGGB")
    with pytest.raises(ValueError, match=r"spread: expected floating values, got torch.int64"):
        spread(raw.long(), "RGGB")
    with pytest.raises(ValueError, match=r"mosaic: expected a batch of shape \(B, 3, H, W\), got \(2, 1, 4, 4\)"):
        mosaic(raw, "RGGB")
    with pytest.raises(ValueError, match=r"demosaic: expected at least 2 x 2 photosites, got 1 x 4"):
        demosaic(raw[:, :, :1], "RGGB")
    with pytest.raises(ValueError, match=r"method bilinear, malvar or hamilton-adams, got 'ahd'"):
        demosaic(raw, "RGGB", "ahd")  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- noise

SIDE = 400
BETA1 = torch.tensor([[0.5, 2.0, 0.0, 8.0]], dtype=torch.float64)
BETA2 = torch.tensor([[0.0, 9.0, 4.0, 100.0]], dtype=torch.float64)
WITHIN = 5 * math.sqrt(2 / (SIDE / 2) ** 2)  # five sigma, of a variance from one site's samples
WITHIN_COUNTS = 2 * WITHIN  # counts have heavier tails where there are few


def flat_noise(signal: float, model: str) -> Tensor:
    flat = torch.full((1, 1, SIDE, SIDE), signal, dtype=torch.float64)
    field = torch.randn(flat.shape, generator=seeded(1), dtype=torch.float64)
    if model == "gaussian":
        return gaussian_offset(flat, BETA1, BETA2, field=field)
    return poisson_offset(flat, BETA1, BETA2, field=field, generators=[seeded(2)])


@pytest.mark.parametrize("model", ["gaussian", "poisson"])
@pytest.mark.parametrize("signal", [0.0, 3.0, 250.0, -20.0])
def test_noise_of_each_site_has_the_variance_of_its_formula(model: str, signal: float) -> None:
    noise = flat_noise(signal, model)
    for site, (row, column) in enumerate(SITES):
        found = noise[0, 0, row::2, column::2]
        variance = float(BETA1[0, site]) * max(signal, 0) + float(BETA2[0, site])
        assert float(found.var()) == pytest.approx(variance, rel=WITHIN if model == "gaussian" else WITHIN_COUNTS)
        assert abs(float(found.mean())) <= 5 * math.sqrt(variance / found.numel())


def test_photons_are_counted_and_skew_the_noise() -> None:
    """In photon noise the third moment is beta1^2 times the signal; a Gaussian has none."""
    signal = 3.0
    noise = flat_noise(signal, "poisson")[0, 0, ::2, ::2]  # beta1 0.5, no read noise
    electrons = (noise + signal) / 0.5
    torch.testing.assert_close(electrons, electrons.round(), rtol=0, atol=1e-9)
    assert float((noise**3).mean()) == pytest.approx(0.25 * signal, rel=0.2)
    assert abs(float((flat_noise(signal, "gaussian")[0, 0, ::2, ::2] ** 3).mean())) < 0.1


def test_rows_share_their_offset() -> None:
    field = torch.randn(2, 1, 4000, 1, generator=seeded(0), dtype=torch.float64)
    rows = row_offset(torch.tensor([3.0, 0.0], dtype=torch.float64), field)
    assert rows.shape == (2, 1, 4000, 1)
    assert float(rows[0].std()) == pytest.approx(3, rel=5 / math.sqrt(2 * 4000))
    assert float(rows[1].abs().max()) == 0
    shots = [replace(quiet(PHONE), row=2.0)]
    clean = torch.full((1, 1, 6, 5), 200.0)
    offset = sensor_offset(clean, shots, Camera(), fields=torch.zeros(1, 1, 6, 5), rows=field[:1, :, :6].float())
    assert torch.equal(offset, (2 * field[:1, :, :6].float()).expand(1, 1, 6, 5))


def test_gradients_of_noise_are_right_and_finite_in_the_dark() -> None:
    field = torch.randn(1, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    signal = torch.rand(1, 1, 4, 4, generator=seeded(1), dtype=torch.float64) * 50 + 1
    levels = (torch.rand(1, 4, generator=seeded(2), dtype=torch.float64) + 0.5 for _ in range(2))
    inputs = [value.requires_grad_() for value in (signal, *levels)]
    assert torch.autograd.gradcheck(lambda s, a, b: gaussian_offset(s, a, b, field=field), inputs)
    dark = torch.zeros(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    none = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    offset = gaussian_offset(dark, none + 1, none, field=field)
    assert float(offset.detach().abs().max()) == 0
    assert all(bool(slope.isfinite().all()) for slope in torch.autograd.grad(offset.sum(), [dark, none]))


def test_noise_says_what_it_refuses() -> None:
    signal, betas = torch.ones(2, 1, 4, 4), torch.ones(4)
    with pytest.raises(ValueError, match=r"noise field: expected shape \(2, 1, 4, 4\), got \(1, 1, 4, 4\)"):
        gaussian_offset(signal, betas, betas, field=signal[:1])
    with pytest.raises(ValueError, match=r"noise field: expected shape \(2, 1, 4, 4\), got \(1, 1, 4, 4\)"):
        poisson_offset(signal, betas, betas, field=signal[:1], generators=[seeded(0), seeded(1)])
    with pytest.raises(ValueError, match=r"photon noise: expected a generator for each of 2 images, got 1"):
        poisson_offset(signal, betas, betas, field=signal, generators=[seeded(0)])
    camera = Camera(noise="uniform")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"expected the noise model gaussian or poisson, got 'uniform'"):
        sensor_offset(signal, [PHONE, PHONE], camera, fields=signal, rows=signal[..., :1])


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
    images = smooth_pictures(3, 22, 17)
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
    images = smooth_pictures(2, 20, 16).double()
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
    images = smooth_pictures(1, 64, 64)
    profile = read_profile("generic-phone")
    errors = [
        decibels(photograph(images, [shot_at(profile, iso, 0.5)], [seeded(0)], camera=Camera(scale=1)).images, images)
        for iso in (100, 800, 1600, 3200)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] - errors[-1] > 8


def test_gradients_reach_the_picture() -> None:
    """Along a direction, as finite differences do: the camera without the steps that round is smooth, piecewise."""
    images = smooth_pictures(2, 12, 16).double()
    shots, camera = [PHONE, COMPACT], Camera(scale=2, demosaic="malvar", clip_black=False)
    rows = torch.zeros(2, 1, 6, 1, dtype=torch.float64)
    fields = 0.3 * torch.randn(2, 1, 6, 8, generator=seeded(3), dtype=torch.float64)

    def taken(pictures: Tensor) -> Tensor:
        clean = expose(pictures, shots, camera)
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


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_enlarging_by_a_whole_factor_is_bilinear(factor: int, gen: torch.Generator) -> None:
    images = torch.rand(2, 3, 5, 7, generator=gen, dtype=torch.float64)
    expected = resize_linear(images, (5 * factor, 7 * factor))
    torch.testing.assert_close(enlarge_linear(images, factor), expected, rtol=0, atol=1e-14)
    dot = images[:, :, :1, :1]
    torch.testing.assert_close(enlarge_linear(dot, factor), dot.expand(2, 3, factor, factor), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"enlarge_linear: expected a factor of 1 or more, got 0"):
        enlarge_linear(images, 0)


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
    images = smooth_pictures(2, 8, 8)
    with pytest.raises(ValueError, match=r"camera: expected a shot for each of 2 images, got 1"):
        expose(images, [PHONE], Camera(scale=2))
    with pytest.raises(ValueError, match=r"camera: expected a generator for each of 2 images, got 1"):
        photograph(images, [PHONE, PHONE], [seeded(0)], camera=Camera(scale=2))
    with pytest.raises(ValueError, match=r"camera: expected a batch of shape \(B, 3, H, W\)"):
        photograph(images[0], [PHONE], [seeded(0)], camera=Camera(scale=2))
    with pytest.raises(ValueError, match=r"camera: scale must be 1 or more, got 0"):
        Camera(scale=0)


# ---------------------------------------------------------------- profiles


def test_shipped_profiles_know_the_isos_they_are_for() -> None:
    assert profile_names() == ["generic-compact", "generic-phone"]
    phone = read_profile("generic-phone")
    assert {800.0, 1600.0, 3200.0} <= {level.iso for level in phone.levels}
    for profile in map(read_profile, profile_names()):
        noise = [level.beta1[0] * 100 + level.beta2[0] for level in profile.levels]
        assert noise == sorted(noise)


def test_generic_phone_follows_the_rules_of_its_source() -> None:
    for level in read_profile("generic-phone").levels:
        assert level.beta1 == pytest.approx([level.iso / 250] * 4)
        assert level.beta2 == pytest.approx([round((level.iso / 150) ** 2 + 0.56)] * 4)


def test_noise_between_two_isos_is_that_of_an_amplifier() -> None:
    """Read noise before an amplifier of gain g and after it: (g a)^2 + b^2; photon noise: g; rows: g too."""

    def level(iso: float) -> NoiseLevel:
        gain = iso / 100
        shot, dark = 0.3 * gain, (1.7 * gain) ** 2 + 0.9**2
        return NoiseLevel(iso=iso, beta1=(shot, shot, shot, shot), beta2=(dark, dark, dark, dark), row=0.2 * gain)

    phone = read_profile("generic-phone")
    profile = phone.model_copy(update={"levels": (level(100), level(400), level(3200))})
    for iso in (100, 230, 400, 1600, 3200):
        found, expected = profile.at_iso(iso), level(iso)
        np.testing.assert_allclose(found.beta1, expected.beta1, rtol=1e-12)
        np.testing.assert_allclose(found.beta2, expected.beta2, rtol=1e-12)
        assert found.row == pytest.approx(expected.row)
    with pytest.raises(ValueError, match=r"generic-phone: knows the noise from ISO 100 to 3200, not at 3201"):
        profile.at_iso(3201)


def test_light_goes_from_the_first_to_the_last() -> None:
    profile = read_profile("generic-phone")
    first, last = profile.lights[0], profile.lights[-1]
    assert profile.light_at(0) == first
    assert profile.light_at(1) == last
    between = profile.light_at(0.3)  # half way from the second to the third of six
    assert between.red == pytest.approx((profile.lights[1].red + profile.lights[2].red) / 2)
    with pytest.raises(ValueError, match=r"place of a light from 0 to 1, got 1.1"):
        profile.light_at(1.1)


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    for name in profile_names():
        write_profile(tmp_path / "mine.json", read_profile(name))
        assert read_profile(tmp_path / "mine.json") == read_profile(name)


def test_a_profile_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full after half of the text leaves the profile that was there, and nothing else."""
    known, other = (read_profile(name) for name in profile_names()[:2])
    write_profile(tmp_path / "mine.json", known)

    def half(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text.encode(encoding)[: len(text) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space"):
        write_profile(tmp_path / "mine.json", other)
    assert read_profile(tmp_path / "mine.json") == known
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("kind", ["numpy", "folder", "json"])
def test_tables_of_the_public_code_lose_their_black_level(kind: str, tmp_path: Path) -> None:
    """Rows of ISO, site, beta1, beta2, where the variance counts the signal with the black level, 64."""
    table = [[iso, site, iso / 100 + site, -60.0 * (iso / 100 + site)] for iso in (50, 200) for site in range(4)]
    path = tmp_path / "sensor"
    path.mkdir()
    if kind == "json":
        path = path / "table.json"
        path.write_text(json.dumps({"name": "sensor", "table": table}), encoding="utf-8")
    else:
        np.save(path / "model_params.npy", np.array(table))
        path = path if kind == "folder" else path / "model_params.npy"
    profile = read_profile(path)
    assert (profile.name, profile.cfa, profile.black, profile.white) == ("sensor", "GRBG", 64, 1023)
    for iso, site, beta1, beta2 in table:
        level = profile.at_iso(iso)
        for signal in (0.0, 500.0):
            theirs = beta1 * (signal + 64) + beta2
            assert level.beta1[int(site)] * signal + level.beta2[int(site)] == pytest.approx(theirs)


def changed(**changes: Any) -> str:
    return json.dumps(read_profile("generic-phone").model_dump(mode="json") | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON", r"mine.json: expected a camera profile as JSON"),
        ("[1]", r"mine.json: expected a JSON object"),
        (changed(white=10), r"white must be above black, got 10 and 64"),
        (changed(cfa="RGBG"), r"cfa: Input should be 'RGGB'"),
        (changed(levels=[]), r"levels: .* at least 1 item"),
        (changed(levels=[{"iso": 100, "beta1": [1] * 4, "beta2": [-1] * 4}]), r"levels.0: beta2 must be 0 or more"),
        (changed(levels=[{"iso": 100, "beta1": [1] * 4, "beta2": [1] * 4}] * 2), r"ascending order of ISO"),
        (changed(lights=[{"red": 2, "blue": 2, "matrix": [[1, 1, 0], [0, 1, 0], [0, 0, 1]]}]), r"must sum to 1"),
        (changed(lights=[{"red": 2, "blue": 2, "matrix": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}]), r"has no inverse"),
        (json.dumps({"table": [[100, 0, 1, 1]]}), r"expected the sites 0, 1, 2, 3 at ISO 100, got \[0\]"),
        (json.dumps({"table": [[100, 0]]}), r"rows of four numbers"),
    ],
)
def test_profiles_say_what_is_wrong_with_them(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_profile(tmp_path / "mine.json")


def test_unknown_profiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no camera profile 'generic-fone'; did you mean 'generic-phone'\?"):
        read_profile("generic-fone")
    with pytest.raises(ValueError, match=r"absent.json: there is no such profile file"):
        read_profile(tmp_path / "absent.json")
    (tmp_path / "model_params.npy").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"model_params.npy: expected a numpy array of plain numbers"):
        read_profile(tmp_path)


# ---------------------------------------------------------------- the piece


def piece(**settings: Any) -> CameraPiece:
    return CameraPiece.model_validate({"name": "camera", "iso": [1500, 1700], "scale": 2} | settings)


def test_the_piece_repeats_itself_from_what_it_logged() -> None:
    image = smooth_pictures(1, 30, 25)[0]
    parameters = piece().draw(seeded(5), (30, 25))
    assert json.loads(json.dumps(parameters)) == parameters
    assert 1500 <= parameters["iso"] <= 1700
    taken = piece().apply(image, parameters)
    assert taken.shape == image.shape
    assert torch.equal(piece().apply(image, json.loads(json.dumps({"name": "camera", **parameters}))), taken)
    assert not torch.equal(piece().apply(image, parameters | {"seed": parameters["seed"] + 1}), taken)


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
def test_every_setting_of_the_piece_changes_the_result(setting: dict[str, Any]) -> None:
    image = smooth_pictures(1, 32, 24)[0] ** 3  # with shadows

    def taken(**settings: Any) -> Tensor:
        chosen = piece(**settings)
        return chosen.apply(image, chosen.draw(seeded(5), (32, 24)))

    default = setting == {"demosaic": piece().demosaic}
    assert not torch.equal(taken(demosaic="malvar") if default else taken(), taken(**setting))


def test_the_piece_keeps_its_sensor_as_pictures_get_smaller() -> None:
    assert [piece(scale=4).scaled(factor).scale for factor in (1.0, 0.5, 0.25, 0.1)] == [4, 2, 1, 1]
    assert piece(scale=8).scaled(0.25).scale == 2


def test_the_piece_refuses_what_its_camera_does_not_know() -> None:
    with pytest.raises(ValidationError, match=r"knows the noise from ISO 100 to 3200, not at 6400"):
        piece(iso=[3200, 6400])
    with pytest.raises(ValidationError, match=r"no camera profile 'nokia'"):
        piece(profile="nokia")
    with pytest.raises(ValidationError, match=r"scale"):
        piece(scale=0)


def test_a_shot_is_plain_numbers() -> None:
    assert json.loads(json.dumps(asdict(PHONE)))["matrix"] == [list(row) for row in PHONE.matrix]
    assert isinstance(read_profile("generic-phone"), CameraProfile)
