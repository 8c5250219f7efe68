"""Every metric there is, in the order of tables: how it is computed, from what, and how it is shown.

A metric is added by a record here and its function: the evaluation, its JSON, the tables, the page and the card of a
bundle read this table and know no metric by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from adapt._version import __version__
from adapt.evaluation.inputs import SIDES, Batch, FromFeatures, FromImages, Networks, Sets, Side
from adapt.evaluation.metrics import (
    KID_FLOOR,
    Better,
    MetricProtocol,
    colour_shift,
    kid,
    low_frequency_difference,
    psnr,
    relative_sharpness,
    sharpness,
    sharpness_over_mean,
    ssim,
)
from adapt.faces.measures import (
    embeddings,
    identity_angle,
    identity_distance,
    identity_similarity,
    landmark_distance,
    person_lost,
    rank_among,
)

ARROWS: Final[dict[Better, str]] = {"higher": "↑", "lower": "↓", "neither": ""}
"""How a heading says which direction is better; every sign of a table or page comes from here."""

_MATCHED: Final = ", after matching each channel's mean and deviation to the truth (DT-BFR)"
_MMD: Final = "unbiased MMD^2 of its features, kernel (x.y/D + 1)^3, 100 subsets of half the images (at most 1000)"
_HIGH: Final = (
    "standard deviation over pixels of the image less its Gaussian blur (4 pixels where the shorter side has 512, and"
    " in proportion)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        key: its name in JSON and in the rows of an evaluation.
        compute: the function that gives it, and from what.
        needs: what must be there: sides ("truth", "photos", "reference") and networks ("perceptual", or any other name
            that `Networks` can load). Without one of them the metric is left out.
        unless: sides that make it superfluous, as another metric then says more.
        per: whether every photo has this number, or only the set of all.
        at_least: images that each side must have.
        better: which direction is better.
        title: its name in the protocol; that of its network where empty, so that nobody takes one network's numbers
            for another's.
        heading: in tables, without arrow; the title where empty.
        called: in sentences; the heading, the title or the key where empty.
        unit: "dB" or "".
        digits, factor: how it is printed: times `factor`, with so many digits after the point.
        told: whether a run's verdict tells of the gain over the start: as the difference, or in percent of the start.
            Only of metrics that need the truth.
        method: what is computed, in a sentence; for a network also what it sees of the image.
        value_range, colour, resize: as in `MetricProtocol`.
        matches: whether it is computed after `matched_to` where that is asked for.
        aside: in JSON, and in tables that show everything, alone: what says the same as another one in other words.
    """

    key: str
    compute: FromImages | FromFeatures
    needs: tuple[str, ...] = ()
    unless: tuple[Side, ...] = ()
    per: Literal["photo", "set"] = "photo"
    at_least: int = 1
    better: Better
    title: str = ""
    heading: str = ""
    called: str = ""
    unit: str = ""
    digits: int = 4
    factor: float = 1
    told: Literal["difference", "percent"] | None = None
    method: str
    value_range: str = "[0, 1]"
    colour: str = "sRGB, mean over R, G and B"
    resize: str = "none"
    matches: bool = False
    aside: bool = False

    @property
    def name(self) -> str:
        """In sentences."""
        return self.called or self.heading or self.title or self.key

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides among its needs."""
        return tuple(need for need in self.needs if need in SIDES)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks among its needs."""
        return tuple(need for need in self.needs if need not in SIDES)

    def headed(self, protocol: MetricProtocol) -> str:
        """Its heading with an arrow towards the better side, where it was obtained in this way."""
        return f"{self.heading or protocol.title} {ARROWS[protocol.better]}".rstrip()

    def protocol(self, networks: Networks, *, n: int, files: str, match_statistics: bool) -> MetricProtocol:
        """How it was obtained from `n` images by these networks."""
        asked = [networks[name] for name in self.networks]
        names = " and ".join(network.name for network in asked)
        return MetricProtocol(
            title=self.title or names or self.key,
            unit=self.unit,
            better=self.better,
            method=self.method + (_MATCHED if match_statistics and self.matches else ""),
            computed_by=names or f"adapt {__version__}",
            weights="+".join(network.digest for network in asked) or None,
            value_range=self.value_range,
            colour=self.colour,
            resize=self.resize,
            n=n,
            files=files,
        )


def wanted(sides: set[Side], networks: Networks) -> list[Metric]:
    """The metrics that can be computed from these, in the order of tables."""
    return [
        metric
        for metric in METRICS.values()
        if all(need in sides or need in networks for need in metric.needs) and not sides & {*metric.unless}
    ]


def fewest(side: Side) -> int:
    """How many images a side must have for every metric that needs it."""
    return max(metric.at_least for metric in METRICS.values() if side in metric.sides)


def _perceptual_features(images: Tensor, networks: Networks) -> Tensor:
    return networks.perceptual.features(images)


def _sharpness_features(images: Tensor, networks: Networks) -> Tensor:
    return sharpness(images)[:, None]


def _of_faces(
    measure: Callable[[Tensor, Tensor, Any], Tensor], network: str, side: Side
) -> FromImages:
    """A measure of aligned faces against a side; no number for images that are not square, which no aligned face is."""

    def compute(batch: Batch) -> Tensor:
        restored = batch.restored
        if restored.shape[2] != restored.shape[3]:
            return restored.new_full((len(restored),), torch.nan)
        return measure(restored, batch.sides[side], batch.networks[network].network)

    return FromImages(compute)


def _embeddings(images: Tensor, networks: Networks) -> Tensor:
    recogniser = networks["recogniser"].network
    if images.shape[2] != images.shape[3]:
        side = min(images.shape[2:])
        return embeddings(images[:, :, :side, :side], recogniser) * torch.nan
    return embeddings(images, recogniser)


def _found_among(k: int) -> Metric:
    """Rank-k identification: Diffuse and Restore, Table 5."""

    def compute(sets: Sets) -> Tensor:
        hits = (rank_among(sets.restored, sets.sides["truth"]) <= k).double()
        return torch.where(sets.restored.isnan().any(1), torch.nan, hits)

    return Metric(
        key=f"rank_{k}",
        compute=FromFeatures(_embeddings, compute),
        needs=("truth", "recogniser"),
        at_least=10,
        better="higher",
        title=f"rank-{k} identification",
        heading=f"rank {k}",
        digits=3,
        method=f"share of photos whose own original is among the {k} nearest of all originals, by the recogniser's"
        " distance; another photo of the same person counts as wrong",
        colour="sRGB",
        aside=True,
    )


def _kept(side: Side) -> tuple[Metric, ...]:
    """How far the person and the features are from those of a side, `photos` where there is no truth."""
    truth = side == "truth"
    whose = "the truth" if truth else "the photo"

    def metric(
        name: str, measure: Callable[[Tensor, Tensor, Any], Tensor], network: str, title: str, method: str,
        resize: str = "none", *, aside: bool = False,
    ) -> Metric:
        return Metric(
            key=name if truth else f"{name}_photo",
            compute=_of_faces(measure, network, side),
            needs=(side, network),
            unless=() if truth else ("truth",),
            better="lower",
            title=f"{title} to {whose}",
            heading=name if truth else f"{name} to photo",
            called=title,
            digits=3,
            method=method,
            colour="sRGB",
            resize=resize,
            aside=aside,
        )

    return (
        metric(
            "identity", identity_distance, "recogniser", "identity distance",
            "Euclidean distance of the embeddings of the middle 80 % of both sides at 150 px, mean over photos; two"
            " photos of one person are 0.19 apart, of strangers 0.55",
            "antialiased, to 150 px",
        ),
        metric(
            "landmarks", landmark_distance, "landmarks", "landmark distance",
            "mean distance of 68 points as a share of the eye distance, mean over photos; 0.04 between a neutral and"
            " a smiling face of one person, 0.08 between strangers",
            "to 112 px",
        ),
        metric(
            "lost", person_lost, "recogniser", "faces lost",
            "share of photos whose embedding is as far away as a stranger's: more than 0.37 by the pack's recogniser"
            " (two photos of one person are nearer in 99 of 100, strangers in 1), a cosine below 0.3 by ArcFace",
            "as for identity", aside=True,
        ),
    )


PERSON: Final = ("identity_photo", "identity")  # is it the same one: by the photo, or by the original where it is known
METRICS: Final[dict[str, Metric]] = {
    metric.key: metric
    for metric in (
        Metric(
            key="psnr",
            compute=FromImages(
                lambda batch: psnr(batch.restored, batch.sides["truth"], match_statistics=batch.match_statistics)
            ),
            needs=("truth",),
            better="higher",
            title="PSNR",
            unit="dB",
            digits=2,
            told="difference",
            method="peak 1, mean over photos",
            matches=True,
        ),
        Metric(
            key="ssim",
            compute=FromImages(
                lambda batch: ssim(batch.restored, batch.sides["truth"], match_statistics=batch.match_statistics)
            ),
            needs=("truth",),
            better="higher",
            title="SSIM",
            digits=3,
            method="Gaussian window 11 x 11, deviation 1.5, inner region, float64",
            matches=True,
        ),
        Metric(
            key="perceptual",
            compute=FromImages(lambda batch: batch.networks.perceptual(batch.restored, batch.sides["truth"])),
            needs=("truth", "perceptual"),
            better="lower",
            called="perceptual distance",
            told="percent",
            method="distance to the truth, mean over photos",
            colour="sRGB",
        ),
        Metric(
            key="kid",
            compute=FromFeatures(
                _perceptual_features,
                lambda sets: kid(sets.restored, sets.sides["truth"], paired=True, generator=sets.generator()),
            ),
            needs=("truth", "perceptual"),
            per="set",
            at_least=KID_FLOOR,
            better="lower",
            title="KID to truth",
            heading="KID x1000",
            called="KID",
            digits=3,
            factor=1000,
            method=f"{_MMD}; pairs left out of the cross term",
            colour="sRGB",
        ),
        Metric(
            key="kid_reference",
            compute=FromFeatures(
                _perceptual_features,
                lambda sets: kid(sets.restored, sets.sides["reference"], generator=sets.generator()),
            ),
            needs=("reference", "perceptual"),
            per="set",
            at_least=KID_FLOOR,
            better="lower",
            title="KID to reference",
            heading="KID x1000 to reference",
            called="KID",
            digits=3,
            factor=1000,
            method=_MMD,
            colour="sRGB",
        ),
        Metric(
            key="low_frequency",
            compute=FromImages(lambda batch: low_frequency_difference(batch.restored, batch.sides["photos"])),
            needs=("photos",),
            better="neither",
            title="low-frequency change",
            heading="low-freq. change",
            method="mean absolute difference to the photo of block means, 32 blocks along the shorter side",
        ),
        Metric(
            key="colour_shift",
            compute=FromImages(lambda batch: colour_shift(batch.restored, batch.sides["photos"])),
            needs=("photos",),
            better="lower",
            title="colour shift",
            method="mean over channels of the difference of mean colour to the photo",
        ),
        Metric(
            key="sharpness",
            compute=FromImages(lambda batch: relative_sharpness(batch.restored, batch.sides["truth"])),
            needs=("truth",),
            better="neither",
            title="sharpness to truth",
            heading="sharpness (truth = 1)",
            called="sharpness",
            digits=3,
            method=f"{_HIGH}, over that of the truth; mean over photos",
        ),
        Metric(
            key="sharpness_reference",
            compute=FromFeatures(
                _sharpness_features,
                lambda sets: sharpness_over_mean(sets.restored[:, 0], sets.sides["reference"][:, 0]),
            ),
            needs=("reference",),
            unless=("truth",),
            better="neither",
            title="sharpness to reference",
            heading="sharpness (reference = 1)",
            called="sharpness",
            digits=3,
            method=f"{_HIGH}, over the mean of the reference images; mean over photos",
        ),
        Metric(
            key="sharpness_absolute",
            compute=FromImages(lambda batch: sharpness(batch.restored)),
            unless=("truth",),
            better="neither",
            title="sharpness",
            method=f"{_HIGH}; mean over photos",
        ),
        *_kept("truth"),
        Metric(
            key="ids",
            compute=_of_faces(identity_similarity, "recogniser", "truth"),
            needs=("truth", "recogniser"),
            better="higher",
            title="identity similarity (IDS)",
            heading="IDS",
            digits=3,
            method="cosine of the embeddings, mean over photos; by the pack's recogniser strangers are at 0.92 and two"
            " photos of one person at 0.99",
            colour="sRGB",
            aside=True,
        ),
        Metric(
            key="degrees",
            compute=_of_faces(identity_angle, "recogniser", "truth"),
            needs=("truth", "recogniser"),
            better="lower",
            title="identity angle (Deg.)",
            heading="Deg.",
            digits=1,
            method="angle between the embeddings in degrees, mean over photos",
            colour="sRGB",
            aside=True,
        ),
        *(_found_among(k) for k in (1, 3, 5)),
        *_kept("photos"),
    )
}
