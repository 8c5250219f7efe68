"""`adapt restore`, `adapt evaluate` and `adapt export`: what is done with a restorer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli.options import (
    AsJson,
    Boxes,
    Device,
    FaceKind,
    FacePack,
    Faces,
    Fidelity,
    Frames,
    HalfRaw,
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
from adapt.cli.printing import Lines, end, say_faces, say_resized, say_warning
from adapt.errors import UsageError


def restore(
    model: Annotated[
        str, typer.Argument(help="What adapt run made, bundle, run, checkpoint file, PACK or PACK/RESTORER.")
    ],
    photos: Photos,
    out: Out,
    fidelity: Fidelity = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=1,
            help="Side to restore faces at, in pixels; of networks that take any.",
            show_default="what the model was made for, or 512 where its file does not say",
        ),
    ] = None,
    faces: Faces = FaceKind.AUTO,
    min_face: MinFace = None,
    min_score: MinScore = None,
    largest: Largest = False,
    max_faces: MaxFaces = None,
    boxes: Boxes = None,
    frames: Frames = False,
    strength: Annotated[
        float,
        typer.Option("--strength", min=0, max=1, help="How much of the change is made: 0 the photo, 1 the restored."),
    ] = 1.0,
    pack: FacePack = "tiny",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Faces at a time.")] = 8,
    limit: Limit = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Restore photos to PNG files of the same names: whole photographs, face by face, or aligned faces.

    A whole photograph keeps its size, its bits, its colour profile and EXIF data, and every pixel outside its faces.
    """
    use_threads(threads)
    from adapt.commands.photographs import converted_note
    from adapt.commands.restore import restore as restore_photos

    lines = Lines("restoring")
    result = restore_photos(
        model,
        photos,
        out,
        fidelity=fidelity,
        size=size,
        faces=faces.value,
        finding=finding_of(
            pack, min_face=min_face, min_score=min_score, largest=largest, max_faces=max_faces, boxes=boxes,
            frames=frames,
        ),
        strength=strength,
        batch=batch,
        limit=limit,
        device=device,
        overwrite=overwrite,
        on_photo=lambda id, status, done, total: lines(done, total),
        on_frame=Lines("finding faces"),
    )
    print(f"{result.done} restored, {result.skipped} already there, {len(result.failed)} failed; in {out}")
    say_faces(result.faces, "; it was left as it is")
    say_resized(result.resized, enlarged=result.enlarged, reduced=result.reduced)
    say_warning(converted_note(result.converted))
    for failure in result.failed:
        print(f"  failed: {failure}", file=sys.stderr)
    end(len(result.failed))


def evaluate(
    restored: Annotated[Path, typer.Argument(help="Folder of restored photos.")],
    truth: Annotated[Path | None, typer.Option("--truth", help="Clean originals of the same names.")] = None,
    photos: Annotated[Path | None, typer.Option("--photos", help="The photos they were restored from.")] = None,
    reference: Annotated[Path | None, typer.Option("--reference", help="Clean faces of other people.")] = None,
    pack: PackName = "tiny",
    recogniser: Annotated[
        str | None,
        typer.Option(
            "--recogniser",
            help="Tells people apart: an ArcFace file (arcface_resnet18.pth, or an ONNX file of insightface).",
            show_default="the pack's",
        ),
    ] = None,
    half_raw: HalfRaw = False,
    as_json: AsJson = False,
    threads: Threads = None,
) -> None:
    """Metrics, each with its protocol.

    With --half-raw the RAW files of --truth are developed as adapt degrade --half-raw does.
    """
    use_threads(threads)
    from adapt.commands.evaluate import evaluate as evaluate_two_images

    evaluation, table = evaluate_two_images(
        restored, truth=truth, photos=photos, reference=reference, pack=pack, half_raw=half_raw,
        recogniser=recogniser,
    )
    print(json.dumps(evaluation.as_json(), indent=2) if as_json else table)


def export(
    model: Annotated[str, typer.Argument(help="Run, checkpoint file, PACK or PACK/RESTORER.")],
    out: Out,
    format: Annotated[str, typer.Option("--format", help="onnx (safetensors lies beside it).")] = "onnx",
    fidelity: Fidelity = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="For whole photographs too: with detector and landmarks.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Export a restorer as a bundle: ONNX and safetensors, checked against PyTorch, with card and runner.

    The fidelity is what the bundle restores at where none is given; it takes every other one as well.
    """
    if format != "onnx":
        raise UsageError(f"--format {format}: expected onnx")
    from adapt.commands.export import export as export_model

    pack = "tiny" if whole else None
    print(f"Bundle: {export_model(model, out, fidelity=fidelity, whole=pack, overwrite=overwrite)}")
