"""The folder of a result: what `adapt run` writes there, by what it is known, and what may be removed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from adapt._version import versions
from adapt.commands import restore
from adapt.disk import claim_folder, files_of, write_json
from adapt.errors import UsageError
from adapt.exporting.bundle import FILES as BUNDLE_FILES
from adapt.targets import store
from adapt.training import run

CLAIM: Final = "adapted.json"
RESTORED: Final = ("photos", "base", "restored", "truth")
PAGE: Final = ("model.onnx", "sheet.jpg", "report.html", "evaluation.json")


def written(out: Path) -> list[str]:
    """What a run has put into a folder beside adapted.json, for `adapt.disk.remove_written`."""
    parts = {
        **{name: (*restore.written(out / name), restore.CLAIM) for name in RESTORED},
        "targets": (*store.WRITES, store.CLAIM),
        "finetune": (*run.WRITES, run.CLAIM),
        "bundle": BUNDLE_FILES,
    }
    ours = {name: patterns for name, patterns in parts.items() if (out / name / patterns[-1]).is_file()}
    return [*PAGE, *(f"{name}/{pattern}" for name, patterns in ours.items() for pattern in patterns)]


def claim_result(out: Path, overwrite: bool) -> None:
    """Take the folder: a new one, or one of an earlier run, emptied of what that wrote if `overwrite`.

    Raises:
        UsageError: it holds other files.
    """
    about = {"versions": versions()}
    known = {*PAGE, *RESTORED, "targets", "finetune", "bundle"}
    if (out / "targets" / store.CLAIM).is_file() and {each.name for each in out.iterdir()} <= known:
        write_json(out / CLAIM, about)  # of a run from before this file
    claim_folder(out, CLAIM, about, ours="a result of adapt run", writes=written(out), overwrite=overwrite)


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
    ours = files_of(out, written(out))
    begun = {path.relative_to(out).parts[0] for path in ours} - {*PAGE}
    left = {path for name in begun for path in (out / name).rglob("*") if path.is_file()} - {*ours}
    if others := sorted(path for path in left if not path.name.startswith(".")):
        raise UsageError(
            f"{out}: --overwrite removes only what a run made, and its folders hold other files ({len(others)}), first:"
            f" {others[0]}; move them elsewhere"
        )
