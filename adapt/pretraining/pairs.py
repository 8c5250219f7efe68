"""Pairs of damaged and clean faces for a training, made in the step that takes them or ahead of it by other processes.

A pair depends on the seed and the step alone, so who makes it and when does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import TracebackType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from adapt.pretraining.augmentation import augmented
from adapt.settings import AugmentationSettings, BlindSettings, DamageTrainingSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import StepContext
from adapt.training.sampling import step_generator
from degradations.blind import BlindRanges, degrade_blind, draw_blind, to_grey
from degradations.chain import degrade
from degradations.pieces.base import Degradation, new_seed

UNCHANGED: Final = AugmentationSettings()
AHEAD: Final = 2  # steps that each process has in hand, so that none waits for the next

Made = tuple[np.ndarray, np.ndarray, np.ndarray]
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
    augmentation: AugmentationSettings = UNCHANGED,
) -> tuple[Tensor, Tensor]:
    """Degraded and clean images of one batch of uint8 faces, both (B, 3, H, W) in [0, 1], mirrored at random.

    Args:
        faces: (B, 3, H, W) uint8.
        ranges: of the blind degradation, for this size.
        generator: of all that is random.
        chain: degradations that a share of the images get in its place.
        share: that share.
        augmentation: how a share of the clean faces is varied first.
    """
    clean = augmented(clean_images(faces, generator), augmentation, generator)
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
            self._pool = ProcessPoolExecutor(
                context.workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
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
            damaged, clean = pairs_of(step.batch(self._faces, self._settings), self._settings, step.generator)
        else:
            for index in range(step.index, step.index + self._ahead + 1):
                if index not in self._asked:
                    chosen = replace(step, index=index).batch(self._faces, self._settings)
                    drawn = step_generator(self._settings.seed, index, step.rank).get_state()
                    self._asked[index] = self._pool.submit(_ahead_of, chosen.numpy(), drawn.numpy(), self._settings)
            damaged, clean, state = (torch.from_numpy(each) for each in self._asked.pop(step.index).result())
            step.generator.set_state(state)
        return damaged.to(step.device), clean.to(step.device)


def pairs_of(faces: Tensor, settings: DamageTrainingSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As `blind_pairs`, by the settings of a training."""
    ranges = blind_ranges(settings.degradation, settings.size)
    return blind_pairs(
        faces, ranges, generator, chain=settings.chain, share=settings.chain_share, augmentation=settings.augmentation
    )


def _ahead_of(faces: np.ndarray, state: np.ndarray, settings: DamageTrainingSettings) -> Made:
    """In a process of its own."""
    generator = torch.Generator()
    generator.set_state(torch.from_numpy(state))
    damaged, clean = pairs_of(torch.from_numpy(faces), settings, generator)
    return damaged.numpy(), clean.numpy(), generator.get_state().numpy()
