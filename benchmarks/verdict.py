"""How right the verdict is: short runs whose originals are known, what the rule says of each, and what is true.

    python benchmarks/verdict.py runs FACES [--domains D,...] [--recipe swinir] [--seeds A:B] [--photos N] [--scored N]
                                 [--pack PACK] [--out DIR] [targets.KEY=VALUE] [finetune.KEY=VALUE]
    python benchmarks/verdict.py table [--out DIR] [--verdict RECIPE] [verdict.KEY=VALUE]

FACES is a folder of clean aligned faces. `runs` draws, for every seed and domain, some of them to be damaged and
adapted on and others to be scored, makes targets, fine-tunes shortly, and keeps of the last weights and of those
on the way back to the start the evidence on the photos that were adapted on, and how near the originals others come.
`table` asks the rule of each run, and prints what was called against what is true. Runs that are there are not made
again.

A model is better where by none of PSNR, perceptual distance and identity it is
worse beyond the 95 % interval of the mean and by at least one it is better; it is worse where by any it is worse.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch
from domain import degrade_faces, with_overrides
from torch import Tensor

from adapt.commands.finetune import finetune
from adapt.commands.finetune_setup import set_up_finetune
from adapt.commands.generate_targets import generate_targets
from adapt.commands.run import split_overrides
from adapt.commands.run_verdict import between, measure_all
from adapt.disk import write_json
from adapt.evaluation.metrics import psnr
from adapt.faces.measures import identity_distance
from adapt.intervals import Interval, mean_interval
from adapt.loading import load_distance, load_evaluator, load_restorer
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image
from adapt.photos.folder import PhotoFile, find_photos
from adapt.restorers.base import Restorer
from adapt.settings import VerdictSettings
from adapt.settings.recipe import load_recipe
from adapt.verdict.decision import Measurements, Verdict, decide

DOMAINS: Final = (
    "phone-night-moderate,phone-night-severe,phone-zoom-moderate,phone-zoom-severe,messenger-moderate,messenger-severe,"
    "video-call-moderate,video-call-severe,old-scan-moderate,old-scan-severe,web,old-photo,video-still,newspaper,"
    "camera-noise-moderate,camera-noise-severe,camera-noise-starlight,dtbfr-4x-moderate,dtbfr-4x-severe,"
    "dtbfr-8x-moderate,dtbfr-8x-severe"
)
METHOD: Final = "adaptive"
STRENGTHS: Final = (1.0, 0.5, 0.25)  # of what is fine-tuned, on the way from the start
BETTER: Final = {"psnr": 1, "perceptual": -1, "identity": -1}  # the direction of each number of the truth
Truth = Literal["worse", "same", "better"]
RISING: Final[tuple[Truth, ...]] = ("worse", "same", "better")


def drawn(faces: Sequence[PhotoFile], seed: int, count: int) -> list[PhotoFile]:
    """So many faces at random."""
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    return [faces[index] for index in order[:count].tolist()]


def make_run(folder: Path, faces: Sequence[PhotoFile], domain: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One short run: evidence on each model, and its numbers against the originals of photos that it did not see.

    Args:
        folder: everything but the result ends there.
        faces: those adapted on, then those scored.
        domain: recipe of the damage.
        arguments: of the command line.
    """
    pack, split = load_pack(arguments.pack), split_overrides(arguments.overrides)
    size = pack.card.size
    names = degrade_faces(faces[: arguments.photos], folder / "adapt", domain, size)
    scored = degrade_faces(faces[arguments.photos :], folder / "test", domain, size)
    setup = set_up_finetune(arguments.recipe, pack=arguments.pack, overrides=split["finetune"])
    photos = folder / "adapt" / "lq"
    generate_targets(
        photos, folder / "targets", method=METHOD, pack=arguments.pack, restorer=setup.base_name,
        overrides=split["targets"],
    )  # fmt: skip
    finetune(
        photos, folder / "targets", folder / "finetune", recipe=arguments.recipe, pack=arguments.pack,
        restorer=setup.name, overrides=split["finetune"],
    )  # fmt: skip
    adapted = last_of(folder / "finetune", setup.name)
    candidates = between(setup.restorer, adapted, STRENGTHS)
    evaluator = load_evaluator(arguments.pack, torch.device("cpu"))
    shown = {name: photos / f"{name}.png" for name in names}
    measurements = measure_all(setup.base, candidates, shown, evaluator=evaluator)
    damaged, clean = (
        torch.stack([read_image(folder / "test" / part / f"{name}.png") for name in scored]) for part in ("lq", "hq")
    )
    distance, recogniser = load_distance(pack, "pack"), evaluator.networks.recogniser

    def against(images: Tensor) -> dict[str, list[float]]:
        return {
            "psnr": psnr(images, clean).tolist(),
            "perceptual": distance(images, clean).tolist(),
            "identity": identity_distance(images, clean, recogniser).tolist(),
        }

    truth = {strength: against(model(damaged)) for strength, model in {0.0: setup.base, **candidates}.items()}
    return {
        "domain": domain, "recipe": arguments.recipe,
        "trust": measurements.trust,
        "evidence": {
            f"{strength:g}": numbers
            for strength, numbers in {0.0: measurements.base, **measurements.candidates}.items()
        },
        "truth": {f"{strength:g}": numbers for strength, numbers in truth.items()},
    }  # fmt: skip


def last_of(run: Path, start: str) -> Restorer:
    """The averaged weights at the end of a fine-tuning, whatever the best were: the rule is asked of bad ones too."""
    restorer = load_restorer(start)
    state = torch.load(run / "last" / "state.pt", map_location="cpu", weights_only=True)
    restorer.network.load_state_dict(state["ema"])
    return restorer


def true_of(run: Mapping[str, Any], strength: float) -> Truth:
    """What is true of a model of a run."""
    before, after = run["truth"]["0"], run["truth"][f"{strength:g}"]
    return standing(
        mean_interval([sign * (b - a) for a, b in zip(before[key], after[key], strict=True)])
        for key, sign in BETTER.items()
    )


def standing(gains: Iterable[Interval]) -> Truth:
    """What a model is, by its gains over the base in each number of the truth."""
    known = list(gains)
    if any(gain.high < 0 for gain in known):
        return "worse"
    return "better" if any(gain.low > 0 for gain in known) else "same"


def called(run: Mapping[str, Any], rule: VerdictSettings) -> Verdict:
    """What the rule says of a run."""
    numbers = {float(strength): each for strength, each in run["evidence"].items()}
    return decide(Measurements(run["trust"], numbers[0.0], {each: numbers[each] for each in rule.strengths}), rule)


def table_of(runs: Sequence[Mapping[str, Any]], rule: VerdictSettings) -> str:
    """Called against true, in runs, and the two numbers that matter."""
    calls: list[tuple[bool, Truth]] = []
    for run in runs:
        taken = called(run, rule).strength
        best = RISING[max(RISING.index(true_of(run, each)) for each in rule.strengths)]
        calls.append((True, true_of(run, taken)) if taken else (False, best))
    return called_against_true(calls)


def called_against_true(calls: Sequence[tuple[bool, Truth]]) -> str:
    """A table of what was called against what is true, and the numbers that matter.

    Args:
        calls: of each run, whether it was called better, and what is true of what was exported; where the base was
            kept, what is true of the best that could have been.
    """
    counts = Counter(calls)
    lines = ["| called | better | same | worse |", "| --- | ---: | ---: | ---: |"]
    for exported, call in ((True, "better: exported"), (False, "base kept")):
        lines.append(f"| {call} | {' | '.join(str(counts[exported, true]) for true in reversed(RISING))} |")
    exported = sum(was for was, _ in calls)
    right, missed = counts[True, "better"], counts[False, "better"]
    share = f"{100 * right / exported:.0f} %" if exported else "none was called so"
    lines += ["", f"{len(calls)} runs. Of those called better, right: {share} ({right} of {exported}); worse:"
              f" {counts[True, 'worse']}. Of {right + missed} gains, missed: {missed}."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["runs", "table"])
    parser.add_argument("faces", type=Path, nargs="?", help="for runs")
    parser.add_argument("--domains", default=DOMAINS, help="recipes of damage, separated by commas")
    parser.add_argument("--recipe", default="swinir", help="finetune recipe")
    parser.add_argument("--seeds", default="0:3", help="from the first up to the second, which is left out")
    parser.add_argument("--photos", type=int, default=16, help="adapted on")
    parser.add_argument("--scored", type=int, default=16, help="other photos, for the truth")
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/verdict"))
    parser.add_argument("--verdict", default="default", help="verdict recipe")
    arguments = with_overrides(parser)
    if arguments.what == "runs":
        if arguments.faces is None:
            parser.error("runs: name a folder of clean aligned faces")
        faces = find_photos(arguments.faces)
        first, _, end = arguments.seeds.partition(":")
        for seed in range(int(first), int(end)):
            for domain in arguments.domains.split(","):
                folder = arguments.out / arguments.recipe / domain / str(seed)
                if not (folder / "run.json").is_file():
                    chosen = drawn(faces, seed, arguments.photos + arguments.scored)
                    write_json(folder / "run.json", make_run(folder, chosen, domain, arguments))
    rule = load_recipe(
        arguments.verdict, VerdictSettings, split_overrides(arguments.overrides)["verdict"], pack=arguments.pack
    )
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.out.rglob("*/run.json"))]
    print(table_of([run for run in runs if "evidence" in run], rule))


if __name__ == "__main__":
    main()
