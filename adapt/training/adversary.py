"""The discriminators that judge patches, and how much their judgement weighs.

PatchGAN (Isola et al. 2017, arXiv:1611.07004) with the hinge loss, weighed as in VQGAN (Esser et al. 2021,
arXiv:2012.09841, Eq. 7). That of a codebook's training has the names of tensors of the public CodeFormer's file; that
of fine-tuning sees fine detail beside the image, and learns from few.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import UsageError
from adapt.images import fine_detail
from adapt.settings import PatchDiscriminatorSettings

WIDEST: Final = 8  # times the width of the first layer
LARGEST_WEIGHT: Final = 1.0
EPS: Final = 1e-4
DETAIL_GAIN: Final = 8.0  # fine detail of a sharp face deviates by 0.03, and the image in [-1, 1] by ten times that


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
        detail: look at the image less its blur as well, as three more channels. What is between the layers is then
            normalised over all of one image, so that how strong its detail is, next to the rest, can still be told;
            over a batch it would be of real images by themselves, and of made ones by themselves, and a judgement
            would depend on the other images of a batch, of which a fine-tuning has few.
    """

    def __init__(
        self, settings: PatchDiscriminatorSettings, generator: torch.Generator, *, detail: bool = False
    ) -> None:
        super().__init__()
        self.detail = detail
        widths = [settings.features * min(2**layer, WIDEST) for layer in range(settings.layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(6 if detail else 3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)
        ]
        for number, (width, out) in enumerate(pairwise(widths), start=1):
            stride = 1 if number == settings.layers else 2
            layers += [
                nn.Conv2d(width, out, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(1, out) if detail else nn.BatchNorm2d(out),
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
        seen = 2 * image - 1
        if self.detail:
            with torch.autocast(image.device.type, enabled=False):  # or rounding would be the detail
                seen = torch.cat([seen, DETAIL_GAIN * fine_detail(image.float()).to(seen)], dim=1)
        return self.main(seen)

    def judge(self, real: Tensor, made: Tensor) -> Verdict:
        """What it says of real and generated images, for both sides of the game in one backward pass."""
        out_of_reach = {name: parameter.detach() for name, parameter in self.named_parameters()}
        towards_image = torch.func.functional_call(self, out_of_reach, (made,))
        return Verdict(towards_image, self(real), self(made.detach()))


def check_layers(settings: PatchDiscriminatorSettings, size: int) -> None:
    """Refuse a layout under which nothing is left of images of `size` pixels.

    Raises:
        UsageError: too many layers.
    """
    most = max((size // 3).bit_length() - 1, 0)  # 3 pixels must reach the last two layers, which take one each
    if settings.layers > most:
        raise UsageError(
            f"discriminator.layers: expected at most {most} for images of {size} pixels, each of which halves them, got"
            f" {settings.layers}"
        )


def patch_discriminator(
    settings: PatchDiscriminatorSettings, size: int, generator: torch.Generator, *, detail: bool
) -> PatchDiscriminator:
    """A new discriminator for images of `size` pixels; arguments as of `PatchDiscriminator`.

    Raises:
        UsageError: more layers than such images have room for.
    """
    check_layers(settings, size)
    return PatchDiscriminator(settings, generator, detail=detail)


def generator_loss(verdict: Verdict) -> Tensor:
    """The generator's loss: minus the mean logit of what it made."""
    return hinge_of_made(verdict.made).mean()


def discriminator_loss(verdict: Verdict) -> Tensor:
    """The discriminator's hinge loss."""
    return hinge(verdict.real, verdict.fake)


def hinge_of_made(logits: Tensor) -> Tensor:
    """Minus the mean logit of each generated image, (B, 1, h, w) -> (B,)."""
    return -logits.float().mean(dim=(1, 2, 3))


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss of logits (B, 1, h, w) of real and of generated images -> scalar."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def balance(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The weight under which both losses pull equally hard at a tensor, the last that the network learns.

    At most 1, where Esser et al. allow 10,000: a discriminator that is sure of itself has next to no gradient.

    Raises:
        UsageError: a loss does not depend on that tensor.
    """
    norms: list[Tensor] = []
    for loss in (reconstruction, adversarial):
        pull: Tensor | None = torch.autograd.grad(loss, last, retain_graph=True, allow_unused=True)[0]
        if pull is None:  # pyright: ignore[reportUnnecessaryComparison]  # torch's types do not tell of it
            raise UsageError(
                "discriminator.balance: the last layer that this restorer names has no part in its images, so no weight"
                " can be told by it; take a fixed one (discriminator.balance=false)"
            )
        norms.append(pull.norm())
    return (norms[0] / (norms[1] + EPS)).clamp(0, LARGEST_WEIGHT).detach()


def last_layer(network: nn.Module) -> Tensor:
    """The weights nearest to the output of those that learn: the last that a network names.

    Raises:
        UsageError: it has none.
    """
    learning = [weight for weight in network.parameters() if weight.requires_grad and weight.ndim > 1]
    if not learning:
        raise UsageError("discriminator.balance: no layer of the restorer learns; take a fixed weight (balance=false)")
    return learning[-1]
