"""Puts the face networks of face-api.js into a pack.

    python benchmarks/convert_face_networks.py FOLDER [--pack PACK] [--with-ssd]

FOLDER holds `*_model.bin`, `*_model-weights_manifest.json` and LICENSE of the npm package @vladmandic/face-api 1.7.15
(its folder `model`). Values stay as their authors rounded them, one byte each; the few that were not are stored at half
precision. The same folder makes the same files. The SSD, of 5.6 MB, does not ship: MTCNN finds more in less time.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adapt.errors import WeightsError
from adapt.faces.entries import ARCHITECTURES, LANDMARKS, RECOGNISER, SSD_DETECTOR, TINY_DETECTOR
from adapt.faces.stored import describe
from adapt.packs.pack import EMBEDDED, add_network

PACKAGE = "npm package @vladmandic/face-api 1.7.15"
LICENCE_FILE = "LICENSE-face-api"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", type=Path, default=EMBEDDED / "tiny")
    parser.add_argument("--with-ssd", action="store_true", help="the detector that the embedded pack leaves out, too")
    arguments = parser.parse_args()
    for name in SOURCES:
        if name == SSD_DETECTOR and not arguments.with_ssd:
            continue
        convert(arguments.folder, name, arguments.pack)
    shutil.copyfile(arguments.folder / "LICENSE", arguments.pack / LICENCE_FILE)


def convert(folder: Path, name: str, pack: Path) -> None:
    """Enter one network into a pack's card.

    Raises:
        WeightsError: the file of the weights is not as long as the manifest says.
    """
    source = SOURCES[name]
    state: dict[str, Tensor] = {}
    steps: dict[str, tuple[float, float]] = {}
    for original, (value, step) in read(folder, source.model).items():
        key = source.rename(original)
        if key is None:
            continue
        state[key] = in_order_of_torch(original, value)
        if step is not None:
            steps[key] = step
    header = {"architecture": ARCHITECTURES[name], **describe(steps)}
    entry = {
        "architecture": ARCHITECTURES[name],
        "licence": source.licence,
        "source": f"{PACKAGE}, {source.model}{source.origin}",
        "trained": source.trained,
    }
    add_network(pack, name, state, header=header, entry=entry)
    print(f"{name}: {len(state)} tensors, {sum(value.numel() for value in state.values()):,} values")


def read(folder: Path, model: str) -> dict[str, tuple[Tensor, tuple[float, float] | None]]:
    """A model's tensors as they are stored, and of uint8 ones the scale and minimum that make values of them."""
    manifest = json.loads((folder / f"{model}_model-weights_manifest.json").read_text(encoding="utf-8"))
    found: dict[str, tuple[Tensor, tuple[float, float] | None]] = {}
    for group in manifest:
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        place = 0
        for weight in group["weights"]:
            step = weight.get("quantization")
            kind = np.dtype(step["dtype"] if step else weight["dtype"]).newbyteorder("<")
            count = math.prod(weight["shape"])
            if place + count * kind.itemsize > len(data):
                raise WeightsError(f"{folder / group['paths'][0]}: ends before {weight['name']}; fetch the file again")
            values = np.frombuffer(data, kind, count, place).reshape(weight["shape"])
            found[weight["name"]] = torch.from_numpy(values.copy()), (step["scale"], step["min"]) if step else None
            place += count * kind.itemsize
        if place != len(data):
            raise WeightsError(f"{folder / group['paths'][0]}: {len(data)} bytes, its manifest names {place}")
    return found


def in_order_of_torch(name: str, value: Tensor) -> Tensor:
    """Filters of (height, width, in, out) as (out, in, height, width), depthwise ones as (channels, 1, ...)."""
    if value.ndim == 2:
        return value.T.contiguous()
    if value.ndim != 4:
        return value
    return value.permute(2, 3, 0, 1).contiguous() if "depthwise" in name else value.permute(3, 2, 0, 1).contiguous()


def rename_recogniser(name: str) -> str | None:
    """conv32_1/conv1/conv/filters to conv32_1.conv1.weight, its scale/weights to conv32_1.conv1.scale."""
    if name == "fc":
        return "fc.weight"
    ends = {"conv/filters": "weight", "conv/bias": "bias", "scale/weights": "scale", "scale/biases": "shift"}
    path, *last = name.rsplit("/", 2)
    return f"{path.replace('/', '.')}.{ends['/'.join(last)]}"


def rename_separable(name: str) -> str | None:
    """dense0/conv1/pointwise_filter to dense0.conv1.pointwise.weight; the bias is the pointwise convolution's."""
    path, _, last = name.rpartition("/")
    plain = path in ("dense0/conv0", "conv0", "conv8", "fc")
    ends = {
        "filters": "weight", "weights": "weight", "bias": "bias" if plain else "pointwise.bias",
        "depthwise_filter": "depthwise.weight", "pointwise_filter": "pointwise.weight",
    }  # fmt: skip
    return f"{path.replace('/', '.')}.{ends[last]}"


def rename_fast_detector(name: str) -> str | None:
    """As above; conv0 is the start, conv8 the head, and those between are counted from 0."""
    path, _, rest = str(rename_separable(name)).partition(".")
    number = int(path.removeprefix("conv"))
    return f"{ {0: 'start', 8: 'head'}.get(number, f'convs.{number - 1}') }.{rest}"


def rename_detector(name: str) -> str | None:
    """MobilenetV1/Conv2d_3_depthwise/BatchNorm/gamma to depthwise.2.norm.gamma; constants of the graph go."""
    ends = {
        "weights": "weight", "biases": "bias", "convolution_bn_offset": "bias", "depthwise_weights": "weight",
        "BatchNorm/gamma": "norm.gamma", "BatchNorm/beta": "norm.beta", "BatchNorm/moving_mean": "norm.mean",
        "BatchNorm/moving_variance": "norm.variance",
    }  # fmt: skip
    if match := re.fullmatch(r"MobilenetV1/Conv2d_(\d+)_(depthwise|pointwise)/(.+)", name):
        number, kind, last = int(match[1]), match[2], match[3]
        return f"start.{ends[last]}" if number == 0 else f"{kind}.{number - 1}.{ends[last]}"
    if match := re.fullmatch(r"Prediction/Conv2d_(\d+)_pointwise/(.+)", name):
        return f"extra.{match[1]}.{ends[match[2]]}"
    if match := re.fullmatch(r"Prediction/BoxPredictor_(\d+)/(BoxEncoding|Class)Predictor/(.+)", name):
        return f"{'boxes' if match[2] == 'BoxEncoding' else 'classes'}.{match[1]}.{ends[match[3]]}"
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a network comes from, and what its tensors are called in ours."""

    model: str
    licence: str
    origin: str
    trained: str
    rename: Callable[[str], str | None]


SOURCES = {
    RECOGNISER: Source(
        "face_recognition",
        "CC0-1.0",
        ", which is dlib_face_recognition_resnet_model_v1",
        "not by this project: by Davis King for dlib, on about 3 million photographs of 7,485 people (face scrub, VGG"
        " and images from the web); put into the public domain by him",
        rename_recogniser,
    ),
    LANDMARKS: Source(
        "face_landmark_68",
        "MIT",
        "",
        "not by this project: by Vincent Mühler for face-api.js, on about 35,000 photographs with 68 points each",
        rename_separable,
    ),
    SSD_DETECTOR: Source(
        "ssd_mobilenetv1",
        "MIT AND Apache-2.0",
        ", which is the tensorflow-face-detection model of yeephycho",
        "not by this project: by yeephycho, on the WIDER FACE data set",
        rename_detector,
    ),
    TINY_DETECTOR: Source(
        "tiny_face_detector",
        "MIT",
        "",
        "not by this project: by Vincent Mühler for face-api.js, on about 14,000 photographs with boxes",
        rename_fast_detector,
    ),
}

if __name__ == "__main__":
    main()
