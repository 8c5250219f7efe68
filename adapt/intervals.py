"""Confidence intervals: how sure a mean of so few photos is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval of its 95 % confidence, nan where there are too few values for one.

    Attributes:
        mean: of the values.
        low, high: its limits.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def decided(self) -> bool:
        """Whether zero lies outside: the sign of the mean is hardly chance."""
        return self.low > 0 or self.high < 0

    def shown(self, form: str, factor: float = 1.0) -> str:
        """The interval in words, its numbers times `factor` and in the format `form`."""
        if math.isnan(self.low):
            return f"no interval from {self.n} photo{'s' * (self.n != 1)}"
        return f"95 % interval {self.low * factor:{form}} to {self.high * factor:{form}}"


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of values and Student's interval of it.

    For two models on the same photos, give it the differences photo by photo: what makes a photo hard for both of
    them then counts for nothing.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, len(values))
    reach = student_quantile((1 + LEVEL) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach, len(values))


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution; at 0.975 right to 0.2 %.

    Exact for 1 and 2 degrees of freedom; beyond, Abramowitz & Stegun, Eq. 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = statistics.NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
