"""JPEG and back, through the libjpeg that writes files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from degradations.filters import check_batch


def jpeg(images: Tensor, quality: int | Sequence[int]) -> Tensor:
    """Each image written as a JPEG file (4:2:0) and read again; the same shape, type and device.

    Clips to [0, 1] and rounds to 8 bits on the way in, so all values that come back are whole 255ths. Always on the
    CPU: hardware encoders give other bytes. Not differentiable.

    Args:
        images: (B, 3, H, W) in [0, 1].
        quality: 1 to 100, one number for all or one for each.

    Raises:
        ValueError: a quality outside 1 to 100, or not one for each image.

    Source: the JPEG_q of DT-BFR Eq. (9). Pillow, because torchvision has given up its codec (deprecated in 0.29); the
    two agree bit for bit.
    """
    check_batch(images, "jpeg")
    qualities = [quality] * len(images) if isinstance(quality, int) else list(quality)
    if len(qualities) != len(images):
        raise ValueError(f"jpeg: expected one quality for each of {len(images)} images, got {len(qualities)}")
    for number in qualities:
        if not 1 <= number <= 100:
            raise ValueError(f"jpeg: expected a quality from 1 to 100, got {number}")
    pixels = images.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    decoded = torch.stack([_written_and_read(image, number) for image, number in zip(pixels, qualities, strict=True)])
    return decoded.to(images.device).to(images.dtype) / 255


def _written_and_read(pixels: Tensor, quality: int) -> Tensor:
    import numpy as np
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
