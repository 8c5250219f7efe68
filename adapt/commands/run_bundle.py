"""The bundle of a run: what the verdict took, exported and checked, unless it is there already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from adapt.commands.export import export
from adapt.commands.result_folder import Pages
from adapt.commands.run_verdict import ExportChoice
from adapt.disk import link_or_copy, read_json, shown_name
from adapt.errors import VerificationError
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.tables import markdown_table
from adapt.exporting.bundle import changed_files, lost_files
from adapt.finetuning.outcome import Outcome
from adapt.loading import weights_digest
from adapt.photos.files import read_image
from adapt.settings.paths import BEST, BUNDLE, EXPORTED, ONNX
from adapt.training.run import distance_of
from adapt.verdict.wording import sentences

CHECKED_PHOTOS: Final = 4


def export_choice(
    out: Path,
    pages: Pages,
    base: str,
    chosen: ExportChoice,
    outcome: Outcome,
    evaluations: dict[str, Evaluation],
    *,
    ids: Sequence[str],
    whole: str | Path | None = None,
) -> Path:
    """The bundle of the chosen weights, and its model.onnx beside it; one that is there, of these weights and of this
    fidelity, is kept, and so is one with a file that somebody changed.

    Args:
        out: of `adapt.commands.run.run`.
        pages: writes the run's own files.
        base: what the chosen weights started from.
        chosen: what the verdict took.
        outcome: of the fine-tuning.
        evaluations: what was measured, for the card.
        ids: the photos that could be read; on some the bundle is checked, as the networks saw them.
        whole: the pack whose networks find faces, for a bundle that takes whole photographs too.

    Returns:
        Where model.onnx is.

    Raises:
        VerificationError: the file does not compute what the network does. An earlier bundle stays as it was.
    """
    best, fidelity = weights_digest(chosen.model), chosen.fidelity
    bundle, model = out / EXPORTED, out / ONNX
    about = bundle / BUNDLE
    there = read_json(about, "move the folder elsewhere, and it is made anew") if about.exists() else None
    same = there is not None and _exported(there) == (best, fidelity, whole is not None)
    same = same and not lost_files(bundle, there or {})
    if there is not None and not same and (changed := changed_files(bundle, there)):
        pages.kept.append(
            f"{shown_name(bundle / changed[0])}: was changed after it was made; the bundle is kept, and is still that"
            " of earlier weights; move it elsewhere to have it made, or start anew with --overwrite"
        )
    elif not same:
        try:
            _export_bundle(out, bundle, base, chosen, outcome, evaluations, ids=ids, best=best, whole=whole)
        except VerificationError as error:
            kept = f"; {model} is still that of earlier weights" if model.exists() else ""
            raise VerificationError(
                f"{error}{kept}; the adapted weights are in {out / 'finetune' / BEST}"
            ) from error
    if (bundle / ONNX).is_file():  # of a bundle that is kept it may be what somebody moved away
        pages.put(model.name, lambda path: link_or_copy(bundle / ONNX, path))
    return model


def _exported(about: dict[str, Any]) -> tuple[str | None, float | None, bool]:
    """Weights and fidelity of a bundle, and whether it takes whole photographs, as its bundle.json tells them."""
    source, fidelity = about.get("source"), about.get("fidelity")
    weights = source.get("weights sha256") if isinstance(source, dict) else None
    return weights, fidelity.get("default") if isinstance(fidelity, dict) else None, bool(about.get("whole"))


def _export_bundle(
    out: Path,
    bundle: Path,
    base: str,
    chosen: ExportChoice,
    outcome: Outcome,
    evaluations: dict[str, Evaluation],
    *,
    ids: Sequence[str],
    best: str,
    whole: str | Path | None,
) -> None:
    """Export the chosen weights, checked on some of the photos as the networks saw them."""
    source = {
        "started from": base,
        "weights sha256": best,
        "perceptual distance of the training": distance_of(out / "finetune"),
        "photos": outcome.trained + outcome.validation,
        "outcome": " ".join(filter(None, (sentences(chosen.verdict), outcome.warning))),
    }
    export(
        chosen.model,
        bundle,
        fidelity=chosen.fidelity,
        source=source,
        evaluation=markdown_table(evaluations),
        photos=[read_image(out / "photos" / f"{id}.png") for id in ids[:CHECKED_PHOTOS]],
        whole=whole,
        overwrite=True,
    )
