"""The command line in the test's own process."""

from __future__ import annotations

import sys

import pytest

from adapt.cli import main


def adapt(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `adapt ARGUMENTS`; its exit code."""
    monkeypatch.setattr(sys, "argv", ["adapt", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
