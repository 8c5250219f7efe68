"""What is exported, against what was there before: every domain, every restorer, on people that nobody trained on.

    python benchmarks/never_worse.py FACES [--degradation RECIPE,...] [--recipe swinir,codeformer,onestep] [--limit N]
                                     [--pack PACK] [--method METHOD] [--out DIR]
                                     [targets.KEY=VALUE] [finetune.KEY=VALUE] [verdict.KEY=VALUE]

FACES is a folder of clean aligned faces. Each recipe of damage is laid over them; one half is adapted on, its originals
never read, and the other is scored. For each domain and finetune recipe there is a table of photo, base, adapted and
exported, one of the targets, and at the end a line: what the verdict took, and by how much that differs from the base,
each with its 95 % interval. Last comes how right the verdict was; of what it kept back the whole adaptation is judged,
and not what lies halfway. What is finished is not computed again while the photos and recipes are the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain import adapt_to, evaluate_adapted, evaluate_targets, make_domain, print_gains, spread, with_overrides
from verdict import BETTER, DOMAINS, Truth, called_against_true, standing

from adapt.commands.finetune_setup import set_up_finetune
from adapt.commands.run import split_overrides
from adapt.evaluation.scores import Evaluation, difference
from adapt.evaluation.tables import markdown_table
from adapt.intervals import Interval
from adapt.packs.pack import load_pack
from adapt.photos.folder import find_photos

BASE: Final = "pre-trained"
ADAPTED: Final = "adapted"
EXPORTED: Final = "exported"


@dataclass(frozen=True, slots=True)
class Line:
    """One domain and finetune recipe.

    Attributes:
        strength: what the verdict took.
        gains: of what is exported over the base; positive is better.
        sharpness: of what is exported over the base's.
        adapted: what is true of the weights at the full strength.
    """

    domain: str
    recipe: str
    strength: float
    gains: Mapping[str, Interval]
    sharpness: float
    adapted: Truth

    @property
    def worse(self) -> bool:
        """By any of them beyond chance."""
        return standing(self.gains.values()) == "worse"

    @property
    def call(self) -> tuple[bool, Truth]:
        """Whether the verdict called it better, and what is true."""
        return (True, standing(self.gains.values())) if self.strength else (False, self.adapted)

    @property
    def better(self) -> bool:
        """By all of them beyond chance."""
        return all(gain.low > 0 for gain in self.gains.values())


def line_of(domain: str, recipe: str, strength: float, evaluations: Mapping[str, Evaluation]) -> Line:
    """What came of a domain, in a line."""
    base, exported = evaluations[BASE], evaluations[EXPORTED]
    sharpness = exported.scores["sharpness"].mean / base.scores["sharpness"].mean
    adapted = standing(gains_over(base, evaluations[ADAPTED]).values())
    return Line(domain, recipe, strength, gains_over(base, exported), sharpness, adapted)


def gains_over(base: Evaluation, other: Evaluation) -> dict[str, Interval]:
    """By how much each number is better, with its interval."""
    gains: dict[str, Interval] = {}
    for key, sign in BETTER.items():
        found = difference(base, other, key)
        low, high = sorted((sign * found.low + 0.0, sign * found.high + 0.0))  # no minus before a nought
        gains[key] = Interval(sign * found.mean + 0.0, low, high, found.n)
    return gains


def summary(lines: list[Line]) -> str:
    """All lines as a table, and how many are worse or better."""
    rows = [
        "| damage | fine-tuned | exported | PSNR | perceptual | identity | sharpness over the base's | |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for line in lines:
        cells = [
            f"{gain.mean:+.{digits}f} ({gain.low:+.{digits}f} to {gain.high:+.{digits}f})"
            for gain, digits in zip(line.gains.values(), (2, 4, 3), strict=True)
        ]
        taken = {0.0: "base", 1.0: "adapted"}.get(line.strength, f"{100 * line.strength:.0f} % adapted")
        called = "worse" if line.worse else "better" if line.better else ""
        rows.append(
            f"| {line.domain} | {line.recipe} | {taken} | {' | '.join(cells)} | {line.sharpness:.2f} | {called} |"
        )
    worse, better = (sum(getattr(line, name) for line in lines) for name in ("worse", "better"))
    soft = sum(line.sharpness < 0.9 for line in lines)
    return "\n".join(
        [
            *rows,
            "",
            f"Of {len(lines)}: worse by any beyond chance {worse}; better by all three {better}; less than 0.9 as sharp"
            f" as the base {soft}. Gains are positive where the exported model is better.",
            "",
            called_against_true([line.call for line in lines]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default=DOMAINS, help="recipes, separated by commas")
    parser.add_argument("--recipe", default="swinir,codeformer,onestep", help="finetune recipes, separated by commas")
    parser.add_argument("--limit", type=int, help="faces, spread evenly")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--method", default="adaptive", help="targets recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/never-worse"))
    arguments = with_overrides(parser)
    pack = load_pack(arguments.pack)
    tuning = split_overrides(arguments.overrides)["finetune"]
    lines: list[Line] = []
    for damage in arguments.degradation.split(","):
        for recipe in arguments.recipe.split(","):
            base = set_up_finetune(recipe, pack=arguments.pack, overrides=tuning).base_name
            domain = arguments.out / base.replace("/", "-") / damage
            make_domain(spread(find_photos(arguments.faces), arguments.limit), domain, damage, pack.card.size)
            work = domain / recipe
            adapt_to(
                domain, work, pack=arguments.pack, method=arguments.method, recipe=recipe,
                overrides=arguments.overrides, targets=domain / "targets",
            )
            evaluations = evaluate_adapted([domain], {ADAPTED: recipe}, pack)
            print(f"\n{damage}, {recipe}\n\n{markdown_table(evaluations)}")
            print_gains(evaluations, BASE)
            targets = evaluate_targets([domain], {"targets": "."}, pack)
            print(f"\nTargets, of the other half:\n\n{markdown_table(targets)}", flush=True)
            strength = json.loads((work / "verdict.json").read_text(encoding="utf-8"))["strength"]
            lines.append(line_of(damage, recipe, strength, evaluations))
    print(f"\n{summary(lines)}")


if __name__ == "__main__":
    main()
