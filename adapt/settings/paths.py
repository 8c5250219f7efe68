"""Settings that name a file: of the whole path once they are read, so that no later step looks elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo

from degradations.places import places, told, whole_path

WEIGHT_SUFFIXES: Final = (".pth", ".pt", ".ckpt", ".safetensors")
WEIGHT_FILES: Final = ("best.safetensors", "model.safetensors", "weights.safetensors")  # of a run or a bundle


def recipe_path(word: str, info: ValidationInfo) -> str:
    """A recipe that ships, by its name, or the whole path of a file; a relative one is looked up in its places.

    Raises:
        ValueError: no such file.
    """
    if not word.endswith((".yaml", ".yml")):
        return word
    folders = places(word, info.context)
    found = whole_path(word, folders, Path.is_file)
    if found is None:
        raise ValueError(f"{word}: no such recipe file{told(word, folders)}; one that ships is named without .yaml")
    return found


def weights_path(word: str, info: ValidationInfo) -> str:
    """The whole path of weights, a file or a run, looked up in the same way; what is not there may be a pack's name.

    Raises:
        ValueError: no such file.
    """
    folders = places(word, info.context)
    found = whole_path(word, folders, _holds_weights)
    if found is None and word.endswith(WEIGHT_SUFFIXES):
        raise ValueError(f"{word}: no such weights file{told(word, folders)}")
    return found or word


def _holds_weights(path: Path) -> bool:
    if path.suffix in WEIGHT_SUFFIXES:
        return path.is_file()
    return any((path / name).is_file() for name in WEIGHT_FILES)


RecipeName = Annotated[str, AfterValidator(recipe_path)]
WeightsName = Annotated[str, AfterValidator(weights_path)]
