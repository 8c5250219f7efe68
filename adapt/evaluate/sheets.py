"""Contact sheets: pictures in rows and labelled columns, every pixel as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adapt.disk import write_atomic
from adapt.errors import ShapeError, UsageError
from adapt.images import check_image, to_uint8

MARGIN: Final = 12
"""Pixels around the sheet."""

GAP: Final = 4
"""Pixels between pictures of a row."""

_PAPER: Final = (255, 255, 255)
_INK: Final = (32, 32, 32)
_QUIET: Final = (110, 110, 110)
_EMPTY: Final = (236, 236, 236)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    rows: Sequence[Sequence[Tensor | None]],
    headings: Sequence[str],
    *,
    row_names: Sequence[str] | None = None,
    scale: int = 1,
) -> Image.Image:
    """Rows of pictures under headings, each row above its name.

    Args:
        rows: of (3, H, W) pictures in [0, 1], all of one size; None leaves a grey field.
        headings: one per column.
        row_names: one per row; too long ones are shortened in the middle, so that start and end stay readable.
        scale: each pixel is drawn as `scale` x `scale` pixels.

    Returns:
        An RGB picture; the first picture of the first row starts at `first_corner(...)`.

    Raises:
        UsageError: nothing to show, or counts that do not match.
        ShapeError, RangeError: pictures of different sizes, or not (3, H, W) in [0, 1].
    """
    height, width = _common_size(rows, headings, row_names, scale)
    cell_w, cell_h = width * scale, height * scale
    head_font, name_font = _fonts(cell_w)
    head, line = _line_height(head_font), _line_height(name_font) if row_names else 0
    sheet_w = 2 * MARGIN + len(headings) * (cell_w + GAP) - GAP
    row_h = cell_h + line + GAP
    sheet = Image.new("RGB", (sheet_w, 2 * MARGIN + head + len(rows) * row_h - GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        left = MARGIN + column * (cell_w + GAP)
        pen.text((left, MARGIN), _fitted(heading, head_font, cell_w), fill=_INK, font=head_font)
    for index, row in enumerate(rows):
        top = MARGIN + head + index * row_h
        for column, picture in enumerate(row):
            corner = (MARGIN + column * (cell_w + GAP), top)
            if picture is None:
                pen.rectangle((*corner, corner[0] + cell_w - 1, corner[1] + cell_h - 1), fill=_EMPTY)
            else:
                pixels = Image.fromarray(to_uint8(picture))
                sheet.paste(pixels.resize((cell_w, cell_h), Image.Resampling.NEAREST), corner)
        if row_names:
            name = _fitted(row_names[index], name_font, sheet_w - 2 * MARGIN)
            pen.text((MARGIN, top + cell_h + 1), name, fill=_QUIET, font=name_font)
    return sheet


def first_corner(cell_width: int) -> tuple[int, int]:
    """Left and top of the first picture of a sheet whose cells are `cell_width` pixels wide (scaled)."""
    return MARGIN, MARGIN + _line_height(_fonts(cell_width)[0])


def write_sheet(
    path: Path,
    rows: Sequence[Sequence[Tensor | None]],
    headings: Sequence[str],
    *,
    row_names: Sequence[str] | None = None,
    scale: int = 1,
) -> None:
    """Write a contact sheet as .png or .jpg (quality 92, full colour resolution), whole or not at all.

    Raises: as `contact_sheet`. UsageError: another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"{path}: expected a contact sheet to end in .png, .jpg or .jpeg")
    sheet = contact_sheet(rows, headings, row_names=row_names, scale=scale)
    if suffix == ".png":
        write_atomic(path, lambda stream: sheet.save(stream, "PNG"))
    else:
        write_atomic(path, lambda stream: sheet.save(stream, "JPEG", quality=92, subsampling=0))


# ---------------------------------------------------------------- parts


def _common_size(
    rows: Sequence[Sequence[Tensor | None]], headings: Sequence[str], row_names: Sequence[str] | None, scale: int
) -> tuple[int, int]:
    if not rows or not headings:
        raise UsageError(f"contact sheet: nothing to show: {len(rows)} rows, {len(headings)} headings")
    if scale < 1:
        raise UsageError(f"contact sheet: expected a scale of 1 or more, got {scale}")
    if row_names is not None and len(row_names) != len(rows):
        raise UsageError(f"contact sheet: expected a name for each of {len(rows)} rows, got {len(row_names)}")
    size: tuple[int, int] | None = None
    for index, row in enumerate(rows):
        if len(row) != len(headings):
            raise UsageError(f"contact sheet, row {index}: expected {len(headings)} pictures, got {len(row)}")
        for picture, heading in zip(row, headings, strict=True):
            if picture is None:
                continue
            name = f"contact sheet, row {index}, {heading}"
            check_image(picture[None], name)
            found = (picture.shape[1], picture.shape[2])
            if size is not None and found != size:
                raise ShapeError(
                    f"{name}: expected {size[1]} x {size[0]} pixels as the others, got {found[1]} x {found[0]}"
                )
            size = found
    if size is None:
        raise UsageError("contact sheet: expected one picture or more, got empty fields only")
    return size


def _fonts(cell_width: int) -> tuple[_Font, _Font]:
    size = min(28, max(12, cell_width // 9))
    return ImageFont.load_default(size), ImageFont.load_default(max(10, size * 4 // 5))


def _line_height(font: _Font) -> int:
    return math.ceil(font.getbbox("Åg")[3]) + 5


def _fitted(text: str, font: _Font, width: int) -> str:
    """The text, shortened in the middle until it fits; line breaks and other control characters become spaces."""
    text = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return "…"
