"""A target domain for benchmarks: clean faces that a recipe degrades, and a restorer adapted to one half of them.

    DOMAIN/adapt, DOMAIN/test   the halves, hq and lq each    WORK/targets    of the half adapted on
    DOMAIN/base                 test, by the model as it was  WORK/finetune   the run
                                                              WORK/adapted    test, by its best model
                                                              WORK/exported   test, by what the verdict takes
                                                              WORK/verdict.json

Several models may share a domain; one alone may have its work in the domain's own folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from adapt.cli.printing import Lines, say_warning
from adapt.commands.degrade import degrade
from adapt.commands.finetune import finetune, sample_writer
from adapt.commands.finetune_setup import FinetuneSetup, set_up_finetune
from adapt.commands.generate_targets import generate_targets
from adapt.commands.progress import describe
from adapt.commands.restore import restore, restore_folder
from adapt.commands.run import split_overrides
from adapt.commands.run_verdict import between, measure_all
from adapt.digests import file_digest, settings_digest
from adapt.disk import write_json
from adapt.evaluation.catalogue import METRICS
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.scores import Evaluation, difference
from adapt.evaluation.sheets import write_sheet
from adapt.evaluation.tables import tabulate
from adapt.finetuning.outcome import Outcome
from adapt.loading import evaluator_digest, load_distance, load_evaluator, load_restorer, measuring_networks
from adapt.packs.pack import Pack
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import PhotoFile, find_photos
from adapt.photos.pairs import load_fitted
from adapt.restorers.base import Restorer
from adapt.settings import VerdictSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.store import TargetStore, accepted_targets, read_records
from adapt.verdict.decision import Measurements, decide
from adapt.verdict.wording import sentences

SHOWN = 8  # rows of a contact sheet
VERDICT = "default"  # recipe


def with_overrides(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with all KEY=VALUE among them, wherever they stand, as `overrides`."""
    arguments, rest = parser.parse_known_args()
    if unknown := [text for text in rest if text.startswith("-") or "=" not in text]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides = rest
    return arguments


def spread(photos: Sequence[PhotoFile], count: int | None) -> list[PhotoFile]:
    """So many photos, evenly through the folder: its first ones may all be of one collection."""
    if count is None or count >= len(photos):
        return list(photos)
    return [photos[index * len(photos) // count] for index in range(count)]


def degrade_faces(faces: Sequence[PhotoFile], out: Path, recipe: str, size: int) -> list[str]:
    """Clean faces at the network's size in out/hq, degraded ones in out/lq; their names there."""
    names = [photo.id.replace("/", "__") for photo in faces]
    for name, photo in zip(names, faces, strict=True):
        path = out / "hq" / f"{name}.png"
        if not path.exists():
            write_image(path, load_fitted(photo.path, size))
    degrade(out / "hq", out / "lq", recipe=recipe)
    return names


def make_domain(
    faces: Sequence[PhotoFile], out: Path, recipe: str, size: int, *, adapt_share: float = 0.5, turned: bool = False
) -> None:
    """Both parts, by a hash of the name: the same split for every recipe; a larger share has the smaller in it.

    `turned`: what else would be tested on is adapted on, and the other way round.
    """
    parts: dict[str, list[PhotoFile]] = {"test": [], "adapt": []}
    for photo in faces:
        place = hashlib.sha256(photo.id.encode()).digest()
        adapted_on = place[0] % 2 or place[1] < 512 * (adapt_share - 0.5)
        parts["adapt" if bool(adapted_on) != turned else "test"].append(photo)
    for part, photos in parts.items():
        degrade_faces(photos, out / part, recipe, size)


def make_targets(
    photos: Path, store: Path, title: str, *, pack: str, restorer: str, method: str, overrides: Sequence[str] = ()
) -> None:
    """A target of each photo, or what is missing of them; arguments as `generate_targets`."""
    line = Lines(f"{title}: targets")
    generate_targets(
        photos, store, pack=pack, restorer=restorer, method=method, overrides=overrides,
        on_photo=lambda record, done, total: line(done, total),
    )


def fine_tune(
    photos: Path, targets: Path, run: Path, title: str, *, pack: str, restorer: str, recipe: str,
    replay: Path | None = None, overrides: Sequence[str] = (), verdict: str | None = None, rule: Sequence[str] = (),
) -> Outcome:
    """Fine-tune a restorer, or go on; its outcome is printed. Arguments as `finetune`."""
    line = Lines(f"{title}: fine-tuning")
    outcome = finetune(
        photos, targets, run, pack=pack, restorer=restorer, recipe=recipe, replay=replay, overrides=overrides,
        verdict=verdict, verdict_overrides=rule,
        on_step=lambda done, total, values: line(done, total, describe(values)),
        on_samples=sample_writer(run),
    )
    print(f"{title}: {outcome.verdict}")
    say_warning(outcome.warning)
    return outcome


def adapt_to(
    domain: Path,
    work: Path,
    *,
    pack: str,
    method: str,
    recipe: str,
    overrides: Sequence[str] = (),
    targets: Path | None = None,
) -> None:
    """Targets of the one half, the restorer fine-tuned on them, and the other half restored before and after.

    Args:
        domain, work: as the module says.
        pack: name or folder.
        method: targets recipe.
        recipe: finetune recipe.
        overrides: `targets.KEY=VALUE`, `finetune.KEY=VALUE` and `verdict.KEY=VALUE`.
        targets: where they are, or shall be, if not in `work`: models with one restorer for the targets can share them.
    """
    split = split_overrides(overrides)
    setup = set_up_finetune(recipe, pack=pack, overrides=split["finetune"])
    store = targets or work / "targets"
    make_targets(
        domain / "adapt" / "lq", store, _title(domain, work),
        pack=pack, restorer=setup.base_name, method=method, overrides=split["targets"],
    )
    _tune_and_restore(domain, work, store, pack=pack, recipe=recipe, setup=setup, split=split)


def adapt_to_originals(
    domain: Path, work: Path, *, targets: Path, pack: str, recipe: str, overrides: Sequence[str] = ()
) -> None:
    """The same on the originals of the photos that have accepted targets: what the best targets there are would do."""
    opened = TargetStore(work / "targets", {"originals of": str(targets)}, overwrite=True)
    for record in read_records(targets):
        original = domain / "adapt" / "hq" / f"{record.id}.png"
        own = os.path.relpath(original, opened.folder) if record.target else None
        opened.add(replace(record, target=own, target_sha256=file_digest(original) if own else None))
    split = split_overrides(overrides)
    setup = set_up_finetune(recipe, pack=pack, overrides=split["finetune"])
    _tune_and_restore(domain, work, work / "targets", pack=pack, recipe=recipe, setup=setup, split=split)


def _title(domain: Path, work: Path) -> str:
    return domain.name if work == domain else f"{domain.name}, {work.name}"


def _tune_and_restore(
    domain: Path, work: Path, targets: Path, *, pack: str, recipe: str, setup: FinetuneSetup,
    split: Mapping[str, Sequence[str]],
) -> None:
    fine_tune(
        domain / "adapt" / "lq", targets, work / "finetune", _title(domain, work),
        pack=pack, restorer=setup.name, recipe=recipe, overrides=split["finetune"], verdict=VERDICT,
        rule=split["verdict"],
    )
    restore(str(work / "finetune"), domain / "test" / "lq", work / "adapted", renew=True)
    restore(setup.base_name, domain / "test" / "lq", domain / "base", renew=True)
    rule = load_recipe(VERDICT, VerdictSettings, split["verdict"], pack=pack)
    _export(domain, work, targets, pack=pack, setup=setup, rule=rule)


def _export(
    domain: Path, work: Path, targets: Path, *, pack: str, setup: FinetuneSetup, rule: VerdictSettings
) -> None:
    """The verdict on the photos that were adapted on, and the others restored by what it takes."""
    adapted = load_restorer(work / "finetune")
    candidates = between(setup.restorer, adapted, rule.strengths)
    photos = find_photos(domain / "adapt" / "lq")
    chosen = {photo.id: photo.path for photo in spread(photos, rule.photos)}
    made_from = settings_digest(
        [setup.base.digest, adapted.digest, [file_digest(path) for path in chosen.values()], evaluator_digest(pack),
         list(rule.strengths)]
    )
    verdict = decide(_measured(work / "evidence.json", made_from, setup.base, candidates, chosen, pack), rule)
    print(f"{_title(domain, work)}: {sentences(verdict)}")
    write_json(work / "verdict.json", verdict.as_json())
    model = candidates[verdict.strength] if verdict.strength else setup.base
    restore_folder(
        model, domain / "test" / "lq", work / "exported", digest=f"{verdict.strength:g} of {made_from}", renew=True
    )


def _measured(
    path: Path, made_from: str, base: Restorer, candidates: Mapping[float, Restorer], photos: Mapping[str, Path],
    pack: str,
) -> Measurements:
    """The evidence, measured or as it was kept: a rule can be asked again."""
    if path.is_file() and (told := json.loads(path.read_text(encoding="utf-8")))["made from"] == made_from:
        own = {float(strength): numbers for strength, numbers in told["candidates"].items()}
        return Measurements(told["trust"], told["base"], own)
    found = measure_all(base, candidates, photos, evaluator=load_evaluator(pack, torch.device("cpu")))
    own = {f"{strength:g}": numbers for strength, numbers in found.candidates.items()}
    write_json(path, {"made from": made_from, "trust": found.trust, "base": found.base, "candidates": own})
    return found


def evaluate_targets(domains: Sequence[Path], works: Mapping[str, str], pack: Pack) -> dict[str, Evaluation]:
    """The targets of each work against the originals: of each photo the first that was accepted.

    Args:
        domains: those of one table; their photos count together.
        works: folders by the names of their rows, as seen from each domain.
        pack: its perceptual network, and the face networks that measure.
    """
    truth, distance = _gathered([domain / "adapt" / "hq" for domain in domains]), load_distance(pack)
    networks = measuring_networks(pack)
    evaluations: dict[str, Evaluation] = {}
    for name, work in works.items():
        stores = [accepted_targets(domain / work / "targets") for domain in domains]
        first = {id: paths[0] for store in stores for id, paths in store.items()}
        evaluations[name] = evaluate_folder(first, truth=truth, distance=distance, networks=networks)
    return evaluations


def evaluate_adapted(domains: Sequence[Path], works: Mapping[str, str], pack: Pack) -> dict[str, Evaluation]:
    """The held-out photos as they are, by the pre-trained model and by each work's; arguments as `evaluate_targets`.

    Their contact sheet is in the first domain.
    """
    folders = {"photo": "test/lq", "pre-trained": "base"} | {name: f"{work}/adapted" for name, work in works.items()}
    for name, work in works.items():
        folders[f"{name}, exported" if len(works) > 1 else "exported"] = f"{work}/exported"
    columns = {name: _gathered([domain / folder for domain in domains]) for name, folder in folders.items()}
    truth, distance = _gathered([domain / "test" / "hq" for domain in domains]), load_distance(pack)
    networks = measuring_networks(pack)
    evaluations = {
        name: evaluate_folder(each, truth=truth, distance=distance, networks=networks)
        for name, each in columns.items()
    }
    columns["truth"] = truth
    shown = spread([PhotoFile(id, path) for id, path in truth.items()], SHOWN)
    rows = [[read_image(column[photo.id]) for column in columns.values()] for photo in shown]
    write_sheet(domains[0] / "sheet.png", list(columns), rows)
    return evaluations


def _gathered(folders: Sequence[Path]) -> dict[str, Path]:
    """The images of all folders by what they are called, in order."""
    return dict(sorted((photo.id, photo.path) for folder in folders for photo in find_photos(folder)))


def gained(base: Evaluation, other: Evaluation) -> str:
    """By how much the numbers against the originals of the same photos differ, where one direction is better; each mean
    with its interval: what is beyond chance."""
    texts: list[str] = []
    known = base.scores.keys() & other.scores.keys()
    for key, metric in METRICS.items():
        if key in known and "truth" in metric.sides and metric.better != "neither" and not metric.aside:
            gain, form = difference(base, other, key), f"+.{max(metric.digits, 3)}f"
            heading = metric.heading or metric.title or key
            texts.append(f"{heading} {gain.mean * metric.factor:{form}} ({gain.shown(form, metric.factor)})")
    return ", ".join(texts)


def print_gains(evaluations: Mapping[str, Evaluation], against: str) -> None:
    """What each row below another gains over it, over the same photos."""
    names = list(evaluations)
    print(f"\nLess {against}, over the same photos:\n")
    for name in names[names.index(against) + 1 :]:
        print(f"- {name}: {gained(evaluations[against], evaluations[name])}")


def joint_table(domains: Mapping[str, Mapping[str, Evaluation]]) -> str:
    """All domains in the layout of DT-BFR, Table 1: those that differ after their last hyphen share a cell."""
    families: dict[str, list[str]] = {}
    for name in domains:
        families.setdefault(name.rpartition("-")[0] or name, []).append(name)
    tables = {name: tabulate(evaluations) for name, evaluations in domains.items()}
    headings = next(iter(tables.values())).headings
    lines = [["", "model", *headings], ["---", "---", *["---:"] * len(headings)]]
    for family, members in families.items():
        label = family + (f" ({' / '.join(name.rpartition('-')[2] for name in members)})" if len(members) > 1 else "")
        for row, (model, _) in enumerate(tables[members[0]].rows):
            cells = zip(*(tables[name].rows[row][1] for name in members), strict=True)
            values = [" / ".join(f"**{c.value}**" if c.best else c.value for c in column) for column in cells]
            lines.append([label, model, *values])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
