"""Tensors that depend on no image, computed once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")


def kept(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep what a function returns, for the last so many arguments, in a form that every later use may have.

    A tensor made under `torch.inference_mode` may not be saved for a backward pass, and a cache would hand it to one:
    whoever asked first would decide whether a training works. Here it is made as an ordinary tensor, whoever asks.
    """

    def keeping(function: Callable[P, T]) -> Callable[P, T]:
        @lru_cache(maxsize=most)
        @wraps(function)
        def ordinary(*args: P.args, **kwargs: P.kwargs) -> T:
            with torch.inference_mode(mode=False), torch.no_grad():
                return function(*args, **kwargs)

        return cast("Callable[P, T]", ordinary)

    return keeping
