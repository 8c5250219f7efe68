"""`adapt degrade`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli.options import HalfRaw, Limit, Out, Overrides, Overwrite, Seed, Threads, as_overrides, use_threads
from adapt.cli.printing import Lines, end


def degrade(
    originals: Annotated[Path, typer.Argument(help="Folder of good images (searched in depth), or one file.")],
    out: Out,
    recipe: Annotated[str, typer.Option("--recipe", help="Kind of damage (adapt recipes list degradations).")],
    overrides: Overrides = None,
    seed: Seed = None,
    limit: Limit = None,
    half_raw: HalfRaw = False,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Lay known damage over good images, with the parameters drawn for each in a manifest."""
    use_threads(threads)
    from adapt.commands.degrade import degrade as degrade_images

    lines = Lines("degrading")
    result = degrade_images(
        originals,
        out,
        recipe=recipe,
        overrides=as_overrides({"seed": seed}, overrides),
        limit=limit,
        half_raw=half_raw,
        overwrite=overwrite,
        on_image=lambda id, status, done, total: lines(done, total),
    )
    print(f"{result.done} degraded, {result.skipped} already there, {len(result.failed)} failed; in {out}")
    for failure in result.failed:
        print(f"  failed: {failure}", file=sys.stderr)
    end(len(result.failed))
