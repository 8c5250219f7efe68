"""Where identity guidance may act: a small network that names the pixels which tell of the person.

Source: Diffuse and Restore, Sec. 3.2.1. The paper says no more of it than what goes in, what comes out and what it
learns from; layout and size are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.settings.networks import IdentityMaskLayout
from adapt.weights import load_weights, settings_of

ENTRY: Final = "identity-mask"  # in a pack, and its architecture


class MaskNetwork(nn.Module):
    """Photos (B, 3, H, W) in [-1, 1] and M' (B, 1, H, W) to how much each pixel tells, (B, 1, H, W) in (0, 1).

    H and W are multiples of 4.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        wide = 2 * features
        self.first = nn.Conv2d(4, features, 3, padding=1)
        self.to_half = nn.Conv2d(features, wide, 3, stride=2, padding=1)
        self.to_quarter = nn.Conv2d(wide, 2 * wide, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * wide, 2 * wide, 3, padding=2, dilation=2)
        self.up_half = nn.Conv2d(3 * wide, wide, 3, padding=1)
        self.up_full = nn.Conv2d(wide + features, features, 3, padding=1)
        self.out = nn.Conv2d(features, 1, 3, padding=1)

    def forward(self, photos: Tensor, changed: Tensor) -> Tensor:
        full = F.silu(self.first(torch.cat([photos, changed], dim=1)))
        half = F.silu(self.to_half(full))
        x = F.silu(self.middle(F.silu(self.to_quarter(half))))
        x = F.silu(self.up_half(torch.cat([F.interpolate(x, scale_factor=2.0), half], dim=1)))
        x = F.silu(self.up_full(torch.cat([F.interpolate(x, scale_factor=2.0), full], dim=1)))
        return self.out(x).sigmoid()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityMask:
    """Such a network, ready to use.

    Attributes:
        name: what the user calls it.
        network: the network.
        delta: of Eq. (8), on the scale of [0, 1].
        digest: stands for the weights that it was loaded with.
    """

    name: str
    network: MaskNetwork
    delta: float
    digest: str = ""

    @torch.no_grad()
    def __call__(self, photos: Tensor, restored: Tensor) -> Tensor:
        """M, (B, 1, H, W): 1 where guidance may move the image, else 0.

        Args:
            photos, restored: x and g(x), (B, 3, H, W) in [-1, 1].
        """
        return (self.network(photos, changed(photos, restored, self.delta)) > 0.5).to(photos)

    def to(self, device: torch.device | str) -> IdentityMask:
        """Move the network; returns itself."""
        self.network.to(device)
        return self


def changed(photos: Tensor, restored: Tensor, delta: float) -> Tensor:
    """M' of Eq. (8), (B, 1, H, W): 1 where the restorer changed one of the channels by more than delta, else 0.

    Args:
        photos, restored: (B, 3, H, W) in [-1, 1].
        delta: on the scale of [0, 1].
    """
    return ((restored - photos).abs().amax(1, keepdim=True) / 2 > delta).to(photos)


def build_mask(name: str, state: Mapping[str, Tensor], header: Mapping[str, str], digest: str = "") -> IdentityMask:
    """Rebuild it from the tensors and the header of its file.

    Raises:
        WeightsError: no such settings, or weights that do not fit.
    """
    with settings_of(name, ENTRY):
        layout = IdentityMaskLayout.model_validate_json(header.get("settings", ""))
    network = MaskNetwork(layout.features)
    load_weights(network, dict(state), source=name)
    return IdentityMask(
        name=name, network=network.eval().requires_grad_(False), delta=layout.delta, digest=digest
    )
