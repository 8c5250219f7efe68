"""How the pack's perceptual network orders distortions of portraits it never saw, next to plain L2 and 1 - SSIM.

Run: python benchmarks/perceptual.py FACES [WEIGHTS]   (about two minutes on two threads)
FACES is a folder of portraits that took no part in training, for one ../shared/faces/test/128.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors import safe_open

from adapt.digests import file_digest
from adapt.perceptual.distance import load_pack_distance
from adapt.pretraining.ordering import ordering_table

SHIPPED = Path(__file__).resolve().parents[1] / "adapt/packs/tiny/perceptual.safetensors"


def main() -> None:
    """Print one line per comparison, the means, and what one distance costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("weights", type=Path, nargs="?", default=SHIPPED)
    arguments = parser.parse_args()
    with safe_open(arguments.weights, "pt") as stored:
        state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 -- safe_open is no mapping
        settings = json.loads(stored.metadata()["settings"])
    distance = load_pack_distance(state, settings, file_digest(arguments.weights))
    table = ordering_table(distance, arguments.faces)
    measures = [name for name in next(iter(table.values())) if name != "triplets"]
    print(f"{'share in the right order':32}" + "".join(f"{name:>17}" for name in (*measures, "triplets")))
    for kind, row in table.items():
        print(f"{kind:32}" + "".join(f"{row[name]:17.3f}" for name in measures) + f"{row['triplets']:17d}")
    for title, equal_error in (("mean, by severity", False), ("mean, equal error", True)):
        rows = [row for kind, row in table.items() if (" < " in kind) == equal_error]
        print(f"{title:32}" + "".join(f"{sum(row[name] for row in rows) / len(rows):17.3f}" for name in measures))
    a, b = torch.rand(2, 8, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    distance(a, b)
    begun = time.perf_counter()
    distance(a.requires_grad_(), b).sum().backward()
    seconds = (time.perf_counter() - begun) / 8
    print(f"distance with gradient: {1000 * seconds:.1f} ms for 128 px, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
