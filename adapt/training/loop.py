"""The training loop of the pack's networks but one; what differs is the loss of a step.

The perceptual network has a loop of its own: it changes what it trains on the way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from adapt.devices import as_float32, autocast, join_processes
from adapt.settings import PriorSettings, TrainingSettings
from adapt.training.context import Clock, TrainingContext
from adapt.training.ema import Ema
from adapt.training.rates import trapezoid
from adapt.training.sampling import batch_indices, step_generator
from adapt.training.state import check_finite, load_state, save_state

LOG_EVERY: Final = 10  # steps
GRADIENT_NORM: Final = 1.0  # gradients are clipped to it

Network = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class StepContext:
    """One step of one process.

    Attributes:
        index: counted from 0.
        place: which of the recipe's steps it counts as: the same, but where a training goes by the clock.
        rank, world: the process, and how many there are.
        device: where to compute.
        generator: the random numbers of this step and process, on the CPU.
    """

    index: int
    place: int
    rank: int
    world: int
    device: torch.device
    generator: torch.Generator

    def batch(self, faces: Tensor, settings: TrainingSettings) -> Tensor:
        """Its faces of (N, 3, S, S): epochs in shuffled order, laid end to end over steps and processes."""
        position = self.index * self.world + self.rank
        return faces[batch_indices(settings.seed, position, batch=settings.batch, count=len(faces))]


Losses = Callable[[Network, StepContext], tuple[Tensor, dict[str, Tensor]]]


def train(
    network: nn.Module,
    losses: Losses,
    settings: PriorSettings | TrainingSettings,
    *,
    context: TrainingContext,
    steps: int,
    resting: bool = False,
) -> dict[str, Tensor]:
    """Train a network, or go on where the run folder's `last/state.pt` stands.

    AdamW without weight decay, a trapezoid of learning rates, clipped gradients, bfloat16 where there is CUDA.

    Args:
        network: as initialised; trained in place.
        losses: of the network (under autocast) and a step, the loss to descend and its parts, for check and log.
        settings: learning rate, warm-up, EMA, seed, and how often to save.
        context: its run, device and progress.
        steps: of the whole training, where it does not go by the clock.
        resting: in some steps a part of the network has no share in the loss, which several processes must expect.

    Returns:
        The averaged weights so far, on the CPU.

    Raises:
        TrainingError: a part is not finite.
        UsageError: the state belongs to a run with other settings.
    """
    device = context.device
    accelerator = join_processes(device, resting=resting)
    network.to(device)
    ema = Ema(network, settings.ema)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    run = context.run
    state_path = run.folder / "last" / "state.pt"
    first, spent = 0, 0.0
    if state_path.exists():
        state = load_state(state_path, run.digest)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load(state["ema"])
        first, spent = state["step"], state.get("spent", 0.0)
    run.rewind(first)
    prepared, optimizer = accelerator.prepare(network, optimizer)
    ema.shadow = {key: value.to(device) for key, value in ema.shadow.items()}
    clock = Clock(steps, context.minutes, spent)
    stop = context.stop(first, sys.maxsize if context.minutes else steps)

    def forward(*inputs: Any) -> Any:
        with autocast(device):
            return as_float32(prepared(*inputs))

    def snapshot(step: int) -> dict[str, Any]:
        return {
            "network": accelerator.unwrap_model(prepared).state_dict(),
            "ema": ema.shadow,
            "optimizer": optimizer.state_dict(),
            "step": step,
            "spent": clock.spent,
            "digest": run.digest,
        }

    rank, world = accelerator.process_index, accelerator.num_processes
    step, place = first, clock.place(first)
    while step < stop and place < steps:
        for group in optimizer.param_groups:
            group["lr"] = trapezoid(place, steps, settings.learning_rate, warmup=settings.warmup)
        step_context = StepContext(step, place, rank, world, device, step_generator(settings.seed, step, rank))
        total, parts = losses(forward, step_context)
        check_finite(parts, step)
        accelerator.backward(total)
        accelerator.clip_grad_norm_(prepared.parameters(), GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(accelerator.unwrap_model(prepared), step)
        if accelerator.is_main_process:
            values = {name: part.item() for name, part in parts.items()}
            if step % LOG_EVERY == 0:
                run.log(step, values)
            if context.on_step is not None:
                context.on_step(step + 1, clock.total(step + 1), values)
        step, place = step + 1, clock.place(step + 1)
        if accelerator.is_main_process and (step % settings.save_every == 0 or step == stop or place >= steps):
            save_state(run.place("last/state.pt"), snapshot(step))
    run.stopped = (step, clock.total(step)) if place < steps else None
    return {key: value.cpu() for key, value in ema.shadow.items()}
