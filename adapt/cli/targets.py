"""`adapt generate-targets`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from adapt.cli.options import (
    FROM_RECIPE,
    AsJson,
    Device,
    Limit,
    Method,
    Out,
    Overrides,
    Overwrite,
    PackName,
    Photos,
    RestorerName,
    Seed,
    Threads,
    as_overrides,
    parse_shard,
    use_threads,
)
from adapt.cli.printing import Lines, end, say_resized, target_progress


def generate_targets(
    photos: Photos,
    out: Out,
    overrides: Overrides = None,
    method: Method = "adaptive",
    pack: PackName = "tiny",
    restorer: RestorerName = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Evaluations.", show_default=FROM_RECIPE)] = None,
    solver: Annotated[
        str | None, typer.Option("--solver", help="ddpm, ddim, dpm++2m.", show_default=FROM_RECIPE)
    ] = None,
    seed: Seed = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="At a time on a GPU; a CPU makes one.", show_default=FROM_RECIPE),
    ] = None,
    compat: Annotated[
        str | None,
        typer.Option("--compat", help="dt-bfr: the public code's steps exactly, without match_mean_luminance."),
    ] = None,
    limit: Limit = None,
    shard: Annotated[str, typer.Option("--shard", help="I/N: this process makes the I-th of N parts.")] = "1/1",
    maps: Annotated[
        bool, typer.Option("--maps", help="Draw each new target's guidance maps into OUT/maps (dynamic, guided).")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make pseudo-targets: restored by the restorer, cleaned by the diffusion prior."""
    use_threads(threads)
    from adapt.commands.generate_targets import generate_targets as generate

    flags = {"steps": steps, "solver": solver, "seed": seed, "batch": batch, "compat": compat}
    summary = generate(
        photos,
        out,
        method=method,
        pack=pack,
        restorer=restorer,
        overrides=as_overrides(flags, overrides),
        limit=limit,
        shard=parse_shard(shard),
        overwrite=overwrite,
        device=device,
        maps=maps,
        on_photo=target_progress(Lines("targets")),
    )
    for line in summary.kept:
        print(f"  kept: {line}", file=sys.stderr)
    counts = {status: summary.count(status) for status in ("done", "rejected", "failed")}
    text = f"{counts['done']} targets, {counts['rejected']} rejected, {counts['failed']} failed; in {out}"
    kept = {"kept": len(summary.kept)} if summary.kept else {}
    if as_json:
        drawn = {"without_maps": summary.without_maps} if maps else {}
        print(json.dumps({**counts, **kept, "resized": summary.resized, "enlarged": len(summary.enlarged), **drawn}))
    else:
        print(text)
        say_resized(summary.resized, enlarged=summary.enlarged)
        if maps and summary.without_maps:
            print(f"{summary.without_maps} were made earlier without maps; to draw theirs, start anew with --overwrite")
    end(counts["failed"] + len(summary.kept))
