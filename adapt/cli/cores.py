"""How many CPU cores there are to compute on, and how their threads wait."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import Final

SYSTEM: Final = Path("/sys")
LOAD: Final = Path("/proc/loadavg")
LOOKS, BETWEEN = 4, 0.005  # seconds
WAITING: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # what tells OpenMP's threads how to wait
BUSY: Final = 0.5  # load of each core from which a machine is busy


def let_threads_sleep(load: float | None = None) -> None:
    """On a busy machine let threads sleep while they wait for each other, where the environment says nothing of it.

    By default they spin. Where other programs want the cores, each then takes the time that the one it waits for
    would need: an evaluation of the tiny prior took 8.0 s, and 3.2 s with sleeping threads, beside six busy processes
    on two cores. On an idle machine spinning is the faster, 0.12 against 0.17 s. So it depends on how busy the machine
    is when the command starts. OpenMP reads this when it is loaded: it must be said before torch is imported.

    Args:
        load: programs that want to run; where None the larger of their mean over the last minute, as the system says,
            and of those that want to now: a mean takes a minute to follow.
    """
    if any(name in os.environ for name in WAITING):
        return
    if load is None:
        mean = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        load = max(mean, others_now())
    if load >= BUSY * (available_cores() or os.cpu_count() or 1):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def others_now(file: Path = LOAD) -> int:
    """How many other programs want to run now: the fewest of a few looks, as any program wakes for a moment; 0 where
    the system does not say."""
    try:
        looks = [_runnable(file, index) for index in range(LOOKS)]
    except (OSError, ValueError, IndexError):
        return 0
    return max(0, min(looks) - 1)


def _runnable(file: Path, index: int) -> int:
    """The programs that run or wait for a core, this one among them."""
    if index:
        time.sleep(BETWEEN)
    return int(file.read_text(encoding="ascii").split()[3].partition("/")[0])


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
