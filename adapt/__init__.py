"""Unsupervised domain adaptation for blind face restoration.

The steps of the command line as functions, and the networks as objects. Each name loads on first use, so that
`import adapt` costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from adapt._version import __version__ as __version__

if TYPE_CHECKING:
    from adapt.commands.calibrate import calibrate
    from adapt.commands.degrade import degrade
    from adapt.commands.evaluate import evaluate
    from adapt.commands.export import export
    from adapt.commands.finetune import finetune
    from adapt.commands.generate_targets import generate_targets
    from adapt.commands.restore import restore
    from adapt.commands.run import run
    from adapt.loading.networks import load_model, load_prior, load_restorer
    from adapt.photos.files import read_photo

# onnxruntime, wherever it is imported, would otherwise keep a number for this machine in the user's home, and a file of
# events to be sent. Photographs are private, and so is what is done with them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "calibrate",
    "degrade",
    "evaluate",
    "export",
    "finetune",
    "generate_targets",
    "load_model",
    "load_prior",
    "load_restorer",
    "read_photo",
    "restore",
    "run",
]

_HOMES: Final = {
    "load_model": "adapt.loading.networks",
    "load_prior": "adapt.loading.networks",
    "load_restorer": "adapt.loading.networks",
    "calibrate": "adapt.commands.calibrate",
    "degrade": "adapt.commands.degrade",
    "read_photo": "adapt.photos.files",
    "evaluate": "adapt.commands.evaluate",
    "export": "adapt.commands.export",
    "generate_targets": "adapt.commands.generate_targets",
    "restore": "adapt.commands.restore",
    "finetune": "adapt.commands.finetune",
    "run": "adapt.commands.run",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'adapt' has no attribute '{name}'")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """The public names too, loaded or not."""
    return sorted({*globals(), *__all__})
