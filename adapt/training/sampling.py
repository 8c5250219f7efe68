"""Random numbers and the order of items, a generator per step: a resumed training draws what it would have drawn.

Every random number of step s comes from a generator seeded by (seed, s, rank), so no generator's state is stored.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The CPU generator of one training step of one process."""
    digest = hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order in which an epoch visits `count` items, as (count,) indices."""
    return torch.randperm(count, generator=step_generator(seed, -1 - epoch))


def batch_indices(seed: int, step: int, *, batch: int, count: int) -> list[int]:
    """Items of one step: epochs of shuffled items laid end to end, so that each is seen equally often."""
    first = step * batch
    orders: dict[int, list[int]] = {}
    chosen: list[int] = []
    for position in range(first, first + batch):
        epoch, index = divmod(position, count)
        if epoch not in orders:
            orders[epoch] = epoch_order(seed, epoch, count).tolist()
        chosen.append(orders[epoch][index])
    return chosen
