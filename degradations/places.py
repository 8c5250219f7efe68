"""Where the relative paths of a recipe are looked up: beside its file, and in the working directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path()  # the working directory


def places(word: str, context: Mapping[str, Any] | None) -> tuple[Path, ...]:
    """The folders in which a relative path is looked up, in order.

    Args:
        word: the path, as it was given.
        context: of the validation: "folder", that of the recipe's file, and "given", the words that stand in no file
            but in a KEY=VALUE. Without a context there is no file.

    Returns:
        What stands in a file is looked up beside it first, what was typed where it was typed.
    """
    if not context or "folder" not in context:
        return (HERE,)
    beside: Path = context["folder"]
    if beside.resolve() == HERE.resolve():
        return (HERE,)
    return (HERE, beside) if word in context.get("given", ()) else (beside, HERE)


def whole_path(word: str, folders: Sequence[Path], is_it: Callable[[Path], bool]) -> str | None:
    """The absolute path of the first that is there, if any is."""
    return next((str((folder / word).resolve()) for folder in folders if is_it(folder / word)), None)


def told(word: str, folders: Sequence[Path]) -> str:
    """Where it was looked for, for a message; nothing to tell of an absolute path."""
    if Path(word).is_absolute():
        return ""
    names = ["the working directory" if folder == HERE else str(folder.resolve()) for folder in folders]
    return " in " + ", nor in ".join(names)
