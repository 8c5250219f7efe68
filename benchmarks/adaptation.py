"""Adapts SwinIR to a camera's noise and compares it with the pre-trained one on people it never saw.

    python benchmarks/adaptation.py FACES [--degradation camera-noise-severe] [--rounds N] [targets.KEY=VALUE ...]

FACES is a folder of clean aligned faces, which are degraded. One half (by a hash of the name) is adapted on, its clean
originals never read; the other half is the table's. Layout of DT-BFR, Table 1.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from adapt import tasks
from adapt.build import load_distance
from adapt.cli.printing import Lines
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.sheets import write_sheet
from adapt.evaluation.tables import markdown_table
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted
from adapt.pipeline import sample_writer, split_overrides
from adapt.recipe import load_recipe
from adapt.settings import DegradeSettings
from degradations.chain import degrade


def make_domain(faces: Path, out: Path, degradation: str, size: int) -> None:
    """Degraded and clean pictures of both halves, in out/{adapt,test}/{lq,hq}."""
    pieces = load_recipe(degradation, DegradeSettings).pieces
    for photo in find_photos(faces):
        half = "adapt" if hashlib.sha256(photo.id.encode()).digest()[0] % 2 else "test"
        name = photo.id.replace("/", "__") + ".png"
        if (out / half / "lq" / name).exists():
            continue
        clean = load_fitted(photo.path, size)
        seed = int.from_bytes(hashlib.sha256(photo.id.encode()).digest()[1:5], "big")
        write_image(out / half / "hq" / name, clean, overwrite=True)
        write_image(out / half / "lq" / name, degrade(clean, pieces, seed)[0], overwrite=True)


def adapt_once(
    out: Path, suffix: str, restorer: str, pack: str, method: str, split: dict[str, list[str]]
) -> str:
    """Targets by `restorer`, and `restorer` fine-tuned on them; the new run."""
    lines = Lines(f"targets{suffix}")
    tasks.generate_targets(
        out / "adapt" / "lq", out / f"targets{suffix}", pack=pack, restorer=restorer, method=method,
        overrides=split["targets"], on_photo=lambda record, done, total: lines(done, total),
    )
    lines = Lines(f"fine-tuning{suffix}")
    outcome = tasks.finetune(
        out / "adapt" / "lq", out / f"targets{suffix}", out / f"finetune{suffix}", pack=pack, restorer=restorer,
        overrides=split["finetune"],
        on_step=lambda done, total, values: lines(done, total, tasks.describe(values)),
        on_samples=sample_writer(out / f"finetune{suffix}"),
    )
    print(outcome.verdict)
    return str(out / f"finetune{suffix}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default="camera-noise-severe", help="recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--method", default="low-frequency")
    parser.add_argument("--rounds", type=int, default=1, help="adapt again from the adapted model")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    out: Path = arguments.out / arguments.degradation
    split = split_overrides(arguments.overrides)
    pack = load_pack(arguments.pack)
    make_domain(arguments.faces, out, arguments.degradation, pack.card.size)

    restorer = arguments.pack
    for number in range(1, arguments.rounds + 1):
        suffix = "" if number == 1 else f"-{number}"
        restorer = adapt_once(out, suffix, restorer, arguments.pack, arguments.method, split)
        tasks.restore(restorer, out / "test" / "lq", out / f"adapted{suffix}", overwrite=True)
    tasks.restore(arguments.pack, out / "test" / "lq", out / "base", overwrite=True)

    distance = load_distance(pack)
    folders = {"photo": out / "test" / "lq", "pre-trained": out / "base", "adapted": out / "adapted"}
    for number in range(2, arguments.rounds + 1):
        folders[f"adapted, round {number}"] = out / f"adapted-{number}"
    evaluations = {
        name: evaluate_folder(folder, truth=out / "test" / "hq", distance=distance) for name, folder in folders.items()
    }
    print(f"\n{arguments.degradation}, held-out half; perceptual network: {distance.name}\n")
    print(markdown_table(evaluations))
    targets = {
        folder.name: evaluate_folder(folder / "images", truth=out / "adapt" / "hq", distance=distance)
        for folder in sorted(out.glob("targets*"))
    }
    print("\nTargets of the other half, against their originals:\n")
    print(markdown_table(targets))
    folders["truth"] = out / "test" / "hq"
    shown = find_photos(out / "test" / "hq")[:: max(1, len(find_photos(out / "test" / "hq")) // 8)][:8]
    rows = [[read_image(folder / f"{photo.id}.png") for folder in folders.values()] for photo in shown]
    write_sheet(out / "sheet.png", list(folders), rows)


if __name__ == "__main__":
    main()
