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
from adapt.photos.colour import narrow_from_srgb, wide_from_srgb
from adapt.photos.decode import Samples
from adapt.photos.files import Photo, decoded
from adapt.photos.png import encode_16bit, with_metadata

if TYPE_CHECKING:
    from torch import Tensor

CONVERTED = "converted to sRGB, for what was restored cannot be written in the file's own colours"


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
        plain = profile is None or self._is_plain(own)
        for (left, top), part in parts:
            height, width = part.shape[1:]
            before = self.photo.image[:, top : top + height, left : left + width]
            changed = (part != before).any(dim=0).numpy()
            if not changed.any():
                continue
            values = self._own_values(part, changed, own, None if plain else profile)
            if values is None:
                own, profile, notes = self._as_srgb(), None, (CONVERTED,)
                return self._encoded(self._all_over(own, parts), profile), notes
            own[top : top + height, left : left + width][changed] = values
        return self._encoded(own, profile), notes

    def _samples(self) -> tuple[np.ndarray | None, bytes | None]:
        """The file's samples as an array (H, W, 1 or 3) to be written into; None where they are no RGB and no grey."""
        colour = self.samples.colour
        if isinstance(colour, np.ndarray):
            scale = 65535 / self.samples.peak
            return (colour.copy() if scale == 1 else np.rint(colour * scale).astype(np.uint16)), self.samples.profile
        if colour.mode not in ("L", "RGB"):
            return None, None
        return np.array(colour).reshape(colour.height, colour.width, -1), self.samples.profile

    def _is_plain(self, own: np.ndarray) -> bool:
        """Whether the file's samples are the photo's as they are: it has no profile, or that one says nothing."""
        seen = own.astype(np.float32) / np.iinfo(own.dtype).max
        step = 0.75 / np.iinfo(own.dtype).max  # samples of 10 and 12 bits are rounded to 16
        return bool(np.abs(self.photo.image.permute(1, 2, 0).numpy() - seen).max() <= step)

    def _as_srgb(self) -> np.ndarray:
        return self._rounded(self.photo.image)

    def _rounded(self, image: Tensor) -> np.ndarray:
        if self.photo.bits == 8:
            return to_uint8(image)
        return image.double().clamp(0, 1).mul(65535).round().permute(1, 2, 0).numpy().astype(np.uint16)

    def _own_values(
        self, part: Tensor, changed: np.ndarray, own: np.ndarray, profile: bytes | None
    ) -> np.ndarray | None:
        """The changed pixels of a part as samples of the file, (N, 1 or 3); None where its profile, if it has one that
        says something, allows none."""
        values, peak, channels = part.permute(1, 2, 0).numpy()[changed], np.iinfo(own.dtype).max, own.shape[2]
        if profile is None:
            found = values if channels == 3 else values.mean(axis=1, keepdims=True)
        elif own.dtype == np.uint8:
            return narrow_from_srgb(self._rounded(part)[changed], profile, "L" if channels == 1 else "RGB")
        else:
            found = wide_from_srgb(values.astype(np.float64), channels, profile)
        return None if found is None else np.rint(found.astype(np.float64).clip(0, 1) * peak).astype(own.dtype)

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
