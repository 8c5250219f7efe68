"""The colour filter of a sensor: one colour for each photosite, and the two others guessed back.

All functions work on batches, (B, 3, H, W) pictures and (B, 1, H, W) mosaics, in any unit, with one phase for all or
one for each image. Sides may be odd. Borders are mirrored about the outermost photosites, which keeps the colours in
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from degradations.filters import check_batch, mirror
from degradations.profiles import Phase

Demosaic = Literal["bilinear", "malvar", "hamilton-adams"]

_CHANNELS = {"R": 0, "G": 1, "B": 2}

# What a colour at a site is taken from. Of the filtered mosaics, CROSS gives green at red and blue sites, ALONG and
# ACROSS give red and blue at green sites whose neighbours in the row (the column) have them, DIAGONAL gives red at
# blue sites and blue at red ones.
_OWN, _CROSS, _ALONG, _ACROSS, _DIAGONAL = range(5)

_BILINEAR = (
    ((0, 1, 0), (1, 0, 1), (0, 1, 0)),
    ((0, 0, 0), (2, 0, 2), (0, 0, 0)),
    ((0, 2, 0), (0, 0, 0), (0, 2, 0)),
    ((1, 0, 1), (0, 0, 0), (1, 0, 1)),
)  # quarters

_MALVAR = (
    ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0)),
    ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0)),
    ((0, 0, -2, 0, 0), (0, -2, 8, -2, 0), (1, 0, 10, 0, 1), (0, -2, 8, -2, 0), (0, 0, -2, 0, 0)),
    ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0)),
)  # sixteenths


# ---------------------------------------------------------------- mosaic


def mosaic(images: Tensor, phase: Phase | Sequence[Phase]) -> Tensor:
    """What the sensor sees of (B, 3, H, W): the one colour of each photosite, (B, 1, H, W).

    Raises:
        ValueError: another shape, or not one phase for each image.
    """
    check_batch(images, "mosaic")
    return images.gather(1, _colours(phase, images).unsqueeze(1).expand(len(images), 1, -1, -1))


def spread(raw: Tensor, phase: Phase | Sequence[Phase]) -> Tensor:
    """A mosaic (B, 1, H, W) as a picture (B, 3, H, W) that is 0 where a colour was not seen: the adjoint of `mosaic`.

    Raises:
        ValueError: another shape, or not one phase for each image.
    """
    _check_raw(raw, "spread")
    index = _colours(phase, raw).unsqueeze(1).expand(len(raw), 1, -1, -1)
    empty = raw.new_zeros(len(raw), 3, raw.shape[2], raw.shape[3])
    return empty.scatter(1, index, raw)


def per_site(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Numbers of the four sites, (B, 4) as in `NoiseLevel`, at every photosite: (B, 1, H, W)."""
    return _tiled(values.view(-1, 1, 2, 2), size)


def _tiled(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 2, 2) repeated over (..., height, width)."""
    height, width = size
    rows = torch.arange(height, device=cells.device) % 2
    columns = torch.arange(width, device=cells.device) % 2
    return cells[..., rows[:, None], columns]


def _cells(phase: Phase | Sequence[Phase], like: Tensor) -> list[list[int]]:
    """The colour of each of the four sites, for each image or once for all."""
    phases = [phase] if isinstance(phase, str) else list(phase)
    if not isinstance(phase, str) and len(phases) != len(like):
        raise ValueError(f"Bayer phase: expected one for each of {len(like)} images, got {len(phases)}")
    for one in phases:
        if one not in ("RGGB", "GRBG", "GBRG", "BGGR"):
            raise ValueError(f"Bayer phase: expected RGGB, GRBG, GBRG or BGGR, got {one!r}")
    return [[_CHANNELS[colour] for colour in one] for one in phases]


def _colours(phase: Phase | Sequence[Phase], like: Tensor) -> Tensor:
    """The channel each photosite sees: (B or 1, H, W)."""
    cells = torch.tensor(_cells(phase, like), device=like.device).view(-1, 2, 2)
    return _tiled(cells, (like.shape[2], like.shape[3]))


# ---------------------------------------------------------------- demosaic


def demosaic(raw: Tensor, phase: Phase | Sequence[Phase], method: Demosaic = "hamilton-adams") -> Tensor:
    """The picture of a mosaic: (B, 1, H, W) to (B, 3, H, W), not clipped. What was seen stays as it is.

    Args:
        raw: in proportion to light, white-balanced where the method is not "bilinear": the two others take it that
            the colours change together.
        phase: of all images, or one for each.
        method: "bilinear" is the mean of the nearest photosites of a colour. "malvar" adds to it what the site's own
            colour says about the curvature. "hamilton-adams" finds green along the smoother of row and column, then
            interpolates red and blue as differences to green.

    Raises:
        ValueError: another shape, under 2 x 2 photosites, an unknown phase or method.

    Source: Malvar, He and Cutler 2004, Fig. 2; Hamilton and Adams 1997 (US 5629734). Differs from the latter: red and
    blue at opposite sites are bilinear in the colour difference, not directed along a diagonal.
    """
    _check_raw(raw, "demosaic")
    if min(raw.shape[2:]) < 2:
        raise ValueError(f"demosaic: expected at least 2 x 2 photosites, got {raw.shape[2]} x {raw.shape[3]}")
    sources = _sources(phase, raw)
    if method == "bilinear":
        return _picked(raw, _filtered(raw, _BILINEAR, 4), sources)
    if method == "malvar":
        return _picked(raw, _filtered(raw, _MALVAR, 16), sources)
    if method == "hamilton-adams":
        green = torch.where(sources[:, 1:2] == _OWN, raw, _directed_green(raw))
        difference = raw - green  # 0 at green sites, which the filters below do not look at
        chroma = _picked(difference, _filtered(difference, _BILINEAR, 4), sources)
        return torch.cat([green + chroma[:, :1], green, green + chroma[:, 2:]], 1)
    raise ValueError(f"demosaic: expected the method bilinear, malvar or hamilton-adams, got {method!r}")


def _sources(phase: Phase | Sequence[Phase], like: Tensor) -> Tensor:
    """Where each colour at each site comes from: (B or 1, 3, H, W) of `_OWN` to `_DIAGONAL`."""
    tables: list[list[list[int]]] = []
    for cell in _cells(phase, like):
        table: list[list[int]] = []
        for channel in range(3):
            row: list[int] = []
            for site, own in enumerate(cell):
                if own == channel:
                    row.append(_OWN)
                elif channel == 1:
                    row.append(_CROSS)
                elif own != 1:
                    row.append(_DIAGONAL)
                else:
                    row.append(_ALONG if cell[site ^ 1] == channel else _ACROSS)
            table.append(row)
        tables.append(table)
    cells = torch.tensor(tables, device=like.device).view(-1, 3, 2, 2)
    return _tiled(cells, (like.shape[2], like.shape[3]))


def _padded(raw: Tensor, reach: int) -> Tensor:
    rows = mirror(torch.arange(-reach, raw.shape[2] + reach, device=raw.device), raw.shape[2])
    columns = mirror(torch.arange(-reach, raw.shape[3] + reach, device=raw.device), raw.shape[3])
    return raw[:, :, rows][:, :, :, columns]


def _filtered(raw: Tensor, filters: Sequence[Sequence[Sequence[int]]], unit: int) -> Tensor:
    """The mosaic under each of four filters, whose weights are counted in 1 / unit: (B, 4, H, W)."""
    weights = raw.new_tensor(filters)[:, None] / unit
    return functional.conv2d(_padded(raw, weights.shape[-1] // 2), weights)


def _picked(raw: Tensor, filtered: Tensor, sources: Tensor) -> Tensor:
    """At each site and channel, what `sources` names."""
    return torch.cat([raw, filtered], 1).gather(1, sources.expand(len(raw), -1, -1, -1))


def _directed_green(raw: Tensor) -> Tensor:
    """Green at red and blue sites, along the smoother direction; the mean of both where they are equally smooth."""
    height, width = raw.shape[2:]
    padded = _padded(raw, 2)

    def shifted(down: int, right: int) -> Tensor:
        return padded[:, :, 2 + down : 2 + down + height, 2 + right : 2 + right + width]

    greens: list[Tensor] = []
    roughness: list[Tensor] = []
    for down, right in ((0, 1), (1, 0)):
        before, after = shifted(-down, -right), shifted(down, right)
        curvature = 2 * raw - shifted(-2 * down, -2 * right) - shifted(2 * down, 2 * right)
        greens.append((before + after) / 2 + curvature / 4)
        roughness.append((before - after).abs() + curvature.abs())
    along, across = greens
    chosen = torch.where(roughness[0] < roughness[1], along, across)
    return torch.where(roughness[0] == roughness[1], (along + across) / 2, chosen)


def _check_raw(raw: Tensor, name: str) -> None:
    if raw.ndim != 4 or raw.shape[1] != 1 or 0 in raw.shape:
        raise ValueError(f"{name}: expected a batch of mosaics of shape (B, 1, H, W), got {tuple(raw.shape)}")
    if not raw.is_floating_point():
        raise ValueError(f"{name}: expected floating values, got {raw.dtype}")
