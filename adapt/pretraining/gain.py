"""The gain of a one-step student, fitted by least squares once all else has been trained.

It is no parameter: in a pre-training gradient steps hardly moved it, and in a fine-tuning on few photos, whose targets
lie near them, they moved it to nothing, and the student to one that changes nothing. So it is asked of pairs directly:
with y the photo, R(y) what the student makes of it without a gain and x the original, of all three the lightness
without its mean, the best gain of a photo is <R(y) - y, x - y> / |R(y) - y|^2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from adapt.diffusion.gain import log_deviations
from adapt.pretraining.pairs import pairs_of
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepTrainingSettings
from adapt.training.sampling import step_generator

GAIN: Final = "gain."  # what the names of its tensors begin with
BATCH: Final = 16
RIDGE: Final = 1.0  # times the number of pairs
LIKELY: Final = (0.0, 1.3)  # gains beyond are of photos whose change is chance
MARGIN: Final = 0.17  # added, so that where much has to be mended hardly anything is held back


@torch.no_grad()
def fit_gain(
    student: OneStep, settings: OneStepTrainingSettings, faces: Tensor, *,
    on_pairs: Callable[[int, int], None] | None = None,
) -> None:
    """Fit the student's gain, in place, to pairs of the training and of slight damage, half of each.

    Args:
        student: with a gain, whose weights are replaced.
        settings: the recipe; `gain_pairs` and `gain_chain` of it.
        faces: clean aligned faces, (N, 3, S, S) uint8.
        on_pairs: told after each batch how many pairs were seen, and of how many.
    """
    gain = student.network.gain
    assert gain is not None
    gain.weigh.reset()
    seen: list[Tensor] = []
    hook = gain.register_forward_pre_hook(
        lambda _, maps: seen.append(torch.cat([log_deviations(each) for each in maps[0]], dim=1))
    )
    slight = settings.model_copy(update={"chain": settings.gain_chain, "chain_share": 1.0})
    wanted: list[Tensor] = []
    for damaged, clean in _pairs(student, settings, slight, faces):
        wanted.append(best_gain(student(damaged), damaged, clean))
        if on_pairs is not None:
            on_pairs(min(len(wanted) * BATCH, settings.gain_pairs), settings.gain_pairs)
    hook.remove()
    weights, bias = ridge(torch.cat(seen).double(), torch.cat(wanted).double().clamp(*LIKELY))
    gain.weigh.weight.copy_(weights[None])
    gain.weigh.bias.copy_(bias + MARGIN)


def best_gain(restored: Tensor, damaged: Tensor, clean: Tensor) -> Tensor:
    """By how much the change in lightness should be multiplied, (B,): least squares over pixels, the mean apart.

    Args:
        restored, damaged, clean: (B, 3, H, W) in [0, 1]: with a gain of 1, the photo, and the original.
    """
    change, missing = (_without_mean((image - damaged).mean(dim=1, keepdim=True)) for image in (restored, clean))
    square = change.square().sum(dim=(1, 2, 3)).clamp(min=torch.finfo(change.dtype).tiny)
    return (change * missing).sum(dim=(1, 2, 3)) / square


def ridge(rows: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (D,) and bias () of the linear function of rows (N, D) nearest to `wanted`, (N,).

    The weights of columns of deviation 1 are held small; the bias is free.
    """
    mean, deviation = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-6)
    standard = (rows - mean) / deviation
    square = standard.T @ standard + RIDGE * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    weights = torch.linalg.solve(square, standard.T @ (wanted - wanted.mean())) / deviation
    return weights, wanted.mean() - weights @ mean


def _without_mean(image: Tensor) -> Tensor:
    return image - image.mean(dim=(2, 3), keepdim=True)


def _pairs(
    student: OneStep, usual: OneStepTrainingSettings, slight: OneStepTrainingSettings, faces: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Damaged and clean images on the student's device, in batches; of every second batch the damage is slight."""
    device = next(student.parameters()).device
    order = torch.randperm(len(faces), generator=step_generator(usual.seed, 0, rank=-2))
    for index in range(-(-usual.gain_pairs // BATCH)):
        chosen = order[torch.arange(index * BATCH, (index + 1) * BATCH) % len(faces)]
        settings = slight if index % 2 and slight.chain else usual
        damaged, clean = pairs_of(faces[chosen], settings, step_generator(usual.seed, index, rank=-3))
        yield damaged.to(device), clean.to(device)
