"""`adapt finetune` and `adapt pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapt.cli.options import (
    FROM_RECIPE,
    Device,
    FinetuneRecipe,
    Out,
    Overrides,
    Overwrite,
    PackName,
    Real,
    Replay,
    RestorerName,
    Seed,
    Threads,
    as_overrides,
    use_threads,
)
from adapt.cli.printing import Lines, say_resized, say_warning


def finetune(
    photos: Annotated[
        Path, typer.Option("--photos", help="Aligned faces, or the photographs that the targets were made of.")
    ],
    targets: Annotated[Path, typer.Option("--targets", help="Target store, or a folder of images named alike.")],
    out: Out,
    overrides: Overrides = None,
    recipe: FinetuneRecipe = None,
    pack: PackName = "tiny",
    restorer: RestorerName = None,
    real: Real = None,
    replay: Replay = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, show_default=FROM_RECIPE)] = None,
    seed: Seed = None,
    verdict: Annotated[
        str | None,
        typer.Option(
            "--verdict",
            help="Verdict recipe, by name or file, whose evidence chooses `best`.",
            show_default="by the agreement with the targets",
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a restorer on photos and their targets; `best.safetensors` is the better of old and new."""
    use_threads(threads)
    from adapt.commands.finetune import finetune as tune
    from adapt.commands.finetune import sample_writer
    from adapt.commands.progress import describe

    lines = Lines("fine-tuning")
    outcome = tune(
        photos,
        targets,
        out,
        recipe=recipe,
        pack=pack,
        restorer=restorer,
        real=real,
        replay=replay,
        overrides=as_overrides({"steps": steps, "seed": seed}, overrides),
        overwrite=overwrite,
        device=device,
        verdict=verdict,
        on_warning=lambda warning: lines.note(f"Warning: {warning}"),
        on_step=lambda done, total, values: lines(done, total, describe(values)),
        on_samples=sample_writer(out),
    )
    if not outcome.main:
        return
    print(outcome.verdict)
    say_warning(outcome.warning)
    for note in outcome.notes:
        print(note)
    say_resized(outcome.resized, enlarged=outcome.enlarged)
    say_resized(outcome.resized_targets, "target")


def pretrain(
    faces: Annotated[Path, typer.Option("--faces", help="Folder of clean aligned faces.")],
    out: Out,
    recipe: Annotated[str, typer.Option("--recipe", help="Pretrain recipe by name (see adapt recipes list) or file.")],
    overrides: Overrides = None,
    pack: PackName = "tiny",
    add_to: Annotated[Path | None, typer.Option("--add-to", help="Enter the network into this pack's folder.")] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            help="Its terms, for the pack's card.",
            show_default="those that all other entries of the pack share",
        ),
    ] = None,
    trained: Annotated[str, typer.Option("--trained", help="What the pack's card says of the training.")] = "",
    max_steps: Annotated[int | None, typer.Option("--max-steps", min=1, help="Stop, resumably, after so many.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=0.01, help="Train for so long; the learning rate falls by the clock.",
            show_default="the recipe's steps",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes that make damaged images ahead; for a GPU.")
    ] = 0,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a pack's own networks from clean faces, or build its start-step table."""
    use_threads(threads)
    from adapt.commands.pretrain import pretrain as train
    from adapt.commands.progress import describe

    lines = Lines(Path(recipe).stem)
    made = train(
        recipe,
        faces,
        out,
        overrides=overrides or [],
        pack=pack,
        add_to=add_to,
        licence=licence,
        trained=trained,
        overwrite=overwrite,
        max_steps=max_steps,
        minutes=minutes,
        workers=workers,
        on_step=lambda done, total, values: lines(done, total, describe(values)),
    )
    if made.verdict:
        print(made.verdict)
