"""Contact sheets: pictures in rows and columns with readable labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adapt.disk import write_atomic
from adapt.errors import UsageError
from adapt.images import to_uint8

GAP: Final = 4
LABEL: Final = 18
FONT_SIZE: Final = 12
PAPER: Final = (250, 250, 250)
INK: Final = (30, 30, 30)
FORMATS: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def contact_sheet(
    columns: Sequence[str],
    rows: Sequence[Sequence[Tensor]],
    row_names: Sequence[str] | None = None,
    scale: int = 1,
) -> Image.Image:
    """A sheet with one picture per cell.

    Args:
        columns: headings.
        rows: of (3, H, W) pictures in [0, 1], as many as there are columns, all of one size.
        row_names: printed under each row's first picture.
        scale: every pixel becomes a square of this side.

    Raises:
        UsageError: no rows, or one of another length than the columns.
    """
    if not rows or any(len(row) != len(columns) for row in rows):
        raise UsageError(
            f"contact sheet: expected rows of {len(columns)} pictures, got {[len(row) for row in rows] or 'none'}"
        )
    height, width = rows[0][0].shape[-2] * scale, rows[0][0].shape[-1] * scale
    below = LABEL if row_names is not None else 0
    size = (GAP + len(columns) * (width + GAP), LABEL + len(rows) * (height + GAP + below) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for column, heading in enumerate(columns):
        draw.text((GAP + column * (width + GAP), 2), _fitted(heading, width, font), fill=INK, font=font)
    for index, row in enumerate(rows):
        top = LABEL + GAP + index * (height + GAP + below)
        for column, picture in enumerate(row):
            cell = Image.fromarray(to_uint8(picture))
            if scale > 1:
                cell = cell.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (GAP + column * (width + GAP), top))
        if row_names is not None:
            name = _fitted(row_names[index], size[0] - 2 * GAP, font)
            draw.text((GAP, top + height + 1), name, fill=INK, font=font)
    return sheet


def write_sheet(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[Tensor]],
    row_names: Sequence[str] | None = None,
    scale: int = 1,
) -> None:
    """Write a contact sheet (.jpg or .png) atomically, in place of an older one."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: a contact sheet is written as .jpg or .png")
    sheet = contact_sheet(columns, rows, row_names, scale)
    write_atomic(path, lambda stream: sheet.save(stream, kind, quality=92, subsampling=0))


def _fitted(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, cut to the width it has."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
