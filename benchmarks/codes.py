"""What a CodeFormer learns from its codes (DT-BFR, Tables 5 and 9, Fig. 9), and what it and SwinIR forget.

    python benchmarks/codes.py TABLE FACES [--degradation RECIPE] [--limit N] [--adapt-on FOLDER] [--adapt-share SHARE]
                                           [--pack PACK] [--method METHOD] [--out DIR] [--json FILE] [KEY=VALUE ...]

    table5   what learns: the encoder, the transformer too, the fusion by losses on images; and which teacher
    table9   20, 100 and all photos, SwinIR and CodeFormer
    fig9     pre-trained and adapted over the fidelity w, as a table and a plot
    replay   with and without source replay, on the target domain and on the damage of the pre-training
    sheet    photo, and of SwinIR and CodeFormer each pre-trained, target and adapted, and the truth

FACES is a folder of clean aligned faces that took no part in training. One half of them (by a hash of the name),
degraded, is adapted on, its originals never read; the tables are of the other. With --adapt-on, another folder's faces
are adapted on and all of FACES are the tables'; faces that the pack was trained on make targets better than strangers'
would be. KEY=VALUE are targets.KEY=VALUE and finetune.KEY=VALUE, the latter under what a row changes.

Targets and runs are kept by a digest of what they are made with and shared by all tables, so that whatever is finished
is not computed again; after a change of the code, take another folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from domain import (
    SHOWN,
    degrade_faces,
    fine_tune,
    gained,
    make_domain,
    make_targets,
    print_gains,
    spread,
    with_overrides,
)
from panels import draw_panel, side_by_side

from adapt.commands.finetune_setup import set_up_finetune
from adapt.commands.restore import restore
from adapt.commands.run import split_overrides
from adapt.digests import file_digest, settings_digest
from adapt.disk import write_atomic, write_json
from adapt.errors import UsageError
from adapt.evaluation.catalogue import METRICS
from adapt.evaluation.compare import Images, evaluate_folder
from adapt.evaluation.inputs import Networks
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.sheets import write_sheet
from adapt.evaluation.tables import markdown_table
from adapt.finetuning.outcome import Outcome
from adapt.loading import load_distance, measuring_networks, weights_digest
from adapt.packs.pack import Pack, load_pack
from adapt.perceptual.distance import PerceptualDistance
from adapt.photos.files import read_image
from adapt.photos.folder import PhotoFile, find_photos
from adapt.settings import CodeFinetuneSettings, FinetuneSettings, TargetSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.store import TargetStore, accepted_targets, read_records

RECIPES: Final = ("swinir", "codeformer")
BEFORE: Final = "pre-trained"
Evaluations = dict[str, Evaluation]
"""Rows of a table by name."""


# ---------------------------------------------------------------- what the rows of a table share


@dataclass(frozen=True, slots=True)
class Bench:
    """A domain, and all that is made in it.

    Attributes:
        domain: its folder: adapt and test, hq and lq each; targets, runs and restored photos beside them.
        pack, distance, networks: of restorers, the perceptual one, and those of faces that metrics ask for.
        pack_name: by which the pack is loaded.
        method: targets recipe.
        overrides: of the recipes, by kind.
    """

    domain: Path
    pack: Pack
    distance: PerceptualDistance
    networks: Networks
    pack_name: str
    method: str
    overrides: Mapping[str, Sequence[str]]

    def base(self, recipe: str) -> str:
        """What a finetune recipe starts from."""
        return set_up_finetune(recipe, pack=self.pack_name, overrides=self.overrides["finetune"]).name

    def targets(self, restorer: str) -> Path:
        """The store of targets of the half adapted on, all that are accepted."""
        settings = load_recipe(self.method, TargetSettings, self.overrides["targets"], pack=self.pack_name)
        recipe = settings.model_dump(mode="json", exclude={"batch"})
        networks = [self.pack.network_digest("prior"), weights_digest(restorer)]
        store = self.domain / "targets" / settings_digest([recipe, networks])[:12]
        make_targets(
            self.domain / "adapt" / "lq", store, f"{self.domain.name}, {Path(restorer).name}",
            pack=self.pack_name, restorer=restorer, method=self.method, overrides=self.overrides["targets"],
        )
        return store

    def tuned(
        self, recipe: str, targets: Path, title: str, changes: Sequence[str] = (), replay: Path | None = None
    ) -> Tuned:
        """The run of one row: the recipe with the row's changes over it, on these targets."""
        overrides = [*self.overrides["finetune"], *changes]
        setup = set_up_finetune(recipe, pack=self.pack_name, replay=replay, overrides=overrides)
        made_with = [setup.settings.model_dump(mode="json"), weights_digest(setup.name), targets.name]
        key = settings_digest([*made_with, str(replay)])[:12]
        run = self.domain / "runs" / f"{Path(recipe).stem}-{key}"
        outcome = fine_tune(
            self.domain / "adapt" / "lq", targets, run, title,
            pack=self.pack_name, restorer=setup.name, recipe=recipe, replay=replay, overrides=overrides,
        )
        return Tuned(str(run), outcome)

    def restored(self, model: str, part: str = "test", fidelity: float | None = None) -> Path:
        """The degraded photos of a part of the domain as a model restores them."""
        name = part if fidelity is None else f"{part}-w{fidelity:g}"
        out = self.domain / "restored" / weights_digest(model)[:12] / name
        restore(model, self.domain / part / "lq", out, fidelity=fidelity)
        return out

    def score(self, images: Images, part: str = "test") -> Evaluation:
        """Images against the originals of a part of the domain."""
        truth = self.domain / part / "hq"
        return evaluate_folder(images, truth=truth, distance=self.distance, networks=self.networks)

    def report(self, title: str, evaluations: Mapping[str, Evaluation], against: str | None = BEFORE) -> None:
        """Print a table and, where `against` names a row, what the rows below it gain over it, photo by photo."""
        names = list(evaluations)
        print(f"\n{title}; {self.domain.name}, {len(evaluations[names[0]].rows)} photos, ", end="")
        print(f"perceptual network: {self.distance.name}\n\n{markdown_table(evaluations)}")
        if against is None:
            return
        print_gains(evaluations, against)


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuning that is done: its run's folder, and how it ended."""

    run: str
    outcome: Outcome


def open_bench(arguments: argparse.Namespace) -> Bench:
    """The domain of the arguments, its photos degraded.

    Raises:
        UsageError: a face to adapt on is among FACES, or a key that belongs to no recipe.
    """
    pack = load_pack(arguments.pack)
    faces = spread(find_photos(arguments.faces), arguments.limit)
    others = spread(find_photos(arguments.adapt_on), arguments.limit) if arguments.adapt_on else []
    contents = [{photo.id: file_digest(photo.path) for photo in photos} for photos in (faces, others)]
    if both := sorted(id for id, digest in contents[1].items() if digest in contents[0].values()):
        raise UsageError(f"{arguments.adapt_on}: {len(both)} faces are among {arguments.faces} too, first: {both[0]}")
    key = settings_digest([pack.card.size, arguments.adapt_share, *contents])[:8]
    domain = arguments.out / f"{Path(arguments.degradation).stem}-{key}"
    if others:
        for part, photos in (("test", faces), ("adapt", others)):
            degrade_faces(photos, domain / part, arguments.degradation, pack.card.size)
    else:
        make_domain(faces, domain, arguments.degradation, pack.card.size, adapt_share=arguments.adapt_share)
    overrides = split_overrides(arguments.overrides)
    networks = measuring_networks(pack)
    return Bench(domain, pack, load_distance(pack), networks, arguments.pack, arguments.method, overrides)


def subset(store: Path, count: int) -> Path:
    """A store of the targets of so many photos of another, whose images stay where they are.

    Which photos depends on their names alone, and those of a smaller number are among those of a greater one.
    """
    ids = sorted(accepted_targets(store), key=lambda id: hashlib.sha256(id.encode()).digest())[:count]
    part = store.with_name(f"{store.name}-{count}")
    identity = json.loads((store / "store.json").read_text(encoding="utf-8"))["identity"]
    opened = TargetStore(part, identity, overwrite=True)
    for record in read_records(store):
        if record.id in ids:
            opened.add(replace(record, target=f"../{store.name}/{record.target}" if record.target else None))
    return part


def numbers(evaluations: Mapping[str, Evaluation], tuned: Mapping[str, Tuned]) -> dict[str, Any]:
    """Rows as JSON, with the outcome of those that were fine-tuned."""
    rows = {name: evaluation.as_json() for name, evaluation in evaluations.items()}
    return {
        name: {**row, "run": tuned[name].run, "outcome": asdict(tuned[name].outcome)} if name in tuned else row
        for name, row in rows.items()
    }


# ---------------------------------------------------------------- the tables


def what_learns(codes: CodeFinetuneSettings, images: FinetuneSettings) -> dict[str, list[str]]:
    """The rows of Table 5, and that of the other teacher.

    Args:
        codes: the recipe of the rows; its losses on images, where it has any, are those that train the fusion.
        images: the recipe whose losses do where it has none.
    """
    names = ("l1", "perceptual", "adversarial")
    taken = codes if "fusion" in codes.trains else images
    losses, none = [f"{name}={getattr(taken, name)}" for name in names], [f"{name}=0" for name in names]
    adversary = json.dumps(taken.discriminator.model_dump(mode="json"))
    return {
        "encoder": ["trains=[encoder]", *none],
        "encoder, transformer": ["trains=[encoder, transformer]", *none],
        "encoder, transformer, fusion by images": [
            "trains=[encoder, transformer, fusion]", *losses, f"discriminator={adversary}",
        ],
        "encoder, transformer; teacher: restorer": ["trains=[encoder, transformer]", *none, "teacher=restorer"],
    }


def table5(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Table 5: what learns."""
    recipe = "codeformer"
    base = bench.base(recipe)
    targets = bench.targets(base)
    rows = what_learns(
        load_recipe(recipe, CodeFinetuneSettings, bench.overrides["finetune"], pack=bench.pack_name),
        load_recipe("swinir", FinetuneSettings, pack=bench.pack_name),
    )
    tuned = {name: bench.tuned(recipe, targets, f"table5, {name}", changes) for name, changes in rows.items()}
    evaluations = {BEFORE: bench.score(bench.restored(base))}
    evaluations |= {name: bench.score(bench.restored(each.run)) for name, each in tuned.items()}
    bench.report("What learns, held-out half", evaluations)
    _, codebook, _, restorer = rows
    print(f"- {restorer}, less {codebook}: {gained(evaluations[codebook], evaluations[restorer])}")
    return numbers(evaluations, tuned)


def table9(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tables 4 and 9: how many photos."""
    result: dict[str, Any] = {}
    for recipe in RECIPES:
        base = bench.base(recipe)
        targets = bench.targets(base)
        there = len(accepted_targets(targets))
        wanted = sorted({int(size) for size in arguments.sizes.split(",")})
        tuned: dict[str, Tuned] = {}
        for count in [size for size in wanted if size < there] + [there]:
            name = f"{count} photos{', all there are' if count == there else ''}"
            store = targets if count == there else subset(targets, count)
            tuned[name] = bench.tuned(recipe, store, f"table9, {recipe}, {name}")
        evaluations = {BEFORE: bench.score(bench.restored(base))}
        evaluations |= {name: bench.score(bench.restored(each.run)) for name, each in tuned.items()}
        bench.report(f"{recipe} by number of photos, held-out half", evaluations)
        result[recipe] = numbers(evaluations, tuned)
    return result


def fig9(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fig. 9: fidelity weights."""
    base = bench.base("codeformer")
    tuned: dict[str, Tuned] = {}
    if arguments.run is None:
        tuned["adapted"] = bench.tuned("codeformer", bench.targets(base), "fig9")
    models = {BEFORE: base, "adapted": arguments.run or tuned["adapted"].run}
    fidelities = [float(text) for text in arguments.fidelities.split(",")]
    swept = {
        name: {w: bench.score(bench.restored(model, fidelity=w)) for w in fidelities}
        for name, model in models.items()
    }
    for name, evaluations in swept.items():
        rows = {f"w = {w:g}": each for w, each in evaluations.items()}
        bench.report(f"{name} over the fidelity w, held-out half", rows, against=None)
    print(f"\nAdapted less {BEFORE}, over the same photos:\n")
    for w in fidelities:
        print(f"- w = {w:g}: {gained(swept[BEFORE][w], swept['adapted'][w])}")
    plot = bench.domain / "fig9.png"
    draw_sweep(plot, swept)
    print(f"\ncurves in {plot}")
    return {
        name: numbers({f"{w:g}": each for w, each in evaluations.items()}, {}) for name, evaluations in swept.items()
    }


def draw_sweep(path: Path, swept: Mapping[str, Mapping[float, Evaluation]]) -> None:
    """Every number over w, a panel for each and a curve for each model, as a PNG."""
    first = next(iter(next(iter(swept.values())).values()))
    panels = []
    for key, score in first.scores.items():
        metric = METRICS[key]
        curves = {
            name: [(w, each.scores[key].mean * metric.factor) for w, each in row.items()] for name, row in swept.items()
        }
        heading = metric.heading or score.protocol.title
        heading += f", {metric.better} is better" if metric.better != "neither" else ""
        panels.append(draw_panel(heading, curves, across="fidelity w", up="", digits=metric.digits))
    write_atomic(path, lambda stream: side_by_side(panels).save(stream, "PNG"))


def forgetting(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fine-tuned with and without source replay, each on the target domain and on the source's damage."""
    source = f"source-{Path(arguments.source).stem}"
    faces = find_photos(bench.domain / "test" / "hq")
    degrade_faces(faces, bench.domain / source, arguments.source, bench.pack.card.size)
    base = bench.base(arguments.recipe)
    targets = bench.targets(base)
    mixed = json.dumps({"share": arguments.share, "degradation": arguments.source})
    tuned = {
        "without replay": bench.tuned(arguments.recipe, targets, "without replay"),
        "with replay": bench.tuned(arguments.recipe, targets, "with replay", [f"replay={mixed}"], arguments.replay),
    }
    result: dict[str, Any] = {}
    for title, part in (("Target domain", "test"), (f"Source, {arguments.source}", source)):
        evaluations = {BEFORE: bench.score(bench.restored(base, part), part)}
        evaluations |= {name: bench.score(bench.restored(each.run, part), part) for name, each in tuned.items()}
        bench.report(f"{title}, {arguments.recipe}, held-out half", evaluations)
        print(f"- with replay, less without: {gained(*list(evaluations.values())[1:])}")
        result[title] = numbers(evaluations, tuned)
    return result


def sheet(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images of the half adapted on, side by side: only its photos have targets."""
    files = {photo.id: photo.path for photo in find_photos(bench.domain / "adapt" / "lq")}
    columns: dict[str, Mapping[str, Path]] = {"photo": files}
    tuned: dict[str, Tuned] = {}
    for recipe in RECIPES:
        base = bench.base(recipe)
        targets = bench.targets(base)
        tuned[f"{recipe}, adapted"] = bench.tuned(recipe, targets, f"sheet, {recipe}")
        columns[f"{recipe}, {BEFORE}"] = in_folder(bench.restored(base, "adapt"))
        columns[f"{recipe}, target"] = {id: draws[0] for id, draws in accepted_targets(targets).items()}
        columns[f"{recipe}, adapted"] = in_folder(bench.restored(tuned[f"{recipe}, adapted"].run, "adapt"))
    evaluations = {name: bench.score(images, "adapt") for name, images in columns.items()}
    bench.report("Half adapted on", evaluations, against=None)
    columns["truth"] = in_folder(bench.domain / "adapt" / "hq")
    shown = spread(
        [PhotoFile(id, path) for id, path in files.items() if all(id in each for each in columns.values())],
        arguments.rows,
    )
    images = [[read_image(column[photo.id]) for column in columns.values()] for photo in shown]
    path = bench.domain / "sheet.png"
    names, scale = [photo.id for photo in shown], max(1, 256 // bench.pack.card.size)
    write_sheet(path, list(columns), images, row_names=names, scale=scale)
    print(f"\ncontact sheet in {path}")
    return numbers(evaluations, tuned)


def in_folder(folder: Path) -> dict[str, Path]:
    """The images of a folder by what they are called."""
    return {photo.id: photo.path for photo in find_photos(folder)}


TABLES: Final = {"table5": table5, "table9": table9, "fig9": fig9, "replay": forgetting, "sheet": sheet}


# ---------------------------------------------------------------- command line


def parsed() -> argparse.Namespace:
    """The arguments; KEY=VALUE may stand anywhere after FACES."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    for name in TABLES:
        table = tables.add_parser(name, help="see above")
        table.add_argument("faces", type=Path)
        table.add_argument("--degradation", default="dtbfr-4x-severe", help="recipe of the target domain")
        table.add_argument("--limit", type=int, help="faces of each folder, spread evenly")
        table.add_argument("--adapt-on", type=Path, help="clean faces to adapt on; then all of FACES are tested on")
        table.add_argument("--adapt-share", type=float, default=0.5, help="of FACES, from 0.5; the rest are tested on")
        table.add_argument("--pack", default="tiny")
        table.add_argument("--method", default="adaptive", help="targets recipe")
        table.add_argument("--out", type=Path, default=Path("runs/codes"))
        table.add_argument("--json", type=Path, help="all numbers")
        if name == "table9":
            table.add_argument("--sizes", default="20,100", help="numbers of photos; all there are come last")
        if name == "fig9":
            table.add_argument("--run", help="an adapted CodeFormer; left out, it is made")
            table.add_argument("--fidelities", default=",".join(f"{step / 10:g}" for step in range(11)))
        if name == "replay":
            table.add_argument("--replay", type=Path, required=True, help="clean faces to mix in")
            table.add_argument("--recipe", default="swinir", help="finetune recipe")
            table.add_argument("--share", type=float, default=0.25, help="of the pairs of a batch")
            table.add_argument("--source", default="blind", help="recipe of the damage of the pre-training")
        if name == "sheet":
            table.add_argument("--rows", type=int, default=SHOWN, help="photos shown")
    return with_overrides(parser)


def main() -> None:
    arguments = parsed()
    result = TABLES[arguments.table](open_bench(arguments), arguments)
    if arguments.json is not None:
        write_json(arguments.json, {"table": arguments.table, "pack": arguments.pack, "rows": result})


if __name__ == "__main__":
    main()
