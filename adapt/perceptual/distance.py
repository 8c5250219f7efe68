"""A perceptual distance with its name and digest: lpips where its weights are at hand, else the pack's own."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self, cast

import torch
from torch import Tensor, nn

from adapt.digests import bytes_digest, settings_digest
from adapt.errors import UsageError, WeightsError
from adapt.images import to_signed
from adapt.perceptual.network import PerceptualNetwork, pooled
from adapt.weights import load_weights

TINY_NAME: Final = "tiny-perceptual"
LPIPS_NAME: Final = "lpips-vgg-v0.1"
VGG_FILE: Final = "vgg16-397923af.pth"
VGG_SHA256_STARTS: Final = "397923af"  # torchvision puts the first digits of its files' digests into their names


class PerceptualModule(Protocol):
    """What a network must do to serve as a distance."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) of two batches in [0, 1]."""
        ...

    def embed(self, image: Tensor) -> Tensor:
        """Features (B, D) of a batch in [0, 1]."""
        ...


class PerceptualDistance:
    """A frozen perceptual network under the name its numbers must be reported with.

    Gradients flow to the images, never to the weights.

    Args:
        name: "tiny-perceptual", "lpips-vgg-v0.1" or "dists-vgg"; numbers of two of them cannot be compared.
        digest: sha256 that stands for the weights.
        module: the network, an `nn.Module` that is a `PerceptualModule`; it is frozen here and put in eval mode.
    """

    def __init__(self, name: str, digest: str, module: nn.Module) -> None:
        self.name = name
        self.digest = digest
        self.module = module.eval().requires_grad_(False)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each image of `a` to its counterpart in `b`.

        Args:
            a, b: (B, 3, H, W) in [0, 1], sides of 16 pixels or more.

        Returns:
            (B,), not negative, 0 for equal images; the same whatever else is in the batch.

        Raises:
            ShapeError: the shapes differ, or are not those of images.
        """
        return cast(PerceptualModule, self.module)(a, b)

    def features(self, image: Tensor) -> Tensor:
        """Pooled deep features of (B, 3, H, W) in [0, 1], as (B, D): what KID compares. Raises ShapeError."""
        return cast(PerceptualModule, self.module).embed(image)

    @property
    def about(self) -> dict[str, str]:
        """What a run writes down of it."""
        return {"name": self.name, "digest": self.digest}

    def to(self, device: torch.device | str) -> Self:
        """Move the network to a device, in place."""
        self.module.to(device)
        return self


def load_pack_distance(state: Mapping[str, Tensor], settings: Mapping[str, object], digest: str) -> PerceptualDistance:
    """The pack's own distance from its weights.

    Args:
        state: tensors of a `PerceptualNetwork`, of any floating type; computed with in float32.
        settings: of the network: {"channels": [...]}.
        digest: sha256 of the weights file.

    Raises:
        UsageError: settings other than `channels`, or channels that are no list of positive whole numbers.
        WeightsError: the tensors are not those of a network with these channels.
    """
    channels = settings.get("channels")
    if not isinstance(channels, list | tuple) or set(settings) != {"channels"}:
        raise UsageError(f"perceptual network: expected the settings {{'channels': [...]}}, got {dict(settings)}")
    widths = cast("list[object] | tuple[object, ...]", channels)
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise UsageError(f"perceptual network: expected positive whole numbers as channels, got {list(widths)}")
    network = PerceptualNetwork(cast("list[int]", list(widths)))
    load_weights(network, {key: value.float() for key, value in state.items()}, source="perceptual network")
    return PerceptualDistance(TINY_NAME, digest, network)


def find_lpips(backbone: Path | None = None) -> PerceptualDistance | None:
    """LPIPS v0.1 over VGG-16, from files on this machine; nothing is ever downloaded.

    Args:
        backbone: torchvision's vgg16-397923af.pth; by default looked for where torch.hub keeps its checkpoints.

    Returns:
        The distance, or None where the default place holds no backbone.

    Raises:
        WeightsError: the file is missing though it was named, is another file, or is damaged.
    """
    found = find_vgg(backbone)
    if found is None:
        return None
    network = _LpipsNetwork()
    # lpips groups the layers in slices but keeps their numbers: slice2.5.weight is torchvision's features.5.weight.
    wanted = {key: "features." + key.split(".", 1)[1] for key in network.backbone.state_dict()}
    state = {key: found.state[name] for key, name in wanted.items() if name in found.state}
    load_weights(network.backbone, state, source=str(found.path))
    digest = settings_digest({"backbone": found.sha256, "heads": tensors_digest(network.heads_state())})
    return PerceptualDistance(LPIPS_NAME, digest, network)


@dataclass(frozen=True, slots=True)
class Backbone:
    """The tensors of torchvision's VGG-16, the file they came from, and its digest."""

    state: Mapping[str, Tensor]
    path: Path
    sha256: str


def vgg_place() -> Path:
    """Where VGG-16 is looked for: where torch.hub keeps its checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE


def find_vgg(backbone: Path | None = None) -> Backbone | None:
    """VGG-16 from a file on this machine, its digest checked; arguments, None and errors as in `find_lpips`."""
    path = backbone or vgg_place()
    if not path.is_file():
        if backbone is None:
            return None
        raise WeightsError(f"{path}: no such file; expected torchvision's {VGG_FILE}, the backbone of lpips and DISTS")
    data = path.read_bytes()
    sha256 = bytes_digest(data)
    if not sha256.startswith(VGG_SHA256_STARTS):
        raise WeightsError(
            f"{path}: expected torchvision's {VGG_FILE}, whose sha256 starts with {VGG_SHA256_STARTS}, got"
            f" {sha256[:8]}...; fetch the file anew"
        )
    return Backbone(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), path, sha256)


class _LpipsNetwork(nn.Module):
    """lpips behind this room's interface: [0, 1] in, (B,) out."""

    def __init__(self) -> None:
        super().__init__()
        import lpips

        # The backbone's random start is thrown away; fork_rng keeps it from moving the caller's generator.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision in the way of 2021
            self.lpips: nn.Module = lpips.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
        self.backbone = cast(nn.Module, self.lpips.net)

    def heads_state(self) -> dict[str, Tensor]:
        """The linear heads, which come with lpips."""
        return {key: value for key, value in self.lpips.state_dict().items() if key.startswith("lin")}

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.lpips(to_signed(a), to_signed(b)).flatten()

    def embed(self, image: Tensor) -> Tensor:
        scaled = cast(nn.Module, self.lpips.scaling_layer)(to_signed(image))
        return torch.cat([pooled(stage) for stage in list(self.backbone(scaled))[-2:]], dim=1)


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 of names and values."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
