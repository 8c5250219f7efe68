"""What each loss of fine-tuning brings by itself: sharpness, the person, and what they cost in PSNR.

    python benchmarks/losses.py FACES [--degradation RECIPE,...] [--rows NAME;...] [--limit N] [--adapt-share SHARE]
                                [--pack PACK] [--method METHOD] [--recipe RECIPE] [--out DIR] [--json FILE]
                                [KEY=VALUE ...]

FACES is a folder of clean aligned faces. A share of them (by a hash of the name), degraded, is adapted on, its
originals never read; the table is of the others. Every row is the finetune recipe with one change, but the last, which
joins two of them; two targets of each photo are made once, and all rows but those of two draws learn from the first.
KEY=VALUE are targets.KEY=VALUE and finetune.KEY=VALUE, the latter under what a row changes. --rows names some; left
out, all of them.

Targets and runs are kept by a digest of what they are made with, so that whatever is finished is not computed again;
after a change of the code, take another folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from codes import BEFORE, Bench, in_folder, numbers, open_bench
from domain import SHOWN, spread, with_overrides

from adapt.digests import file_digest
from adapt.disk import write_json
from adapt.evaluation.sheets import write_sheet
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import PhotoFile
from adapt.targets.store import Record, TargetStore, read_records

PATCH: Final = "discriminator={kind: patch}"
BALANCED: Final = "discriminator={kind: patch, balance: true}"
ROWS: Final[dict[str, list[str]]] = {
    "the recipe": [],
    "no discriminator": ["adversarial=0"],
    "patch discriminator, weight 0.002": [PATCH, "adversarial=0.002"],
    "patch discriminator, share 0.2": [BALANCED, "adversarial=0.2"],
    "patch discriminator, share 0.5": [BALANCED, "adversarial=0.5"],
    "identity": ["face_identity=0.1"],
    "consistency": ["consistency=1"],
    "share 0.2 and half the identity": [BALANCED, "adversarial=0.2", "face_identity=0.05"],
}
DRAWS: Final = 2


def first_of(store: Path) -> Path:
    """The store of each photo's first target alone; its images are those of the whole."""

    def kept(records: list[Record], _: Path) -> Record:
        return replace(records[0], target=f"../{store.name}/{records[0].target}")

    return _derived(store, "first", kept)


def mean_of(store: Path) -> Path:
    """The store of the mean of each photo's accepted targets."""

    def joined(records: list[Record], folder: Path) -> Record:
        images = torch.stack([read_image(store / str(record.target)) for record in records])
        name = f"images/{records[0].id}.png"
        write_image(folder / name, images.mean(dim=0), overwrite=True)
        return replace(records[0], target=name, target_sha256=file_digest(folder / name))

    return _derived(store, "mean", joined)


def _derived(store: Path, name: str, made: Callable[[list[Record], Path], Record]) -> Path:
    """A store of what is made of each photo's accepted targets."""
    opened = TargetStore(store.with_name(f"{store.name}-{name}"), {name: store.name}, overwrite=True)
    accepted: dict[str, list[Record]] = {}
    for record in read_records(store):
        if record.status == "done":
            accepted.setdefault(record.id, []).append(record)
    for records in accepted.values():
        opened.add(replace(made(records, opened.folder), draw=0))
    return opened.folder


def compare(bench: Bench, arguments: argparse.Namespace, rows: Mapping[str, list[str]]) -> dict[str, Any]:
    """The rows in one domain."""
    bench = replace(bench, overrides={**bench.overrides, "targets": [*bench.overrides["targets"], f"draws={DRAWS}"]})
    base = bench.base(arguments.recipe)
    whole = bench.targets(base)
    stores = {"two draws": whole, "the mean of two draws": mean_of(whole)}
    first = first_of(whole)
    wanted = arguments.rows.split(";") if arguments.rows else [*rows, *stores]
    restored = {"photo": bench.domain / "test" / "lq", BEFORE: bench.restored(base)}
    tuned = {
        name: bench.tuned(arguments.recipe, stores.get(name, first), name, rows.get(name, [])) for name in wanted
    }
    restored |= {name: bench.restored(each.run) for name, each in tuned.items()}
    evaluations = {name: bench.score(folder) for name, folder in restored.items()}
    bench.report("Each loss by itself", evaluations)
    columns = {name: in_folder(folder) for name, folder in restored.items()}
    columns["truth"] = in_folder(bench.domain / "test" / "hq")
    shown = spread([PhotoFile(id, path) for id, path in columns["truth"].items()], SHOWN)
    images = [[read_image(column[photo.id]) for column in columns.values()] for photo in shown]
    path = bench.domain / "losses.png"
    write_sheet(path, list(columns), images, row_names=[photo.id for photo in shown])
    print(f"\ncontact sheet in {path}")
    return numbers(evaluations, tuned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default="dtbfr-8x-severe,phone-night-moderate", help="separated by commas")
    parser.add_argument("--rows", help="names, separated by semicolons; left out, all")
    parser.add_argument("--limit", type=int, help="faces, spread evenly")
    parser.add_argument("--adapt-share", type=float, default=0.625, help="from 0.5; the rest are tested on")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--method", default="adaptive", help="targets recipe")
    parser.add_argument("--recipe", default="swinir", help="finetune recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/losses"))
    parser.add_argument("--json", type=Path, help="all numbers")
    arguments = with_overrides(parser)
    results: dict[str, Any] = {}
    for degradation in arguments.degradation.split(","):
        domain = argparse.Namespace(**{**vars(arguments), "degradation": degradation, "adapt_on": None})
        results[degradation] = compare(open_bench(domain), arguments, ROWS)
    if arguments.json is not None:
        write_json(arguments.json, {"pack": arguments.pack, "domains": results})


if __name__ == "__main__":
    main()
