"""The result page: one HTML file with everything in it, that opens anywhere and asks nothing of the network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image
from torch import Tensor

from adapt.disk import write_text
from adapt.evaluate.evaluation import Evaluation
from adapt.evaluate.tables import COLUMNS, cells
from adapt.images import to_uint8

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")
CURVE_WIDTH, CURVE_HEIGHT = 320, 110


@dataclass(frozen=True, slots=True)
class Example:
    """One photo with its pictures, (3, H, W) in [0, 1], by name: photo, pre-trained, target, adapted, truth."""

    id: str
    pictures: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page tells.

    Attributes:
        title, summary: what it is and what was done.
        verdict: the outcome in a sentence; `improved` colours it.
        evaluations: rows of the table.
        examples: photos to look at; the first pictures named photo and adapted get a slider.
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
    evaluations: Mapping[str, Evaluation]
    examples: Sequence[Example]
    log: Sequence[Mapping[str, Any]]
    problems: Sequence[str]
    settings: str
    versions: Mapping[str, str]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """A loss over the steps, as points of an SVG polyline."""

    name: str
    points: str
    first: str
    last: str


def write_report(path: Path, report: Report) -> None:
    """Write the page atomically, in place of an older one."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        table=cells(report.evaluations, mark=""),
        protocols=_protocols(report.evaluations),
        examples=[(each.id, {name: data_uri(p) for name, p in each.pictures.items()}) for each in report.examples],
        side=report.examples[0].pictures["photo"].shape[-1] if report.examples else 128,
        curves=loss_curves(report.log),
        curve_size=(CURVE_WIDTH, CURVE_HEIGHT),
    )
    write_text(path, page)


def data_uri(picture: Tensor) -> str:
    """A picture as a WebP data URI."""
    stream = io.BytesIO()
    Image.fromarray(to_uint8(picture)).save(stream, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def loss_curves(log: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """A curve for every number that the log follows over at least two steps."""
    names = [name for row in log for name, value in row.items() if name != "step" and isinstance(value, float)]
    curves: list[Curve] = []
    for name in dict.fromkeys(names):
        points = [(float(row["step"]), float(row[name])) for row in log if isinstance(row.get(name), float)]
        points = [(step, value) for step, value in points if value == value and abs(value) < 1e30]
        if len(points) < 2:
            continue
        low, high = min(value for _, value in points), max(value for _, value in points)
        begin, end = points[0][0], points[-1][0]
        placed = " ".join(
            f"{(step - begin) / max(end - begin, 1) * CURVE_WIDTH:.1f},"
            f"{CURVE_HEIGHT - 4 - (value - low) / max(high - low, 1e-12) * (CURVE_HEIGHT - 8):.1f}"
            for step, value in points
        )
        curves.append(Curve(name, placed, f"{points[0][1]:.4g}", f"{points[-1][1]:.4g}"))
    return curves


def _protocols(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, str]]:
    """How each number was obtained, once per column."""
    found: dict[str, str] = {}
    for item in evaluations.values():
        for key, score in item.scores.items():
            heading = COLUMNS[key][0] if key in COLUMNS else key
            if heading not in found:
                parts = {k: v for k, v in asdict(score.protocol).items() if v not in (None, "")}
                found[heading] = "; ".join(f"{k}: {v}" for k, v in parts.items())
    return list(found.items())
