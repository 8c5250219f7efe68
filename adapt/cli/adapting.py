"""`adapt run` and `adapt demo`: the whole way from photos to a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.cli.options import (
    Boxes,
    Device,
    FaceKind,
    Faces,
    Fidelity,
    FinetuneRecipe,
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
    Real,
    Replay,
    RestorerName,
    Threads,
    VerdictRecipe,
    finding_of,
    use_threads,
)
from adapt.cli.printing import Lines, end, say_faces, say_resized, say_warning

if TYPE_CHECKING:
    from adapt.commands.run import Result


def run(
    photos: Photos,
    out: Out,
    overrides: Overrides = None,
    recipe: FinetuneRecipe = None,
    pack: PackName = "tiny",
    method: Method = "adaptive",
    restorer: RestorerName = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Clean originals, for the table alone.")] = None,
    real: Real = None,
    replay: Replay = None,
    fidelity: Fidelity = None,
    verdict: VerdictRecipe = "default",
    faces: Faces = FaceKind.AUTO,
    min_face: MinFace = None,
    min_score: MinScore = None,
    largest: Largest = False,
    max_faces: MaxFaces = None,
    boxes: Boxes = None,
    limit: Limit = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """The whole way: targets, fine-tuning, a verdict, restored photos, table, exported model, result page.

    Exported is the adapted model where evidence without originals says that it is better, else the one it started from.
    Settings are given as targets.KEY=VALUE, finetune.KEY=VALUE and verdict.KEY=VALUE.
    """
    use_threads(threads)
    from adapt.commands.run import run

    result = run(
        photos,
        out,
        recipe=recipe,
        pack=pack,
        method=method,
        restorer=restorer,
        truth=truth,
        real=real,
        replay=replay,
        fidelity=fidelity,
        verdict=verdict,
        overrides=overrides or [],
        faces=faces.value,
        finding=finding_of(
            None, min_face=min_face, min_score=min_score, largest=largest, max_faces=max_faces, boxes=boxes
        ),
        limit=limit,
        device=device,
        overwrite=overwrite,
        progress=Lines,
    )
    _print_result(result)


def demo(
    out: Out = Path("demo-result"), threads: Threads = None, overwrite: Overwrite = False
) -> None:
    """The main job on photographs that ship: faces of nobody, with a camera's noise in little light."""
    use_threads(threads)
    from adapt.commands.demo import run_demo

    result = run_demo(out, progress=Lines, overwrite=overwrite)
    _print_result(result)


def _print_result(result: Result) -> None:
    print(result.table)
    print(result.verdict)
    say_warning(result.warning)
    for note in result.notes:
        print(note)
    say_faces(result.faces, "; it was left as it is")
    say_resized(result.resized, enlarged=result.enlarged)
    print(f"Result page: {result.page}\nModel: {result.model}")
    for problem in result.problems:
        print(f"  {problem}", file=sys.stderr)
    end(len(result.problems))
