"""What an evaluation is: numbers per photo, their means with errors, and the protocol of each."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from adapt.errors import UsageError
from adapt.evaluation.catalogue import METRICS, Metric, wanted
from adapt.evaluation.inputs import Batch, FromFeatures, FromImages, Networks, Sets, Side
from adapt.evaluation.metrics import MetricProtocol
from adapt.intervals import LEVEL, Interval, mean_interval

Row = dict[str, str | float]

_Features = Callable[[Tensor, Networks], Tensor]
_NAMED: Final = 5  # photos in a note


@dataclass(frozen=True, slots=True)
class Score:
    """One number of an evaluation.

    Attributes:
        mean: over the photos; of a metric per set over its estimates.
        error: standard error of `mean`; nan where there is one photo only.
        protocol: how the number was obtained.
        estimates: of a metric per set, as KID: those from subsets, of the same photos for every model over these.
    """

    mean: float
    error: float
    protocol: MetricProtocol
    estimates: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The numbers of one set of restored images.

    Attributes:
        scores: by key, in the order of `adapt.evaluation.catalogue.METRICS`; only what could be computed is there.
        rows: one per photo, sorted by id: "id" and the value of every metric that exists per photo.
        notes: what was left out, and why.
    """

    scores: Mapping[str, Score]
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`: not-a-number becomes null, infinity (PSNR of equal images) the string "inf"."""
        return {
            "scores": {
                key: {"mean": _plain(s.mean), "error": _plain(s.error), "protocol": asdict(s.protocol)}
                for key, s in self.scores.items()
            },
            "rows": [{key: _plain(value) for key, value in row.items()} for row in self.rows],
            "notes": list(self.notes),
        }


def _plain(value: str | float) -> str | float | None:
    if isinstance(value, str) or math.isfinite(value):
        return value
    return None if math.isnan(value) else f"{value}"


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; the error is nan for a single value or infinite ones."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2 or not math.isfinite(mean):
        return mean, math.nan
    return mean, statistics.stdev(values) / math.sqrt(len(values))


def difference(base: Evaluation, other: Evaluation, key: str) -> Interval:
    """By how much a metric of `other` lies above that of `base`, over the photos of both, each with itself.

    A metric per set, as KID, is of all photos together: its differences are those over the same subsets, and the
    interval is normal, from their deviation (see `adapt.evaluation.metrics.kid`).

    Raises:
        UsageError: the metric is in no photo of both; one per set, of other photos on one side.
    """
    if METRICS[key].per == "set":
        return _difference_of_sets(base, other, key)
    before = {row["id"]: float(row[key]) for row in base.rows if key in row}
    gains = [float(row[key]) - before[row["id"]] for row in other.rows if key in row and row["id"] in before]
    if not gains:
        raise UsageError(f"{key}: expected photos that both evaluations measured it on, got none")
    return mean_interval(gains)


def _difference_of_sets(base: Evaluation, other: Evaluation, key: str) -> Interval:
    ids = [[row["id"] for row in evaluation.rows] for evaluation in (base, other)]
    if ids[0] != ids[1] or not (key in base.scores and key in other.scores):
        raise UsageError(f"{key}: expected it of the same photos in both evaluations, as it compares sets of images")
    pairs = zip(base.scores[key].estimates, other.scores[key].estimates, strict=True)
    gains = [after - before for before, after in pairs]
    reach = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2) * statistics.stdev(gains)
    mean = math.fsum(gains) / len(gains)
    return Interval(mean, mean - reach, mean + reach, len(ids[0]))


class Tally:
    """Collects an evaluation batch by batch; images are not kept, a row and the features of each photo are.

    Args:
        sides: what the images will be held against.
        networks: what metrics may ask for; they must live on `device`.
        match_statistics: PSNR and SSIM as in DT-BFR's numbers.
        device: where the metrics are computed.
    """

    def __init__(
        self, sides: Iterable[Side], networks: Networks, *, match_statistics: bool, device: torch.device | str
    ) -> None:
        self.metrics = wanted({*sides}, networks)
        self.networks = networks
        self.match_statistics = match_statistics
        self.device = device
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._features: dict[tuple[_Features, str], list[Tensor]] = {
            (metric.compute.features, side): []
            for metric in self.metrics
            if isinstance(metric.compute, FromFeatures)
            for side in ("restored", *metric.sides)
        }
        self._digests: dict[str, dict[str, str]] = {side: {} for side in sides}

    @torch.no_grad()
    def add(self, ids: Sequence[str], restored: Tensor, sides: Mapping[Side, Tensor]) -> None:
        """Count a batch of restored images, (B, 3, H, W) in [0, 1], with their partners of the same shape."""
        images = {side: image.to(self.device) for side, image in sides.items()}
        batch = Batch(restored.to(self.device), images, self.networks, self.match_statistics)
        for side, image in {"restored": batch.restored, **images}.items():
            self._keep_features(side, image)
        values = {
            metric.key: metric.compute.compute(batch).tolist()
            for metric in self.metrics
            if isinstance(metric.compute, FromImages)
        }
        for index, name in enumerate(ids):
            self.rows.append({"id": name, **{key: column[index] for key, column in values.items()}})

    @torch.no_grad()
    def add_reference(self, images: Tensor) -> None:
        """Count a batch of clean images that the restored ones are compared with as a set."""
        self._keep_features("reference", images.to(self.device))

    def note_content(self, side: Side, name: str, sha256: str) -> None:
        """Remember what was compared with, for the digest in the protocol."""
        self._digests[side][name] = sha256

    def evaluation(self) -> Evaluation:
        """All that was counted. What a metric lacks, photos or a value for one of them, is left out with a note."""
        scores: dict[str, Score] = {}
        rows: list[Row] = [{"id": row["id"]} for row in self.rows]
        notes = list(self.notes)
        for metric in self.metrics:
            if isinstance(metric.compute, FromImages):
                values = [float(row[metric.key]) for row in self.rows]
            else:
                sets = self._sets(metric, metric.compute.features)
                if (count := sets.fewest) < metric.at_least:
                    needed = f"it needs {metric.at_least} photos or more, there are {count}"
                    notes += [] if metric.aside else [f"{metric.name} left out: {needed}"]
                    continue
                values = metric.compute.compute(sets).tolist()
            if metric.per == "set":
                scores[metric.key] = self._score_of_set(metric, values)
                continue
            if known := [value for value in values if not math.isnan(value)]:
                scores[metric.key] = Score(*mean_and_error(known), self._protocol(metric, len(known)))
            for row, value in zip(rows, values, strict=True):
                if not math.isnan(value):
                    row[metric.key] = value
            if not metric.aside and (lost := [str(row["id"]) for row in rows if metric.key not in row]):
                named = ", ".join(lost[:_NAMED]) + ", ..." * (len(lost) > _NAMED)
                notes.append(f"{metric.name} left out of {len(lost)} of {len(rows)} photos, it has no value: {named}")
        return Evaluation(scores=scores, rows=rows, notes=tuple(notes))

    def _score_of_set(self, metric: Metric, estimates: list[float]) -> Score:
        drawn = torch.tensor(estimates, dtype=torch.float64)
        return Score(float(drawn.mean()), float(drawn.std()), self._protocol(metric, len(self.rows)), estimates)

    def _keep_features(self, side: str, images: Tensor) -> None:
        for (features, of), kept in self._features.items():
            if of == side:
                kept.append(features(images, self.networks).cpu())

    def _sets(self, metric: Metric, features: _Features) -> Sets:
        sides = {side: torch.cat(self._features[features, side]) for side in metric.sides}
        return Sets(torch.cat(self._features[features, "restored"]), sides)

    def _protocol(self, metric: Metric, n: int) -> MetricProtocol:
        files = self._files(metric.sides)
        return metric.protocol(self.networks, n=n, files=files, match_statistics=self.match_statistics)

    def _files(self, sides: Sequence[str]) -> str:
        """Digest of what was compared with, and of the photos' ids where that does not tell them."""
        tell = {"truth", "photos"} & {*sides}
        lines = [] if tell else [[str(row["id"]), ""] for row in self.rows]
        content = json.dumps([*lines, *(item for side in sides for item in sorted(self._digests[side].items()))])
        return hashlib.sha256(content.encode()).hexdigest()
