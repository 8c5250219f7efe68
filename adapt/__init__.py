"""Unsupervised domain adaptation for blind face restoration.

The names below load on first use, so that `import adapt` costs nothing. The other steps (fine-tuning, evaluation,
export) are functions of `adapt.tasks`, since rooms of the package bear their names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapt.build import load_prior, load_restorer
    from adapt.tasks import generate_targets, restore

__version__ = "0.1.0"

__all__ = ["generate_targets", "load_prior", "load_restorer", "restore"]

_HOMES = {
    "load_prior": "adapt.build",
    "load_restorer": "adapt.build",
    "generate_targets": "adapt.tasks",
    "restore": "adapt.tasks",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'adapt' has no attribute '{name}'")
    return getattr(import_module(home), name)
