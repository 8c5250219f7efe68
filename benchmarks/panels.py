"""Curves over a number, drawn as a panel: what the benchmarks' figures are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from adapt.commands.noise_plot import COLOURS, GRID, INK, PAPER

PANEL: Final = (640, 440)
MARGINS: Final = (64, 40, 20, 56)  # left, top, right, bottom
_LINES: Final = (COLOURS["R"], COLOURS["B"], COLOURS["G"])  # of the curves, in their order

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Axes:
    """From values to pixels of the panel."""

    across: tuple[float, float]
    up: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = MARGINS
        span = (self.across[1] - self.across[0]) or 1.0
        return (
            left + (x - self.across[0]) / span * (PANEL[0] - left - right),
            PANEL[1] - bottom - (y - self.up[0]) / (self.up[1] - self.up[0]) * (PANEL[1] - top - bottom),
        )


def draw_panel(title: str, curves: Mapping[str, Curve], *, across: str, up: str, digits: int = 2) -> Image.Image:
    """Up to three curves in one panel, each point marked.

    Args:
        title: above it.
        curves: points (x, y) of each, by the name it has in the legend.
        across, up: what the axes say.
        digits: of the numbers at the vertical axis.
    """
    points = [point for curve in curves.values() for point in curve]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    room = 0.1 * (high - low) + 10.0**-digits
    axes = _Axes((left, right), (low - room, high + room))
    image = Image.new("RGB", PANEL, PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for x in sorted({x for x, _ in points}):
        pen.line([axes.place(x, axes.up[0]), axes.place(x, axes.up[1])], fill=GRID)
        pen.text((axes.place(x, 0)[0], PANEL[1] - MARGINS[3] + 6), f"{x:g}", fill=INK, font=font, anchor="mt")
    for index in range(6):
        y = axes.up[0] + index / 5 * (axes.up[1] - axes.up[0])
        pen.line([axes.place(left, y), axes.place(right, y)], fill=GRID)
        pen.text((MARGINS[0] - 6, axes.place(0, y)[1]), f"{y:.{digits}f}", fill=INK, font=font, anchor="rm")
    end = PANEL[0] - MARGINS[2]
    for (name, curve), colour in zip(curves.items(), _LINES, strict=False):
        placed = [axes.place(*point) for point in sorted(curve)]
        pen.line(placed, fill=colour, width=2)
        for x, y in placed:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        pen.text((end, MARGINS[1] - 4), name, fill=colour, font=font, anchor="rb")  # above, where no curve comes
        end -= font.getlength(name) + 16
    pen.text((MARGINS[0], 4), title, fill=INK, font=ImageFont.load_default(14))
    pen.text((PANEL[0] / 2, PANEL[1] - 8), across, fill=INK, font=font, anchor="mb")
    pen.text((MARGINS[0], MARGINS[1] - 4), up, fill=INK, font=font, anchor="lb")
    return image


def side_by_side(panels: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Panels in rows of so many."""
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (PANEL[0] * min(columns, len(panels)), PANEL[1] * rows), PAPER)
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index % columns * PANEL[0], index // columns * PANEL[1]))
    return sheet
