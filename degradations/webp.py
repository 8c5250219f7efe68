"""WebP and back, through libwebp."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from degradations.filters import check_one


def webp(image: Tensor, quality: int) -> Tensor:
    """The image written as a lossy WebP file and read again; the same shape, type and device.

    Clips to [0, 1] and rounds to 8 bits on the way in. Always on the CPU; not differentiable.

    Args:
        image: (3, H, W) in [0, 1].
        quality: 1 to 100.

    Raises:
        ValueError: another shape, or a quality outside 1 to 100.
    """
    import numpy as np
    from PIL import Image

    check_one(image, "webp")
    if not 1 <= quality <= 100:
        raise ValueError(f"webp: expected a quality from 1 to 100, got {quality}")
    pixels = image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().contiguous().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=quality)
    with Image.open(stream) as image:
        decoded = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return decoded.to(image.device).to(image.dtype) / 255
