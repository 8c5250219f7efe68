"""The average of weights over a training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of a network's floating tensors.

    The decay warms up as (1 + s) / (10 + s), so that an early average is not of the random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's weights after step `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            shadow = self.shadow[key]
            if shadow.is_floating_point():
                shadow.lerp_(value.to(shadow.dtype), 1 - decay)
            else:
                shadow.copy_(value)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Take over a stored average."""
        for key, value in shadow.items():
            self.shadow[key].copy_(value)
