"""Evaluations side by side: as plain text, as markdown, and as data for other writers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from adapt.errors import UsageError
from adapt.evaluate.evaluation import Evaluation, Score
from adapt.evaluate.metrics import Better, MetricProtocol

_ARROWS: Final[dict[Better, str]] = {"higher": "↑", "lower": "↓"}
_DECIMALS: Final = {"psnr": 2, "ssim": 4, "perceptual": 4, "low_frequency": 4, "colour_shift": 4}


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as text: `value`, `error` (empty where there is none), and whether it is the column's best."""

    value: str
    error: str
    best: bool

    def __str__(self) -> str:
        return f"{self.value} ± {self.error}" if self.error else self.value


@dataclass(frozen=True, slots=True)
class Table:
    """Evaluations side by side.

    Attributes:
        headings: of the columns of numbers, with unit and an arrow to the better side.
        rows: name of the evaluation and its cells; None where it lacks the number.
        protocols: of each column.
        notes: what the evaluations left out, each under its name.
    """

    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    protocols: Sequence[MetricProtocol]
    notes: Sequence[str]


def tabulate(evaluations: Mapping[str, Evaluation]) -> Table:
    """Rows are the evaluations in the order given, columns their metrics. Bold or equal: nothing is called best alone.

    Raises:
        UsageError: no evaluation, or the same metric with different protocols (another network, other files or
            another number of photos): such numbers do not belong in one column.
    """
    if not evaluations:
        raise UsageError("table: expected one evaluation or more, got none")
    keys = list(dict.fromkeys(key for evaluation in evaluations.values() for key in evaluation.scores))
    protocols: list[MetricProtocol] = []
    columns: list[list[Cell | None]] = []
    for key in keys:
        scores = {name: e.scores[key] for name, e in evaluations.items() if key in e.scores}
        protocols.append(_one_protocol(scores))
        cells = _column(key, list(scores.values()))
        texts = dict(zip(scores, cells, strict=True))
        columns.append([texts.get(name) for name in evaluations])
    rows = [(name, [column[index] for column in columns]) for index, name in enumerate(evaluations)]
    notes = [f"{name}: {note}" for name, e in evaluations.items() for note in e.notes]
    return Table([_heading(p) for p in protocols], rows, protocols, notes)


def plain_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Columns aligned with spaces; the best of each column has an asterisk. Raises UsageError as `tabulate`."""
    table = tabulate(evaluations)
    grid = [["", *table.headings]]
    for name, cells in table.rows:
        grid.append([name, *("-" if c is None else f"{c}{'*' if c.best else ' '}" for c in cells)])
    grid[0][1:] = [f"{heading} " for heading in grid[0][1:]]
    widths = [max(len(row[i]) for row in grid) for i in range(len(grid[0]))]
    lines = [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in grid
    ]
    return "\n".join(line.rstrip() for line in [*lines, *table.notes]) + "\n"


def markdown_table(evaluations: Mapping[str, Evaluation]) -> str:
    """A markdown table; the best of each column is bold. Raises UsageError as `tabulate`."""
    table = tabulate(evaluations)
    lines = [_markdown_row(["", *table.headings]), _markdown_row(["---", *("---:" for _ in table.headings)])]
    for name, cells in table.rows:
        texts = ["–" if c is None else f"**{c}**" if c.best else f"{c}" for c in cells]  # noqa: RUF001
        lines.append(_markdown_row([_escaped(name), *texts]))
    if table.notes:
        lines += ["", *(f"- {_escaped(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def json_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Everything, protocols and rows of every photo included, as strict JSON."""
    content: dict[str, Any] = {name: evaluation.as_json() for name, evaluation in evaluations.items()}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def protocol_text(protocol: MetricProtocol) -> str:
    """A protocol as one line for people."""
    weights = f", weights {protocol.weights[:12]}" if protocol.weights else ""
    return (
        f"{protocol.title}: {protocol.method}; {protocol.computed_by}{weights}; {protocol.colour} in"
        f" {protocol.value_range}, resize {protocol.resize}; n = {protocol.n}, files {protocol.files[:12]}"
    )


# ---------------------------------------------------------------- parts


def _one_protocol(scores: Mapping[str, Score]) -> MetricProtocol:
    (first, score), *others = scores.items()
    for name, other in others:
        if other.protocol != score.protocol:
            fields = [
                f"{field} {getattr(score.protocol, field)} and {getattr(other.protocol, field)}"
                for field in MetricProtocol.__dataclass_fields__
                if getattr(score.protocol, field) != getattr(other.protocol, field)
            ]
            raise UsageError(
                f"{score.protocol.title} of '{first}' and '{name}' do not compare: {'; '.join(fields)}"
                " -- evaluate both on the same files with the same network"
            )
    return score.protocol


def _column(key: str, scores: Sequence[Score]) -> list[Cell]:
    decimals = _DECIMALS.get(key)
    if decimals is None:
        decimals = _enough_decimals([s.error for s in scores] + [s.mean for s in scores])
    values = [f"{s.mean:.{decimals}f}" for s in scores]
    sign = 1 if scores[0].protocol.better == "higher" else -1
    top = max(sign * float(v) for v in values)  # of what is printed: equal texts are equally good
    alone = len(scores) == 1
    return [
        Cell(v, f"{s.error:.{decimals}f}" if math.isfinite(s.error) else "", not alone and sign * float(v) == top)
        for v, s in zip(values, scores, strict=True)
    ]


def _enough_decimals(values: Sequence[float]) -> int:
    """Decimals that show two digits of the smallest value, within 2 to 6."""
    sizes = [abs(v) for v in values if math.isfinite(v) and v != 0]
    if not sizes:
        return 4
    return min(6, max(2, 1 - math.floor(math.log10(min(sizes)))))


def _heading(protocol: MetricProtocol) -> str:
    unit = f" [{protocol.unit}]" if protocol.unit else ""
    return f"{protocol.title}{unit} {_ARROWS[protocol.better]}"


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
