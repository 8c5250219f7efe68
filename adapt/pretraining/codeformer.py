"""Pre-training of a CodeFormer: stages II and III of Zhou et al. 2022 (arXiv:2206.11253, Sec. 3.2 and 3.3).

Codebook and generator of stage I stay as they are. Stage II: encoder and transformer learn to read the clean face's
codes in a damaged one. Stage III: the fusion learns besides to give the face back as the photo shows it.
"""

from __future__ import annotations

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from adapt.errors import UsageError
from adapt.pretraining.codebook import initialise
from adapt.pretraining.pairs import blind_pairs, blind_ranges
from adapt.restorers.codeformer import CodeFormer, Reading
from adapt.restorers.vqgan import VQGAN
from adapt.settings import CodeFormerSettings, CodePredictorSettings, FusionSettings
from adapt.settings.networks import VQGANSettings
from adapt.training.adversary import (
    PatchDiscriminator,
    Verdict,
    balance,
    discriminator_loss,
    generator_loss,
    patch_discriminator,
)
from adapt.training.code_losses import Attempt, Attempts, code_feature, code_token
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.losses import Distance
from adapt.training.sampling import step_generator


def train_code_predictor(
    settings: CodePredictorSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    codebook: VQGAN,
) -> tuple[CodeFormerSettings, dict[str, Tensor]]:
    """Train encoder and transformer, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        codebook: of stage I; its encoder gives the codes, and is what the new encoder begins as.

    Returns:
        The network's settings, and its averaged weights in the public layout; the fusion has no effect yet.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: a codebook for another size, or a layout that cannot be built on it.
    """
    network = CodeFormer(layout(settings, codebook))
    initialise(network, step_generator(settings.seed, 0, rank=-1))
    network.load_state_dict(codebook.state_dict(), strict=False)
    network.train_only(["encoder", "transformer"])
    codebook.eval().requires_grad_(False)
    ranges = blind_ranges(settings.degradation, settings.size)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = step.batch(faces, settings)
        damaged, clean = (part.to(step.device) for part in blind_pairs(chosen, ranges, step.generator))
        attempt: Attempt = forward(damaged)
        parts = code_parts(attempt.reading, clean, codebook.to(step.device))
        return settings.feature * parts["feature"] + settings.token * parts["token"], parts

    module = Attempts(network, None).train()
    state = train(module, losses, settings, context=context, steps=settings.steps)
    return network.settings, {key.removeprefix("network."): value for key, value in state.items()}


class Fusing(nn.Module):
    """A CodeFormer's attempts with the discriminator of their images: all that a step of stage III runs."""

    def __init__(self, attempts: Attempts, discriminator: PatchDiscriminator | None) -> None:
        super().__init__()
        self.attempts = attempts
        self.discriminator = discriminator

    def forward(self, damaged: Tensor, clean: Tensor, judged: bool) -> tuple[Attempt, Verdict | None]:
        attempt: Attempt = self.attempts(damaged)
        if not judged or self.discriminator is None or attempt.image is None:
            return attempt, None
        return attempt, self.discriminator.judge(clean, attempt.image)


def train_fusion(
    settings: FusionSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    network: CodeFormer,
    codebook: VQGAN,
    distance: Distance | None = None,
) -> dict[str, Tensor]:
    """Train the fusion on images, and encoder and transformer on by their codes.

    The losses on images reach the fusion alone, as in the public code. It adapts codes by the statistics of the
    photo's features where the network's settings say so, which the public training leaves to inference.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress.
        network: of stage II; trained in place.
        codebook: of stage I; its encoder gives the codes, and its generator takes the place of the network's.
        distance: perceptual distance; needed where settings.perceptual > 0.

    Returns:
        The averaged weights, in the public layout.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: a network or a codebook for another size, of different layouts, or a network without a fusion.
    """
    for name, built_for in (("network", network.settings.img_size), ("codebook", codebook.settings.img_size)):
        refuse_another_size(name, built_for, settings.size)
    if not network.settings.connect_list:
        raise UsageError("network: it has no fusion to train (connect_list is empty); train a code predictor with one")
    if codebook.settings.model_dump() != network.settings.model_dump(include=set(VQGANSettings.model_fields)):
        raise UsageError("network and codebook: expected the same layout, got different ones")
    network.generator.load_state_dict(codebook.generator.state_dict())
    network.train_only(["encoder", "transformer", "fusion"])
    codebook.eval().requires_grad_(False)
    generator = step_generator(settings.seed, 0, rank=-1)
    discriminator: PatchDiscriminator | None = None
    if settings.adversarial:
        discriminator = patch_discriminator(
            settings.discriminator, settings.size, generator, detail=settings.detail
        )
    module = Fusing(Attempts(network, settings.fidelity), discriminator).train()
    last = network.get_parameter(f"fuse_convs_dict.{max(network.settings.connect_list)}.shift.2.weight")
    ranges = blind_ranges(settings.degradation, settings.size)

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = step.batch(faces, settings)
        damaged, clean = (part.to(step.device) for part in blind_pairs(chosen, ranges, step.generator))
        attempt: Attempt
        attempt, verdict = forward(damaged, clean, step.place >= settings.adversarial_from)
        assert attempt.image is not None
        parts = code_parts(attempt.reading, clean, codebook.to(step.device))
        restored = attempt.image.float()
        parts["l1"] = (restored - clean).abs().mean()
        given_back = settings.l1 * parts["l1"]
        if settings.perceptual and distance is not None:
            parts["perceptual"] = distance(restored, clean).mean()
            given_back = given_back + settings.perceptual * parts["perceptual"]
        total = given_back + settings.feature * parts["feature"] + settings.token * parts["token"]
        if verdict is not None:
            parts["adversarial"], parts["discriminator"] = generator_loss(verdict), discriminator_loss(verdict)
            weight = settings.adversarial * balance(given_back, parts["adversarial"], last)
            total = total + weight * parts["adversarial"] + parts["discriminator"]
        return total, parts

    state = train(
        module, losses, settings, context=context, steps=settings.steps, resting=True
    )
    prefix = "attempts.network."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def code_parts(reading: Reading, clean: Tensor, codebook: VQGAN) -> dict[str, Tensor]:
    """The losses on codes of a batch against those of clean images (B, 3, S, S), and the share that is right."""
    with torch.no_grad():
        codes = codebook.codes(clean)
    return {
        "feature": code_feature(reading.feature.float(), codebook.quantize.look_up(codes)).mean(),
        "token": code_token(reading.logits.float(), codes).mean(),
        "right": (reading.logits.detach().argmax(-1) == codes).float().mean(),
    }


def layout(settings: CodePredictorSettings, codebook: VQGAN) -> CodeFormerSettings:
    """The CodeFormer that a recipe builds on a codebook.

    Raises:
        UsageError: a codebook for another size, or a layout that cannot be built on it.
    """
    refuse_another_size("codebook", codebook.settings.img_size, settings.size)
    own = settings.model_dump(include={"dim_embd", "n_head", "n_layers", "connect_list", "adain"})
    try:
        return CodeFormerSettings.model_validate({**codebook.settings.model_dump(), **own})
    except ValidationError as error:
        raise UsageError(f"this codebook and recipe do not fit: {error.errors()[0]['msg']}") from error


def refuse_another_size(name: str, built_for: int, size: int) -> None:
    """Raise UsageError where a network is for another size than the recipe's."""
    if built_for != size:
        raise UsageError(f"{name}: expected one for {size} pixels, the recipe's size; got one for {built_for}")
