"""Diffuse and Restore at a pack's size: its parts one by one, beside other restorers (Tables 1, 3, 4, 5 and 6).

    python benchmarks/identity.py FACES [--degradation RECIPE,...] [--rows NAME,...] [--plain FILE] [--limit N]
        [--recogniser FILE] [--steps N] [--pack PACK] [--out DIR] [--sheet]

FACES is a folder of clean aligned faces, its sets in folders of their own; of each set as many are taken. Rows:

    photo     as it is                                IPC      the pack's conditioner, which begins as its SwinIR
    R(y)      of the pack's restorer, g(x) of Net2-4  plain    the same trained without the recogniser: --plain
    SwinIR    of the pack                             DifFace  the prior without photo, from SwinIR at T' = 400
    Net1      the conditional prior from noise        Net2     from g(x) at T' = 400
    Net3      Net2 with identity guidance             Net4     Net3 through the mask: `--method identity`

The recogniser that is scored by is the pack's, by which the networks were trained as well, unless another is named.
Seconds are per photo of this run, one photo at a time; photos are finished once, and not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain import degrade_faces
from target_strength import over_sets

from adapt.cli.printing import Lines
from adapt.commands.generate_targets import generate_targets
from adapt.disk import write_json
from adapt.evaluation.catalogue import METRICS
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.sheets import write_sheet
from adapt.loading import load_distance, load_restorer, measuring_networks
from adapt.packs.pack import Pack, load_pack
from adapt.photos.files import read_image, write_image
from adapt.targets.store import read_records

DOMAINS: Final = ("diffuse-restore", "diffuse-restore-x32", "turbulence")
SHOWN: Final = (
    "perceptual", "kid", "ids", "identity", "degrees", "landmarks", "lost", "rank_1", "rank_3", "rank_5", "psnr",
    "ssim", "sharpness",
)  # fmt: skip
OPEN: Final = ("gate.likeness=null", "gate.max_low_frequency_change=1", "gate.min_contrast=0", "gate.redraws=0")
BARE: Final = ("guidance=[]",)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row whose images are drawn by the prior: overrides of the recipe `identity`, and what restores first."""

    overrides: tuple[str, ...]
    restorer: str | None = None


DRAWN: Final = {
    "DifFace": Drawn((*BARE, "prior=prior"), "swinir"),
    "Net1": Drawn((*BARE, "start_t=999")),
    "Net2": Drawn(BARE),
    "Net3": Drawn(("guidance.0.mask=null",)),
    "Net4": Drawn(()),
}
RESTORERS: Final = {"R(y)": "", "SwinIR": "swinir", "IPC": "identity-conditioner"}
ROWS: Final = ("photo", "SwinIR", "plain", "IPC", "R(y)", *DRAWN)


def restored(domain: Path, folder: Path, names: Sequence[str], name: str) -> None:
    """A restorer's output of every photo, and the seconds it took."""
    restorer, taken = load_restorer(name), list[float]()
    for each in names:
        if (folder / f"{each}.png").exists():
            continue
        photo = read_image(domain / "lq" / f"{each}.png")[None]
        began = time.perf_counter()
        image = restorer(photo)[0]
        taken.append(time.perf_counter() - began)
        write_image(folder / f"{each}.png", image)
    note_seconds(folder, taken)


def drawn(domain: Path, store: Path, row: Drawn, arguments: argparse.Namespace, title: str) -> dict[str, Path]:
    """The targets of a row, whatever a gate would say, and the seconds they took."""
    steps = arguments.steps * (999 / 400 if "start_t=999" in row.overrides else 1)
    line, began = Lines(title), time.perf_counter()
    before = len(read_records(store)) if store.is_dir() else 0
    generate_targets(
        domain / "lq", store, method="identity", pack=arguments.pack, device="cpu",
        restorer=None if row.restorer is None else f"{arguments.pack}/{row.restorer}",
        overrides=[*row.overrides, *OPEN, f"steps={round(steps)}"],
        on_photo=lambda record, done, total: line(done, total),
    )
    records = read_records(store)
    if made := len(records) - before:
        note_seconds(store, [(time.perf_counter() - began) / made] * made)
    return {record.id: store / str(record.target) for record in records if record.status == "done"}


def note_seconds(folder: Path, taken: Sequence[float]) -> None:
    """Remember how long a photo took, where any was made."""
    if taken:
        write_json(folder.with_name(f"{folder.name}-seconds.json"), sum(taken) / len(taken))


def seconds_of(folder: Path) -> float:
    """What `note_seconds` remembers; 0 where nothing was computed."""
    path = folder.with_name(f"{folder.name}-seconds.json")
    return float(json.loads(path.read_text())) if path.is_file() else 0.0


def evaluated(images: Path | dict[str, Path], domain: Path, pack: Pack, recogniser: str | None) -> Evaluation:
    """Against the originals, by everything there is."""
    return evaluate_folder(
        images, truth=domain / "hq", distance=load_distance(pack, "pack"), networks=measuring_networks(pack, recogniser)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default=",".join(DOMAINS), help="recipes, separated by commas")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, separated by commas")
    parser.add_argument("--plain", help="a conditioner that was trained with recognition=0")
    parser.add_argument("--limit", type=int, default=24, help="photos, of each set as many")
    parser.add_argument("--recogniser", help="an ArcFace file by which to score")
    parser.add_argument("--steps", type=int, default=20, help="of the prior from T' on; the paper takes 400")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/identity"))
    parser.add_argument("--sheet", action="store_true", help="all rows of each domain as a PNG")
    arguments = parser.parse_args()
    pack = load_pack(arguments.pack)
    wanted = [row for row in arguments.rows.split(",") if row != "plain" or arguments.plain]
    faces = over_sets(arguments.faces, arguments.limit)
    print(f"{len(faces)} photos a domain, {arguments.steps} steps from T' = 400")
    for recipe in arguments.degradation.split(","):
        domain = arguments.out / recipe
        names = degrade_faces(faces, domain, recipe, pack.card.size)
        rows: dict[str, tuple[Evaluation, float]] = {}
        pictures: dict[str, dict[str, Path]] = {}
        for row in wanted:
            folder = domain / row.replace("(y)", "")
            if row == "photo":
                folder, images = domain / "lq", {name: domain / "lq" / f"{name}.png" for name in names}
            elif row in DRAWN:
                images = drawn(domain, folder, DRAWN[row], arguments, f"{recipe}, {row}")
            else:
                own = f"{arguments.pack}/{RESTORERS[row]}" if RESTORERS.get(row) else arguments.pack
                restored(domain, folder, names, arguments.plain if row == "plain" else own)
                images = {name: folder / f"{name}.png" for name in names}
            rows[row] = evaluated(images, domain, pack, arguments.recogniser), seconds_of(folder)
            pictures[row] = images
        keys = [key for key in SHOWN if any(key in evaluation.scores for evaluation, _ in rows.values())]
        protocols = next(iter(rows.values()))[0].scores
        print(f"\n{recipe}\n\n| | {' | '.join(METRICS[key].headed(protocols[key].protocol) for key in keys)} | s |")
        print(f"| --- | {' | '.join(['---:'] * (len(keys) + 1))} |")
        for row, (evaluation, taken) in rows.items():
            numbers = [
                f"{METRICS[key].factor * evaluation.scores[key].mean:.{METRICS[key].digits}f}" for key in keys
            ]
            print(f"| {row} | {' | '.join(numbers)} | {taken:.2f} |", flush=True)
        if arguments.sheet:
            columns = {**pictures, "original": {name: domain / "hq" / f"{name}.png" for name in names}}
            shown = [[read_image(paths[name]) for paths in columns.values()] for name in names[:10]]
            write_sheet(domain / "sheet.png", list(columns), shown)


if __name__ == "__main__":
    main()
