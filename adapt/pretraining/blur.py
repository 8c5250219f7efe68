"""Pre-training of the blur estimator SE: DynFaceRestore App. A.1, Eq. (20)-(22), in its two stages.

First SDE alone learns to read the std off faces under a true Gaussian blur. Then TM and SDE learn together: from a
degraded photo to the least blur under which the restored photo is true, and to the truth under that blur.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Final

import torch
from torch import Tensor, nn

from adapt.blur.estimator import RECOMPUTED, BlurNetwork
from adapt.blur.labels import Survey, blur_errors, std_labels, std_levels, std_limits, survey, widest_xi
from adapt.disk import read_json, write_json
from adapt.errors import UsageError
from adapt.pretraining.pairs import blind_pairs, blind_ranges, clean_images
from adapt.pretraining.restorer import initialise as initialise_swinir
from adapt.restorers.base import Restorer
from adapt.restorers.swinir import SwinIR
from adapt.settings import BlurEstimatorSettings, BlurNetworkSettings
from adapt.training.context import TrainingContext
from adapt.training.loop import Network, StepContext, train
from adapt.training.run import Run
from adapt.training.sampling import step_generator
from degradations.blind import PUBLISHED_SIZE
from degradations.cosines import gaussian_blur

LABELS: Final = "labels.json"  # in the run folder
MIDDLE: Final = 7.5  # pixels at 512: what SDE says before it has learnt anything


def train_blur_estimator(
    settings: BlurEstimatorSettings,
    faces: Tensor,
    context: TrainingContext,
    *,
    restorer: Restorer,
) -> tuple[BlurNetworkSettings, dict[str, Tensor]]:
    """Train SE, or go on where the run folder's `last/state.pt` stands.

    The loss of the first stage is Eq. (21), of the second Eq. (22) with `settings.image` for gamma; std counts in
    pixels at 512, so that both terms weigh the same at every size. The paper does not say how long each stage is.

    Args:
        settings: the recipe.
        faces: clean aligned faces, (N, 3, S, S) uint8, S = settings.size.
        context: its run, device and progress; how the labels are spread goes into its labels.json.
        restorer: RM, frozen, on the training's device.

    Returns:
        The network's settings and its averaged weights.

    Raises:
        TrainingError: a loss is not finite.
        UsageError: no layout for TM, and a restorer that is no SwinIR; or one that enlarges.
    """
    network = untrained(settings, restorer)
    ranges = blind_ranges(settings.degradation, settings.size)
    low, high = std_limits(settings.size)
    xi = survey_labels(settings, faces, context.run, restorer=restorer).xi

    def losses(forward: Network, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = step.batch(faces, settings)
        if step.place < settings.first_stage:
            clean = clean_images(chosen, step.generator).to(step.device)
            std = low + (high - low) * torch.rand(len(clean), generator=step.generator, dtype=torch.float64)
            std = std.to(step.device)
            estimated, _ = forward(gaussian_blur(clean, std), True)
            parts = {"std": _distance(estimated, std, settings.size)}
            return parts["std"], parts
        damaged, clean = (part.to(step.device) for part in blind_pairs(chosen, ranges, step.generator))
        std = std_labels(restorer(damaged), clean, xi=xi)
        estimated, blurred = forward(damaged)
        parts = {
            "std": _distance(estimated, std, settings.size),
            "image": (blurred.float() - gaussian_blur(clean, std)).abs().mean(),
        }
        return parts["std"] + settings.image * parts["image"], parts

    state = train(
        network, losses, settings, context=context, steps=settings.steps, resting=True
    )
    return network.settings, {key: value for key, value in state.items() if not key.endswith(RECOMPUTED)}


def survey_labels(settings: BlurEstimatorSettings, faces: Tensor, run: Run, *, restorer: Restorer) -> Survey:
    """How the labels of degraded faces are spread, and xi, which it settles where the recipe leaves it open.

    Written into the run folder and read from there when the run goes on. Its faces and their damage are drawn from the
    run's seed, apart from those of the steps.
    """
    path = run.folder / LABELS
    if path.exists():
        known = read_json(path, "remove it, and it is made anew")
        try:
            return Survey(known["xi"], known["size"], tuple(known["counts"]), known["least"], known["never"])
        except (KeyError, TypeError) as error:
            raise UsageError(f"{path}: is damaged ({error!r}); remove it, and it is made anew") from error
    generator = step_generator(settings.seed, 0, rank=-2)
    ranges = blind_ranges(settings.degradation, settings.size)
    levels = std_levels(settings.size)
    chosen = torch.randperm(len(faces), generator=generator)[: settings.survey]
    device = next(restorer.network.parameters()).device
    errors: list[Tensor] = []
    for part in chosen.split(settings.batch):
        damaged, clean = (each.to(device) for each in blind_pairs(faces[part], ranges, generator))
        errors.append(blur_errors(restorer(damaged), clean, levels).cpu())
    table = torch.cat(errors)
    xi = settings.xi or widest_xi(table, size=settings.size)
    found = survey(table, xi=xi, size=settings.size)
    if run.main:
        write_json(run.place(LABELS), {**asdict(found), "photos": len(table), "evenness": found.evenness})
    return found


def untrained(settings: BlurEstimatorSettings, restorer: Restorer) -> BlurNetwork:
    """The network before its first step; TM is the restorer's copy, or as initialised where it has its own layout.

    The paper does not say where TM starts. The restorer does most of what TM has to do, all but the blur.

    Raises:
        UsageError: no layout for TM, and a restorer that is no SwinIR; or one that enlarges.
    """
    copied = restorer.network if settings.transfer is None else None
    if isinstance(copied, SwinIR):
        layout = copied.settings
    elif settings.transfer is not None:
        layout = settings.transfer
    else:
        raise UsageError(
            f"{restorer.name}: TM can only begin as a copy of a SwinIR, and this is a {restorer.architecture};"
            " write a SwinIR layout under transfer"
        )
    network = BlurNetwork(BlurNetworkSettings(size=settings.size, transfer=layout, channels=settings.channels))
    initialise(network, settings.seed)
    if copied is not None:
        network.transfer.load_state_dict(copied.state_dict())
    return network


def initialise(network: BlurNetwork, seed: int) -> None:
    """Draw the weights anew from the run's own generator: PyTorch's defaults come from a global one."""
    initialise_swinir(network.transfer, seed)
    generator = step_generator(seed, 0, rank=-1)
    with torch.no_grad():
        for part in network.deviation.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                bound = math.sqrt(6 / math.prod(part.weight.shape[1:]))
                part.weight.uniform_(-bound, bound, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()
        last = network.deviation.head[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(0.1)
        last.bias.fill_(MIDDLE)


def _distance(estimated: Tensor, std: Tensor, size: int) -> Tensor:
    """D of Eq. (21), (22): mean absolute difference of stds, in pixels at 512."""
    return (estimated.float() - std.float()).abs().mean() * (PUBLISHED_SIZE / size)
