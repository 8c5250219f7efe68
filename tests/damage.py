"""Pieces of damage for tests, by name."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from degradations.chain import degrade
from degradations.pieces.base import Piece
from degradations.pieces.names import AnyPiece

CHAIN = TypeAdapter(list[AnyPiece])


def piece(name: str, **settings: Any) -> Piece:
    return CHAIN.validate_python([{"name": name, **settings}])[0]


def damaged(image: Tensor, *pieces: Piece, seed: int = 3) -> Tensor:
    return degrade(image, pieces, seed)[0]
