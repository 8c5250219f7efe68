"""Damage moved from one photo to another's target: more pairs of the same damage than there are photos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapt.finetuning.data import Split


def transplant(
    pairs: tuple[Tensor, Tensor], split: Split, chosen: Sequence[int], *, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of pairs, some of them with another photo's damage.

    Photo and target of one pair differ by damage y - T. Laid over another target T', it makes a photo T' + y - T whose
    truth is T' in every frequency, where a target agrees with its own photo in the low ones only as far as the restorer
    was right: so the student learns from it to take away coarse noise too. Neither paper has this step.

    Args:
        pairs: photos and targets, (B, 3, H, W) in [0, 1], of the pairs `chosen`.
        split: where others are found.
        chosen: places of the pairs in it.
        share: of the pairs that change, on average.
        generator: draws which, and by whose damage.

    Returns:
        Photos, in [0, 1], and the same targets.
    """
    photos, targets = pairs
    others = torch.randint(len(split.ids), (len(chosen),), generator=generator).tolist()
    damage = split.photos.batch(others) - split.any_targets(others, generator)
    changed = (torch.rand(len(chosen), generator=generator) < share).view(-1, 1, 1, 1)
    return torch.where(changed, (targets + damage).clamp(0, 1), photos), targets
