"""What a U-Net with narrow levels cannot see of a noisy image: its mean colour and its contrast.

Where a level has as many channels as groups of normalisation, each channel loses its mean and its deviation, and with
them the image's. But over P pixels noise has a mean and a variance that are nearly known, so both can be told apart in
closed form. With x_t = a x_0 + s n, a^2 = abar, s^2 = 1 - abar, and m the mean colour of a clean image, normally
distributed with mean mu and covariance C,

    E[m | x_t] = mu + a C (a^2 C + s^2/P)^-1 (mean(x_t) - a mu)
    E[mean(n) | x_t] = s/P (a^2 C + s^2/P)^-1 (mean(x_t) - a mu)

The second is what the mean of the predicted noise has to be; the first is told to the blocks, as the timestep is, and
so is the variance over the pixels, of which E[var(x_t)] = a^2 var(x_0) + s^2, and whose own variance is about
(2 s^4 + 4 a^2 s^2 var(x_0)) / P.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapt.diffusion.schedule import linear_schedule

CHANNELS = 3
LEAST_DEVIATION = 1e-3  # of what differs from image to image, so that it can be divided by
LIKELY = 3.0  # deviations; beyond is no noised image, as the photo that a one-step student is shown


def colour_and_contrast(images: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each channel, (B, 3), and the variance over the pixels, mean over the channels, (B,).

    Args:
        images: (B, 3, H, W).
    """
    variance, mean = torch.var_mean(images, dim=(2, 3), correction=0)
    return mean, variance.mean(dim=1)


class MeanColour(nn.Module):
    """Mean colour and contrast of noisy images, and what of the colour is noise; all on the scale of [-1, 1].

    The colours' distribution lies along three directions of its own: `mean` (3,), `directions` (3, 3), a column each,
    and `deviations` (3,). `contrast` (2,) is the mean of the images' variances, and their deviation.
    """

    mean: Tensor
    directions: Tensor
    deviations: Tensor
    contrast: Tensor
    levels: Tensor

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.register_buffer("directions", torch.eye(CHANNELS))
        self.register_buffer("deviations", torch.ones(CHANNELS))
        self.register_buffer("contrast", torch.ones(2))
        abar = linear_schedule().abar.double()
        levels = torch.stack([abar.sqrt(), (1 - abar).sqrt()]).float()
        self.register_buffer("levels", levels, persistent=False)
        self.told = nn.Linear(CHANNELS + 1, embedding)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    @torch.no_grad()
    def fit(self, colours: Tensor, contrasts: Tensor) -> None:
        """Take the distribution of clean images, as `colour_and_contrast` has them: (N, 3) and (N,), N of 2 or more."""
        self.mean.copy_(colours.mean(dim=0))
        variances, directions = torch.linalg.eigh(torch.cov(colours.double().T))
        self.directions.copy_(directions)
        self.deviations.copy_(variances.clamp(min=0).sqrt().clamp(min=LEAST_DEVIATION))
        self.contrast.copy_(torch.stack([contrasts.mean(), contrasts.std().clamp(min=LEAST_DEVIATION)]))

    def forward(self, x: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """What is told to the blocks, (B, E), and the mean of the noise in x_t, (B, 3).

        Args:
            x: x_t, (B, 3 or more, H, W); what follows the first three channels is not read.
            timesteps: (B,), on the 1000-step scale.
        """
        with torch.autocast(x.device.type, enabled=False):
            known, noise_mean = self._seen(x[:, :CHANNELS].float(), timesteps)
        return self.told(known.clamp(-LIKELY, LIKELY).to(self.told.weight.dtype)), noise_mean

    def _seen(self, x: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Colour and contrast of what lies behind the noise, in deviations, (B, 4), and the noise's mean, (B, 3)."""
        colour, contrast = colour_and_contrast(x)
        signal, noise = (level[timesteps.long()][:, None] for level in self.levels)
        pixels = x.shape[-2] * x.shape[-1]
        apart = (colour - signal * self.mean) @ self.directions
        total = (signal * self.deviations) ** 2 + noise**2 / pixels
        noise_mean = (noise / pixels / total * apart) @ self.directions.T
        usual, deviation = self.contrast
        surplus = contrast[:, None] - signal**2 * usual - noise**2
        unsure = (2 * noise**4 + 4 * (signal * noise) ** 2 * usual) / (CHANNELS * pixels)
        known = [
            signal * self.deviations / total * apart,  # E[m | x_t] less mu, over its deviation
            signal**2 * deviation / ((signal**2 * deviation) ** 2 + unsure) * surplus,
        ]
        return torch.cat(known, dim=1), noise_mean
