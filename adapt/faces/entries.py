"""What a pack calls these networks, and the architecture that each must have."""

from __future__ import annotations

from typing import Final

RECOGNISER: Final = "recogniser"
LANDMARKS: Final = "landmarks"
DETECTOR: Final = "detector"
FAST_DETECTOR: Final = "detector-tiny"

ARCHITECTURES: Final[dict[str, str]] = {
    RECOGNISER: "dlib-resnet",
    LANDMARKS: "dense-landmarks",
    DETECTOR: "ssd-mobilenet",
    FAST_DETECTOR: "tiny-yolo",
}
