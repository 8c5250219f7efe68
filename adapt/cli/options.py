"""The options that several commands share, and what their values mean."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapt.cli.cores import available_cores
from adapt.errors import UsageError

if TYPE_CHECKING:
    from adapt.commands.photographs import Finding

FROM_RECIPE = "the recipe's"  # shown where a default is not the command's own

Photos = Annotated[Path, typer.Argument(help="Folder of photos (searched in depth), or one file.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder; the same command again resumes.")]
PackName = Annotated[str, typer.Option("--pack", help="Pack by name or folder (adapt packs list).")]
RestorerName = Annotated[
    str | None,
    typer.Option("--restorer", help="Checkpoint, run, PACK or PACK/RESTORER.", show_default="the pack's own"),
]
Method = Annotated[str, typer.Option("--method", help="Targets recipe by name (adapt recipes list) or file.")]
FinetuneRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Finetune recipe by name (adapt recipes list) or file.",
        show_default="that of the pack's restorer; of a named one swinir",
    ),
]
VerdictRecipe = Annotated[
    str, typer.Option("--verdict", help="Verdict recipe by name (adapt recipes list) or file: what is exported.")
]
Real = Annotated[
    Path | None,
    typer.Option("--real", help="Sharp faces for the discriminator.", show_default="the targets, unpaired"),
]
Replay = Annotated[
    Path | None,
    typer.Option(
        "--replay",
        help="Clean faces: pairs of them, damaged anew, are mixed in (replay.share) against forgetting.",
        show_default="none are mixed in",
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings over those of the recipe.")
]
Fidelity = Annotated[
    float | None,
    typer.Option(
        "--fidelity",
        min=0,
        max=1,
        help="Of networks that take one (codeformer): 0 quality, what faces look like; 1 fidelity, what the photo"
        " shows.",
        show_default="the network's",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, show_default=FROM_RECIPE)]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many photos.")]
HalfRaw = Annotated[bool, typer.Option("--half-raw", help="Develop RAW files at half size: four times as fast.")]


class FaceKind(StrEnum):
    """What photos are."""

    AUTO = "auto"
    WHOLE = "whole"
    ALIGNED = "aligned"


Faces = Annotated[
    FaceKind,
    typer.Option(
        "--faces",
        help="What the photos are: whole photographs, whose faces are found; aligned, square crops of faces; auto tells"
        " each by its look.",
    ),
]
MinFace = Annotated[
    float | None,
    typer.Option("--min-face", min=8, help="Side of the smallest faces to find, in pixels.", show_default="24"),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        min=0.01,
        max=0.99,
        help="How sure the detector must be of a face; below 0.85 it is looked at again, upright.",
        show_default="0.85",
    ),
]
Largest = Annotated[bool, typer.Option("--largest", help="Only the largest face of each photo.")]
MaxFaces = Annotated[
    int | None, typer.Option("--max-faces", min=1, help="The largest so many of each photo.", show_default="all")
]
Frames = Annotated[
    bool, typer.Option("--frames", help="PHOTOS are numbered frames of a film, whose faces are followed.")
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        "--boxes",
        help='Where faces are, for photos in which you know better: lines of {"photo": "ID", "box": \\[left, top,'
        " right, bottom]}, as in faces.jsonl.",
        show_default="they are looked for",
    ),
]
FacePack = Annotated[str, typer.Option("--pack", help="Pack whose networks find faces.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew: remove what an earlier run made there.")]
Device = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1, ...; auto is CUDA where there is one, else the CPU.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="CPU threads; OMP_NUM_THREADS lowers what is not given.",
        show_default="one on each physical core that this process may use",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def finding_of(
    pack: str | None,
    *,
    min_face: float | None,
    min_score: float | None,
    largest: bool,
    max_faces: int | None,
    boxes: Path | None,
    frames: bool = False,
) -> Finding:
    """How faces are found, of the options that say it; `pack` None leaves the networks to the command."""
    from adapt.commands.photographs import Finding

    return Finding(
        pack=pack, min_face=min_face, min_score=min_score, largest=largest, most=max_faces, boxes=boxes, frames=frames
    )


def use_threads(threads: int | None) -> None:
    """Compute on so many CPU threads; where None, on as many as there are physical cores, and no more than before."""
    import torch

    if threads is None:
        threads = min(torch.get_num_threads(), available_cores() or torch.get_num_threads())
    torch.set_num_threads(threads)


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N`, I from 1 to N, as (I - 1, N)."""
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise UsageError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/4")
    return int(first) - 1, int(count)


def as_overrides(values: dict[str, Any], overrides: list[str] | None) -> list[str]:
    """Options that stand for recipe keys, together with the explicit overrides; one key must not be in both."""
    given = {key: value for key, value in values.items() if value is not None}
    for override in overrides or []:
        key = override.partition("=")[0]
        if key in given:
            raise UsageError(f"--{key} {given[key]}: {override} sets the same; give one of the two")
    return [f"{key}={value}" for key, value in given.items()] + list(overrides or [])
