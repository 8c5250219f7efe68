"""A pack's networks anew, in a given time and in one process: for a GPU that is there for a while.

    python benchmarks/train_pack.py FACES -o OUT [--pack tiny] [--part NAME=MINUTES ...] [--batch N] [--rate FACTOR]
                                    [--workers N]

FACES is a folder of clean aligned faces of the pack's size, or one zip file of it (`python -m zipfile -c faces.zip
FOLDER`). OUT/pack begins as a copy of the pack; every part is trained from what stands there by then, by its recipe,
and put into it in half precision, in files under 16 MB. Parts go by the clock, so they end in time whatever the
machine; those that are finished are not trained again. On a GPU computations are in bfloat16 where that is safe, and
processes of their own make the damaged images ahead.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Final

import torch

from adapt.cli.printing import Lines
from adapt.commands.pretrain import pretrain
from adapt.commands.progress import describe
from adapt.packs.pack import load_pack
from adapt.settings import DamageTrainingSettings
from adapt.settings.paths import WEIGHTS
from adapt.settings.recipe import KINDS, find_recipe, kind_of, load_recipe

PARTS: Final = {  # minutes of each
    "tiny": {"prior": 4.0, "onestep": 3.0, "restorer": 2.0, "conditional-prior": 2.0, "identity-conditioner": 1.0},
    "small": {"prior": 5.0, "onestep": 5.0},
}
STARTS: Final = {  # they go on from what the pack has
    "tiny": {"prior": "{pack}", "restorer": "{pack}/swinir"},
    "small": {"prior": "{pack}", "onestep": "{pack}/onestep"},
}


def faces_in(given: Path, out: Path) -> Path:
    """The folder of faces; a zip file is unpacked into OUT first."""
    if given.is_dir():
        return given
    folder = out / "faces"
    if not folder.is_dir():
        half = out / "faces.half"
        with zipfile.ZipFile(given) as archive:
            archive.extractall(half)
        half.rename(folder)
    return folder


def overrides_of(part: str, pack: Path, start: str | None, batch: int | None, rate: float) -> list[str]:
    """What a part is trained with beside its recipe."""
    path = find_recipe(part, "pretrain", str(pack))
    settings = load_recipe(path, KINDS[kind_of(path)], [], pack=str(pack))
    found = [] if start is None else [f"start={start.format(pack=pack)}"]
    if batch is not None and isinstance(settings, DamageTrainingSettings):
        found.append(f"batch={batch}")
    elif batch is not None:
        found.append(f"phases=[{{steps: 1000, size: {load_pack(pack).card.size}, batch: {batch}}}]")
    learning_rate = getattr(settings, "learning_rate", None)
    if rate != 1 and learning_rate is not None:
        found.append(f"learning_rate={learning_rate * rate}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--pack", default="tiny", choices=list(PARTS), help="whose networks")
    parser.add_argument("--part", action="append", help=f"several times; else {PARTS}")
    parser.add_argument("--batch", type=int, help="images a step; left out, the recipe's, which are for a CPU")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the recipes' learning rates")
    parser.add_argument("--workers", type=int, help="processes that make damaged images; left out, none without a GPU")
    arguments = parser.parse_args()
    parts = dict(PARTS[arguments.pack])
    if arguments.part:
        parts = {name: float(minutes) for name, _, minutes in (each.partition("=") for each in arguments.part)}
    if unknown := parts.keys() - PARTS[arguments.pack].keys():
        parser.error(f"--part {', '.join(sorted(unknown))}: expected of {', '.join(PARTS[arguments.pack])}")
    workers = arguments.workers
    if workers is None:
        workers = max(1, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0
    pack = arguments.out / "pack"
    if not pack.is_dir():
        arguments.out.mkdir(parents=True, exist_ok=True)
        half = arguments.out / "pack.half"
        shutil.copytree(load_pack(arguments.pack).folder, half, dirs_exist_ok=True)
        half.rename(pack)
    faces = faces_in(arguments.faces, arguments.out)
    for part, minutes in parts.items():
        run = arguments.out / part
        if (run / WEIGHTS).is_file():
            print(f"{part}: there already, {run}")
            continue
        began, lines = time.monotonic(), Lines(part)
        steps = 0

        def told(done: int, total: int, values: dict[str, float], lines: Lines = lines) -> None:
            nonlocal steps
            steps = done
            lines(done, total, describe(values))

        made = pretrain(
            part, faces, run, pack=str(pack),
            overrides=overrides_of(
                part, pack, STARTS[arguments.pack].get(part), arguments.batch, arguments.rate
            ),
            add_to=pack, licence="CC-BY-4.0", minutes=minutes, workers=workers, on_step=told,
            trained=f"{minutes:g} minutes by benchmarks/train_pack.py on {torch.get_num_threads()} threads"
            + (f" and {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        )
        print(f"{part}: {steps} steps in {time.monotonic() - began:.0f} s; {made.verdict}", flush=True)
    problems = load_pack(pack).problems()
    sizes = [path.stat().st_size / 1e6 for path in pack.iterdir()]
    print(f"{pack}: {sum(sizes):.0f} MB, largest file {max(sizes):.1f} MB")
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
