"""The steps of the camera model: against the public pipeline's arrays, published formulas, and their own inverses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cameras import CURVES, METHODS, PHONE, SITES, decibels, quiet
from images import seeded
from reference import Reference
from torch import Tensor

from degradations.camera.bayer import demosaic, mosaic, per_site, spread
from degradations.camera.photograph import Camera, Shot, expose, finish, sensor_offset
from degradations.camera.profiles import profile_names, read_profile
from degradations.camera.steps import (
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
from degradations.filters import resize_area

PUBLIC_NOISE = "noise_hg-s22u-s908u-na-b0q-pr-t2-id35248-v7.json"


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
    """All but its learned demosaicing, from whose image the rendering starts."""
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
    """In camera RGB under their noise: 32.3 dB, where their network is 30.1 dB from the clean image."""
    noisy, theirs = stages.batch("raw_noisy").double(), stages.batch("demosaic_rgb").double()
    gains = torch.tensor([[1.0, float(stages.gains[0]), float(stages.gains[2]), 1.0]], dtype=torch.float64)
    balanced = from_dn(noisy, 64, 1023).clamp(0, 1) * per_site(gains, (32, 32))
    found = {
        method: decibels(unbalance(demosaic(balanced, "GRBG", method), stages.gains), theirs)
        for method in METHODS
    }
    assert max(found, key=lambda method: found[method]) == Camera().demosaic
    assert found[Camera().demosaic] > decibels(theirs, stages.batch("lr_rgb").double()) + 2


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
