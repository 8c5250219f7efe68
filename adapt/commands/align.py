"""`adapt align`: every face of a folder of photographs, cut out upright, with its way back.

    faces.json      what the folder was made with
    faces.jsonl     a line for each face: photo, file, box, points, placement, score, size in the photo, by how much it
                    was enlarged, how strong its fine detail is; one with `"box": null` for a photo without a face
    ID-face1.png    the faces, the largest of a photo first, those of frames by their numbers through the film; ID.png
                    where the photo is an aligned face already
    faces.pdf       the photos with what was found drawn into them
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from adapt.commands.frames import FOUND, follow_faces, in_order
from adapt.commands.photographs import FINDING, FaceMode, Finding, Prepared, Preparer
from adapt.devices import pick_device
from adapt.digests import file_digest, is_unchanged
from adapt.disk import append_json_line, claim_folder, is_marked, read_json_lines, remove_written, shown_name
from adapt.errors import PhotoError, UsageError
from adapt.images import fine_detail, to_uint8
from adapt.journal import Journal, KeptError, journal_names
from adapt.locks import locked
from adapt.packs.pack import load_pack
from adapt.photos.files import encode_png, read_image
from adapt.photos.folder import PhotoFile, find_photos, refuse_overlap
from adapt.settings.paths import FACES

CLAIM: Final = "faces.json"
KIND: Final = "faces of photographs"
LOG: Final = "faces.jsonl"
SHEET: Final = "faces.pdf"  # no image by its suffix: the folder is one of photos
SHOWN: Final = 24  # photos of the sheet
CELL: Final = 320  # side of its cells, in pixels
COLUMNS: Final = 4
OnPhoto = Callable[[str, str, int, int], None]


@dataclass(slots=True)
class Aligned:
    """How a folder came out.

    Attributes:
        faces: how many faces each whole photograph has, by id, those skipped included.
        aligned: photos that are aligned faces already.
        done, skipped: numbers of photos.
        enlarged: how many times longer the side of the smallest face of a photo became, by id, where it did.
        failed, failed_ids: a line for each photo that failed, and its id.
        kept: what could not be replaced because somebody changed it.
    """

    faces: dict[str, int] = field(default_factory=dict[str, int])
    aligned: list[str] = field(default_factory=list[str])
    done: int = 0
    skipped: int = 0
    enlarged: dict[str, float] = field(default_factory=dict[str, float])
    failed: list[str] = field(default_factory=list[str])
    failed_ids: list[str] = field(default_factory=list[str])
    kept: list[str] = field(default_factory=list[str])


def align(
    photos: str | Path,
    out: str | Path,
    *,
    pack: str | Path = "tiny",
    size: int | None = None,
    faces: FaceMode = "whole",
    finding: Finding | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    renew: bool = False,
    only: bool = False,
    device: str = "auto",
    on_photo: OnPhoto | None = None,
    on_frame: Callable[[int, int], object] | None = None,
) -> Aligned:
    """Cut the faces out of a folder of photographs, upright, on the template of FFHQ.

    What an earlier run with the same settings finished is left alone. A face that somebody changed since stays, and its
    photo fails. A photo without a face is told of, and is no failure.

    Args:
        photos: a folder of photographs, or one file.
        out: where the faces go.
        pack: for whose networks the faces are, and whose find them unless `finding` says otherwise.
        size: side of the crops; that of the pack's faces where None.
        faces: whether photos are whole, or each as it looks: then aligned faces are only brought to the size.
        finding: how faces are found; its defaults where None.
        limit: only the first so many photos.
        overwrite: remove first what was made there.
        renew: remove it where it was made with other settings.
        only: remove the faces of other photos, which an earlier run found, but for those that somebody changed.
        device: auto, cpu, cuda, ...
        on_photo: called with id, status, photos finished, photos in all.
        on_frame: told, where photos are frames, of those whose faces have been looked for, and of all.

    Raises:
        UsageError: no photos, photos that are said to be aligned, or an output folder with other files, or made with
            other settings.
    """
    photos, out = Path(photos), Path(out)
    if faces == "aligned":
        raise UsageError("--faces aligned: there is nothing to cut out of aligned faces; take whole or auto")
    refuse_overlap(photos, out)
    files = find_photos(photos, limit)
    side = size or load_pack(pack).card.size
    if side < 16:
        raise UsageError(f"--size {side}: expected 16 pixels or more")
    if finding is not None:
        refuse_boxes_in(out, finding.boxes)
    preparer = (finding or Finding(pack=pack)).preparer(side, faces, pick_device(device))
    with locked(out):
        _claim(out, {"size": side, **preparer.settings()}, overwrite=overwrite, renew=renew)
        if preparer.frames:
            files = in_order(files)
            preparer = follow_faces(preparer, files, out, on_frame)
        result = _align_all(files, out, preparer, overwrite=overwrite, on_photo=on_photo)
        if only:
            result.kept += _remove_others({file.id for file in files}, out)
        if result.done or not (out / SHEET).exists():
            try:
                with Journal(out, _told(out), overwrite=overwrite).replacing(SHEET) as path:
                    _write_sheet(path, files, out)
            except KeptError as error:
                result.kept.append(str(error))
        return result


def refuse_boxes_in(out: Path, boxes: Path | None) -> None:
    """Raise UsageError where a file of boxes lies in the folder that is written: it would be replaced."""
    if boxes is not None and boxes.resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"--boxes {boxes}: lies in {out}, whose files are made anew; copy it elsewhere, and name the copy"
        )


def faces_of(photos: Path, out: Path, *, faces: FaceMode, **how: Any) -> Aligned | None:
    """The faces of photos, cut out into a folder; None where all are aligned faces, which need no cutting.

    Args:
        photos, out: as `align`.
        faces: whether photos are whole, or each as it looks.
        how: whatever else `align` takes.

    Raises:
        PhotoError: no photo has a face.
        UsageError: as `align`.
    """
    cut = align(photos, out, faces=faces, **how)
    if faces == "auto" and not cut.faces:
        return None
    if not cut.aligned and not any(cut.faces.values()):
        photos_there = cut.done + cut.skipped + len(cut.failed)
        raise PhotoError("\n".join([f"{photos}: no face was found in {photos_there} photos", *cut.failed]))
    return cut


def faces_in(store: Path) -> Path | None:
    """The faces of whole photographs that a target store was made of; None where it was made of aligned ones."""
    folder = store / FACES
    whole = (folder / CLAIM).is_file() and any("box" in line for line in _lines(folder))
    return folder if whole else None


def _align_all(
    files: Sequence[PhotoFile], out: Path, preparer: Preparer, *, overwrite: bool, on_photo: OnPhoto | None
) -> Aligned:
    """`align` in a folder that is claimed and held."""
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _lines(out):
        known[line["photo"]].append(line)
    journal = Journal(out, _told(out), overwrite=overwrite)
    result, owners = Aligned(), dict[str, str]()
    for number, file in enumerate(files, start=1):
        before = known[file.id]
        try:
            sha256 = file_digest(file.path)
            lines = [line for line in before if line["photo_sha256"] == sha256]
            if _is_done(lines, out):
                status = "skipped"
                result.skipped += 1
                if before[-1]["photo_sha256"] != sha256:  # another in between: the last ones count
                    _log(lines, out)
            else:
                stale = [line for line in before if line["photo_sha256"] != sha256 and line.get("file") not in owners]
                result.kept += _remove(stale, journal)
                lines = _write(preparer(file.id, file.path), file.id, sha256, journal, owners)
                _log(lines, out)
                status = "done"
                result.done += 1
            owners.update({line["file"]: file.id for line in lines if "file" in line})
            _note(result, file.id, lines)
        except PhotoError as error:
            status = _failed(result, file.id, str(error))
        except OSError as error:
            status = _failed(result, file.id, f"{file.path}: cannot be read: {error.strerror or error}")
        if on_photo is not None:
            on_photo(file.id, status, number, len(files))
    return result


def _failed(result: Aligned, id: str, reason: str) -> str:
    result.failed.append(shown_name(reason))
    result.failed_ids.append(id)
    return "failed"


def _log(lines: Sequence[dict[str, Any]], out: Path) -> None:
    """The lines of a photo, of which the last says how many there are: with it the photo is done."""
    for line in lines:
        append_json_line(out / LOG, line)


def _write(
    photo: Prepared, id: str, sha256: str, journal: Journal, owners: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The crops of a photo, written; their lines. `owners`: the photos of the files that are there, by name."""
    about = {"photo": id, "photo_sha256": sha256}
    whole = photo.line.get("faces")
    if whole == []:
        return [{**about, "box": None, "of": 0}]
    found: list[dict[str, Any]] = [{}] if whole is None else whole
    lines: list[dict[str, Any]] = []
    for number, (crop, face) in enumerate(zip(photo.crops, found, strict=True), start=1):
        name = f"{id}.png" if whole is None else f"{id}-face{face.get('track', number)}.png"
        if name in owners:
            raise PhotoError(f"{id}: its face would be {name}, as that of {owners[name]} is; rename one of both photos")
        journal.refuse_others(name)
        digest = journal.write(name, encode_png(crop, bits=photo.bits))
        enlarged = {"enlarged": round(crop.shape[-1] / face["side"], 2)} if face else {}
        detail = float(fine_detail(crop[None]).std())
        lines.append({
            **about, **face, **enlarged, "file": name, "sha256": digest, "fine_detail": round(detail, 5),
            "of": len(found),
        })  # fmt: skip
    return lines


def _note(result: Aligned, id: str, lines: Sequence[dict[str, Any]]) -> None:
    if "box" not in lines[0]:
        result.aligned.append(id)
        return
    result.faces[id] = lines[0]["of"]
    times = max((line.get("enlarged", 1.0) for line in lines), default=1.0)
    if times > 1:
        result.enlarged[id] = times


def _remove_others(ids: set[str], out: Path) -> list[str]:
    """Remove the faces of other photos than these; what cannot be removed, and why."""
    return _remove([line for line in _lines(out) if line["photo"] not in ids], Journal(out, _told(out)))


def _remove(lines: Iterable[dict[str, Any]], journal: Journal) -> list[str]:
    """Remove the faces that lines tell of; what cannot be removed, and why."""
    kept = list[str]()
    for name in dict.fromkeys(line["file"] for line in lines if "file" in line):
        try:
            journal.remove(name)
        except KeptError as error:
            kept.append(str(error))
    return kept


def photos_by_face(folder: Path) -> dict[str, str]:
    """The photo of each face in a folder of `align`, by the face's id; empty for another folder."""
    return {
        line["file"].removesuffix(".png"): line["photo"]
        for line in read_json_lines(folder / LOG, ("photo",))
        if "file" in line
    }


def written(folder: Path) -> list[str]:
    """What `align` has put into a folder beside faces.json, for `adapt.disk.remove_written`."""
    return [*(name for name, _ in _told(folder)), LOG, FOUND, SHEET, *journal_names(folder)]


def remove_faces(folder: Path) -> None:
    """Remove what `align` put into a folder; nothing where it is none of its folders."""
    if is_marked(folder / CLAIM, KIND):
        remove_written(folder, [*written(folder), CLAIM])
        with suppress(OSError):  # it holds something else
            folder.rmdir()


def _claim(out: Path, about: dict[str, Any], *, overwrite: bool, renew: bool) -> None:
    found = claim_folder(
        out, CLAIM, about, kind=KIND, ours="one of ours", writes=lambda: written(out), overwrite=overwrite
    )
    keys = dict.fromkeys([*about, *FINDING])  # one that is left out now may have been given then
    other = [key for key in keys if found.get(key) != about.get(key)]
    if not other:
        return
    if not renew:
        there = ", ".join(f"{key} {found.get(key)}" for key in other)
        raise UsageError(
            f"{out}: holds faces that were found otherwise ({there}); choose another folder, or --overwrite"
        )
    unchanged = Journal(out, _told(out)).unchanged()
    claim_folder(
        out, CLAIM, about, kind=KIND, ours="one of ours", writes=lambda: [*unchanged, LOG, FOUND], overwrite=True
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    return read_json_lines(folder / LOG, ("photo", "photo_sha256", "of"))


def _told(folder: Path) -> list[tuple[str, str | None]]:
    return [(line["file"], line["sha256"]) for line in _lines(folder) if "file" in line]


def _is_done(lines: Sequence[dict[str, Any]], out: Path) -> bool:
    """Whether every face of a photo is there and still what was written."""
    if not lines:
        return False
    latest = {line.get("file"): line for line in lines}
    return len(latest) == max(lines[-1]["of"], 1) and all(
        "file" not in line or is_unchanged(out / line["file"], line["sha256"]) for line in latest.values()
    )


# ---------------------------------------------------------------- the sheet


def _write_sheet(path: Path, files: Sequence[PhotoFile], out: Path) -> None:
    """The first photos, each in a square, with the outlines of what was found."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _lines(out):
        found[line["photo"]].append(line)
    shown = [file for file in files if file.id in found][:SHOWN]
    rows = max(1, -(-len(shown) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), (250, 250, 250))
    for index, file in enumerate(shown):
        try:
            image = read_image(file.path)
        except PhotoError:
            continue
        cell = Image.fromarray(to_uint8(_reduced(image)))
        draw, scale = ImageDraw.Draw(cell), cell.width / image.shape[2]
        for line in found[file.id]:
            if line.get("placement"):
                x, y, along, down = (value * scale for value in line["placement"])
                outline = [(x, y), (x + along, y + down), (x + along - down, y + down + along), (x - down, y + along)]
                draw.line([*outline, outline[0]], fill=(230, 40, 40), width=2)
        sheet.paste(cell, (index % COLUMNS * CELL, index // COLUMNS * CELL))
    sheet.save(path, "PDF", quality=90, creationDate=time.gmtime(0), modDate=time.gmtime(0))


def _reduced(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    scale = (CELL - 8) / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(image[None], size, mode="area")[0]
