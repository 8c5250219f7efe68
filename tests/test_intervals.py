"""Intervals against SciPy's distribution, and against what an interval promises."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import t

from adapt.intervals import mean_interval, student_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 1000])
def test_quantiles(freedom: int) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(float(t.ppf(0.975, freedom)), rel=2e-3)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_nineteen_of_twenty_intervals_hold_the_true_mean(n: int, gen: torch.Generator) -> None:
    drawn = (3 + 2 * torch.randn(4000, n, generator=gen, dtype=torch.float64)).tolist()
    held = sum(interval.low <= 3 <= interval.high for interval in map(mean_interval, drawn)) / len(drawn)
    assert held == pytest.approx(0.95, abs=0.015)  # its own standard error is 0.0035


def test_words() -> None:
    interval = mean_interval([0.1, 0.2, 0.3])
    assert (interval.n, interval.decided) == (3, False)
    assert interval.shown("+.2f") == "95 % interval -0.05 to +0.45"
    assert interval.shown(".0f", 100) == "95 % interval -5 to 45"
    assert mean_interval([1.0, 1.1, 1.2]).decided
    assert mean_interval([-1.0, -1.1, -1.2]).decided


@pytest.mark.parametrize("values", [[1.0], [math.inf, 1.0], [math.nan, 1.0]])
def test_too_few_or_no_numbers_give_no_interval(values: list[float]) -> None:
    interval = mean_interval(values)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.decided
    assert interval.shown(".1f").startswith(f"no interval from {len(values)} photo")
