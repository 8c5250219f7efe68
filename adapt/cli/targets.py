"""`adapt generate-targets`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from adapt.cli.options import (
    FROM_RECIPE,
    AsJson,
    Boxes,
    Device,
    FaceKind,
    Faces,
    Largest,
    Limit,
    MaxFaces,
    Method,
    MinFace,
    MinScore,
    Out,
    Overrides,
    Overwrite,
    PackName,
    Photos,
    RestorerName,
    Seed,
    Threads,
    as_overrides,
    finding_of,
    parse_shard,
    use_threads,
)
from adapt.cli.printing import Lines, end, say_faces, say_resized, target_progress


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
    faces: Faces = FaceKind.AUTO,
    min_face: MinFace = None,
    min_score: MinScore = None,
    largest: Largest = False,
    max_faces: MaxFaces = None,
    boxes: Boxes = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Draw where each new target was guided into OUT/maps.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make pseudo-targets: restored by the restorer, cleaned by the diffusion prior.

    The faces of whole photographs are cut out into OUT/faces first.
    """
    use_threads(threads)
    from adapt.commands.generate_targets import generate_targets as generate

    flags = {"steps": steps, "solver": solver, "seed": seed, "batch": batch, "compat": compat}
    finding = Lines("finding faces")
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
        faces=faces.value,
        finding=finding_of(
            None, min_face=min_face, min_score=min_score, largest=largest, max_faces=max_faces, boxes=boxes
        ),
        on_face=lambda id, status, done, total: finding(done, total),
        on_photo=target_progress(Lines("targets")),
    )
    for line in summary.kept:
        print(f"  kept: {line}", file=sys.stderr)
    counts = {status: summary.count(status) for status in ("done", "rejected", "failed")}
    text = f"{counts['done']} targets, {counts['rejected']} rejected, {counts['failed']} failed; in {out}"
    kept = {"kept": len(summary.kept)} if summary.kept else {}
    if as_json:
        drawn = {"without_maps": summary.without_maps} if maps else {}
        found = {"faces": sum(summary.faces.values())} if summary.faces else {}
        sizes = {"resized": summary.resized, "enlarged": len(summary.enlarged)}
        print(json.dumps({**counts, **kept, **found, **sizes, **drawn}))
    else:
        say_faces(summary.faces)
        print(text)
        say_resized(summary.resized, enlarged=summary.enlarged)
        if maps and summary.without_maps:
            print(f"{summary.without_maps} were made earlier without maps; to draw theirs, start anew with --overwrite")
    for line in summary.unread:
        print(f"  failed: {line}", file=sys.stderr)
    end(counts["failed"] + len(summary.kept) + len(summary.unread))
