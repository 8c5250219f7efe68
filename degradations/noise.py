"""Noise: Gaussian, that of counted photons, speckle, and the signal-dependent Gaussian of a sensor."""

from __future__ import annotations

import torch
from torch import Tensor


def standard_normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Independent N(0, 1) values, drawn on the generator's device and moved to that of `like`.

    So a generator on the CPU gives an image the same noise wherever the image lies.
    """
    field = torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return field.to(like.device)


def gaussian(image: Tensor, std: float, noise: torch.Generator | Tensor) -> Tensor:
    """The image plus independent N(0, std^2) in every pixel and channel; not clipped.

    Args:
        image: any shape, of one image.
        std: on the image's own scale ([0, 1], not 255).
        noise: the image's generator, or the N(0, 1) field itself in the image's shape.

    Raises:
        ValueError: a negative std, or a field of another shape.
    """
    if not std >= 0:
        raise ValueError(f"gaussian noise: expected a standard deviation of 0 or more, got {std}")
    return image + std * _field(image, noise)


def signal_dependent(
    image: Tensor, gain: float | Tensor, read_var: float | Tensor, *, noise: torch.Generator | Tensor
) -> Tensor:
    """The image plus independent Gaussian noise of variance gain * signal + read_var; not clipped.

    Args:
        image: linear light of one image, any shape; negative signal counts as none.
        gain: variance per unit of signal (photon noise), a number or something that broadcasts against the image.
        read_var: variance in the dark (read noise), likewise.
        noise: the image's generator, or the N(0, 1) field itself in the image's shape.

    Raises:
        ValueError: a negative gain or read_var, or a field of another shape.

    Source: Foi et al. 2008, the heteroscedastic model named in DT-BFR below Eq. (12).
    """
    for name, value in (("gain", gain), ("read_var", read_var)):
        if not bool((torch.as_tensor(value) >= 0).all()):
            raise ValueError(f"signal-dependent noise: expected {name} of 0 or more, got {value}")
    variance = image.clamp(min=0) * gain + read_var
    return image + variance.sqrt() * _field(image, noise)


def photons(light: Tensor, count: float, generator: torch.Generator) -> Tensor:
    """Light counted in photons: Poisson with mean count * light, divided by count; not clipped.

    Args:
        light: linear light of one image in [0, 1], any shape; negative light counts as none.
        count: photons of white, positive. The variance is light / count.
        generator: on the CPU.

    Raises:
        ValueError: a count that is not positive.
    """
    if not count > 0:
        raise ValueError(f"photon noise: expected a positive number of photons, got {count}")
    mean = (light.clamp(min=0) * count).to(generator.device)
    return (torch.poisson(mean, generator=generator) / count).to(light)


def speckle(image: Tensor, std: float, noise: torch.Generator | Tensor) -> Tensor:
    """The image times 1 + independent N(0, std^2) in every pixel and channel, as in coherent light; not clipped.

    Raises:
        ValueError: a negative std, or a field of another shape.
    """
    if not std >= 0:
        raise ValueError(f"speckle noise: expected a standard deviation of 0 or more, got {std}")
    return image * (1 + std * _field(image, noise))


def _field(image: Tensor, noise: torch.Generator | Tensor) -> Tensor:
    if isinstance(noise, torch.Generator):
        return standard_normal(tuple(image.shape), noise, image)
    if noise.shape != image.shape:
        raise ValueError(f"noise field: expected shape {tuple(image.shape)}, got {tuple(noise.shape)}")
    return noise.to(image)
