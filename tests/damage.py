"""Degradations of damage for tests, by name."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from degradations.chain import degrade
from degradations.pieces.base import Degradation
from degradations.pieces.names import AnyDegradation

CHAIN = TypeAdapter(list[AnyDegradation])


def degradation(name: str, **settings: Any) -> Degradation:
    return CHAIN.validate_python([{"name": name, **settings}])[0]


def damaged(image: Tensor, *degradations: Degradation, seed: int = 3) -> Tensor:
    return degrade(image, degradations, seed)[0]
