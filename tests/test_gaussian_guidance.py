"""Guidance by Gaussian blurs, in a world where everything is known: the faces are one Gaussian, x0 is linear in x_t.

The truths here are dense matrices in numpy: blurs of the mirrored image by FFT, conditional means by solving.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from adapt.blur.adjuster import GuidanceAdjuster
from adapt.blur.labels import std_limits
from adapt.diffusion.prior import Prediction, Predictor
from adapt.diffusion.sampler import (
    Conditioning,
    GuidanceLoss,
    PhotoNoise,
    StepRecord,
    Trajectory,
    guided_sample,
    sample_together,
)
from adapt.diffusion.solvers import Ancestral, Ddim
from adapt.diffusion.steps import Step, plan_from
from adapt.errors import UsageError
from adapt.guidance.gaussian_blur import BlurMemory, GaussianBlur, blur_gradient
from adapt.guidance.maps import guidance_maps
from adapt.guidance.regions import region_weights
from adapt.settings import AdjusterNetworkSettings
from degradations.cosines import gaussian_blur

HEIGHT, WIDTH = 5, 7
PIXELS = HEIGHT * WIDTH
STEP = Step(400, 380, 0.2, 0.23, math.log(0.03))


def blur_matrix(std: float, height: int = HEIGHT, width: int = WIDTH, *, derivative: bool = False) -> np.ndarray:
    """Gaussian blur of an image mirrored about its outermost pixels, as a matrix over its pixels; or d/dstd of it."""
    rows, columns = (np.fft.fftfreq(2 * n - 2) for n in (height, width))
    squared = rows[:, None] ** 2 + columns[None, :] ** 2
    response = np.exp(-2 * np.pi**2 * std**2 * squared)
    if derivative:
        response = response * -4 * np.pi**2 * std * squared
    out = []
    for image in np.eye(height * width).reshape(-1, height, width):
        mirrored = np.concatenate([image, image[-2:0:-1]])
        mirrored = np.concatenate([mirrored, mirrored[:, -2:0:-1]], axis=1)
        out.append(np.fft.ifft2(np.fft.fft2(mirrored) * response).real[:height, :width].ravel())
    return np.array(out).T


def smooth_covariance(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Pixels that are the more alike the nearer they are."""
    y, x = (each.ravel() for each in np.mgrid[:height, :width])
    distance = np.hypot(y[:, None] - y[None], x[:, None] - x[None])
    return 0.2 * np.exp(-distance / 2) + 0.01 * np.eye(height * width)


class GaussianFaces(Predictor):
    """N(mean, covariance) for every channel: E[x0 | x_t] and its slope are exact, and nothing is clamped."""

    def __init__(self, covariance: np.ndarray, mean: float = 0.1) -> None:
        self.covariance = covariance
        self.mean = mean
        self.calls = 0

    def slope(self, abar: float) -> np.ndarray:
        """d E[x0 | x_t] / d x_t."""
        noisy = abar * self.covariance + (1 - abar) * np.eye(len(self.covariance))
        return math.sqrt(abar) * self.covariance @ np.linalg.inv(noisy)

    def predict(self, x: Tensor, step: Step) -> Prediction:
        self.calls += 1
        centred = x.flatten(2) - step.abar**0.5 * self.mean
        x0 = self.mean + centred @ torch.from_numpy(self.slope(step.abar)).to(x).T
        return Prediction(x0.view(x.shape), torch.full_like(x, step.log_posterior_variance))


class Still:
    """A solver that leaves the sample where it is: what is seen is the guidance alone."""

    def step(self, prediction: Prediction, x: Tensor, step: Step, memory: object, draw: Callable[[], Tensor]):
        return x, None


def no_noise() -> Tensor:
    raise AssertionError("nothing here may draw noise")


def signed(gen: torch.Generator, count: int = 2, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return torch.rand(count, 3, height, width, generator=gen, dtype=torch.float64) * 2 - 1


def stds(*values: float) -> Tensor:
    return torch.tensor([[value] for value in values], dtype=torch.float64)


@pytest.fixture(autouse=True)
def any_std(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blurs of a small image, in pixels of a large one: the range 0.1 to 15 at any size."""
    for name in ("adapt.guidance.gaussian_blur.std_limits", "adapt.blur.mapping.std_limits"):
        monkeypatch.setattr(name, lambda size: (0.1, 15.0))


def one_step(term: GaussianBlur, x: Tensor, conditioning: Conditioning, step: Step = STEP) -> tuple[Tensor, BlurMemory]:
    """The sample that guidance leaves of x, and what it remembers."""
    records: list[StepRecord] = []
    sample = guided_sample(
        GaussianFaces(smooth_covariance()), x, [step],
        solver=Still(), terms=[term], conditioning=conditioning, draw=no_noise, on_step=records.append,
    )
    return sample, records[0].memory[0]


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("solver", [Ancestral(), Ddim(1.0)], ids=["ddpm", "ddim"])
def test_unguided_sampling_has_the_mean_and_covariance_of_the_prior(solver: Ancestral | Ddim):
    """6000 images of 2 x 3: a covariance of 0.2 has a standard error of 0.004, and 1000 steps take 2 % off it."""
    covariance = smooth_covariance(2, 3)
    noise = PhotoNoise([5], (2000 * 3, 2, 3))
    sample = guided_sample(
        GaussianFaces(covariance), noise().view(2000, 3, 2, 3), plan_from(999, 1000).steps, solver=solver, terms=[],
        conditioning=Conditioning(torch.zeros(1, 3, 2, 3)), draw=lambda: noise().view(2000, 3, 2, 3),
    ).reshape(-1, 6).double().numpy()
    np.testing.assert_allclose(sample.mean(axis=0), np.full(6, 0.1), rtol=0, atol=0.02)
    np.testing.assert_allclose(np.cov(sample.T), covariance, rtol=0, atol=0.016)


@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.2, 0.1)])
def test_gradients_are_the_analytic_ones(weights: tuple[float, ...], gen: torch.Generator):
    x, restored = signed(gen), signed(gen)
    begun, wrong = (1.4, 0.9), 0.25  # a std that moved since the measurements were made
    less = 1 * WIDTH / 512  # "std - 1" counts in pixels at 512
    term = GaussianBlur(weights=weights, limit=False, std_rate=1e-6)
    conditioning = Conditioning(restored, stds(*begun))

    class Moved(GaussianBlur):
        __slots__ = ()

        def begin(self, conditioning: Conditioning) -> BlurMemory:
            memory = GaussianBlur.begin(self, conditioning)
            return memory._replace(std=memory.std + wrong)

    sample, memory = one_step(Moved(weights=weights, limit=False, std_rate=1e-6), x, conditioning)
    before = term.begin(conditioning).std + wrong
    faces = GaussianFaces(smooth_covariance())
    slope = faces.slope(STEP.abar)
    for photo, std in enumerate(begun):
        expected, moves = np.zeros((3, PIXELS)), np.zeros(len(weights))
        x0 = 0.1 + (x[photo].numpy().reshape(3, -1) - math.sqrt(STEP.abar) * 0.1) @ slope.T
        for index, weight in enumerate(weights):
            guide = restored[photo].numpy().reshape(3, -1) @ blur_matrix(std - index * less).T
            kernel = blur_matrix(std - index * less + wrong)
            residual = x0 @ kernel.T - guide
            expected += weight * 2 * residual @ kernel @ slope
            turned = x0 @ blur_matrix(std - index * less + wrong, derivative=True).T
            wider = residual @ blur_matrix(math.sqrt(2 * (std - index * less + wrong) * 1e-7)).T  # by 1e-7 pixels
            hidden = ((residual**2).sum() - (wider**2).sum()) / 1e-7
            moves[index] = weight * (2 * (residual * turned).sum() + STEP.abar / 2 * hidden)
        np.testing.assert_allclose((x - sample)[photo].numpy().reshape(3, -1), expected, rtol=1e-9, atol=1e-10)
        moved = ((before - memory.std)[photo, :, 0] / 1e-6 / math.sqrt(STEP.abar)).numpy()
        np.testing.assert_allclose(moved, moves, rtol=1e-5, atol=1e-6)


def test_gradients_of_regions_are_those_of_the_blended_blur(gen: torch.Generator):
    """Against central differences of a guidance_loss that is summed up by itself, window by window."""
    x0, restored = signed(gen, 1), signed(gen, 1)
    levels = torch.tensor([[0.5, 1.0, 1.5, 2.0]], dtype=torch.float64)
    term = GaussianBlur(regions=2)
    memory = term.begin(Conditioning(restored, levels))
    shares = region_weights(2, (HEIGHT, WIDTH))[:, 0].numpy().reshape(4, -1)

    def value(image: np.ndarray, std: np.ndarray) -> float:
        now, begun = (
            np.sum([s[:, None] * blur_matrix(v) for s, v in zip(shares, each, strict=True)], axis=0)
            for each in (std, levels[0].numpy())
        )
        return float(((image @ now.T - restored[0].numpy().reshape(3, -1) @ begun.T) ** 2).sum())

    std = levels[0].numpy() + np.array([0.2, -0.1, 0.1, 0.3])
    guidance_loss = term.guidance_loss(x0, STEP, memory._replace(std=torch.from_numpy(std)[None, None]))
    image = x0[0].numpy().reshape(3, -1)
    assert float(guidance_loss.value) == pytest.approx(value(image, std), rel=1e-9)
    for region in range(4):
        shift = np.eye(4)[region] * 1e-5
        numeric = (value(image, std + shift) - value(image, std - shift)) / 2e-5
        assert float(guidance_loss.std_gradient[0, 0, region]) == pytest.approx(numeric, rel=1e-5)
    for pixel in (0, 17, 34):
        shift = np.zeros((3, PIXELS))
        shift[1, pixel] = 1e-5
        numeric = (value(image + shift, std) - value(image - shift, std)) / 2e-5
        assert float(guidance_loss.gradient[0, 1].flatten()[pixel]) == pytest.approx(numeric, rel=1e-5)


def test_at_the_truth_nothing_moves(gen: torch.Generator):
    restored = signed(gen)
    term = GaussianBlur(weights=(0.6, 0.4))
    memory = term.begin(Conditioning(restored, stds(1.5, 0.7)))
    guidance_loss = term.guidance_loss(restored, STEP, memory)
    assert float(guidance_loss.value.max()) < 1e-24
    assert float(guidance_loss.gradient.abs().max()) < 1e-12
    assert float(guidance_loss.std_gradient.abs().max()) < 1e-12


def test_a_limited_step_never_leads_away_from_the_guidance(gen: torch.Generator):
    """Where the noise is strong, the step of the paper overshoots; Polyak's does not."""
    noisy = Step(950, 930, 1.6e-4, 2.2e-4, 0.0)
    x, restored = signed(gen), signed(gen)
    faces, conditioning = GaussianFaces(10 * smooth_covariance()), Conditioning(restored, stds(1.5, 0.7))

    def guidance_losses(term: GaussianBlur) -> list[Tensor]:
        sample = guided_sample(
            faces, x, [noisy], solver=Still(), terms=[term], conditioning=conditioning, draw=no_noise
        )
        memory = term.begin(conditioning)
        return [term.guidance_loss(faces.predict(each, noisy).x0, noisy, memory).value for each in (x, sample)]

    before, after = guidance_losses(GaussianBlur(scale=100.0))
    assert bool((after < before).all())
    before, after = guidance_losses(GaussianBlur(scale=100.0, limit=False))
    assert bool((after > before).all())


# ---------------------------------------------------------------- the blur level


def natural_images(gen: torch.Generator, count: int, side: int) -> tuple[Tensor, Predictor]:
    """Images whose power falls with the square of the frequency, and the prior that knows it."""
    index = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(math.pi * (index + 0.5) * index[:, None] / side) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    power = 1 / ((index[:, None] ** 2 + index[None] ** 2) / (4 * side**2) + 8e-4)
    power = power * 0.09 / power.mean()
    drawn = torch.randn(count, 3, side, side, generator=gen, dtype=torch.float64)

    class Natural(Predictor):
        def predict(self, x: Tensor, step: Step) -> Prediction:
            gain = step.abar**0.5 * power / (step.abar * power + 1 - step.abar)
            x0 = waves.T @ (gain * (waves @ x @ waves.T)) @ waves
            return Prediction(x0, torch.full_like(x, step.log_posterior_variance))

    return waves.T @ (power.sqrt() * drawn) @ waves, Natural()


@pytest.mark.parametrize("through_network", [True, False])
@pytest.mark.parametrize(("true", "side"), [(3.0, 40), (0.75, 24)], ids=["3 pixels", "3 pixels at 128"])
def test_refinement_is_worth_knowing_the_std(through_network: bool, true: float, side: int, gen: torch.Generator):
    """Fig. 11: from two thirds and from four thirds of the true std the same std is found, and the image is as near
    the truth as with the true one fixed, or nearer: at least 80 % of what a wide belief costs is won back.
    """
    truth, prior = natural_images(gen, 2, side)
    measured = gaussian_blur(truth, torch.full((2,), true))

    def outcome(begun: float, rate: float) -> tuple[Tensor, float]:
        class Measured(GaussianBlur):
            __slots__ = ()

            def begin(self, conditioning: Conditioning) -> BlurMemory:
                return GaussianBlur.begin(self, conditioning)._replace(guides=measured[:, None])

        noise = PhotoNoise([1, 2], (3, side, side))
        records: list[StepRecord] = []
        sharpened = guided_sample(
            prior, noise().double(), plan_from(999, 50).steps, solver=Ancestral(),
            terms=[Measured(std_rate=rate, through_network=through_network)],
            conditioning=Conditioning(truth, stds(begun, begun)), draw=noise, on_step=records.append,
        )
        return records[-1].memory[0].std.flatten(), float(-10 * (sharpened - truth).square().mean().log10())

    narrow, wide = true * 2 / 3, true * 4 / 3
    (_, known), (still, lost) = outcome(true, 0.0), outcome(wide, 0.0)
    assert torch.equal(still, torch.full((2,), wide, dtype=torch.float64))
    assert known - lost > 0.3
    found = {begun: outcome(begun, 1.0) for begun in (narrow, wide)}
    torch.testing.assert_close(found[narrow][0], found[wide][0], rtol=0.02, atol=0)
    for begun, (std, psnr) in found.items():
        assert psnr > lost + 0.8 * (known - lost), f"from {begun}"
        assert float((std / true - 1).abs().max()) < 0.4, f"from {begun}"


@pytest.mark.parametrize("own", [False, True], ids=["a mean", "a sample"])
def test_detail_that_is_the_predictions_own_does_not_widen_the_blur(own: bool, gen: torch.Generator):
    """At the true std the level rests, be the prediction a mean (the truth has more detail) or a sample (of its own).

    Known by the law of large numbers: detail that one image has and the other has not is uncorrelated with both.
    """
    count, side, true = 64, 24, 1.5
    shared, of_truth, of_x0 = (natural_images(gen, count, side)[0] for _ in range(3))
    fine = [each - gaussian_blur(each, torch.full((count,), 2.0)) for each in (of_truth, of_x0)]
    x0 = shared + (fine[1] if own else 0)
    guides = gaussian_blur(shared + fine[0], torch.full((count,), true))[:, None]
    step = replace(STEP, abar=0.999 if own else 0.001)
    term = GaussianBlur()
    memory = term.begin(Conditioning(x0, stds(*[true] * count)))._replace(guides=guides)
    guidance_loss = term.guidance_loss(x0, step, memory)
    widens = replace(guidance_loss, std_hidden=torch.zeros_like(guidance_loss.std_hidden))

    def moves(how: GuidanceLoss) -> float:
        """Mean Newton step of the level, in pixels."""
        refined = term.apply(x0, step, memory, x0=x0, guidance_loss=how)[1].std
        return float((refined - true).mean()) / step.abar**0.5

    assert abs(moves(guidance_loss)) < 0.02
    if own:
        assert moves(widens) > 0.1


def test_the_std_stays_in_its_range(gen: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("adapt.guidance.gaussian_blur.std_limits", lambda size: (1.395, 1.405))
    x, restored = signed(gen), signed(gen)
    _, memory = one_step(GaussianBlur(), x, Conditioning(restored, stds(1.4, 1.4)))
    assert set(memory.std.flatten().tolist()) <= {1.395, 1.405}
    assert std_limits(128) == (0.025, 3.75)


# ---------------------------------------------------------------- guidances, regions, knobs


def test_guidances_join_at_their_own_steps(gen: torch.Generator):
    """Algorithm 3: until the second one's start, all weight is on the first; then they share it."""
    restored, x0 = signed(gen, 1), signed(gen, 1)
    term = GaussianBlur(weights=(0.8, 0.2), start_t=lambda std: 400 if std < 1.4 else 700)
    memory = term.begin(Conditioning(restored, stds(1.4)))
    alone = [GaussianBlur().guidance_loss(x0, STEP, memory._replace(
        guides=memory.guides[:, [i]], std=memory.std[:, [i]], starts=memory.starts[:, [0]],
    )).value for i in (0, 1)]
    early = term.guidance_loss(x0, replace(STEP, t=650), memory)
    late = term.guidance_loss(x0, replace(STEP, t=400), memory)
    torch.testing.assert_close(early.value, alone[0])
    torch.testing.assert_close(late.value, 0.8 * alone[0] + 0.2 * alone[1])
    assert float(early.std_gradient[0, 1, 0]) == 0


def test_region_weights_sum_to_one():
    for count in (1, 2, 3, 5):
        weights = region_weights(count, (17, 12))
        assert weights.shape == (count**2, 1, 17, 12)
        np.testing.assert_allclose(weights.sum(dim=0), 1, rtol=0, atol=1e-12)
        assert int((weights > 1e-12).sum(dim=0).max()) <= 4


def small_adjuster(seed: int = 0) -> GuidanceAdjuster:
    generator = torch.Generator().manual_seed(seed)
    network = GuidanceAdjuster(AdjusterNetworkSettings(features=4, model_channels=8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return network


BASE = GaussianBlur(weights=(0.7, 0.3))
KNOBS: dict[str, GaussianBlur] = {
    "weights": replace(BASE, weights=(0.6, 0.4)),
    "one guidance": replace(BASE, weights=(1.0,)),
    "scale": replace(BASE, scale=0.1),
    "std_rate": replace(BASE, std_rate=0.0),
    "through_network": replace(BASE, through_network=False),
    "limit": replace(BASE, limit=False),
    "start_t": replace(BASE, start_t=lambda std: 300),
    "adjuster": replace(BASE, adjuster=small_adjuster()),
}


def two_steps(term: GaussianBlur, gen: torch.Generator) -> Tensor:
    x, restored = signed(gen), signed(gen)
    levels = stds(1.5, 0.8).expand(-1, term.regions**2)
    steps = plan_from(700, 4).steps[:3]
    return guided_sample(
        GaussianFaces(smooth_covariance()), x, steps,
        solver=Ddim(0.0), terms=[term], conditioning=Conditioning(restored, levels), draw=no_noise,
    )


def test_every_setting_is_turned_below():
    """But for regions, which have a test of their own, and where it acts, which is one place."""
    names = {field.name for field in fields(GaussianBlur)} - {"regions", "acts_on"}
    assert {name for term in KNOBS.values() for name in names if getattr(term, name) != getattr(BASE, name)} == names


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(knob: str):
    results = [two_steps(term, torch.Generator().manual_seed(3)) for term in (BASE, KNOBS[knob])]
    assert not torch.allclose(*results, rtol=0, atol=1e-6), f"{knob} changes nothing"


def test_regions_turn_only_with_levels_that_differ(gen: torch.Generator):
    x, restored = signed(gen), signed(gen)
    even = torch.full((2, 4), 1.2, dtype=torch.float64)
    four = GaussianBlur(regions=2, std_rate=0.0)
    whole = one_step(GaussianBlur(std_rate=0.0), x, Conditioning(restored, even[:, :1]))[0]
    torch.testing.assert_close(one_step(four, x, Conditioning(restored, even))[0], whole, rtol=0, atol=1e-12)
    uneven = even + torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    assert not torch.allclose(one_step(four, x, Conditioning(restored, uneven))[0], whole, rtol=0, atol=1e-6)


def test_the_adjusters_map_scales_the_gradient(gen: torch.Generator):
    x, restored = signed(gen), signed(gen)
    conditioning = Conditioning(restored, stds(1.2, 0.6))
    plain, _ = one_step(BASE, x, conditioning)
    scaled, memory = one_step(replace(BASE, adjuster=small_adjuster()), x, conditioning)
    (scale_map,) = guidance_maps([None, memory])
    assert 0 <= float(scale_map.min()) < float(scale_map.max()) <= 1
    torch.testing.assert_close(x - scaled, scale_map * (x - plain), rtol=0, atol=1e-12)


def test_the_adjuster_is_trained_on_the_same_gradient(gen: torch.Generator):
    x, restored = signed(gen), signed(gen)
    conditioning = Conditioning(restored, stds(1.2, 0.6))
    sample, _ = one_step(GaussianBlur(), x, conditioning)
    noisy = x.clone().requires_grad_(True)
    x0 = GaussianFaces(smooth_covariance()).predict(noisy, STEP).x0
    gradient = blur_gradient(noisy, x0, GaussianBlur().begin(conditioning).guides[:, 0], torch.tensor([1.2, 0.6]))
    torch.testing.assert_close(x - sample, gradient, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- batches


def trajectories(which: Sequence[int], restored: Tensor, levels: Tensor) -> list[Trajectory]:
    """Photos with steps, noise, blur and eta of their own."""
    made: list[Trajectory] = []
    for index in which:
        noise = PhotoNoise([index], (3, HEIGHT, WIDTH))
        made.append(Trajectory(
            x=noise().double(), steps=plan_from(600 + 100 * index, 4 + index).steps, solver=Ddim(0.2 * index),
            terms=[GaussianBlur(weights=(0.7, 0.3))], draw=noise,
            conditioning=Conditioning(restored[[index]], levels[[index]]),
        ))
    return made


def test_a_photo_does_not_depend_on_its_batch(gen: torch.Generator):
    restored, levels = signed(gen, 3), stds(1.5, 0.8, 2.2)
    faces = GaussianFaces(smooth_covariance())
    together = sample_together(faces, trajectories([0, 1, 2], restored, levels))
    for index in range(3):
        assert torch.equal(together[index], sample_together(faces, trajectories([index], restored, levels))[0])
    backwards = sample_together(faces, trajectories([2, 0], restored, levels))
    assert torch.equal(backwards[0], together[2])
    assert torch.equal(backwards[1], together[0])
    term, noise = BASE, PhotoNoise([0, 1], (3, HEIGHT, WIDTH))
    x, steps = noise().double(), plan_from(700, 5).steps

    def shared(rows: list[int]) -> Tensor:
        return guided_sample(
            faces, x[rows], steps, solver=Ddim(0.0), terms=[term], draw=no_noise,
            conditioning=Conditioning(restored[rows], levels[rows]),
        )

    torch.testing.assert_close(shared([0, 1]), torch.cat([shared([0]), shared([1])]), rtol=0, atol=1e-12)


def test_guidance_that_is_not_finite_stops_the_photo_and_not_the_batch(gen: torch.Generator):
    restored, levels = signed(gen, 3), stds(1.5, 0.8, 2.2)
    faces = GaussianFaces(smooth_covariance())
    whole = sample_together(faces, trajectories([0, 1, 2], restored, levels))
    broken = restored.clone()
    broken[1, 0, 2, 3] = math.inf
    faces.calls = 0
    ended = sample_together(faces, trajectories([0, 1, 2], broken, levels))
    assert bool(ended[1].isnan().all())
    assert torch.equal(ended[0], whole[0])
    assert torch.equal(ended[2], whole[2])
    assert faces.calls == 4 + 1 + 6, "a photo that has stopped costs no more"
    steps, x = plan_from(700, 3).steps, signed(gen, 3)
    conditioning = Conditioning(broken, levels)
    shared = guided_sample(faces, x, steps, solver=Ddim(0.0), terms=[BASE], conditioning=conditioning, draw=no_noise)
    assert [bool(each.isfinite().all()) for each in shared] == [True, False, True]


def test_refusals(gen: torch.Generator):
    restored = signed(gen)
    with pytest.raises(UsageError, match=r"expected 1 to 4 positive weights, got \[\]"):
        GaussianBlur(weights=())
    with pytest.raises(UsageError, match=r"got \[0\.7, 0\.0\]"):
        GaussianBlur(weights=(0.7, 0.0))
    with pytest.raises(UsageError, match=r"expected the blur levels of the photos, \(2, 1\), got none"):
        GaussianBlur().begin(Conditioning(restored))
    with pytest.raises(UsageError, match=r"\(2, 9\), got \(2, 1\)"):
        GaussianBlur(regions=3).begin(Conditioning(restored, stds(1.0, 2.0)))


# ---------------------------------------------------------------- several terms together


@dataclass(frozen=True)
class Pull:
    """Descends s ||x0 - target||^2, on from where another term left the direction."""

    target: Tensor
    scale: float
    through_network: bool = True
    limit: bool = False
    acts_on: Literal["gradient"] = "gradient"
    facts: Mapping[str, int] = field(default_factory=dict)

    def begin(self, conditioning: Conditioning) -> None: ...

    def starting_image(self, memory: None) -> None: ...

    def guidance_loss(self, x0: Tensor, step: Step, memory: None) -> GuidanceLoss:
        residual = x0 - self.target
        return GuidanceLoss(self.scale * residual.square().sum(dim=(1, 2, 3)), 2 * self.scale * residual)

    def apply(
        self, direction: Tensor, step: Step, memory: None, *, x0: Tensor, guidance_loss: GuidanceLoss
    ) -> tuple[Tensor, None]:
        return direction, None


def test_terms_share_one_backward_pass(gen: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    """However many there are. The sample descends the gradient of the sum of their losses, once."""
    x, first, second, third = (signed(gen) for _ in range(4))
    faces = GaussianFaces(smooth_covariance())
    passes: list[int] = []
    backward = torch.autograd.grad

    def counted(*arguments: Any, **more: Any) -> Any:
        passes.append(1)
        return backward(*arguments, **more)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    terms = [Pull(first, 0.3), Pull(second, 0.1), Pull(third, 0.2, through_network=False)]
    sample = guided_sample(
        faces, x, [STEP], solver=Still(), terms=terms, conditioning=Conditioning(first), draw=no_noise
    )
    assert len(passes) == 1
    x0 = faces.predict(x, STEP).x0
    through = 2 * (0.3 * (x0 - first) + 0.1 * (x0 - second))
    at_x0 = 2 * 0.2 * (x0 - third)
    slope = torch.from_numpy(faces.slope(STEP.abar))
    expected = x - (through.flatten(2) @ slope).view_as(x) - STEP.abar_prev**0.5 * at_x0
    torch.testing.assert_close(sample, expected, rtol=1e-10, atol=1e-12)


def test_the_sum_has_a_limit_where_all_its_terms_have(gen: torch.Generator):
    """Polyak's step of the sum: along its gradient to where the sum, were it linear, would vanish."""
    x, first, second = (signed(gen) for _ in range(3))
    faces = GaussianFaces(smooth_covariance())

    def moved(*limits: bool) -> Tensor:
        terms = [Pull(target, 1e3, limit=limit) for target, limit in zip((first, second), limits, strict=True)]
        return x - guided_sample(
            faces, x, [STEP], solver=Still(), terms=terms, conditioning=Conditioning(first), draw=no_noise
        )

    limited, free = moved(True, True), moved(True, False)
    torch.testing.assert_close(moved(False, False), free)
    x0 = faces.predict(x, STEP).x0
    value = 1e3 * ((x0 - first).square() + (x0 - second).square()).sum(dim=(1, 2, 3))
    torch.testing.assert_close((limited * free).sum(dim=(1, 2, 3)), value, rtol=1e-9, atol=0)
