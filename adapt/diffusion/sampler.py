"""The one sampling loop. Guidance terms, windows and solvers plug into it; it branches on nothing but the step.

What takes a step of its own is a trajectory: an image, or several that take the same steps. All trajectories end together, so the
long ones begin first; what they share is the network's evaluation, in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor

from adapt.diffusion.prior import Prediction, Predictor
from adapt.diffusion.schedule import noised
from adapt.diffusion.solvers import Draw, Solver
from adapt.diffusion.steps import Plan, Step


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What is sampled towards.

    Attributes:
        restored: the restorer's output, (B, 3, H, W) in [-1, 1].
        std: blur level at which it can be trusted, in pixels: (B, R) for the R regions that the terms know, (B, 1)
            for whole images; None where no term asks.
    """

    restored: Tensor
    std: Tensor | None = None


class Term(Protocol):
    """A guidance term: settings in its fields, what changes in the memory that it returns.

    `acts_on` says where: on the prediction of the clean image ("x0"), or on the sample after the step ("sample").
    """

    @property
    def acts_on(self) -> Literal["x0", "sample"]: ...

    def begin(self, job: Conditioning) -> Any:
        """The memory before the first step."""
        ...

    def apply(self, image: Tensor, step: Step, memory: Any, *, draw: Draw) -> tuple[Tensor, Any]:
        """The corrected image and the next memory; `image` is not changed."""
        ...


@dataclass(frozen=True, slots=True)
class GuidanceLoss:
    """How far a clean image is from what guides it.

    Attributes:
        value: (B,).
        slope: its gradient with respect to the clean image, (B, 3, H, W).
    """

    value: Tensor
    slope: Tensor


class GradientTerm(Protocol):
    """A guidance term that descends a guidance_loss of the predicted clean image.

    The loop takes the slope at the clean image back to the noisy one, through the network where
    `through_network` says so (a backward pass), and hands it to `apply`.
    """

    @property
    def acts_on(self) -> Literal["gradient"]: ...

    @property
    def through_network(self) -> bool: ...

    def begin(self, job: Conditioning) -> Any:
        """The memory before the first step."""
        ...

    def guidance_loss(self, x0: Tensor, step: Step, memory: Any) -> GuidanceLoss | None:
        """The guidance_loss of x0, (B, 3, H, W) in [-1, 1]; None where the term rests."""
        ...

    def apply(
        self, sample: Tensor, step: Step, memory: Any, *, x0: Tensor, guidance_loss: GuidanceLoss, gradient: Tensor
    ) -> tuple[Tensor, Any]:
        """The corrected sample and the next memory.

        Args:
            sample: after the step, (B, 3, H, W); not changed.
            step: the step.
            memory: before it.
            x0: the prediction that was judged.
            guidance_loss: what `guidance_loss` said of it.
            gradient: its gradient with respect to the noisy image, or the slope itself.
        """
        ...


AnyTerm = Term | GradientTerm


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step leaves to be seen.

    Attributes:
        step: the step.
        x: the sample it started from.
        x0: the prediction, after the terms that act on it.
        sample: the sample it ended at, before the terms that act on that.
        memory: what the terms remember after it, in their order.
        trajectory: which of the trajectories.
        left: how many steps the trajectory has still before it.
    """

    step: Step
    x: Tensor
    x0: Tensor
    sample: Tensor
    memory: tuple[Any, ...] = ()
    trajectory: int = 0
    left: int = 0


OnStep = Callable[[StepRecord], None]


class PhotoNoise:
    """Standard normal noise, (B, 3, H, W), each photo's from its own generator: a photo never depends on its batch."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = shape
        self.device = device

    def __call__(self) -> Tensor:
        drawn = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """ImageDataset that take the same steps, with what each trajectory has of its own.

    Attributes:
        x: samples at the level of the first step, (B, 3, H, W).
        steps: from noisy to clean; the last one ends at alpha-bar 1.
        solver: how predictions become samples.
        terms: guidance; those that act on the prediction come before the step, then those that descend, then those on
            the sample, each kind in this order.
        job: what the terms work towards.
        draw: standard normal noise of x's shape.
    """

    x: Tensor
    steps: Sequence[Step]
    solver: Solver
    terms: Sequence[AnyTerm]
    job: Conditioning
    draw: Draw


@dataclass(slots=True)
class _State:
    """Where a trajectory stands."""

    trajectory: Trajectory
    index: int
    x: Tensor
    memory: list[Any]
    trail: Any = None
    pending: list[tuple[int, GuidanceLoss, Tensor]] = field(default_factory=list)

    def corrected(self, where: str, image: Tensor, step: Step) -> Tensor:
        for index, term in enumerate(self.trajectory.terms):
            if term.acts_on == where:
                acting = cast("Term", term)
                image, self.memory[index] = acting.apply(image, step, self.memory[index], draw=self.trajectory.draw)
        return image


def start(job: Conditioning, plan: Plan, draw: Draw) -> Tensor:
    """The noised restored image at the plan's first level (DT-BFR Alg. 1, first line)."""
    return noised(job.restored, plan.start_abar, draw())


@torch.no_grad()
def guided_sample(
    prior: Predictor,
    x: Tensor,
    steps: Sequence[Step],
    *,
    solver: Solver,
    terms: Sequence[AnyTerm],
    job: Conditioning,
    draw: Draw,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk from a noisy x, (B, 3, H, W), to a clean image in [-1, 1]; all images take the same steps.

    Args:
        prior: predicts the clean image.
        x, steps, solver, terms, job, draw: as in `Trajectory`.
        on_step: sees every step.

    Returns:
        (B, 3, H, W). A photo whose guidance stops being finite ends as NaN, and alone does.
    """
    trajectory = Trajectory(x=x, steps=steps, solver=solver, terms=terms, job=job, draw=draw)
    return sample_together(prior, [trajectory], on_step)[0]


@torch.no_grad()
def sample_together(prior: Predictor, trajectories: Sequence[Trajectory], on_step: OnStep | None = None) -> list[Tensor]:
    """Take every trajectory to its end; see `guided_sample`.

    Args:
        prior: predicts the clean images.
        trajectories: images of one size; their lengths may differ.
        on_step: sees every step of every trajectory.
    """
    states = [_State(w, i, w.x, [term.begin(w.job) for term in w.terms]) for i, w in enumerate(trajectories)]
    for left in range(max(len(trajectory.steps) for trajectory in trajectories), 0, -1):
        moving = [s for s in states if len(s.trajectory.steps) >= left and not bool(s.x.isnan().all())]
        if not moving:
            continue
        steps = [state.trajectory.steps[-left] for state in moving]
        for state, step, prediction in zip(moving, steps, _predictions(prior, moving, steps), strict=True):
            _advance(state, step, prediction, left=left - 1, on_step=on_step)
    return [state.x for state in states]


def _advance(state: _State, step: Step, prediction: Prediction, *, left: int, on_step: OnStep | None) -> None:
    trajectory = state.trajectory
    x0 = state.corrected("x0", prediction.x0, step)
    sample, state.trail = trajectory.solver.step(
        Prediction(x0, prediction.log_variance), state.x, step, memory=state.trail, draw=trajectory.draw
    )
    after = state.corrected("sample", _descended(state, sample, step, prediction.x0), step)
    if on_step is not None:
        on_step(StepRecord(step, state.x, x0, sample, tuple(state.memory), state.index, left))
    state.x = after


def _descended(state: _State, sample: Tensor, step: Step, x0: Tensor) -> Tensor:
    """The sample after the gradient terms; an image whose gradient is not finite becomes NaN."""
    for index, guidance_loss, gradient in state.pending:
        term = cast("GradientTerm", state.trajectory.terms[index])
        finite = gradient.isfinite().flatten(1).all(1) & guidance_loss.value.isfinite()
        sample, state.memory[index] = term.apply(
            sample, step, state.memory[index], x0=x0, guidance_loss=guidance_loss, gradient=gradient
        )
        sample = torch.where(finite[:, None, None, None], sample, torch.nan)
    state.pending = []
    return sample


def _predictions(prior: Predictor, moving: Sequence[_State], steps: Sequence[Step]) -> list[Prediction]:
    """The predictions of all trajectories in one batch, with the guidance_losses and gradients of the terms that ask for them."""
    asking = [any(_through_network(term) for term in state.trajectory.terms) for state in moving]
    with torch.set_grad_enabled(any(asking)):
        noisy = [state.x.detach().requires_grad_(asks) for state, asks in zip(moving, asking, strict=True)]
        raw = prior.predict_each(noisy, steps)
    plain = [Prediction(each.x0.detach(), each.log_variance.detach()) for each in raw]
    through: dict[int, list[tuple[int, int, GuidanceLoss]]] = {}
    for position, (state, step, seen) in enumerate(zip(moving, steps, plain, strict=True)):
        for index, term in enumerate(state.trajectory.terms):
            if term.acts_on != "gradient":
                continue
            guidance_loss = term.guidance_loss(seen.x0, step, state.memory[index])
            if guidance_loss is None:
                continue
            if term.through_network:
                through.setdefault(index, []).append((position, index, guidance_loss))
            else:
                state.pending.append((index, guidance_loss, guidance_loss.slope))
    for round_, asked in enumerate(through.values()):  # one backward pass for each term, for all trajectories at once
        gradients = torch.autograd.grad(
            [raw[position].x0 for position, _, _ in asked],
            [noisy[position] for position, _, _ in asked],
            [guidance_loss.slope for _, _, guidance_loss in asked],
            retain_graph=round_ + 1 < len(through),
        )
        for (position, index, guidance_loss), gradient in zip(asked, gradients, strict=True):
            moving[position].pending.append((index, guidance_loss, gradient))
    for state in moving:
        state.pending.sort(key=lambda each: each[0])
    return plain


def _through_network(term: AnyTerm) -> bool:
    return term.acts_on == "gradient" and term.through_network
