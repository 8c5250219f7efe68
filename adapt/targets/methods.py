"""Target makers: a recipe's method as a plan, a solver and guidance terms for the one loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from adapt.diffusion.prior import Prior
from adapt.diffusion.sampler import Job, PhotoNoise, Term, guided_sample, start
from adapt.diffusion.solvers import Ancestral, Ddim, DpmSolver2M, Solver
from adapt.diffusion.steps import Plan, plan_dt_bfr, plan_from
from adapt.errors import UsageError
from adapt.guidance.low_frequency import LowFrequency
from adapt.images import to_signed, to_unit
from adapt.settings import TargetSettings

SOLVERS: Final[dict[str, Callable[[TargetSettings], Solver]]] = {
    "ddpm": lambda settings: Ancestral(),
    "ddim": lambda settings: Ddim(settings.eta),
    "dpm++2m": lambda settings: DpmSolver2M(),
}
PLANS: Final[dict[str, Callable[[int, int], Plan]]] = {"none": plan_from, "dt-bfr": plan_dt_bfr}


@dataclass(frozen=True, slots=True)
class TargetMaker:
    """Everything that turns restored photos into targets.

    Attributes:
        prior: the diffusion prior.
        plan: levels from the start to the clean image.
        solver: how predictions become samples.
        terms: guidance, in order.
    """

    prior: Prior
    plan: Plan
    solver: Solver
    terms: tuple[Term, ...]

    def make(self, restored: Tensor, seeds: Sequence[int]) -> Tensor:
        """Targets of restored photos.

        Args:
            restored: (B, 3, H, W) in [0, 1].
            seeds: one per photo.

        Returns:
            (B, 3, H, W) in [0, 1]. A photo's target does not depend on the others in its batch.
        """
        job = Job(to_signed(restored))
        draw = PhotoNoise(seeds, (restored.shape[1], restored.shape[2], restored.shape[3]), restored.device)
        x = start(job, self.plan, draw)
        sample = guided_sample(
            self.prior, x, self.plan.steps, solver=self.solver, terms=self.terms, job=job, draw=draw
        )
        return to_unit(sample)


def target_maker(settings: TargetSettings, prior: Prior) -> TargetMaker:
    """The maker that a recipe describes.

    Raises:
        UsageError: settings that contradict each other.
    """
    if settings.compat == "dt-bfr" and settings.solver != "ddpm":
        raise UsageError(f"compat dt-bfr: the public code samples with ddpm, got solver {settings.solver}")
    if settings.eta and settings.solver != "ddim":
        raise UsageError(f"eta: belongs to ddim and changes nothing with {settings.solver}; leave it out")
    terms = tuple(LowFrequency(factor=term.factor, last_t=term.last_t) for term in settings.guidance)
    plan = PLANS[settings.compat](settings.start_t, settings.steps)
    return TargetMaker(prior, plan, SOLVERS[settings.solver](settings), terms)
