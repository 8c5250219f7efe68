"""The one sampling loop. Guidance terms, windows and solvers plug into it; it branches on nothing but the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from adapt.diffusion.prior import Prediction, Predictor
from adapt.diffusion.schedule import noised
from adapt.diffusion.solvers import Draw, Solver
from adapt.diffusion.steps import Plan, Step


@dataclass(frozen=True, slots=True)
class Job:
    """What is sampled towards.

    Attributes:
        restored: the restorer's output, (B, 3, H, W) in [-1, 1].
    """

    restored: Tensor


class Term(Protocol):
    """A guidance term: settings in its fields, what changes in the memory that it returns.

    `acts_on` says where: on the prediction of the clean image ("x0"), or on the sample after the step ("sample").
    """

    @property
    def acts_on(self) -> Literal["x0", "sample"]: ...

    def begin(self, job: Job) -> Any:
        """The memory before the first step."""
        ...

    def apply(self, image: Tensor, step: Step, memory: Any, draw: Draw) -> tuple[Tensor, Any]:
        """The corrected image and the next memory; `image` is not changed."""
        ...


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step leaves to be seen: the sample it started from, the prediction, and the sample before any term."""

    step: Step
    x: Tensor
    x0: Tensor
    sample: Tensor


class PhotoNoise:
    """Standard normal noise, (B, 3, H, W), each photo's from its own generator: a photo never depends on its batch."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = shape
        self.device = device

    def __call__(self) -> Tensor:
        drawn = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)


def start(job: Job, plan: Plan, draw: Draw) -> Tensor:
    """The noised restored image at the plan's first level (DT-BFR Alg. 1, first line)."""
    return noised(job.restored, plan.start_abar, draw())


@torch.no_grad()
def guided_sample(
    prior: Predictor,
    x: Tensor,
    steps: Sequence[Step],
    *,
    solver: Solver,
    terms: Sequence[Term],
    job: Job,
    draw: Draw,
    on_step: Callable[[StepRecord], None] | None = None,
) -> Tensor:
    """Walk from a noisy x, (B, 3, H, W), to a clean image in [-1, 1].

    Args:
        prior: predicts the clean image.
        x: sample at the level of the first step.
        steps: from noisy to clean; the last one ends at alpha-bar 1.
        solver: how predictions become samples.
        terms: guidance, applied in this order.
        job: what the terms work towards.
        draw: standard normal noise of x's shape.
        on_step: sees every step.
    """
    memory = [term.begin(job) for term in terms]
    trail: Any = None

    def corrected(where: str, image: Tensor, step: Step) -> Tensor:
        for index, term in enumerate(terms):
            if term.acts_on == where:
                image, memory[index] = term.apply(image, step, memory[index], draw)
        return image

    for step in steps:
        prediction = prior.predict(x, step)
        x0 = corrected("x0", prediction.x0, step)
        sample, trail = solver.step(Prediction(x0, prediction.log_variance), x, step, trail, draw)
        if on_step is not None:
            on_step(StepRecord(step, x, x0, sample))
        x = corrected("sample", sample, step)
    return x
