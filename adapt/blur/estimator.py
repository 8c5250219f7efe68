"""The blur estimator SE of DynFaceRestore: a transfer model TM, and the std estimator SDE behind it (Fig. 8, Table 4).

TM takes the photo to an image that looks Gaussian-blurred, SDE reads the std off that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from adapt.blur.labels import std_limits
from adapt.errors import UsageError, WeightsError
from adapt.images import check_image, clamped
from adapt.restorers.swinir import SwinIR
from adapt.settings import BlurNetworkSettings
from adapt.weights import load_weights, read_state
from degradations.blind import PUBLISHED_SIZE

ARCHITECTURE: Final = "blur-estimator"
RECOMPUTED: Final = ("attn_mask", "relative_position_index")  # what SwinIR computes itself


class StdEstimator(nn.Module):
    """SDE: the std of a Gaussian-blurred image.

    Six convolutions with batch normalisation, the third and the fifth of stride 2; the mean over the image; three
    linear layers, the last two with nothing between them.

    Args:
        channels: width of the three pairs of convolutions; the paper's are 64, 128, 256.
        size: side of the images it is trained on, in pixels.

    Source: Table 4. Its last normalisation says 64 channels after a convolution of 256; it must be 256. The slope of
    LeakyReLU is not given: 0.01, PyTorch's. Pooling leaves one number per channel, as the linear layer needs it.
    Differs: the last layer counts in pixels of an image of 512, so that one training setup serves all sizes.
    """

    def __init__(self, channels: Sequence[int], size: int) -> None:
        super().__init__()
        self.unit = size / PUBLISHED_SIZE
        layers: list[nn.Module] = []
        before = 3
        for stage, width in enumerate(channels):
            for stride in (1 if stage == 0 else 2, 1):
                layers += [nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.LeakyReLU()]
                before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(before, before), nn.LeakyReLU(), nn.Linear(before, before), nn.Linear(before, 1)
        )

    def forward(self, blurred: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], of any size, to (B,) in pixels; not limited."""
        return self.head(self.features(blurred).mean(dim=(2, 3)))[:, 0] * self.unit


class BlurNetwork(nn.Module):
    """SE: TM and SDE as one network, so that both train through one call.

    Args:
        settings: layout of both.

    Raises:
        UsageError: a TM that enlarges.
    """

    def __init__(self, settings: BlurNetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        self.transfer = SwinIR(settings.transfer)
        if self.transfer.scale != 1:
            raise UsageError(f"blur estimator: expected a TM that keeps the size, got one of x{self.transfer.scale}")
        self.deviation = StdEstimator(settings.channels, settings.size)

    def forward(self, photo: Tensor, is_blurred: bool = False) -> tuple[Tensor, Tensor]:
        """Std (B,) in pixels and the image (B, 3, H, W) it was read off, neither limited.

        Args:
            photo: (B, 3, H, W) in [0, 1].
            is_blurred: the photo is a Gaussian blur already; TM is left out.
        """
        blurred = photo if is_blurred else self.transfer(photo)
        return self.deviation(blurred), blurred


@dataclass(frozen=True, slots=True)
class Estimate:
    """What SE says of a photo.

    Attributes:
        std: (B,) in pixels, within `std_limits`; NaN where the network gave nothing finite.
        blurred: TM's image, (B, 3, H, W) in [0, 1]; near a Gaussian blur of the truth, but not one.
    """

    std: Tensor
    blurred: Tensor


@dataclass(slots=True)
class BlurEstimator:
    """A blur estimator that is ready to use.

    Attributes:
        name: what the user calls it.
        network: SE.
    """

    name: str
    network: BlurNetwork

    @property
    def size(self) -> int:
        """Side of the images it was trained on, in pixels."""
        return self.network.settings.size

    @torch.no_grad()
    def __call__(self, photo: Tensor) -> Estimate:
        """Estimate the blur levels of (B, 3, H, W) photos in [0, 1], on the photo's device.

        The network is in evaluation mode from here on: no photo's std depends on its batch.

        Raises:
            ShapeError, RangeError: not such a batch.
        """
        check_image(photo, self.name)
        self.network.eval()
        weights = next(self.network.parameters())
        std, blurred = self.network(photo.to(weights.device, weights.dtype))
        low, high = std_limits(photo.shape[-1])
        std = torch.where(std.isfinite(), std.float().clamp(low, high), torch.nan)
        return Estimate(std.to(photo.device), clamped(blurred.float()).to(photo.device))

    def to(self, device: torch.device | str) -> BlurEstimator:
        """Move the network; returns itself."""
        self.network.to(device)
        return self


def build_blur_estimator(name: str, state: dict[str, Tensor], metadata: dict[str, str]) -> BlurEstimator:
    """Rebuild an estimator from its tensors and the settings in a file's header.

    Raises:
        WeightsError: of another architecture, or weights that do not fit.
    """
    if metadata.get("architecture") != ARCHITECTURE or "settings" not in metadata:
        got = metadata.get("architecture", "nothing")
        raise WeightsError(f"{name}: expected a {ARCHITECTURE} of ours, its header names {got}")
    network = BlurNetwork(BlurNetworkSettings.model_validate_json(metadata["settings"]))
    load_weights(network, state, source=name, ignore=RECOMPUTED)
    return BlurEstimator(name, network.eval())


def load_blur_estimator_file(path: Path) -> BlurEstimator:
    """Load an estimator from a file that `adapt pretrain` wrote.

    Raises:
        WeightsError: the file cannot be read, or holds no blur estimator.
    """
    state, metadata = read_state(path)
    return build_blur_estimator(str(path), state, metadata)
