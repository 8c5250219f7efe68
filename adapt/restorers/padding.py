"""Images of any size for networks that halve theirs: mirrored up to a multiple, at the right and bottom."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored_to_multiple(photo: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) prolonged so that both sides are multiples: mirrored without repeating the edge, then, where the
    image is smaller than its border, the first row or column repeated.

    By index, so that any size pads in any exported graph.
    """
    rows, columns = (_mirrored(side, multiple, photo) for side in photo.shape[2:])
    return photo.index_select(2, rows).index_select(3, columns)


def _mirrored(length: int, multiple: int, reference: Tensor) -> Tensor:
    """Indices of a prolonged side."""
    padded = (length + multiple - 1) // multiple * multiple
    position = torch.arange(padded, device=reference.device)
    return (position - 2 * (position - (length - 1)).clamp(min=0)).clamp(min=0)
