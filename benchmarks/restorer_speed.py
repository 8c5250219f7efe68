"""How long restorers take when they are exported, side by side: each in turn, so that a busy machine is so for all.

    python benchmarks/restorer_speed.py tiny/swinir tiny/onestep tiny/onestep-thin [RUN ...] [--size 128] [--rounds 30]

Prints the median milliseconds of one image with onnxruntime on one and two threads, and its ratio to the first's.
With --profile also what the nodes of the last one took, by kind.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from adapt.exporting.onnx import export_onnx
from adapt.loading import load_restorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorers", nargs="+")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: export(name, Path(folder) / f"{number}.onnx") for number, name in enumerate(chosen.restorers)}
        for threads in (1, 2):
            print(f"{threads} thread{'s' * (threads > 1)}, {chosen.size} px")
            medians = compare(files, threads, chosen.size, chosen.rounds)
            first = next(iter(medians.values()))
            for name, median in medians.items():
                print(f"  {name:40s} {1000 * median:7.1f} ms  {median / first:5.2f}")
        if chosen.profile:
            for name, milliseconds in profile(files[chosen.restorers[-1]], chosen.size, Path(folder)):
                print(f"  {name:60s} {milliseconds:7.2f} ms")


def export(name: str, path: Path) -> Path:
    """The restorer as an ONNX file, of any size where it takes any."""
    restorer = load_restorer(name)
    side = restorer.size if restorer.one_size else None
    export_onnx(restorer.network, path, multiple=16, side=side, fidelity=restorer.chosen_fidelity() is not None)
    return path


def compare(files: dict[str, Path], threads: int, size: int, rounds: int) -> dict[str, float]:
    """Median seconds of each; all of them once a round."""
    sessions = {name: open_session(path, threads) for name, path in files.items()}
    inputs = {name: inputs_of(session, size) for name, session in sessions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(rounds + 2):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, inputs[name])
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def open_session(path: Path, threads: int, *, profile: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs_of(session: Any, size: int) -> dict[str, Any]:
    photo, *fidelity = (each.name for each in session.get_inputs())
    image = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)
    return {photo: image, **{name: np.array([0.5], dtype=np.float32) for name in fidelity}}


def profile(path: Path, size: int, folder: Path, rounds: int = 10) -> list[tuple[str, float]]:
    """Milliseconds of an image by kind of node and shape of its output, the slowest first; one thread."""
    session = open_session(path, 1, profile=folder / "profile")
    inputs = inputs_of(session, size)
    for _ in range(rounds):
        session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        about = event.get("args", {})
        if event.get("cat") == "Node" and "output_type_shape" in about and event["name"].endswith("_kernel_time"):
            shapes = [shape for output in about["output_type_shape"] for shape in output.values()]
            spent[f"{about['op_name']} {shapes[:1]}"] += event["dur"]
    return [(name, total / rounds / 1000) for name, total in spent.most_common(40)]


if __name__ == "__main__":
    main()
