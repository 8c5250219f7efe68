"""What normalisation takes away from a U-Net of narrow levels, and what gives it back: mean colour, contrast, gain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from command_line import adapt
from networks import on_cpu
from pydantic import ValidationError
from torch import Tensor

from adapt.diffusion.colours import MeanColour, colour_and_contrast
from adapt.diffusion.gain import OutputGain
from adapt.diffusion.prior import predicted_x0
from adapt.diffusion.schedule import linear_schedule, noised
from adapt.diffusion.steps import plan_from
from adapt.diffusion.unet import UNet, unet_settings
from adapt.exporting.bundle import export_bundle, load_bundle
from adapt.loading import KNOWN, load_evaluator, load_prior, load_restorer
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from adapt.pretraining.gain import RIDGE, best_gain, ridge
from adapt.pretraining.growing import grown
from adapt.pretraining.prior import train_prior
from adapt.pretraining.thinning import thinned
from adapt.restorers.base import Restorer
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepSettings, OneStepTrainingSettings, PriorSettings, UNetSettings
from adapt.training.run import Run
from adapt.weights import write_state

LAYOUT = UNetSettings(
    image_size=16, model_channels=32, channel_mult=[1, 2], num_res_blocks=[0, 1], attention_resolutions=[8],
    num_head_channels=32, mean_colour=True, output_gain=True,
)  # fmt: skip
COVARIANCE = torch.tensor([[0.10, 0.06, 0.04], [0.06, 0.09, 0.05], [0.04, 0.05, 0.12]])
MEAN = torch.tensor([0.2, -0.1, -0.3])


def colours(count: int, generator: torch.Generator) -> Tensor:
    return MEAN + torch.randn(count, 3, generator=generator) @ torch.linalg.cholesky(COVARIANCE).T


@pytest.fixture
def fitted(gen: torch.Generator) -> MeanColour:
    """Knows exactly `MEAN` and `COVARIANCE`."""
    module = MeanColour(8)
    drawn = colours(4096, gen)
    white = (drawn - drawn.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(drawn.T))).T
    module.fit(MEAN + white @ torch.linalg.cholesky(COVARIANCE).T, 0.3 + 0.05 * torch.randn(4096, generator=gen))
    return module


def lively(layout: UNetSettings = LAYOUT) -> UNet:
    generator, network = torch.Generator().manual_seed(0), UNet(layout)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return network.eval()


@pytest.mark.parametrize("t", [0, 100, 500, 850, 999])
def test_the_noises_mean_is_the_regression_on_the_images(fitted: MeanColour, t: int, gen: torch.Generator):
    """Against the joint covariance of three means of a clean image and three of noise, solved as one system."""
    x = torch.rand(4, 3, 16, 16, generator=gen) * 2 - 1
    abar = float(linear_schedule().abar[t])
    mixing = torch.cat([abar**0.5 * torch.eye(3), (1 - abar) ** 0.5 * torch.eye(3)], dim=1).double()
    joint = torch.block_diag(COVARIANCE.double(), torch.eye(3).double() / 256)
    seen = x.double().mean(dim=(2, 3)) - abar**0.5 * MEAN
    solved = torch.linalg.solve(mixing @ joint @ mixing.T, seen.T)
    expected = (joint @ mixing.T @ solved)[3:].T
    found = fitted(x, torch.full((4,), t))[1]
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(("t", "least"), [(10, 0.99), (200, 0.5), (999, -0.1)])
def test_what_is_told_follows_colour_and_contrast_where_the_noise_lets_them_be_seen(t: int, least: float):
    generator = torch.Generator().manual_seed(3)
    means, contrasts = colours(400, generator) / 2, 0.05 + 0.1 * torch.rand(400, generator=generator)
    texture = torch.randn(400, 3, 16, 16, generator=generator)
    texture = (texture - texture.mean((2, 3), keepdim=True)) / texture.std((2, 3), correction=0, keepdim=True)
    clean = means[:, :, None, None] + contrasts.sqrt()[:, None, None, None] * texture
    module = MeanColour(4)
    module.fit(*colour_and_contrast(clean))
    with torch.no_grad():
        module.told.weight.copy_(torch.eye(4))
    abar = float(linear_schedule().abar[t])
    x = noised(clean, abar, torch.randn(clean.shape, generator=generator))
    told = module(x, torch.full((400,), t))[0]
    wanted = torch.cat([(means - module.mean) @ module.directions / module.deviations, contrasts[:, None]], dim=1)
    for found, value in zip(told.T, wanted.T, strict=True):
        if least < 0:
            assert float(found.detach().std()) < 0.5  # hardly anything is known, so hardly anything is said
        else:
            assert float(torch.corrcoef(torch.stack([found.detach(), value]))[0, 1]) > least


def test_equal_colours_can_be_taken(gen: torch.Generator):
    module = MeanColour(4)
    module.fit(MEAN.expand(5, 3), torch.full((5,), 0.3))
    found = module(torch.rand(2, 3, 8, 8, generator=gen), torch.tensor([0, 999]))
    assert all(bool(part.isfinite().all()) for part in found)


@torch.no_grad()
def test_samples_have_the_colours_that_were_taken_though_the_network_sees_none(gen: torch.Generator):
    """Of zero weights, so that nothing else moves the mean: the deviations come out as they were given."""
    network = UNet(LAYOUT).eval()
    taken = colours(2000, gen)
    assert network.colour is not None
    network.colour.fit(taken, torch.full((2000,), 0.1))
    x = torch.randn(256, 3, 8, 8, generator=gen)
    for step in plan_from(999, 60).steps:  # DDIM, without bounds on the pixels
        noise = network(x, torch.full((256,), step.t))[:, :3]
        x = step.abar_prev**0.5 * predicted_x0(x, noise, step.abar) + (1 - step.abar_prev) ** 0.5 * noise
    seen = x.mean(dim=(2, 3))
    torch.testing.assert_close(seen.mean(0), taken.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(seen.T), torch.cov(taken.T), rtol=0.3, atol=0)


def test_it_begins_as_the_network_without(gen: torch.Generator):
    """Gain 1, nothing told; only the mean of the noise is another."""
    network = UNet(LAYOUT)
    with torch.no_grad():
        network.out[2].weight.normal_(std=0.1, generator=gen)  # pyright: ignore
    plain = UNet(LAYOUT.plain)
    plain.load_state_dict({name: network.state_dict()[name] for name in plain.state_dict()})
    x, t = torch.randn(2, 3, 16, 16, generator=gen), torch.tensor([100, 900])
    with torch.no_grad():
        ours, theirs = network(x, t), plain(x, t)
    torch.testing.assert_close(ours[:, 3:], theirs[:, 3:])
    noise = theirs[:, :3]
    assert network.colour is not None
    wanted = noise - noise.mean((2, 3), keepdim=True) + network.colour(x, t)[1][:, :, None, None]
    torch.testing.assert_close(ours[:, :3], wanted, rtol=1e-5, atol=1e-5)


def test_a_gain_of_an_image_does_not_depend_on_its_batch_and_is_bounded(gen: torch.Generator):
    module = OutputGain([8, 4])
    with torch.no_grad():
        module.weigh.weight.normal_(std=0.3, generator=gen)
    scales = torch.logspace(-6, 3, 5)[:, None, None, None]
    maps = [torch.randn(5, 8, 6, 6, generator=gen) * scales, torch.randn(5, 4, 3, 3, generator=gen) * scales]
    gains = module(maps)
    assert gains.shape == (5, 1, 1, 1)
    assert bool(((gains >= 0) & (gains <= 1)).all())
    assert len(set(gains.flatten().tolist())) > 1
    torch.testing.assert_close(gains[3:4], module([each[3:4] for each in maps]))
    torch.testing.assert_close(OutputGain([8, 4])(maps), torch.ones(5, 1, 1, 1))


def test_the_gain_multiplies_the_noise_in_lightness_and_not_the_variance(gen: torch.Generator):
    network = lively(LAYOUT.model_copy(update={"mean_colour": False}))
    x, t = torch.randn(2, 3, 16, 16, generator=gen), torch.tensor([100, 900])
    assert network.gain is not None
    with torch.no_grad():
        before = network(x, t)
        network.gain.weigh.weight.zero_()
        network.gain.weigh.bias.fill_(0.25)
        after = network(x, t)
        network.gain.weigh.bias.fill_(1)
        plain = network(x, t)
    light = plain[:, :3].mean(dim=1, keepdim=True)
    torch.testing.assert_close(after[:, :3].mean(dim=1, keepdim=True), light / 4)
    torch.testing.assert_close(after[:, :3] - light / 4, plain[:, :3] - light)  # colours are changed as they were
    torch.testing.assert_close(after[:, 3:], before[:, 3:])


def test_the_fitted_line_is_that_of_least_squares_whatever_the_columns_scales(gen: torch.Generator):
    rows = torch.randn(400, 6, generator=gen, dtype=torch.float64)
    rows[:, 5] *= 0  # tells nothing
    wanted = 0.4 + rows @ torch.tensor([0.2, -0.1, 0.0, 0.3, 0.0, 5.0], dtype=torch.float64)
    weights, bias = ridge(rows, wanted)
    held = 1 / (1 + RIDGE)  # of columns that are nearly independent
    torch.testing.assert_close(weights[:4], held * torch.tensor([0.2, -0.1, 0.0, 0.3]).double(), rtol=0, atol=0.02)
    assert float((rows @ weights + bias).mean()) == pytest.approx(float(wanted.mean()))
    scales = torch.tensor([1, 10, 0.1, 3, 7, 1.0]).double()
    torch.testing.assert_close(ridge(rows * scales + 5, wanted)[0] * scales, weights)


def test_the_best_gain_of_a_photo_is_where_its_error_is_least(gen: torch.Generator):
    student = OneStep(OneStepSettings(network=LAYOUT.model_copy(update={"mean_colour": False}))).eval()
    student.network = lively(student.settings.network)
    assert student.network.gain is not None
    with torch.no_grad():
        student.network.gain.weigh.weight.zero_()
        student.network.gain.weigh.bias.fill_(1)
        damaged = torch.rand(3, 3, 16, 16, generator=gen)
        change = student(damaged) - damaged
        clean = damaged + 0.4 * change + 0.05 * torch.randn(3, 3, 16, 16, generator=gen) + 0.2  # and another colour
        found = best_gain(student(damaged), damaged, clean)
        tried = torch.linspace(0, 1, 101)
        missing, found_out = (clean - damaged).mean(1), change.mean(1)
        errors = torch.stack([(missing - gain * found_out).var(dim=(1, 2)) for gain in tried])
    torch.testing.assert_close(found, tried[errors.argmin(0)], rtol=0, atol=0.006)
    torch.testing.assert_close(found, torch.full((3,), 0.4), rtol=0, atol=0.1)


def test_a_training_ends_with_the_gain_fitted(
    small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "kind": "pretrain-onestep", "start": str(tmp_path / "start.safetensors"), "steps": 1, "batch": 2, "size": 16,
        "learning_rate": 1e-6, "perceptual": 0, "network": {**LAYOUT.plain.model_dump(), "output_gain": True},
        "gain_pairs": 48, "gain_chain": [{"name": "jpeg", "quality": [95, 98]}],
    }  # fmt: skip
    header = {"architecture": "unet", "settings": LAYOUT.plain.model_dump_json()}
    write_state(tmp_path / "start.safetensors", lively(LAYOUT.plain).state_dict(), header)
    recipe.write_text(yaml.safe_dump(settings))
    assert adapt(monkeypatch, "pretrain", "--recipe", recipe, "--faces", small_photos, "-o", tmp_path / "run") == 0
    student = load_restorer(tmp_path / "run").network
    assert isinstance(student, OneStep)
    gains: list[Tensor] = []
    assert student.network.gain is not None
    student.network.gain.register_forward_hook(lambda *about: gains.append(about[2]))
    with torch.no_grad():
        student(torch.rand(8, 3, 16, 16))
    assert 0 < float(gains[0].mean()) < 1  # of weights by chance: what it changes is of no use
    assert len(set(gains[0].flatten().tolist())) > 1


def test_no_gradient_step_moves_a_gain():
    """Thirty steps towards targets that are the photos would take it to 0, and all that the student can with it."""
    network = lively(LAYOUT.model_copy(update={"mean_colour": False}))
    assert not any(name.startswith("gain") for name, _ in network.named_parameters())
    assert {"gain.weigh.weight", "gain.weigh.bias"} <= network.state_dict().keys()


def test_pairs_for_a_gain_that_is_not_there_are_refused():
    with pytest.raises(ValidationError, match="gain_pairs: needs a network with output_gain"):
        OneStepTrainingSettings.model_validate({
            "network": LAYOUT.plain.model_dump(), "steps": 1, "batch": 1, "size": 16, "learning_rate": 1e-3,
            "gain_pairs": 4,
        })  # fmt: skip


def test_a_file_says_by_its_names_that_it_has_them():
    network = lively()
    found = unet_settings(network.state_dict(), 16)
    assert (found.mean_colour, found.output_gain) == (True, True)
    assert unet_settings(UNet(LAYOUT.model_copy(update={"mean_colour": False})).state_dict(), 16).mean_colour is False


def test_colours_are_carried_over_into_another_layout_and_the_gain_into_a_copy():
    network = lively()
    bigger = LAYOUT.model_copy(update={"image_size": 32, "channel_mult": [1, 1, 2], "num_res_blocks": [0, 0, 1]})
    thinner = LAYOUT.model_copy(update={"channel_mult": [1, 1]})
    for made in (grown(network, bigger), thinned(network, thinner), thinned(network, LAYOUT)):
        state = made.state_dict()
        for name, value in network.state_dict().items():
            if name.startswith("colour."):
                torch.testing.assert_close(state[name], value, rtol=0, atol=0)
        same = torch.equal(state["gain.weigh.weight"], network.state_dict()["gain.weigh.weight"])
        assert same == (made.settings == LAYOUT)  # it was fitted to these very maps


def test_a_training_takes_the_colours_of_its_faces_and_goes_on_with_those_of_its_start(tmp_path: Path):
    generator = torch.Generator().manual_seed(5)
    faces = (torch.rand(6, 3, 16, 16, generator=generator) * 255).to(torch.uint8)
    settings = PriorSettings.model_validate({
        "network": LAYOUT.model_dump(), "phases": [{"steps": 1, "size": 16, "batch": 2}], "warmup": 0,
    })  # fmt: skip
    wanted = (faces.float() / 127.5 - 1).mean(dim=(0, 2, 3))
    plain = lively(LAYOUT.plain)
    with Run(tmp_path / "a", recipe="", digest="x") as run:
        state = train_prior(settings, faces, on_cpu(run), start=plain)
    torch.testing.assert_close(state["colour.mean"], wanted)
    assert float(state["colour.told.bias"].abs().max()) > 0  # it learns
    started = UNet(LAYOUT)
    started.load_state_dict(state)
    with Run(tmp_path / "b", recipe="", digest="x") as run:
        again = train_prior(settings, faces // 2, on_cpu(run), start=started)
    torch.testing.assert_close(again["colour.mean"], wanted)


def test_a_student_with_both_is_exported_with_them(tmp_path: Path, gen: torch.Generator):
    student = OneStep(OneStepSettings(network=LAYOUT))
    student.network = lively()
    restorer = Restorer("x", "onestep", student.settings, student.eval())
    export_bundle(restorer, tmp_path / "bundle", source={"weights": "x"})
    model = load_bundle(tmp_path / "bundle")
    for size in ((2, 3, 16, 16), (1, 3, 37, 30)):
        photo = torch.rand(size, generator=gen)
        torch.testing.assert_close(model(photo), restorer(photo), rtol=0, atol=2e-5)


def test_the_packs_networks_have_them():
    assert load_prior("tiny").settings.mean_colour
    student = load_restorer("tiny/onestep").network
    assert isinstance(student, OneStep)
    assert student.network.gain is not None
    assert float(student.network.gain.weigh.weight.abs().max()) > 0


def test_a_verdict_knows_damage_by_the_student_without_its_gain():
    """What a gain leaves of slight damage would be in no trial, and a model that changes nothing would pass."""
    photo = read_image(find_photos(KNOWN)[0].path)  # hardly damaged
    student, evaluator = load_restorer("tiny"), load_evaluator("tiny", torch.device("cpu"))
    assert evaluator.reference is not None
    full = evaluator.clean(photo, photo)
    held = student(photo[None])[0]
    assert float((full - photo).square().mean()) > 2 * float((held - photo).square().mean())
