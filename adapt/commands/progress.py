"""How a command shows how far it is: a line of progress for each of its steps."""

from __future__ import annotations

from typing import Any, Protocol


class ProgressLine(Protocol):
    """Shows how far one step is."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


class Silent:
    """Shows nothing."""

    def __init__(self, title: str) -> None: ...

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


def describe(values: dict[str, Any]) -> str:
    """Numbers as `name value` for a progress line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
