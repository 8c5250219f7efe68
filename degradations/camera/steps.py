"""A camera, step by step: from sRGB to the sensor's digital numbers (DN), and back.

    sRGB -- to_linear --> light -- to_camera --> camera RGB, balanced -- unbalance --> camera RGB -- mosaic --> to_dn
    sRGB <-- to_tone ---- light <-- from_camera ---------------------- balance <-- demosaic <-- from_dn <-- + noise

Each step is a pure function of a batch with a matching inverse; what is random is a field that is passed in, or an
offset that is returned, so that it can be logged, repeated, and taken away again. Numbers of a photograph are given
once for all images or for each. `degradations.camera.photograph` puts the steps together, with those of
`degradations.camera.bayer` (mosaic, demosaic) and `degradations.filters` (shrink, enlarge).

Source: DT-BFR Eq. (10)/(12) and its public code. Differs where a docstring says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from degradations.camera.bayer import per_site
from degradations.filters import check_batch

Curve = Literal["gamma", "srgb", "smoothstep"]
Rounding = Literal["truncate", "round"]

GAMMA = 2.2
DARKEST = 1e-8  # light below which the gamma curve is a straight line, so that its slope ends somewhere
QUIETEST = 1e-12  # DN^2, likewise for the square root of a variance


# ---------------------------------------------------------------- tone


def to_linear(images: Tensor, curve: Curve = "gamma") -> Tensor:
    """Tone values in [0, 1] to linear light in [0, 1].

    Args:
        images: any shape; what is outside [0, 1] counts as 0 or, with "smoothstep", as 1.
        curve: "gamma" is the power of 2.2 of DT-BFR's public code, "srgb" the curve of IEC 61966-2-1, "smoothstep" a
            camera's S-shaped tone curve after the power: Brooks et al. 2019 (arXiv:1811.11127), Sec. 3.1.

    Raises:
        ValueError: an unknown curve.
    """
    tone = images.clamp(min=torch.finfo(images.dtype).tiny)  # its power is 0, and has a slope
    if curve == "gamma":
        return _power(tone, GAMMA)
    if curve == "srgb":
        return torch.where(tone <= 0.04045, images.clamp(min=0) / 12.92, _power((tone + 0.055) / 1.055, 2.4))
    if curve == "smoothstep":
        return _power(_inverse_smoothstep(tone), GAMMA)
    raise ValueError(f"tone curve: expected gamma, srgb or smoothstep, got {curve!r}")


def to_tone(light: Tensor, curve: Curve = "gamma") -> Tensor:
    """Linear light in [0, 1] to tone values in [0, 1]: the inverse of `to_linear`, with finite gradients at 0.

    Raises:
        ValueError: an unknown curve.
    """
    if curve == "gamma":
        return _root(light)
    if curve == "srgb":
        # The power of what is below the straight part is thrown away; clamped, it stays finite for gradients too.
        curved = 1.055 * _power(light.clamp(min=0.0031308), 1 / 2.4) - 0.055
        return torch.where(light <= 0.0031308, light.clamp(min=0) * 12.92, curved)
    if curve == "smoothstep":
        root = _root(light.clamp(max=1))
        return root.square() * (3 - 2 * root)
    raise ValueError(f"tone curve: expected gamma, srgb or smoothstep, got {curve!r}")


def _root(light: Tensor) -> Tensor:
    return _power(light.clamp(min=DARKEST), 1 / GAMMA) * (light / DARKEST).clamp(0, 1)


def _power(values: Tensor, exponent: float) -> Tensor:
    """`values ** exponent` of positive values, which it writes over; in a third of the time of torch's own."""
    return values.log2_().mul_(exponent).exp2_()


def _inverse_smoothstep(tone: Tensor) -> Tensor:
    """The x in [0, 1] with 3 x^2 - 2 x^3 = tone. Its slope has no end at 0 and 1: gradients stop there."""
    turned = 1 - 2 * tone
    inside = turned.abs() < 1 - 2 * torch.finfo(tone.dtype).eps
    angle = torch.asin(torch.where(inside, turned, 0.0))
    end = (tone > 0.5).to(tone).clamp(min=torch.finfo(tone.dtype).tiny)
    return torch.where(inside, 0.5 - torch.sin(angle / 3), end)


# ---------------------------------------------------------------- colour


def from_camera(camera: Tensor, matrix: Tensor) -> Tensor:
    """White-balanced camera RGB to linear sRGB, (B, 3, H, W), not clipped.

    Args:
        matrix: (3, 3) for all, or (B, 3, 3); red, green, blue of the result are its rows.
    """
    check_batch(camera, "colour matrix")
    return (matrix.to(camera).expand(len(camera), 3, 3) @ camera.flatten(2)).view_as(camera)


def to_camera(light: Tensor, matrix: Tensor) -> Tensor:
    """Linear sRGB to white-balanced camera RGB: the inverse of `from_camera`, for the same matrix."""
    return from_camera(light, torch.linalg.inv(matrix.double()))


def balance(camera: Tensor, gains: Tensor) -> Tensor:
    """Camera RGB as the sensor counts it to white-balanced camera RGB: each channel times its gain.

    Args:
        gains: of red, green and blue, (3,) for all or (B, 3).
    """
    check_batch(camera, "white balance")
    return camera * gains.to(camera).view(-1, 3, 1, 1)


def unbalance(camera: Tensor, gains: Tensor) -> Tensor:
    """White-balanced camera RGB to what the sensor counts: the inverse of `balance`, for the same gains."""
    check_batch(camera, "white balance")
    return camera / gains.to(camera).view(-1, 3, 1, 1)


# ---------------------------------------------------------------- digital numbers


def to_dn(signal: Tensor, black: Tensor | float, white: Tensor | float) -> Tensor:
    """The sensor's signal, 0 for darkness and 1 for saturation, to DN; neither rounded nor clipped.

    Args:
        black, white: levels in DN, a number for all or (B,).
    """
    low, high = _level(black, signal), _level(white, signal)
    return signal * (high - low) + low


def from_dn(dn: Tensor, black: Tensor | float, white: Tensor | float) -> Tensor:
    """DN to the sensor's signal: the inverse of `to_dn`, for the same levels."""
    low, high = _level(black, dn), _level(white, dn)
    return (dn - low) / (high - low)


def quantise(dn: Tensor, white: Tensor | float) -> Tensor:
    """DN as whole numbers from 0 to `white`. Gradients pass the rounding, and stop at what is clipped."""
    return whole_steps(dn.clamp(min=0).minimum(_level(white, dn).to(dn)), 1, "round")


def whole_steps(values: Tensor, steps: float, rounding: Rounding) -> Tensor:
    """Values as whole multiples of 1 / steps; gradients pass as if nothing had happened."""
    return _WholeSteps.apply(values, steps, rounding)


class _WholeSteps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: Tensor, steps: float, rounding: Rounding) -> Tensor:
        del ctx
        levels = values * steps
        return (levels.round_() if rounding == "round" else levels.floor_()).div_(steps)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None, None]:
        del ctx
        return gradients[0], None, None


def _level(level: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(level, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))


# ---------------------------------------------------------------- noise


def gaussian_offset(signal: Tensor, beta1: Tensor, beta2: Tensor, *, field: Tensor) -> Tensor:
    """What a sensor adds in each photosite: Gaussian of variance beta1 * signal + beta2, in DN, (B, 1, H, W).

    Added to the DN it is the noise, subtracted it undoes it.

    Args:
        signal: DN above black, (B, 1, H, W); under 0 it counts as 0.
        beta1, beta2: at each of the four sites, (4,) for all or (B, 4), as in `NoiseLevel`.
        field: N(0, 1), as `signal`.

    Raises:
        ValueError: a field of another shape.

    Source: Foi et al. 2008, named in DT-BFR below Eq. (12).
    """
    if field.shape != signal.shape:
        raise ValueError(f"noise field: expected shape {tuple(signal.shape)}, got {tuple(field.shape)}")
    size = (signal.shape[2], signal.shape[3])
    shot = per_site(beta1.to(signal).view(-1, 4), size)
    dark = per_site(beta2.to(signal).view(-1, 4), size)
    variance = signal.clamp(min=0) * shot + dark
    return field * _deviation(variance)


def poisson_offset(
    signal: Tensor, beta1: Tensor, beta2: Tensor, *, field: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    """As `gaussian_offset`, with the same variance, but photons that are counted: Poisson, plus Gaussian read noise.

    A site with beta1 DN for each electron counts Poisson(signal / beta1) of them. Nothing flows back through counts.

    Args:
        generators: one for each image.

    Raises:
        ValueError: a field of another shape, or not one generator for each image.
    """
    if field.shape != signal.shape:
        raise ValueError(f"noise field: expected shape {tuple(signal.shape)}, got {tuple(field.shape)}")
    if len(generators) != len(signal):
        raise ValueError(f"photon noise: expected a generator for each of {len(signal)} images, got {len(generators)}")
    size = (signal.shape[2], signal.shape[3])
    dark = per_site(beta2.to(signal).view(-1, 4), size)
    with torch.no_grad():
        gain = per_site(beta1.to(signal).view(-1, 4), size).expand_as(signal)
        expected = torch.where(gain > 0, signal.clamp(min=0) / gain.clamp(min=torch.finfo(signal.dtype).tiny), 0.0)
        counts = [
            torch.poisson(rates.to(generator.device), generator=generator).to(signal.device)
            for rates, generator in zip(expected, generators, strict=True)
        ]
        shot = gain * (torch.stack(counts) - expected)
    return shot + field * _deviation(dark)


def _deviation(variance: Tensor) -> Tensor:
    return variance.clamp(min=QUIETEST).sqrt() * (variance / QUIETEST).clamp(max=1)


def row_offset(row: Tensor | float, field: Tensor) -> Tensor:
    """What every photosite of a row is off by: (B, 1, H, 1) in DN.

    Args:
        row: standard deviation in DN, a number for all or (B,).
        field: N(0, 1), (B, 1, H, 1).
    """
    return _level(row, field) * field
