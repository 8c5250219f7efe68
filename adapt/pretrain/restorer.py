"""Pre-training of a SwinIR restorer on the blind degradation: DT-BFR Eq. (9), losses of Eq. (8) without the GAN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adapt.restorers.swinir import SwinIR
from adapt.runs import Run
from adapt.settings import BlindSettings, RestorerSettings
from adapt.training import Ema, batch_indices, check_finite, load_state, save_state, step_generator, trapezoid
from degradations.blind import BlindRanges, degrade_blind, draw_blind, to_grey

Progress = Callable[[int, int, dict[str, float]], None]
Distance = Callable[[Tensor, Tensor], Tensor]


def blind_ranges(settings: BlindSettings, size: int) -> BlindRanges:
    """The published ranges, their lengths scaled from 512 pixels to `size`."""
    return BlindRanges(**settings.model_dump()).scaled(size)


def blind_pairs(faces: Tensor, ranges: BlindRanges, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Degraded and clean pictures of one batch of uint8 faces, both (B, 3, H, W) in [0, 1], mirrored at random."""
    clean = faces.float() / 255
    mirrored = torch.rand(len(clean), generator=generator) < 0.5
    clean = torch.where(mirrored.view(-1, 1, 1, 1), clean.flip(-1), clean)
    damaged: list[Tensor] = []
    truths: list[Tensor] = []
    for image in clean:
        parameters = draw_blind(ranges, generator)
        damaged.append(degrade_blind(image, parameters, generator))
        truths.append(to_grey(image[None])[0] if parameters.grey else image)
    return torch.stack(damaged), torch.stack(truths)


def train_restorer(
    settings: RestorerSettings,
    faces: Tensor,
    run: Run,
    *,
    distance: Distance | None = None,
    on_step: Progress | None = None,
    max_steps: int | None = None,
) -> dict[str, Tensor]:
    """Train SwinIR, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        run: the open run folder.
        distance: perceptual distance; needed where settings.perceptual > 0.
        on_step: called with step, steps and the losses.
        max_steps: stop (resumably) after so many steps of this call.

    Returns:
        The averaged weights, in the public layout.

    Raises:
        TrainingError: a loss is not finite.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    ranges = blind_ranges(settings.degradation, settings.size)
    bare = SwinIR(settings.network)
    initialise(bare, settings.seed)
    ema = Ema(bare, settings.ema)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    state_path = run.folder / "last" / "state.pt"
    first = 0
    if state_path.exists():
        state = load_state(state_path, run.digest)
        bare.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load(state["ema"])
        first = state["step"]
    run.rewind(first)
    network, optimizer = accelerator.prepare(bare, optimizer)
    ema.shadow = {key: value.to(accelerator.device) for key, value in ema.shadow.items()}
    stop = settings.steps if max_steps is None else min(settings.steps, first + max_steps)

    def snapshot(step: int) -> dict[str, Any]:
        return {
            "network": accelerator.unwrap_model(network).state_dict(),
            "ema": ema.shadow,
            "optimizer": optimizer.state_dict(),
            "step": step,
            "digest": run.digest,
        }

    for step in range(first, stop):
        rank, world = accelerator.process_index, accelerator.num_processes
        generator = step_generator(settings.seed, step, rank)
        chosen = batch_indices(settings.seed, step * world + rank, settings.batch, len(faces))
        damaged, clean = (part.to(accelerator.device) for part in blind_pairs(faces[chosen], ranges, generator))
        for group in optimizer.param_groups:
            group["lr"] = trapezoid(step, settings.steps, settings.learning_rate, warmup=settings.warmup)
        with accelerator.autocast():
            restored = network(damaged)
        losses = {"l1": (restored.float() - clean).abs().mean()}
        total = settings.l1 * losses["l1"]
        if settings.perceptual and distance is not None:
            losses["perceptual"] = distance(restored.float(), clean).mean()
            total = total + settings.perceptual * losses["perceptual"]
        check_finite(losses, step)
        accelerator.backward(total)
        accelerator.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(accelerator.unwrap_model(network), step)
        if accelerator.is_main_process:
            values = {name: value.item() for name, value in losses.items()}
            if step % 10 == 0:
                run.log(step, values)
            if on_step is not None:
                on_step(step + 1, settings.steps, values)
            if (step + 1) % settings.save_every == 0 or step + 1 == stop:
                save_state(state_path, snapshot(step + 1))
    return {key: value.cpu() for key, value in ema.shadow.items()}


def initialise(network: SwinIR, seed: int) -> None:
    """Draw the weights anew from the run's own generator: PyTorch's defaults come from a global one."""
    generator = step_generator(seed, 0, rank=-1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("relative_position_bias_table") or parameter.ndim == 2:
                parameter.normal_(std=0.02, generator=generator).clamp_(-0.04, 0.04)
            elif parameter.ndim == 4:
                bound = 1 / math.sqrt(math.prod(parameter.shape[1:]))
                parameter.uniform_(-bound, bound, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
