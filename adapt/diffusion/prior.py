"""The prior: a noise predictor with the schedule it was trained on, asked for clean images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from adapt.diffusion.steps import Step
from adapt.diffusion.unet import UNet, unet_settings
from adapt.errors import ShapeError, UsageError
from adapt.settings import UNetSettings
from adapt.weights import load_weights, settings_of

SEEING: Final = 6  # channels that a network takes which sees the photo beside the noisy image


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the prior says about x_t.

    Attributes:
        x0: the clean image, (B, 3, H, W), clamped to [-1, 1].
        log_variance: log of the variance of the ancestral step, same shape: learned, between that of the posterior
            and beta (Nichol & Dhariwal 2021, Eq. 15).
    """

    x0: Tensor
    log_variance: Tensor


class Predictor(Protocol):
    """What a sampler needs of a prior."""

    def predict(self, x: Tensor, step: Step) -> Prediction:
        """The prediction at x_t = x, (B, 3, H, W)."""
        ...

    def predict_each(
        self, xs: Sequence[Tensor], steps: Sequence[Step], photos: Sequence[Tensor | None] = ()
    ) -> list[Prediction]:
        """The predictions of batches that stand at steps of their own; in one go where the prior knows how.

        Args:
            xs, steps: of each batch.
            photos: the damaged photos of each, in [-1, 1]; asked for by a prior that sees them, and by no other.
        """
        return [self.predict(x, step) for x, step in zip(xs, steps, strict=True)]


def predicted_x0(x: Tensor, noise: Tensor, abar: float) -> Tensor:
    """The clean image that x_t and its noise imply (Ho et al. 2020, Eq. 9 solved for x_0), not clamped."""
    return (1 / abar) ** 0.5 * x - (1 / abar - 1) ** 0.5 * noise


@dataclass(slots=True)
class Prior:
    """A diffusion model of faces, which may see the photo beside the noisy image (Diffuse and Restore, Eq. 5).

    Attributes:
        name: what the user calls it.
        settings: the network's layout; settings.image_size is the side it was trained at, in pixels.
        network: (B, 3, H, W), (B,) -> (B, 6, H, W): noise, and variance channels. One that sees the photo takes it as
            channels 3 to 5, in [-1, 1].
        digest: stands for the weights that it was loaded with; empty where it was not loaded by a name.
    """

    name: str
    settings: UNetSettings
    network: nn.Module
    digest: str = ""

    @property
    def size(self) -> int:
        """Side of the images it was trained on."""
        return self.settings.image_size

    def to(self, device: torch.device | str) -> Prior:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    @property
    def sees_photo(self) -> bool:
        """Whether it is told what the photo shows."""
        return self.settings.in_channels == SEEING

    def predict(self, x: Tensor, step: Step, photo: Tensor | None = None) -> Prediction:
        """Clean image and step variance at x_t = x, (B, 3, H, W), not bounded.

        Raises:
            ShapeError: a side that the network cannot halve often enough.
            UsageError: it sees the photo, and there is none.
        """
        return self.predict_each([x], [step], [photo])[0]

    def predict_each(
        self, xs: Sequence[Tensor], steps: Sequence[Step], photos: Sequence[Tensor | None] = ()
    ) -> list[Prediction]:
        """The predictions of batches (B_i, 3, H, W) that stand at steps of their own: one evaluation of the network.

        Raises:
            ShapeError: a side that the network cannot halve often enough.
            UsageError: it sees the photos, and there is one missing.
        """
        multiple = 2 ** (len(self.settings.channel_mult) - 1)
        sides = xs[0].shape[-2:]
        if sides[0] % multiple or sides[1] % multiple:
            raise ShapeError(f"{self.name}: expected sides that are multiples of {multiple}, got {tuple(sides)}")
        counts = [len(x) for x in xs]
        times = [step.t for step, count in zip(steps, counts, strict=True) for _ in range(count)]
        seen = torch.cat(list(xs))
        if self.sees_photo:
            known = [photo for photo in photos if photo is not None]
            if len(known) != len(xs):
                raise UsageError(f"{self.name}: sees the photos beside the noisy images, and was given none")
            seen = torch.cat([seen, torch.cat(known)], dim=1)
        output = self.network(seen, torch.tensor(times, device=xs[0].device)).float()
        return [_read(part, x, step) for part, x, step in zip(output.split(counts), xs, steps, strict=True)]


def _read(output: Tensor, x: Tensor, step: Step) -> Prediction:
    """What the network's (B, 6, H, W) says of x at a step."""
    noise, variance = output.chunk(2, dim=1)
    share = (variance + 1) / 2
    log_variance = share * float(torch.tensor(step.beta).log()) + (1 - share) * step.log_posterior_variance
    return Prediction(predicted_x0(x, noise, step.abar).clamp(-1, 1), log_variance)


def build_prior(name: str, state: dict[str, Tensor], metadata: dict[str, str], *, size: int | None = None) -> Prior:
    """Rebuild a prior from its tensors and, where there are some, the settings in a file's header.

    Raises:
        WeightsError: not a U-Net in the public layout, or weights that do not fit.
    """
    stored = metadata.get("settings")
    with settings_of(name, "prior"):
        settings = UNetSettings.model_validate_json(stored) if stored else unet_settings(state, size)
        network = UNet(settings)
    load_weights(network, state, source=name)
    return Prior(name, settings, network.eval().requires_grad_(False))
