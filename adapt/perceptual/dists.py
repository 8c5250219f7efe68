"""DISTS (Ding et al. 2020, arXiv:2004.07728): structure and texture compared, from weights on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.digests import settings_digest
from adapt.errors import ShapeError, WeightsError
from adapt.perceptual.distance import PerceptualDistance, find_vgg, load_exactly, tensors_digest
from adapt.perceptual.network import MIN_SIDE, pooled

DISTS_NAME: Final = "dists-vgg"
STAGES: Final = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))  # width in, out, convolutions
CHANNELS: Final = 3 + sum(out for _, out, _ in STAGES)  # the image itself is compared too
_STABILITY = 1e-6  # c1 and c2 of Eq. (4), (5)
_ROOT = 1e-12  # inside the root of the pooling, so that the gradient is finite where nothing is active


class DistsNetwork(nn.Module):
    """DISTS on VGG-16 whose maximum poolings are replaced by the root of a blurred square.

    Distance: 1 - sum over stages i (the image and five of VGG-16) and channels j of alpha_ij l_ij + beta_ij s_ij,
    where l compares means and s compares deviations by their correlation, alpha and beta add up to 1
    (Ding et al. 2020, Eq. 3-6).
    """

    kernel: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        # The random start is thrown away; fork_rng keeps it from moving the caller's generator.
        with torch.random.fork_rng(devices=[]):
            self.stages = nn.ModuleList(
                nn.ModuleList(nn.Conv2d(before if i == 0 else width, width, 3, padding=1) for i in range(count))
                for before, width, count in STAGES
            )
        self.alpha = nn.Parameter(torch.ones(1, CHANNELS, 1, 1))
        self.beta = nn.Parameter(torch.ones(1, CHANNELS, 1, 1))
        triangle = torch.tensor([0.5, 1.0, 0.5]) / 2  # a Hann window of five without its zeros
        self.register_buffer("kernel", triangle[:, None] * triangle, persistent=False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def features(self, image: Tensor) -> list[Tensor]:
        """The image, then the activations of the five stages; image (B, 3, H, W) in [0, 1]. Raises ShapeError."""
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < MIN_SIDE:
            raise ShapeError(
                f"DISTS: expected a batch of shape (B, 3, H, W) with sides of {MIN_SIDE} pixels or more,"
                f" got {tuple(image.shape)}"
            )
        found = [image]
        x = (image - self.mean) / self.deviation
        for index, stage in enumerate(self.stages):
            x = self._pooled(x) if index else x
            for convolution in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = F.relu(convolution(x))
            found.append(x)
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each image of `a` to its counterpart in `b`: (B,), 0 for equal images. Raises ShapeError."""
        if a.shape != b.shape:
            raise ShapeError(f"DISTS: expected two batches of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
        similar_means: list[Tensor] = []
        similar_structure: list[Tensor] = []
        for first, second in zip(self.features(a), self.features(b), strict=True):
            mean_a, mean_b = first.mean(dim=(2, 3)), second.mean(dim=(2, 3))
            similar_means.append((2 * mean_a * mean_b + _STABILITY) / (mean_a**2 + mean_b**2 + _STABILITY))
            off_a, off_b = first - mean_a[..., None, None], second - mean_b[..., None, None]
            covariance = (off_a * off_b).mean(dim=(2, 3))
            variances = off_a.square().mean(dim=(2, 3)) + off_b.square().mean(dim=(2, 3))
            similar_structure.append((2 * covariance + _STABILITY) / (variances + _STABILITY))
        total = self.alpha.sum() + self.beta.sum()
        alpha, beta = self.alpha.flatten() / total, self.beta.flatten() / total
        return 1 - (torch.cat(similar_means, 1) * alpha + torch.cat(similar_structure, 1) * beta).sum(dim=1)

    def embed(self, image: Tensor) -> Tensor:
        """Mean and standard deviation of the two deepest stages over the image, (B, 2048)."""
        return torch.cat([pooled(stage) for stage in self.features(image)[-2:]], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        """Half the resolution, sizes rounded up: the root of the blurred square of each channel."""
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + _ROOT).sqrt()


def find_dists(backbone: Path | None = None) -> PerceptualDistance | None:
    """DISTS from files on this machine; nothing is ever downloaded.

    alpha and beta come with torchmetrics, as the heads of lpips come with lpips; the backbone is torchvision's.

    Args:
        backbone: torchvision's vgg16-397923af.pth; by default looked for where torch.hub keeps its checkpoints.

    Returns:
        The distance, or None where the default place holds no backbone, or torchmetrics has no weights.

    Raises:
        WeightsError: the backbone is missing though it was named, is another file, or a file is damaged.
    """
    found = find_vgg(backbone)
    weights = _channel_weights()
    if found is None or weights is None:
        return None
    network = DistsNetwork()
    # torchvision counts convolutions, activations and poolings alike: the stages begin at 0, 5, 10, 17, 24.
    state: dict[str, Tensor] = dict(weights)
    number = 0
    for stage, (_, _, count) in enumerate(STAGES):
        for index in range(count):
            for kind in ("weight", "bias"):
                name = f"features.{number}.{kind}"
                if name in found.state:
                    state[f"stages.{stage}.{index}.{kind}"] = found.state[name]
            number += 2
        number += 1
    load_exactly(network, state, found.path)
    digest = settings_digest({"backbone": found.sha256, "channels": tensors_digest(weights)})
    return PerceptualDistance(DISTS_NAME, digest, network)


def _channel_weights() -> Mapping[str, Tensor] | None:
    """alpha and beta, each (1, 1475, 1, 1), from the file that torchmetrics ships; None where it ships none."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "functional" / "image" / "dists_models" / "weights.pt"
    if not path.is_file():
        return None
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    if set(stored) != {"alpha", "beta"}:
        raise WeightsError(f"{path}: expected the tensors alpha and beta of DISTS, got {', '.join(sorted(stored))}")
    return stored
