"""`adapt recipes`: list, show, copy, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapt.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Recipes: the settings of every step, as data.")


@app.command("list")
def recipes_list(
    kind: Annotated[str | None, typer.Argument(help="targets, finetune, verdict, pretrain or degradations.")] = None,
) -> None:
    """Recipes that ship."""
    from adapt.settings.recipe import list_recipes

    infos = list_recipes(kind)
    width = max((len(info.name) for info in infos), default=0)
    for info in infos:
        print(f"{info.name:<{width}}  {info.description}")


@app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="As recipes list prints it.")]) -> None:
    """A recipe's text."""
    from adapt.settings.recipe import recipe_text

    print(recipe_text(name), end="")


@app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="As recipes list prints it.")],
    file: Annotated[Path, typer.Argument(help="Where to; must not exist.")],
) -> None:
    """Copy a recipe to a file of your own, to edit."""
    from adapt.disk import write_text
    from adapt.settings.recipe import recipe_text

    if file.exists():
        raise UsageError(f"{file}: exists already and is not replaced")
    write_text(file, recipe_text(name))
    print(f"{file}")


@app.command("check")
def recipes_check(
    recipe: Annotated[str, typer.Argument(help="A file of yours (ends in .yaml), or as recipes list prints it.")],
) -> None:
    """Check a recipe; all problems at once, with their lines."""
    from adapt.settings.recipe import KINDS, kind_of, load_recipe, shipped_recipe

    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else shipped_recipe(recipe)
    load_recipe(path, KINDS[kind_of(path)])
    print(f"{recipe}: a good {kind_of(path)} recipe")
