"""`adapt recipes`: list, show, copy, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapt.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Recipes: the settings of every step, as data.")


@app.command("list")
def recipes_list(
    kind: Annotated[str | None, typer.Argument(help="targets, finetune, pretrain or degradations.")] = None,
) -> None:
    """Recipes that ship."""
    from adapt.recipe import list_recipes

    for info in list_recipes(kind):
        print(f"{info.name:<32} {info.description}")


@app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="As recipes list prints it.")]) -> None:
    """A recipe's text."""
    from adapt.recipe import recipe_text

    print(recipe_text(name), end="")


@app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="As recipes list prints it.")],
    file: Annotated[Path, typer.Argument(help="Where to; must not exist.")],
) -> None:
    """Copy a recipe to a file of your own, to edit."""
    from adapt.disk import write_text
    from adapt.recipe import recipe_text

    if file.exists():
        raise UsageError(f"{file}: exists already and is not replaced")
    write_text(file, recipe_text(name))
    print(f"{file}")


@app.command("check")
def recipes_check(file: Annotated[Path, typer.Argument(help="A recipe file.")]) -> None:
    """Check a recipe file; all problems at once, with their lines."""
    from adapt.recipe import KINDS, kind_of, load_recipe

    load_recipe(file, KINDS[kind_of(file)])
    print(f"{file}: a good {kind_of(file)} recipe")
