"""All tables that a user decides by, by one command, each with what it was made with.

    python benchmarks/tables.py TEST TRAIN [--backgrounds FOLDER] [--only NAME,...] [--out docs/tables]
                                [--work runs/tables]

TEST and TRAIN are folders of clean aligned faces: those that no network was trained on, by which models are scored, and
those that settings may be chosen by. Each table becomes a file of --out: its command, the pack's digest, the commit,
machine and date, and what the command printed of tables. A table whose file names this command and pack is left alone:
a run which was stopped goes on. After a change of the code remove the files. What takes hours says so.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import yaml

from adapt._version import versions
from adapt.digests import settings_digest
from adapt.disk import write_text
from adapt.packs.pack import load_pack

PACK: Final = "tiny"  # of all these scripts, where none is named
HERE: Final = Path(__file__).resolve().parent
SHORT: Final = ("finetune.steps=30", "finetune.batch=4", "finetune.evaluate_every=30", "verdict.photos=12")


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        name: of its file.
        what: its title.
        cost: about how long on two slow cores.
        command: script and arguments; TEST, TRAIN, BACKGROUNDS and WORK stand for folders.
    """

    name: str
    what: str
    cost: str
    command: tuple[str, ...]


TABLES: Final = (
    Table("restorers", "Restorers before any adaptation, on faces that nobody trained on", "20 min",
          ("restorers.py", "TEST", "--limit", "24", "--out", "WORK/restorers")),
    Table("speed", "Exported restorers", "1 min",
          ("restorer_speed.py", "tiny/swinir", "tiny/onestep", "tiny/onestep-thin")),
    Table("targets", "Targets beside what the restorer makes, on training faces", "15 min",
          ("target_strength.py", "TRAIN", "--maker", "adaptive", "--limit", "7", "--out", "WORK/targets")),
    Table("never-worse", "What is exported, beside what was there before", "2 h",
          ("never_worse.py", "TEST", "--limit", "28", "--out", "WORK/never-worse", *SHORT)),
    Table("adaptation", "SwinIR adapted to a camera's starlight", "30 min",
          ("adaptation.py", "TEST", "--recipe", "swinir", "--out", "WORK/adaptation")),
    Table("codebook", "What a codebook gives back", "1 min", ("codebook.py", "TEST", "--limit", "48")),
    Table("prior", "Samples of the prior", "1 h",
          ("prior_samples.py", "TEST", "--priors", "tiny", "--count", "512", "--out", "WORK/prior-samples")),
    Table("parts", "What each part of the student's training gives", "40 min",
          ("parts.py", "TRAIN", "TEST", "--out", "WORK/parts")),
    Table("faces", "Finding faces", "10 min", ("faces.py", "TEST", "BACKGROUNDS", "--photos", "4")),
)  # fmt: skip


def made_with(command: str, pack: str) -> str:
    """The lines by which a table that is there is known."""
    networks = load_pack(pack)
    digest = settings_digest({name: networks.network_digest(name) for name in sorted(networks.card.networks)})
    return f"`{command}`\n\nPack {pack} {digest[:12]}, recipes {recipes_digest()[:12]};"


def recipes_digest() -> str:
    """Stands for what recipes say, but for those of pre-training, which made the pack."""
    folder = HERE.parent / "recipes"
    paths = [path for path in sorted(folder.rglob("*.yaml")) if "pretrain" not in path.parts]
    said = {path.relative_to(folder).as_posix(): yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
    return settings_digest(said)


def code() -> str:
    """The commit that is checked out, and whether anything was changed since."""
    asked = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    done = [subprocess.run(["git", *each], capture_output=True, text=True, check=False, cwd=HERE) for each in asked]
    if any(each.returncode for each in done):
        return "of no repository"
    return done[0].stdout.strip() + (" and changes" if done[1].stdout.strip() else "")


def machine() -> str:
    """Processor, cores and libraries."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = found[0] if found else name
    return f"{os.cpu_count()} cores of {name}; torch {versions()['torch']}, {torch.get_num_threads()} threads"


def tables_in(text: str) -> str:
    """What a benchmark printed, without its progress: headings, sentences, tables; all where there are none."""
    if "\n|" not in text:
        return "\n".join(["```", *text.strip().splitlines(), "```"])
    begin = ("|", "- ", "Of ", "Less ", "Targets")
    end = ("onestep", "swinir", "codeformer")
    kept = [
        line for line in text.splitlines()
        if not line.strip() or line.startswith(begin) or line.endswith(end) or "Of those called better" in line
    ]  # fmt: skip
    return "\n".join(kept).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("--backgrounds", type=Path, help="pictures without faces; the table `faces` needs them")
    parser.add_argument("--only", help=f"of {', '.join(table.name for table in TABLES)}")
    parser.add_argument("--out", type=Path, default=Path("docs/tables"))
    parser.add_argument("--work", type=Path, default=Path("runs/tables"))
    arguments = parser.parse_args()
    only = None if arguments.only is None else arguments.only.split(",")
    if unknown := {*(only or ())} - {table.name for table in TABLES}:
        parser.error(f"--only {', '.join(sorted(unknown))}: expected of {', '.join(table.name for table in TABLES)}")
    failed: list[str] = []
    for table in TABLES:
        if (only is not None and table.name not in only) or (table.name == "faces" and arguments.backgrounds is None):
            continue
        shown = f"python benchmarks/{' '.join(table.command)}".replace("WORK/", "runs/tables/")
        about, path = made_with(shown, PACK), arguments.out / f"{table.name}.md"
        if path.is_file() and about in path.read_text(encoding="utf-8"):
            print(f"{path}: made with this command and pack already", flush=True)
            continue
        print(f"{table.name}: about {table.cost}", flush=True)
        folders = {"TEST": arguments.test, "TRAIN": arguments.train, "BACKGROUNDS": arguments.backgrounds}
        given = [str(folders.get(each, each)).replace("WORK", str(arguments.work)) for each in table.command]
        done = subprocess.run(
            [sys.executable, str(HERE / given[0]), *given[1:]], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            print(f"{table.name}: ended with exit code {done.returncode}; nothing is written", file=sys.stderr)
            failed.append(table.name)
            continue
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        text = f"# {table.what}\n\n{about} commit {code()}; {date}; {machine()}.\n\n{tables_in(done.stdout)}\n"
        write_text(path, text)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
