"""Guidance by Gaussian blurs: the clean image, blurred, should be the restored photo, blurred as much (DynFaceRestore).

The blur level is refined on the way, every photo's by itself, and may differ from region to region.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from adapt.blur.adjuster import GuidanceAdjuster
from adapt.blur.labels import std_limits
from adapt.blur.mapping import GUIDES, blurred_guides, guide_stds
from adapt.diffusion.sampler import Conditioning, GuidanceLoss, step_length
from adapt.diffusion.steps import Step
from adapt.errors import UsageError
from adapt.guidance.regions import region_weights
from degradations.cosines import from_cosines, gaussian_response, to_cosines


class BlurMemory(NamedTuple):
    """What the term remembers.

    Attributes:
        guides: the measurements, (B, G, 3, H, W) in [-1, 1], the most blurred first.
        std: what their blurs are now believed to be, (B, G, R) float64 in pixels.
        starts: the timesteps at which they join, (B, G).
        scale_map: by what the adjuster scaled the last gradient, (B, 3, H, W) in [0, 1]; None without one.
    """

    guides: Tensor
    std: Tensor
    starts: Tensor
    scale_map: Tensor | None


@dataclass(frozen=True, slots=True)
class BlurGuidanceLoss(GuidanceLoss):
    """A guidance loss that also says how the blur levels should move.

    Attributes:
        std_gradient: its derivative with respect to each blur level, (B, G, R) float64.
        std_bend: twice the squared norm of the blurred image's derivative, weighted: the guidance loss's second
            derivative if blur were linear in its level.
        std_hidden: what of the guidance loss a wider blur would hide, were the whole residual the prediction's own:
            minus the derivative of its weighted squared norm under a blur of its own.
    """

    std_gradient: Tensor
    std_bend: Tensor
    std_hidden: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianBlur:
    """Descends the squared distance between blurred prediction and blurred restored photo.

    Attributes:
        weights: lambda of one to four guidances; blur levels std, std - 1, ... (Eq. 15, Algorithm 3, Table 7).
        scale: s of Eq. (5), 1 in Algorithm 1; the adjuster's map multiplies it.
        std_rate: s of Eq. (7), 1 in Algorithm 1; 0 leaves the blur levels as they were estimated.
        through_network: whether the gradient is taken with respect to x_t, through the network (Eq. 5), or stays at
            x0: no backward pass, half to two thirds of the time, a looser hold.
        limit: whether no step goes further than where the guidance loss, were it linear, would vanish.
        regions: windows along a side that have a blur level of their own; 1 is the paper.
        start_t: blur level in pixels to the timestep at which its guidance joins; None: all act from the start.
        adjuster: DGSA; None guides every pixel alike.

    Source: DynFaceRestore Eq. (5), (7), (12), (13), Algorithms 1 and 3. Squared norms are sums over the pixels in
    [-1, 1], as in DPS. Differs: the paper says nothing of how far a step may lead. Where the noise is strong, x0
    follows x_t fifty-fold, and the step of Eq. (5) with s = 1 overshoots a thousandfold; `limit` is Polyak's step for
    a guidance loss that can reach 0. In the same way, the std moves no further than the share sqrt(abar) of the way to
    the minimum of the guidance loss's linear model (with s = 1 a sum over pixels throws it from end to end), and stays
    within 0.1 to 15 pixels at 512. And the guidance loss is least at the true std only while x0 is a mean. The further
    it becomes a sample, the more of its detail is its own, half of what is left over at the end, and a wider blur would
    hide that: the std would settle up to a third too high. So that half, times abar, is taken off the derivative.
    """

    weights: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    std_rate: float = 1.0
    through_network: bool = True
    limit: bool = True
    regions: int = 1
    start_t: Callable[[float], int] | None = None
    adjuster: GuidanceAdjuster | None = None
    acts_on: Literal["gradient"] = "gradient"

    @property
    def facts(self) -> Mapping[str, int]:
        """Nothing beside the blur level, which is the photo's own."""
        return {}

    def __post_init__(self) -> None:
        if not GUIDES[0] <= len(self.weights) <= GUIDES[1] or min(self.weights) <= 0:
            raise UsageError(
                f"gaussian_blur: expected {GUIDES[0]} to {GUIDES[1]} positive weights, got {list(self.weights)}"
            )

    def begin(self, conditioning: Conditioning) -> BlurMemory:
        """The measurements of a conditioning, each the restored photo under its blur (Eq. 8, 15).

        Raises:
            UsageError: a conditioning without blur levels, or with another number of regions.
        """
        expected = (len(conditioning.restored), self.regions**2)
        if conditioning.std is None or tuple(conditioning.std.shape) != expected:
            got = "none" if conditioning.std is None else tuple(conditioning.std.shape)
            raise UsageError(f"gaussian_blur: expected the blur levels of the photos, {expected}, got {got}")
        std = self._guide_stds(conditioning.std.double(), conditioning.restored.shape[-1])
        guides = self._blurred(conditioning.restored, std)
        return BlurMemory(guides, std, self._starts(std).to(std.device), None)

    def starting_image(self, memory: BlurMemory) -> Tensor:
        """The most blurred measurement (Algorithm 1, line 4)."""
        return memory.guides[:, 0]

    def _guide_stds(self, std: Tensor, size: int) -> Tensor:
        """(B, R) to (B, G, R)."""
        stds = guide_stds(std.reshape(-1), len(self.weights), size)
        return stds.view(*std.shape, len(self.weights)).transpose(1, 2)

    def _starts(self, std: Tensor) -> Tensor:
        """The timesteps (B, G) from which the guidances act; of regions, the blurriest one's. The first acts always."""
        if self.start_t is None:
            return torch.full(std.shape[:2], math.inf)
        levels = std.amax(dim=2).tolist()
        starts = torch.tensor([[float(self.start_t(level)) for level in photo] for photo in levels])
        starts[:, 0] = math.inf
        return starts

    def _blurred(self, image: Tensor, std: Tensor) -> Tensor:
        """An image (B, 3, H, W) under each blur (B, G, R), blended over the regions: (B, G, 3, H, W)."""
        return (blurred_guides(image, std) * self._windows(image)).sum(dim=2)

    def _windows(self, image: Tensor) -> Tensor:
        return region_weights(self.regions, (image.shape[-2], image.shape[-1])).to(image)

    def guidance_loss(self, x0: Tensor, step: Step, memory: BlurMemory) -> BlurGuidanceLoss:
        """s sum_i w_i ||y_i - k_i * x0||^2 and its exact derivatives; w_i are the weights that act, scaled to sum 1."""
        weights = torch.tensor(self.weights, dtype=torch.float64, device=memory.starts.device)
        acting = (memory.starts >= step.t) * weights
        shares = (acting / acting.sum(dim=1, keepdim=True)).to(x0)
        with torch.enable_grad():
            image = x0.detach().requires_grad_(True)
            residual = self._blurred(image, memory.std) - memory.guides
            values = (shares * residual.square().sum(dim=(2, 3, 4))).sum(dim=1)
            (gradient,) = torch.autograd.grad(values.sum(), image)
        values, gradient = self.scale * values.detach(), self.scale * gradient
        if not self.std_rate:
            still = torch.zeros_like(memory.std)
            return BlurGuidanceLoss(values, gradient, still, torch.ones_like(still), still)
        left, weighted = residual.detach(), 2 * shares[:, :, None]
        bends = self._std_derivative(x0[:, None, None], memory.std, blurred=False)
        hides = self._std_derivative(left[:, :, None], memory.std, blurred=True)
        std_gradient, std_bend, std_hidden = (
            (weighted * product.sum(dim=(3, 4, 5))).double()
            for product in (bends * left[:, :, None], bends.square(), -hides * left[:, :, None])
        )
        return BlurGuidanceLoss(values, gradient, std_gradient, std_bend, std_hidden)

    def _std_derivative(self, image: Tensor, std: Tensor, *, blurred: bool) -> Tensor:
        """The derivative of a blurred image with respect to each blur level (B, G, R): (B, G, R, 3, H, W).

        The response of a Gaussian is exp(-q std^2), so its derivative is -2 q std times itself.

        Args:
            image: (B, 1 or G, 1, 3, H, W).
            std: the blur levels.
            blurred: the image is under the blur already.
        """
        size = (image.shape[-2], image.shape[-1])
        level = std.reshape(-1)
        change = 2 * gaussian_response(torch.ones_like(level[:1]), size).log() * level[:, None, None, None]
        if not blurred:
            change = change * gaussian_response(level, size)
        return from_cosines(to_cosines(image) * change.to(image).view(*std.shape, 1, *size)) * self._windows(image)

    def apply(
        self, direction: Tensor, step: Step, memory: BlurMemory, *, x0: Tensor, guidance_loss: GuidanceLoss
    ) -> tuple[Tensor, BlurMemory]:
        """The direction times the adjuster's map (Eq. 12, 13), and blur levels one step down by Eq. (7)."""
        scale_map = None
        if self.adjuster is not None:
            timesteps = torch.full((len(x0),), step.t, device=x0.device)
            scale_map = self.adjuster(memory.guides[:, 0].float(), x0.float(), timesteps).to(direction)
            direction = scale_map * direction
        refined = self._refined(memory.std, step, cast("BlurGuidanceLoss", guidance_loss), size=x0.shape[-1])
        return direction, memory._replace(std=refined, scale_map=scale_map)

    def _refined(self, std: Tensor, step: Step, guidance_loss: BlurGuidanceLoss, *, size: int) -> Tensor:
        """Eq. (7) with the factor sqrt(abar) of Algorithm 1, line 12; levels that are not finite stay."""
        length = step.abar**0.5 * (1 / guidance_loss.std_bend).clamp(max=self.std_rate)
        moved = std - length * (guidance_loss.std_gradient + step.abar / 2 * guidance_loss.std_hidden)
        return torch.where(moved.isfinite(), moved, std).clamp(*std_limits(size))


def blur_gradient(x_t: Tensor, x0: Tensor, guidance: Tensor, std: Tensor) -> Tensor:
    """The gradient with respect to x_t of ||guidance - k * x0||^2, shortened as `GaussianBlur` does at scale 1.

    For the training of the adjuster.

    Args:
        x_t: the noisy images, (B, 3, H, W); they require a gradient.
        x0: computed from x_t, with its graph, in [-1, 1].
        guidance: the measurements in [-1, 1].
        std: their blurs, (B,) in pixels.
    """
    term = GaussianBlur()
    levels = std.double()[:, None, None]
    memory = BlurMemory(guidance[:, None], levels, torch.full(levels.shape[:2], math.inf, device=std.device), None)
    guidance_loss = term.guidance_loss(x0, _ANY, memory)
    (gradient,) = torch.autograd.grad(x0, x_t, guidance_loss.gradient)
    return step_length(guidance_loss.value, gradient, limit=term.limit) * gradient


_ANY = Step(t=0, t_prev=-1, abar=1.0, abar_prev=1.0, log_posterior_variance=0.0)
