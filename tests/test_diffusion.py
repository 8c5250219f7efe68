"""Network, schedule, steps, solvers and the loop, against the public implementations and independent derivations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import Reference
from torch import Tensor

from adapt.diffusion.prior import Prediction, Predictor, Prior, build_prior
from adapt.diffusion.sampler import Conditioning, PhotoNoise, StepRecord, guided_sample, start
from adapt.diffusion.schedule import linear_schedule, noised, respaced
from adapt.diffusion.solvers import Ancestral, Ddim, DpmSolver2M, posterior_mean
from adapt.diffusion.steps import Step, plan_dt_bfr, plan_from, steps_through
from adapt.diffusion.unet import UNet, Upsample, unet_settings
from adapt.errors import ShapeError, UsageError, WeightsError
from adapt.guidance.low_frequency import LowFrequency, low_pass
from adapt.images import to_signed, to_unit
from adapt.settings import UNetSettings


def filled_unet(reference: Reference, name: str) -> tuple[UNet, dict]:
    fixture = reference.json(name)
    config = fixture["config"] if "model_channels" in fixture["config"] else fixture["config"]["unet"]
    config = {key: value for key, value in config.items() if key not in ("dims", "use_fp16")}
    return reference.fill.load(UNet(UNetSettings(**config)).eval()), fixture


# ---------------------------------------------------------------- network


@pytest.mark.parametrize("name", ["unet_small", "unet_variant", "unet512"])
def test_unet_fixture(reference: Reference, name: str):
    network, fixture = filled_unet(reference, name)
    arrays = reference.arrays(name)
    assert sum(p.numel() for p in network.parameters()) == fixture["n_params"]
    batch, side = {"unet_small": (2, 64), "unet_variant": (1, 32), "unet512": (1, 512)}[name]
    x = torch.from_numpy(reference.fill.randn(f"{name}.x", [batch, 3, side, side]))
    for timesteps in fixture["timesteps"]:
        listed = timesteps if isinstance(timesteps, list) else [timesteps] * batch
        tag = "_".join(map(str, timesteps)) if isinstance(timesteps, list) else str(timesteps)
        with torch.no_grad():
            output = network(x, torch.tensor(listed))
        stride = fixture["stride"]
        np.testing.assert_allclose(output[..., ::stride, ::stride], arrays[f"out_t{tag}"], rtol=0, atol=2e-5)


def test_unet_manifest_and_settings_read_off_the_names(reference: Reference):
    manifest = reference.manifest("unet_iddpm_ffhq512")
    state = {key: torch.empty(shape, device="meta") for key, shape in manifest["tensors"].items()}
    settings = unet_settings(state)
    expected = {k: v for k, v in manifest["config"].items() if k not in ("dims", "use_fp16")}
    assert {key: settings.model_dump()[key] for key in expected} == expected
    with torch.device("meta"):
        own = UNet(settings).state_dict()
    assert {key: list(value.shape) for key, value in own.items()} == manifest["tensors"]


@pytest.mark.parametrize("blocks", [[0, 1, 2], [1, 1, 1], [2, 3, 1]])
def test_settings_survive_a_round_trip(blocks: list[int]):
    settings = UNetSettings(
        image_size=32, model_channels=32, channel_mult=[1, 2, 2], num_res_blocks=blocks, attention_resolutions=[8]
    )
    assert unet_settings(UNet(settings).state_dict()) == settings


def test_wrong_weights_are_reported():
    settings = UNetSettings(
        image_size=32, model_channels=32, channel_mult=[1, 2], num_res_blocks=[1, 1], attention_resolutions=[]
    )
    state = UNet(settings).state_dict()
    state["extra"] = state.pop("out.2.bias")
    metadata = {"settings": settings.model_dump_json()}
    with pytest.raises(WeightsError, match=r"1 missing \(out\.2\.bias\); 1 unexpected \(extra\)"):
        build_prior("file", state, metadata)
    for other in ({"a": torch.zeros(1)}, {key: value for key, value in state.items() if key != "out.2.weight"}):
        with pytest.raises(WeightsError, match=r"^file: not a U-Net in the public layout"):
            build_prior("file", other, {})


# ---------------------------------------------------------------- schedule and steps


@pytest.mark.parametrize(("name", "timesteps"), [
    ("schedule_1000", respaced(1000)),
    ("schedule_250", respaced(250)),
    ("schedule_50", respaced(50)),
])
def test_schedule_fixture(reference: Reference, name: str, timesteps: list[int]):
    arrays = reference.arrays(name)
    steps = steps_through(timesteps)[::-1]
    assert timesteps == arrays["timestep_map"].tolist()
    for array, values in {
        "alphas_cumprod": [s.abar for s in steps],
        "alphas_cumprod_prev": [s.abar_prev for s in steps],
        "betas": [s.beta for s in steps],
        "posterior_log_variance_clipped": [s.log_posterior_variance for s in steps],
    }.items():
        np.testing.assert_allclose(values, arrays[array], rtol=0, atol=1e-12)


def test_plans():
    plan = plan_from(600, 13)
    assert [s.t for s in plan.steps] == list(range(600, -1, -50))
    assert plan.start_abar == plan.steps[0].abar
    assert plan.steps[-1].last
    assert plan_from(1000, 4).steps[0].t == 999
    compat = plan_dt_bfr(600, 150)
    assert (len(compat.steps), compat.steps[0].t, compat.steps[-1].t) == (150, 598, 0)
    assert compat.start_abar == pytest.approx(0.024953, abs=5e-7)
    assert sum(s.t > 360 for s in compat.steps) == 60
    with pytest.raises(UsageError, match="expected 1 to 601 steps from timestep 600, got 602"):
        plan_from(600, 602)
    with pytest.raises(UsageError, match="whole number"):
        plan_dt_bfr(600, 7)


# ---------------------------------------------------------------- solvers


class Stored(torch.nn.Module):
    """A network whose answer is known."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.output[: len(x)]


TINY = UNetSettings(
    image_size=16, model_channels=32, channel_mult=[1, 1], num_res_blocks=[1, 1], attention_resolutions=[]
)


@pytest.mark.parametrize(("chain", "indices"), [
    (1000, (0, 0)), (1000, (1, 1)), (1000, (600, 600)), (1000, (999, 37)),
    (250, (0, 0)), (250, (1, 1)), (250, (150, 150)), (250, (249, 90)),
])
def test_p_mean_variance_fixture(reference: Reference, chain: int, indices: tuple[int, int]):
    arrays = {key: torch.from_numpy(value) for key, value in reference.arrays("p_mean_variance").items()}
    steps = steps_through(respaced(chain))[::-1]
    prefix = f"r{chain}_t{indices[0]}_{indices[1]}_"

    def close(ours: Tensor, name: str, index: int, tolerance: float = 1e-5) -> None:
        truth = arrays[prefix + name][index]
        error = (ours[0] - truth).abs() / truth.abs().clamp(min=1)
        assert float(error.max()) <= tolerance, name

    for index, position in enumerate(indices):
        step = steps[position]
        x, y0, noise = (arrays[key][index : index + 1] for key in ("x", "y0", "noise"))
        prior = Prior("stored", TINY, Stored(arrays["model_out"][index : index + 1]))
        assert step.t == int(arrays[prefix + "net_t"][index])
        prediction = prior.predict(x, step)
        close(prediction.x0, "clip_pred_xstart", index)
        close(prediction.log_variance, "log_variance", index)
        close(posterior_mean(prediction.x0, x, step), "clip_mean", index)
        close(noised(y0, step.abar, noise), "q_sample", index)
        close(Ancestral().step(prediction, x, step, memory=None, draw=lambda n=noise: n)[0], "sample", index)
        for eta in (0.0, 0.5):
            after, _ = Ddim(eta).step(prediction, x, step, memory=None, draw=lambda n=noise: n)
            close(after, f"ddim_eta{eta}", index, 1e-4)


def test_posterior_mean_is_gaussian_conditioning(gen: torch.Generator):
    """Reference: a Kalman update of x_prev | x0 by x_t; shares no formula with the code."""
    step = Step(500, 400, 0.41, 0.57, 0.0)
    x0, x_t = (torch.randn(2, 3, 37, 31, generator=gen, dtype=torch.float64) for _ in range(2))
    alpha, var = step.abar / step.abar_prev, 1 - step.abar_prev
    gain = alpha**0.5 * var / (alpha * var + 1 - alpha)
    expected = step.abar_prev**0.5 * x0 + gain * (x_t - step.abar**0.5 * x0)
    torch.testing.assert_close(posterior_mean(x0, x_t, step), expected, rtol=1e-12, atol=1e-12)


class GaussianPrior(Predictor):
    """Data of one Gaussian N(mean, std^2): E[x0 | x_t] in closed form, not clamped."""

    mean, std = 0.3, 0.2

    def predict(self, x: Tensor, step: Step) -> Prediction:
        gain = step.abar**0.5 * self.std**2 / (step.abar * self.std**2 + 1 - step.abar)
        x0 = self.mean + gain * (x - step.abar**0.5 * self.mean)
        return Prediction(x0, torch.full_like(x, step.log_posterior_variance))

    def exact(self, x: Tensor, abar: float) -> Tensor:
        """Where the probability-flow ODE takes x_t at t = 0: the map between two Gaussians."""
        spread = math.sqrt(abar * self.std**2 + 1 - abar)
        return self.mean + self.std / spread * (x - abar**0.5 * self.mean)


def final(solver: Ddim | DpmSolver2M, count: int, x: Tensor, stop: int = 10) -> tuple[Tensor, Tensor]:
    """Solve from t = 900 to t = `stop`; the answer, and the exact one at that level."""
    prior = GaussianPrior()
    abar = linear_schedule().abar
    timesteps = sorted({round(stop + (900 - stop) * i / count) for i in range(count + 1)})
    memory, sample = None, x
    for step in steps_through(timesteps)[:-1]:
        seen = prior.predict(sample, step)
        sample, memory = solver.step(seen, sample, step, memory=memory, draw=lambda: torch.zeros_like(x))
    spread = [math.sqrt(float(abar[t]) * prior.std**2 + 1 - float(abar[t])) for t in (900, stop)]
    exact = float(abar[stop]) ** 0.5 * prior.mean + spread[1] / spread[0] * (x - float(abar[900]) ** 0.5 * prior.mean)
    return sample, exact


def test_solvers_converge_at_their_order(gen: torch.Generator):
    """Against the exact flow of a Gaussian: halving the step halves DDIM's error and quarters DPM-Solver++ 2M's."""
    x = torch.randn(1, 3, 8, 8, generator=gen, dtype=torch.float64)
    for solver, order in ((Ddim(0.0), 1), (DpmSolver2M(), 2)):
        errors = [float((a - b).abs().max()) for a, b in (final(solver, n, x) for n in (50, 100))]
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.4)


def test_unguided_sampling_draws_from_the_prior():
    """Ancestral steps from pure noise end in the prior's mean and standard deviation (1000 steps, 3072 values)."""
    noise = PhotoNoise([0, 1, 2, 3], (3, 16, 16))
    plan = plan_from(999, 500)
    sample = guided_sample(
        GaussianPrior(), noise(), plan.steps,
        solver=Ancestral(), terms=[], conditioning=Conditioning(torch.zeros(4, 3, 16, 16)), draw=noise,
    )
    assert float(sample.mean()) == pytest.approx(GaussianPrior.mean, abs=4 * GaussianPrior.std / math.sqrt(3072))
    assert float(sample.std()) == pytest.approx(GaussianPrior.std, rel=0.08)


# ---------------------------------------------------------------- low frequencies, and the whole trajectory


def test_low_pass_fixture(reference: Reference):
    arrays = reference.arrays("lowpass")
    x = torch.from_numpy(reference.fill.randn("lowpass.x", [1, 3, 128, 128]))
    for factor in (4, 8, 16, 32):
        np.testing.assert_allclose(low_pass(x, factor), arrays[f"phi_N{factor}"], rtol=0, atol=1e-6)


def test_low_pass_keeps_constants_and_names_odd_sides():
    flat = torch.full((1, 3, 24, 40), 0.7, dtype=torch.float64)
    torch.testing.assert_close(low_pass(flat, 8), flat, rtol=0, atol=1e-12)
    with pytest.raises(ShapeError, match=r"multiples of it, got 20 x 40"):
        low_pass(torch.zeros(1, 3, 20, 40), 8)


def test_dt_bfr_trajectory(reference: Reference):
    network, fixture = filled_unet(reference, "trajectory_noise")
    states, inputs = reference.arrays("trajectory_states"), reference.arrays("trajectory_noise")
    config = fixture["config"]
    noise = iter(torch.from_numpy(inputs["noise"].astype(np.float32)))
    plan = plan_dt_bfr(config["K"] * 20, config["K"])
    conditioning = Conditioning(to_signed(torch.from_numpy(inputs["y0_01"])))
    term = LowFrequency(factor=config["N"], last_t=config["L"] * 20)
    records: list[StepRecord] = []
    x = start(conditioning, plan, lambda: next(noise))
    np.testing.assert_allclose(x, states["y_start"], rtol=0, atol=3e-5)
    result = guided_sample(
        Prior("small", network.settings, network), x, plan.steps,
        solver=Ancestral(), terms=[term], conditioning=conditioning, draw=lambda: next(noise), on_step=records.append,
    )
    assert [record.step.t for record in records] == states["network_t"].tolist()
    assert next(noise, None) is None, "every stored draw is used"
    for record, index in zip(records, range(config["K"] - 1, -1, -1), strict=True):
        if f"i{index}_sample" in states:
            np.testing.assert_allclose(record.x, states[f"i{index}_net_in"], rtol=0, atol=3e-5)
            np.testing.assert_allclose(record.x0, states[f"i{index}_pred_xstart"], rtol=0, atol=3e-5)
            np.testing.assert_allclose(record.sample, states[f"i{index}_sample"], rtol=0, atol=3e-5)
    np.testing.assert_allclose(to_unit(result), states["final_01"], rtol=0, atol=3e-5)


def test_a_photo_does_not_depend_on_its_batch():
    def go(seeds: list[int]) -> Tensor:
        draw = PhotoNoise(seeds, (3, 16, 16))
        conditioning = Conditioning(torch.stack([torch.full((3, 16, 16), seed / 10) for seed in seeds]))
        plan = plan_from(600, 6)
        terms = [LowFrequency(factor=4, last_t=360)]
        x = start(conditioning, plan, draw)
        return guided_sample(
            GaussianPrior(), x, plan.steps, solver=Ancestral(), terms=terms, conditioning=conditioning, draw=draw
        )

    torch.testing.assert_close(go([1, 2]), torch.cat([go([1]), go([2])]), rtol=0, atol=1e-6)


def test_a_constraint_on_the_prediction_draws_no_noise_and_moves_what_is_low_alone(gen: torch.Generator):
    def no_noise() -> Tensor:
        raise AssertionError("noise was drawn")

    x0 = torch.rand(2, 3, 16, 24, generator=gen)
    checks = (torch.arange(16)[:, None] + torch.arange(24)) % 2 * 2.0 - 1  # nothing of it is low
    term = LowFrequency(factor=4, last_t=360, acts_on="x0")
    acting, resting = Step(600, 400, 0.3, 0.5, 0.1), Step(360, 200, 0.5, 0.7, 0.1)
    memory = term.begin(Conditioning(x0 + 0.25 + 0.5 * checks))
    held, kept = term.apply(x0, acting, memory, draw=no_noise)
    inside = (slice(None), slice(None), slice(4, 12), slice(8, 16))  # borders are mirrored, which checks are not
    torch.testing.assert_close(held[inside], (x0 + 0.25)[inside], rtol=0, atol=0.02)
    assert torch.equal(term.apply(x0, resting, kept, draw=no_noise)[0], x0)
    with pytest.raises(AssertionError, match="noise was drawn"):
        LowFrequency(factor=4, last_t=360).apply(x0, acting, memory, draw=no_noise)


def test_doubling_is_nearest_neighbour_then_a_convolution(gen: torch.Generator):
    layer, x = Upsample(32, convolve=True), torch.rand(2, 32, 5, 7, generator=gen)
    with torch.no_grad():
        expected = layer.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        assert torch.allclose(layer(x), expected, atol=1e-6)
    assert set(layer.state_dict()) == {"conv.weight", "conv.bias"}
