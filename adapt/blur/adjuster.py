"""The guidance adjuster (DGSA of DynFaceRestore): how strongly each pixel is to be guided at a timestep."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.diffusion.unet import UNet, timestep_embedding
from adapt.errors import ShapeError, WeightsError
from adapt.settings import AdjusterNetworkSettings
from adapt.weights import load_weights, settings_of

ARCHITECTURE: Final = "guidance-adjuster"

class _Bounded(torch.autograd.Function):
    """Clamp to [0, 1] whose gradient vanishes outside only where it would lead further out.

    With that of a plain clamp, a map that is 1 everywhere, which is soon reached, would stay so for ever.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        (gradient,) = grad_outputs
        outwards = ((value > 1) & (gradient < 0)) | ((value < 0) & (gradient > 0))
        return gradient.masked_fill(outwards, 0)


class GuidanceAdjuster(nn.Module):
    """A map in [0, 1] by which the guidance gradient of each pixel and channel is scaled.

    Three 3x3 convolutions with ELU between them and a clamp to [0, 1] at the end, at any resolution (DynFaceRestore
    Table 5, Fig. 9). ReLU-1 is that clamp; training may lead back from beyond its ends. The paper does not say how the
    timestep enters: the prior's time embedding (SiLU, linear, as in the prior's own blocks) is added after the first
    convolution. That embedding is a frozen copy, so that the file of an adjuster is complete. Borders are repeated,
    not black, because the edge of an image is no edge in it.
    """

    def __init__(self, settings: AdjusterNetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        width, embedding = settings.features, 4 * settings.model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(settings.model_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        ).requires_grad_(False)
        self.time = nn.Linear(embedding, width)
        self.first = nn.Conv2d(6, width, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")
        self.last = nn.Conv2d(width, 3, 3, padding=1, padding_mode="replicate")

    def forward(self, guidance: Tensor, x0: Tensor, timesteps: Tensor) -> Tensor:
        """A_t of Eq. (13).

        Args:
            guidance: the blurred measurement, (B, 3, H, W) in [-1, 1].
            x0: the prior's clean image at the timestep, same shape and range.
            timesteps: (B,) on the 1000-step scale.

        Returns:
            (B, 3, H, W) in [0, 1]: 1 guides fully, 0 leaves the pixel to the prior.

        Raises:
            ShapeError: the shapes differ, or are not those of images.
        """
        if guidance.shape != x0.shape or x0.ndim != 4 or x0.shape[1] != 3 or timesteps.shape != x0.shape[:1]:
            raise ShapeError(
                "guidance adjuster: expected guidance and x0 of one shape (B, 3, H, W) and timesteps (B,), got"
                f" {tuple(guidance.shape)}, {tuple(x0.shape)} and {tuple(timesteps.shape)}"
            )
        embedding = self.time_embed(timestep_embedding(timesteps, self.settings.model_channels))
        shift = self.time(F.silu(embedding))[:, :, None, None]
        features = F.elu(self.first(torch.cat([guidance, x0], dim=1)) + shift)
        bounded: Tensor = _Bounded.apply(self.last(F.elu(self.second(features))))  # pyright: ignore[reportAssignmentType]
        return bounded

    def copy_time_embedding(self, network: nn.Module) -> None:
        """Take over the time embedding of the prior's network.

        Raises:
            WeightsError: no U-Net in the public layout, or an embedding of another width.
        """
        if not isinstance(network, UNet):
            raise WeightsError(
                f"guidance adjuster: expected a prior in the public U-Net layout, got {type(network).__name__}"
            )
        theirs = network.settings.model_channels
        if theirs != self.settings.model_channels:
            raise WeightsError(
                f"guidance adjuster: made for a prior of {self.settings.model_channels} model channels, got {theirs}"
            )
        self.time_embed.load_state_dict(network.time_embed.state_dict())


def build_adjuster(name: str, state: dict[str, Tensor], metadata: dict[str, str]) -> GuidanceAdjuster:
    """Rebuild an adjuster from its tensors; its settings from the file's header, or else from the shapes.

    Raises:
        WeightsError: not an adjuster.
    """
    if metadata.get("architecture", ARCHITECTURE) != ARCHITECTURE:
        raise WeightsError(f"{name}: expected a {ARCHITECTURE}, its header names {metadata['architecture']}")
    stored = metadata.get("settings")
    if stored:
        with settings_of(name, ARCHITECTURE):
            settings = AdjusterNetworkSettings.model_validate_json(stored)
    elif "time_embed.0.weight" in state and "first.weight" in state:
        settings = AdjusterNetworkSettings(
            features=state["first.weight"].shape[0], model_channels=state["time_embed.0.weight"].shape[1]
        )
    else:
        raise WeightsError(f"{name}: not a guidance adjuster: no time_embed.0.weight or first.weight")
    network = GuidanceAdjuster(settings)
    load_weights(network, state, source=name)
    return network.eval().requires_grad_(False)
