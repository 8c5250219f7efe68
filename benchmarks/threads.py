"""How long an evaluation of a pack's prior takes where threads spin and where they sleep while they wait.

python benchmarks/threads.py [--busy 6] [--seconds 25] [--pack tiny]

Each way in a process of its own, on two threads, beside so many processes that only count. Medians are of single
evaluations. What the commands do of it is in `adapt.cli.cores.let_threads_sleep`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median
from typing import Final

WAYS: Final[dict[str, dict[str, str]]] = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}}
THREADS: Final = 2


def evaluate(pack: str, seconds: float) -> tuple[float, int]:
    """The median of the wall times of evaluations, in seconds, and how many there were."""
    import torch

    from adapt.loading import load_prior

    torch.set_num_threads(THREADS)
    prior = load_prior(pack)
    x, timesteps = torch.zeros(1, 3, prior.size, prior.size), torch.tensor([500])
    times: list[float] = []
    with torch.no_grad():
        prior.network(x, timesteps)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begun = time.perf_counter()
            prior.network(x, timesteps)
            times.append(time.perf_counter() - begun)
    return median(times), len(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=0, help="processes beside it")
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--pack", default="tiny")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        seconds, count = evaluate(given.pack, given.seconds)
        print(f"{seconds:.3f} s an evaluation ({count})")
        return
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(given.busy)]
    try:
        for name, settings in WAYS.items():
            known = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
            command = [sys.executable, __file__, "--one", "--seconds", str(given.seconds), "--pack", given.pack]
            answer = subprocess.run(command, env=known | settings, capture_output=True, text=True, check=True)
            print(f"{name}, {given.busy} processes beside it: {answer.stdout.strip()}", flush=True)
    finally:
        for process in beside:
            process.kill()


if __name__ == "__main__":
    main()
