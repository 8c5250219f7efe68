"""Pre-training of the guidance adjuster: DynFaceRestore Algorithm 2, in its two stages.

A face is noised to x_t and steps back once, guided towards a blurred measurement of it by the map that the adjuster
gives. The adjuster learns to make the prior's next clean image look like the face. In the first stage the measurement
is the face under a true Gaussian blur, in the second what the blur-level mapping makes of a degraded photo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from adapt.blur.adjuster import GuidanceAdjuster
from adapt.diffusion.prior import Prior
from adapt.diffusion.schedule import TIMESTEPS, noised
from adapt.diffusion.solvers import Ancestral
from adapt.diffusion.steps import Step, steps_through
from adapt.errors import UsageError
from adapt.guidance.maps import MapSnapshot, map_image
from adapt.images import to_signed, to_unit
from adapt.perceptual.distance import PerceptualDistance
from adapt.perceptual.swt import swt_loss
from adapt.pretraining.pairs import blind_pairs, blind_ranges, clean_images
from adapt.settings import AdjusterNetworkSettings, AdjusterSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.sampling import step_generator
from degradations.blind import PUBLISHED_SIZE

SHOWN_AT: Final = (900, 700, 500, 300, 100)  # timesteps at which maps are drawn
SHOWN_STD: Final = 5.0  # of the measurement's blur there, in pixels at 512
SHOWN_FACES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenModels:
    """What the adjuster is trained between. Everything is frozen and lives on the training's device.

    Attributes:
        prior: the diffusion prior.
        blur: images (B, 3, H, W) and std (B,) in pixels, to the images with that Gaussian blur.
        gradient: x_t, x0, guidance (B, 3, H, W) in [-1, 1] and std (B,), to what the sampler's map scales: the
            gradient with respect to x_t of the summed squares of the blurred x0 minus the guidance, as far as the
            sampler goes along it. x0 was computed from x_t with autograd on.
        start_t: std in pixels to the timestep at which the sampler would start.
        distance: DISTS where its weights are at hand, else the pack's own; the log has its numbers under its name.
        mapping: degraded photos in [0, 1] to their measurement in [0, 1] and its std (B,) in pixels; only the second
            stage needs it.
    """

    prior: Prior
    blur: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    start_t: Callable[[float], int]
    distance: PerceptualDistance
    mapping: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True, slots=True)
class NoisyBatch:
    """A batch in the middle of sampling, every photo at a timestep of its own.

    Attributes:
        clean: the faces, (B, 3, H, W) in [-1, 1].
        guidance, std: their measurement in [-1, 1] and its blur (B,) in pixels.
        steps: for each photo the step to be taken, and the step after it.
        x_t: the faces noised to the first of them.
        noise: standard normal, for the step.
    """

    clean: Tensor
    guidance: Tensor
    std: Tensor
    steps: Sequence[tuple[Step, Step]]
    x_t: Tensor
    noise: Tensor

    @property
    def t(self) -> Tensor:
        """Timesteps (B,) before the step."""
        return torch.tensor([step.t for step, _ in self.steps], device=self.x_t.device)


def train_adjuster(
    settings: AdjusterSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    around: FrozenModels,
) -> dict[str, Tensor]:
    """Train the adjuster, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        around: the frozen networks and functions around it.

    Returns:
        The averaged weights of a network with `adjuster_layout`.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: a second stage without a mapping, or a prior for images of another size.
        WeightsError: a prior that is not a U-Net in the public layout.
    """
    check_frozen_models(settings, around)
    network = GuidanceAdjuster(adjuster_layout(settings, around.prior))
    initialise(network, settings.seed)
    network.copy_time_embedding(around.prior.network)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        batch = draw_batch(settings, faces, around, step=step)
        x0, sample, gradient = step_back(around, batch)
        scale = forward(batch.guidance, x0, batch.t).float()
        wavelet, perceptual = judge(settings, around, batch, sample=sample - scale * gradient)
        parts = {"swt": wavelet, around.distance.name: perceptual, "map": scale.detach().mean()}
        return wavelet + settings.perceptual * perceptual, parts

    return train(network, losses, settings, context=context, steps=settings.steps)


def adjuster_layout(settings: AdjusterSettings, prior: Prior) -> AdjusterNetworkSettings:
    """The network that a recipe describes, for the prior whose time embedding it will hold."""
    return AdjusterNetworkSettings(features=settings.features, model_channels=prior.settings.model_channels)


def check_frozen_models(settings: AdjusterSettings, around: FrozenModels) -> None:
    """Raise UsageError where the recipe asks for what is not there."""
    if settings.size != around.prior.size:
        raise UsageError(
            f"size: the recipe is for images of {settings.size} pixels, the prior {around.prior.name} for"
            f" {around.prior.size}; choose another pack, or set size={around.prior.size}"
        )
    if settings.first_stage < settings.steps and around.mapping is None:
        raise UsageError(
            f"first_stage: {settings.steps - settings.first_stage} steps are left for the second stage, which needs the"
            f" pack's restorer and blur estimator; train the estimator first, or set first_stage={settings.steps}"
        )


def draw_batch(settings: AdjusterSettings, faces: Tensor, around: FrozenModels, *, step: StepContext) -> NoisyBatch:
    """The batch of one step (Algorithm 2, lines 3-6).

    Timesteps are drawn uniformly from 1 to the start step, so that the step ends at a timestep of the schedule; the
    paper's Uniform(0, t_start) includes a t at which nothing is left to do. `stride` is ours: the step ends that many
    timesteps lower (at 0 at the lowest), as in a sampler that takes fewer steps; the paper's is 1.
    """
    chosen = step.batch(faces, settings)
    draw = step.generator
    first = step.place < settings.first_stage
    if first or around.mapping is None:
        clean = clean_images(chosen, draw).to(step.device)
        low, high = (value * settings.size / PUBLISHED_SIZE for value in settings.blur_std)
        std = (low + (high - low) * torch.rand(len(clean), generator=draw)).to(step.device)
        measured = around.blur(clean, std)
    else:
        ranges = blind_ranges(settings.degradation, settings.size)
        damaged, clean = (part.to(step.device) for part in blind_pairs(chosen, ranges, draw))
        with torch.no_grad():
            measured, std = around.mapping(damaged)
    shares = torch.rand(len(clean), generator=draw).tolist()
    starts = [min(max(around.start_t(level), 1), TIMESTEPS - 1) for level in std.tolist()]
    steps = [_steps_at(1 + int(share * start), settings.stride) for share, start in zip(shares, starts, strict=True)]
    clean = to_signed(clean)
    noise, later = (torch.randn(clean.shape, generator=draw).to(clean) for _ in range(2))
    return NoisyBatch(
        clean=clean,
        guidance=to_signed(measured),
        std=std,
        steps=steps,
        x_t=_noised(clean, [step for step, _ in steps], noise),
        noise=later,
    )


def step_back(around: FrozenModels, batch: NoisyBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The step without guidance, and the guidance gradient (Algorithm 2, lines 7-9 and the gradient of line 11).

    Returns:
        x0 at t, in [-1, 1]; the sampler's ancestral sample x', with the learned variance, from the bounded x0; the
        gradient with respect to x_t. All (B, 3, H, W), without a graph.
    """
    steps = [step for step, _ in batch.steps]
    with torch.enable_grad():
        x_t = batch.x_t.detach().requires_grad_(True)
        predictions = around.prior.predict_each(x_t.split(1), steps)
        x0 = torch.cat([prediction.x0 for prediction in predictions])
        gradient = around.gradient(x_t, x0, batch.guidance, batch.std).detach()
    samples: list[Tensor] = []
    with torch.no_grad():
        for i, (prediction, step) in enumerate(zip(predictions, steps, strict=True)):
            noisy, noise = batch.x_t[i : i + 1], batch.noise[i : i + 1]
            sample, _ = Ancestral().step(prediction, noisy, step, memory=None, draw=partial(torch.clone, noise))
            samples.append(sample)
    return x0.detach(), torch.cat(samples), gradient


def judge(
    settings: AdjusterSettings, around: FrozenModels, batch: NoisyBatch, *, sample: Tensor
) -> tuple[Tensor, Tensor]:
    """The losses of a sample at t_prev, by the prior's clean image from it (Algorithm 2, lines 12-13; Eq. 24).

    The clean image needs the network at t_prev: a second evaluation, through which the gradient flows. Both losses
    are on images in [0, 1], and means; the paper names neither.

    Returns:
        The wavelet loss and the perceptual distance, each the mean over the batch.
    """
    x0 = _clean_image(around.prior, sample, [step for _, step in batch.steps])
    made, clean = to_unit(x0), to_unit(batch.clean)
    wavelet = swt_loss(made, clean, settings.bands, wavelet=settings.wavelet).mean()
    return wavelet, around.distance(made, clean).mean()


@torch.no_grad()
def maps_over_time(
    network: GuidanceAdjuster,
    face: Tensor,
    around: FrozenModels,
    *,
    timesteps: Sequence[int] = SHOWN_AT,
    std: float = SHOWN_STD,
    seed: int = 0,
) -> list[MapSnapshot]:
    """How the map changes as sampling goes on: Fig. 12 for a face whose truth is known.

    Args:
        network: the adjuster, on the device of `around`.
        face: the clean face, (3, H, W) in [0, 1].
        around: its prior and blur are used.
        timesteps: where to look; the face is noised to each, by one noise field.
        std: of the measurement's blur, in pixels at 512.
        seed: of the noise.

    Returns:
        What is seen at each timestep.
    """
    device = next(network.parameters()).device
    clean = face[None].to(device)
    level = torch.tensor([std * face.shape[-1] / PUBLISHED_SIZE], device=device)
    guidance = to_signed(around.blur(clean, level))
    noise = torch.randn(clean.shape, generator=step_generator(seed, 0)).to(clean)
    shown: list[MapSnapshot] = []
    for timestep in timesteps:
        step, _ = _steps_at(timestep, 1)
        x0 = _clean_image(around.prior, _noised(to_signed(clean), [step], noise), [step])
        scale = network(guidance, x0, torch.tensor([step.t], device=device))
        shown.append(MapSnapshot(step.t, to_unit(x0)[0].cpu(), map_image(scale[0]).cpu()))
    return shown


def initialise(network: GuidanceAdjuster, seed: int) -> None:
    """Draw the weights anew from the run's own generator: PyTorch's defaults come from a global one.

    The map starts near one half everywhere.
    """
    generator = step_generator(seed, 0, rank=-1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                bound = 1 / math.sqrt(math.prod(parameter.shape[1:]))
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.zero_()
        network.last.weight.mul_(0.1)
        network.last.bias.fill_(0.5)  # pyright: ignore[reportOptionalMemberAccess]


def _steps_at(t: int, stride: int) -> tuple[Step, Step]:
    """The step from timestep t, 1 to 999, to `stride` lower, or to 0; and the step after it."""
    step, after = steps_through([max(t - stride, 0), t])
    return step, after


def _clean_image(prior: Prior, x: Tensor, steps: Sequence[Step]) -> Tensor:
    """x0 in [-1, 1], every photo at its own step."""
    return torch.cat([prediction.x0 for prediction in prior.predict_each(x.split(1), steps)])


def _noised(clean: Tensor, steps: Sequence[Step], noise: Tensor) -> Tensor:
    """A draw of q(x_t | x_0), every photo at its own step."""
    drawn = [noised(face, step.abar, own) for face, step, own in zip(clean, steps, noise, strict=True)]
    return torch.stack(drawn)
