"""What `adapt run` shows of its work: the table's rows, the verdict, the contact sheet and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adapt._version import versions
from adapt.commands.changed_most import changed_most
from adapt.disk import read_json_lines
from adapt.evaluation.catalogue import METRICS, Metric, fewest
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.report import Example, Report, write_report
from adapt.evaluation.scores import Evaluation, difference
from adapt.evaluation.sheets import write_sheet
from adapt.faces.entries import RECOGNISER
from adapt.finetuning.outcome import Outcome
from adapt.intervals import Interval
from adapt.loading import load_distance, measuring_networks
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image
from adapt.photos.pairs import enlarged_warning
from adapt.targets.store import accepted_targets, read_records
from adapt.training.run import distance_of
from adapt.verdict.decision import Verdict
from adapt.verdict.wording import evidence_table, sentences

EXAMPLES = 12
PHOTOGRAPHS = 6  # whole ones on the page
COLUMNS = ("photo", "pre-trained", "target", "adapted", "exported")


def folders(strength: float, restored: str = "restored") -> dict[str, str]:
    """The folders of images by the names of their rows; `strength` is the verdict's.

    Where the adapted model is exported, its images are those in `restored`; where the base is, `restored` has that
    one's; else the row of what is exported is one of its own. Of whole photographs these are the folders of faces.
    """
    adapted = {"adapted": restored if strength == 1 else "adapted"}
    between = {"exported": restored} if 0 < strength < 1 else {}
    return {"photo": "photos", "pre-trained": "base", **adapted, **between}


def exported_row(strength: float) -> str:
    """The row of what is exported."""
    return "adapted" if strength == 1 else "exported" if strength else "pre-trained"


@dataclass(frozen=True, slots=True)
class Identity:
    """Leaves photos as they are: what the networks saw, for table and page."""

    size: int

    def __call__(self, photo: Tensor, fidelity: float | None = None) -> Tensor:
        return photo


def evaluate_run(
    out: Path,
    pack: str | Path,
    with_truth: bool,
    on_row: Callable[[int, int], object],
    *,
    strength: float,
    ids: Sequence[str],
    restored: str = "restored",
) -> dict[str, Evaluation]:
    """The table's rows. With the truth: how near; without: how much changed, and how near the targets' features.

    Only of the photos `ids`: folders may hold more, of an earlier run. The originals, if there are any, are in
    `out`/truth.

    A target is the first of a photo's draws that was accepted. KID takes no second one: draws of one photo resemble
    each other, which would count as spread of the targets. Its reference shows the same people as the images that
    are judged, so it compares rows of one table and nothing else.
    """
    opened = load_pack(pack)
    distance, networks = load_distance(opened), measuring_networks(opened)
    rows = {name: _images(out / folder, ids) for name, folder in folders(strength, restored).items()}
    wanted = {*ids}
    targets = {id: paths[0] for id, paths in accepted_targets(out / "targets").items() if id in wanted}
    against: dict[str, Any] = {"photos": rows["photo"]}
    if with_truth:
        against["truth"] = _images(out / "truth", ids)
    elif len(targets) >= fewest("reference"):
        against["reference"] = targets
    evaluations: dict[str, Evaluation] = {}
    for index, (name, folder) in enumerate(rows.items()):
        chosen = {key: value for key, value in against.items() if not (name == "photo" and key == "photos")}
        if chosen:
            evaluations[name] = evaluate_folder(folder, distance=distance, networks=networks, **chosen)
        on_row(index + 1, len(rows) + 1)
    partners: dict[str, Any] = {key: _images(out / key, list(targets)) for key in against if key != "reference"}
    evaluations["target"] = evaluate_folder(targets, distance=distance, networks=networks, **partners)
    on_row(len(rows) + 1, len(rows) + 1)
    return {name: evaluations[name] for name in COLUMNS if name in evaluations}


def _images(folder: Path, ids: Sequence[str]) -> dict[str, Path]:
    return {id: folder / f"{id}.png" for id in ids}


def verdict_of(verdict: Verdict, evaluations: dict[str, Evaluation]) -> str:
    """The verdict in words; where the truth is known, what it says of the adapted model that was judged."""
    base, adapted = evaluations["pre-trained"], evaluations.get("exported", evaluations["adapted"])
    known = base.scores.keys() & adapted.scores.keys()
    told = [each for key, each in METRICS.items() if each.told and "truth" in each.sides and key in known]
    if not told:
        return sentences(verdict)
    gains = [difference(base, adapted, metric.key) for metric in told]
    texts = [_gain(metric, base, gain) for metric, gain in zip(told, gains, strict=True)]
    which = "" if verdict.strength else ", the adapted one"
    return f"{sentences(verdict)} Against the originals of {gains[0].n} photos{which}: {', '.join(texts)}."


def _gain(metric: Metric, base: Evaluation, gain: Interval) -> str:
    """A gain with its interval, as the metric is told of: "PSNR +1.00 dB (95 % interval +0.90 to +1.10)"."""
    if metric.told == "percent":
        percent = 100 / base.scores[metric.key].mean
        return f"{metric.name} {gain.mean * percent:+.0f} % ({gain.shown('+.0f', percent)})"
    form, unit = f"+.{metric.digits}f", f" {metric.unit}" if metric.unit else ""
    return f"{metric.name} {gain.mean * metric.factor:{form}}{unit} ({gain.shown(form, metric.factor)})"


def show_run(
    out: Path,
    put: Callable[[str, Callable[[Path], object]], object],
    outcome: Outcome,
    verdict: Verdict,
    evaluations: dict[str, Evaluation],
    *,
    pack: str | Path,
    base: str,
    method: str | Path,
    with_truth: bool,
    resized: int,
    enlarged: dict[str, float],
    size: int,
    fidelity: float | None,
    ids: Sequence[str],
    failed: Mapping[str, str],
    title: str,
    notes: Sequence[str],
    restored: str = "restored",
    whole: Mapping[str, Path] | None = None,
) -> None:
    """Write sheet.jpg and report.html of a run whose photos are restored.

    Args:
        out: of `adapt.commands.run.run`.
        put: lets a file of `out`, by its name, be written by a function that takes its path.
        outcome: of the fine-tuning.
        verdict: what is exported, and why.
        evaluations: as `evaluate_run` gives them.
        pack: whose recogniser measured.
        base, method: what the run started from, for the summary.
        with_truth: the originals are shown beside.
        resized: how many photos were brought to `size` first.
        enlarged: how many times longer the side of each became that was smaller, by id.
        fidelity: what photos were restored at.
        ids: the photos that were restored; folders may hold more, of an earlier run.
        failed: reasons of those that could not be, by id.
        title, notes: for the page.
        restored: the folder of faces that the exported model restored.
        whole: whole photographs by id, of which the restored ones are in `out`/restored.
    """
    named, shown = folders(verdict.strength, restored), exported_row(verdict.strength)
    examples = _examples(out, with_truth, ids, named)
    changed, changed_text = changed_most(
        out, evaluations, named, shown, lost_from=measuring_networks(load_pack(pack))[RECOGNISER].network.lost_from
    )
    chosen = {*ids, *failed}
    records = [record for record in read_records(out / "targets") if record.reason and record.id in chosen]
    told = {record.id for record in records}
    rows = [list(example.images.values()) for example in examples]
    columns, names = list(examples[0].images), [example.id for example in examples]
    put("sheet.jpg", lambda path: write_sheet(path, columns, rows, row_names=names))
    report = Report(
        title=title,
        summary=(
            f"{outcome.trained + outcome.validation} photographs were restored by {base}, cleaned by a diffusion prior"
            f" (method {method}), and the restorer was fine-tuned on"
            f" {'1 pair' if outcome.trained == 1 else f'{outcome.trained} pairs'}; {outcome.validation}"
            f" {'was' if outcome.validation == 1 else 'were'} held back to choose the best weights. The exported"
            " network needs no diffusion."
        ),
        verdict=verdict_of(verdict, evaluations),
        improved=verdict.strength > 0,
        shown=shown,
        evidence=evidence_table(verdict),
        evaluations=evaluations,
        examples=examples,
        photographs=_photographs(out, whole or {}, shown),
        changed=changed,
        changed_text=changed_text,
        log=read_json_lines(out / "finetune" / "log.jsonl"),
        problems=[
            *(f"{record.status}: {record.id}: {record.reason}" for record in records),
            *(reason for id, reason in failed.items() if id not in told),
        ],
        settings=(out / "finetune" / "recipe.yaml").read_text(encoding="utf-8"),
        versions=versions(),
        notes=[
            *notes,
            outcome.verdict,
            *outcome.notes,
            f"The perceptual distance of the fine-tuning's losses: {distance_of(out / 'finetune') or 'not known'}.",
            *_on_sizes(resized, enlarged, size),
            *([_on_fidelity(fidelity)] if fidelity is not None else []),
            *([outcome.warning] if outcome.warning else []),
        ],
    )
    put("report.html", lambda path: write_report(path, report))


def _photographs(out: Path, whole: Mapping[str, Path], shown: str) -> list[Example]:
    """The first whole photographs, as they were and as they are."""
    found = [(id, path) for id, path in whole.items() if (out / "restored" / f"{id}.png").is_file()]
    return [
        Example(id, {"photo": read_image(path), shown: read_image(out / "restored" / f"{id}.png")})
        for id, path in found[:PHOTOGRAPHS]
    ]


def _examples(out: Path, with_truth: bool, ids: Sequence[str], named: Mapping[str, str]) -> list[Example]:
    """The first accepted photos with all their images."""
    examples: list[Example] = []
    chosen = {*ids}
    accepted = [(id, targets) for id, targets in accepted_targets(out / "targets").items() if id in chosen]
    for id, targets in accepted[:EXAMPLES]:
        images = {name: read_image(out / folder / f"{id}.png") for name, folder in named.items()}
        images["target"] = read_image(targets[0])
        ordered = {name: images[name] for name in COLUMNS if name in images}
        if with_truth:
            ordered["truth"] = read_image(out / "truth" / f"{id}.png")
        examples.append(Example(id, ordered))
    return examples


def _on_sizes(resized: int, enlarged: dict[str, float], size: int) -> list[str]:
    """What was done to photographs of other sizes; enlarged ones are told of by themselves."""
    reduced = resized - len(enlarged)
    warning = enlarged_warning(enlarged)
    return [
        *([f"{reduced} of the photographs are of another size; they were resized to {size} px first."] * bool(reduced)),
        *([f"{len(enlarged)} of the photographs are smaller; they were enlarged to {size} px first."] * bool(enlarged)),
        *([f"{warning}."] if warning else []),
    ]


def _on_fidelity(fidelity: float) -> str:
    return (
        f"Before and after, photographs were restored at fidelity {fidelity:g} (0: what faces look like; 1: what the"
        " photo shows); it is the exported model's default, and can be chosen anew for every photo."
    )
