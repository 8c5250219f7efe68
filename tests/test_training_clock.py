"""Trainings that go by the clock, and pairs that other processes make ahead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import SMALL_SWINIR, lively_swinir, on_cpu
from torch import Tensor

from adapt.commands.pretrain import pretrain
from adapt.errors import UsageError
from adapt.exporting.verify import smooth_images
from adapt.pretraining.restorer import train_restorer
from adapt.settings import RestorerSettings
from adapt.training import context, loop
from adapt.training.context import Clock
from adapt.training.run import Run

SETTINGS = RestorerSettings(
    network=SMALL_SWINIR, steps=10, batch=2, size=32, learning_rate=1e-3, perceptual=0.0,
)  # fmt: skip


def faces() -> Tensor:
    return smooth_images((5, 32, 32), seed=3).mul(255).round().byte()


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still but for what a test adds to it."""
    now = [100.0]
    monkeypatch.setattr(context.time, "monotonic", lambda: now[0])
    return now


def test_by_steps_the_clock_says_nothing(ticking: list[float]):
    clock = Clock(10, None, 0.0)
    ticking[0] += 1e6
    assert [clock.place(step) for step in (0, 3, 10)] == [0, 3, 10]
    assert clock.total(4) == 10


def test_by_time_the_share_of_it_decides(ticking: list[float]):
    clock = Clock(10, 2.0, 30.0)
    assert (clock.place(0), clock.spent) == (2, 30.0)
    ticking[0] += 30
    assert clock.place(7) == 5
    assert clock.total(7) == 14, "as many again"
    ticking[0] += 600
    assert clock.place(8) == 10


def test_a_training_ends_in_time_and_the_rate_falls_by_it(
    ticking: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a minute, 6 s a step; stopped and gone on with, time counts on."""
    rates: list[int] = []
    monkeypatch.setattr(loop, "trapezoid", lambda place, steps, peak, warmup: rates.append(place) or 1e-4)
    seen: list[tuple[int, int]] = []

    def after(done: int, total: int, values: dict[str, float]) -> None:
        ticking[0] += 6
        seen.append((done, total))

    given = SETTINGS.model_copy(update={"steps": 100})
    for most in (4, None):
        with Run(tmp_path, recipe="", digest="x") as run:
            train_restorer(
                lively_swinir(), given, faces(), replace(on_cpu(run, after, most), minutes=1.0)
            )
            stopped = run.stopped
        ticking[0] += 1000  # in between
        assert (stopped is None) == (most is None)
    assert rates == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert [done for done, _ in seen] == list(range(1, 11))
    assert seen[-1] == (10, 11)


def test_pairs_made_ahead_are_the_same(tmp_path: Path):
    states: list[dict[str, Tensor]] = []
    for workers in (0, 2):
        with Run(tmp_path / str(workers), recipe="", digest="x") as run:
            given = SETTINGS.model_copy(update={"steps": 3})
            states.append(
                train_restorer(lively_swinir(), given, faces(), replace(on_cpu(run), workers=workers))[0]
            )
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_what_has_no_steps_of_its_own_refuses_minutes(small_photos: Path, small_pack: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="--minutes 1: is for one process, and not for"):
        pretrain("start-steps", small_photos, tmp_path / "run", pack=str(small_pack), minutes=1.0)
