"""What the refinement of a blur's std is worth (DynFaceRestore, Fig. 11): a true Gaussian blur, believed to be another.

The blurred image itself guides, from pure noise; no restorer, no estimator, no start-step table and no adjuster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from panels import draw_panel
from torch import Tensor

from adapt.diffusion.prior import Prior
from adapt.diffusion.sampler import Conditioning, PhotoNoise, StepRecord, guided_sample
from adapt.diffusion.schedule import TIMESTEPS
from adapt.diffusion.steps import plan_from
from adapt.disk import write_atomic, write_json
from adapt.evaluation.metrics import psnr
from adapt.guidance.gaussian_blur import BlurMemory, GaussianBlur
from adapt.images import to_signed, to_unit
from adapt.settings import GaussianBlurSettings, TargetSettings
from adapt.targets.methods import SOLVERS
from degradations.blind import PUBLISHED_SIZE
from degradations.cosines import gaussian_blur

Belief = Literal["fixed", "refined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredBlur(GaussianBlur):
    """Blur guidance towards an image that is blurred already: the job's."""

    def begin(self, job: Conditioning) -> BlurMemory:
        return GaussianBlur.begin(self, job)._replace(guides=job.restored[:, None])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one belief led to.

    Attributes:
        psnr: of each photo, dB.
        std: where its std ended, pixels at 512.
    """

    psnr: list[float]
    std: list[float]

    @property
    def mean(self) -> float:
        return sum(self.psnr) / len(self.psnr)


def sample_with(
    prior: Prior, truth: Tensor, seeds: Sequence[int], *, true_std: float, begun: float, belief: Belief,
    settings: TargetSettings,
) -> Outcome:
    """Sharpen images whose blur is `true_std`, from the belief that it is `begun`; both in pixels at 512.

    Args:
        prior: the diffusion prior.
        truth: sharp images, (B, 3, S, S) in [0, 1], on the prior's device.
        seeds: one per image; the noise does not depend on the belief.
        true_std, begun: of the blur.
        belief: whether the std is refined on the way.
        settings: a dynamic recipe, for solver, steps, eta (null: by the true std) and the blur term's numbers.
    """
    unit = truth.shape[-1] / PUBLISHED_SIZE
    device = truth.device
    numbers = next(term for term in settings.guidance if isinstance(term, GaussianBlurSettings))
    term = MeasuredBlur(
        scale=numbers.scale,
        std_rate=numbers.std_rate if belief == "refined" else 0.0,
        through_network=numbers.gradient == "network",
        limit=numbers.limit,
    )
    stds = torch.full((len(truth),), true_std * unit, device=device)
    measured = to_signed(gaussian_blur(truth, stds).clamp(0, 1))
    draw = PhotoNoise(seeds, (3, truth.shape[2], truth.shape[3]), device)
    memories: list[BlurMemory] = []

    def keep(record: StepRecord) -> None:
        memories[:] = [record.memory[0]]

    sharpened = guided_sample(
        prior,
        draw(),
        plan_from(TIMESTEPS - 1, settings.steps).steps,
        solver=SOLVERS[settings.solver](true_std / 10 if settings.eta is None else settings.eta),
        terms=[term],
        job=Conditioning(measured, torch.full((len(truth), 1), begun * unit, device=device)),
        draw=draw,
        on_step=keep,
    )
    ended = memories[0].std.flatten() / unit
    return Outcome(psnr(to_unit(sharpened), truth).tolist(), ended.tolist())


def outcome_of(
    path: Path, prior: Prior, truth: Tensor, seeds: Sequence[int], *, true_std: float, begun: float, belief: Belief,
    settings: TargetSettings,
) -> Outcome:
    """As `sample_with`, in batches of the recipe, and written to a file; read from it where it is there."""
    if path.is_file():
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    parts = [
        sample_with(
            prior, truth[first : first + settings.batch], seeds[first : first + settings.batch],
            true_std=true_std, begun=begun, belief=belief, settings=settings,
        )
        for first in range(0, len(truth), settings.batch)
    ]
    whole = Outcome([value for part in parts for value in part.psnr], [value for part in parts for value in part.std])
    write_json(path, asdict(whole))
    return whole


def gap_closed(outcomes: Mapping[tuple[Belief, float], Outcome], true_std: float, begun: float) -> float | None:
    """The share of the gap between the wrong belief and the right one, both fixed, that refinement closes.

    None where the wrong belief is no worse: then there is no gap.
    """
    wrong, right = outcomes["fixed", begun].mean, outcomes["fixed", true_std].mean
    return (outcomes["refined", begun].mean - wrong) / (right - wrong) if right > wrong else None


def refinement_table(outcomes: Mapping[tuple[Belief, float], Outcome], true_std: float) -> str:
    """A row for each std believed at first."""
    headings = ["believed std", "PSNR, fixed", "PSNR, refined", "std ends at", "gap closed"]
    lines = [f"| {' | '.join(headings)} |", f"| {' | '.join(['---:'] * len(headings))} |"]
    for begun in sorted(std for belief, std in outcomes if belief == "fixed"):
        fixed, refined = outcomes["fixed", begun], outcomes["refined", begun]
        share = gap_closed(outcomes, true_std, begun)
        closed = "-" if share is None else f"{share:.0%}"
        ends = f"{min(refined.std):.2f} to {max(refined.std):.2f}"
        lines.append(f"| {begun:g} | {fixed.mean:.2f} | {refined.mean:.2f} | {ends} | {closed} |")
    return "\n".join(lines)


def draw_refinement(path: Path, outcomes: Mapping[tuple[Belief, float], Outcome], true_std: float) -> None:
    """PSNR over the std believed at first, fixed and refined, as a PNG."""
    curves = {
        belief: sorted((std, outcome.mean) for (kind, std), outcome in outcomes.items() if kind == belief)
        for belief in ("fixed", "refined")
    }
    panel = draw_panel(
        f"PSNR over the std believed at first; the true one is {true_std:g} pixels at {PUBLISHED_SIZE}",
        curves,
        across=f"std, pixels at {PUBLISHED_SIZE}",
        up="PSNR, dB",
    )
    write_atomic(path, lambda stream: panel.save(stream, "PNG"))
