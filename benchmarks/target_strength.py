"""Whether targets are nearer to the truth than what they are drawn from: every maker, in every domain.

    python benchmarks/target_strength.py FACES [--maker "RECIPE KEY=VALUE ..."] [--degradation RECIPE,...] [--limit N]
        [--pack PACK] [--out DIR] [--json FILE] [--sheet]

FACES is a folder of clean aligned faces, its sets in folders of their own; of each set as many are taken. Each recipe
damages them and the pack's restorer restores them: the row R(y). A maker is a targets recipe with overrides, and
--maker may be given several times. Beside the means stands the share of photos of which the target is no farther from
the truth than R(y), and how much of them the prior would still change. A gate that draws again is part of the maker
(KEY=VALUE gate.redraws=0 switches it off); what it refuses in the end is counted, and not scored. What is finished is
not computed again while recipe, weights and photos are the same; after a change of the code, take another folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from domain import degrade_faces, spread

from adapt.cli.printing import Lines
from adapt.commands.generate_targets import generate_targets
from adapt.digests import file_digest, photo_seed, settings_digest
from adapt.disk import write_json
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.sheets import write_sheet
from adapt.loading import (
    load_blur_parts,
    load_distance,
    load_face_networks,
    load_prior,
    load_restorer,
    measuring_networks,
)
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import PhotoFile, find_photos
from adapt.settings import TargetSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.prior_score import score_by_prior
from adapt.targets.store import read_records

DOMAINS: Final = (
    "phone-night-moderate,phone-night-severe,phone-zoom-moderate,phone-zoom-severe,messenger-moderate,"
    "messenger-severe,video-call-moderate,video-call-severe,old-scan-moderate,old-scan-severe,web,old-photo,"
    "video-still,newspaper,camera-noise-starlight,dtbfr-8x-severe"
)
MAKERS: Final = ("adaptive", "low-frequency")
BY: Final = {"psnr": 1, "perceptual": -1, "identity": -1}  # by these a target is nearer; 1: higher is better
HEADINGS: Final = (
    "PSNR", "perceptual", "identity distance", "sharpness", "prior's change", "no farther than R(y) by PSNR",
    "by perceptual", "by identity", "by all", "start t", "evaluations", "redrawn", "refused",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What a maker did in a domain.

    Attributes:
        evaluation: of its images against the truth.
        changes: what the prior changes of each.
        starts, evaluations: of the targets, means.
        redrawn: how many targets the gate had drawn again.
        refused: how many it refused in the end.
        folder: where the images are.
    """

    evaluation: Evaluation
    changes: list[float]
    starts: float
    evaluations: float
    redrawn: int
    refused: int
    folder: Path


def over_sets(faces: Path, count: int) -> list[PhotoFile]:
    """So many photos, of every folder in `faces` as many, evenly through each."""
    sets: dict[str, list[PhotoFile]] = {}
    for photo in find_photos(faces):
        sets.setdefault(photo.id.partition("/")[0], []).append(photo)
    share = -(-count // len(sets))
    picked = [spread(photos, share) for photos in sets.values()]
    return [photos[place] for place in range(share) for photos in picked if place < len(photos)][:count]


def means_by(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """The numbers of each photo by its id."""
    return {str(row["id"]): {key: float(row[key]) for key in (*BY, "sharpness")} for row in evaluation.rows}


def shares(base: Evaluation, other: Evaluation) -> tuple[list[float], float]:
    """Of how many photos of `other` the image is no farther from the truth than in `base`: by each number, by all."""
    before, after = means_by(base), means_by(other)
    nearer = [
        [sign * after[id][key] >= sign * before[id][key] - 1e-9 for key, sign in BY.items()] for id in after
    ]
    each = [sum(column) / len(nearer) for column in zip(*nearer, strict=True)]
    return each, sum(all(row) for row in nearer) / len(nearer)


def prior_changes(folder: Path, pack: str) -> list[float]:
    """What the prior changes of each image of a folder."""
    prior = load_prior(pack)
    files = [photo.path for photo in find_photos(folder)]
    images, seeds = [read_image(path) for path in files], [photo_seed(0, file_digest(path)) for path in files]
    return [float(score_by_prior(prior, image[None], [seed]).change) for image, seed in zip(images, seeds, strict=True)]


def restored_row(domain: Path, names: Sequence[str], pack: str) -> Row:
    """R(y) of every photo."""
    restorer = load_restorer(pack)
    folder = domain / "restored"
    for name in names:
        if not (folder / f"{name}.png").exists():
            photo = read_image(domain / "lq" / f"{name}.png")[None]
            write_image(folder / f"{name}.png", restorer(photo)[0])
    return scored(domain, folder, None, pack)


def maker_row(domain: Path, maker: str, pack: str, title: str) -> Row:
    """The targets of a maker; those that the gate refuses are counted, not scored."""
    method, *overrides = maker.split()
    settings = load_recipe(method, TargetSettings, overrides, pack=pack)
    key = settings_digest(
        [settings.model_dump(mode="json"), load_pack(pack).network_digest("prior"),
         load_blur_parts(pack, settings, torch.device("cpu"))[1], load_face_networks(pack, torch.device("cpu"))[1]]
    )[:12]
    store = domain / "targets" / key
    line = Lines(title)
    generate_targets(
        domain / "lq", store, method=method, pack=pack, overrides=overrides, device="cpu",
        on_photo=lambda record, done, total: line(done, total),
    )
    return scored(domain, store, store, pack)


def scored(domain: Path, folder: Path, store: Path | None, pack: str) -> Row:
    """Images of a folder, or the accepted ones of a store, against the truth."""
    opened = load_pack(pack)
    records = [] if store is None else read_records(store)
    done = [record for record in records if record.status == "done"]
    images = folder if store is None else {record.id: folder / str(record.target) for record in done}
    evaluation = evaluate_folder(
        images, truth=domain / "hq", distance=load_distance(opened, "pack"), networks=measuring_networks(opened)
    )
    cache = folder / "changes.json"
    if not cache.is_file():
        write_json(cache, prior_changes(folder if store is None else folder / "images", pack))
    return Row(
        evaluation=evaluation,
        changes=json.loads(cache.read_text()),
        starts=sum(record.start_t or 0 for record in done) / max(len(done), 1),
        evaluations=sum(record.evaluations or 0 for record in done) / max(len(done), 1),
        redrawn=sum(record.redrawn > 0 for record in records),
        refused=sum(record.status != "done" for record in records),
        folder=folder if store is None else folder / "images",
    )


def line_of(base: Row, row: Row) -> list[float]:
    """The numbers of a row, in the order of `HEADINGS`."""
    by_photo = list(means_by(row.evaluation).values())
    means = [sum(photo[key] for photo in by_photo) / len(by_photo) for key in (*BY, "sharpness")]
    each, together = shares(base.evaluation, row.evaluation)
    change = sum(row.changes) / len(row.changes)
    return [*means, change, *each, together, row.starts, row.evaluations, row.redrawn, row.refused]


def shown(values: Sequence[float]) -> str:
    """A row of the table."""
    digits = (2, 4, 3, 2, 4, 2, 2, 2, 2, 0, 1, 1, 1)
    return " | ".join(f"{value:.{places}f}" for value, places in zip(values, digits, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--maker", action="append", help="a targets recipe and KEY=VALUE; several times")
    parser.add_argument("--degradation", default=DOMAINS, help="recipes, separated by commas")
    parser.add_argument("--limit", type=int, default=12, help="photos, of each set as many")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/target-strength"))
    parser.add_argument("--json", type=Path, help="all numbers")
    parser.add_argument("--sheet", action="store_true", help="photo, R(y), targets and truth of each domain as a PNG")
    arguments = parser.parse_args()
    makers, size = arguments.maker or list(MAKERS), load_pack(arguments.pack).card.size
    faces = over_sets(arguments.faces, arguments.limit)
    lines: dict[str, list[list[float]]] = {name: [] for name in ("R(y)", *makers)}
    print(f"{len(faces)} photos a domain\n\n| domain | targets | {' | '.join(HEADINGS)} |")
    print(f"| --- | --- | {' | '.join(['---:'] * len(HEADINGS))} |")
    for recipe in arguments.degradation.split(","):
        domain = arguments.out / recipe
        names = degrade_faces(faces, domain, recipe, size)
        base = restored_row(domain, names, arguments.pack)
        rows = {"R(y)": base}
        for maker in makers:
            rows[maker] = maker_row(domain, maker, arguments.pack, f"{recipe}, {maker}")
        for name, row in rows.items():
            lines[name].append(line_of(base, row))
            print(f"| {recipe} | {name} | {shown(lines[name][-1])} |", flush=True)
        if arguments.sheet:
            drawn = {name: row.folder for name, row in rows.items()}
            columns = {"photo": domain / "lq", **drawn, "truth": domain / "hq"}
            images = [[read_image(folder / f"{name}.png") for folder in columns.values()] for name in names]
            write_sheet(domain / "sheet.png", list(columns), images)
    for name, each in lines.items():
        print(f"| mean | {name} | {shown([sum(column) / len(each) for column in zip(*each, strict=True)])} |")
    if arguments.json is not None:
        write_json(arguments.json, {"headings": HEADINGS, "domains": arguments.degradation.split(","), "rows": lines})


if __name__ == "__main__":
    main()
