"""Contact sheets: images in rows and columns with readable labels, every pixel as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adapt.disk import write_atomic
from adapt.errors import ShapeError, UsageError
from adapt.images import check_image, to_uint8

GAP: Final = 4
LABEL: Final = 18
FONT_SIZE: Final = 12
PAPER: Final = (250, 250, 250)
INK: Final = (30, 30, 30)
EMPTY: Final = (225, 225, 225)
FORMATS: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def contact_sheet(
    columns: Sequence[str],
    rows: Sequence[Sequence[Tensor | None]],
    *,
    row_names: Sequence[str] | None = None,
    scale: int = 1,
) -> Image.Image:
    """A sheet with one image per cell.

    Args:
        columns: headings.
        rows: of (3, H, W) images in [0, 1], as many as there are columns, all of one size; None leaves a grey field.
        row_names: printed under each row; long ones are shortened in the middle.
        scale: every pixel becomes a square of this side.

    Raises:
        UsageError: no images, rows of another length than the columns, names that do not match, a scale below 1.
        ShapeError, RangeError: images of different sizes, or not (3, H, W) in [0, 1]; the cell is named.
    """
    if not rows or any(len(row) != len(columns) for row in rows):
        raise UsageError(
            f"contact sheet: expected rows of {len(columns)} images, got {[len(row) for row in rows] or 'none'}"
        )
    if row_names is not None and len(row_names) != len(rows):
        raise UsageError(f"contact sheet: expected a name for each of {len(rows)} rows, got {len(row_names)}")
    if scale < 1:
        raise UsageError(f"contact sheet: expected a scale of 1 or more, got {scale}")
    height, width = (side * scale for side in _common_size(columns, rows))
    below = LABEL if row_names is not None else 0
    size = (GAP + len(columns) * (width + GAP), LABEL + len(rows) * (height + GAP + below) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for column, heading in enumerate(columns):
        draw.text((GAP + column * (width + GAP), 2), _fitted(heading, width, font), fill=INK, font=font)
    for index, row in enumerate(rows):
        top = LABEL + GAP + index * (height + GAP + below)
        for column, image in enumerate(row):
            left = GAP + column * (width + GAP)
            if image is None:
                draw.rectangle((left, top, left + width - 1, top + height - 1), fill=EMPTY)
                continue
            cell = Image.fromarray(to_uint8(image)).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (left, top))
        if row_names is not None:
            name = _fitted(row_names[index], size[0] - 2 * GAP, font)
            draw.text((GAP, top + height + 1), name, fill=INK, font=font)
    return sheet


def write_sheet(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[Tensor | None]],
    *,
    row_names: Sequence[str] | None = None,
    scale: int = 1,
) -> None:
    """Write a contact sheet (.jpg of quality 92 with full colour resolution, or .png) atomically, over an older one.

    Raises: as `contact_sheet`. UsageError: another suffix.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: a contact sheet is written as .jpg or .png")
    sheet = contact_sheet(columns, rows, row_names=row_names, scale=scale)
    write_atomic(path, lambda stream: sheet.save(stream, kind, quality=92, subsampling=0))


def _common_size(columns: Sequence[str], rows: Sequence[Sequence[Tensor | None]]) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    for index, row in enumerate(rows):
        for heading, image in zip(columns, row, strict=True):
            if image is None:
                continue
            name = f"contact sheet, row {index}, {heading}"
            check_image(image[None], name)
            found = (image.shape[1], image.shape[2])
            if size is not None and found != size:
                raise ShapeError(f"{name}: expected {size[1]} x {size[0]} pixels, got {found[1]} x {found[0]}")
            size = found
    if size is None:
        raise UsageError("contact sheet: expected one image or more, got empty fields only")
    return size


def _fitted(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text in one line, shortened in the middle to the width it has: what tells names apart is often at the end."""
    text = "".join(c if c.isprintable() else " " for c in text)
    kept, fitted = len(text), text
    while kept > 1 and font.getlength(fitted) > width:
        kept -= 1
        fitted = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return fitted
