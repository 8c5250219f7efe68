"""Training of the guidance adjuster, on a prior in closed form: faces are Gaussian, their denoiser a filter."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from knobs import settings_of
from networks import on_cpu
from PIL import Image
from torch import Tensor

from adapt.blur.adjuster import GuidanceAdjuster, build_adjuster
from adapt.blur.estimator import BlurNetwork
from adapt.commands.pretrain import pretrain
from adapt.commands.trainings import load_frozen_models
from adapt.diffusion.prior import Prior
from adapt.diffusion.schedule import linear_schedule
from adapt.diffusion.solvers import Ancestral
from adapt.diffusion.steps import steps_through
from adapt.diffusion.unet import UNet
from adapt.errors import UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.loading import load_adjuster, load_blur_estimator, load_restorer
from adapt.packs.pack import add_network, load_pack
from adapt.perceptual.distance import PerceptualDistance
from adapt.perceptual.network import PerceptualNetwork
from adapt.pretraining.adjuster import (
    FrozenModels,
    adjuster_layout,
    draw_batch,
    initialise,
    judge,
    maps_over_time,
    step_back,
    train_adjuster,
)
from adapt.settings import (
    AdjusterNetworkSettings,
    AdjusterSettings,
    BlindSettings,
    BlurNetworkSettings,
    SwinIRSettings,
    UNetSettings,
)
from adapt.training.loop import StepContext
from adapt.training.run import Run
from adapt.training.sampling import step_generator
from adapt.weights import read_state
from degradations.cosines import gaussian_blur

SIZE = 16
UNET = UNetSettings(
    image_size=SIZE, model_channels=32, channel_mult=[1], num_res_blocks=[0], attention_resolutions=[],
    num_head_channels=32,
)
SETTINGS = AdjusterSettings(
    features=8, steps=4, first_stage=2, batch=3, size=SIZE, learning_rate=1e-2, ema=0.0, blur_std=(10.0, 60.0),
    perceptual=1.0, save_every=1,
)


class GaussianFaces(UNet):
    """The exact noise predictor of stationary Gaussian images; no weights but the time embedding's are used."""

    power: Tensor

    def __init__(self) -> None:
        super().__init__(UNET)
        line = torch.fft.fftfreq(SIZE) * SIZE
        self.power = 16 / (1 + torch.hypot(line[:, None], line[None, :])) ** 3
        self.asked: list[list[int]] = []

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append(timesteps.tolist())
        abar = linear_schedule().abar[timesteps].view(-1, 1, 1, 1).to(x)
        gain = abar.sqrt() * self.power / (abar * self.power + 1 - abar)
        x0 = torch.fft.ifft2(gain * torch.fft.fft2(x)).real
        noise = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        return torch.cat([noise, torch.zeros_like(noise)], dim=1)


def blur(images: Tensor, std: Tensor) -> Tensor:
    """A circular Gaussian, by its spectrum."""
    line = torch.fft.fftfreq(SIZE)
    squared = line[:, None].square() + line[None, :].square()
    kept = torch.exp(-2 * torch.pi**2 * std.view(-1, 1, 1, 1) ** 2 * squared)
    return torch.fft.ifft2(kept * torch.fft.fft2(images)).real


def gradient(x_t: Tensor, x0: Tensor, guidance: Tensor, std: Tensor) -> Tensor:
    return torch.autograd.grad((blur(x0, std) - guidance).square().sum(), x_t)[0]


def frozen_models(**changes: Any) -> FrozenModels:
    generator = torch.Generator().manual_seed(7)
    prior, perceptual = GaussianFaces(), PerceptualNetwork([8, 8])
    with torch.no_grad():
        for parameter in [*prior.time_embed.parameters(), *perceptual.parameters()]:
            parameter.normal_(std=0.2, generator=generator)
    around = FrozenModels(
        prior=Prior("closed form", UNET, prior.eval().requires_grad_(False)),
        blur=blur,
        gradient=gradient,
        start_t=lambda std: 300,
        distance=PerceptualDistance("stand-in", "", perceptual),
        mapping=lambda damaged: (damaged.flip(-2), torch.full((len(damaged),), 1.5)),
    )
    return replace(around, **changes)


@pytest.fixture(scope="module")
def faces() -> Tensor:
    return smooth_images((12, SIZE, SIZE), seed=1).mul(255).round().byte()


def step_of(step: int) -> StepContext:
    return StepContext(step, step, 0, 1, torch.device("cpu"), step_generator(SETTINGS.seed, step))


def trained(settings: AdjusterSettings, faces: Tensor, folder: Path, **changes: Any) -> dict[str, Tensor]:
    with Run(folder, recipe="", digest="x") as run:
        return train_adjuster(settings, faces, on_cpu(run), around=frozen_models(**changes))


# ---------------------------------------------------------------- a step of the training


def test_timesteps_cover_one_to_the_start_and_end_a_stride_below(faces: Tensor):
    around = frozen_models(start_t=lambda std: 5)
    settings = SETTINGS.model_copy(update={"batch": 12, "stride": 2})
    batches = [draw_batch(settings, faces, around, step=step_of(step % 4)) for step in range(4)]
    turns = [replace(step_of(0), generator=step_generator(9, n)) for n in range(20)]
    drawn = [draw_batch(settings, faces, around, step=each) for each in turns]
    t = torch.cat([batch.t for batch in drawn])
    assert sorted(set(t.tolist())) == [1, 2, 3, 4, 5]
    for step, after in [steps for batch in [*batches, *drawn] for steps in batch.steps]:
        assert step.t_prev == after.t == max(step.t - 2, 0)


def test_the_face_is_noised_to_its_own_level(faces: Tensor):
    """What is left after the face is taken away has the schedule's variance at each photo's timestep."""
    batch = draw_batch(SETTINGS.model_copy(update={"batch": 12}), faces, frozen_models(), step=step_of(0))
    abar = linear_schedule().abar[batch.t]
    noise = batch.x_t.double() - abar.sqrt().view(-1, 1, 1, 1) * batch.clean
    share = noise.square().mean(dim=(1, 2, 3)) / (1 - abar)
    assert torch.allclose(share, torch.ones_like(share), atol=5 * (2 / noise[0].numel()) ** 0.5)


def test_the_unguided_step_is_the_samplers(faces: Tensor):
    """Against the sampler's own step, photo by photo, where each is at a timestep of its own."""
    around = frozen_models()
    settings = SETTINGS.model_copy(update={"stride": 7, "batch": 6})
    batch = draw_batch(settings, faces, around, step=step_of(0))
    x0, sample, _ = step_back(around, batch)
    assert len(set(batch.t.tolist())) > 1
    for i, t in enumerate(batch.t.tolist()):
        step = steps_through(sorted({0, max(t - 7, 0), t}))[0]
        noisy, noise = batch.x_t[i : i + 1], batch.noise[i : i + 1]
        prediction = around.prior.predict(noisy, step)
        expected, _ = Ancestral().step(prediction, noisy, step, memory=None, draw=lambda noise=noise: noise)
        torch.testing.assert_close(x0[i : i + 1], prediction.x0, rtol=0, atol=2e-5)
        torch.testing.assert_close(sample[i : i + 1], expected, rtol=0, atol=2e-5)


def test_the_gradient_goes_through_the_prior(faces: Tensor):
    """All maps are linear here: d/dx |B J x - g|^2 = 2 J B (B J x - g), with J the denoiser, which is symmetric."""
    around = frozen_models()
    dim = draw_batch(SETTINGS, faces, around, step=step_of(0))
    dim = replace(dim, x_t=dim.x_t * 0.05)  # so that the bounds of x0 are not reached
    _, _, found = step_back(around, dim)
    power = GaussianFaces().power
    abar = linear_schedule().abar[dim.t].view(-1, 1, 1, 1)
    gain = abar.sqrt() * power / (abar * power + 1 - abar)

    def denoise(x: Tensor) -> Tensor:
        return torch.fft.ifft2(gain * torch.fft.fft2(x.double())).real

    std = dim.std.double()
    expected = 2 * denoise(blur(blur(denoise(dim.x_t), std) - dim.guidance, std))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_sample_is_judged_by_a_second_evaluation_at_its_own_timestep(faces: Tensor):
    around = frozen_models()
    batch = draw_batch(SETTINGS, faces, around, step=step_of(0))
    _, sample, _ = step_back(around, batch)
    judge(SETTINGS, around, batch, sample=sample)
    asked = around.prior.network.asked  # pyright: ignore[reportAttributeAccessIssue]
    assert asked == [batch.t.tolist(), (batch.t - 1).tolist()]


def test_the_stages_differ_in_their_measurement(faces: Tensor):
    seen: list[Tensor] = []

    def mapping(damaged: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(damaged)
        return damaged * 0.5, torch.full((len(damaged),), 0.25)

    asked: list[float] = []

    def start_t(std: float) -> int:
        asked.append(std)
        return 300

    around = frozen_models(mapping=mapping, start_t=start_t)
    first = draw_batch(SETTINGS, faces, around, step=step_of(1))
    assert not seen
    low, high = (value * SIZE / 512 for value in SETTINGS.blur_std)
    assert bool(((first.std >= low) & (first.std <= high)).all())
    assert len(set(first.std.tolist())) == 3
    torch.testing.assert_close(first.guidance, blur(first.clean, first.std))
    second = draw_batch(SETTINGS, faces, around, step=step_of(2))
    assert len(seen) == 1
    torch.testing.assert_close(second.guidance, seen[0] - 1)
    assert second.std.tolist() == [0.25] * 3
    assert asked == first.std.tolist() + second.std.tolist()
    assert float((seen[0] * 2 - 1 - second.clean).abs().mean()) > 0.01  # the photo is damaged, the truth is not


# ---------------------------------------------------------------- training


class SquaredError(torch.nn.Module):
    """A distance whose optimum is known to be near the truth, which that of random features is not."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return 100 * (a - b).square().mean(dim=(1, 2, 3))


def test_training_makes_the_map_better_than_any_one_number(faces: Tensor, tmp_path: Path):
    """On a batch that is never trained on: lower than at the start, and than under every uniform scale."""
    settings = SETTINGS.model_copy(
        update={"steps": 120, "first_stage": 120, "batch": 8, "warmup": 10, "save_every": 120, "stride": 50,
                "blur_std": (10.0, 20.0)}
    )
    squared = PerceptualDistance("squared error", "", SquaredError())
    around = frozen_models(distance=squared)
    held_out = replace(step_of(0), generator=step_generator(123, 0))
    batch = draw_batch(settings.model_copy(update={"batch": 96}), faces, around, step=held_out)
    x0, sample, towards = step_back(around, batch)

    @torch.no_grad()
    def loss(scale: Tensor | float) -> float:
        wavelet, perceptual = judge(settings, around, batch, sample=sample - scale * towards)
        return float(wavelet + settings.perceptual * perceptual)

    start = GuidanceAdjuster(adjuster_layout(settings, around.prior))
    initialise(start, settings.seed)
    start.copy_time_embedding(around.prior.network)
    learned = build_adjuster("learned", trained(settings, faces, tmp_path / "run", distance=squared), {})
    before, after = (loss(network(batch.guidance, x0, batch.t)) for network in (start, learned))
    uniform = min(loss(tenth / 10) for tenth in range(11))
    assert after < 0.99 * before
    assert after < 0.995 * uniform
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"step", "swt", "squared error", "map"}
    first, last = (sum(row["squared error"] for row in part) for part in (rows[:3], rows[-3:]))
    assert last < first


def test_stop_and_resume_is_exact(faces: Tensor, tmp_path: Path):
    whole = trained(SETTINGS, faces, tmp_path / "whole")
    parts: dict[str, Tensor] = {}
    for _ in range(4):
        with Run(tmp_path / "parts", recipe="", digest="x") as run:
            parts = train_adjuster(SETTINGS, faces, on_cpu(run, max_steps=1), around=frozen_models())
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert (tmp_path / "whole" / "log.jsonl").read_text() == (tmp_path / "parts" / "log.jsonl").read_text()


def test_the_second_stage_changes_what_is_learned(faces: Tensor, tmp_path: Path):
    one, both = (
        trained(SETTINGS.model_copy(update={"first_stage": first}), faces, tmp_path / str(first)) for first in (4, 2)
    )
    assert not torch.equal(one["last.weight"], both["last.weight"])


def test_the_gradient_reaches_only_the_adjuster(faces: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reached: dict[str, bool] = {}
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: Any) -> Any:
        reached.update(
            {str(i): p.grad is not None and bool(p.grad.any()) for i, p in enumerate(self.param_groups[0]["params"])}
        )
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    around = frozen_models()
    frozen = [*around.prior.network.parameters(), *around.distance.module.parameters()]
    kept = [parameter.clone() for parameter in frozen]
    with Run(tmp_path / "run", recipe="", digest="x") as run:
        state = train_adjuster(SETTINGS, faces, on_cpu(run), around=around)
    assert all(parameter.grad is None for parameter in frozen)
    assert all(torch.equal(parameter, old) for parameter, old in zip(frozen, kept, strict=True))
    names = [name for name, _ in GuidanceAdjuster(adjuster_layout(SETTINGS, around.prior)).named_parameters()]
    assert {names[int(i)] for i, hit in reached.items() if not hit} == {n for n in names if n.startswith("time_embed")}
    for key, value in around.prior.network.state_dict().items():
        if key.startswith("time_embed"):
            assert torch.equal(state[key], value)


KNOBS = {
    "features": 9, "steps": 3, "batch": 2, "learning_rate": 5e-3, "warmup": 3, "ema": 0.5, "seed": 1, "first_stage": 1,
    "stride": 30, "blur_std": (10.0, 20.0), "degradation": BlindSettings(noise=(60.0, 60.0)), "wavelet": "haar",
    "bands": (0.0, 0.01, 0.01, 1.0), "perceptual": 0.0,
}


@pytest.fixture(scope="module")
def usual(faces: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    return trained(SETTINGS, faces, tmp_path_factory.mktemp("usual") / "run")["last.bias"]


def test_every_setting_is_turned_below():
    """But for the size, which is that of the faces, the distance, chosen before, and how often a state is saved."""
    settings = settings_of(AdjusterSettings, "kind", "size", "save_every", "distance")
    within = {name.partition(".")[0] for name in settings}
    assert set(KNOBS) == within


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(knob: str, faces: Tensor, usual: Tensor, tmp_path: Path):
    turned = trained(SETTINGS.model_copy(update={knob: KNOBS[knob]}), faces, tmp_path / "turned")["last.bias"]
    assert not torch.equal(turned, usual)


def test_what_is_missing_is_named(faces: Tensor, tmp_path: Path):
    with pytest.raises(UsageError, match=r"first_stage: 2 steps are left .* blur estimator; .* set first_stage=4"):
        trained(SETTINGS, faces, tmp_path / "a", mapping=None)
    with pytest.raises(UsageError, match=r"size: the recipe is for images of 32 pixels, .* set size=16"):
        trained(SETTINGS.model_copy(update={"size": 32}), faces, tmp_path / "b")
    prior = Prior("other", UNET, torch.nn.Conv2d(3, 6, 1))
    with pytest.raises(WeightsError, match="expected a prior in the public U-Net layout, got Conv2d"):
        trained(SETTINGS, faces, tmp_path / "c", prior=prior)


def test_maps_are_shown_over_time(faces: Tensor):
    network = GuidanceAdjuster(adjuster_layout(SETTINGS, frozen_models().prior))
    initialise(network, 0)
    face = faces[0].float() / 255
    shown = maps_over_time(network, face, frozen_models(), timesteps=(800, 400, 1))
    assert [seen.t for seen in shown] == [800, 400, 1]
    for _, image, scale in shown:
        assert image.shape == scale.shape == face.shape
        assert 0 <= float(scale.min()) <= float(scale.max()) <= 1
    distance = [float((image - face).abs().mean()) for _, image, _ in shown]
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 0.02


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def pack(small_pack: Path, small_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small pack with a start-step table."""
    folder = tmp_path_factory.mktemp("adjuster") / "small"
    shutil.copytree(small_pack, folder)
    recipe = folder.parent / "table.yaml"
    recipe.write_text(f"kind: pretrain-start-steps\nsize: {SIZE}\n")
    pretrain(str(recipe), small_photos, folder.parent / "table", pack=str(folder), add_to=folder)
    return folder


@pytest.fixture(scope="module")
def whole_pack(pack: Path) -> Path:
    """The same with a blur estimator, untrained."""
    folder = pack.parent / "whole"
    shutil.copytree(pack, folder)
    transfer = SwinIRSettings(
        img_size=4, embed_dim=12, depths=[2], num_heads=[2], window_size=4, sf=4, num_feat=8, unshuffle=True,
        unshuffle_scale=4,
    )
    layout = BlurNetworkSettings(size=SIZE, transfer=transfer, channels=[4, 4, 4])
    header = {"architecture": "blur-estimator", "settings": layout.model_dump_json()}
    about = {"architecture": "blur-estimator", "licence": "none", "source": "a test", "trained": "not at all"}
    add_network(folder, "blur-estimator", BlurNetwork(layout).state_dict(), header=header, entry=about)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"kind: pretrain-guidance-adjuster\nfeatures: 8\nsteps: 3\nfirst_stage: 2\nbatch: 2\nsize: {SIZE}\n"
        "learning_rate: 1.0e-3\nwavelet: haar\n"
    )
    return str(path)


def test_the_command_trains_through_both_stages_and_enters_the_network(
    recipe: str, whole_pack: Path, small_photos: Path, tmp_path: Path
):
    mine = tmp_path / "pack"
    shutil.copytree(whole_pack, mine)
    seen: list[dict[str, float]] = []
    for steps in (2, None, None):  # stopped, gone on with, and asked for once more though the pack has changed
        weights = pretrain(
            recipe, small_photos, tmp_path / "run", pack=str(mine), add_to=mine, max_steps=steps,
            on_step=lambda done, total, values: seen.append(values),
        ).file
        assert (weights is None) == (steps == 2)
        assert ("guidance-adjuster" in load_pack(mine).card.networks) == (steps != 2)
        assert (tmp_path / "run" / "maps.jpg").exists() == (steps != 2), "no maps of an unfinished network"
    assert weights is not None
    assert [set(values) for values in seen] == [{"swt", "tiny-perceptual", "map"}] * 3
    state, metadata = read_state(weights)
    assert (metadata["architecture"], metadata["distance"]) == ("guidance-adjuster", "tiny-perceptual")
    for name in (weights, mine):
        network = load_adjuster(name)
        assert network.settings == AdjusterNetworkSettings(features=8, model_channels=32)
        assert torch.equal(network.last.weight.half(), state["last.weight"].half())
    with Image.open(tmp_path / "run" / "maps.jpg") as sheet:
        assert sheet.width > 5 * SIZE
        assert sheet.height > 6 * SIZE


def test_the_mapping_of_the_second_stage_blurs_the_restored_photo_and_not_the_photo(whole_pack: Path):
    settings = SETTINGS.model_copy(update={"first_stage": SETTINGS.steps - 1})
    mapping = load_frozen_models(load_pack(whole_pack), settings, torch.device("cpu")).mapping
    assert mapping is not None
    photos = smooth_images((2, SIZE, SIZE), seed=4)
    guides, std = mapping(photos)
    assert torch.equal(std, load_blur_estimator(whole_pack)(photos).std)
    torch.testing.assert_close(guides, gaussian_blur(load_restorer(str(whole_pack))(photos), std))


def test_what_a_pack_lacks_is_named(
    recipe: str, pack: Path, small_pack: Path, small_photos: Path, tmp_path: Path
):
    with pytest.raises(WeightsError, match="pack small: has no 'blur-estimator'"):
        pretrain(recipe, small_photos, tmp_path / "run", pack=str(pack))
    with pytest.raises(WeightsError, match="pack small: has no 'start-steps'"):
        pretrain(recipe, small_photos, tmp_path / "run", pack=str(small_pack))
    with pytest.raises(WeightsError, match="pack small: has no 'guidance-adjuster'"):
        load_adjuster(pack)
    pretrain(recipe, small_photos, tmp_path / "run", pack=str(pack), overrides=["first_stage=3"])
