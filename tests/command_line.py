"""The command line, in the test's own process or one that is killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from adapt.cli import main
from adapt.settings import VerdictSettings

QUICK_TARGETS = ["guidance.0.factor=4", "steps=2", "gate.max_low_frequency_change=1", "gate.min_contrast=0"]
QUICK_FINETUNE = ["steps=2", "batch=2", "evaluate_every=1", "discriminator.features=4"]


def adapt(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `adapt ARGUMENTS`; its exit code."""
    monkeypatch.setattr(sys, "argv", ["adapt", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def export_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `adapt run` take the last weights for the best, and export them whatever the evidence: untrained networks
    have none that is for them."""
    from adapt.verdict.decision import Measurements, Verdict, decide

    def decided(measurements: Measurements, settings: VerdictSettings) -> Verdict:
        return replace(decide(measurements, settings), strength=1.0)

    steps = itertools.count(1)
    monkeypatch.setattr("adapt.commands.run_verdict.decide", decided)
    monkeypatch.setattr("adapt.verdict.selector.EvidenceSelector.gain", lambda *_: float(next(steps)))


def kill_and_repeat(once: Path, *arguments: object) -> None:
    """kill -9 of `adapt ARGUMENTS` as soon as a file is there; then the same command again, to its end."""
    command = [sys.executable, "-m", "adapt", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and not once.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, capture_output=True)
