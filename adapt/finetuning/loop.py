"""Fine-tuning: photo in, target out, with a discriminator beside, and the better of old and new kept as `best`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adapt.devices import as_float32, autocast, join_processes
from adapt.faces.recogniser import FaceIdentifier
from adapt.finetuning.data import ImageDataset, Split
from adapt.finetuning.discriminators import AsBytes, DiscriminatorTraining, build_discriminator, first_steps
from adapt.finetuning.image_losses import AdversarialTerm, Photos
from adapt.finetuning.objectives import OBJECTIVES, Objective
from adapt.finetuning.outcome import CheckpointSelector, Outcome, few_photos
from adapt.finetuning.replay import Replay
from adapt.finetuning.state import State
from adapt.finetuning.transplant import transplant
from adapt.intervals import Interval, mean_interval
from adapt.restorers.base import Restorer
from adapt.settings import CodeFinetuneSettings, FinetuneSettings, TuningSettings
from adapt.settings.paths import BEST
from adapt.training.adversary import last_layer
from adapt.training.code_losses import Teacher
from adapt.training.context import TrainingContext
from adapt.training.ema import Ema
from adapt.training.losses import Distance
from adapt.training.rates import cosine
from adapt.training.run import Run
from adapt.training.sampling import batch_indices, step_generator
from adapt.training.state import check_finite

OnSamples = Callable[[int, list[str], list[Tensor]], None]

EVALUATION_BATCH = 8
SAMPLE_ROWS = 8
LOG_EVERY = 10


def finetune(
    restorer: Restorer,
    train: Split,
    validation: Split,
    *,
    settings: FinetuneSettings | CodeFinetuneSettings,
    distance: Distance,
    context: TrainingContext,
    teacher: Teacher | None = None,
    recogniser: FaceIdentifier | None = None,
    real: ImageDataset | None = None,
    replay: Replay | None = None,
    selector: CheckpointSelector | None = None,
    discriminator: Mapping[str, Tensor] | None = None,
    on_samples: OnSamples | None = None,
) -> Outcome:
    """Fine-tune a restorer, or go on where the run folder stands.

    Args:
        restorer: what to start from; its network is trained in place.
        train, validation: pairs trained on, and pairs that only choose `best`.
        settings: the recipe.
        distance: the perceptual distance.
        context: its run, device and progress.
        teacher: what gives the codes of targets, where the recipe's objective is codes.
        recogniser: what tells faces apart, where the recipe gives `face_identity` a weight.
        real: sharp faces for the discriminator; the accepted targets themselves, unpaired, where None. DT-BFR takes
            70,000 FFHQ photographs.
        replay: pairs of clean faces to mix in; none where None. They are no photos that could be held back.
        selector: what chooses `best`; their agreement with the targets does where None.
        discriminator: weights that it begins with; drawn at random where None.
        on_samples: called with step, ids and rows (photo, base, adapted, target) at every evaluation.

    Raises:
        PhotoError: a photo or a target cannot be read or is not square.
        TrainingError: a loss is not finite; the last state is kept.
        UsageError: a restorer that does not offer what the objective needs.
    """
    run, device = context.run, context.device
    accelerator = join_processes(device)
    if isinstance(teacher, nn.Module):
        teacher.to(device).eval()
    if recogniser is not None:
        recogniser.to(device)
    objective = OBJECTIVES[settings.objective](settings, restorer, distance, teacher, recogniser)
    module = objective.module()
    state = _fresh(restorer, settings, discriminator)
    splits = (train, validation)
    resized = {split.ids[index]: times for split in splits for index, times in split.photos.resized().items()}
    resized_targets = len(train.targets.resized()) + len(validation.targets.resized())
    last = run.folder / "last" / "state.pt"
    state.network.to(device)
    if state.discriminator is not None:
        state.discriminator.to(device)
    base_rows = _restored(state.network, validation.photos, range(min(SAMPLE_ROWS, len(validation.ids))), device)
    if selector is not None:
        judged = selector.judged(len(validation.ids))
        selector.begin(validation.photos.batch(judged), partial(_images, state.network, device))
    begun = last.exists()
    if begun:
        state.load(last, run.digest)
    else:
        scores = _score(module, validation, objective, device)
        state.base_each = state.best_each = scores["total"]
        state.base_parts = state.best_parts = _means(scores)
        state.base_score = state.best_score = state.base_parts["total"]
        if accelerator.is_main_process:
            restorer.save(run.place(BEST), metadata={"step": "0"})
    if accelerator.is_main_process:
        run.rewind(state.step)
    state.ema.shadow = {key: value.to(device) for key, value in state.ema.shadow.items()}
    network, optimizer = accelerator.prepare(_InTraining(module), state.optimizer)
    rank, world = accelerator.process_index, accelerator.num_processes
    reals = train.targets if real is None else real
    adversary = gan = None
    if state.discriminator is not None and state.discriminator_optimizer is not None:
        judge, its_optimizer = accelerator.prepare(state.discriminator, state.discriminator_optimizer)
        adversary = DiscriminatorTraining(settings, judge, its_optimizer, accelerator, device)
        gan = AdversarialTerm(adversary.generator_loss, last_layer(state.network) if settings.balanced else None)
        if not begun:
            _first_steps(adversary, module, objective, train.photos, reals)
    stop = context.stop(state.step, settings.steps)
    network.train()

    for step in range(state.step, stop):
        generator = step_generator(settings.seed, step, rank)
        chosen = batch_indices(settings.seed, step * world + rank, batch=settings.batch, count=len(train.ids))
        own, targets = train.photos.batch(chosen), train.any_targets(chosen, generator)
        photos = own
        if settings.transplant:
            photos, targets = transplant(
                (photos, targets), train, chosen, share=settings.transplant, generator=generator
            )
        if replay is not None:
            photos, targets = replay.mix(photos, targets, generator)
        made_up = (photos != own).flatten(1).any(dim=1)  # of such a photo nobody has estimated the blur
        blur = torch.tensor([train.blur[index] for index in chosen]).masked_fill(made_up, math.nan)
        if settings.flips:
            photos, targets = _mirrored(photos, targets, generator)
        photos, targets = photos.to(device), targets.to(device)
        for group in optimizer.param_groups:
            group["lr"] = cosine(
                step, settings.steps, first=settings.learning_rate, last=settings.final_learning_rate
            )

        if adversary is not None:
            adversary.network.requires_grad_(False)  # the generator's loss must not reach the discriminator (FACTS 4.1)
        with autocast(device):
            output = as_float32(network(photos))
            total, parts = objective.losses(output, targets, gan, Photos(photos, blur.to(device)))
        check_finite(parts, step)
        accelerator.backward(total)
        accelerator.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        values = {name: part.detach().mean().item() for name, part in parts.items()}

        if adversary is not None:
            picked = torch.randint(len(reals), (len(photos),), generator=generator).tolist()
            values["discriminator"] = adversary.learn(reals.batch(picked), objective.image(output), step)

        state.ema.update(state.network, step)
        state.step = step + 1
        due = state.step % settings.evaluate_every == 0 or state.step == settings.steps
        if accelerator.is_main_process and (step % LOG_EVERY == 0 or due):
            run.log(step, values)
        if context.on_step is not None and accelerator.is_main_process:
            context.on_step(state.step, settings.steps, values)
        if due:  # in every process: all have the same weights, and all must know which are the best
            written = run if accelerator.is_main_process else None
            _evaluate(restorer, state, validation, objective, written, device, selector)
            if on_samples is not None and accelerator.is_main_process:
                on_samples(state.step, *_samples(restorer, state, validation, base_rows, device))
            network.train()
        if accelerator.is_main_process and (due or state.step == stop):
            state.save(run.place("last/state.pt"), run.digest)
    return Outcome(
        improved=state.best_step > 0,
        best_step=state.best_step,
        base=state.base_parts,
        best=state.best_parts,
        gain=_gain(state),
        trained=len(train.ids),
        validation=len(validation.ids),
        resized=len(resized),
        resized_targets=resized_targets,
        enlarged={id: times for id, times in resized.items() if times is not None},
        warning=few_photos(settings, len(train.ids) + len(validation.ids)),
        evidence=None if selector is None else state.best_gain,
    )


def _fresh(restorer: Restorer, settings: TuningSettings, start: Mapping[str, Tensor] | None) -> State:
    """The state before the first step."""
    optimizer = torch.optim.AdamW(
        restorer.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    discriminator = build_discriminator(settings, restorer.size, start) or (None, None)
    return State(restorer.network, Ema(restorer.network, settings.ema), optimizer, *discriminator)


@torch.no_grad()
def _first_steps(
    adversary: DiscriminatorTraining, module: nn.Module, objective: Objective, photos: ImageDataset, reals: ImageDataset
) -> None:
    """The discriminator's own first steps, on real images and on what the restorer makes of photos as it is."""
    accelerator = adversary.accelerator
    steps = list(
        first_steps(
            adversary.settings, rank=accelerator.process_index, world=accelerator.num_processes, photos=len(photos),
            reals=len(reals),
        )
    )  # fmt: skip
    module.eval()
    seen = sorted({index for fakes, _ in steps for index in fakes})
    made = AsBytes()
    for first in range(0, len(seen), EVALUATION_BATCH):
        some = seen[first : first + EVALUATION_BATCH]
        made.keep(some, objective.image(module(photos.batch(some).to(adversary.device))).clamp(0, 1))
    for fakes, picked in steps:
        with torch.enable_grad():
            adversary.learn(reals.batch(picked), made.batch(fakes), 0)


def _mirrored(photos: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of pairs, each mirrored or not as a whole."""
    turned = (torch.rand(len(photos), generator=generator) < 0.5).view(-1, 1, 1, 1)
    return torch.where(turned, photos.flip(-1), photos), torch.where(turned, targets.flip(-1), targets)


@torch.no_grad()
def _restored(network: nn.Module, photos: ImageDataset, indices: Sequence[int], device: torch.device) -> Tensor:
    """Restored photos on the CPU, clamped, (N, 3, H, W)."""
    network.eval()
    return torch.cat(
        [
            _images(network, device, photos.batch(indices[first : first + EVALUATION_BATCH]))
            for first in range(0, len(indices), EVALUATION_BATCH)
        ]
    )


@torch.no_grad()
def _images(network: nn.Module, device: torch.device, photos: Tensor) -> Tensor:
    """What a network in evaluation makes of a few photos, (B, 3, H, W) in [0, 1], on the CPU, clamped."""
    return network(photos.to(device)).float().clamp(0, 1).cpu()


@torch.no_grad()
def _score(module: nn.Module, validation: Split, objective: Objective, device: torch.device) -> dict[str, list[float]]:
    """Scores on each validation photo, by part: means over all its targets."""
    module.eval()
    pairs = [(index, target) for index, draws in enumerate(validation.draws) for target in draws]
    scores: dict[str, list[float]] = {}
    for first in range(0, len(pairs), EVALUATION_BATCH):
        indices, targets = zip(*pairs[first : first + EVALUATION_BATCH], strict=True)
        output = module(validation.photos.batch(indices).to(device))
        for name, values in objective.score(output, validation.targets.batch(targets).to(device)).items():
            each = scores.setdefault(name, [0.0] * len(validation.ids))
            for index, value in zip(indices, values.tolist(), strict=True):
                each[index] += value / len(validation.draws[index])
    return scores


def _means(scores: dict[str, list[float]]) -> dict[str, float]:
    return {name: math.fsum(each) / len(each) for name, each in scores.items()}


def _gain(state: State) -> Interval | None:
    """By how much the score fell, photo by photo."""
    if not state.best_step:
        return None
    return mean_interval([base - best for base, best in zip(state.base_each, state.best_each, strict=True)])


class _InTraining(nn.Module):
    """What accelerate prepares in place of the network: it gives what it is given another forward, in half precision on
    a GPU, and the scores that choose `best` are all of the network itself, in float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, photos: Tensor) -> Any:
        return self.module(photos)


class _Averaged:
    """The network with its averaged weights, for the length of a `with`."""

    def __init__(self, network: nn.Module, ema: Ema) -> None:
        self.network = network
        self.ema = ema
        self.own: dict[str, Tensor] = {}

    def __enter__(self) -> nn.Module:
        self.own = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.ema.shadow)
        return self.network

    def __exit__(self, *exception: object) -> None:
        self.network.load_state_dict(self.own)


def _evaluate(
    restorer: Restorer,
    state: State,
    validation: Split,
    objective: Objective,
    run: Run | None,
    device: torch.device,
    selector: CheckpointSelector | None,
) -> None:
    """Score the averaged weights; with a run, log the scores and write weights that are the best so far."""
    with _Averaged(state.network, state.ema):
        scores = _score(objective.module(), validation, objective, device)
        parts = _means(scores)
        told = dict(parts)
        gain = state.best_score - parts["total"]
        if selector is not None:
            state.network.eval()
            told["evidence"] = selector.gain(partial(_images, state.network, device))
            gain = told["evidence"] - state.best_gain
        if run is not None:
            run.log(state.step - 1, {f"validation/{name}": value for name, value in told.items()})
        if gain > 0:
            state.best_gain = told.get("evidence", 0.0)
            state.best_score, state.best_step, state.best_parts = parts["total"], state.step, parts
            state.best_each = scores["total"]
            if run is not None:
                restorer.save(run.place(BEST), metadata={"step": str(state.step)})


def _samples(
    restorer: Restorer, state: State, validation: Split, base: Tensor, device: torch.device
) -> tuple[list[str], list[Tensor]]:
    """Ids and rows (photo, base, adapted, target), each (4, 3, H, W), of the first validation photos."""
    indices = range(len(base))
    with _Averaged(state.network, state.ema) as network:
        adapted = _restored(network, validation.photos, indices, device)
    stacked = torch.stack([validation.photos.batch(indices), base, adapted, validation.first_targets(indices)], dim=1)
    return validation.ids[: len(base)], list(stacked)
