"""A whole photograph, changed in some places and written again as it was in all others.

Pixels that do not change keep the file's own samples; colour profile, EXIF data and resolution go with them. It is
written as PNG, 8 or 16 bits as the photo has, upright.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from adapt.images import to_uint8
from adapt.photos.colour import narrow_from_srgb
from adapt.photos.decode import Samples
from adapt.photos.files import Photo, decoded
from adapt.photos.png import encode_16bit, with_metadata

if TYPE_CHECKING:
    from torch import Tensor

CONVERTED = "its colours were converted to sRGB: what was restored cannot be written in its own"


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photo as it is looked at, and as its file has it.

    Attributes:
        photo: `read_photo`'s.
        samples: those of the file.
    """

    photo: Photo
    samples: Samples

    def with_parts(self, parts: Sequence[tuple[tuple[int, int], Tensor]]) -> tuple[bytes, tuple[str, ...]]:
        """A PNG file of the photo with some of its rectangles changed, and notes.

        Args:
            parts: of each its left and top pixel, and what is there now, (3, h, w) sRGB in [0, 1]. Pixels that are
                equal to the photo's keep the file's samples. Later ones lie over earlier ones.
        """
        own, profile = self._samples()
        notes: tuple[str, ...] = ()
        if own is None:
            own, profile, notes = self._as_srgb(), None, (CONVERTED,)
        for (left, top), part in parts:
            height, width = part.shape[1:]
            before = self.photo.image[:, top : top + height, left : left + width]
            changed = (part != before).any(dim=0).numpy()
            if not changed.any():
                continue
            values = self._own_values(part, changed, own, profile)
            if values is None:
                own, profile, notes = self._as_srgb(), None, (CONVERTED,)
                return self._encoded(self._all_over(own, parts), profile), notes
            own[top : top + height, left : left + width][changed] = values
        return self._encoded(own, profile), notes

    def _samples(self) -> tuple[np.ndarray | None, bytes | None]:
        """The file's samples as an array (H, W, 1 or 3) to be written into; None where they are no RGB and no grey."""
        colour = self.samples.colour
        if isinstance(colour, np.ndarray):
            plain = self.samples.profile is None or np.array_equal(
                np.broadcast_to(colour.astype(np.float32) / self.samples.peak, (*colour.shape[:2], 3)),
                self.photo.image.permute(1, 2, 0).numpy(),
            )
            if not plain:
                return None, None
            scale = 65535 / self.samples.peak
            return (colour.copy() if scale == 1 else np.rint(colour * scale).astype(np.uint16)), self.samples.profile
        if colour.mode == "RGB":
            return np.array(colour), self.samples.profile
        if colour.mode == "L" and np.array_equal(np.array(colour), to_uint8(self.photo.image)[..., 0]):
            return np.array(colour)[..., None], self.samples.profile
        return None, None

    def _as_srgb(self) -> np.ndarray:
        return self._rounded(self.photo.image)

    def _rounded(self, image: Tensor) -> np.ndarray:
        if self.photo.bits == 8:
            return to_uint8(image)
        return image.double().clamp(0, 1).mul(65535).round().permute(1, 2, 0).numpy().astype(np.uint16)

    def _own_values(
        self, part: Tensor, changed: np.ndarray, own: np.ndarray, profile: bytes | None
    ) -> np.ndarray | None:
        """The changed pixels of a part as samples of the file, (N, 1 or 3); None where its profile allows none."""
        values = self._rounded(part)[changed]
        if own.shape[2] == 1:
            wide = values.astype(np.float64).mean(axis=1, keepdims=True)
            return np.rint(wide).astype(own.dtype)
        if profile is None or own.dtype == np.uint16:
            return values
        return narrow_from_srgb(values, profile)

    def _all_over(self, own: np.ndarray, parts: Sequence[tuple[tuple[int, int], Tensor]]) -> np.ndarray:
        for (left, top), part in parts:
            height, width = part.shape[1:]
            own[top : top + height, left : left + width] = self._rounded(part)
        return own

    def _encoded(self, own: np.ndarray, profile: bytes | None) -> bytes:
        alpha = self.samples.alpha
        if alpha is not None:
            peak = 255 if own.dtype == np.uint8 else 65535
            scaled = np.rint(alpha.astype(np.float64) * (peak / self.samples.peak)).astype(own.dtype)
            own = np.concatenate([own, scaled[..., None]], axis=2)
        if own.dtype == np.uint16:
            data = encode_16bit(own)
        else:
            stream = io.BytesIO()
            Image.fromarray(own[..., 0] if own.shape[2] == 1 else np.ascontiguousarray(own)).save(stream, "PNG")
            data = stream.getvalue()
        return with_metadata(data, profile=profile, exif=self.samples.exif, dpi=self.samples.dpi)


def read_photograph(path: str | Path) -> Photograph:
    """A whole photograph; errors as `read_photo`."""
    return Photograph(*decoded(Path(path)))
