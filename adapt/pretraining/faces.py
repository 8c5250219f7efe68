"""The faces of a pre-training, all in one tensor: in memory, or where they are many in a file that stands in for it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import numpy as np
import torch

from adapt.errors import UsageError
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted

HELD_BYTES: Final = 4 << 30  # the most that memory takes where there is a folder for such a file


def load_faces(folder: Path, size: int, scratch: Path | None = None) -> torch.Tensor:
    """All clean faces of a folder as (N, 3, size, size) uint8, in the order of their names.

    Args:
        folder: of the faces.
        size: side to which they are brought, in pixels.
        scratch: folder for a file that takes them where they are more than `HELD_BYTES`: memory then holds no more of
            them than it has room for. The file has no name, and is gone with the tensor. Left out, memory takes all.

    Raises:
        PhotoError: an image that cannot be read, or is not square.
        UsageError: no image, or no room for that file.
    """
    paths = [photo.path for photo in find_photos(folder)]
    shape = (len(paths), 3, size, size)
    images = (load_fitted(path, size).mul(255).round().byte() for path in paths)
    needed = math.prod(shape)
    if scratch is None or needed <= HELD_BYTES:
        held = torch.empty(shape, dtype=torch.uint8)
        for place, image in zip(held, images, strict=True):
            place.copy_(image)
        return held
    if needed > (free := shutil.disk_usage(scratch).free):
        raise UsageError(
            f"{scratch}: {len(paths)} faces of {size} px need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
            " on this disk; put the run on another, or take fewer faces"
        )
    with TemporaryFile(dir=scratch) as stream:
        for image in images:
            stream.write(image.numpy().tobytes())
        stream.flush()
        return torch.from_numpy(np.memmap(stream, np.uint8, "r+", shape=shape))
