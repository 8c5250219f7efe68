"""`adapt packs`: list, show, verify, add."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Packs: networks that belong together, sources and licences.")


@app.command("list")
def packs_list() -> None:
    """Packs that ship or are installed, with a sentence on each."""
    from adapt.packs.pack import known_packs, load_pack

    for name in known_packs():
        card = load_pack(name).card
        print(f"{name}  {card.size} px  {', '.join(card.networks)}\n    {card.description}")


@app.command("show")
def packs_show(name: Annotated[str, typer.Argument(help="Pack by name or folder.")]) -> None:
    """A pack's card: networks, files, sources, licences, training."""
    from adapt.packs.pack import load_pack

    print((load_pack(name).folder / "pack.yaml").read_text(encoding="utf-8"), end="")


@app.command("verify")
def packs_verify(name: Annotated[str, typer.Argument(help="Pack by name or folder.")]) -> None:
    """Check every file of a pack against its digest."""
    from adapt.errors import WeightsError
    from adapt.packs.pack import load_pack

    problems = load_pack(name).problems()
    if problems:
        raise WeightsError("\n".join(problems))
    print(f"{name}: all files are what the card says")


@app.command("add")
def packs_add(
    folder: Annotated[Path, typer.Argument(help="The pack's folder; a new one needs --size.")],
    name: Annotated[
        str,
        typer.Argument(
            help="What the file is: prior, conditional-prior, identity-mask, codebook, perceptual, blur-estimator,"
            " guidance-adjuster, start-steps, recogniser, landmarks, detector, detector-ssd, detector-tiny; any other"
            " name is a restorer (swinir, codeformer)."
        ),
    ],
    file: Annotated[Path, typer.Argument(help="Checkpoint or table; it stays where it lies.")],
    licence: Annotated[str, typer.Option("--licence", help="Its terms, such as 'S-Lab 1.0, non-commercial'.")],
    source: Annotated[str, typer.Option("--source", help="Where it comes from: an address, or a sentence.")],
    trained: Annotated[str, typer.Option("--trained", help="On what it was trained, and how.")],
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="Refuse any other.", show_default="what the name says, or any")
    ] = None,
    size: Annotated[int | None, typer.Option("--size", min=1, help="Side of the pack's faces, in pixels.")] = None,
    restorer: Annotated[
        str | None,
        typer.Option("--restorer", help="What restores where none is named.", show_default="the one entered first"),
    ] = None,
    description: Annotated[str | None, typer.Option("--description", help="A sentence for the card.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an entry of that name.")] = False,
) -> None:
    """Enter a file of yours into a pack, where it lies: it is read, checked, and named with its sha256."""
    from adapt.commands.add_to_pack import add_to_pack

    content = add_to_pack(
        folder,
        name,
        file,
        licence=licence,
        source=source,
        trained=trained,
        architecture=architecture,
        size=size,
        restorer=restorer,
        description=description,
        overwrite=overwrite,
    )
    count = f" of {content.parameters:,} parameters" if content.parameters else ""
    print(f"{folder / 'pack.yaml'}: {name} is a {content.architecture}{count}, {file}")
