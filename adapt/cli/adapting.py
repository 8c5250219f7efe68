"""`adapt run` and `adapt demo`: the whole way from photos to a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli.options import (
    Device,
    Limit,
    Out,
    Overrides,
    Overwrite,
    PackName,
    Photos,
    RestorerName,
    Threads,
    use_threads,
)
from adapt.cli.printing import Lines, end


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
    use_threads(threads)
    from adapt.pipeline import run

    result = run(
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


def demo(
    out: Out = Path("demo-result"), threads: Threads = None, overwrite: Overwrite = False
) -> None:
    """The main job on the photographs that ship: faces that the prior drew, with a camera's noise, and an astronaut."""
    use_threads(threads)
    from adapt.demo import run_demo

    result = run_demo(out, progress=Lines, overwrite=overwrite)
    _print_result(result.table, result.verdict, result.page, result.model, result.problems)


def _print_result(table: str, verdict: str, page: Path, model: Path, problems: list[str]) -> None:
    print(table)
    print(verdict)
    print(f"Result page: {page}\nModel: {model}")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    end(len(problems))
