"""A camera's noise, measured in its own RAW files: in the patches that turn out to be flat.

Whether a patch is flat is judged by correlations between its photosites: noise has none, texture, shading and focus
blur have. For Gaussian noise they are independent of the variance (Basu 1955), so that picking patches by them does not
favour those that happen to be quiet. The line through the patches' variances is fitted within a window of the
chi-squared distribution that they must follow, which leaves out what texture remains above it; what grows with the
square of the signal is fitted beside it and taken out.

Source: the model is that of Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling and fitting". Differs: flat
patches in place of their wavelet level sets; clipped patches are left out, not modelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import torch

from degradations.camera.profiles import NoiseLevel, PerSite

SIDE: Final = 16
"""Photosites of one kind along the side of a patch: 32 pixels of the mosaic."""
ENOUGH: Final = 30
"""Flat patches below which nothing is fitted."""
PRECISION: Final = 0.25
"""Half the width of the slope's interval, as a share of the slope, above which a measurement is refused."""

_STRIDE = SIDE // 2
_BLOCK = 6 * _STRIDE  # sites: what lies in one such square counts as one observation in the bootstrap
_DEGREES = SIDE**2 - 3  # a plane is taken out of each patch
_ROW_DEGREES = SIDE - 2  # of which row offsets keep these, for each row's SIDE sites
_ROUNDING = 1 / 12  # variance of rounding to whole DN
_TOO_CORRELATED = 2.0  # standard deviations of a flat patch's correlation
_OUTLIER = 4.6  # standard deviations; a hot photosite, or the only clipped one
_WINDOW = (0.78, 1.12)  # of variance over expected variance: -2.5 and +1.35 standard deviations
_MOST_PATCHES = 4000
_REPLICATES = 200
_FEW = 40  # replicates that decide whether there is unevenness
_SETTLED = 3e-4  # largest relative change of an expected variance at which the fit is done


@dataclass(frozen=True)
class Patches:
    """Square patches of one mosaic, or of several of the same ISO.

    Attributes:
        signal: mean DN above black at each of the four sites, (N, 4).
        variance: around a plane, in DN^2, (N, 4).
        flat: without texture and without clipped photosites, (N,).
        clipped: with photosites at the white level or at 0, (N,).
        row: what each says of the variance of row offsets, DN^2, (N,); single ones are mostly noise.
        block: number of the part of the image it lies in, (N,).
    """

    signal: np.ndarray
    variance: np.ndarray
    flat: np.ndarray
    clipped: np.ndarray
    row: np.ndarray
    block: np.ndarray

    def __len__(self) -> int:
        return len(self.flat)

    def chosen(self, index: np.ndarray) -> Patches:
        """Those of an index or a mask."""
        return Patches(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class NoiseFit:
    """Variances of flat patches: slope * signal + dark, and besides (uneven * signal)^2, row^2 and that of rounding.

    Attributes:
        lines: slope and variance in the dark at each of the four sites, (4, 2).
        common: their mean, weighted by how well each is known, (2,).
        shared: for each site, whether its own patches said too little, and it took the common line.
        row: standard deviation of the offset that a row shares, DN; 0 where it is not significant.
        uneven: standard deviation of what is proportional to the signal, as a share of it: photosites that respond
            differently, and the fine grain of the surface photographed. 0 where it is not significant.
        replicates: of each bootstrap replicate the common slope and dark, and the square of `uneven`, (R, 3).
        patches: how many flat patches it rests on.
        span: lowest and highest signal among them, DN.
    """

    lines: np.ndarray
    common: np.ndarray
    shared: tuple[bool, bool, bool, bool]
    row: float
    uneven: float
    replicates: np.ndarray
    patches: int
    span: tuple[float, float]

    @property
    def slope_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the common slope."""
        return _interval(self.replicates[:, 0])

    @property
    def dark_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the common variance in the dark."""
        return _interval(self.replicates[:, 1])

    def expected(self, signal: np.ndarray, line: np.ndarray) -> np.ndarray:
        """Variance around a plane that a flat patch is expected to have, by one of the lines, DN^2."""
        return line[0] * signal + line[1] + (self.uneven * signal) ** 2 + _known(self.row)

    def band(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """95 % interval of what is expected by the common line."""
        terms = np.stack([signal, signal**0, signal**2])
        low, high = np.quantile(self.replicates @ terms + _known(self.row), (0.025, 0.975), axis=0)
        return low, high

    def level(self, iso: float) -> NoiseLevel:
        """As a profile stores it."""
        slopes, darks = self.lines.T
        return NoiseLevel(iso=iso, beta1=_per_site(slopes), beta2=_per_site(darks), row=float(f"{self.row:.4g}"))


# ---------------------------------------------------------------- patches


def find_patches(mosaic: np.ndarray, *, black: Sequence[float], white: float) -> Patches:
    """All patches of a mosaic, half overlapping, with which of them are flat.

    Args:
        mosaic: (H, W) DN, black level included, as counted: not denoised, not scaled.
        black: DN of no light at the sites (0, 0), (0, 1), (1, 0), (1, 1).
        white: DN of saturation. A sensor that saturates below it is seen by its photosites at one highest DN.

    Raises:
        ValueError: not (H, W), or smaller than one patch.
    """
    if mosaic.ndim != 2 or min(mosaic.shape) < 2 * SIDE:
        raise ValueError(
            f"expected a mosaic (H, W) with sides of {2 * SIDE} pixels or more, got {tuple(mosaic.shape)}"
        )
    height, width = (side // 2 for side in mosaic.shape)
    sites = np.stack([mosaic[y : 2 * height : 2, x : 2 * width : 2] for y in (0, 1) for x in (0, 1)])
    tops = np.minimum(sites.max(axis=(1, 2)), white)
    level = np.asarray(black, float)
    strips = [
        _strip(sites[:, top : top + SIDE].astype(float), tops, level, top)
        for top in range(0, height - SIDE + 1, _STRIDE)
    ]
    return _joined(strips)


def join_patches(parts: Sequence[Patches]) -> Patches:
    """The patches of several mosaics of the same ISO, whose blocks stay apart."""
    first = 0
    renumbered: list[Patches] = []
    for part in parts:
        renumbered.append(replace(part, block=part.block + first))
        first += int(part.block.max(initial=-1)) + 1
    return _joined(renumbered)


def _joined(parts: Sequence[Patches]) -> Patches:
    return Patches(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Patches)))


def _strip(strip: np.ndarray, tops: np.ndarray, black: np.ndarray, top: int) -> Patches:
    """The patches of a strip of sites, (4, SIDE, w)."""
    windows = np.lib.stride_tricks.sliding_window_view(strip, SIDE, axis=2)[:, :, ::_STRIDE]
    values = windows.transpose(2, 0, 1, 3)  # (n, 4, SIDE, SIDE)
    means, residuals = _without_plane(values)
    variance = (residuals**2).sum(axis=(2, 3)) / _DEGREES
    normal = residuals / np.sqrt(np.maximum(variance, 1e-12))[..., None, None]
    highest = (values >= tops[:, None, None]).sum(axis=(2, 3))
    # One photosite at the top is that of an unclipped image: some photosite is the brightest.
    clipped = ((highest > 1) | (values <= 0).any(axis=(2, 3))).any(axis=1)
    flat = ~clipped & (variance > 0).all(axis=1) & (np.abs(normal).max(axis=(1, 2, 3)) < _OUTLIER)
    for correlation, share in _correlations(normal):
        flat &= np.abs(correlation) < _TOO_CORRELATED * share
    # A strip's blocks are numbered apart from all others'; no image is wider than this.
    lefts = np.arange(len(values)) * _STRIDE
    block = (top // _BLOCK) * 10_000 + lefts // _BLOCK
    return Patches(means - black, variance, flat, clipped, _row_variance(residuals), block)


def _without_plane(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means, and residuals of the plane of least squares."""
    ramp = np.arange(SIDE) - (SIDE - 1) / 2
    energy = SIDE * (ramp**2).sum()
    means = values.mean(axis=(2, 3))
    down = np.einsum("nsyx,y->ns", values, ramp) / energy
    across = np.einsum("nsyx,x->ns", values, ramp) / energy
    plane = means[..., None, None] + down[..., None, None] * ramp[:, None] + across[..., None, None] * ramp
    return means, values - plane


def _correlations(normal: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Means of correlations that are 0 in a flat patch, (n,), each with its standard deviation there.

    None is between photosites of one row, which share its offset.
    """
    first, second, third, fourth = normal.transpose(1, 0, 2, 3)
    below = (normal[:, :, 1:] * normal[:, :, :-1]).mean(axis=(1, 2, 3))
    yield below, 1 / (2 * np.sqrt(SIDE * (SIDE - 1)))
    for step in (normal[:, :, 1:, 1:] * normal[:, :, :-1, :-1], normal[:, :, 1:, :-1] * normal[:, :, :-1, 1:]):
        yield step.mean(axis=(1, 2, 3)), 1 / (2 * (SIDE - 1))
    across = first * third + second * fourth + first * fourth + second * third
    yield across.mean(axis=(1, 2)) / 4, 1 / (2 * SIDE)


def _row_variance(residuals: np.ndarray) -> np.ndarray:
    """Variance of offsets shared by the two kinds of photosites in a row, less the same for columns.

    What texture adds to the one it adds to the other.
    """
    rows, columns = residuals.mean(axis=3), residuals.mean(axis=2)
    shared = rows[:, 0] * rows[:, 1] + rows[:, 2] * rows[:, 3]
    control = columns[:, 0] * columns[:, 2] + columns[:, 1] * columns[:, 3]
    return (shared - control).sum(axis=1) / (2 * _ROW_DEGREES)


# ---------------------------------------------------------------- fit


def fit_noise(patches: Patches, generator: torch.Generator) -> NoiseFit:
    """The noise at one ISO.

    Args:
        generator: draws the bootstrap's replicates, and which patches are used where there are very many.

    Raises:
        ValueError: too few flat patches, or too little spread of their signals to tell the slope.
    """
    flat = np.flatnonzero(patches.flat)
    if len(flat) < ENOUGH:
        raise ValueError(
            f"not enough flat area: {len(flat)} of {len(patches)} patches of {2 * SIDE} x {2 * SIDE} pixels are flat"
            f" ({int(patches.clipped.sum())} are clipped, the others textured, blurred edges, or of noise that was"
            f" smoothed before it was stored); {ENOUGH} are needed"
        )
    if len(flat) > _MOST_PATCHES:
        flat = flat[torch.randperm(len(flat), generator=generator)[:_MOST_PATCHES].sort().values.numpy()]
    used = patches.chosen(flat)
    counts = _resampled(used.block, generator)
    row = _row(used, counts)
    known = _known(row)
    # Rows: the four sites' slopes, their variances in the dark, and what all sites share of the square of the signal.
    sites = np.eye(4).repeat(len(used), axis=1)
    signal, variance = used.signal.T.ravel(), used.variance.T.ravel()
    terms = np.concatenate([sites * signal, sites, signal[None] ** 2])
    lower = np.stack([_lower_line(used.signal[:, site], used.variance[:, site], known) for site in range(4)])
    start = np.array([*lower.T.ravel(), 0.0])
    repeated = np.tile(counts, 4)
    fitted, drawn = _curves(terms, variance, known, repeated[:_FEW], start)
    if _significant(float(fitted[-1]), drawn[:, -1]):
        fitted, drawn = _curves(terms, variance, known, repeated, fitted)
    else:
        fitted, drawn = _curves(terms[:-1], variance, known, repeated, fitted[:-1])
        fitted, drawn = np.append(fitted, 0), np.pad(drawn, ((0, 0), (0, 1)))

    lines, replicates = fitted[:-1].reshape(2, 4).T, drawn[:, :-1].reshape(-1, 2, 4)
    # The common line is that of the sites which know theirs best.
    trust = 1 / np.maximum(replicates[:, 0].std(axis=0), 1e-3 * lines[:, 0].mean() + 1e-12) ** 2
    trust /= trust.sum()
    common, common_drawn = trust @ lines, replicates @ trust
    span = float(signal.min()), float(signal.max())
    low, high = _interval(common_drawn[:, 0])
    if not _precise(common[0], low, high):
        raise ValueError(
            f"not enough flat area: {len(used)} flat patches with signals from {span[0]:.0f} to {span[1]:.0f} DN leave"
            f" the slope between {low:.3g} and {high:.3g} (95 %); patches of more, and more different, brightness are"
            " needed"
        )
    first, second, third, fourth = (
        not _precise(lines[site, 0], *_interval(replicates[:, 0, site])) for site in range(4)
    )
    shared = (first, second, third, fourth)
    return NoiseFit(
        lines=np.where(np.array(shared)[:, None], common, lines),
        common=common,
        shared=shared,
        row=row,
        uneven=float(fitted[-1]) ** 0.5,
        replicates=np.concatenate([common_drawn, drawn[:, -1:]], axis=1),
        patches=len(used),
        span=span,
    )


def _row(used: Patches, counts: np.ndarray) -> float:
    """Standard deviation of row offsets, or 0; the quieter a patch, the more of it is heard."""
    weights = used.variance.mean(axis=1) ** -2
    drawn = counts @ (weights * used.row) / (counts @ weights)
    return _significant(float(np.average(used.row, weights=weights)), drawn) ** 0.5


def _known(row: float) -> float:
    """What rounding to whole DN and row offsets add to a patch's variance around a plane."""
    return _ROUNDING + row**2 * SIDE * _ROW_DEGREES / _DEGREES


def _resampled(block: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """How often each patch is in each bootstrap replicate, (R, N): whole blocks are drawn, with replacement."""
    names, index = np.unique(block, return_inverse=True)
    drawn = torch.randint(len(names), (_REPLICATES, len(names)), generator=generator).numpy()
    counts = np.stack([np.bincount(one, minlength=len(names)) for one in drawn])
    return counts[:, index].astype(float)


def _lower_line(signal: np.ndarray, variance: np.ndarray, known: float) -> np.ndarray:
    """A line through the lower quartiles of stretches of signal: a start that texture hardly moves."""
    order = np.argsort(signal)
    stretches = np.array_split(order, max(2, min(20, len(order) // 10)))
    centres = np.array([np.median(signal[stretch]) for stretch in stretches])
    quartile = 1 - 0.6745 * (2 / _DEGREES) ** 0.5
    quiet = np.array([np.quantile(variance[stretch], 0.25) for stretch in stretches]) / quartile
    return _least_squares(np.stack([centres, centres**0]), quiet - known, 1 / np.maximum(quiet, 1e-12) ** 2)


def _curves(
    terms: np.ndarray, variance: np.ndarray, known: np.ndarray | float, counts: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the terms (K, N) that sum to the variance less `known`, (K,), and those of each replicate, (R, K)."""
    fitted = _curve(terms, variance, known, np.ones_like(variance), start)
    return fitted, np.stack([_curve(terms, variance, known, weights, fitted) for weights in counts])


def _curve(
    terms: np.ndarray, variance: np.ndarray, known: np.ndarray | float, weights: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Reweighted least squares over the patches within the window, until they stay the same."""
    within_mean = _windowed_mean(*_WINDOW)
    curve = start
    for _ in range(50):
        expected = np.maximum(curve @ terms + known, 1e-9)
        ratio = variance / expected
        chosen = (ratio > _WINDOW[0]) & (ratio < _WINDOW[1])
        share = np.where(chosen, weights, 0) / expected**2
        if np.count_nonzero(share) < 10 * len(terms):
            return curve
        before, curve = curve, _least_squares(terms, variance / within_mean - known, share)
        if np.allclose(curve @ terms, before @ terms, rtol=_SETTLED, atol=0):
            break
    return curve


def _least_squares(terms: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights of the terms (K, N), none below 0: what would be is left out, the lowest first."""
    weighted = terms * weights
    products, moments = weighted @ terms.T, weighted @ values
    size = np.sqrt(np.maximum(np.diag(products), 1e-300))  # of like size, so that the rank is that of the data
    kept = np.arange(len(terms))
    found = np.zeros(len(terms))
    while len(kept):
        scaled = products[np.ix_(kept, kept)] / np.outer(size[kept], size[kept])
        solved = np.linalg.lstsq(scaled, moments[kept] / size[kept], rcond=None)[0]
        if solved.min() >= 0:
            found[kept] = solved / size[kept]
            break
        kept = np.delete(kept, solved.argmin())
    return found


def _windowed_mean(low: float, high: float) -> float:
    """Mean of a sample variance over the true one, given that it lies in a window: of chi-squared over its degrees."""

    def share(bound: float, degrees: int) -> float:
        half = torch.tensor([degrees / 2, bound * _DEGREES / 2], dtype=torch.float64)
        return float(torch.special.gammainc(half[0], half[1]))

    numerator = share(high, _DEGREES + 2) - share(low, _DEGREES + 2)
    return numerator / (share(high, _DEGREES) - share(low, _DEGREES))


def _significant(value: float, replicates: np.ndarray) -> float:
    """A value that cannot be below 0, or 0 where its interval reaches that."""
    return value if value > 0 and _interval(replicates)[0] > 0 else 0.0


def _precise(slope: float, low: float, high: float) -> bool:
    return slope > 0 and (high - low) / 2 <= PRECISION * slope


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _per_site(values: np.ndarray) -> PerSite:
    first, second, third, fourth = (float(f"{value:.4g}") for value in values)
    return first, second, third, fourth
