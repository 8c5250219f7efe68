"""`adapt restore`: a folder of aligned faces, every photo restored, skipped as done, or named with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import Tensor

from adapt.build import load_model
from adapt.devices import pick_device
from adapt.digests import file_digest, is_unchanged
from adapt.disk import append_json_line, claim_folder, listed_files, read_json_lines
from adapt.errors import PhotoError, UsageError
from adapt.photos.files import write_image
from adapt.photos.folder import find_photos, refuse_overlap
from adapt.photos.pairs import read_fitted

if TYPE_CHECKING:
    from adapt.restorers.base import Restorer

CLAIM: Final = "restored.json"
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
    device: str = "auto",
    on_photo: OnPhoto | None = None,
) -> Restored:
    """Restore a folder of aligned faces; see `restore_folder`.

    Args:
        model: as `adapt.build.load_model`.
        photos, out, limit, batch, overwrite, on_photo: as there.
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
    batch: int = 8,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    on_photo: OnPhoto | None = None,
) -> Restored:
    """Restore aligned faces to PNG files of the same names.

    Photos of another size than the model's are resized to it, and counted. Grey photos stay grey. What an earlier
    run of the same model finished is left alone; `log.jsonl` in the folder says what was made of what.

    Args:
        model: a restorer or an exported bundle.
        photos: a folder of aligned faces, or one file.
        out: where the images go.
        digest: stands for the model: images of another one are not mixed in.
        fidelity: what the model restores at, as its `chosen_fidelity` tells; images of another are not mixed in, nor
            such of another size than the model's.
        limit: only the first so many photos.
        batch: photos at a time.
        overwrite: remove first what was restored there.
        device: where the model is.
        on_photo: called with id, status, photos finished, photos in all.

    Raises:
        UsageError: no photos, or an output folder with other files, of another model, size or fidelity.
    """
    refuse_overlap(photos, out)
    files = find_photos(photos, limit)
    writes = written(out, [f"{file.id}.png" for file in files])
    log = _open(out, digest, model.size, fidelity, writes, overwrite)
    known = {line["id"]: line for line in read_json_lines(log)}
    counts = {"done": 0, "skipped": 0, "resized": 0}
    failed: list[str] = []
    enlarged: dict[str, float] = {}
    failed_ids: list[str] = []
    waiting: list[tuple[str, dict[str, Any], Tensor, bool]] = []

    def report(id: str, status: str) -> None:
        if status == "failed":
            failed_ids.append(id)
        if on_photo is not None:
            on_photo(id, status, counts["done"] + counts["skipped"] + len(failed), len(files))

    def flush() -> None:
        if not waiting:
            return
        results = model(torch.stack([image for _, _, image, _ in waiting]).to(device), fidelity).cpu()
        for (id, line, _, grey), image in zip(waiting, results, strict=True):
            path = out / line["file"]
            shown = image.mean(dim=0, keepdim=True).expand(3, -1, -1) if grey else image
            write_image(path, shown, overwrite=True)
            append_json_line(log, {**line, "restored_sha256": file_digest(path)})
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
            photo = read_fitted(file.path, model.size)
        except PhotoError as error:
            failed.append(str(error))
            report(file.id, "failed")
            continue
        except OSError as error:
            failed.append(f"{file.path}: cannot be read: {error.strerror or error}")
            report(file.id, "failed")
            continue
        counts["resized"] += photo.resized
        if photo.enlarged is not None:
            enlarged[file.id] = photo.enlarged
        waiting.append((file.id, {"id": file.id, "photo_sha256": sha256, "file": name}, photo.image, photo.grey))
        if len(waiting) == batch:
            flush()
    flush()
    return Restored(counts["done"], counts["skipped"], counts["resized"], enlarged, failed, failed_ids)


def written(folder: Path, more: Iterable[str] = ()) -> list[str]:
    """What `restore_folder` has put into a folder beside restored.json, for `adapt.disk.remove_written`.

    Args:
        folder: of restored images.
        more: names of images that may be there without a line: a run was stopped before it, or a bundle's runner,
            which keeps no log, made them.
    """
    log = folder / "log.jsonl"
    return [*listed_files(read_json_lines(log), more), log.name]


def _open(
    out: Path, digest: str, size: int, fidelity: float | None, writes: Sequence[str], overwrite: bool
) -> Path:
    """The folder's log; the folder must be new, or ours and of the same model, size and fidelity."""
    about = {"model": digest, "size": size, **({} if fidelity is None else {"fidelity": fidelity})}
    found = claim_folder(out, CLAIM, about, ours="one of ours", writes=writes, overwrite=overwrite)
    if found["model"] != digest:
        raise UsageError(f"{out}: holds images of another model; choose another folder, or --overwrite")
    if (known := found.get("size", size)) != size:  # folders of a bundle's runner, and earlier ones, do not name it
        raise UsageError(f"{out}: holds images of {known} px, not {size}; choose another folder, or --overwrite")
    if found.get("fidelity") != fidelity:
        raise UsageError(
            f"{out}: holds images of fidelity {found.get('fidelity')}, not {fidelity}; choose another folder, or"
            " --overwrite"
        )
    return out / "log.jsonl"


def _is_done(line: dict[str, Any] | None, sha256: str, path: Path) -> bool:
    """Whether the photo's image is there and still what was written."""
    return line is not None and line["photo_sha256"] == sha256 and is_unchanged(path, line["restored_sha256"])
