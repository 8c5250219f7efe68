"""What the gate is worth: targets drawn with it and without it, and what a restorer learns from either.

    python benchmarks/gate.py FACES [--degradation RECIPE,...] [--method METHOD,...] [--limit N] [--pack PACK]
                              [--recipe RECIPE] [--out DIR] [targets.KEY=VALUE] [finetune.KEY=VALUE]

FACES is a folder of clean aligned faces. One half of them, degraded, gets targets, its originals never read, and the
other half is restored by what learned from them. METHOD are targets recipes; the gate is that of `adaptive`, whichever
recipe draws. For each domain and method there is a table of the targets and one of the restored half, and how many
targets were drawn again and refused, and why. At the end the same over all domains.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from domain import (
    adapt_to,
    evaluate_adapted,
    evaluate_targets,
    gained,
    make_domain,
    print_gains,
    spread,
    with_overrides,
)

from adapt.evaluation.tables import markdown_table
from adapt.packs.pack import Pack, load_pack
from adapt.photos.folder import find_photos
from adapt.settings import TargetSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.store import read_records

DOMAINS: Final = "camera-noise-starlight,dtbfr-4x-moderate,dtbfr-4x-severe,dtbfr-8x-moderate,dtbfr-8x-severe"
WITHOUT: Final = "targets.gate={max_low_frequency_change: 9, min_contrast: 0}"
OFF: Final = "without"
ON: Final = "with"


@dataclass(slots=True)
class Count:
    """What the gate did to the targets of a method.

    Attributes:
        targets: all of them.
        again: how many were drawn again.
        refused: how many were refused for good.
        reasons: of these, by what they say.
    """

    targets: int = 0
    again: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, store: Path) -> None:
        for record in read_records(store):
            self.targets += 1
            self.again += record.redrawn > 0
            self.refused += record.status == "rejected"
            if record.reason is not None:
                self.reasons[re.split(r"[:\d]", record.reason)[0].strip()] += 1

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
        told = f"of {self.targets}: drawn again {self.again}, refused {self.refused}"
        return f"{told} ({reasons})" if reasons else told


def gate_of(pack: Pack) -> str:
    """The override that gives a recipe the gate of `adaptive`."""
    gate = load_recipe("adaptive", TargetSettings, pack=str(pack.folder)).gate
    return f"targets.gate={json.dumps(gate.model_dump(mode='json'))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default=DOMAINS, help="recipes, separated by commas")
    parser.add_argument("--method", default="identity,guided", help="targets recipes, separated by commas")
    parser.add_argument("--recipe", default="swinir", help="finetune recipe")
    parser.add_argument("--limit", type=int, help="faces, spread evenly")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/gate"))
    arguments = with_overrides(parser)
    pack = load_pack(arguments.pack)
    gates = {OFF: WITHOUT, ON: gate_of(pack)}
    domains = [arguments.out / name for name in arguments.degradation.split(",")]
    for domain in domains:
        make_domain(spread(find_photos(arguments.faces), arguments.limit), domain, domain.name, pack.card.size)
        for method in arguments.method.split(","):
            for name, gate in gates.items():
                adapt_to(
                    domain, domain / f"{method}-{name}", pack=arguments.pack, method=method, recipe=arguments.recipe,
                    overrides=[gate, *arguments.overrides],
                )
            report([domain], method, pack)
    for method in arguments.method.split(",") if len(domains) > 1 else []:
        report(domains, method, pack)


def report(domains: Sequence[Path], method: str, pack: Pack) -> None:
    """What the gate did, and the tables of targets and of the restored half, over the domains together."""
    works, count = {f"{name} the gate": f"{method}-{name}" for name in (OFF, ON)}, Count()
    for domain in domains:
        count.add(domain / works[f"{ON} the gate"] / "targets")
    print(f"\n{domains[0].name if len(domains) == 1 else 'all domains'}, {method}: {count}")
    targets = evaluate_targets(domains, works, pack)
    off, on = targets.values()
    print(f"\nTargets:\n\n{markdown_table(targets)}\n\nWith less without, of those there are: {gained(off, on)}")
    restored = evaluate_adapted(domains, works, pack)
    print(f"\nRestored:\n\n{markdown_table(restored)}", flush=True)
    print_gains(restored, f"{OFF} the gate")


if __name__ == "__main__":
    main()
