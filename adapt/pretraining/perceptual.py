"""Training of the perceptual network from portraits alone: a backbone by self-made tasks, then its channel weights.

The first three quarters of the steps train the backbone on degraded crops: whose portrait is it, how was it degraded,
what did it look like before. So its features see content and damage. The last quarter freezes it and learns the
channel weights from triplets of `adapt.pretraining.distortions` whose order is known by construction. No human
judgement enters anywhere.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.disk import write_json
from adapt.errors import UsageError
from adapt.images import from_uint8, to_uint8
from adapt.perceptual.network import PerceptualNetwork, initialise, pooled
from adapt.photos.files import read_image
from adapt.pretraining.distortions import (
    DISTORTIONS,
    FORGIVEN,
    RESENTED,
    Triplets,
    at_equal_error,
    by_severity,
    resampled,
)
from adapt.settings import PerceptualSettings
from adapt.training.context import TrainingContext
from adapt.training.ema import Ema
from adapt.training.loop import LOG_EVERY
from adapt.training.rates import cosine, trapezoid
from adapt.training.sampling import batch_indices, step_generator
from adapt.training.state import check_finite, load_state, save_state
from degradations.cosines import gaussian_blur
from degradations.jpeg import jpeg

RANKING_SHARE: Final = 0.25  # of the steps
RANKING_RATE: Final = 0.02  # learning rate of the channel weights, which are few and far from the data
RANKING_DECAY: Final = 0.02  # towards equal weights, so that no channel is dropped without a reason
SHARPNESS: Final = 4.0  # a ratio of distances of e counts as exp(4) : 1 odds
IDENTITY_SCALE: Final = 16.0  # of the cosines in the softmax
IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Portraits:
    """Images in memory, (H, W, 3) uint8, and the number of the person on each."""

    images: list[np.ndarray]
    people: list[int]


def load_portraits(folder: Path, size: int) -> Portraits:
    """All images below `folder`; people from the CSV files (file, person) beside it, one for each subfolder.

    An image no CSV names counts as a person of its own, so that without any CSV the task is to tell images apart.

    Raises:
        UsageError: no images, one that is smaller than `size`, or a CSV without these columns.
        PhotoError: an image that cannot be read.
    """
    names: dict[tuple[str, str], str] = {}
    for table in sorted(folder.parent.glob("*.csv")):
        with table.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if not {"file", "person"} <= set(reader.fieldnames or ()):
                raise UsageError(f"{table}: expected the columns 'file' and 'person', got {reader.fieldnames}")
            names |= {(table.stem, row["file"]): row["person"] for row in reader}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UsageError(f"{folder}: expected portraits to train on, found no image")
    numbers: dict[str, int] = {}
    images: list[np.ndarray] = []
    people: list[int] = []
    for path in paths:
        image = to_uint8(read_image(path))
        if min(image.shape[:2]) < size:
            raise UsageError(f"{path}: expected sides of {size} pixels or more, got {image.shape[1::-1]}")
        person = names.get((path.parent.name, path.name), str(path))
        images.append(image)
        people.append(numbers.setdefault(person, len(numbers)))
    return Portraits(images, people)


def crops(portraits: Portraits, chosen: Sequence[int], *, size: int, draw: torch.Generator) -> Tensor:
    """Random crops of the chosen images, half of them mirrored, light and colour varied: (B, 3, size, size)."""
    taken: list[Tensor] = []
    for index, numbers in zip(chosen, torch.rand(len(chosen), 3, generator=draw).tolist(), strict=True):
        image = portraits.images[index]
        top = int(numbers[0] * (image.shape[0] - size + 1))
        left = int(numbers[1] * (image.shape[1] - size + 1))
        crop = from_uint8(image[top : top + size, left : left + size])
        taken.append(crop.flip(2) if numbers[2] < 0.5 else crop)
    images = torch.stack(taken)
    light = 1 + 0.2 * (2 * torch.rand(len(chosen), 3, 1, 1, generator=draw) - 1)
    offset = 0.1 * (2 * torch.rand(len(chosen), 1, 1, 1, generator=draw) - 1)
    return (images * light + offset).clamp(0, 1)


def degraded(images: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blur, downscale, noise and JPEG in this order, each on some of the images; and how much of each.

    `degradations.blind` has the same steps but always takes all of them; left out at random, they can be told apart.

    Returns:
        The degraded images, and (B, 4) amounts in [0, 1], 0 where a step was left out: blur std / 4 pixels,
        log factor / log 6, noise std / (40 / 255), (100 - quality) / 85.
    """
    amounts = torch.rand(len(images), 4, generator=draw)
    amounts = amounts * (torch.rand(len(images), 4, generator=draw) < 0.6)
    blurred = gaussian_blur(images, 4 * amounts[:, 0])
    small = resampled(blurred, (6 ** amounts[:, 1]).tolist())
    field = torch.randn(images.shape, generator=draw)
    noisy = (small + amounts[:, 2, None, None, None] * 40 / 255 * field).clamp(0, 1)
    qualities = (100 - 85 * amounts[:, 3]).round().int()
    written = jpeg(noisy, qualities.tolist())
    return torch.where((amounts[:, 3] > 0)[:, None, None, None], written, noisy), amounts


class Tasks(nn.Module):
    """The heads of the backbone's tasks: person, amounts of degradation, and the image before it."""

    def __init__(self, channels: Sequence[int], people: int) -> None:
        super().__init__()
        self.depth = min(2, len(channels) - 1)  # the stage whose features the clean image is read from
        self.identity = nn.Linear(2 * sum(channels[-2:]), 64)
        self.prototypes = nn.Linear(64, people, bias=False)
        self.amounts = nn.Sequential(nn.Linear(2 * sum(channels), 64), nn.LeakyReLU(0.1), nn.Linear(64, 4))
        self.clean = nn.Conv2d(channels[self.depth], 3 * 4**self.depth, 1)

    def forward(self, features: Sequence[Tensor], clean: Tensor, amounts: Tensor, people: Tensor) -> dict[str, Tensor]:
        """The losses, one number each."""
        pools = [pooled(stage) for stage in features]
        code = F.normalize(self.identity(torch.cat(pools[-2:], dim=1)), dim=1)
        cosines = code @ F.normalize(self.prototypes.weight, dim=1).T
        restored = F.pixel_shuffle(self.clean(features[self.depth]), 2**self.depth)
        return {
            "identity": F.cross_entropy(IDENTITY_SCALE * cosines, people),
            "amounts": 4 * F.smooth_l1_loss(self.amounts(torch.cat(pools, dim=1)), amounts, beta=0.1),
            "clean": 10 * F.l1_loss(restored[..., : clean.shape[2], : clean.shape[3]], clean),
        }


def task_losses(
    network: PerceptualNetwork,
    tasks: Tasks,
    portraits: Portraits,
    *,
    chosen: Sequence[int],
    size: int,
    draw: torch.Generator,
) -> dict[str, Tensor]:
    """The backbone's losses on one batch."""
    clean = crops(portraits, chosen, size=size, draw=draw)
    images, amounts = degraded(clean, draw)
    people = torch.tensor([portraits.people[index] for index in chosen])
    return tasks(network.features(images), clean, amounts, people)


def ranking_triplets(images: Tensor, draw: torch.Generator) -> Triplets:
    """One batch to rank: pairs by severity of a third of the images, and of all of them pairs of equal error.

    By severity nearly any weights do; equal error is what tells them apart, and shifts are the hardest of it.
    """
    deals: list[Triplets] = []
    kinds = list(DISTORTIONS)
    start = int(torch.randint(len(kinds), (1,), generator=draw))
    third = images[: max(1, len(images) // 3)]
    for index in range(min(len(kinds), len(third))):
        deals.append(by_severity(third[index :: len(kinds)], kinds[(start + index) % len(kinds)], draw))
    slots = [*FORGIVEN, "shift"]
    for index in range(min(len(slots), len(images))):
        resented = RESENTED[int(torch.randint(len(RESENTED), (1,), generator=draw))]
        deals.append(at_equal_error(images[index :: len(slots)], slots[index], resented, draw=draw))
    return Triplets(*(torch.cat(parts) for parts in zip(*deals, strict=True)))


def ranking_loss(network: PerceptualNetwork, triplets: Triplets) -> Tensor:
    """Cross-entropy of the known order under odds of (d_worse / d_better) ** SHARPNESS.

    Source: the two-alternative judgements of Zhang et al. 2018 (arXiv:1801.03924), section 4. Differs: the small
    network G that maps two distances to a probability is this fixed curve, for our order has no judge's noise.
    """
    with torch.no_grad():
        sides = [network.features(side) for side in triplets]
    better, worse = (network.compare(sides[0], side) for side in sides[1:])
    return F.softplus(-SHARPNESS * ((worse + 1e-6).log() - (better + 1e-6).log())).mean()


def train_perceptual(
    settings: PerceptualSettings,
    faces: Path,
    context: TrainingContext,
    *,
    held_out: Path | None = None,
) -> dict[str, Tensor]:
    """Train the network, or go on where the run folder's `last/state.pt` stands.

    Args:
        settings: steps count both parts; size is that of the training crops.
        faces: folder of portraits; see `load_portraits`.
        context: its run, device and progress; at the end of the training what is known of it goes into perceptual.json.
        held_out: folder of portraits of other people: how well the result orders distortions of them goes into
            perceptual.json.

    Returns:
        The averaged weights so far, in half precision, as packs store them.

    Raises:
        UsageError: no portraits, or a state of another run.
        TrainingError: a loss that is not finite.
    """
    begun, run = time.monotonic(), context.run
    portraits = load_portraits(faces, settings.size)
    network = PerceptualNetwork(settings.channels)
    tasks = Tasks(settings.channels, max(portraits.people) + 1)
    both = nn.ModuleList([network, tasks])
    initialise(both, step_generator(settings.seed, -1))
    ema = Ema(network, settings.ema)
    optimizer = _optimizer(both, network, settings, ranking=False)
    state_path = run.folder / "last" / "state.pt"
    ranking_from = settings.steps - round(RANKING_SHARE * settings.steps)
    first, spent = 0, 0.0
    if state_path.exists():
        state = load_state(state_path, run.digest)
        first, spent = state["step"], state["seconds"]
        both.load_state_dict(state["networks"])
        ema.load(state["ema"])
        optimizer = _optimizer(both, network, settings, ranking=first > ranking_from)
        optimizer.load_state_dict(state["optimizer"])
    run.rewind(first)
    stop = context.stop(first, settings.steps)

    def save(step: int) -> float:
        seconds = spent + time.monotonic() - begun
        save_state(
            run.place("last/state.pt"),
            {
                "digest": run.digest,
                "step": step,
                "seconds": seconds,
                "networks": both.state_dict(),
                "ema": ema.shadow,
                "optimizer": optimizer.state_dict(),
            },
        )
        return seconds

    for step in range(first, stop):
        if step == ranking_from:
            network.load_state_dict(ema.shadow)
            optimizer = _optimizer(both, network, settings, ranking=True)
        draw = step_generator(settings.seed, step)
        chosen = batch_indices(settings.seed, step, batch=settings.batch, count=len(portraits.images))
        if step < ranking_from:
            rate = trapezoid(step, ranking_from, settings.learning_rate, warmup=settings.warmup, cooldown=0.4)
            losses = task_losses(network, tasks, portraits, chosen=chosen, size=settings.size, draw=draw)
        else:
            rate = cosine(step - ranking_from, settings.steps - ranking_from, first=RANKING_RATE, last=0.0)
            images = crops(portraits, chosen, size=settings.size, draw=draw)
            losses = {"ranking": ranking_loss(network, ranking_triplets(images, draw))}
        check_finite(losses, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        ema.update(network, step)
        values = {name: loss.item() for name, loss in losses.items()}
        if step % LOG_EVERY == 0:
            run.log(step, values)
        if context.on_step is not None:
            context.on_step(step + 1, settings.steps, values)
        if (step + 1) % settings.save_every == 0:
            save(step + 1)
    run.stopped = (stop, settings.steps) if stop < settings.steps else None
    seconds = save(max(first, stop))
    weights = {key: value.half() for key, value in ema.shadow.items()}
    if run.stopped is None:
        network.load_state_dict(weights)
        write_json(run.place("perceptual.json"), _facts(network, settings, portraits, seconds, held_out))
    return weights


def _optimizer(
    both: nn.ModuleList, network: PerceptualNetwork, settings: PerceptualSettings, *, ranking: bool
) -> torch.optim.Optimizer:
    weights = list(network.raw_weights)
    if ranking:
        return torch.optim.AdamW(weights, lr=RANKING_RATE, weight_decay=RANKING_DECAY)
    known = {id(raw) for raw in weights}
    backbone = [parameter for parameter in both.parameters() if id(parameter) not in known]
    return torch.optim.AdamW(backbone, lr=settings.learning_rate, weight_decay=0.01)


def _facts(
    network: PerceptualNetwork,
    settings: PerceptualSettings,
    portraits: Portraits,
    seconds: float,
    held_out: Path | None,
) -> dict[str, object]:
    """What is known of a training and its result."""
    facts: dict[str, object] = {
        "settings": settings.model_dump(mode="json"),
        "portraits": len(portraits.images),
        "people": max(portraits.people) + 1,
        "seconds": round(seconds, 1),
    }
    if held_out is not None:
        from adapt.pretraining.ordering import ordering_table

        facts["held_out"] = ordering_table(network.eval(), held_out, seed=settings.seed)
    return facts
