"""Damage laid over a folder of good images: every one damaged, skipped as done, or named with its reason.

    degraded.json     what the folder was made with: the resolved recipe, its digest (of a camera's profile the content
                      counts, not the path), and whether RAW files were developed at half size; images made otherwise
                      are not mixed in
    manifest.jsonl    one line per image, with the parameters drawn for it; the last line of an image counts
    ID.png            the images, mirrored like the originals' folders
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from adapt._version import versions
from adapt.digests import file_digest, is_unchanged
from adapt.disk import append_json_line, claim_folder, read_json_lines, shown_name
from adapt.errors import PhotoError, UsageError
from adapt.journal import Journal, journal_names
from adapt.locks import locked
from adapt.photos.files import encode_png, read_photo
from adapt.photos.folder import PhotoFile, find_photos, refuse_overlap
from adapt.settings import DegradeSettings
from adapt.settings.draft import differences
from adapt.settings.recipe import load_recipe, recipe_digest
from degradations import chain
from degradations.pieces.base import derived_seed

CLAIM: Final = "degraded.json"
KIND: Final = "degraded images"
MANIFEST: Final = "manifest.jsonl"
OnImage = Callable[[str, str, int, int], None]


@dataclass(frozen=True, slots=True)
class Degraded:
    """How a folder came out: numbers of images, and a line for each that failed."""

    done: int
    skipped: int
    failed: list[str]


def degrade(
    originals: str | Path,
    out: str | Path,
    *,
    recipe: str | Path,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    half_raw: bool = False,
    overwrite: bool = False,
    on_image: OnImage | None = None,
) -> Degraded:
    """Damage images into PNG files of the same names and sizes; RAW files count as large as they are developed.

    An image's damage follows from the recipe's seed and the image's id, whatever else is in the folder and in
    whatever order, but for a file of the same stem, beside which the id gets its suffix; `degradations.chain.repeat`
    makes it again from the image's line in the manifest. What an earlier run of the same recipe finished is left
    alone. An image that was changed since, or that was not made here, stays too, and its original fails.

    Args:
        originals: a folder of good images, or one file.
        out: where the damaged ones go.
        recipe: name or file of a recipe of damage.
        overrides: `key=value` for the recipe.
        limit: only the first so many images.
        half_raw: develop RAW files at half their size, which is four times as fast and invents no colours.
        overwrite: remove first what was damaged there.
        on_image: called with id, status, images finished, images in all.

    Raises:
        UsageError: no images, or an output folder with other files, of another recipe or camera profile, or with RAW
            files of the other size.
        RecipeError: a recipe with problems.
    """
    originals, out = Path(originals), Path(out)
    settings = load_recipe(recipe, DegradeSettings, overrides)
    refuse_overlap(originals, out)
    files = find_photos(originals, limit)
    with locked(out):
        _claim(out, settings, half_raw, overwrite)
        return _degrade_all(files, out, settings, half_raw=half_raw, overwrite=overwrite, on_image=on_image)


def _degrade_all(
    files: Sequence[PhotoFile],
    out: Path,
    settings: DegradeSettings,
    *,
    half_raw: bool,
    overwrite: bool,
    on_image: OnImage | None,
) -> Degraded:
    """`degrade` in a folder that is claimed and held."""
    lines = _lines(out)
    known = {line["id"]: line for line in lines}
    journal = Journal(out, [(line["file"], line["sha256"]) for line in lines], overwrite=overwrite)
    done = skipped = 0
    failed: list[str] = []
    for file in files:
        try:
            made = _degrade_one(file, known.get(file.id), journal, settings, half_raw)
            if made is not None:
                damaged, line = made
                line["sha256"] = journal.write(line["file"], encode_png(damaged))
        except PhotoError as error:
            failed.append(shown_name(str(error)))
            status = "failed"
        else:
            if made is None:
                skipped += 1
                status = "skipped"
            else:
                append_json_line(out / MANIFEST, made[1])
                done += 1
                status = "done"
        if on_image is not None:
            on_image(file.id, status, done + skipped + len(failed), len(files))
    return Degraded(done, skipped, failed)


def _degrade_one(
    file: PhotoFile, known: dict[str, Any] | None, journal: Journal, settings: DegradeSettings, half_raw: bool
) -> tuple[Tensor, dict[str, Any]] | None:
    """One image damaged, and its line of the manifest but for its digest; None where it is there already."""
    name = f"{file.id}.png"
    try:
        sha256 = file_digest(file.path)
        if _is_done(known, sha256, journal.folder):
            return None
        journal.refuse_others(name)
        image = read_photo(file.path, at_least=1 if half_raw else None).image
    except OSError as error:
        raise PhotoError(f"{file.path}: cannot be read: {error.strerror or error}") from error
    seed = derived_seed(settings.seed, file.id)
    try:
        damaged, drawn = chain.degrade(image, settings.degradations, seed)
    except ValueError as error:
        raise PhotoError(f"{file.path}: {error}") from error
    return damaged, {
        "id": file.id,
        "original": file.path.name,
        "original_sha256": sha256,
        "file": name,
        "size": list(image.shape[1:]),
        "seed": seed,
        "degradations": drawn,
    }


def _claim(
    out: Path, settings: DegradeSettings, half_raw: bool, overwrite: bool
) -> None:
    """Take the folder; it must be new, or ours, of the same recipe and the same size of RAW files."""
    recipe, digest = settings.model_dump(mode="json"), recipe_digest(settings)
    about = {"recipe": recipe, "digest": digest, "half_raw": half_raw, "versions": versions()}
    found = claim_folder(
        out, CLAIM, about, kind=KIND, ours="one of ours", writes=lambda: _written(out), overwrite=overwrite
    )
    if found.get("digest") != digest:
        there = found.get("recipe")
        differs = differences(there, recipe) if isinstance(there, dict) else "it does not say which it was"
        what = differs or "the recipe is the same, a profile that it names is not"
        raise UsageError(
            f"{out}: holds images of another recipe, seed or camera profile ({what}); choose another folder, or"
            " --overwrite"
        )
    if found.get("half_raw") != half_raw:
        begun, ask = ("full", "leave out") if half_raw else ("half", "give")
        raise UsageError(
            f"{out}: was begun with RAW files at {begun} size; {ask} --half-raw, choose another folder, or --overwrite"
        )


def _lines(out: Path) -> list[dict[str, Any]]:
    return read_json_lines(out / MANIFEST, ("id", "file", "sha256", "original_sha256"))


def _written(out: Path) -> list[str]:
    """What was written there beside degraded.json, for `adapt.disk.remove_written`."""
    return [*(line["file"] for line in _lines(out)), MANIFEST, *journal_names(out)]


def _is_done(line: dict[str, Any] | None, sha256: str, out: Path) -> bool:
    """Whether the damaged image is there and still what was written."""
    return line is not None and line["original_sha256"] == sha256 and is_unchanged(out / line["file"], line["sha256"])
