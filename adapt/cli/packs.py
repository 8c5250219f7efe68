"""`adapt packs`: list, show, verify."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Packs: networks that belong together, sources and licences.")


@app.command("list")
def packs_list() -> None:
    """Packs that ship, with a sentence on each."""
    from adapt.packs.pack import embedded_packs, load_pack

    for name in embedded_packs():
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
