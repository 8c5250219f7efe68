"""Files of weights by their names, and settings that name a file: of the whole path once they are read, so that no
later step looks elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo

from degradations.places import places, told, whole_path

WEIGHT_SUFFIXES: Final = (".pth", ".pt", ".ckpt", ".safetensors")
BEST, MODEL, WEIGHTS = "best.safetensors", "model.safetensors", "weights.safetensors"
WEIGHT_FILES: Final = (BEST, MODEL, WEIGHTS)  # of a fine-tuning, a bundle, a pre-training: the first that is there
FACES: Final = "faces"  # of a target store or a run on whole photographs: their faces, cut out
ONNX, BUNDLE = "model.onnx", "bundle.json"  # what a bundle runs as, and what makes a folder one
EXPORTED: Final = "bundle"  # the bundle of a run's result


def weights_file(path: Path) -> Path | None:
    """The file that a path means: itself by its suffix, there or not, or the one in a run or a bundle; else None."""
    if path.suffix in WEIGHT_SUFFIXES and not path.is_dir():
        return path
    return next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)


def bundle_in(path: Path) -> Path | None:
    """The folder of an exported model that a path means: itself, or the one in what `adapt run` made; else None."""
    return next((folder for folder in (path, path / EXPORTED) if (folder / BUNDLE).is_file()), None)


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
    file = weights_file(path)
    return file is not None and file.is_file()


RecipeName = Annotated[str, AfterValidator(recipe_path)]
WeightsName = Annotated[str, AfterValidator(weights_path)]
