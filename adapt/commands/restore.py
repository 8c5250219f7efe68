"""`adapt restore`: a folder of aligned faces, every photo restored, skipped as done, or named with its reason."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import Tensor

from adapt.build import load_model
from adapt.devices import pick_device, within_memory
from adapt.digests import file_digest, is_unchanged
from adapt.disk import append_json_line, claim_folder, read_json_lines, shown_name
from adapt.errors import PhotoError, UsageError
from adapt.images import to_grey
from adapt.journal import Journal, journal_names
from adapt.locks import locked
from adapt.photos.files import encode_png
from adapt.photos.folder import PhotoFile, find_photos, refuse_overlap
from adapt.photos.pairs import read_fitted

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
    enlarged: dict[str, float]  # how many times longer the side of each became that was smaller than the model's, by id
    failed: list[str]
    failed_ids: list[str] = field(default_factory=list)


def restore(
    model: str | Path,
    photos: str | Path,
    out: str | Path,
    *,
    fidelity: float | None = None,
    size: int | None = None,
    limit: int | None = None,
    batch: int = 8,
    overwrite: bool = False,
    renew: bool = False,
    device: str = "auto",
    on_photo: OnPhoto | None = None,
) -> Restored:
    """Restore a folder of aligned faces; see `restore_folder`.

    Args:
        model: as `adapt.build.load_model`.
        photos, out, limit, batch, overwrite, renew, on_photo: as there.
        fidelity: from 0, what faces look like, to 1, what the photo shows; the network's own where None. Only for
            networks that take one.
        size: side of the faces in pixels, for a network that takes any; where None what it was made for, or 512 where
            its file does not say.
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
    return restore_folder(
        loaded,
        Path(photos),
        Path(out),
        digest=loaded.digest,
        fidelity=chosen_fidelity,
        limit=limit,
        batch=batch,
        overwrite=overwrite,
        renew=renew,
        device=chosen,
        on_photo=on_photo,
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
    limit: int | None = None,
    ids: Collection[str] | None = None,
    batch: int = 8,
    overwrite: bool = False,
    renew: bool = False,
    device: torch.device | str = "cpu",
    on_photo: OnPhoto | None = None,
) -> Restored:
    """Restore aligned faces to PNG files of the same names.

    Photos of another size than the model's are resized to it, and counted. Grey photos stay grey. What an earlier
    run of the same model finished is left alone; `log.jsonl` in the folder says what was made of what. An image that
    was changed since, or that was not made here, stays too, and its photo fails.

    Args:
        model: a restorer or an exported bundle.
        photos: a folder of aligned faces, or one file.
        out: where the images go.
        digest: stands for the model: images of another one are not mixed in.
        fidelity: what the model restores at, as its `chosen_fidelity` tells; images of another are not mixed in, nor
            such of another size than the model's.
        limit: only the first so many photos.
        ids: only these of them.
        batch: photos at a time.
        overwrite: remove first what was restored there.
        renew: where it was restored by another model, or at another fidelity or size, remove it first, all but what was
            changed since.
        device: where the model is.
        on_photo: called with id, status, photos finished, photos in all.

    Raises:
        UsageError: no photos, or an output folder with other files, of another model, size or fidelity.
    """
    refuse_overlap(photos, out)
    files = [file for file in find_photos(photos, limit) if ids is None or file.id in ids]
    with locked(out):
        _open(out, digest, model.size, fidelity, overwrite=overwrite, renew=renew)
        return _restore_all(
            model, files, out, fidelity=fidelity, at_once=batch, overwrite=overwrite, device=device, on_photo=on_photo
        )


def _restore_all(
    model: Model,
    files: list[PhotoFile],
    out: Path,
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
    counts = {"done": 0, "skipped": 0, "resized": 0}
    failed: list[str] = []
    enlarged: dict[str, float] = {}
    failed_ids: list[str] = []
    waiting: list[tuple[str, dict[str, Any], Tensor, bool]] = []

    def report(id: str, status: str, reason: str = "") -> None:
        if status == "failed":
            failed.append(shown_name(reason))
            failed_ids.append(id)
        if on_photo is not None:
            on_photo(id, status, counts["done"] + counts["skipped"] + len(failed), len(files))

    def flush() -> None:
        if not waiting:
            return
        batch = torch.stack([image for _, _, image, _ in waiting]).to(device)
        results = within_memory(lambda part: model(part, fidelity), batch).cpu()
        for (id, line, _, grey), image in zip(waiting, results, strict=True):
            if not bool(image.isfinite().all()):
                report(id, "failed", f"{id}: the restorer gave values that are not finite")
                continue
            shown = to_grey(image) if grey else image
            try:
                written_sha256 = journal.write(line["file"], encode_png(shown))
            except PhotoError as error:  # of its name
                report(id, "failed", str(error))
                continue
            append_json_line(log, {**line, "restored_sha256": written_sha256})
            counts["done"] += 1
            report(id, "done")
        waiting.clear()

    for file in files:
        try:
            sha256 = file_digest(file.path)
            name = f"{file.id}.png"
            if _is_done(known.get(file.id), sha256, out / name):
                counts["skipped"] += 1
                report(file.id, "skipped")
                continue
            journal.refuse_others(name)
            photo = read_fitted(file.path, model.size)
        except PhotoError as error:
            report(file.id, "failed", str(error))
            continue
        except OSError as error:
            report(file.id, "failed", f"{file.path}: cannot be read: {error.strerror or error}")
            continue
        counts["resized"] += photo.resized
        if photo.enlarged is not None:
            enlarged[file.id] = photo.enlarged
        waiting.append((file.id, {"id": file.id, "photo_sha256": sha256, "file": name}, photo.image, photo.grey))
        if len(waiting) == at_once:
            flush()
    flush()
    return Restored(counts["done"], counts["skipped"], counts["resized"], enlarged, failed, failed_ids)


def written(folder: Path) -> list[str]:
    """What `restore_folder` has put into a folder beside restored.json, for `adapt.disk.remove_written`."""
    return [*(name for name, _ in _told(folder)), LOG, *journal_names(folder)]


def _lines(folder: Path) -> list[dict[str, Any]]:
    return read_json_lines(folder / LOG, ("id", "file", "photo_sha256", "restored_sha256"))


def _told(folder: Path) -> list[tuple[str, str | None]]:
    """The images that the log tells of."""
    return [(line["file"], line["restored_sha256"]) for line in _lines(folder)]


def _open(
    out: Path, digest: str, size: int, fidelity: float | None, *, overwrite: bool, renew: bool
) -> None:
    """Take the folder; it must be new, or ours and of the same model, size and fidelity, or is renewed."""
    about = {"model": digest, "size": size, **({} if fidelity is None else {"fidelity": fidelity})}
    found = claim_folder(
        out, CLAIM, about, kind=KIND, ours="one of ours", writes=lambda: written(out), overwrite=overwrite
    )
    there = found.get("size", size)  # folders of a bundle's runner may not name it
    if renew and (found.get("model"), there, found.get("fidelity")) != (digest, size, fidelity):
        unchanged = Journal(out, _told(out)).unchanged()
        claim_folder(
            out, CLAIM, about, kind=KIND, ours="one of ours", writes=lambda: [*unchanged, LOG], overwrite=True
        )
        return
    if found.get("model") != digest:
        raise UsageError(f"{out}: holds images of another model; choose another folder, or --overwrite")
    if there != size:
        raise UsageError(f"{out}: holds images of {there} px, not {size}; choose another folder, or --overwrite")
    if found.get("fidelity") != fidelity:
        raise UsageError(
            f"{out}: holds images of fidelity {found.get('fidelity')}, not {fidelity}; choose another folder, or"
            " --overwrite"
        )


def _is_done(line: dict[str, Any] | None, sha256: str, path: Path) -> bool:
    """Whether the photo's image is there and still what was written."""
    return line is not None and line["photo_sha256"] == sha256 and is_unchanged(path, line["restored_sha256"])
