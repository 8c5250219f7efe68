"""Photographs: the numbers of one, the settings of a camera, and all steps of `degradations.camera.steps` in a row.

`expose` and `develop` are the two halves of the camera, with the noise of the sensor between them; `photograph` is the
whole.

Source: DT-BFR Eq. (10)/(12), in the order of its public code: tone, colour matrix and white balance are undone first,
the image shrinks in linear light, and only then meets the filter. Differs where a docstring says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from degradations.camera.bayer import Demosaic, demosaic, mosaic, per_site
from degradations.camera.profiles import CameraProfile, PerSite, Phase, Row
from degradations.camera.steps import (
    Curve,
    Rounding,
    from_camera,
    from_dn,
    gaussian_offset,
    poisson_offset,
    quantise,
    row_offset,
    to_camera,
    to_dn,
    to_linear,
    to_tone,
    unbalance,
    whole_steps,
)
from degradations.filters import check_batch, enlarge_linear, resize_area
from degradations.noise import standard_normal

NoiseModel = Literal["gaussian", "poisson"]

TOGETHER = 2**16  # pixels that go through the camera together on a CPU: what its cache holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """The numbers of one photograph, all plain: `dataclasses.asdict` is what a manifest holds.

    iso: for the record. phase, black, white, beta1, beta2, row: as in `CameraProfile` and `NoiseLevel`.
    red, blue, matrix: as in `Light`.
    """

    iso: float
    phase: Phase
    black: float
    white: float
    beta1: PerSite
    beta2: PerSite
    row: float = 0.0
    red: float
    blue: float
    matrix: tuple[Row, Row, Row]


def shot_at(profile: CameraProfile, iso: float, place: float) -> Shot:
    """A photograph by a camera at an ISO, in the light at a place between the profile's first (0) and last (1).

    Raises:
        ValueError: an ISO or a place outside the profile.
    """
    level, light = profile.at_iso(iso), profile.light_at(place)
    return Shot(
        iso=iso,
        phase=profile.cfa,
        black=profile.black,
        white=profile.white,
        beta1=level.beta1,
        beta2=level.beta2,
        row=level.row,
        red=light.red,
        blue=light.blue,
        matrix=light.matrix,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """What is the same in all photographs of a camera.

    scale: by how much both sides shrink before the sensor sees them, and grow again at the end.
    curve: tone, on the way in and out.
    demosaic: see `bayer.demosaic`. DT-BFR has a network; of these, "bilinear" comes nearest to it under noise.
    noise: "gaussian" as in DT-BFR, or "poisson" with Gaussian read noise.
    quantise: whether DN are whole numbers. DT-BFR's public code leaves them as they are.
    clip_black: whether what noise pushed below black is cut off before demosaicing, as in DT-BFR's public code;
        otherwise it counts until the image is rendered, and shadows stay unbiased up to there.
    rounding: of the finished image to 255ths; the public code truncates.

    Raises:
        ValueError: a scale under 1.
    """

    scale: int = 4
    curve: Curve = "gamma"
    demosaic: Demosaic = "bilinear"
    noise: NoiseModel = "gaussian"
    quantise: bool = True
    clip_black: bool = True
    rounding: Rounding = "truncate"

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"camera: scale must be 1 or more, got {self.scale}")


@dataclass(frozen=True, slots=True)
class Photograph:
    """What `photograph` returns.

    images: (B, 3, H, W) in [0, 1], whole 255ths.
    offset: the noise in DN, (B, 1, h, w), before the sensor clipped and rounded.
    raw: the noisy mosaic in DN, (B, 1, h, w).
    """

    images: Tensor
    offset: Tensor
    raw: Tensor


def expose(images: Tensor, shots: Sequence[Shot], camera: Camera) -> Tensor:
    """What the sensor would count without noise: (B, 3, H, W) in [0, 1] to DN, (B, 1, h, w).

    Sides that the scale does not divide are first continued with their last pixels, so h is H / scale rounded up.

    Raises:
        ValueError: another shape, or not one shot for each image.
    """
    _check_shots(images, shots)
    # Shrunk before the colours are undone, not after: the same, as both are linear, and less to compute.
    small = resize_area(_continued(to_linear(images, camera.curve), camera.scale), camera.scale)
    sensor = unbalance(to_camera(small, _matrices(shots, images)), _gains(shots, images)).clamp(0, 1)
    return to_dn(mosaic(sensor, [shot.phase for shot in shots]), *_levels(shots, images))


def draw_fields(shape: tuple[int, int], generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """The N(0, 1) fields of one photograph's photosites (1, h, w) and rows (1, h, 1), in this order."""
    height, width = shape
    return standard_normal((1, height, width), generator, like), standard_normal((1, height, 1), generator, like)


def sensor_offset(
    dn: Tensor,
    shots: Sequence[Shot],
    camera: Camera,
    *,
    fields: Tensor,
    rows: Tensor,
    generators: Sequence[torch.Generator] = (),
) -> Tensor:
    """The noise of clean DN, (B, 1, h, w): of photosites, and of rows where a shot has it.

    Args:
        fields, rows: N(0, 1), (B, 1, h, w) and (B, 1, h, 1).
        generators: one for each image, for the photons of camera.noise = "poisson".

    Raises:
        ValueError: shapes that do not fit, or an unknown noise model.
    """
    signal = dn - _levels(shots, dn)[0].view(-1, 1, 1, 1)
    beta1, beta2 = dn.new_tensor([shot.beta1 for shot in shots]), dn.new_tensor([shot.beta2 for shot in shots])
    if camera.noise == "gaussian":
        offset = gaussian_offset(signal, beta1, beta2, field=fields)
    elif camera.noise == "poisson":
        offset = poisson_offset(signal, beta1, beta2, field=fields, generators=generators)
    else:
        raise ValueError(f"camera: expected the noise model gaussian or poisson, got {camera.noise!r}")
    return offset + row_offset(dn.new_tensor([shot.row for shot in shots]), rows)


def develop(dn: Tensor, shots: Sequence[Shot], camera: Camera) -> Tensor:
    """The image of a mosaic: DN, (B, 1, h, w), to tone values in [0, 1], (B, 3, h, w).

    White balance comes before demosaicing, as in a camera: that takes it that colours change together. The public code
    of DT-BFR has it after; with the bilinear method the order makes no difference, but for the clipping at 1.

    Raises:
        ValueError: another shape, or not one shot for each image.
    """
    _check_shots(dn, shots, channels=1)
    lowest = 0 if camera.clip_black else None
    signal = from_dn(dn, *_levels(shots, dn)).clamp(lowest, 1)
    phases: list[Phase] = [shot.phase for shot in shots]
    gains = [dict(zip("RGB", (shot.red, 1.0, shot.blue), strict=True)) for shot in shots]
    of_sites = [[gain[colour] for colour in phase] for gain, phase in zip(gains, phases, strict=True)]
    # Balanced light over 1 is cut off, or the clipped channels would tint the highlights.
    balanced = (signal * per_site(dn.new_tensor(of_sites), (dn.shape[2], dn.shape[3]))).clamp(max=1)
    camera_rgb = demosaic(balanced, phases, camera.demosaic).clamp(lowest, 1)
    return to_tone(from_camera(camera_rgb, _matrices(shots, dn)).clamp(0, 1), camera.curve)


def photograph(
    images: Tensor, shots: Sequence[Shot], generators: Sequence[torch.Generator], *, camera: Camera
) -> Photograph:
    """Each image taken by the camera, with its own numbers and its own noise.

    An image does not depend on its batch, and gradients reach it through everything but photon counts.

    Args:
        images: (B, 3, H, W) in [0, 1].
        shots, generators: one for each image; `draw_fields` is what is drawn.

    Raises:
        ValueError: another shape, or not one shot and one generator for each image.
    """
    _check_shots(images, shots)
    if len(generators) != len(images):
        raise ValueError(f"camera: expected a generator for each of {len(images)} images, got {len(generators)}")
    if images.device.type != "cpu":
        return _photograph(images, shots, generators, camera)
    count = max(1, TOGETHER // (images.shape[2] * images.shape[3]))
    if count >= len(images):
        return _photograph(images, shots, generators, camera)
    size = (len(images), 1, -(-images.shape[2] // camera.scale), -(-images.shape[3] // camera.scale))
    whole = Photograph(torch.empty_like(images), images.new_empty(size), images.new_empty(size))
    for start in range(0, len(images), count):
        group = slice(start, start + count)
        part = _photograph(images[group], shots[group], generators[group], camera)
        whole.images[group], whole.offset[group], whole.raw[group] = part.images, part.offset, part.raw
    return whole


def _photograph(
    images: Tensor, shots: Sequence[Shot], generators: Sequence[torch.Generator], camera: Camera
) -> Photograph:
    clean = expose(images, shots, camera)
    size = (clean.shape[2], clean.shape[3])
    drawn = [draw_fields(size, generator, clean) for generator in generators]
    fields, rows = (torch.stack(each) for each in zip(*drawn, strict=True))
    offset = sensor_offset(clean, shots, camera, fields=fields, rows=rows, generators=generators)
    white = _levels(shots, clean)[1]
    noisy = clean + offset
    raw = quantise(noisy, white) if camera.quantise else noisy.clamp(min=0).minimum(white.view(-1, 1, 1, 1))
    small = develop(raw, shots, camera)
    return Photograph(finish(small, (images.shape[2], images.shape[3]), camera), offset, raw)


def finish(small: Tensor, size: tuple[int, int], camera: Camera) -> Tensor:
    """A developed image enlarged by the camera's scale, cut to its size and to whole 255ths. Gradients pass."""
    large = enlarge_linear(small.clamp(0, 1), camera.scale)[:, :, : size[0], : size[1]]
    return whole_steps(large, 255, camera.rounding)


# ---------------------------------------------------------------- the numbers of shots as tensors


def _check_shots(images: Tensor, shots: Sequence[Shot], channels: int = 3) -> None:
    if channels == 3:
        check_batch(images, "camera")
    if len(shots) != len(images):
        raise ValueError(f"camera: expected a shot for each of {len(images)} images, got {len(shots)}")


def _gains(shots: Sequence[Shot], like: Tensor) -> Tensor:
    return like.new_tensor([(shot.red, 1.0, shot.blue) for shot in shots])


def _matrices(shots: Sequence[Shot], like: Tensor) -> Tensor:
    return torch.tensor([shot.matrix for shot in shots], dtype=torch.float64, device=like.device)


def _levels(shots: Sequence[Shot], like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_tensor([shot.black for shot in shots]), like.new_tensor([shot.white for shot in shots])


def _continued(images: Tensor, factor: int) -> Tensor:
    """The image with its last row and column repeated until `factor` divides both sides."""
    right, down = -images.shape[3] % factor, -images.shape[2] % factor
    return functional.pad(images, (0, right, 0, down), mode="replicate") if right or down else images
