"""How many CPU cores there are to compute on, and how their threads wait."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Final

SYSTEM: Final = Path("/sys")
WAITING: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # what tells OpenMP's threads how to wait


def wait_passively() -> None:
    """Let threads sleep while they wait for each other, where the environment does not say how they should wait.

    By default they spin, and where other programs want the cores, each takes away the time that the one it waits for
    would need: three photos took 178 s instead of 54 at a load of 6 on two cores. OpenMP reads this when it is loaded,
    so it must be said before torch is imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def available_cores(system: Path = SYSTEM) -> int | None:
    """Physical cores that this process may use; None where the system does not say.

    Two threads of one core share its arithmetic units, so a second one on it gains nothing. What counts is the
    process's own: a scheduler may have pinned it to some of the cores, and a container may have a share of them.

    Args:
        system: the folder that Linux describes itself in.
    """
    if sys.platform != "linux":
        return None
    cores = {_siblings(system, cpu) for cpu in os.sched_getaffinity(0)}
    return int(max(1, min(len(cores), _share(system))))


def _siblings(system: Path, cpu: int) -> str:
    """The logical CPUs on the core of this one; itself where that is not known."""
    try:
        path = system / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def _share(system: Path) -> float:
    """The CPUs that the process's control group may use at a time, rounded up; infinite where nothing limits it."""
    try:
        quota, period = (system / "fs" / "cgroup" / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota == "max" else math.ceil(int(quota) / int(period))
