"""DynFaceRestore's tables and figure, and the methods built on it, on faces that a recipe degrades.

    python benchmarks/dynamic.py TABLE FACES [--limit N] [--pack PACK] [--out DIR] [--json FILE] [KEY=VALUE ...]

    table3    what each part brings: a prior alone, and settings A to F of the paper's Table 3
    table7    one to four guidances, without the adjuster
    table8    start steps 400, 1000 and each photo's own
    gradient  the gradient through the network against the cheap one at the prediction
    factor    the guided method's N of each photo against each fixed N, over photos of all blurs
    regions   one blur level for a photo against one for each of its windows (try --degradation patches)
    fig11     a blur that is 3 and believed to be another, with and without refinement
    makers    low-frequency, dynamic and adaptive as target makers, and the restorer fine-tuned on each

FACES is a folder of clean aligned faces that took no part in training. KEY=VALUE go over the targets recipe in every
row (of makers: targets.KEY=VALUE and finetune.KEY=VALUE). Whatever is finished is not computed again while recipe,
weights and photos are the same; after a change of the code, take another folder. Identity and landmark distance
are by the pack's own networks of faces, not the paper's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from domain import (
    adapt_to,
    degrade_faces,
    evaluate_adapted,
    evaluate_targets,
    joint_table,
    make_domain,
    print_gains,
    spread,
    with_overrides,
)
from refinement import Belief, Outcome, draw_refinement, gap_closed, outcome_of, refinement_table

from adapt.blur.labels import std_levels
from adapt.cli.printing import Lines
from adapt.devices import pick_device
from adapt.diffusion.schedule import TIMESTEPS
from adapt.digests import file_digest, photo_seed, settings_digest
from adapt.disk import write_json
from adapt.errors import UsageError
from adapt.evaluation.catalogue import METRICS
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.scores import Evaluation, difference
from adapt.evaluation.tables import markdown_table
from adapt.guidance.low_frequency import factor_for
from adapt.loading import load_blur_parts, load_distance, load_prior, load_restorer, measuring_networks
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image, write_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import load_fitted
from adapt.settings import TargetSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.generate import at_a_time
from adapt.targets.methods import SamplingInfo, target_maker
from adapt.targets.restored import restored_for

CAMERA_DOMAINS: Final = "dtbfr-4x-moderate,dtbfr-4x-severe,dtbfr-8x-moderate,dtbfr-8x-severe"
METHODS: Final = ("low-frequency", "dynamic", "adaptive")
Rows = dict[str, list[str]]
"""Rows of a table by name, each with what it puts over the recipe."""


# ---------------------------------------------------------------- the rows of each table

_FROM_NOISE = ["start_t=1000"]
_ONE_GUIDE = ["guidance.0.weights=[1.0]"]
_NO_MAP = ["guidance.0.adjuster=false"]


def table3(base: TargetSettings, size: int) -> Rows:
    """Table 3. The baseline is unconditional: nothing of the photo is in it, not even its start."""
    return {
        "baseline": ["method=low-frequency", "guidance=[]", "eta=0", "fallback=null", *_FROM_NOISE],
        "A: DBLM": [*_FROM_NOISE, *_ONE_GUIDE, *_NO_MAP],
        "B: DBLM, multiple": [*_FROM_NOISE, *_NO_MAP],
        "C: DBLM, multiple, DSST": _NO_MAP,
        "D: DBLM, multiple, DGSA": _FROM_NOISE,
        "E: DBLM, DSST, DGSA": _ONE_GUIDE,
        "F: all": [],
    }


def table7(base: TargetSettings, size: int) -> Rows:
    """Table 7: the numbers of guidances with the paper's weights."""
    weights = ("[1.0]", "[0.8, 0.2]", "[0.7, 0.2, 0.1]", "[0.7, 0.1, 0.1, 0.1]")
    return {f"{count}: {each}": [*_NO_MAP, f"guidance.0.weights={each}"] for count, each in enumerate(weights, 1)}


def table8(base: TargetSettings, size: int) -> Rows:
    """Table 8: fixed start steps and the table's; a step is as long everywhere."""
    early = 400
    return {
        f"{early} (< t*)": [f"start_t={early}", f"steps={math.ceil(base.steps * (early + 1) / TIMESTEPS)}"],
        "1000 (> t*)": _FROM_NOISE,
        "t*": [],
    }


def factor(base: TargetSettings, size: int) -> Rows:
    """N by each photo's blur, and each N that this can be, for all photos alike."""
    place = next(index for index, term in enumerate(base.guidance) if term.name == "low_frequency")
    choices = sorted({factor_for(std, (size, size)) for std in std_levels(size).tolist()})
    rows = {ADAPTIVE: "null", **{f"N = {each}": str(each) for each in choices}}
    return {name: [f"guidance.{place}.factor={each}"] for name, each in rows.items()}


def gradient(base: TargetSettings, size: int) -> Rows:
    """Where the gradient is taken: with a backward pass of the network, as in the paper, or without."""
    return {where: [f"guidance.0.gradient={where}"] for where in ("network", "x0")}


def regions(base: TargetSettings, size: int) -> Rows:
    """Blur levels of a photo: one, or of overlapping windows, blended."""
    return {f"{count} x {count}": [f"guidance.0.regions={count}"] for count in (1, 2, 3)}


ADAPTIVE: Final = "N by blur"
FACTOR_METRICS: Final = ("psnr", "perceptual")  # by these the rule is judged
TABLES: Final[dict[str, tuple[str, Callable[[TargetSettings, int], Rows]]]] = {
    "table3": ("dynamic", table3),
    "table7": ("dynamic", table7),
    "table8": ("dynamic", table8),
    "gradient": ("guided", gradient),
    "factor": ("guided", factor),
    "regions": ("guided", regions),
}


# ---------------------------------------------------------------- drawing


@dataclass(frozen=True, slots=True)
class Faces:
    """Degraded faces on disk.

    Attributes:
        folder: with hq and lq.
        names: of the images that count, in both.
    """

    folder: Path
    names: list[str]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The images of one row.

    Attributes:
        folder: where they are, each under its photo's name.
        infos: how each was drawn.
        seconds: per photo, restorer and sampler.
    """

    folder: Path
    infos: dict[str, SamplingInfo]
    seconds: float

    @property
    def starts(self) -> str:
        """The range of the start steps, as in the paper's Table 3."""
        steps = [info.start_t for info in self.infos.values()]
        return f"{min(steps)}" if min(steps) == max(steps) else f"[{min(steps)}, {max(steps)}]"

    @property
    def evaluations(self) -> float:
        """Of the network, mean over photos."""
        return sum(info.evaluations for info in self.infos.values()) / len(self.infos)


def draw(faces: Faces, settings: TargetSettings, pack: str, out: Path, title: str) -> Drawn:
    """Draw a target of every photo, or find them drawn; images that are not finite are left out, and named."""
    device = pick_device()
    parts, blur = load_blur_parts(pack, settings, device)
    paths = {name: faces.folder / "lq" / f"{name}.png" for name in faces.names}
    digests = {name: file_digest(path) for name, path in paths.items()}
    opened = load_pack(pack)
    identity = {
        "recipe": settings.model_dump(mode="json", exclude={"batch"}),
        "networks": [opened.network_digest("prior"), opened.network_digest(opened.card.restorer), blur],
        "photos": digests,
    }
    folder = out / "drawn" / settings_digest(identity)[:12]
    record = folder / "drawn.json"
    if record.is_file():
        kept = json.loads(record.read_text(encoding="utf-8"))
        infos = {name: SamplingInfo(**info) for name, info in kept["infos"].items()}
        return Drawn(folder / "images", infos, kept["seconds"])
    maker = target_maker(settings, load_prior(pack).to(device), parts)
    restorer = load_restorer(pack).to(device)
    line, infos, spent = Lines(title), dict[str, SamplingInfo](), 0.0
    together = at_a_time(settings, device)
    for first in range(0, len(faces.names), together):
        names = faces.names[first : first + together]
        photos = torch.stack([read_image(paths[name]) for name in names]).to(device)
        begun = time.perf_counter()
        restored = restored_for(photos, restorer, settings)
        made = maker.make(photos, restored, [photo_seed(settings.seed, digests[name]) for name in names])
        images = made.images.cpu()
        spent += time.perf_counter() - begun
        for name, image, info in zip(names, images, made.infos, strict=True):
            if not bool(image.isfinite().all()):
                line.note(f"  {title}: {name}: its guidance stopped being finite")
                continue
            write_image(folder / "images" / f"{name}.png", image, overwrite=True)
            infos[name] = info
        line(first + len(names), len(faces.names))
    seconds = spent / len(faces.names)
    write_json(record, {"seconds": seconds, "infos": {name: asdict(info) for name, info in infos.items()}, **identity})
    return Drawn(folder / "images", infos, seconds)


# ---------------------------------------------------------------- tables


def with_columns(table: str, columns: Mapping[str, Sequence[str]]) -> str:
    """A markdown table with more columns at its right."""
    head, rule, *rows = table.splitlines()
    lines = [f"{head} {' | '.join(columns)} |", f"{rule} {' | '.join(['---:'] * len(columns))} |"]
    cells = zip(*columns.values(), strict=True)
    return "\n".join([*lines, *(f"{row} {' | '.join(each)} |" for row, each in zip(rows, cells, strict=True))])


def run_table(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw, evaluate and print the rows of one of TABLES."""
    method, rows_of = TABLES[arguments.table]
    pack = load_pack(arguments.pack)
    size, distance, networks = pack.card.size, load_distance(pack), measuring_networks(pack)
    base = load_recipe(method, TargetSettings, arguments.overrides, pack=arguments.pack)
    folder = arguments.out / arguments.degradation
    chosen = spread(find_photos(arguments.faces), arguments.limit)
    faces = Faces(folder, degrade_faces(chosen, folder, arguments.degradation, size))
    drawn: dict[str, Drawn] = {}
    evaluations: dict[str, Evaluation] = {}
    for name, changes in rows_of(base, size).items():
        settings = load_recipe(method, TargetSettings, [*arguments.overrides, *changes], pack=arguments.pack)
        drawn[name] = draw(faces, settings, arguments.pack, arguments.out, f"{arguments.table}, {name}")
        evaluations[name] = evaluate_folder(
            drawn[name].folder, truth=folder / "hq", distance=distance, networks=networks
        )
    more = {
        "start t": [each.starts for each in drawn.values()],
        "evaluations": [f"{each.evaluations:.1f}" for each in drawn.values()],
        "s per photo": [f"{each.seconds:.2f}" for each in drawn.values()],
    }
    print(f"{len(chosen)} photos, {arguments.degradation}, perceptual network: {distance.name}\n")
    print(with_columns(markdown_table(evaluations), more))
    if arguments.table == "factor":
        print(f"\n{factor_notes(evaluations, drawn[ADAPTIVE].infos)}")
    return {
        name: {
            **evaluations[name].as_json(),
            "start_t": each.starts,
            "evaluations": each.evaluations,
            "seconds": each.seconds,
            "infos": {photo: asdict(info) for photo, info in each.infos.items()},
        }
        for name, each in drawn.items()
    }


def factor_notes(evaluations: Mapping[str, Evaluation], infos: Mapping[str, SamplingInfo]) -> str:
    """What N by blur gains over each fixed N, photo by photo; and each row's numbers where the rule chose which N."""
    lines = ["N by blur, less the same photos at a fixed N:", ""]
    ours = evaluations[ADAPTIVE]
    for name, other in evaluations.items():
        if name != ADAPTIVE:
            gains = {key: difference(other, ours, key) for key in FACTOR_METRICS}
            texts = [f"{key} {gain.mean:+.4g} ({gain.shown('+.3g')})" for key, gain in gains.items()]
            lines.append(f"- {name}: {', '.join(texts)}")
    fixed = [each for name, each in evaluations.items() if name != ADAPTIVE]
    values = [{row["id"]: float(row["psnr"]) for row in each.rows} for each in fixed]
    best = [max(each[photo] for each in values) for photo in values[0]]
    lines += ["", f"Each photo at its best N, by the truth: {sum(best) / len(best):.3f} dB; no rule can do better."]
    groups: dict[int, set[str]] = {}
    for photo, info in infos.items():
        assert info.factor is not None  # the guided method has a low-frequency constraint
        groups.setdefault(info.factor, set()).add(photo)
    chosen = sorted(groups)
    headings = [f"rule chose {each} ({len(groups[each])} photos)" for each in chosen]
    names = " / ".join(METRICS[key].title or key for key in FACTOR_METRICS)
    lines += ["", f"{names} of the photos for which", "", f"| | {' | '.join(headings)} |"]
    lines.append(f"| --- | {' | '.join(['---:'] * len(chosen))} |")
    for name, evaluation in evaluations.items():
        cells: list[str] = []
        for each in chosen:
            rows = [row for row in evaluation.rows if row["id"] in groups[each]]
            means = {key: sum(float(row[key]) for row in rows) / max(len(rows), 1) for key in FACTOR_METRICS}
            cells.append(" / ".join(f"{mean:.{METRICS[key].digits}f}" for key, mean in means.items()))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---------------------------------------------------------------- figure and makers


def run_fig11(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fig. 11: PSNR over the std believed at first."""
    device = pick_device()
    settings = load_recipe("dynamic", TargetSettings, arguments.overrides, pack=arguments.pack)
    prior = load_prior(arguments.pack).to(device)
    files = spread(find_photos(arguments.faces), arguments.limit)
    digests = [file_digest(file.path) for file in files]
    truth = torch.stack([load_fitted(file.path, prior.size) for file in files]).to(device)
    seeds = [photo_seed(settings.seed, digest) for digest in digests]
    stds = [float(std) for std in arguments.stds.split(",")]
    if arguments.true_std not in stds:
        raise UsageError(f"--stds: expected the true std, {arguments.true_std:g}, among {arguments.stds}")
    recipe = settings.model_dump(mode="json", exclude={"batch"})
    network = load_pack(arguments.pack).network_digest("prior")
    outcomes: dict[tuple[Belief, float], Outcome] = {}
    line = Lines("fig11")
    wanted: list[tuple[Belief, float]] = [(belief, std) for std in stds for belief in ("fixed", "refined")]
    for count, (belief, std) in enumerate(wanted, 1):
        key = settings_digest([recipe, network, digests, arguments.true_std, belief, std])[:12]
        outcomes[belief, std] = outcome_of(
            arguments.out / "fig11" / f"{key}.json", prior, truth, seeds,
            true_std=arguments.true_std, begun=std, belief=belief, settings=settings,
        )
        line(count, len(wanted), f"{belief} at {std:g}: {outcomes[belief, std].mean:.2f} dB")
    image = arguments.out / "fig11.png"
    draw_refinement(image, outcomes, arguments.true_std)
    print(f"{len(files)} photos under a Gaussian of {arguments.true_std:g} pixels at 512; {settings.steps} steps of")
    print(f"{settings.solver}; curves in {image}\n\n{refinement_table(outcomes, arguments.true_std)}")
    return {
        f"{belief} {std:g}": {
            **asdict(outcome),
            "gap closed": gap_closed(outcomes, arguments.true_std, std) if belief == "refined" else None,
        }
        for (belief, std), outcome in outcomes.items()
    }


def run_makers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each method's targets, and the restorer fine-tuned on them, in every domain."""
    pack = load_pack(arguments.pack)
    faces = spread(find_photos(arguments.faces), arguments.limit)
    name = load_distance(pack).name
    domains: dict[str, dict[str, Evaluation]] = {}
    targets: dict[str, dict[str, Evaluation]] = {}
    for recipe in arguments.degradation.split(","):
        domain = arguments.out / recipe
        make_domain(faces, domain, recipe, pack.card.size)
        works = {method: method for method in arguments.methods.split(",")}
        for method in works:
            adapt_to(
                domain, domain / method, pack=arguments.pack, method=method, recipe=arguments.recipe,
                overrides=arguments.overrides,
            )
        targets[recipe] = evaluate_targets([domain], works, pack)
        domains[recipe] = evaluate_adapted([domain], works, pack)
        print(f"\n{recipe}; perceptual network: {name}\n\nTargets against the originals\n")
        print(f"{markdown_table(targets[recipe])}\n\nHeld-out half\n\n{markdown_table(domains[recipe])}")
        print_gains(domains[recipe], "pre-trained")
    if len(domains) > 1:
        print(f"\nTargets of all domains\n\n{joint_table(targets)}")
        print(f"\nHeld-out halves of all domains\n\n{joint_table(domains)}")
    return {
        recipe: {
            "targets": {method: each.as_json() for method, each in targets[recipe].items()},
            "held out": {model: each.as_json() for model, each in domains[recipe].items()},
        }
        for recipe in domains
    }


# ---------------------------------------------------------------- command line


def parsed() -> argparse.Namespace:
    """The arguments; KEY=VALUE may stand anywhere after FACES."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    for name in (*TABLES, "fig11", "makers"):
        table = tables.add_parser(name, help="see above")
        table.add_argument("faces", type=Path)
        table.add_argument("--limit", type=int, default=4 if name == "fig11" else None, help="photos, spread evenly")
        table.add_argument("--pack", default="tiny")
        table.add_argument("--out", type=Path, default=Path("runs/dynamic") / ("makers" if name == "makers" else ""))
        table.add_argument("--json", type=Path, help="all numbers")
        if name == "fig11":
            table.add_argument("--true-std", type=float, default=3.0, help="pixels at 512")
            table.add_argument("--stds", default="2,2.5,3,3.5,4", help="believed at first; the true one among them")
        else:
            domain = CAMERA_DOMAINS if name == "makers" else "dynface"
            table.add_argument("--degradation", default=domain, help="recipe; of makers several, with commas")
        if name == "makers":
            table.add_argument("--methods", default=",".join(METHODS), help="targets recipes")
            table.add_argument("--recipe", default="swinir", help="finetune recipe")
    return with_overrides(parser)


def main() -> None:
    arguments = parsed()
    runs = {"fig11": run_fig11, "makers": run_makers}
    result = runs.get(arguments.table, run_table)(arguments)
    if arguments.json is not None:
        write_json(arguments.json, {"table": arguments.table, "pack": arguments.pack, "rows": result})


if __name__ == "__main__":
    main()
