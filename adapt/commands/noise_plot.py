"""A noise measurement as a drawing: every patch's variance over its signal, and the lines through the flat ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from degradations.camera.calibrate import NoiseFit, Patches
from degradations.camera.profiles import Phase

PANEL: Final = (720, 520)
PAPER: Final = (255, 255, 255)
INK: Final = (40, 40, 40)
GRID: Final = (228, 228, 228)
LEFT_OUT: Final = (205, 205, 205)
BAND: Final = (214, 214, 240)
COLOURS: Final = {"R": (200, 50, 40), "G": (40, 140, 60), "B": (50, 80, 200)}
MOST_POINTS: Final = 4000

_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 20, 44, 52
_SMALL, _LARGE = 12, 15


def draw_noise(title: str, phase: Phase, levels: Sequence[tuple[float, Patches, NoiseFit]]) -> Image.Image:
    """One panel for each ISO, below each other.

    Points are patches at each site in the colour of its filter, grey those that are not flat; lines are the fitted
    variances of the four sites, the band behind them the 95 % interval of the line they have in common.

    Args:
        title: above the first panel.
        phase: of the sensor.
        levels: ISO, patches, and the fit through them.
    """
    width, height = PANEL
    sheet = Image.new("RGB", (width, height * len(levels)), PAPER)
    for index, (iso, patches, fit) in enumerate(levels):
        sheet.paste(_panel(f"{title}, ISO {iso:g}", phase, patches, fit), (0, index * height))
    return sheet


class _Axes:
    """From DN and DN^2 to pixels, both axes from 0."""

    def __init__(self, right: float, top: float) -> None:
        self.right, self.top = right, top

    def place(self, x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
        width, height = PANEL[0] - _LEFT - _RIGHT, PANEL[1] - _TOP - _BOTTOM
        across = _LEFT + np.asarray(x) / self.right * width
        down = _TOP + height - np.asarray(y) / self.top * height
        return list(zip(across.tolist(), down.tolist(), strict=True))

    def holds(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x >= 0) & (x <= self.right) & (y >= 0) & (y <= self.top)


def _panel(title: str, phase: Phase, patches: Patches, fit: NoiseFit) -> Image.Image:
    image = Image.new("RGB", PANEL, PAPER)
    draw = ImageDraw.Draw(image)
    flat = patches.chosen(patches.flat)
    right = 1.05 * float(flat.signal.max())
    signal = np.linspace(0, right, 200)
    curves = [fit.expected(signal, line) for line in fit.lines]
    axes = _Axes(right, 1.3 * float(max(np.quantile(flat.variance, 0.99), *(curve[-1] for curve in curves))))
    _grid(draw, axes)
    _band(draw, axes, signal, fit)
    others = patches.chosen(~patches.flat)
    _points(draw, axes, others.signal.ravel(), others.variance.ravel(), LEFT_OUT)
    for site in range(4):
        _points(draw, axes, flat.signal[:, site], flat.variance[:, site], _pale(COLOURS[phase[site]]))
    for colour, curve in zip(phase, curves, strict=True):
        draw.line(axes.place(signal, curve), fill=COLOURS[colour], width=2)
    _texts(draw, title, fit, len(others))
    return image


def _grid(draw: ImageDraw.ImageDraw, axes: _Axes) -> None:
    font = ImageFont.load_default(_SMALL)
    for tick in _ticks(axes.right):
        foot, head = axes.place(np.array([tick, tick]), np.array([0, axes.top]))
        draw.line([foot, head], fill=GRID)
        draw.text((foot[0], foot[1] + 6), f"{tick:g}", fill=INK, font=font, anchor="mt")
    for tick in _ticks(axes.top):
        start, end = axes.place(np.array([0, axes.right]), np.array([tick, tick]))
        draw.line([start, end], fill=GRID)
        draw.text((start[0] - 6, start[1]), f"{tick:g}", fill=INK, font=font, anchor="rm")
    draw.line(axes.place(np.array([0, 0, axes.right]), np.array([axes.top, 0, 0])), fill=INK)
    draw.text((PANEL[0] / 2, PANEL[1] - 8), "signal, DN above black", fill=INK, font=font, anchor="mb")
    draw.text((_LEFT, _TOP - 6), "variance, DN^2", fill=INK, font=font, anchor="lb")


def _band(draw: ImageDraw.ImageDraw, axes: _Axes, signal: np.ndarray, fit: NoiseFit) -> None:
    low, high = fit.band(signal)
    draw.polygon(axes.place(signal, high) + axes.place(signal, low)[::-1], fill=BAND)


def _points(
    draw: ImageDraw.ImageDraw, axes: _Axes, signal: np.ndarray, variance: np.ndarray, colour: tuple[int, int, int]
) -> None:
    inside = axes.holds(signal, variance)
    step = math.ceil(inside.sum() / MOST_POINTS) or 1  # evenly thinned: more would be a solid patch of colour
    for x, y in axes.place(signal[inside][::step], variance[inside][::step]):
        draw.rectangle((round(x), round(y), round(x) + 1, round(y) + 1), fill=colour)


def _texts(draw: ImageDraw.ImageDraw, title: str, fit: NoiseFit, left_out: int) -> None:
    draw.text((_LEFT, 6), title, fill=INK, font=ImageFont.load_default(_LARGE))
    low, high = fit.slope_interval
    lines = [
        f"slope {fit.common[0]:.4g} DN^2 per DN (95 %: {low:.4g} to {high:.4g})",
        f"in the dark {fit.common[1]:.3g} DN^2 (95 %: {fit.dark_interval[0]:.3g} to {fit.dark_interval[1]:.3g})",
        *([f"and {100 * fit.uneven:.2g} % of the signal, squared: drawn, not in the profile"] if fit.uneven else []),
        f"{fit.patches} flat patches used; {left_out} others (grey)",
    ]
    font, place = ImageFont.load_default(_SMALL), (_LEFT + 12, _TOP + 10)
    text = "\n".join(lines)
    left, top, right, bottom = draw.multiline_textbbox(place, text, font=font, spacing=5)
    draw.rectangle((left - 6, top - 6, right + 6, bottom + 6), fill=PAPER, outline=GRID)
    draw.multiline_text(place, text, fill=INK, font=font, spacing=5)


def _ticks(end: float) -> list[float]:
    """Four to ten round numbers from 0 to `end`."""
    step = 10 ** math.floor(math.log10(end / 4))
    step *= max(factor for factor in (1, 2, 5) if factor * step <= end / 4)
    return [index * step for index in range(int(end / step) + 1)]


def _pale(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Halfway to the paper, so that lines stand out from points."""
    red, green, blue = ((value + 255) // 2 for value in colour)
    return red, green, blue
