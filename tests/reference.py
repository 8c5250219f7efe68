"""The reference fixtures of ../shared/reference: numbers computed by the original code, never by ours."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class Reference:
    """The folder of reference fixtures.

    `fill` is the module that fills a state dict with named deterministic weights (`fill.load(module)`) and draws
    named inputs (`fill.randn(name, shape)`, `fill.smooth(name, shape)`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fill = _module("reference_fill", root / "fill.py")

    def json(self, name: str) -> dict[str, Any]:
        """What a fixture is: configuration, the call that made its input, ranges, noise floor."""
        return json.loads((self.root / "parity" / f"{name}.json").read_text(encoding="utf-8"))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of a fixture."""
        with np.load(self.root / "parity" / f"{name}.npz") as archive:
            return dict(archive)

    def manifest(self, name: str) -> dict[str, Any]:
        """Keys, shapes and configuration of an official state dict."""
        return json.loads((self.root / "manifests" / f"{name}.json").read_text(encoding="utf-8"))


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
