"""`adapt run`: targets, fine-tuning, verdict, restored photos, table, model, page. Each step resumes by itself.

    OUT/targets/     the target store              OUT/photos/    the photos as the networks saw them
    OUT/finetune/    the run, with best weights    OUT/base/      restored by the model it started from
    OUT/verdict.json what is exported, and why     OUT/restored/  restored by the exported model
    OUT/bundle/      the exported model            OUT/adapted/   by the adapted one, where that is another
    OUT/model.onnx   the same file, easy to find   OUT/sheet.jpg, OUT/report.html, OUT/evaluation.json
    OUT/truth/       the originals at that size    OUT/adapted.json    by it the folder is known as ours
    OUT/faces/       the faces of whole photographs, which all of this is about then; OUT/restored/ has the photographs
                     and OUT/restored-faces/ their faces
    OUT/exported.safetensors    its weights, where no other file holds them as they are
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from adapt.commands.align import LOG, Aligned, faces_of, refuse_boxes_in
from adapt.commands.finetune import finetune, sample_writer
from adapt.commands.finetune_setup import default_recipe, set_up_finetune
from adapt.commands.generate_targets import generate_targets
from adapt.commands.photographs import FaceMode, Finding, converted_note
from adapt.commands.progress import ProgressLine, Silent, describe
from adapt.commands.restore import Restored, restore, restore_folder
from adapt.commands.result_folder import Pages, claim_result, refuse_removal
from adapt.commands.run_bundle import export_choice
from adapt.commands.run_report import Identity, evaluate_run, show_run, verdict_of
from adapt.commands.run_verdict import choose
from adapt.devices import pick_device
from adapt.digests import file_digest
from adapt.disk import optional_path, write_json
from adapt.errors import PhotoError, UsageError
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.tables import text_table
from adapt.faces.entries import DETECTOR
from adapt.journal import Journal
from adapt.loading import load_distance
from adapt.locks import locked
from adapt.packs.pack import load_pack
from adapt.photos.files import size_of
from adapt.photos.folder import PhotoFile, find_photos, photos_of, refuse_overlap
from adapt.settings import TargetSettings, VerdictSettings
from adapt.settings.paths import FACES
from adapt.settings.recipe import load_recipe
from adapt.targets.generate import Summary


@dataclass(frozen=True, slots=True)
class Result:
    """What a run ended with.

    Attributes:
        table, verdict: what was measured, and the outcome in a sentence.
        warning: what speaks against trusting it; empty where nothing does.
        page, model: where they are.
        resized: how many photos were brought to the networks' size first.
        enlarged: how many times longer the side of each became that was smaller, by id.
        notes: what else is to be told, as `adapt.finetuning.outcome.Outcome.notes`.
        problems: what went wrong on the way.
        evaluations: rows of the table.
        faces: how many were found in each whole photograph, by id.
    """

    table: str
    verdict: str
    warning: str
    page: Path
    model: Path
    resized: int
    enlarged: dict[str, float]
    problems: list[str]
    evaluations: dict[str, Evaluation]
    notes: tuple[str, ...] = ()
    faces: dict[str, int] = field(default_factory=dict[str, int])


def run(
    photos: str | Path,
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    pack: str | Path = "tiny",
    method: str | Path = "adaptive",
    restorer: str | Path | None = None,
    truth: str | Path | None = None,
    real: str | Path | None = None,
    replay: str | Path | None = None,
    fidelity: float | None = None,
    verdict: str | Path = "default",
    overrides: Sequence[str] = (),
    faces: FaceMode = "auto",
    finding: Finding | None = None,
    limit: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[str], ProgressLine] = Silent,
    title: str = "Adapted face restoration",
    notes: Sequence[str] = (),
) -> Result:
    """The whole way from photos to a model and a page. Run again, it goes on where it stopped.

    Args:
        photos: folder of photos.
        out: everything ends here.
        recipe, method: finetune and targets recipes, by name or file. The former where None: that of the pack's own
            restorer, or swinir where a restorer is named.
        pack: as `adapt.commands.generate_targets.generate_targets`.
        restorer: what everything starts from: it guides the targets, and is fine-tuned unless the finetune recipe
            names a student, at the size of the pack's faces. Where None, the pack's own, or its CodeFormer where the
            finetune recipe's objective is codes.
        truth: clean originals of the same names, for the table alone; no step before the table reads them.
        real: sharp faces for the discriminator.
        replay: clean faces to mix in, as `adapt.commands.finetune.finetune`.
        fidelity: what the photos are restored at, by the adapted model and by the one it started from, so that they
            compare, and the exported model's default; the network's own where None. Only for networks that take one.
            Targets and fine-tuning do not depend on it: with another one a run makes anew what comes after them.
        verdict: recipe of the verdict, by name or file: whether the adapted model is better than the one it started
            from. Where it is not, the latter is exported.
        overrides: `targets.KEY=VALUE`, `finetune.KEY=VALUE` and `verdict.KEY=VALUE`.
        faces: whether photos are whole, or aligned faces, or each as it looks. With originals, for they are aligned,
            auto takes the photos as aligned too.
        finding: how faces are found in whole ones; its defaults where None.
        limit: only the first so many photos. Where they are others than an earlier run had, targets that are there
            are kept, and the fine-tuning is made anew.
        device: auto, cpu, cuda, ...; the table is computed on the CPU.
        overwrite: remove what an earlier run made in `out`; files that are not of a run stay.
        progress: makes a progress line of a title.
        title, notes: for the page.

    Raises:
        UsageError: fewer than two different photos, a folder that is not there or lacks an original, an `out` with
            other files or in which one of the inputs lies, a pack without what the finetune recipe starts from, or a
            restorer that takes no faces of the pack's size.
    """
    photos, out, truth = Path(photos), Path(out), optional_path(truth)
    recipe = default_recipe(pack, restorer) if recipe is None else recipe
    for given, what in ((photos, "the photos"), (truth, "--truth"), (real, "--real"), (replay, "--replay")):
        if given is not None:
            refuse_overlap(Path(given), out, what)
    split = split_overrides(overrides)
    found, given, asked = find_photos(photos, limit), photos, limit
    cut: Aligned | None = None
    if truth is not None:
        if faces == "whole":
            raise UsageError(
                f"--truth {truth}: originals are held against aligned faces; leave it out, or --faces whole"
            )
        faces = "aligned"
    if faces != "whole":
        _refuse_one(photos, found, limit)
    if truth is not None:
        _refuse_incomplete(truth, found)
    load_distance(load_pack(pack))  # of a pack that lacks it, now and not after the targets
    setup = set_up_finetune(
        recipe, pack=pack, base=restorer, real=real, replay=replay, overrides=split["finetune"]
    )
    load_recipe(method, TargetSettings, split["targets"], pack=str(pack))
    rule = load_recipe(verdict, VerdictSettings, split["verdict"], pack=str(pack))
    chosen_device = pick_device(device)
    base, size = setup.base_name, setup.restorer.size
    if faces == "auto" and all(size_of(file.path) == (size, size) for file in found):
        faces = "aligned"
    finding = finding or Finding()
    refuse_boxes_in(out, finding.boxes)
    if finding.pack is None and DETECTOR in load_pack(pack).card.networks:
        finding = replace(finding, pack=pack)
    own, of_base = setup.restorer.chosen_fidelity(fidelity), setup.base.chosen_fidelity(fidelity)
    if overwrite:
        refuse_removal(out, {"recipe": recipe, "pack": pack, "method": method, "restorer": restorer})
    with locked(out):
        claim_result(out, overwrite)  # only now: a mistake costs no earlier run
        journal = Journal(out, overwrite=overwrite)

        failed, pages = _Failed(), Pages(journal)
        whole: dict[str, Path] = {}
        if faces != "aligned":
            line0 = progress("0/6 finding faces")
            cut = faces_of(
                photos, out / FACES, size=size, faces=faces, finding=finding, limit=limit, device=device, renew=True,
                only=True, on_photo=lambda id, status, done, total: line0(done, total),
            )  # fmt: skip
            if cut is not None:
                failed.add_reasons(cut.failed_ids, cut.failed)
                pages.kept += cut.kept
                photos, limit = out / FACES, None
                whole = {file.id: file.path for file in found if file.id in cut.faces}
                found = find_photos(photos)
            _refuse_one(photos, found, limit)
        restored = "restored-faces" if whole else "restored"

        line = progress("1/6 targets")
        summary = generate_targets(
            photos,
            out / "targets",
            method=method,
            pack=pack,
            restorer=base,
            overrides=split["targets"],
            limit=limit,
            device=device,
            on_photo=lambda record, done, total: line(done, total),
        )

        line2 = progress("2/6 fine-tuning")
        outcome = finetune(
            photos,
            out / "targets",
            out / "finetune",
            recipe=recipe,
            pack=pack,
            restorer=setup.name,
            real=real,
            replay=replay,
            overrides=split["finetune"],
            device=device,
            limit=limit,
            renew=True,
            verdict=verdict,
            verdict_overrides=split["verdict"],
            on_step=lambda done, total, values: line2(done, total, describe(values)),
            on_samples=sample_writer(out / "finetune"),
        )

        known, same = {file.id for file in found}, f"identity {size}"
        failed.add(restore_folder(Identity(size), photos, out / "photos", digest=same, limit=limit, renew=True))
        ids = [file.id for file in found if file.id not in failed.reasons]
        if not ids:
            raise PhotoError("no photo is left to be judged:\n" + "\n".join(failed.reasons.values()))
        chosen = choose(
            out, pages, setup, ids=ids, pack=pack, settings=rule, device=chosen_device,
            fidelities=(of_base, own), on_step=progress("3/6 judging"),
        )  # fmt: skip

        line4 = progress("4/6 restoring")
        models = [("base", base, of_base), (restored, chosen.model, chosen.fidelity)]
        if chosen.verdict.strength < 1:
            models.append(("adapted", str(out / "finetune"), own))
        for name, model, taken in models:
            result = restore(
                model, photos, out / name, size=size, limit=limit, device=device, renew=True,
                fidelity=taken, on_photo=lambda id, status, done, total: line4(done, total),
            )
            failed.add(result)
        converted = ""
        if whole:
            result = restore(
                chosen.model, given, out / "restored", size=size, faces=faces, limit=asked, device=device, renew=True,
                finding=replace(finding, boxes=out / FACES / LOG), fidelity=chosen.fidelity,
                on_photo=lambda id, status, done, total: line4(done, total),
            )  # fmt: skip
            failed.add(result)
            converted = converted_note(result.converted)
        if truth is not None:
            originals = restore_folder(
                Identity(size), truth, out / "truth", digest=same, ids=known - {*failed.reasons}, renew=True
            )
            failed.add(originals)

        line5 = progress("5/6 evaluating")
        ids = [file.id for file in found if file.id not in failed.reasons]
        if not ids:
            raise PhotoError("no photo is left to be measured:\n" + "\n".join(failed.reasons.values()))
        evaluations = evaluate_run(
            out, pack, truth is not None, line5, strength=chosen.verdict.strength, ids=ids, restored=restored
        )
        pages.put(
            "evaluation.json",
            lambda path: write_json(path, {name: item.as_json() for name, item in evaluations.items()}),
        )

        show_run(
            out,
            pages.put,
            outcome,
            chosen.verdict,
            evaluations,
            pack=pack,
            base=base,
            method=method,
            with_truth=truth is not None,
            resized=summary.resized,
            enlarged=summary.enlarged,
            size=size,
            fidelity=chosen.fidelity,
            ids=ids,
            failed=failed.reasons,
            title=title,
            notes=notes,
            restored=restored,
            whole=whole,
        )

        line6 = progress("6/6 exporting")
        begun = setup.name if chosen.verdict.strength else base
        finder = (finding.pack or "tiny") if whole else None
        model = export_choice(out, pages, begun, chosen, outcome, evaluations, ids=ids, whole=finder)
        line6(1, 1)
        return Result(
            table=text_table(evaluations),
            verdict=verdict_of(chosen.verdict, evaluations),
            warning=outcome.warning,
            page=out / "report.html",
            model=model,
            resized=summary.resized,
            enlarged=summary.enlarged,
            faces={} if cut is None else cut.faces,
            problems=[*failed.reasons.values(), *failed.others(summary), *pages.kept],
            evaluations=evaluations,
            notes=(outcome.verdict, *outcome.notes, *filter(None, (converted,))),
        )


class _Failed:
    """Why photos are left out, by id; each is named once, whichever folder it failed in."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def add(self, restored: Restored) -> None:
        """Take in how a folder came out."""
        for id, reason in zip(restored.failed_ids, restored.failed, strict=True):
            before = self.reasons.get(id)
            if before is None:
                self.reasons[id] = reason
            elif reason not in before:
                self.reasons[id] = f"{before}; {reason}"

    def add_reasons(self, ids: Sequence[str], reasons: Sequence[str]) -> None:
        """Take in photos that failed, and why."""
        self.reasons.update(zip(ids, reasons, strict=True))

    def others(self, summary: Summary) -> list[str]:
        """What is to be told of photos that are restored, but have no target."""
        return [
            f"{record.id}: {record.reason}" for record in summary.records
            if record.status == "failed" and record.id not in self.reasons
        ]  # fmt: skip


def split_overrides(overrides: Sequence[str]) -> dict[str, list[str]]:
    """`targets.steps=5` to the targets recipe's `steps=5`, and the same for finetune and verdict."""
    split: dict[str, list[str]] = {"targets": [], "finetune": [], "verdict": []}
    for override in overrides:
        kind, _, rest = override.partition(".")
        if kind not in split or "=" not in rest:
            raise UsageError(
                f"{override}: expected targets.KEY=VALUE, finetune.KEY=VALUE or verdict.KEY=VALUE"
            )
        split[kind].append(rest)
    return split


def _refuse_one(photos: Path, found: Sequence[PhotoFile], limit: int | None) -> None:
    """Raise UsageError where fine-tuning could hold no photo back: there is one, or copies of one."""
    contents: set[str] = set()
    for photo in found:
        if photo.path.is_file():  # no link into nowhere
            contents.add(file_digest(photo.path))
        if len(contents) > 1:
            return
    files = "1 file" if len(found) == 1 else f"{len(found)} files"
    limited = f" with --limit {limit}" if limit is not None else ""
    raise UsageError(
        f"{photos}: fine-tuning needs at least 2 different photos, there are {len(contents)} in {files}{limited}"
    )


def _refuse_incomplete(truth: Path, photos: Sequence[PhotoFile]) -> None:
    """Raise UsageError where the table could not be made: a photo without its original."""
    known = {file.id for file in photos_of("truth", truth, "clean originals, named like the photos")}
    if lost := [file.id for file in photos if file.id not in known]:
        raise UsageError(
            f"--truth {truth}: has no image named like {len(lost)} of {len(photos)} photos, first: {lost[0]}; name a"
            " folder with an original for each, or leave this out"
        )
