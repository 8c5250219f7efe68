"""The training loop of the pack's networks but one; what differs is the loss of a step.

The perceptual network has a loop of its own: it changes what it trains on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from adapt.runs import Run
from adapt.settings import PriorSettings, TrainingSettings
from adapt.training import Ema, batch_indices, check_finite, load_state, save_state, step_generator, trapezoid

LOG_EVERY: Final = 10  # steps
GRADIENT_NORM: Final = 1.0  # gradients are clipped to it

Progress = Callable[[int, int, dict[str, float]], None]
Network = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of one process.

    Attributes:
        step: counted from 0.
        rank, world: the process, and how many there are.
        device: where to compute.
        generator: the random numbers of this step and process, on the CPU.
    """

    step: int
    rank: int
    world: int
    device: torch.device
    generator: torch.Generator

    def batch(self, faces: Tensor, settings: TrainingSettings) -> Tensor:
        """Its faces of (N, 3, S, S): epochs in shuffled order, laid end to end over steps and processes."""
        position = self.step * self.world + self.rank
        return faces[batch_indices(settings.seed, position, batch=settings.batch, count=len(faces))]


Losses = Callable[[Network, Turn], tuple[Tensor, dict[str, Tensor]]]


def train(
    network: nn.Module,
    losses: Losses,
    settings: PriorSettings | TrainingSettings,
    *,
    run: Run,
    steps: int,
    resting: bool = False,
    on_step: Progress | None = None,
    max_steps: int | None = None,
) -> dict[str, Tensor]:
    """Train a network, or go on where the run folder's `last/state.pt` stands.

    AdamW without weight decay, a trapezoid of learning rates, clipped gradients, bfloat16 where there is CUDA.

    Args:
        network: as initialised; trained in place.
        losses: of the network (under autocast) and a turn, the loss to descend and its parts, for check and log.
        settings: learning rate, warm-up, EMA, seed, and how often to save.
        run: the open run folder.
        steps: of the whole training.
        resting: in some steps a part of the network has no share in the loss, which several processes must expect.
        on_step: called with step, steps and the parts.
        max_steps: stop (resumably) after so many steps of this call; `run.stopped` then says where.

    Returns:
        The averaged weights so far, on the CPU.

    Raises:
        TrainingError: a part is not finite.
        UsageError: the state belongs to a run with other settings.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    accelerator = Accelerator(
        mixed_precision="bf16" if torch.cuda.is_available() else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=resting)],
    )
    ema = Ema(network, settings.ema)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    state_path = run.folder / "last" / "state.pt"
    first = 0
    if state_path.exists():
        state = load_state(state_path, run.digest)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load(state["ema"])
        first = state["step"]
    run.rewind(first)
    prepared, optimizer = accelerator.prepare(network, optimizer)
    ema.shadow = {key: value.to(accelerator.device) for key, value in ema.shadow.items()}
    stop = steps if max_steps is None else min(steps, first + max_steps)

    def forward(*inputs: Any) -> Any:
        with accelerator.autocast():
            return prepared(*inputs)

    def snapshot(step: int) -> dict[str, Any]:
        return {
            "network": accelerator.unwrap_model(prepared).state_dict(),
            "ema": ema.shadow,
            "optimizer": optimizer.state_dict(),
            "step": step,
            "digest": run.digest,
        }

    rank, world = accelerator.process_index, accelerator.num_processes
    for step in range(first, stop):
        for group in optimizer.param_groups:
            group["lr"] = trapezoid(step, steps, settings.learning_rate, warmup=settings.warmup)
        turn = Turn(step, rank, world, accelerator.device, step_generator(settings.seed, step, rank))
        total, parts = losses(forward, turn)
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
            if on_step is not None:
                on_step(step + 1, steps, values)
            if (step + 1) % settings.save_every == 0 or step + 1 == stop:
                save_state(run.place("last/state.pt"), snapshot(step + 1))
    run.stopped = (stop, steps) if stop < steps else None
    return {key: value.cpu() for key, value in ema.shadow.items()}
