"""Evaluations side by side, as text and as markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adapt.evaluate.evaluation import Evaluation

# Key of a score -> heading, whether higher is better (None: neither), digits.
COLUMNS: Final[dict[str, tuple[str, bool | None, int]]] = {
    "psnr": ("PSNR ↑", True, 2),
    "ssim": ("SSIM ↑", True, 3),
    "perceptual": ("perceptual ↓", False, 4),
    "kid": ("KID x1000 ↓", False, 3),
    "kid_reference": ("KID x1000 to reference ↓", False, 3),
    "low_frequency": ("low-freq. change", None, 4),
    "colour_shift": ("colour shift ↓", False, 4),
}
SCALES: Final = {"kid": 1000, "kid_reference": 1000}  # as the field prints it


def cells(evaluations: Mapping[str, Evaluation], *, mark: str = "") -> list[list[str]]:
    """Heading and one row per evaluation; the best of a column between two `mark`s."""
    keys = [key for key in COLUMNS if any(key in item.scores for item in evaluations.values())]
    best: dict[str, float] = {}
    for key in keys:
        higher = COLUMNS[key][1]
        means = [item.scores[key].mean for item in evaluations.values() if key in item.scores]
        if higher is not None and len(means) > 1:
            best[key] = max(means) if higher else min(means)
    table = [["", *[COLUMNS[key][0] for key in keys]]]
    for name, item in evaluations.items():
        row = [name]
        for key in keys:
            if key not in item.scores:
                row.append("-")
                continue
            mean = item.scores[key].mean
            text = f"{mean * SCALES.get(key, 1):.{COLUMNS[key][2]}f}"
            row.append(f"{mark}{text}{mark}" if best.get(key) == mean else text)
        table.append(row)
    return table


def text_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Columns aligned with spaces."""
    table = cells(evaluations)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if index == 0 else cell.rjust(width)
                  for index, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in table
    )


def markdown_table(evaluations: Mapping[str, Evaluation]) -> str:
    """The same in markdown, the best of each column in bold."""
    heading, *rows = cells(evaluations, mark="**")
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
