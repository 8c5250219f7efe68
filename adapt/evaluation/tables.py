"""Evaluations side by side: as text, as markdown, and as cells for the result page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapt.errors import UsageError
from adapt.evaluation.catalogue import METRICS
from adapt.evaluation.metrics import MetricProtocol
from adapt.evaluation.scores import Evaluation, Score


@dataclass(frozen=True, slots=True)
class Cell:
    """A number as text.

    Attributes:
        value: the mean, rounded; "-" where the evaluation lacks it.
        error: its standard error, rounded alike; empty where there is none.
        best: no other evaluation's number is better as printed.
    """

    value: str
    error: str
    best: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Evaluations side by side.

    Attributes:
        keys: of the columns, as in `adapt.evaluation.catalogue.METRICS`.
        headings: with an arrow towards the better side.
        protocols: of each column, from the first evaluation that has it.
        rows: the evaluation's name and a cell for each column. Where the evaluations do not all count as many
            photos, the name says how many.
    """

    keys: Sequence[str]
    headings: Sequence[str]
    protocols: Sequence[MetricProtocol]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def tabulate(evaluations: Mapping[str, Evaluation], *, everything: bool = False) -> Table:
    """Rows in the order given, columns in the order of `adapt.evaluation.catalogue.METRICS`.

    Args:
        evaluations: by name.
        everything: those that a metric says to leave aside too.

    Raises:
        UsageError: a metric was computed in different ways or by different networks: such numbers do not belong
            into one column.
    """
    keys = [
        key for key, metric in METRICS.items()
        if (everything or not metric.aside) and any(key in item.scores for item in evaluations.values())
    ]
    columns = [_column(key, evaluations) for key in keys]
    protocols = [next(e.scores[key] for e in evaluations.values() if key in e.scores).protocol for key in keys]
    counts = {name: len(item.rows) for name, item in evaluations.items()}
    unequal = len(set(counts.values())) > 1
    names = [f"{name} (n = {count})" if unequal else name for name, count in counts.items()]
    headings = [METRICS[key].headed(protocol) for key, protocol in zip(keys, protocols, strict=True)]
    rows = [(name, [column[index] for column in columns]) for index, name in enumerate(names)]
    return Table(keys, headings, protocols, rows)


def text_table(evaluations: Mapping[str, Evaluation], *, everything: bool = False) -> str:
    """Columns aligned with spaces. Arguments and errors as of `tabulate`."""
    table = tabulate(evaluations, everything=everything)
    grid = [["", *table.headings]]
    grid += [[name, *(_in_text(cell, key, "") for cell, key in zip(row, table.keys, strict=True))]
             for name, row in table.rows]
    widths = [max(len(row[column]) for row in grid) for column in range(len(grid[0]))]
    lines = (
        "  ".join((row[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(row[1:], widths[1:], strict=True))))
        for row in grid
    )
    return "\n".join(lines)


def markdown_table(evaluations: Mapping[str, Evaluation]) -> str:
    """The same in markdown, the best of each column in bold. Raises: as `tabulate`."""
    table = tabulate(evaluations)
    lines = [["", *table.headings], ["---", *["---:"] * len(table.headings)]]
    for name, row in table.rows:
        texts = [_in_text(cell, key, "**") for cell, key in zip(row, table.keys, strict=True)]
        lines.append([name.replace("|", "\\|"), *texts])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _column(key: str, evaluations: Mapping[str, Evaluation]) -> list[Cell]:
    scores = {name: item.scores[key] for name, item in evaluations.items() if key in item.scores}
    _check_alike(scores)
    digits, factor = METRICS[key].digits, METRICS[key].factor
    values = {name: f"{score.mean * factor:.{digits}f}" for name, score in scores.items()}
    better = next(iter(scores.values())).protocol.better
    printed = [float(value) for value in values.values() if not math.isnan(float(value))]
    best = math.nan  # equal to nothing
    if len(printed) > 1 and better != "neither":
        best = max(printed) if better == "higher" else min(printed)
    column: list[Cell] = []
    for name in evaluations:
        if name not in scores:
            column.append(Cell("-", "", False))
            continue
        error = scores[name].error * factor
        shown = f"{error:.{digits}f}" if math.isfinite(error) else ""
        column.append(Cell(values[name], shown, float(values[name]) == best))
    return column


def _check_alike(scores: Mapping[str, Score]) -> None:
    """The same method and network; the photos may be fewer, as where only accepted targets are counted."""
    (first, score), *others = scores.items()
    for name, other in others:
        for field in ("title", "method", "computed_by", "weights", "value_range", "colour", "resize"):
            ours, theirs = getattr(score.protocol, field), getattr(other.protocol, field)
            if ours != theirs:
                raise UsageError(
                    f"{score.protocol.title}: '{first}' and '{name}' cannot stand in one table: {field} is"
                    f" '{ours}' and '{theirs}'; evaluate both anew, in the same way"
                )


def _in_text(cell: Cell, key: str, mark: str) -> str:
    """The number; of a set with its error, as it means little without."""
    value = f"{mark}{cell.value}{mark}" if cell.best else cell.value
    return f"{value} ± {cell.error}" if METRICS[key].per == "set" and cell.error else value
