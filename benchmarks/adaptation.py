"""Adapts a restorer to damage it never saw and compares it with the pre-trained one on people it never saw.

    python benchmarks/adaptation.py FACES [--degradation RECIPE,...] [--limit N] [--method METHOD] [--recipe RECIPE]
                                   [--originals] [--pack PACK] [--out DIR] [targets.KEY=VALUE] [finetune.KEY=VALUE]

FACES is a folder of clean aligned faces, which each recipe degrades. One half (by a hash of the name) is adapted on,
its clean originals never read, but for the row of --originals; the other half is the table's. Several recipes end in
one table in the layout of DT-BFR, Table 1: a row for each family of recipes and model, and in each cell the numbers of
its members.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from domain import (
    adapt_to,
    adapt_to_originals,
    evaluate_adapted,
    evaluate_targets,
    joint_table,
    make_domain,
    print_gains,
    spread,
    with_overrides,
)

from adapt.build import load_distance
from adapt.evaluation.scores import Evaluation
from adapt.evaluation.tables import markdown_table
from adapt.packs.pack import load_pack
from adapt.photos.folder import find_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--degradation", default="camera-noise-starlight", help="recipes, separated by commas")
    parser.add_argument("--limit", type=int, help="faces, spread evenly")
    parser.add_argument("--out", type=Path, help="left out, runs/adaptation/ and the finetune recipe's name")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--method", default="adaptive", help="targets recipe")
    parser.add_argument("--recipe", default="swinir", help="finetune recipe")
    parser.add_argument("--originals", action="store_true", help="a row for the same with originals as targets")
    arguments = with_overrides(parser)
    pack = load_pack(arguments.pack)
    results = arguments.out or Path("runs/adaptation") / Path(arguments.recipe).stem  # targets are one restorer's
    domains: dict[str, dict[str, Evaluation]] = {}
    for recipe in arguments.degradation.split(","):
        out = results / recipe
        make_domain(spread(find_photos(arguments.faces), arguments.limit), out, recipe, pack.card.size)
        adapt_to(
            out, out, pack=arguments.pack, method=arguments.method, recipe=arguments.recipe,
            overrides=arguments.overrides,
        )
        works = {"adapted": out}
        if arguments.originals:
            works["adapted to originals"] = out / "originals"
            adapt_to_originals(
                out, out / "originals", targets=out / "targets", pack=arguments.pack, recipe=arguments.recipe,
                overrides=arguments.overrides,
            )
        domains[recipe] = evaluate_adapted(out, works, pack)
        named = f"perceptual network: {load_distance(pack).name}"
        print(f"\n{recipe}, held-out half; {named}\n\n{markdown_table(domains[recipe])}")
        print_gains(domains[recipe], "pre-trained")
        targets = evaluate_targets(out, {"targets": out}, pack)
        print(f"\nTargets of the other half, against their originals:\n\n{markdown_table(targets)}")
    if len(domains) > 1:
        print(f"\nAll domains, held-out halves\n\n{joint_table(domains)}")


if __name__ == "__main__":
    main()
