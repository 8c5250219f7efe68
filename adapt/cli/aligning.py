"""`adapt align`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from adapt.cli.options import (
    Boxes,
    Device,
    FaceKind,
    Faces,
    Frames,
    Largest,
    Limit,
    MaxFaces,
    MinFace,
    MinScore,
    Out,
    Overwrite,
    PackName,
    Photos,
    Threads,
    finding_of,
    use_threads,
)
from adapt.cli.printing import Lines, count, end, say_faces, say_warning


def align(
    photos: Photos,
    out: Out,
    pack: PackName = "tiny",
    size: Annotated[
        int | None, typer.Option("--size", min=16, help="Side of the crops, in pixels.", show_default="the pack's")
    ] = None,
    faces: Faces = FaceKind.WHOLE,
    min_face: MinFace = None,
    min_score: MinScore = None,
    largest: Largest = False,
    max_faces: MaxFaces = None,
    boxes: Boxes = None,
    frames: Frames = False,
    limit: Limit = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Cut every face out of whole photographs, upright and of one size, with its way back in faces.jsonl."""
    use_threads(threads)
    from adapt.commands.align import align as align_photos
    from adapt.photos.pairs import enlarged_warning

    lines = Lines("aligning")
    result = align_photos(
        photos,
        out,
        pack=pack,
        size=size,
        faces=faces.value,
        finding=finding_of(
            pack, min_face=min_face, min_score=min_score, largest=largest, max_faces=max_faces, boxes=boxes,
            frames=frames,
        ),
        limit=limit,
        device=device,
        overwrite=overwrite,
        on_photo=lambda id, status, done, total: lines(done, total),
        on_frame=Lines("finding faces"),
    )
    print(f"{result.done} photos aligned, {result.skipped} already there, {len(result.failed)} failed; in {out}")
    say_faces(result.faces)
    if result.aligned:
        print(f"{count(len(result.aligned), 'photo')} taken as aligned faces already")
    say_warning(enlarged_warning(result.enlarged))
    for problem in (*(f"failed: {failure}" for failure in result.failed), *result.kept):
        print(f"  {problem}", file=sys.stderr)
    end(len(result.failed) + len(result.kept))
