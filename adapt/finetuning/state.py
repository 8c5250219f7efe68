"""Everything a fine-tuning goes on from, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from adapt.training.ema import Ema
from adapt.training.state import load_state, save_state


@dataclass(slots=True)
class State:
    """The networks, optimizers and averages of a run, and where it stands.

    Attributes:
        network, ema, optimizer: the restorer's.
        discriminator, discriminator_optimizer: None where the recipe has no adversarial loss.
        step: steps done.
        base_score, best_score: score on the validation photos of the weights it started from, and the best so far.
        best_step: where the best was found; 0 is the start.
        base_parts, best_parts: mean scores of both, by part.
        base_each, best_each: the score of both on each validation photo.
        best_gain: the critic's, of the best weights so far; the start's is 0.
    """

    network: nn.Module
    ema: Ema
    optimizer: Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: Optimizer | None
    step: int = 0
    base_score: float = float("nan")
    best_score: float = float("inf")
    best_step: int = 0
    base_parts: dict[str, float] = field(default_factory=dict)
    best_parts: dict[str, float] = field(default_factory=dict)
    base_each: list[float] = field(default_factory=list)
    best_each: list[float] = field(default_factory=list)
    best_gain: float = 0.0

    def save(self, path: Path, digest: str) -> None:
        """Write all of it atomically."""
        stored: dict[str, Any] = {
            "digest": digest,
            "network": self.network.state_dict(),
            "ema": self.ema.shadow,
            "optimizer": self.optimizer.state_dict(),
            "numbers": {name: getattr(self, name) for name in self._numbers()},
        }
        if self.discriminator is not None and self.discriminator_optimizer is not None:
            stored["discriminator"] = self.discriminator.state_dict()
            stored["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        save_state(path, stored)

    def load(self, path: Path, digest: str) -> None:
        """Go on where a state stands. Raises UsageError if it belongs to another run."""
        stored = load_state(path, digest)
        self.network.load_state_dict(stored["network"])
        self.ema.load(stored["ema"])
        self.optimizer.load_state_dict(stored["optimizer"])
        if self.discriminator is not None and self.discriminator_optimizer is not None:
            self.discriminator.load_state_dict(stored["discriminator"])
            self.discriminator_optimizer.load_state_dict(stored["discriminator_optimizer"])
        for name, value in stored["numbers"].items():
            setattr(self, name, value)

    @staticmethod
    def _numbers() -> tuple[str, ...]:
        scores = ("base_score", "best_score", "base_parts", "best_parts", "base_each", "best_each")
        return ("step", "best_step", "best_gain", *scores)
