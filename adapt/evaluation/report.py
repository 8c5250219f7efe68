"""The result page: one HTML file with everything in it, that opens anywhere and asks nothing of the network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image
from torch import Tensor

from adapt.disk import write_text
from adapt.errors import UsageError
from adapt.evaluation import curves
from adapt.evaluation.catalogue import ARROWS
from adapt.evaluation.metrics import MetricProtocol
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.tables import tabulate
from adapt.images import to_uint8

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")
SLIDERS: Final = 6
WHOLE_SIDE, SLIDER_SIDE, ROW_SIDE = 1280, 512, 256  # larger images are shown scaled down, so that the page stays small
PHOTO: Final = "photo"


@dataclass(frozen=True, slots=True)
class Example:
    """One photo with its images, (3, H, W) in [0, 1], by name: photo, pre-trained, target, adapted, exported, truth."""

    id: str
    images: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page tells.

    Attributes:
        title, summary: what it is and what was done.
        verdict: the outcome in words; `improved` colours it.
        shown: the image that each photo is compared with: of what is exported.
        evidence: what the verdict rests on, lines of its table: evidence, before, after, gain, what that says.
        evaluations: rows of the table; empty where there is none.
        examples: photos to look at, each with at least an image named photo and the one that is `shown`; the first
            six get a slider between the two.
        photographs: whole ones likewise, each with a slider, above all.
        changed: faces whose person is farthest from the photo's, likewise; `changed_text` says by how much.
        log: lines of a training log, each with `step` and numbers.
        problems: photos that were skipped, rejected or failed, with their reasons.
        settings: the resolved recipe.
        versions: of libraries.
        notes: further paragraphs.
    """

    title: str
    summary: str
    verdict: str
    improved: bool
    shown: str = "adapted"
    evidence: Sequence[tuple[str, str, str, str, str]] = ()
    evaluations: Mapping[str, Evaluation]
    examples: Sequence[Example]
    photographs: Sequence[Example] = ()
    changed: Sequence[Example] = ()
    changed_text: str = ""
    log: Sequence[Mapping[str, Any]]
    problems: Sequence[str]
    settings: str
    versions: Mapping[str, str]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image as the page shows it: a data URI and its size in pixels."""

    uri: str
    width: int
    height: int


def write_report(path: Path, report: Report) -> None:
    """Write the page atomically, in place of an older one.

    Raises:
        UsageError: an example without the two images to compare, or evaluations that cannot stand in one table.
    """
    from jinja2 import Environment, StrictUndefined

    for example in (*report.examples, *report.photographs, *report.changed):
        if missing := [name for name in (PHOTO, report.shown) if name not in example.images]:
            raise UsageError(
                f"report, {example.id}: expected images named {PHOTO} and {report.shown}, got no {missing[0]}"
            )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    table = tabulate(report.evaluations)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        table=table,
        arrows=ARROWS,
        protocols=list(zip(table.headings, map(describe, table.protocols), strict=True)),
        left_out=[f"{name}: {note}" for name, item in report.evaluations.items() for note in item.notes],
        sliders=[_slider(each, report.shown, SLIDER_SIDE) for each in report.examples[:SLIDERS]],
        photographs=[_slider(each, report.shown, WHOLE_SIDE) for each in report.photographs],
        rows=[_row(each) for each in report.examples],
        changed=[_row(each) for each in report.changed],
        curves=curves.loss_curves(report.log),
        field=(curves.WIDTH, curves.HEIGHT),
    )
    write_text(path, page.encode("utf-8", "replace").decode())  # file names need not be Unicode, a page must be


def _row(example: Example) -> tuple[str, dict[str, EmbeddedImage]]:
    return example.id, {name: embedded(image, ROW_SIDE) for name, image in example.images.items()}


def _slider(example: Example, shown: str, most: int) -> tuple[str, EmbeddedImage, EmbeddedImage]:
    return example.id, embedded(example.images[PHOTO], most), embedded(example.images[shown], most)


def embedded(image: Tensor, most: int) -> EmbeddedImage:
    """A (3, H, W) image in [0, 1] as a WebP data URI, scaled down where a side is longer than `most`."""
    shown = Image.fromarray(to_uint8(image))
    shown.thumbnail((most, most), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, "WEBP", quality=88)
    return EmbeddedImage("data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode(), *shown.size)


def describe(protocol: MetricProtocol) -> str:
    """How a number was obtained, for people."""
    unit = f"in {protocol.unit}; " if protocol.unit else ""
    weights = f" (weights {protocol.weights[:12]})" if protocol.weights else ""
    return (
        f"{unit}{protocol.method}. By {protocol.computed_by}{weights}; {protocol.colour}, range"
        f" {protocol.value_range}, resized: {protocol.resize}; {protocol.n} photos, files {protocol.files[:12]}."
    )
