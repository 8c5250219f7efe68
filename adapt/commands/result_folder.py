"""The folder of a result: what `adapt run` writes there, by what it is known, and what may be removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from adapt._version import versions
from adapt.commands import align, restore
from adapt.disk import claim_folder, files_of, is_marked
from adapt.errors import UsageError
from adapt.exporting import bundle
from adapt.journal import Journal, KeptError, journal_names
from adapt.settings.paths import BUNDLE, EXPORTED
from adapt.targets import store
from adapt.training import run

CLAIM: Final = "adapted.json"
KIND: Final = "result of adapt run"
RESTORED: Final = ("photos", "base", "adapted", "restored", "restored-faces", "truth")
PAGE: Final = ("model.onnx", "exported.safetensors", "sheet.jpg", "report.html", "evaluation.json", "verdict.json")


def written(out: Path) -> list[str]:
    """What a run has put into a folder beside adapted.json, for `adapt.disk.remove_written`."""
    parts = {
        **dict.fromkeys(RESTORED, (restore.CLAIM, restore.KIND, restore.written)),
        "targets": (store.CLAIM, store.KIND, store.written),
        "finetune": (run.CLAIM, run.KIND, run.written),
        "faces": (align.CLAIM, align.KIND, align.written),
        EXPORTED: (BUNDLE, bundle.KIND, lambda _: bundle.FILES),
    }
    names: list[str] = []
    for part, (claim, kind, written_in) in parts.items():
        folder = out / part
        if not folder.is_symlink() and is_marked(folder / claim, kind):
            names += [f"{part}/{name}" for name in (*written_in(folder), claim)]
    return [*names, *journal_names(out)]


def claim_result(out: Path, overwrite: bool) -> None:
    """Take the folder: a new one, or one of an earlier run, emptied of what that wrote if `overwrite`.

    Raises:
        UsageError: it holds other files.
    """
    claim_folder(
        out, CLAIM, {"versions": versions()}, kind=KIND, ours="a result of adapt run",
        writes=lambda: written(out), overwrite=overwrite,
    )  # fmt: skip


def refuse_removal(out: Path, inputs: Mapping[str, str | Path | None]) -> None:
    """Raise UsageError where a run would start from a file that --overwrite is about to remove, or could not go on
    for one that it must not remove.

    Args:
        out: the folder of the result.
        inputs: what the run starts from, by option; names that are no file are passed over.
    """
    for option, given in inputs.items():
        if given is not None and Path(given).exists() and out.resolve() in (path := Path(given).resolve()).parents:
            raise UsageError(
                f"--{option} {given}: lies in {out}, from where --overwrite removes it ({path}); choose another output"
                " folder"
            )
    if not is_marked(out / CLAIM, KIND):  # nothing is removed there
        return
    ours = files_of(out, written(out))
    begun = {path.relative_to(out).parts[0] for path in ours} - {*PAGE}
    left = {path for name in begun for path in (out / name).rglob("*") if path.is_file()} - {*ours}
    if others := sorted(path for path in left if not path.name.startswith(".")):
        raise UsageError(
            f"{out}: --overwrite removes only what a run made, and its folders hold other files ({len(others)}), first:"
            f" {others[0]}; move them elsewhere"
        )


class Pages:
    """Writes the result's own files, but for those that somebody changed: these stay, and are named."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.kept: list[str] = []

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` make or replace a file of the result's folder."""
        try:
            with self.journal.replacing(name) as path:
                write(path)
        except KeptError as error:
            self.kept.append(str(error))

    def remove(self, name: str) -> None:
        """Remove a file of the result's folder, where an earlier run left one that nobody changed."""
        try:
            self.journal.remove(name)
        except KeptError as error:
            self.kept.append(str(error))
