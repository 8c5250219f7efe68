"""Cameras for tests: two shots of the profiles that ship, and what they are pointed at."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import get_args

from images import smooth_images
from torch import Tensor

from degradations.camera.bayer import Demosaic
from degradations.camera.photograph import Shot, shot_at
from degradations.camera.profiles import Phase, read_profile
from degradations.camera.steps import Curve

PHASES, METHODS, CURVES = get_args(Phase), get_args(Demosaic), get_args(Curve)
SITES = tuple(itertools.product((0, 1), (0, 1)))

PHONE = shot_at(read_profile("generic-phone"), 1600, 0.4)
COMPACT = shot_at(read_profile("generic-compact"), 200, 0.8)


def quiet(shot: Shot) -> Shot:
    """The same without noise."""
    return replace(shot, beta1=(0.0,) * 4, beta2=(0.0,) * 4, row=0.0)


def scenes(count: int, height: int, width: int) -> Tensor:
    """Smooth images in [0.05, 0.95], that nothing is clipped in."""
    return 0.05 + 0.9 * smooth_images(count, height, width)


def decibels(a: Tensor, b: Tensor) -> float:
    """PSNR of images in [0, 1]."""
    return -10 * math.log10(float((a - b).square().mean()))
