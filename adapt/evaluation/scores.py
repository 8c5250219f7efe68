"""What an evaluation is: numbers per photo, their means with errors, and the protocol of each."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from adapt._version import __version__
from adapt.errors import UsageError
from adapt.evaluation.metrics import (
    KID_FLOOR,
    Better,
    MetricProtocol,
    Perceptual,
    colour_shift,
    kid,
    low_frequency_difference,
    psnr,
    ssim,
)
from adapt.intervals import LEVEL, Interval, mean_interval

Row = dict[str, str | float]

_OURS = f"adapt {__version__}"
_KID_SEED = 0
_MMD = "unbiased MMD^2 of its features, kernel (x.y/D + 1)^3, 100 subsets of half the images (at most 1000)"

# Title, unit, better direction, method. The perceptual distance is titled by its network, so that nobody takes one
# network's numbers for another's.
_METHODS: Final[dict[str, tuple[str, str, Better, str]]] = {
    "psnr": ("PSNR", "dB", "higher", "peak 1, mean over photos"),
    "ssim": ("SSIM", "", "higher", "Gaussian window 11 x 11, deviation 1.5, inner region, float64"),
    "perceptual": ("", "", "lower", "distance to the truth, mean over photos"),
    "kid": ("KID to truth", "", "lower", f"{_MMD}; pairs left out of the cross term"),
    "kid_reference": ("KID to reference", "", "lower", _MMD),
    "low_frequency": (
        "low-frequency change",
        "",
        "neither",
        "mean absolute difference to the photo of block means, 32 blocks along the shorter side",
    ),
    "colour_shift": ("colour shift", "", "lower", "mean over channels of the difference of mean colour to the photo"),
}
_BY_NETWORK: Final = ("perceptual", "kid", "kid_reference")
_OVER_SUBSETS: Final = ("kid", "kid_reference")


@dataclass(frozen=True, slots=True)
class Score:
    """One number of an evaluation.

    Attributes:
        mean: over the photos; for KID over its subsets.
        error: standard error of `mean`; nan where there is one photo only.
        protocol: how the number was obtained.
        estimates: of KID, those from its subsets, which are the same photos' for every model over these photos.
    """

    mean: float
    error: float
    protocol: MetricProtocol
    estimates: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The numbers of one set of restored images.

    Attributes:
        scores: by key, in the order of tables: psnr, ssim, perceptual, kid (all against the truth), kid_reference,
            low_frequency, colour_shift (both against the photos). Only what could be computed is there.
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

    KID is of all photos together: its differences are those over the same subsets, and the interval is normal, from
    their deviation (see `kid`).

    Raises:
        UsageError: the metric is in no photo of both; KID of other photos on one side.
    """
    if key in _OVER_SUBSETS:
        return _kid_difference(base, other, key)
    before = {row["id"]: float(row[key]) for row in base.rows if key in row}
    gains = [float(row[key]) - before[row["id"]] for row in other.rows if key in row and row["id"] in before]
    if not gains:
        raise UsageError(f"{key}: expected photos that both evaluations measured it on, got none")
    return mean_interval(gains)


def _kid_difference(base: Evaluation, other: Evaluation, key: str) -> Interval:
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
        distance: perceptual distance and features, or None to go without both.
        match_statistics: PSNR and SSIM as in DT-BFR's numbers.
        device: where the metrics are computed; `distance` must live there.
    """

    def __init__(self, distance: Perceptual | None, *, match_statistics: bool, device: torch.device | str) -> None:
        self.distance = distance
        self.match_statistics = match_statistics
        self.device = device
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._features: list[Tensor] = []
        self._truth_features: list[Tensor] = []
        self._reference_features: list[Tensor] = []
        self._digests: dict[str, dict[str, str]] = {"truth": {}, "photos": {}, "reference": {}}

    @torch.no_grad()
    def add(self, ids: Sequence[str], restored: Tensor, *, truth: Tensor | None, photos: Tensor | None) -> None:
        """Count a batch of restored images, (B, 3, H, W) in [0, 1], with their partners of the same shape."""
        restored = restored.to(self.device)
        columns: dict[str, Tensor] = {}
        if self.distance is not None:
            self._features.append(self.distance.features(restored).cpu())
        if truth is not None:
            truth = truth.to(self.device)
            columns["psnr"] = psnr(restored, truth, match_statistics=self.match_statistics)
            columns["ssim"] = ssim(restored, truth, match_statistics=self.match_statistics)
            if self.distance is not None:
                columns["perceptual"] = self.distance(restored, truth)
                self._truth_features.append(self.distance.features(truth).cpu())
        if photos is not None:
            photos = photos.to(self.device)
            columns["low_frequency"] = low_frequency_difference(restored, photos)
            columns["colour_shift"] = colour_shift(restored, photos)
        values = {key: column.tolist() for key, column in columns.items()}
        for index, name in enumerate(ids):
            self.rows.append({"id": name, **{key: column[index] for key, column in values.items()}})

    @torch.no_grad()
    def add_reference(self, images: Tensor) -> None:
        """Count a batch of clean images that KID compares the restored ones with."""
        if self.distance is None:
            raise UsageError("a reference folder: expected a perceptual network to compare by, got none")
        self._reference_features.append(self.distance.features(images.to(self.device)).cpu())

    def note_content(self, side: str, name: str, sha256: str) -> None:
        """Remember what was compared with, for the digest in the protocol."""
        self._digests[side][name] = sha256

    def evaluation(self) -> Evaluation:
        """All that was counted.

        Raises: UsageError: fewer restored or reference images than a KID against a reference needs.
        """
        scores: dict[str, Score] = {}
        for key in ("psnr", "ssim", "perceptual"):
            self._score(scores, key, "truth")
        if self._truth_features:
            if len(self.rows) >= KID_FLOOR:
                scores["kid"] = self._kid(self._truth_features, "truth")
            else:
                self.notes.append(f"KID left out: it needs {KID_FLOOR} photos or more, there are {len(self.rows)}")
        if self._reference_features:
            scores["kid_reference"] = self._kid(self._reference_features, "reference")
        for key in ("low_frequency", "colour_shift"):
            self._score(scores, key, "photos")
        return Evaluation(scores=scores, rows=self.rows, notes=tuple(self.notes))

    def _score(self, scores: dict[str, Score], key: str, side: str) -> None:
        values = [float(row[key]) for row in self.rows if key in row]
        if values:
            scores[key] = Score(*mean_and_error(values), self._protocol(key, len(values), self._files(side)))

    def _kid(self, features: list[Tensor], side: str) -> Score:
        ours, others = torch.cat(self._features), torch.cat(features)
        # The same subsets for every model, so that differences between models are not differences of the draw.
        generator = torch.Generator().manual_seed(_KID_SEED)
        estimates = kid(ours, others, paired=side == "truth", generator=generator)
        key = "kid" if side == "truth" else "kid_reference"
        protocol = self._protocol(key, len(ours), self._files(side))
        return Score(float(estimates.mean()), float(estimates.std()), protocol, estimates.tolist())

    def _files(self, side: str) -> str:
        lines = [[str(row["id"]), ""] for row in self.rows] if side == "reference" else []
        content = json.dumps([*lines, *sorted(self._digests[side].items())])
        return hashlib.sha256(content.encode()).hexdigest()

    def _protocol(self, key: str, n: int, files: str) -> MetricProtocol:
        title, unit, better, method = _METHODS[key]
        if self.match_statistics and key in ("psnr", "ssim"):
            method += ", after matching each channel's mean and deviation to the truth (DT-BFR)"
        if key not in _BY_NETWORK:
            return MetricProtocol(
                title=title, unit=unit, better=better, method=method, computed_by=_OURS, n=n, files=files
            )
        assert self.distance is not None
        return MetricProtocol(
            title=title or self.distance.name,
            unit=unit,
            better=better,
            method=method,
            computed_by=self.distance.name,
            weights=self.distance.digest,
            colour="sRGB",
            n=n,
            files=files,
        )
