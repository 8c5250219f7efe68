"""JPEG and back, through the same libjpeg that writes files."""

from __future__ import annotations

import importlib.util
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

    Source: the JPEG_q of DT-BFR Eq. (9). Torchvision's codec and Pillow's agree bit for bit; Pillow is taken where
    torchvision is absent.
    """
    check_batch(images, "jpeg")
    qualities = [quality] * len(images) if isinstance(quality, int) else list(quality)
    if len(qualities) != len(images):
        raise ValueError(f"jpeg: expected one quality for each of {len(images)} images, got {len(qualities)}")
    for number in qualities:
        if not 1 <= number <= 100:
            raise ValueError(f"jpeg: expected a quality from 1 to 100, got {number}")
    through = _through_torchvision if importlib.util.find_spec("torchvision") else _through_pillow
    pixels = images.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    decoded = torch.stack([through(image, number) for image, number in zip(pixels, qualities, strict=True)])
    return decoded.to(images.device).to(images.dtype) / 255


def _through_torchvision(pixels: Tensor, quality: int) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

    decoded = decode_jpeg(encode_jpeg(pixels.contiguous(), quality), mode=ImageReadMode.RGB)
    assert isinstance(decoded, Tensor)  # a list comes back only where a list went in
    return decoded


def _through_pillow(pixels: Tensor, quality: int) -> Tensor:
    import numpy as np
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
