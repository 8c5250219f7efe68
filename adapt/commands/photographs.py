"""What is restored of a photo, and how it is put together again: an aligned face as it is, or the faces of a whole one.

An aligned face is a square picture whose points lie where an aligned face has them, and so is every square picture of
exactly the model's size, and one in which no face is found: damage may hide it. Every other picture is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from adapt.digests import file_digest, settings_digest
from adapt.errors import PhotoError, UsageError
from adapt.faces.align import cut_out, five_points
from adapt.faces.find import CROP, Face, FaceFinder
from adapt.faces.paste import face_mask, paste
from adapt.images import to_grey, without_colour
from adapt.loading import load_face_finder
from adapt.photos.boxes import KnownPhoto, read_boxes
from adapt.photos.files import encode_png
from adapt.photos.pairs import Fitted, fitted, is_square, read_fitted
from adapt.photos.photograph import CONVERTED, Photograph, read_photograph

FaceMode = Literal["whole", "aligned", "auto"]
SIDE: Final = (0.8, 1.25)  # of a face's crop over an aligned picture's side
ASIDE: Final = 0.1  # of its side: how far an aligned face's middle may lie from its place
TURNED: Final = 15.0  # degrees
FINDING: Final = ("finder", "largest", "max_faces", "boxes", "frames")  # keys of `Preparer.settings` beside the mode
LARGER: Final = 2.0  # times the model's size: from there on detail is lost that the photo has


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo ready to be restored.

    Attributes:
        crops: its faces at the model's size, (3, S, S) each; none where no face was found.
        finish: the PNG file of the photo, of what became of the crops, in their order, and notes.
        line: what the log shall say of it.
        enlarged: how many times longer the side of the smallest face became, where that is more than 1.
        reduced: by how much the largest face was reduced, where it was.
        resized: an aligned face of another size.
        bits: of the photo's samples.
    """

    crops: list[Tensor]
    finish: Callable[[Sequence[Tensor]], tuple[bytes, tuple[str, ...]]]
    line: dict[str, Any] = field(default_factory=dict[str, Any])
    enlarged: float | None = None
    reduced: float | None = None
    resized: bool = False
    bits: Literal[8, 16] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which faces of whole photographs are taken.

    Attributes:
        largest: only the largest of each photo.
        most: at most so many of each, the largest first; None for all.
        known: faces that are given, by the photo's id; in these photos no other is looked for.
    """

    largest: bool = False
    most: int | None = None
    known: Mapping[str, KnownPhoto] = field(default_factory=dict[str, KnownPhoto])

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise UsageError(f"--max-faces {self.most}: expected 1 face or more")

    def faces(self, id: str, image: Tensor, finder: FaceFinder) -> list[Face]:
        """The faces of a photo, (3, H, W) in [0, 1], that are taken, the largest first.

        Raises:
            PhotoError: one is given that lies outside of the photo.
        """
        given = self.known.get(id)
        for face in () if given is None else given.faces:
            _refuse_outside(id, face.box, image)
        found = finder.find(image) if given is None else finder.given(image, given.faces)
        return found[: 1 if self.largest else self.most]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How faces are found, as a user says it.

    Attributes:
        pack: whose networks find them; those of the embedded pack where None.
        min_face, min_score: as `adapt.loading.load_face_finder`.
        largest, most: as `Choice`.
        boxes: a file of places that are known (`adapt.photos.boxes`).
        frames: photos are numbered frames of a film, whose faces are followed.
    """

    pack: str | Path | None = None
    min_face: float | None = None
    min_score: float | None = None
    largest: bool = False
    most: int | None = None
    boxes: Path | None = None
    frames: bool = False

    def preparer(self, size: int, mode: FaceMode, device: torch.device | str, *, strength: float = 1.0) -> Preparer:
        """What makes photos ready for a model of that size; the networks are loaded where photos may be whole.

        Raises:
            UsageError: settings outside their range, or a file of boxes that is none.
            WeightsError: a pack without the networks.
        """
        known = {} if self.boxes is None else read_boxes(self.boxes)
        choice = Choice(largest=self.largest, most=self.most, known=known)
        if mode == "aligned":
            given = {"--min-face": self.min_face, "--min-score": self.min_score, "--largest": self.largest or None,
                     "--max-faces": self.most, "--boxes": self.boxes, "--frames": self.frames or None}  # fmt: skip
            if named := [option for option, value in given.items() if value is not None]:
                raise UsageError(f"{named[0]}: is for whole photographs, and --faces aligned finds none; leave it out")
            return Preparer(size=size, strength=strength)
        finder = load_face_finder(self.pack or "tiny", device, min_face=self.min_face, min_score=self.min_score)
        mode = "whole" if self.frames else mode  # a frame is none of its faces
        return Preparer(size=size, mode=mode, finder=finder, choice=choice, strength=strength, frames=self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparer:
    """Makes photos ready for a model.

    Attributes:
        size: side of the model's faces.
        mode: whether photos are whole, or aligned faces, or each as it looks.
        finder: finds faces; needed where photos may be whole.
        choice: which of them are taken.
        strength: how much of the change is made, in [0, 1].
        frames: photos are frames of a film (`adapt.commands.frames` follows their faces first).
    """

    size: int
    mode: FaceMode = "aligned"
    finder: FaceFinder | None = None
    choice: Choice = field(default_factory=Choice)
    strength: float = 1.0
    frames: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(f"--strength {self.strength:g}: expected a number from 0, the photo, to 1, the restored")

    def settings(self) -> dict[str, Any]:
        """All that its results depend on beside model and photos, as JSON holds it; the defaults are left out."""
        about: dict[str, Any] = {"faces": self.mode, **({} if self.strength == 1 else {"strength": self.strength})}
        if self.mode == "aligned" or self.finder is None:
            return about
        known = {id: [asdict(face) for face in photo.faces] for id, photo in self.choice.known.items()}
        return about | {
            "finder": self.finder.about(), "largest": self.choice.largest,
            "max_faces": self.choice.most, **({"boxes": settings_digest(known)} if known else {}),
            **({"frames": True} if self.frames else {}),
        }  # fmt: skip

    def __call__(self, id: str, path: Path) -> Prepared:
        """One photo. Raises PhotoError: cannot be read, or is no aligned face where it should be one."""
        if self.mode == "aligned" or self.finder is None:
            return self.of_aligned(read_fitted(path, self.size))
        known = self.choice.known.get(id)
        if known is not None and known.sha256 is not None and known.sha256 != file_digest(path):
            raise PhotoError(f"{path}: is not the photo any more that its boxes were found in; run adapt align again")
        whole = read_photograph(path)
        faces = [] if id in self.choice.known else self.aligned_in(whole.photo.image)
        if faces is None:
            return self.of_aligned(fitted(path, whole.photo, self.size))
        return self.of_whole(whole, faces if faces else self.choice.faces(id, whole.photo.image, self.finder))

    def aligned_in(self, image: Tensor) -> list[Face] | None:
        """None of a photo that is taken as an aligned face; else the faces that were found on the way, if any were."""
        assert self.finder is not None
        side = image.shape[2]
        if self.mode == "whole" or not is_square(image):
            return []
        if side == self.size:
            return None
        faces = self.finder.find(image)
        if not faces:
            return None
        if len(faces) == 1 and _fills(faces[0], side):
            return None
        return faces[: 1 if self.choice.largest else self.choice.most]

    def of_aligned(self, photo: Fitted) -> Prepared:
        """An aligned face."""

        def finish(restored: Sequence[Tensor]) -> tuple[bytes, tuple[str, ...]]:
            image = photo.image + self.strength * (restored[0] - photo.image) if self.strength < 1 else restored[0]
            return encode_png(to_grey(image) if photo.grey else image), ()

        return Prepared([photo.image], finish, {}, photo.enlarged, None, photo.resized)

    def of_whole(self, whole: Photograph, faces: Sequence[Face]) -> Prepared:
        """A whole photograph and its faces."""
        photo = whole.photo
        grey = photo.grey or without_colour(photo.image)
        placements = [face.placed_at(self.size) for face in faces]
        crops = [cut_out(photo.image, placement, self.size) for placement in placements]
        crops = [to_grey(crop) if grey else crop for crop in crops]

        def finish(restored: Sequence[Tensor]) -> tuple[bytes, tuple[str, ...]]:
            image, parts = photo.image.clone(), []
            for face, placement, crop, result in zip(faces, placements, crops, restored, strict=True):
                points = placement.inverse().to_photo(face.points)
                mask, result = face_mask(points, self.size), to_grey(result) if grey else result
                part, window = paste(image, crop, result, mask, placement, strength=self.strength)
                left, top, right, bottom = (int(edge) for edge in window)
                image[:, top:bottom, left:right] = part  # where faces overlap the next begins with what is there
                parts.append(((left, top), part))
            return whole.with_parts(parts)

        scales = [placement.scale for placement in placements]
        smallest, largest = min(scales, default=1.0), max(scales, default=1.0)
        return Prepared(
            crops, finish, {"faces": [_told(face) for face in faces]},
            1 / smallest if smallest < 1 else None, largest if largest > 1 else None, bits=photo.bits,
        )  # fmt: skip


def _refuse_outside(id: str, box: Sequence[float], image: Tensor) -> None:
    height, width = image.shape[1:]
    left, top, right, bottom = box
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        places = ", ".join(f"{edge:g}" for edge in box)
        raise PhotoError(f"{id}: --boxes has a face at [{places}], outside of the photo, which is {width} x {height}")


def _fills(face: Face, side: int) -> bool:
    """Whether a face lies in a square picture as an aligned one does."""
    middle = face.placement.to_photo(torch.full((2,), face.side / face.placement.scale / 2, dtype=torch.float64))
    off = float((middle - side / 2).abs().max())
    return SIDE[0] < face.side / side < SIDE[1] and off < ASIDE * side and abs(face.placement.angle) < TURNED


def _told(face: Face) -> dict[str, Any]:
    """A face as `adapt.photos.boxes` reads it, with what else is known of it."""
    place = face.placement
    return {
        "box": [round(edge, 1) for edge in face.box],
        "points": [[round(value, 2) for value in point] for point in five_points(face.points).tolist()],
        "placement": [place.x, place.y, place.a * CROP, place.b * CROP],
        "score": round(face.score, 3),
        "side": round(face.side, 1),
        "turned": round(place.angle, 1),
        **({"track": face.track} if face.track else {}),
    }


def reduced_warning(reduced: Mapping[str, float]) -> str:
    """A sentence on photos with faces far larger than the model's; empty where there are none."""
    much = sorted(((times, id) for id, times in reduced.items() if times >= LARGER), reverse=True)
    if not much:
        return ""
    times, id = much[0]
    photos = "1 photo has" if len(much) == 1 else f"{len(much)} photos have"
    return (
        f"{photos} faces {LARGER:g} times as large as the model's and more (most in {id}: {times:.3g} times): detail"
        " finer than the model's pixels stays as it is in the photo"
    )


def converted_note(converted: Sequence[str]) -> str:
    """A sentence on whole photographs that became sRGB; empty where none did."""
    if not converted:
        return ""
    photos = "1 photo" if len(converted) == 1 else f"{len(converted)} photos"
    return f"{photos}: {CONVERTED} (first: {converted[0]})"


def refuse_failed(id: str, restored: Sequence[Tensor]) -> None:
    """Raise PhotoError where the restorer gave what is no image."""
    if not all(bool(image.isfinite().all()) for image in restored):
        raise PhotoError(f"{id}: the restorer gave values that are not finite")

