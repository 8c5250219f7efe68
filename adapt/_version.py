"""The version of this project, and of what a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Final

__version__ = "0.1.0"

LIBRARIES: Final = ("torch", "torchvision", "numpy", "accelerate", "safetensors", "Pillow", "onnx", "onnxruntime")


def versions() -> dict[str, str]:
    """Versions of this project, Python, and the libraries a result depends on."""
    found = {"adapt": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
