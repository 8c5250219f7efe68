"""`adapt calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli.printing import Lines, end


def calibrate(
    files: Annotated[list[Path], typer.Argument(metavar="RAW...", help="RAW files of one camera, any ISO values.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The camera profile, JSON.", show_default="here, named as the first RAW file"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="The measurement as a drawing, PNG.", show_default="beside the profile"),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the profile.", show_default="its file's")] = None,
    iso: Annotated[float | None, typer.Option("--iso", help="ISO of files that do not say theirs.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Measure a camera in its own RAW files: noise at each ISO from flat areas, levels and colours as they say."""
    from adapt.commands.calibrate import calibrate as measure
    from adapt.commands.calibrate import describe

    out = out or Path(f"{files[0].stem}.json")
    plot = plot or out.with_suffix(".png")
    lines = Lines("reading")
    result = measure(
        files,
        out,
        name=name,
        iso=iso,
        plot=plot,
        overwrite=overwrite,
        on_file=lambda done, total: lines(done, total),
    )
    profile = result.profile
    print(f"{profile.name}: {profile.cfa}, black {profile.black:g}, white {profile.white:g} DN")
    for level, stored in zip(result.levels, profile.levels, strict=True):
        print(f"ISO {level.iso:g}: {describe(level.fit)}")
        for colour, slope, dark, shared in zip(
            profile.cfa, stored.beta1, stored.beta2, level.fit.shared, strict=True
        ):
            note = "  (that of all sites: too few flat patches of its own)" if shared else ""
            print(f"  {colour}: variance = {slope:.4g} x signal + {dark:.4g}{note}")
    print(f"Profile: {out}\nPlot: {plot}")
    for note in result.notes:
        print(f"  note: {note}", file=sys.stderr)
    for problem in result.problems:
        print(f"  failed: {problem}", file=sys.stderr)
    end(len(result.problems))
