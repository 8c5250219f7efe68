"""The colour filter of a sensor: one colour for each photosite, and the two others guessed back.

All functions work on batches, (B, 3, H, W) images and (B, 1, H, W) mosaics, in any unit, with one phase for all or
one for each image. Sides may be odd. Borders are mirrored about the outermost photosites, which keeps the colours in
step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from degradations.camera.profiles import Phase
from degradations.filters import check_batch, mirror

Demosaic = Literal["bilinear", "malvar", "hamilton-adams"]


# ---------------------------------------------------------------- mosaic


def mosaic(images: Tensor, phase: Phase | Sequence[Phase]) -> Tensor:
    """What the sensor sees of (B, 3, H, W): the one colour of each photosite, (B, 1, H, W).

    Raises:
        ValueError: another shape, or not one phase for each image.
    """
    check_batch(images, "mosaic")
    return _by_phase(_mosaic, images, phase)


def _mosaic(images: Tensor, phase: Phase) -> Tensor:
    raw = images.new_empty(len(images), 1, images.shape[2], images.shape[3])
    for channel, rows, columns in _sites(phase):
        raw[:, 0, rows, columns] = images[:, channel, rows, columns]
    return raw


def spread(raw: Tensor, phase: Phase | Sequence[Phase]) -> Tensor:
    """A mosaic (B, 1, H, W) as an image (B, 3, H, W) that is 0 where a colour was not seen: the adjoint of `mosaic`.

    Raises:
        ValueError: another shape, or not one phase for each image.
    """
    _check_raw(raw, "spread")
    return _by_phase(_spread, raw, phase)


def _spread(raw: Tensor, phase: Phase) -> Tensor:
    images = raw.new_zeros(len(raw), 3, raw.shape[2], raw.shape[3])
    for channel, rows, columns in _sites(phase):
        images[:, channel, rows, columns] = raw[:, 0, rows, columns]
    return images


def per_site(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Numbers of the four sites, (B, 4) as in `NoiseLevel`, at every photosite: (B, 1, H, W)."""
    rows, columns = (torch.arange(length, device=values.device) % 2 for length in size)
    # Whole rows are copied fast, so the columns come first.
    return values.view(-1, 1, 2, 2).index_select(3, columns).index_select(2, rows)


def _by_phase(function: Callable[[Tensor, Phase], Tensor], batch: Tensor, phase: Phase | Sequence[Phase]) -> Tensor:
    """What the function makes of each image and its phase; images of one phase go through it together."""
    phases: list[Phase] = [phase] * len(batch) if isinstance(phase, str) else list(phase)
    if len(phases) != len(batch):
        raise ValueError(f"Bayer phase: expected one for each of {len(batch)} images, got {len(phases)}")
    chosen: dict[Phase, list[int]] = {}
    for index, one in enumerate(phases):
        chosen.setdefault(one, []).append(index)
    if len(chosen) == 1:
        return function(batch, phases[0])
    parts = torch.cat([function(batch[indices], one) for one, indices in chosen.items()])
    order = torch.tensor([index for indices in chosen.values() for index in indices], device=batch.device)
    return parts[order.argsort()]


def _sites(phase: Phase) -> list[tuple[int, slice, slice]]:
    """The channel that each of the four sites sees, and where such sites are: their rows and columns."""
    if phase not in ("RGGB", "GRBG", "GBRG", "BGGR"):
        raise ValueError(f"Bayer phase: expected RGGB, GRBG, GBRG or BGGR, got {phase!r}")
    return [("RGB".index(colour), slice(k // 2, None, 2), slice(k % 2, None, 2)) for k, colour in enumerate(phase)]


# ---------------------------------------------------------------- demosaic


def demosaic(raw: Tensor, phase: Phase | Sequence[Phase], method: Demosaic = "bilinear") -> Tensor:
    """The image of a mosaic: (B, 1, H, W) to (B, 3, H, W), not clipped. What was seen stays as it is.

    Args:
        raw: in proportion to light, white-balanced where the method is not "bilinear": the two others take it that
            the colours change together.
        phase: of all images, or one for each.
        method: "bilinear" is the mean of the nearest photosites of a colour. "malvar" adds to it what the site's own
            colour says about the curvature. "hamilton-adams" finds green along the smoother of row and column, then
            interpolates red and blue as differences to green.

    On 24 portraits of 256 pixels without noise they come within 34.5, 36.4 and 38.9 dB of the original, where LibRaw's
    AHD has 39.4; at ISO 1600 of generic-phone it is 27.9, 26.3 and 26.5 against 26.4 (`benchmarks/demosaic.py`).

    Raises:
        ValueError: another shape, under 2 x 2 photosites, an unknown phase or method.

    Source: Malvar, He and Cutler 2004, Fig. 2; Hamilton and Adams 1997 (US 5629734). Differs from the latter: red and
    blue at opposite sites are bilinear in the colour difference, not directed along a diagonal.
    """
    _check_raw(raw, "demosaic")
    if min(raw.shape[2:]) < 2:
        raise ValueError(f"demosaic: expected at least 2 x 2 photosites, got {raw.shape[2]} x {raw.shape[3]}")
    if method == "bilinear":
        return _by_phase(_bilinear, raw, phase)
    if method == "malvar":
        return _by_phase(_malvar, raw, phase)
    if method == "hamilton-adams":
        return _by_phase(_hamilton_adams, raw, phase)
    raise ValueError(f"demosaic: expected the method bilinear, malvar or hamilton-adams, got {method!r}")


def _bilinear(raw: Tensor, phase: Phase) -> Tensor:
    return _arranged(raw, *_means(_Neighbours(raw, 1)), phase)


def _malvar(raw: Tensor, phase: Phase) -> Tensor:
    near = _Neighbours(raw, 2)
    cross, along, across, diagonal = _means(near)
    beside, above = near.at(0, -2) + near.at(0, 2), near.at(-2, 0) + near.at(2, 0)
    excess = raw - (beside + above) / 4
    level = (5 * raw - 4 * diagonal) / 8
    return _arranged(
        raw,
        cross + excess / 2,
        along + level - (beside - above / 2) / 8,
        across + level - (above - beside / 2) / 8,
        diagonal + 3 / 4 * excess,
        phase,
    )


def _hamilton_adams(raw: Tensor, phase: Phase) -> Tensor:
    near = _Neighbours(raw, 2)
    greens: list[Tensor] = []
    roughness: list[Tensor] = []
    for down, right in ((0, 1), (1, 0)):
        before, after = near.at(-down, -right), near.at(down, right)
        curvature = 2 * raw - near.at(-2 * down, -2 * right) - near.at(2 * down, 2 * right)
        greens.append((before + after) / 2 + curvature / 4)
        roughness.append((before - after).abs() + curvature.abs())
    along, across = greens
    chosen = torch.where(roughness[0] < roughness[1], along, across)
    chosen = torch.where(roughness[0] == roughness[1], (along + across) / 2, chosen)
    green = _arranged(raw, chosen, raw, raw, raw, phase)[:, 1:2]
    chroma = _bilinear(raw - green, phase)  # 0 at green sites, which red and blue do not look at
    return torch.cat([green + chroma[:, :1], green, green + chroma[:, 2:]], 1)


class _Neighbours:
    """The photosites around each one, as views of one mirrored mosaic."""

    def __init__(self, raw: Tensor, reach: int) -> None:
        self.size, self.reach = (raw.shape[2], raw.shape[3]), reach
        if reach < min(self.size):
            self.padded = functional.pad(raw, (reach,) * 4, mode="reflect")
        else:  # mirrored more than once
            rows, columns = (mirror(torch.arange(-reach, n + reach, device=raw.device), n) for n in self.size)
            self.padded = raw[:, :, rows][:, :, :, columns]

    def at(self, down: int, right: int) -> Tensor:
        """The photosites so many rows below and columns to the right."""
        top, left = self.reach + down, self.reach + right
        return self.padded[:, :, top : top + self.size[0], left : left + self.size[1]]


def _means(near: _Neighbours) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the four nearest, the two in the row, the two in the column, and the four at the corners."""
    along, across = near.at(0, -1) + near.at(0, 1), near.at(-1, 0) + near.at(1, 0)
    corners = near.at(-1, -1) + near.at(-1, 1) + (near.at(1, -1) + near.at(1, 1))
    return (along + across) / 4, along / 2, across / 2, corners / 4


def _arranged(raw: Tensor, cross: Tensor, along: Tensor, across: Tensor, diagonal: Tensor, phase: Phase) -> Tensor:
    """The image whose colours are at each site what was seen there, or a guess of the kind that the site asks for.

    Args:
        raw, cross, along, across, diagonal: (B, 1, H, W). `cross` gives green at red and blue sites, `along` and
            `across` give red and blue at green sites that have them in their row (their column), `diagonal` gives red
            at blue sites and blue at red ones.
    """
    sites = _sites(phase)
    images = raw.new_empty(len(raw), 3, raw.shape[2], raw.shape[3])
    for site, (seen, rows, columns) in enumerate(sites):
        beside = sites[site ^ 1][0]
        for channel in range(3):
            if seen == channel:
                source = raw
            elif channel == 1:
                source = cross
            elif seen != 1:
                source = diagonal
            else:
                source = along if beside == channel else across
            images[:, channel, rows, columns] = source[:, 0, rows, columns]
    return images


def _check_raw(raw: Tensor, name: str) -> None:
    if raw.ndim != 4 or raw.shape[1] != 1 or 0 in raw.shape:
        raise ValueError(f"{name}: expected a batch of mosaics of shape (B, 1, H, W), got {tuple(raw.shape)}")
    if not raw.is_floating_point():
        raise ValueError(f"{name}: expected floating values, got {raw.dtype}")
