"""The commands: each parses, calls one function, and prints. Heavy imports stay inside the functions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapt.errors import AdaptError, UsageError

if TYPE_CHECKING:
    from adapt.targets.store import Record

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Unsupervised domain adaptation for blind face restoration: a folder of damaged face photographs in, a fast"
    " restorer for exactly this damage out. Faces only, aligned crops for now.",
)
packs_app = typer.Typer(no_args_is_help=True, help="Packs: networks that belong together, sources and licences.")
recipes_app = typer.Typer(no_args_is_help=True, help="Recipes: the settings of every step, as data.")
app.add_typer(packs_app, name="packs")
app.add_typer(recipes_app, name="recipes")

Photos = Annotated[Path, typer.Argument(help="Folder of aligned face photos (searched in depth), or one file.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder; the same command again resumes.")]
PackName = Annotated[str, typer.Option("--pack", help="Pack by name or folder (adapt packs list).")]
RestorerName = Annotated[
    str | None, typer.Option("--restorer", help="Checkpoint, run, PACK or PACK/RESTORER. [default: the pack's own]")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings over those of the recipe.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many photos.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew: empty the output folder first.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. [default: PyTorch's]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

FAILED_PHOTOS = 3
INTERRUPTED = 130


def main() -> None:
    """Run the command line; a user's mistake becomes one clear line and an exit code, never a traceback."""
    try:
        app()
    except AdaptError as error:
        print(f"adapt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("adapt: interrupted; the same command again goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)


class Lines:
    """Progress: one line that is rewritten on a terminal, now and then a plain line in a pipe."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.live = sys.stderr.isatty()
        self._width = 0
        self._tenth = -1

    def __call__(self, done: int, total: int, text: str = "") -> None:
        line = f"{self.title}: {done}/{total}  {text}".rstrip()
        if self.live:
            print(f"\r{line:<{self._width}}", end="" if done < total else "\n", file=sys.stderr, flush=True)
            self._width = len(line)
        elif (tenth := 10 * done // max(total, 1)) != self._tenth:
            self._tenth = tenth
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line of its own that stays."""
        print(f"\r{text:<{self._width}}" if self.live else text, file=sys.stderr, flush=True)


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _shard(text: str) -> tuple[int, int]:
    """`I/N`, I from 1 to N, as (I - 1, N)."""
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise UsageError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/4")
    return int(first) - 1, int(count)


def _flags(values: dict[str, Any], overrides: list[str] | None) -> list[str]:
    """Options that stand for recipe keys, before the explicit overrides."""
    return [f"{key}={value}" for key, value in values.items() if value is not None] + list(overrides or [])


def _target_progress(lines: Lines) -> Callable[[Record, int, int], None]:
    def on_photo(record: Record, done: int, total: int) -> None:
        if record.status != "done":
            lines.note(f"  {record.status}: {record.id}: {record.reason}")
        lines(done, total)

    return on_photo


def _end(failed: int) -> None:
    if failed:
        raise typer.Exit(FAILED_PHOTOS)


@app.command()
def run(
    photos: Photos,
    out: Out,
    overrides: Overrides = None,
    recipe: Annotated[str, typer.Option("--recipe", help="Finetune recipe (adapt recipes list).")] = "swinir",
    pack: PackName = "tiny",
    method: Annotated[str, typer.Option("--method", help="Targets recipe (adapt recipes list).")] = "low-frequency",
    restorer: RestorerName = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Clean originals, for the table alone.")] = None,
    real: Annotated[Path | None, typer.Option("--real", help="Sharp faces for the discriminator.")] = None,
    limit: Limit = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """The whole way: targets, fine-tuning, restored photos, table, exported model, result page.

    Settings are given as targets.KEY=VALUE and finetune.KEY=VALUE.
    """
    _use_threads(threads)
    from adapt.pipeline import run_all

    result = run_all(
        photos,
        out,
        recipe=recipe,
        pack=pack,
        method=method,
        restorer=restorer,
        truth=truth,
        real=real,
        overrides=overrides or [],
        limit=limit,
        device=device,
        overwrite=overwrite,
        progress=Lines,
    )
    _print_result(result.table, result.verdict, result.page, result.model, result.problems)


@app.command()
def demo(
    out: Out = Path("demo-result"), threads: Threads = None, overwrite: Overwrite = False
) -> None:
    """The main job on the photographs that ship: faces that the prior drew, with a camera's noise, and an astronaut."""
    _use_threads(threads)
    from adapt.demo import run_demo

    result = run_demo(out, progress=Lines, overwrite=overwrite)
    _print_result(result.table, result.verdict, result.page, result.model, result.problems)


def _print_result(table: str, verdict: str, page: Path, model: Path, problems: list[str]) -> None:
    print(table)
    print(verdict)
    print(f"Result page: {page}\nModel: {model}")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    _end(len(problems))


@app.command("generate-targets")
def generate_targets(
    photos: Photos,
    out: Out,
    overrides: Overrides = None,
    method: Annotated[str, typer.Option("--method", help="Targets recipe by name or file.")] = "low-frequency",
    pack: PackName = "tiny",
    restorer: RestorerName = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Evaluations. [default: the recipe's]")] = None,
    solver: Annotated[str | None, typer.Option("--solver", help="ddpm, ddim, dpm++2m. [default: the recipe's]")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="[default: the recipe's]")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="At a time. [default: the recipe's]")] = None,
    compat: Annotated[str | None, typer.Option("--compat", help="dt-bfr: the public code's steps exactly.")] = None,
    limit: Limit = None,
    shard: Annotated[str, typer.Option("--shard", help="I/N: this process makes the I-th of N parts.")] = "1/1",
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make pseudo-targets: restored by the restorer, cleaned by the diffusion prior."""
    _use_threads(threads)
    from adapt.tasks import generate_targets as generate

    flags = {"steps": steps, "solver": solver, "seed": seed, "batch": batch, "compat": compat}
    summary = generate(
        photos,
        out,
        method=method,
        pack=pack,
        restorer=restorer,
        overrides=_flags(flags, overrides),
        limit=limit,
        shard=_shard(shard),
        overwrite=overwrite,
        device=device,
        on_photo=_target_progress(Lines("targets")),
    )
    counts = {status: summary.count(status) for status in ("done", "rejected", "failed")}
    text = f"{counts['done']} targets, {counts['rejected']} rejected, {counts['failed']} failed; in {out}"
    print(json.dumps(counts) if as_json else text)
    _end(counts["failed"])


@app.command()
def finetune(
    photos: Annotated[Path, typer.Option("--photos", help="Folder of aligned face photos.")],
    targets: Annotated[Path, typer.Option("--targets", help="Target store, or a folder of pictures named alike.")],
    out: Out,
    overrides: Overrides = None,
    recipe: Annotated[str, typer.Option("--recipe", help="Finetune recipe by name or file.")] = "swinir",
    pack: PackName = "tiny",
    restorer: RestorerName = None,
    real: Annotated[
        Path | None, typer.Option("--real", help="Sharp faces for the discriminator. [default: the targets, unpaired]")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="[default: the recipe's]")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="[default: the recipe's]")] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a restorer on photos and their targets; `best.safetensors` is the better of old and new."""
    _use_threads(threads)
    from adapt.pipeline import sample_writer
    from adapt.tasks import describe
    from adapt.tasks import finetune as tune

    lines = Lines("fine-tuning")
    outcome = tune(
        photos,
        targets,
        out,
        recipe=recipe,
        pack=pack,
        restorer=restorer,
        real=real,
        overrides=_flags({"steps": steps, "seed": seed}, overrides),
        overwrite=overwrite,
        on_step=lambda done, total, values: lines(done, total, describe(values)),
        on_samples=sample_writer(out),
    )
    print(outcome.verdict)


@app.command()
def restore(
    model: Annotated[str, typer.Argument(help="Bundle, run, checkpoint file, PACK or PACK/RESTORER.")],
    photos: Photos,
    out: Out,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Photos at a time.")] = 8,
    limit: Limit = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Restore a folder of aligned faces to PNG files of the same names."""
    _use_threads(threads)
    from adapt.tasks import restore as restore_photos

    lines = Lines("restoring")
    result = restore_photos(
        model,
        photos,
        out,
        batch=batch,
        limit=limit,
        device=device,
        overwrite=overwrite,
        on_photo=lambda id, status, done, total: lines(done, total),
    )
    print(f"{result.done} restored, {result.skipped} already there, {len(result.failed)} failed; in {out}")
    if result.resized:
        print(f"{result.resized} photos were resized to the model's size")
    for failure in result.failed:
        print(f"  failed: {failure}", file=sys.stderr)
    _end(len(result.failed))


@app.command()
def evaluate(
    restored: Annotated[Path, typer.Argument(help="Folder of restored photos.")],
    truth: Annotated[Path | None, typer.Option("--truth", help="Clean originals of the same names.")] = None,
    photos: Annotated[Path | None, typer.Option("--photos", help="The photos they were restored from.")] = None,
    reference: Annotated[Path | None, typer.Option("--reference", help="Clean faces of other people.")] = None,
    pack: PackName = "tiny",
    as_json: AsJson = False,
    threads: Threads = None,
) -> None:
    """Metrics, each with its protocol."""
    _use_threads(threads)
    from adapt.tasks import evaluate as evaluate_pictures

    evaluation, table = evaluate_pictures(restored, truth=truth, photos=photos, reference=reference, pack=pack)
    print(json.dumps(evaluation.as_json(), indent=2) if as_json else table)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Run, checkpoint file, PACK or PACK/RESTORER.")],
    out: Out,
    format: Annotated[str, typer.Option("--format", help="onnx (safetensors lies beside it).")] = "onnx",
    overwrite: Overwrite = False,
) -> None:
    """Export a restorer as a bundle: ONNX and safetensors, checked against PyTorch, with card and runner."""
    if format != "onnx":
        raise UsageError(f"--format {format}: expected onnx")
    from adapt.tasks import export as export_model

    print(f"Bundle: {export_model(model, out, overwrite=overwrite)}")


@app.command()
def pretrain(
    faces: Annotated[Path, typer.Option("--faces", help="Folder of clean aligned faces.")],
    out: Out,
    recipe: Annotated[str, typer.Option("--recipe", help="Pretrain recipe: prior, restorer, perceptual.")],
    overrides: Overrides = None,
    pack: PackName = "tiny",
    add_to: Annotated[Path | None, typer.Option("--add-to", help="Enter the network into this pack's folder.")] = None,
    trained: Annotated[str, typer.Option("--trained", help="What the pack's card says of the training.")] = "",
    max_steps: Annotated[int | None, typer.Option("--max-steps", min=1, help="Stop, resumably, after so many.")] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a pack's own networks from clean faces: the prior, the restorer, the perceptual network."""
    _use_threads(threads)
    from adapt.tasks import describe
    from adapt.tasks import pretrain as train

    lines = Lines(recipe)
    weights = train(
        recipe,
        faces,
        out,
        overrides=overrides or [],
        pack=pack,
        add_to=add_to,
        trained=trained,
        overwrite=overwrite,
        max_steps=max_steps,
        on_step=lambda done, total, values: lines(done, total, describe(values)),
    )
    print(f"Weights: {weights}")


@packs_app.command("list")
def packs_list() -> None:
    """Packs that ship, with a sentence on each."""
    from adapt.packs.pack import embedded_packs, load_pack

    for name in embedded_packs():
        card = load_pack(name).card
        print(f"{name}  {card.size} px  {', '.join(card.networks)}\n    {card.description}")


@packs_app.command("show")
def packs_show(name: Annotated[str, typer.Argument(help="Pack by name or folder.")]) -> None:
    """A pack's card: networks, files, sources, licences, training."""
    from adapt.packs.pack import load_pack

    print((load_pack(name).folder / "pack.yaml").read_text(encoding="utf-8"), end="")


@packs_app.command("verify")
def packs_verify(name: Annotated[str, typer.Argument(help="Pack by name or folder.")]) -> None:
    """Check every file of a pack against its digest."""
    from adapt.errors import WeightsError
    from adapt.packs.pack import load_pack

    problems = load_pack(name).problems()
    if problems:
        raise WeightsError("\n".join(problems))
    print(f"{name}: all files are what the card says")


@recipes_app.command("list")
def recipes_list(kind: Annotated[str | None, typer.Argument(help="targets, finetune or pretrain.")] = None) -> None:
    """Recipes that ship."""
    from adapt.recipe import list_recipes

    for info in list_recipes(kind):
        print(f"{info.name:<32} {info.description}")


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="As recipes list prints it.")]) -> None:
    """A recipe's text."""
    from adapt.recipe import recipe_text

    print(recipe_text(name), end="")


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="As recipes list prints it.")],
    file: Annotated[Path, typer.Argument(help="Where to; must not exist.")],
) -> None:
    """Copy a recipe to a file of your own, to edit."""
    from adapt.disk import write_text
    from adapt.recipe import recipe_text

    if file.exists():
        raise UsageError(f"{file}: exists already and is not replaced")
    write_text(file, recipe_text(name))
    print(f"{file}")


@recipes_app.command("check")
def recipes_check(file: Annotated[Path, typer.Argument(help="A recipe file.")]) -> None:
    """Check a recipe file; all problems at once, with their lines."""
    from adapt.recipe import KINDS, kind_of, load_recipe

    load_recipe(file, KINDS[kind_of(file)])
    print(f"{file}: a good {kind_of(file)} recipe")


if __name__ == "__main__":
    main()
