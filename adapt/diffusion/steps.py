"""The steps of a sampler: pairs of noise levels, always named by timesteps of the 1000-step schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from adapt.diffusion.schedule import TIMESTEPS, Schedule, linear_schedule, respaced
from adapt.errors import UsageError


@dataclass(frozen=True, slots=True)
class Step:
    """One step back, from noise level `abar` to `abar_prev`.

    Attributes:
        t: timestep at the start of the step, 0 to 999; what the network is told.
        t_prev: timestep at its end; -1 after the last step.
        abar: alpha-bar at t.
        abar_prev: alpha-bar at t_prev; 1 after the last step, so that "t - 1" is never an index.
        log_posterior_variance: log of the variance of q(x_prev | x_t, x_0); after the last step, where it is 0,
            that of the step before (as the networks were trained).
    """

    t: int
    t_prev: int
    abar: float
    abar_prev: float
    log_posterior_variance: float

    @property
    def beta(self) -> float:
        """Variance of q(x_t | x_prev)."""
        return 1 - self.abar / self.abar_prev

    @property
    def last(self) -> bool:
        """Whether the step ends at the clean image: no noise is added."""
        return self.t_prev < 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A sampler's way: the noise level of its start, and its steps from noisy to clean."""

    start_abar: float
    steps: tuple[Step, ...]


def steps_through(timesteps: list[int], schedule: Schedule | None = None) -> tuple[Step, ...]:
    """Steps through increasing timesteps, from the last to the first and on to the clean image.

    Raises:
        UsageError: fewer than one timestep, not increasing, or outside the schedule.
    """
    schedule = schedule or linear_schedule()
    increasing = all(a < b for a, b in pairwise(timesteps))
    if not timesteps or not increasing or timesteps[0] < 0 or timesteps[-1] >= len(schedule):
        raise UsageError(f"timesteps: expected increasing numbers from 0 to {len(schedule) - 1}, got {timesteps}")
    abars = [float(schedule.abar[t]) for t in timesteps]
    variances: list[float] = []
    for index, abar in enumerate(abars):
        abar_prev = abars[index - 1] if index else 1.0
        variances.append((1 - abar / abar_prev) * (1 - abar_prev) / (1 - abar))
    if len(variances) > 1:
        variances[0] = variances[1]
    else:
        variances[0] = 1 - abars[0]
    steps = [
        Step(
            t=t,
            t_prev=timesteps[index - 1] if index else -1,
            abar=abars[index],
            abar_prev=abars[index - 1] if index else 1.0,
            log_posterior_variance=math.log(variances[index]),
        )
        for index, t in enumerate(timesteps)
    ]
    return tuple(reversed(steps))


def plan_from(start_t: int, count: int, end_t: int = 0) -> Plan:
    """`count` steps, evenly spread, from `start_t` to the clean image; the start has the level the network is told.

    Args:
        start_t: 1000 is the highest timestep, 999.
        count: of network evaluations.
        end_t: the timestep of the last one: its clean image is the result, whatever noise it was predicted from.

    Raises:
        UsageError: an end above the start, no step, or more than there are timesteps between.
    """
    start = min(start_t, TIMESTEPS - 1)
    most = start - end_t + 1
    if most < 1:
        raise UsageError(f"end_t: expected a timestep at or below the start, {start}, got {end_t}")
    if not 1 <= count <= most:
        way = f"from timestep {start}" + (f" to {end_t}" if end_t else "")
        raise UsageError(f"steps: expected 1 to {most} steps {way}, got {count}")
    stride = (start - end_t) / (count - 1) if count > 1 else 0.0
    steps = steps_through([end_t + round(index * stride) for index in range(count)] if count > 1 else [start])
    return Plan(steps[0].abar, steps)


def plan_dt_bfr(start_t: int, count: int, end_t: int = 0) -> Plan:
    """The public DT-BFR code's way: `count` of a respaced chain's steps, the start noised one step further.

    The chain is respaced so that `start_t` falls on index `count` (600 of 1000 in 150 steps: respacing 250); the
    image is noised to that index, and the first network call is at the index below (FACTS: 602 and 598).

    Raises:
        UsageError: the chain would have more than 1000 steps, none above the start, or not a whole number of them; or
            an end above 0, which that code does not know.
    """
    if end_t:
        raise UsageError(f"compat dt-bfr: the public code goes all the way to 0; leave out end_t, got {end_t}")
    total = count * TIMESTEPS / start_t
    if total != int(total) or not count < total <= TIMESTEPS:
        raise UsageError(
            f"compat dt-bfr: steps * 1000 / start_t must be a whole number of at most 1000 and above steps;"
            f" {count} steps from {start_t} give {total:g}"
        )
    chain = respaced(int(total))
    return Plan(float(linear_schedule().abar[chain[count]]), steps_through(chain)[-count:])
