"""Pre-training of the diffusion prior: denoising faces at every noise level, and learning the variance.

Loss: noise prediction weighted by min-SNR-gamma (Hang et al. 2023, arXiv:2303.09556, Eq. 5), plus the variational
bound for the variance channels alone (Nichol & Dhariwal 2021, arXiv:2102.09672, Eq. 14-16). A share may ask for the
noise's means over blocks as well, as the loss at several scales of Hoogeboom et al. 2023 (arXiv:2301.11093, Sec. 2.3)
does: an image's colour is three values among 49,152, and a loss over all of them hardly sees it.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.diffusion.colours import colour_and_contrast
from adapt.diffusion.schedule import TIMESTEPS, linear_schedule
from adapt.diffusion.unet import UNet
from adapt.errors import UsageError
from adapt.images import to_signed
from adapt.pretraining.growing import grown, is_grown
from adapt.settings import NoiseLossSettings, PriorSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.sampling import batch_indices, step_generator

BLOCKS: Final = (8, 32, 128)  # sides in pixels of the blocks whose means `coarse_loss` compares


def min_snr_weight(abar: Tensor, cap: float) -> Tensor:
    """Weight of the noise-prediction loss: min(SNR, cap) / SNR with SNR = abar / (1 - abar)."""
    snr = abar / (1 - abar)
    return snr.clamp(max=cap) / snr


def normal_kl(mean_p: Tensor, log_var_p: Tensor, mean_q: Tensor, log_var_q: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians, per element, in nats."""
    return 0.5 * (
        log_var_q - log_var_p - 1 + torch.exp(log_var_p - log_var_q) + (mean_p - mean_q) ** 2 * torch.exp(-log_var_q)
    )


def coarse_loss(error: Tensor, weights: Tensor) -> Tensor:
    """The error of the noise in means over blocks, mean over `BLOCKS`.

    The mean of n x n independent values has an n-th of their deviation; each block's error is multiplied by n, so that
    a network that knows nothing has the loss 1 at every scale. (Hoogeboom et al. leave the means as they are.)

    Args:
        error: predicted less true noise, (B, 3, H, W).
        weights: of each image, (B,).
    """
    scales = sorted({min(block, *error.shape[-2:]) for block in BLOCKS})
    means = [(F.avg_pool2d(error, block) * block).square().mean(dim=(1, 2, 3)) for block in scales]
    return (torch.stack(means).mean(dim=0) * weights).mean()


def prior_losses(
    output: Tensor, x0: Tensor, noise: Tensor, *, timesteps: Tensor, snr_cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise loss, coarse noise loss and variance loss of one batch.

    Args:
        output: the network's (B, 6, H, W).
        x0: clean images, (B, 3, H, W) in [-1, 1].
        noise: the noise that was added, same shape.
        timesteps: (B,), 0 to 999.
        snr_cap: gamma of the min-SNR weights.

    Returns:
        The weighted squared error of the noise, the same in means over blocks, and the variational bound in bits per
        value with the mean held fixed (it trains the variance channels only). At t = 0 the bound is left out: its
        decoder term needs 8-bit data, and the sampler adds no noise there.
    """
    abar_all = linear_schedule().abar.to(x0.device)
    abar = abar_all[timesteps].float().view(-1, 1, 1, 1)
    predicted, variance = output.float().chunk(2, dim=1)
    squared = (predicted - noise).square().mean(dim=(1, 2, 3))
    weights = min_snr_weight(abar.flatten(), snr_cap)
    noise_loss = (squared * weights).mean()
    in_blocks = coarse_loss(predicted - noise, weights)

    abar_prev = torch.cat([abar_all.new_ones(1), abar_all[:-1]])
    beta = 1 - abar_all / abar_prev
    posterior = beta * (1 - abar_prev) / (1 - abar_all)
    posterior[0] = posterior[1]
    log_low = posterior.log()[timesteps].float().view(-1, 1, 1, 1)
    log_high = beta.log()[timesteps].float().view(-1, 1, 1, 1)
    share = (variance + 1) / 2
    log_var = share * log_high + (1 - share) * log_low
    # Difference of the true and the predicted posterior mean, in terms of the noise (Ho et al. 2020, Eq. 11).
    step_beta = beta[timesteps].float().view(-1, 1, 1, 1)
    scale = step_beta / ((1 - abar).sqrt() * (1 - step_beta).sqrt())
    difference = scale * (predicted.detach() - noise)
    bound = normal_kl(difference, log_low.expand_as(log_var), torch.zeros_like(difference), log_var) / math.log(2)
    variance_loss = (bound.mean(dim=(1, 2, 3)) * (timesteps > 0)).mean()
    return noise_loss, in_blocks, variance_loss


def denoising(
    forward: Network,
    images: Tensor,
    settings: NoiseLossSettings,
    generator: torch.Generator,
    *,
    photos: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step's loss, at a timestep of each image's own, and its parts.

    Args:
        forward: the network under training.
        images: clean ones, (B, 3, H, W) in [-1, 1].
        settings: the weights.
        generator: of noise and timesteps, on the CPU.
        photos: what a network that sees them is shown beside the noisy images, shape and range as `images`.
    """
    noise = torch.randn(images.shape, generator=generator).to(images)
    timesteps = torch.randint(0, TIMESTEPS, (len(images),), generator=generator).to(images.device)
    abar = linear_schedule().abar.to(images.device)[timesteps].float().view(-1, 1, 1, 1)
    x_t = abar.sqrt() * images + (1 - abar).sqrt() * noise
    output = forward(x_t if photos is None else torch.cat([x_t, photos], dim=1), timesteps)
    noise_loss, in_blocks, variance_loss = prior_losses(
        output, images, noise, timesteps=timesteps, snr_cap=settings.snr_cap
    )
    total = noise_loss + settings.coarse * in_blocks + settings.variance_weight * variance_loss
    return total, {"noise": noise_loss, "coarse": in_blocks, "variance": variance_loss}


def train_prior(
    settings: PriorSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    start: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Train the prior, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S a multiple of every phase's size.
        context: its run, device and progress.
        start: the U-Net of a prior to go on from, or of one for images of half the side, to which a level is added; it
            stays as it is. Left out, the weights are drawn anew.

    Returns:
        The averaged weights, in the public layout.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: `start` has another layout than the recipe.
    """
    network = _beginning(settings, start)
    if network.colour is not None and not (isinstance(start, UNet) and start.colour is not None):
        parts = [colour_and_contrast(to_signed(part.float() / 255)) for part in faces.split(64)]
        network.colour.fit(torch.cat([colour for colour, _ in parts]), torch.cat([contrast for _, contrast in parts]))

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        return denoising(forward, _batch(settings, faces, step).to(step.device), settings, step.generator)

    steps = sum(phase.steps for phase in settings.phases)
    return train(network, losses, settings, context=context, steps=steps)


def _beginning(settings: PriorSettings, start: nn.Module | None) -> UNet:
    """The network that a training begins with; arguments and errors as `train_prior`."""
    network = UNet(settings.network)
    if start is None:
        initialise(network, settings.seed)
        return network
    assert isinstance(start, UNet)
    if is_grown(start.settings, settings.network):
        return grown(start, settings.network, settings.seed, noisy=True)
    if start.settings.plain != settings.network.plain:
        raise UsageError(f"start: has another layout than the recipe's network: {start.settings.model_dump_json()}")
    known = start.state_dict()
    network.load_state_dict({name: known.get(name, value) for name, value in network.state_dict().items()})
    return network


def initialise(network: UNet, seed: int) -> None:
    """Draw the weights anew from the run's own generator: PyTorch's defaults come from a global one."""
    generator = step_generator(seed, 0, rank=-1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and bool(parameter.any()):  # the zero-initialised ones stay zero
                bound = 1 / math.sqrt(math.prod(parameter.shape[1:]))
                parameter.uniform_(-bound, bound, generator=generator)
            elif parameter.ndim == 1 and not bool((parameter == 1).all()):
                parameter.zero_()


def _batch(settings: PriorSettings, faces: Tensor, step: StepContext) -> Tensor:
    """The signed images of one step, at its phase's size, mirrored at random."""
    begin = 0
    phase = settings.phases[0]
    for phase in settings.phases:
        if step.place < begin + phase.steps:
            break
        begin += phase.steps
    position = step.index * step.world + step.rank
    chosen = batch_indices(settings.seed + begin, position, batch=phase.batch, count=len(faces))
    images = faces[chosen].float() / 255
    if phase.size != images.shape[-1]:
        images = F.avg_pool2d(images, images.shape[-1] // phase.size)
    mirrored = torch.rand(len(images), generator=step.generator) < 0.5
    return to_signed(torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images))
