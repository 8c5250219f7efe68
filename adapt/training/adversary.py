"""The discriminator of a codebook's training, which judges patches, and how much its judgement weighs.

PatchGAN (Isola et al. 2017, arXiv:1611.07004) with the hinge loss, weighed as in VQGAN (Esser et al. 2021,
arXiv:2012.09841, Eq. 7). Names of tensors are those of the public CodeFormer's file.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.settings import PatchDiscriminatorSettings

WIDEST: Final = 8  # times the width of the first layer
LARGEST_WEIGHT: Final = 1.0
EPS: Final = 1e-4


class Verdict(NamedTuple):
    """Logits (B, 1, h, w), positive for real.

    Attributes:
        made: of generated images; gradients reach the images and not the discriminator.
        real, fake: of real and the same generated images; gradients reach the discriminator alone.
    """

    made: Tensor
    real: Tensor
    fake: Tensor


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: (B, 3, S, S) in [0, 1] to logits (B, 1, h, h). Differs: the public takes [-1, 1].

    Args:
        settings: the layout.
        generator: draws the initial weights.
    """

    def __init__(self, settings: PatchDiscriminatorSettings, generator: torch.Generator) -> None:
        super().__init__()
        widths = [settings.features * min(2**layer, WIDEST) for layer in range(settings.layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for number, (width, out) in enumerate(pairwise(widths), start=1):
            stride = 1 if number == settings.layers else 2
            layers += [
                nn.Conv2d(width, out, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.LeakyReLU(0.2),
            ]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.02, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()

    def forward(self, image: Tensor) -> Tensor:
        return self.main(2 * image - 1)

    def judge(self, real: Tensor, made: Tensor) -> Verdict:
        """What it says of real and generated images, for both sides of the game in one backward pass."""
        out_of_reach = {name: parameter.detach() for name, parameter in self.named_parameters()}
        towards_image = torch.func.functional_call(self, out_of_reach, (made,))
        return Verdict(towards_image, self(real), self(made.detach()))


def generator_loss(verdict: Verdict) -> Tensor:
    """The generator's loss: minus the mean logit of what it made."""
    return -verdict.made.float().mean()


def discriminator_loss(verdict: Verdict) -> Tensor:
    """The discriminator's hinge loss."""
    return 0.5 * (F.relu(1 - verdict.real.float()).mean() + F.relu(1 + verdict.fake.float()).mean())


def balance(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The weight under which both losses pull equally hard at a tensor, the last that the network learns.

    At most 1, where Esser et al. allow 10,000: a discriminator that is sure of itself has next to no gradient.
    """
    (wanted,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (other,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (wanted.norm() / (other.norm() + EPS)).clamp(0, LARGEST_WEIGHT).detach()
