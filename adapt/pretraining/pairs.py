"""Pairs of damaged and clean faces for a training, made in the step that takes them or ahead of it by other processes.

A pair depends on the seed and the step alone, so who makes it and when does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Final

import torch
from torch import Tensor

from adapt.settings import BlindSettings, DamageTrainingSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import StepContext
from adapt.training.sampling import batch_indices, step_generator
from degradations.blind import BlindRanges, degrade_blind, draw_blind, to_grey
from degradations.chain import degrade
from degradations.pieces.base import Degradation, new_seed

AHEAD: Final = 2  # steps that each process has in hand, so that none waits for the next

Made = tuple[Tensor, Tensor, Tensor]
"""Damaged and clean images, and the state of the step's generator after them."""


def blind_ranges(settings: BlindSettings, size: int) -> BlindRanges:
    """The published ranges, their lengths scaled from 512 pixels to `size`."""
    return BlindRanges(**settings.model_dump()).scaled(size)


def clean_images(faces: Tensor, generator: torch.Generator) -> Tensor:
    """One batch of uint8 faces as (B, 3, H, W) in [0, 1], each mirrored or not at random."""
    clean = faces.float() / 255
    mirrored = torch.rand(len(clean), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), clean.flip(-1), clean)


def blind_pairs(
    faces: Tensor,
    ranges: BlindRanges,
    generator: torch.Generator,
    *,
    chain: Sequence[Degradation] = (),
    share: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Degraded and clean images of one batch of uint8 faces, both (B, 3, H, W) in [0, 1], mirrored at random.

    Args:
        faces: (B, 3, H, W) uint8.
        ranges: of the blind degradation, for this size.
        generator: of all that is random.
        chain: degradations that a share of the images get in its place.
        share: that share.
    """
    clean = clean_images(faces, generator)
    damaged: list[Tensor] = []
    truths: list[Tensor] = []
    for image in clean:
        if share and float(torch.rand((), generator=generator)) < share:
            damaged.append(degrade(image, chain, new_seed(generator))[0])
            truths.append(image)
            continue
        parameters = draw_blind(ranges, generator)
        damaged.append(degrade_blind(image, parameters, generator))
        truths.append(to_grey(image[None])[0] if parameters.grey else image)
    return torch.stack(damaged), torch.stack(truths)


class Pairs:
    """The pairs of each step of a training; a context manager, for the processes that it may start.

    Args:
        faces: clean aligned faces, (N, 3, S, S) uint8.
        settings: seed, batch, and the damage.
        context: `workers` of it make the pairs ahead; 0 leaves them to the step itself.
    """

    def __init__(self, faces: Tensor, settings: DamageTrainingSettings, context: TrainingContext) -> None:
        self._faces, self._settings = faces, settings
        self._ahead = AHEAD * context.workers
        self._pool: ProcessPoolExecutor | None = None
        if context.workers:
            from torch import multiprocessing

            self._pool = ProcessPoolExecutor(
                context.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_take,
                initargs=(faces.share_memory_(), type(settings), settings.model_dump(mode="json")),
            )
        self._asked: dict[int, Future[Made]] = {}

    def __enter__(self) -> Pairs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, step: StepContext) -> tuple[Tensor, Tensor]:
        """Damaged and clean images of a step, both (B, 3, S, S) in [0, 1], on its device.

        The step's generator stands behind what they took of it.
        """
        if self._pool is None:
            made = _made(self._faces, self._settings, step.index, step.rank, step.world)
        else:
            for index in range(step.index, step.index + self._ahead + 1):
                if index not in self._asked:
                    self._asked[index] = self._pool.submit(_make, index, step.rank, step.world)
            made = self._asked.pop(step.index).result()
        damaged, clean, state = made
        step.generator.set_state(state)
        return damaged.to(step.device), clean.to(step.device)


def _made(faces: Tensor, settings: DamageTrainingSettings, index: int, rank: int, world: int) -> Made:
    generator = step_generator(settings.seed, index, rank)
    chosen = batch_indices(settings.seed, index * world + rank, batch=settings.batch, count=len(faces))
    damaged, clean = blind_pairs(
        faces[chosen], blind_ranges(settings.degradation, settings.size), generator, chain=settings.chain,
        share=settings.chain_share,
    )
    return damaged, clean, generator.get_state()


_held: tuple[Tensor, DamageTrainingSettings] | None = None  # of a process that makes pairs ahead


def _take(faces: Tensor, kind: type[DamageTrainingSettings], settings: dict[str, object]) -> None:
    global _held
    torch.set_num_threads(1)
    _held = faces, kind.model_validate(settings)


def _make(index: int, rank: int, world: int) -> Made:
    assert _held is not None
    return _made(*_held, index, rank, world)
