"""Puts MTCNN into a pack: python benchmarks/convert_mtcnn.py FOLDER [--pack PACK]

FOLDER holds pnet.pt, rnet.pt and onet.pt of the PyPI package facenet-pytorch 2.6.0 (its folder `data`), which are the
authors' weights. Values stay as they are, at half precision; the inputs of the first dense layers are put into the
order of channels, rows and columns, where the package has columns, rows and channels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from adapt.faces.entries import ARCHITECTURES, DETECTOR
from adapt.packs.pack import EMBEDDED, add_network

FILES = {"proposal": "pnet.pt", "refine": "rnet.pt", "output": "onet.pt"}
DENSE = {"refine.dense4.weight": (3, 3, 64), "output.dense5.weight": (3, 3, 128)}  # columns, rows, channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", type=Path, default=EMBEDDED / "tiny")
    arguments = parser.parse_args()
    state: dict[str, Tensor] = {}
    for part, file in FILES.items():
        found = torch.load(arguments.folder / file, map_location="cpu", weights_only=True)
        for key, value in found.items():
            name = f"{part}.{key}"
            if name in DENSE:
                value = value.unflatten(1, DENSE[name]).permute(0, 3, 2, 1).flatten(1)
            state[name] = value.contiguous()
    entry = {
        "architecture": ARCHITECTURES[DETECTOR],
        "licence": "MIT",
        "source": "PyPI package facenet-pytorch 2.6.0, which has the weights of Zhang et al. 2016 (MTCNN)",
        "trained": "not by this project: by Kaipeng Zhang and others, on the WIDER FACE and CelebA data sets",
    }
    add_network(arguments.pack, DETECTOR, state, header={"architecture": ARCHITECTURES[DETECTOR]}, entry=entry)
    print(f"{DETECTOR}: {len(state)} tensors, {sum(value.numel() for value in state.values()):,} values")


if __name__ == "__main__":
    main()
