"""What each part of the student's pre-training gives: one is added at a time, each row trained alike from the prior.

    python benchmarks/parts.py TRAIN TEST [--steps N] [--old SET,...] [--degradation RECIPE,...] [--limit N] [--out DIR]

TRAIN and TEST are folders of clean aligned faces, a subfolder a set. --old names the sets of the first row; all others
see every set. The table is that of `restorers.py`, with the rows as its columns, without the gain that is fitted last.
What is trained already is not trained again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from verdict import DOMAINS

from adapt.cli.printing import Lines
from adapt.commands.pretrain import pretrain
from adapt.commands.progress import describe

RECIPE: Final = "tiny/pretrain/onestep"
PLAIN: Final = ("gain_pairs=0", "chain_share=0", "recognition=0", "adversarial=0")
PARTS: Final[dict[str, tuple[str, ...]]] = {  # of each row: the settings that differ from the recipe's
    "old-sets": PLAIN,
    "all-sets": PLAIN,
    "chain": ("gain_pairs=0", "recognition=0", "adversarial=0"),
    "recogniser": ("gain_pairs=0", "adversarial=0"),
    "discriminator": ("gain_pairs=0",),
    "augmentation": ("gain_pairs=0", "augmentation={share: 0.5}"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--old", default="canada,london_set,uk_mps_official,us_congress_gpo", help="sets of TRAIN")
    parser.add_argument("--degradation", default=DOMAINS, help="recipes, separated by commas")
    parser.add_argument("--limit", default="24", help="faces to score, spread evenly")
    parser.add_argument("--out", type=Path, default=Path("runs/parts"))
    arguments = parser.parse_args()
    old = arguments.out / "old"
    old.mkdir(parents=True, exist_ok=True)
    for name in arguments.old.split(","):
        if not (old / name).exists():
            (old / name).symlink_to((arguments.train / name).resolve(), target_is_directory=True)
    for name, changes in PARTS.items():
        if (arguments.out / name / "weights.safetensors").is_file():
            continue
        line = Lines(name)
        pretrain(
            RECIPE, old if name == "old-sets" else arguments.train, arguments.out / name,
            overrides=[f"steps={arguments.steps}", f"adversarial_from={arguments.steps // 3}", *changes],
            on_step=lambda done, total, values, line=line: line(done, total, describe(values)),
        )
    runs = ",".join(str(arguments.out / name) for name in PARTS)
    scored = (
        str(Path(__file__).with_name("restorers.py")), str(arguments.test), "--models", runs,
        "--degradation", arguments.degradation, "--limit", arguments.limit, "--out", str(arguments.out / "scored"),
    )
    sys.exit(subprocess.run([sys.executable, *scored], check=False).returncode)


if __name__ == "__main__":
    main()
