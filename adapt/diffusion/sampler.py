"""The one sampling loop. Guidance terms, windows and solvers plug into it; it branches on nothing but the step.

What takes a step of its own is a trajectory: an image, or several that take the same steps. All trajectories end
together, so the long ones begin first; what they share is the network's evaluation, in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
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
        restored: what is kept to, (B, 3, H, W) in [-1, 1]: the restorer's output, or the photo in its place.
        std: blur level at which it can be trusted, in pixels: (B, R) for the R regions that the terms know, (B, 1)
            for whole images; None where no term asks.
        photo: the damaged photo itself, shape and range as `restored`; None where no term asks.
    """

    restored: Tensor
    std: Tensor | None = None
    photo: Tensor | None = None


class Term(Protocol):
    """A guidance term: settings in its fields, what changes in the memory that it returns.

    `acts_on` says where: on the prediction of the clean image ("x0"), or on the sample after the step ("sample").
    """

    @property
    def acts_on(self) -> Literal["x0", "sample"]: ...

    @property
    def facts(self) -> Mapping[str, int]:
        """What was chosen for this photo and belongs into its record."""
        ...

    def begin(self, conditioning: Conditioning) -> Any:
        """The memory before the first step."""
        ...

    def starting_image(self, memory: Any) -> Tensor | None:
        """What is noised to begin with, where that is the term's to say: (B, 3, H, W) in [-1, 1]."""
        ...

    def apply(self, image: Tensor, step: Step, memory: Any, *, draw: Draw) -> tuple[Tensor, Any]:
        """The corrected image and the next memory; `image` is not changed."""
        ...


@dataclass(frozen=True, slots=True)
class GuidanceLoss:
    """How far a clean image is from what guides it, times the term's scale.

    Attributes:
        value: (B,).
        gradient: of the loss with respect to the clean image, (B, 3, H, W).
    """

    value: Tensor
    gradient: Tensor


class GradientTerm(Protocol):
    """A guidance term that descends a guidance loss of the predicted clean image.

    The terms of a trajectory share one backward pass: the loop adds up the gradients at the clean image, takes the sum
    back to the noisy one, through the network where `through_network` says so, and the sample descends it once. No step
    leads further than where the sum of the losses, were it linear, would vanish (Polyak), where all its terms have a
    `limit`.
    """

    @property
    def acts_on(self) -> Literal["gradient"]: ...

    @property
    def through_network(self) -> bool: ...

    @property
    def limit(self) -> bool: ...

    @property
    def facts(self) -> Mapping[str, int]:
        """As of a `Term`."""
        ...

    def begin(self, conditioning: Conditioning) -> Any:
        """The memory before the first step."""
        ...

    def starting_image(self, memory: Any) -> Tensor | None:
        """As of a `Term`."""
        ...

    def guidance_loss(self, x0: Tensor, step: Step, memory: Any) -> GuidanceLoss | None:
        """The guidance loss of x0, (B, 3, H, W) in [-1, 1]; None where the term rests."""
        ...

    def apply(
        self, direction: Tensor, step: Step, memory: Any, *, x0: Tensor, guidance_loss: GuidanceLoss
    ) -> tuple[Tensor, Any]:
        """The direction in which the sample descends, and the next memory.

        Args:
            direction: the gradient of the summed losses with respect to the noisy image, or to the clean one where it
                does not pass the network, shaped by the terms before: (B, 3, H, W); not changed.
            step: the step.
            memory: before it.
            x0: the prediction that was judged.
            guidance_loss: what `guidance_loss` said of it.
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
    """Images that take the same steps, with what each trajectory has of its own.

    Attributes:
        x: samples at the level of the first step, (B, 3, H, W).
        steps: from noisy to clean; the last one ends at alpha-bar 1.
        solver: how predictions become samples.
        terms: guidance; those that act on the prediction come before the step, then those that descend, then those on
            the sample, each kind in this order.
        conditioning: what the terms work towards.
        draw: standard normal noise of x's shape.
    """

    x: Tensor
    steps: Sequence[Step]
    solver: Solver
    terms: Sequence[AnyTerm]
    conditioning: Conditioning
    draw: Draw


@dataclass(frozen=True, slots=True)
class _Descent:
    """What the gradient terms of a trajectory ask for at a step.

    Attributes:
        losses: by the place of the term.
        gradient: of their sum.
        through_network: with respect to the noisy image; else to the clean one.
    """

    losses: dict[int, GuidanceLoss]
    gradient: Tensor
    through_network: bool


@dataclass(slots=True)
class _State:
    """Where a trajectory stands."""

    trajectory: Trajectory
    index: int
    x: Tensor
    memory: list[Any]
    trail: Any = None
    descents: list[_Descent] = field(default_factory=list)

    def corrected(self, where: str, image: Tensor, step: Step) -> Tensor:
        for index, term in enumerate(self.trajectory.terms):
            if term.acts_on == where:
                acting = cast("Term", term)
                image, self.memory[index] = acting.apply(image, step, self.memory[index], draw=self.trajectory.draw)
        return image


def start(conditioning: Conditioning, plan: Plan, draw: Draw) -> Tensor:
    """The noised restored image at the plan's first level (DT-BFR Alg. 1, first line)."""
    return noised(conditioning.restored, plan.start_abar, draw())


@torch.no_grad()
def guided_sample(
    prior: Predictor,
    x: Tensor,
    steps: Sequence[Step],
    *,
    solver: Solver,
    terms: Sequence[AnyTerm],
    conditioning: Conditioning,
    draw: Draw,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk from a noisy x, (B, 3, H, W), to a clean image in [-1, 1]; all images take the same steps.

    Args:
        prior: predicts the clean image.
        x, steps, solver, terms, conditioning, draw: as in `Trajectory`.
        on_step: sees every step.

    Returns:
        (B, 3, H, W). A photo whose guidance stops being finite ends as NaN, and alone does.
    """
    trajectory = Trajectory(x=x, steps=steps, solver=solver, terms=terms, conditioning=conditioning, draw=draw)
    return sample_together(prior, [trajectory], on_step)[0]


@torch.no_grad()
def sample_together(
    prior: Predictor, trajectories: Sequence[Trajectory], on_step: OnStep | None = None
) -> list[Tensor]:
    """Take every trajectory to its end; see `guided_sample`.

    Args:
        prior: predicts the clean images.
        trajectories: images of one size; their lengths may differ.
        on_step: sees every step of every trajectory.
    """
    states = [_State(w, i, w.x, [term.begin(w.conditioning) for term in w.terms]) for i, w in enumerate(trajectories)]
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
    for descent in state.descents:
        terms = {index: cast("GradientTerm", state.trajectory.terms[index]) for index in descent.losses}
        value = reduce(add, (loss.value for loss in descent.losses.values()))
        finite = descent.gradient.isfinite().flatten(1).all(1) & value.isfinite()
        length = step_length(value, descent.gradient, limit=all(term.limit for term in terms.values()))
        if not descent.through_network:
            length = length * step.abar_prev**0.5  # the share of x0 in the sample
        direction = descent.gradient
        for index, term in terms.items():
            direction, state.memory[index] = term.apply(
                direction, step, state.memory[index], x0=x0, guidance_loss=descent.losses[index]
            )
        sample = torch.where(finite[:, None, None, None], sample - length * direction, torch.nan)
    state.descents = []
    return sample


def step_length(value: Tensor, gradient: Tensor, *, limit: bool) -> Tensor:
    """By how much of a gradient (B, 3, H, W) each photo moves, (B, 1, 1, 1): 1, or Polyak's step where that is less."""
    length = torch.ones_like(value)
    if limit:
        steepness = gradient.square().sum(dim=(1, 2, 3)).clamp(min=torch.finfo(gradient.dtype).tiny)
        length = torch.minimum(length, value / steepness)
    return length[:, None, None, None]


def _predictions(prior: Predictor, moving: Sequence[_State], steps: Sequence[Step]) -> list[Prediction]:
    """The predictions of all trajectories in one batch, and in their states what the gradient terms make of them."""
    asking = [any(_through_network(term) for term in state.trajectory.terms) for state in moving]
    with torch.set_grad_enabled(any(asking)):
        noisy = [state.x.detach().requires_grad_(asks) for state, asks in zip(moving, asking, strict=True)]
        raw = prior.predict_each(noisy, steps, [state.trajectory.conditioning.photo for state in moving])
    plain = [Prediction(each.x0.detach(), each.log_variance.detach()) for each in raw]
    asked: list[tuple[int, dict[int, GuidanceLoss], Tensor]] = []
    for position, (state, step, seen) in enumerate(zip(moving, steps, plain, strict=True)):
        for through in (True, False):
            losses = _losses(state, step, seen.x0, through)
            if not losses:
                continue
            gradient = reduce(add, (loss.gradient for loss in losses.values()))
            if through:
                asked.append((position, losses, gradient))
            else:
                state.descents.append(_Descent(losses, gradient, through_network=False))
    if asked:  # one backward pass, for all terms of all trajectories
        gradients = torch.autograd.grad(
            [raw[position].x0 for position, _, _ in asked],
            [noisy[position] for position, _, _ in asked],
            [gradient for _, _, gradient in asked],
        )
        for (position, losses, _), gradient in zip(asked, gradients, strict=True):
            moving[position].descents.insert(0, _Descent(losses, gradient, through_network=True))
    return plain


def _losses(state: _State, step: Step, x0: Tensor, through_network: bool) -> dict[int, GuidanceLoss]:
    """What the gradient terms of one kind say of a prediction, by their place; those that rest are left out."""
    losses: dict[int, GuidanceLoss] = {}
    for index, term in enumerate(state.trajectory.terms):
        if term.acts_on == "gradient" and term.through_network == through_network:
            loss = term.guidance_loss(x0, step, state.memory[index])
            if loss is not None:
                losses[index] = loss
    return losses


def _through_network(term: AnyTerm) -> bool:
    return term.acts_on == "gradient" and term.through_network
