"""Adapts a restorer to damage it never saw and compares it with the pre-trained one on people it never saw.

    python benchmarks/adaptation.py FACES --degradation RECIPE[,RECIPE...] [targets.KEY=VALUE ...] [finetune.KEY=...]

FACES is a folder of clean aligned faces, which each recipe degrades. One half (by a hash of the name) is adapted on,
its clean originals never read; the other half is the table's. Several recipes end in one table in the layout of
DT-BFR, Table 1: a row for each family of recipes and model, and in each cell the numbers of its members.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

from adapt import tasks
from adapt.build import load_distance
from adapt.cli.printing import Lines
from adapt.degrading import degrade
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.sheets import write_sheet
from adapt.evaluation.tables import markdown_table, tabulate
from adapt.packs.pack import Pack, load_pack
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted
from adapt.pipeline import sample_writer, split_overrides

SHOWN = 8  # rows of the contact sheet


def make_domain(faces: Path, out: Path, recipe: str, size: int) -> None:
    """Clean and degraded pictures of both halves, in out/{adapt,test}/{hq,lq}."""
    for photo in find_photos(faces):
        half = "adapt" if hashlib.sha256(photo.id.encode()).digest()[0] % 2 else "test"
        path = out / half / "hq" / f"{photo.id.replace('/', '__')}.png"
        if not path.exists():
            write_image(path, load_fitted(photo.path, size))
    for half in ("adapt", "test"):
        degrade(out / half / "hq", out / half / "lq", recipe=recipe)


def adapt_to(out: Path, arguments: argparse.Namespace) -> None:
    """Targets of the one half, the restorer fine-tuned on them, and the other half restored before and after."""
    split = split_overrides(arguments.overrides)
    targets = Lines(f"{out.name}: targets")
    tasks.generate_targets(
        out / "adapt" / "lq", out / "targets", pack=arguments.pack, method=arguments.method,
        overrides=split["targets"], on_photo=lambda record, done, total: targets(done, total),
    )
    training = Lines(f"{out.name}: fine-tuning")
    outcome = tasks.finetune(
        out / "adapt" / "lq", out / "targets", out / "finetune", pack=arguments.pack, recipe=arguments.recipe,
        overrides=split["finetune"],
        on_step=lambda done, total, values: training(done, total, tasks.describe(values)),
        on_samples=sample_writer(out / "finetune"),
    )
    print(outcome.verdict)
    tasks.restore(str(out / "finetune"), out / "test" / "lq", out / "adapted", overwrite=True)
    tasks.restore(arguments.pack, out / "test" / "lq", out / "base", overwrite=True)


def evaluate_domain(out: Path, pack: Pack) -> dict[str, Evaluation]:
    """Prints the tables of one domain and writes its contact sheet; the evaluations of the held-out half."""
    distance = load_distance(pack)
    folders = {"photo": out / "test" / "lq", "pre-trained": out / "base", "adapted": out / "adapted"}
    truth = out / "test" / "hq"
    evaluations = {name: evaluate_folder(folder, truth=truth, distance=distance) for name, folder in folders.items()}
    print(f"\n{out.name}, held-out half; perceptual network: {distance.name}\n\n{markdown_table(evaluations)}")
    images = out / "targets" / "images"
    targets = {"targets": evaluate_folder(images, truth=out / "adapt" / "hq", distance=distance)}
    print(f"\nTargets of the other half, against their originals:\n\n{markdown_table(targets)}")
    photos = find_photos(truth)
    shown = photos[:: max(1, len(photos) // SHOWN)][:SHOWN]
    folders["truth"] = truth
    rows = [[read_image(folder / f"{photo.id}.png") for folder in folders.values()] for photo in shown]
    write_sheet(out / "sheet.png", list(folders), rows)
    return evaluations


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default="camera-noise-starlight", help="recipes, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--method", default="low-frequency", help="targets recipe")
    parser.add_argument("--recipe", default="swinir", help="finetune recipe")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    pack = load_pack(arguments.pack)
    domains: dict[str, dict[str, Evaluation]] = {}
    for recipe in arguments.degradation.split(","):
        out = arguments.out / recipe
        make_domain(arguments.faces, out, recipe, pack.card.size)
        adapt_to(out, arguments)
        domains[recipe] = evaluate_domain(out, pack)
    if len(domains) > 1:
        print(f"\nAll domains, held-out halves\n\n{joint_table(domains)}")


if __name__ == "__main__":
    main()
