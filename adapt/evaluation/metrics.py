"""The numbers that say how good restored images are, and the record of how each was obtained.

Images are RGB in [0, 1]; computations are in float64, so CPU and GPU agree.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.errors import ShapeError, UsageError
from adapt.images import block_side, check_image, fine_detail, gaussian_means

Better = Literal["higher", "lower", "neither"]

KID_FLOOR: Final = 10
"""Images that each side of a KID needs. Below it the interval is as wide as any difference one could look for."""

_WINDOW: Final = 11
_WINDOW_STD: Final = 1.5
_FLAT: Final = 1e-9


class Network(typing.Protocol):
    """A network that a metric is computed by: `name` is what tables print ("LPIPS-VGG 0.1"), `digest` the sha256 of
    the weights."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...


class Perceptual(Network, typing.Protocol):
    """What `adapt.perceptual` provides: a distance of images, and features for comparing sets of images.

    Called with two (B, 3, H, W) batches in [0, 1] it gives (B,); `features` maps one batch to (B, D).
    """

    def __call__(self, a: Tensor, b: Tensor, /) -> Tensor: ...

    def features(self, image: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricProtocol:
    """How a number was obtained; two numbers can be compared where the records are equal.

    Attributes:
        title: the column's heading ("PSNR", "LPIPS-VGG 0.1").
        unit: "dB" or "".
        better: which direction is better; neither for how much a restorer changed the photo.
        method: what is computed, in a sentence.
        computed_by: library and version, or the network's name.
        weights: sha256 of the network's weights, or None where there is none.
        value_range: range of the images that the method sees.
        colour: colour space and channels.
        resize: what is resized before comparing; "none" in this project.
        n: number of images.
        files: digest of the ids and contents of what was compared with; of the photos' ids where that was nothing.
    """

    title: str
    unit: str = ""
    better: Better
    method: str
    computed_by: str
    weights: str | None = None
    value_range: str = "[0, 1]"
    colour: str = "sRGB, mean over R, G and B"
    resize: str = "none"
    n: int
    files: str


# ---------------------------------------------------------------- pairs of images


def psnr(a: Tensor, b: Tensor, *, match_statistics: bool = False) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, peak 1, the error averaged over pixels and channels.

    Args:
        a: (B, 3, H, W) in [0, 1], the images to judge.
        b: same shape, what they should be.
        match_statistics: compare `matched_to(a, b)` instead of `a`, as the numbers of DT-BFR do.

    Returns:
        (B,) float64; infinite for equal images.

    Raises:
        ShapeError, RangeError: not two batches of one shape with values in [0, 1].
    """
    a, b = _pair(a, b, "PSNR", match_statistics)
    return -10 * (a - b).square().mean(dim=(1, 2, 3)).log10()


def ssim(a: Tensor, b: Tensor, *, match_statistics: bool = False) -> Tensor:
    """Structural similarity of each pair: Gaussian window of 11 x 11 with standard deviation 1.5, inner region only.

    Means, variances and covariance are weighted by the window (no sample correction), K1 = 0.01, K2 = 0.03; the map is
    averaged over positions where the window lies inside the image, then over R, G and B.

    Args:
        a, b, match_statistics: as for `psnr`.

    Returns:
        (B,) float64, at most 1.

    Raises:
        ShapeError: the shapes differ, or a side is shorter than the window.
        RangeError: values outside [0, 1].

    Source: Wang et al. 2004, Eq. (13). Differs: no luma, no downsampling, as in the evaluation code of BasicSR.
    """
    if a.ndim == 4 and min(a.shape[2:]) < _WINDOW:
        raise ShapeError(f"SSIM: expected sides of {_WINDOW} pixels or more, got {tuple(a.shape)}")
    a, b = _pair(a, b, "SSIM", match_statistics)
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = (
        gaussian_means(each, _WINDOW, _WINDOW_STD) for each in (a, b, a * a, b * b, a * b)
    )
    var_a, var_b, covariance = mean_aa - mean_a**2, mean_bb - mean_b**2, mean_ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def matched_to(image: Tensor, truth: Tensor) -> Tensor:
    """`image` with each channel's mean and standard deviation led towards those of `truth`; values may leave [0, 1].

    The public evaluation code of DT-BFR does this before PSNR and SSIM, which hides colour casts; the paper does not
    say so. Twice in a row: shift to the mean of `truth`, then scale about zero (not about the mean) by the ratio of
    the standard deviations. A flat channel is not scaled.

    Args:
        image, truth: (B, 3, H, W).

    Returns:
        (B, 3, H, W) float64.
    """
    image, truth = _double(image), _double(truth)
    mean = truth.mean(dim=(2, 3), keepdim=True)
    std = truth.std(dim=(2, 3), keepdim=True, correction=0)
    for _ in range(2):
        image = image - image.mean(dim=(2, 3), keepdim=True) + mean
        own = image.std(dim=(2, 3), keepdim=True, correction=0)
        image = image * torch.where(own > 0, std / own, 1.0)
    return image


def low_frequency_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each pair after a low-pass: of the means of blocks, about 32 along the shorter side.

    It says whether a restored image still shows what the photo shows; it needs no ground truth. Not the change that the
    gate of targets limits, which is of 16 x 16 blocks (`adapt.targets.gate.low_frequency_change`) and smaller.

    Args:
        a, b: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) float64 in [0, 1]; 0 where nothing changed below the cut.

    Raises:
        ShapeError, RangeError: as for `psnr`.
    """
    a, b = _pair(a, b, "low-frequency difference", False)
    side = block_side(a.shape[2], a.shape[3])
    blocks = F.avg_pool2d(a - b, side, ceil_mode=True, count_include_pad=False)
    return blocks.abs().mean(dim=(1, 2, 3))


def colour_shift(a: Tensor, b: Tensor) -> Tensor:
    """How far the mean colours of each pair lie apart: the mean over R, G and B of the absolute difference.

    Args:
        a, b: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) float64 in [0, 1].

    Raises:
        ShapeError, RangeError: as for `psnr`.
    """
    a, b = _pair(a, b, "colour shift", False)
    return (a - b).mean(dim=(2, 3)).abs().mean(dim=1)


def sharpness(image: Tensor) -> Tensor:
    """How much of each image is fine detail: the standard deviation over its pixels of the image less its Gaussian
    blur, of each channel by itself, averaged over R, G and B.

    Noise counts as detail. The blur's standard deviation is `sharpness_std`, so that copies of one image at several
    sizes are measured at the same place of its spectrum.

    Args:
        image: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) float64, below 1; 0 where the image is flat.

    Raises:
        ShapeError, RangeError: not a batch of images with values in [0, 1].
    """
    check_image(image, "sharpness")
    return fine_detail(_double(image)).std(dim=(2, 3), correction=0).mean(dim=1)


def relative_sharpness(a: Tensor, b: Tensor) -> Tensor:
    """Sharpness of each image over that of its partner: 1 where it is as sharp, less where detail is lost, more where
    it is noise or invented.

    Args:
        a: (B, 3, H, W) in [0, 1], the images to judge.
        b: same shape, what they should be.

    Returns:
        (B,) float64; nan where `b` is flat.

    Raises:
        ShapeError, RangeError: as for `psnr`.
    """
    a, b = _pair(a, b, "sharpness", False)
    return _over(sharpness(a), sharpness(b))


def sharpness_over_mean(restored: Tensor, reference: Tensor) -> Tensor:
    """Sharpness of each image over the mean of a set of others.

    Args:
        restored: (N,), as `sharpness` gives it.
        reference: (M,), likewise.

    Returns:
        (N,) float64; nan where the whole reference is flat.
    """
    return _over(restored, reference.mean())


# ---------------------------------------------------------------- sets of images


def kid(
    features_a: Tensor,
    features_b: Tensor,
    *,
    generator: torch.Generator,
    paired: bool = False,
    subsets: int = 100,
    subset_size: int | None = None,
) -> Tensor:
    """Kernel distance of two sets of images: the squared maximum mean discrepancy of their features, unbiased.

    Kernel (x . y / D + 1)**3. The expectation is 0 where both sets are of one distribution, so single values may be
    negative. It is estimated from many subsets, drawn without replacement: their mean is the distance, and their
    deviation its error, as subsets of half the images deviate as much as the estimate from all of them errs (the
    delete-half jackknife, Shao and Wu 1989), hence the default size. Of two models over the same photos, drawn with
    generators of one seed, estimate k is of the same photos: their differences err less than each of the two.

    Args:
        features_a: (N, D), N at least `KID_FLOOR`.
        features_b: (M, D), M likewise.
        generator: draws the subsets (on the CPU).
        paired: row i on both sides shows the same photo. Such sets are not independent, and what `a` shares with
            its own partner would count as closeness of the distributions (by 2/n of it, below 0 for good restorers
            and few photos). Pairs are then drawn together and left out of the cross term, which makes the estimate
            unbiased again: Gretton et al. 2012, Eq. (4).
        subsets: how many are drawn.
        subset_size: images of each side per subset; half of the smaller side, at most 1000, if None.

    Returns:
        (subsets,) float64, the estimates.

    Raises:
        ShapeError: not two matrices of one width, or of different lengths where paired.
        UsageError: too few images for a meaningful number, values that are not finite, or a subset size that
            cannot be drawn.

    Source: Binkowski et al. 2018 (arXiv:1801.01401), section 4. Differs: subsets of half the images where there are
    fewer than 2000 (taking all of them makes every subset equal and its interval zero); `paired`.
    """
    n, m = _check_features(features_a, features_b, paired)
    smaller = min(n, m)
    size = min(1000, smaller // 2) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise UsageError(f"KID: expected subsets of 2 to {smaller} images, got subset_size {size}")
    if subsets < 1:
        raise UsageError(f"KID: expected 1 subset or more, got {subsets}")
    a, b = _double(features_a), _double(features_b)
    estimates = torch.empty(subsets, dtype=torch.float64)
    for k in range(subsets):
        left = torch.randperm(n, generator=generator)[:size]
        right = left if paired else torch.randperm(m, generator=generator)[:size]
        estimates[k] = _mmd2(a[left.to(a.device)], b[right.to(b.device)], paired)
    return estimates


def _mmd2(x: Tensor, y: Tensor, paired: bool) -> Tensor:
    """Unbiased squared MMD of two sets of equal size under the cubic kernel."""
    size, width = x.shape
    pairs = size * (size - 1)

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u @ v.T / width + 1) ** 3

    def off_diagonal(k: Tensor) -> Tensor:
        return (k.sum() - k.diagonal().sum()) / pairs

    cross = kernel(x, y)
    between = off_diagonal(cross) if paired else cross.mean()
    return off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * between


def _check_features(a: Tensor, b: Tensor, paired: bool) -> tuple[int, int]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError(f"KID: expected features (N, D) and (M, D), got {tuple(a.shape)} and {tuple(b.shape)}")
    n, m = len(a), len(b)
    if paired and n != m:
        raise ShapeError(f"KID: expected as many features on both sides of pairs, got {n} and {m}")
    if min(n, m) < KID_FLOOR:
        raise UsageError(
            f"KID: expected {KID_FLOOR} images or more on each side, got {n} and {m};"
            " with fewer the number says nothing -- use the per-photo metrics"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UsageError("KID: expected finite features, got infinite or missing values; check the network's weights")
    return n, m


# ---------------------------------------------------------------- parts


def _pair(a: Tensor, b: Tensor, metric: str, match_statistics: bool) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape:
        raise ShapeError(f"{metric}: expected two batches of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    check_image(a, f"{metric}, first images")
    check_image(b, f"{metric}, second images")
    return (matched_to(a, b) if match_statistics else _double(a)), _double(b)


def _double(x: Tensor) -> Tensor:
    """float64, on the CPU where the device has none (Apple's)."""
    x = x.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()


def _over(sharp: Tensor, measure: Tensor) -> Tensor:
    """`sharp` over `measure`, nan where that is flat: below what rounding leaves of a single colour in float64."""
    return torch.where(measure > _FLAT, sharp / measure, math.nan)
