"""From evidence on two models to a decision between them, with what speaks for it and against it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from adapt.errors import UsageError
from adapt.intervals import Interval, mean_interval
from adapt.settings import VerdictSettings
from adapt.verdict.evidence import EVIDENCE

Numbers = Mapping[str, Sequence[float]]
"""Evidence on one model: of each kind a number per photo, of the same photos for every model."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Evidence on a base and on what may take its place.

    Attributes:
        trust: of each photo, how far it is believed, in [0, 1].
        base: the evidence on the base.
        candidates: on the others, by strength.
    """

    trust: Sequence[float]
    base: Numbers
    candidates: Mapping[float, Numbers]

FEWEST: Final = 4  # photos: below, the interval of a mean says next to nothing


@dataclass(frozen=True, slots=True)
class Finding:
    """What one kind of evidence says of a candidate.

    Attributes:
        key: of `EVIDENCE`.
        base, candidate: means of both models.
        gain: as `gains`; positive speaks for the candidate.
    """

    key: str
    base: float
    candidate: float
    gain: Interval

    @property
    def says(self) -> Literal["better", "worse", "chance"]:
        """Its direction, where that is hardly chance."""
        if not self.gain.decided:
            return "chance"
        return "better" if self.gain.mean > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all evidence says of a candidate.

    Attributes:
        strength: the share of the adaptation that is in it.
        findings: of each kind.
        total: the weighted sum of the gains, photo by photo.
        refused: the kinds whose loss is beyond its limit.
        better: whether it is called better than the base.
    """

    strength: float
    findings: tuple[Finding, ...]
    total: Interval
    refused: tuple[str, ...]
    better: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which model is exported, and why.

    Attributes:
        strength: 0 keeps the base, 1 takes the adapted model, what lies between takes weights between both.
        judged: number of photos.
        candidates: in the order of the settings' strengths.
    """

    strength: float
    judged: int
    candidates: tuple[Comparison, ...]

    @property
    def shown(self) -> Comparison:
        """What is told of: the candidate that was taken; where none was, the one that came nearest."""
        taken = [each for each in self.candidates if each.strength == self.strength]
        return taken[0] if taken else max(self.candidates, key=lambda each: each.total.mean)

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "strength": self.strength,
            "judged": self.judged,
            "candidates": [
                {
                    "strength": each.strength,
                    "better": each.better,
                    "refused": list(each.refused),
                    "total": _as_json(each.total),
                    "evidence": {
                        finding.key: {
                            "base": finding.base, "candidate": finding.candidate, "gain": _as_json(finding.gain)
                        }
                        for finding in each.findings
                    },
                }
                for each in self.candidates
            ],
        }  # fmt: skip


def _as_json(interval: Interval) -> dict[str, float | int | None]:
    known = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {**{key: value if math.isfinite(value) else None for key, value in known.items()}, "n": interval.n}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def gains(key: str, trust: Sequence[float], base: Sequence[float], candidate: Sequence[float]) -> list[float]:
    """How much a candidate gains of one kind of evidence, photo by photo, as a share of the base's mean.

    So a gain means the same for networks, sizes and damages whose numbers are of other scales. Of evidence by the photo
    it is that times the trust in it.
    """
    mean = _mean(base)
    sign = 1 if EVIDENCE[key].better == "higher" else -1
    scale = mean if mean > 0 else 1.0  # nothing to be gained or lost
    counts = trust if EVIDENCE[key].by_photo else [1.0] * len(base)
    return [
        count * sign * (after - before) / scale
        for count, before, after in zip(counts, base, candidate, strict=True)
    ]


def compare(
    strength: float, trust: Sequence[float], base: Numbers, candidate: Numbers, settings: VerdictSettings
) -> Comparison:
    """What all evidence says of a candidate beside the base.

    Raises:
        UsageError: no photos, or other kinds of evidence for one model than for the other.
    """
    if base.keys() != candidate.keys() or not base or not all(base.values()):
        raise UsageError(f"verdict: expected evidence of the same kinds on photos, got {[*base]} and {[*candidate]}")
    each = {key: gains(key, trust, base[key], candidate[key]) for key in base}
    findings = tuple(
        Finding(key, _mean(base[key]), _mean(candidate[key]), mean_interval(own)) for key, own in each.items()
    )
    weights: dict[str, float] = {**settings.weights}
    limits: dict[str, float] = {**settings.limits}
    sums = [
        math.fsum(weights.get(key, 0.0) * value for key, value in zip(each, row, strict=True))
        for row in zip(*each.values(), strict=True)
    ]
    total = mean_interval(sums)
    refused = tuple(
        found.key for found in findings
        if found.key in limits and found.says == "worse" and found.gain.mean < -limits[found.key]
    )  # fmt: skip
    better = len(sums) >= FEWEST and total.low > settings.threshold and not refused
    return Comparison(strength, findings, total, refused, better)


def decide(measurements: Measurements, settings: VerdictSettings) -> Verdict:
    """The candidate whose evidence is best, among those that are better than the base; else the base.

    Args:
        measurements: the evidence.
        settings: the recipe.
    """
    comparison = tuple(
        compare(strength, measurements.trust, measurements.base, numbers, settings)
        for strength, numbers in measurements.candidates.items()
    )
    better = [each for each in comparison if each.better]
    taken = max(better, key=lambda each: (each.total.low, each.strength)).strength if better else 0.0
    return Verdict(taken, comparison[0].total.n, comparison)


def verdict_of_json(value: Mapping[str, Any]) -> Verdict:
    """What `Verdict.as_json` gave."""
    candidates = tuple(
        Comparison(
            each["strength"],
            tuple(
                Finding(key, found["base"], found["candidate"], _of_json(found["gain"]))
                for key, found in each["evidence"].items()
            ),
            _of_json(each["total"]),
            tuple(each["refused"]),
            each["better"],
        )
        for each in value["candidates"]
    )
    return Verdict(value["strength"], value["judged"], candidates)


def _of_json(value: Mapping[str, Any]) -> Interval:
    mean, low, high = (math.nan if value[key] is None else float(value[key]) for key in ("mean", "low", "high"))
    return Interval(mean, low, high, int(value["n"]))
