"""`adapt restore`: a folder of photos, every one restored, skipped as done, or named with its reason."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import Tensor

from adapt.commands.frames import FOUND, follow_faces, in_order
from adapt.commands.photographs import FINDING, FaceMode, Finding, Prepared, Preparer, refuse_failed
from adapt.devices import pick_device, within_memory
from adapt.digests import file_digest, is_unchanged
from adapt.disk import append_json_line, claim_folder, read_json_lines, shown_name
from adapt.errors import PhotoError, UsageError
from adapt.journal import Journal, journal_names
from adapt.loading import load_model
from adapt.locks import locked
from adapt.photos.folder import PhotoFile, find_photos, refuse_overlap
from adapt.photos.photograph import CONVERTED

if TYPE_CHECKING:
    from adapt.restorers.base import Restorer

CLAIM: Final = "restored.json"
KIND: Final = "restored photos"
LOG: Final = "log.jsonl"
OnPhoto = Callable[[str, str, int, int], None]


class Model(Protocol):
    """What restores: (B, 3, H, W) in [0, 1] to the same, at a fidelity in [0, 1] where it takes one."""

    @property
    def size(self) -> int:
        """Side of the faces it was made for."""
        ...

    def __call__(self, photo: Tensor, fidelity: float | None = None) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Restored:
    """How a folder came out: numbers of photos, and a line for each that failed, with its id in the same order."""

    done: int
    skipped: int
    resized: int
    enlarged: dict[str, float]  # how many times longer the smallest face's side became, of those that did, by id
    failed: list[str]
    failed_ids: list[str] = field(default_factory=list)
    faces: dict[str, int] = field(default_factory=dict)  # how many were found in each whole photograph, by id
    reduced: dict[str, float] = field(default_factory=dict)  # by how much the largest face of each was, by id
    converted: list[str] = field(default_factory=list)  # whole photographs that became sRGB


def restore(
    model: str | Path,
    photos: str | Path,
    out: str | Path,
    *,
    fidelity: float | None = None,
    size: int | None = None,
    faces: FaceMode = "aligned",
    finding: Finding | None = None,
    strength: float = 1.0,
    limit: int | None = None,
    batch: int = 8,
    overwrite: bool = False,
    renew: bool = False,
    device: str = "auto",
    on_photo: OnPhoto | None = None,
    on_frame: Callable[[int, int], object] | None = None,
) -> Restored:
    """Restore a folder of photos; see `restore_folder`.

    Args:
        model: as `adapt.loading.load_model`.
        photos, out, limit, batch, overwrite, renew, on_photo, on_frame: as there.
        fidelity: from 0, what faces look like, to 1, what the photo shows; the network's own where None. Only for
            networks that take one.
        size: side of the faces in pixels, for a network that takes any; where None what it was made for, or 512 where
            its file does not say.
        faces: whether photos are whole, or aligned faces, or each as it looks.
        finding: how faces are found in whole ones; its defaults where None.
        strength: how much of the change is made: 0 leaves the photo, 1 takes what was restored.
        device: auto, cpu, cuda, cuda:1, ...; for a bundle auto is CUDA where onnxruntime has it.

    Raises:
        UsageError: what cannot be used, or a size that the model does not work at.
    """
    from adapt.restorers.base import Restorer

    chosen = pick_device(device)
    loaded = load_model(model, None if device == "auto" else chosen)
    chosen_fidelity = loaded.chosen_fidelity(fidelity)
    if isinstance(loaded, Restorer):
        loaded = (loaded if size is None else _at(loaded, size)).to(chosen)
    elif size not in (None, loaded.size):
        raise UsageError(
            f"--size {size}: {model} is a bundle, which works at the size it was exported for, {loaded.size} px; leave"
            " this out, or name the weights it was exported from"
        )
    preparer = (finding or Finding()).preparer(loaded.size, faces, chosen, strength=strength)
    return restore_folder(
        loaded,
        Path(photos),
        Path(out),
        digest=loaded.digest,
        fidelity=chosen_fidelity,
        preparer=preparer,
        limit=limit,
        batch=batch,
        overwrite=overwrite,
        renew=renew,
        device=chosen,
        on_photo=on_photo,
        on_frame=on_frame,
    )


def _at(restorer: Restorer, size: int) -> Restorer:
    """The restorer at the size that a user asks for; raises UsageError where it does not work at that."""
    if size < 1:
        raise UsageError(f"--size {size}: expected a number of pixels, 1 or more")
    if restorer.one_size and size != restorer.size:
        raise UsageError(f"--size {size}: {restorer.name} takes faces of {restorer.size} px only; leave this out")
    try:
        return restorer.at(size, "--size")
    except UsageError as error:
        raise UsageError(f"--size {size}: {error}") from error


def restore_folder(
    model: Model,
    photos: Path,
    out: Path,
    *,
    digest: str,
    fidelity: float | None = None,
    preparer: Preparer | None = None,
    limit: int | None = None,
    ids: Collection[str] | None = None,
    batch: int = 8,
    overwrite: bool = False,
    renew: bool = False,
    device: torch.device | str = "cpu",
    on_photo: OnPhoto | None = None,
    on_frame: Callable[[int, int], object] | None = None,
) -> Restored:
    """Restore photos to PNG files of the same names: aligned faces, or whole photographs, face by face.

    Aligned faces of another size than the model's are resized to it, and counted. Whole photographs keep their size,
    bits, profile and EXIF data. Grey photos stay grey. What an earlier run of the same model finished is left alone;
    `log.jsonl` in the folder says what was made of what. An image that was changed since, or that was not made here,
    stays too, and its photo fails.

    Args:
        model: a restorer or an exported bundle.
        photos: a folder of photos, or one file.
        out: where the images go.
        digest: stands for the model: images of another one are not mixed in.
        fidelity: what the model restores at, as its `chosen_fidelity` tells; images of another are not mixed in, nor
            such of another size than the model's.
        preparer: what is restored of a photo; where None, photos are aligned faces.
        limit: only the first so many photos.
        ids: only these of them.
        batch: faces at a time.
        overwrite: remove first what was restored there.
        renew: where it was restored by another model, or at another fidelity or size, remove it first, all but what was
            changed since.
        device: where the model is.
        on_photo: called with id, status, photos finished, photos in all.
        on_frame: told, where photos are frames, of those whose faces have been looked for, and of all.

    Raises:
        UsageError: no photos, or an output folder with other files, of another model, size or fidelity.
    """
    refuse_overlap(photos, out)
    files = [file for file in find_photos(photos, limit) if ids is None or file.id in ids]
    preparer = preparer or Preparer(size=model.size)
    about = {"model": digest, "size": model.size, **({} if fidelity is None else {"fidelity": fidelity})}
    with locked(out):
        _open(out, about | preparer.settings(), overwrite=overwrite, renew=renew)
        if preparer.frames:
            files = in_order(files)
            preparer = follow_faces(preparer, files, out, on_frame)
        return _restore_all(
            model, files, out, preparer, fidelity=fidelity, at_once=batch, overwrite=overwrite, device=device,
            on_photo=on_photo,
        )  # fmt: skip


def _restore_all(
    model: Model,
    files: list[PhotoFile],
    out: Path,
    preparer: Preparer,
    *,
    fidelity: float | None,
    at_once: int,
    overwrite: bool,
    device: torch.device | str,
    on_photo: OnPhoto | None,
) -> Restored:
    """`restore_folder` in a folder that is claimed and held."""
    log, known = out / LOG, {line["id"]: line for line in _lines(out)}
    journal = Journal(out, _told(out), overwrite=overwrite)
    result = Restored(0, 0, 0, {}, [])
    counts = {"done": 0, "skipped": 0, "resized": 0}
    waiting: list[tuple[dict[str, Any], Prepared]] = []

    def report(id: str, status: str, reason: str = "") -> None:
        if status == "failed":
            result.failed.append(shown_name(reason))
            result.failed_ids.append(id)
        else:
            counts[status] += 1
        if on_photo is not None:
            on_photo(id, status, counts["done"] + counts["skipped"] + len(result.failed), len(files))

    def flush() -> None:
        """Restore the faces that are waiting, of all their photos together, and write the photos."""
        crops = [crop for _, photo in waiting for crop in photo.crops]
        restored: list[Tensor] = []
        for first in range(0, len(crops), at_once):
            batch = torch.stack(crops[first : first + at_once]).to(device)
            restored += within_memory(lambda part: model(part, fidelity), batch).cpu()
        for line, photo in waiting:
            own, restored = restored[: len(photo.crops)], restored[len(photo.crops) :]
            try:
                refuse_failed(line["id"], own)
                data, notes = photo.finish(own)
                sha256 = journal.write(line["file"], data)
            except PhotoError as error:  # of its name too
                report(line["id"], "failed", str(error))
                continue
            told = {"notes": list(notes)} if notes else {}
            append_json_line(log, {**line, **photo.line, **told, "restored_sha256": sha256})
            _note(result, line["id"], photo)
            result.converted.extend([line["id"]] * (CONVERTED in notes))
            report(line["id"], "done")
        waiting.clear()

    for file in files:
        try:
            sha256 = file_digest(file.path)
            name = f"{file.id}.png"
            if _is_done(known.get(file.id), sha256, out / name):
                report(file.id, "skipped")
                continue
            journal.refuse_others(name)
            photo = preparer(file.id, file.path)
        except PhotoError as error:
            report(file.id, "failed", str(error))
            continue
        except OSError as error:
            report(file.id, "failed", f"{file.path}: cannot be read: {error.strerror or error}")
            continue
        counts["resized"] += photo.resized
        alone = "faces" in photo.line  # a whole one is large, and its faces are a batch of their own
        if alone:
            flush()
        waiting.append(({"id": file.id, "photo_sha256": sha256, "file": name}, photo))
        if alone or len(waiting) == at_once:
            flush()
    flush()
    return replace(result, **counts)


def _note(result: Restored, id: str, photo: Prepared) -> None:
    if "faces" in photo.line:
        result.faces[id] = len(photo.crops)
    if photo.enlarged is not None:
        result.enlarged[id] = photo.enlarged
    if photo.reduced is not None:
        result.reduced[id] = photo.reduced


def written(folder: Path) -> list[str]:
    """What `restore_folder` has put into a folder beside restored.json, for `adapt.disk.remove_written`."""
    return [*(name for name, _ in _told(folder)), LOG, FOUND, *journal_names(folder)]


def _lines(folder: Path) -> list[dict[str, Any]]:
    return read_json_lines(folder / LOG, ("id", "file", "photo_sha256", "restored_sha256"))


def _told(folder: Path) -> list[tuple[str, str | None]]:
    """The images that the log tells of."""
    return [(line["file"], line["restored_sha256"]) for line in _lines(folder)]


WORDS: Final = {  # what `restored.json` says of the images, for messages
    "size": "{} px", "fidelity": "fidelity {}", "strength": "strength {}", "faces": "faces {}",
}  # fmt: skip
UNSAID: Final = ("size", "faces", *FINDING)  # by folders of a bundle's runner, which knows aligned faces alone


def _open(out: Path, about: dict[str, Any], *, overwrite: bool, renew: bool) -> None:
    """Take the folder; it must be new, or ours and of the same model and settings, or is renewed."""
    found = claim_folder(
        out, CLAIM, about, kind=KIND, ours="one of ours", writes=lambda: written(out), overwrite=overwrite
    )
    keys = ("model", *WORDS, *FINDING)
    by_runner = "faces" not in found
    unsaid = {key for key in UNSAID if by_runner and key not in found}
    other = [key for key in keys if found.get(key) != about.get(key) and key not in unsaid]
    if not other:
        return
    if renew:
        unchanged = Journal(out, _told(out)).unchanged()
        claim_folder(
            out, CLAIM, about, kind=KIND, ours="one of ours", writes=lambda: [*unchanged, LOG, FOUND], overwrite=True
        )
        return
    mend = "choose another folder, or --overwrite"
    if other[0] == "model":
        raise UsageError(f"{out}: holds images of another model; {mend}")
    if other[0] in WORDS:
        full = 1.0 if other[0] == "strength" else None  # left out
        there, asked = found.get(other[0], full), about.get(other[0], full)
        raise UsageError(f"{out}: holds images of {WORDS[other[0]].format(there)}, not {asked}; {mend}")
    raise UsageError(f"{out}: holds photos whose faces were found otherwise; {mend}")


def _is_done(line: dict[str, Any] | None, sha256: str, path: Path) -> bool:
    """Whether the photo's image is there and still what was written."""
    return line is not None and line["photo_sha256"] == sha256 and is_unchanged(path, line["restored_sha256"])
