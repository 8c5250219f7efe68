"""The losses of fine-tuning: DT-BFR Eq. (6)-(8), one value per photo, weighted by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from adapt.errors import UsageError

Distance = Callable[[Tensor, Tensor], Tensor]


def l1(restored: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two batches, (B, 3, H, W) in [0, 1] -> (B,)."""
    return (restored - target).abs().mean(dim=(1, 2, 3))


def generator_loss(logits: Tensor) -> Tensor:
    """The generator's adversarial loss, (B, 1, H, W) logits of restored photos -> (B,).

    -log D(R(y)), averaged over pixels: the non-saturating form of the public code (FACTS 4.1), where DT-BFR Eq. (6)
    prints the saturating log(1 - D).
    """
    return F.softplus(-logits).mean(dim=(1, 2, 3))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's loss, -log D(real) - log(1 - D(fake)), averaged over pixels -> scalar.

    Binary cross-entropy with real = 1, which DT-BFR Eq. (7) means; its signs are misprinted.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def weighted(parts: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """Weighted sum of the batch means of all parts.

    Raises:
        UsageError: the names of parts and weights differ.
    """
    if set(parts) != set(weights):
        raise UsageError(f"losses: parts are {sorted(parts)}, weights are {sorted(weights)}; they must be the same")
    names = sorted(parts)
    total = weights[names[0]] * parts[names[0]].mean()
    for name in names[1:]:
        total = total + weights[name] * parts[name].mean()
    return total
