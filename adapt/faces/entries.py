"""What a pack calls these networks, and the architecture that each must have."""

from __future__ import annotations

from typing import Final

RECOGNISER: Final = "recogniser"
LANDMARKS: Final = "landmarks"
DETECTOR: Final = "detector"
SSD_DETECTOR: Final = "detector-ssd"
TINY_DETECTOR: Final = "detector-tiny"

DETECTORS: Final = {"mtcnn": DETECTOR, "ssd": SSD_DETECTOR, "tiny": TINY_DETECTOR}  # by what commands call them

ARCFACE: Final = "arcface-resnet18"  # what a recogniser of a user's may be in the place of the pack's
ARCHITECTURES: Final[dict[str, str]] = {
    RECOGNISER: "dlib-resnet",
    LANDMARKS: "dense-landmarks",
    DETECTOR: "mtcnn",
    SSD_DETECTOR: "ssd-mobilenet",
    TINY_DETECTOR: "tiny-yolo",
}
