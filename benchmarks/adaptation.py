"""Adapts SwinIR to a camera's noise and compares it with the pre-trained one on people it never saw.

    python benchmarks/adaptation.py FACES [--degradation camera-noise-severe] [--out FOLDER] [targets.KEY=VALUE ...]

FACES is a folder of clean aligned faces, which are degraded. One half (by a hash of the name) is adapted on, its clean
originals never read; the other half is the table's. Layout of DT-BFR, Table 1.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from adapt import tasks
from adapt.build import load_distance
from adapt.cli import Lines
from adapt.evaluate.compare import evaluate_folder
from adapt.evaluate.sheets import write_sheet
from adapt.evaluate.tables import markdown_table
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted
from adapt.pipeline import sample_writer, split_overrides
from degradations.chain import degrade


def make_domain(faces: Path, out: Path, degradation: str, size: int) -> None:
    """Degraded and clean pictures of both halves, in out/{adapt,test}/{lq,hq}."""
    for photo in find_photos(faces):
        half = "adapt" if hashlib.sha256(photo.id.encode()).digest()[0] % 2 else "test"
        name = photo.id.replace("/", "__") + ".png"
        if (out / half / "lq" / name).exists():
            continue
        clean = load_fitted(photo.path, size)
        seed = int.from_bytes(hashlib.sha256(photo.id.encode()).digest()[1:5], "big")
        write_image(out / half / "hq" / name, clean, overwrite=True)
        write_image(out / half / "lq" / name, degrade(clean, degradation, seed=seed)[0], overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default="camera-noise-severe")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--method", default="low-frequency")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    out: Path = arguments.out / arguments.degradation
    split = split_overrides(arguments.overrides)
    pack = load_pack(arguments.pack)
    make_domain(arguments.faces, out, arguments.degradation, pack.card.size)

    lines = Lines("targets")
    tasks.generate_targets(
        out / "adapt" / "lq", out / "targets", pack=arguments.pack, method=arguments.method,
        overrides=split["targets"], on_photo=lambda record, done, total: lines(done, total),
    )
    lines = Lines("fine-tuning")
    outcome = tasks.finetune(
        out / "adapt" / "lq", out / "targets", out / "finetune", pack=arguments.pack, overrides=split["finetune"],
        on_step=lambda done, total, values: lines(done, total, tasks.describe(values)),
        on_samples=sample_writer(out / "finetune"),
    )
    print(outcome.verdict)
    tasks.restore(arguments.pack, out / "test" / "lq", out / "base", overwrite=True)
    tasks.restore(str(out / "finetune"), out / "test" / "lq", out / "adapted", overwrite=True)

    distance = load_distance(pack)
    folders = {"photo": out / "test" / "lq", "pre-trained": out / "base", "adapted": out / "adapted"}
    evaluations = {
        name: evaluate_folder(folder, truth=out / "test" / "hq", distance=distance) for name, folder in folders.items()
    }
    print(f"\n{arguments.degradation}, held-out half; perceptual network: {distance.name}\n")
    print(markdown_table(evaluations))
    targets = evaluate_folder(out / "targets" / "images", truth=out / "adapt" / "hq", distance=distance)
    print("\nTargets of the other half, against their originals:\n")
    print(markdown_table({"target": targets}))
    folders["truth"] = out / "test" / "hq"
    shown = find_photos(out / "test" / "hq")[:: max(1, len(find_photos(out / "test" / "hq")) // 8)][:8]
    rows = [[read_image(folder / f"{photo.id}.png") for folder in folders.values()] for photo in shown]
    write_sheet(out / "sheet.png", list(folders), rows)


if __name__ == "__main__":
    main()
