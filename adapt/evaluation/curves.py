"""The numbers of a training log as curves: points of small SVG drawings, with what their axes need."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

WIDTH: Final = 320
HEIGHT: Final = 110
MOST_POINTS: Final = 200
"""Points of a curve. Longer logs are averaged over stretches of steps, or the page would grow with the training."""

_EDGE: Final = 4  # units above and below the curve


@dataclass(frozen=True, slots=True)
class Curve:
    """A number over the steps.

    Attributes:
        name: its key in the log.
        points: of an SVG polyline in a field of WIDTH x HEIGHT; y grows downwards.
        first, last: the first and the last value drawn.
        low, high: the values at the lower and the upper edge of the curve.
        begin, end: the steps at its left and right edge.
    """

    name: str
    points: str
    first: str
    last: str
    low: str
    high: str
    begin: int
    end: int


def loss_curves(log: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """A curve for every number that the log follows over two steps or more, in order of first appearance.

    Args:
        log: lines with a `step` and numbers under other keys; other values, and those that are not finite, are left
            out.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for line in log:
        for name, value in line.items():
            if name != "step" and isinstance(value, float) and math.isfinite(value):
                series.setdefault(name, []).append((float(line["step"]), value))
    return [_curve(name, _thinned(points)) for name, points in series.items() if len(points) > 1]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: means over stretches of equally many."""
    if len(points) <= MOST_POINTS:
        return points
    edges = [index * len(points) // MOST_POINTS for index in range(MOST_POINTS + 1)]
    stretches = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [(statistics.fmean(s for s, _ in part), statistics.fmean(v for _, v in part)) for part in stretches]


def _curve(name: str, points: list[tuple[float, float]]) -> Curve:
    steps, values = zip(*points, strict=True)
    low, high, begin, end = min(values), max(values), min(steps), max(steps)
    span, breadth = high - low, end - begin
    placed = (
        (
            WIDTH * ((step - begin) / breadth if breadth else 0.5),
            HEIGHT - _EDGE - (HEIGHT - 2 * _EDGE) * ((value - low) / span if span else 0.5),
        )
        for step, value in points
    )
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    first, last, bottom, top = (f"{v:.4g}" for v in (values[0], values[-1], low, high))
    return Curve(name, drawn, first, last, bottom, top, round(begin), round(end))
