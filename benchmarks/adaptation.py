"""Adapts a restorer to damage it never saw and compares it with the pre-trained one on people it never saw.

    python benchmarks/adaptation.py FACES [--degradation RECIPE,...] [--limit N] [--method METHOD] [--recipe RECIPE]
                                   [--both-ways] [--originals] [--pack PACK] [--out DIR]
                                   [targets.KEY=VALUE] [finetune.KEY=VALUE]

FACES is a folder of clean aligned faces, which each recipe degrades. One half (by a hash of the name) is adapted on,
its clean originals never read, but for the row of --originals; the other half is the table's. With --both-ways a second
model is adapted on that other half, and the table is of all faces, each restored by the model that did not see it;
that takes twice the time, and differences are known better. Several recipes end in
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

from adapt.evaluation.scores import Evaluation
from adapt.evaluation.tables import markdown_table
from adapt.loading import load_distance
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
    parser.add_argument("--both-ways", action="store_true", help="adapt on each half, and score all faces")
    parser.add_argument("--originals", action="store_true", help="a row for the same with originals as targets")
    arguments = with_overrides(parser)
    pack = load_pack(arguments.pack)
    results = arguments.out or Path("runs/adaptation") / Path(arguments.recipe).stem  # targets are one restorer's
    domains: dict[str, dict[str, Evaluation]] = {}
    for recipe in arguments.degradation.split(","):
        out = results / recipe
        ways = [out, out / "turned"] if arguments.both_ways else [out]
        works = {"adapted": "."} | ({"adapted to originals": "originals"} if arguments.originals else {})
        for way in ways:
            faces = spread(find_photos(arguments.faces), arguments.limit)
            make_domain(faces, way, recipe, pack.card.size, turned=way != out)
            adapt_to(
                way, way, pack=arguments.pack, method=arguments.method, recipe=arguments.recipe,
                overrides=arguments.overrides,
            )
            if arguments.originals:
                adapt_to_originals(
                    way, way / "originals", targets=way / "targets", pack=arguments.pack, recipe=arguments.recipe,
                    overrides=arguments.overrides,
                )
        domains[recipe] = evaluate_adapted(ways, works, pack)
        named = f"perceptual network: {load_distance(pack).name}"
        half = "all faces, each by the model that did not see it" if arguments.both_ways else "held-out half"
        print(f"\n{recipe}, {half}; {named}\n\n{markdown_table(domains[recipe])}")
        print_gains(domains[recipe], "pre-trained")
        targets = evaluate_targets(ways, {"targets": "."}, pack)
        print(f"\nTargets of what was adapted on, against their originals:\n\n{markdown_table(targets)}")
    if len(domains) > 1:
        print(f"\nAll domains\n\n{joint_table(domains)}")


if __name__ == "__main__":
    main()
