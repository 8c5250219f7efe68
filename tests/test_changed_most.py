"""Whose face is farthest from the photo's, on the page of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapt.commands.changed_most import SHOWN, changed_most
from adapt.evaluation.metrics import MetricProtocol
from adapt.evaluation.scores import Evaluation, Score
from adapt.photos.files import write_image

NAMED = {"photo": "photos", "pre-trained": "base", "adapted": "restored"}


def measured(distances: dict[str, float], key: str = "identity_photo") -> Evaluation:
    protocol = MetricProtocol(title="identity", better="lower", method="m", computed_by="net", n=2, files="f")
    rows = [{"id": id, key: distance} for id, distance in distances.items()]
    return Evaluation(scores={key: Score(0.0, 0.0, protocol)}, rows=rows)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for value, folder in enumerate(NAMED.values()):
        for number in range(12):
            write_image(tmp_path / folder / f"p{number}.png", torch.full((3, 8, 8), value / 10))
    return tmp_path


def test_the_farthest_first(out: Path):
    base = {f"p{number}": 0.1 for number in range(12)}
    adapted = {f"p{number}": 0.05 * (number * 5 % 12) for number in range(12)}
    rows = {"pre-trained": measured(base), "adapted": measured({**adapted, "p3": 0.7})}
    rows["target"] = measured({"p1": 0.5, "p2": 0.7})
    examples, text = changed_most(out, rows, NAMED, "adapted", lost_from=0.6)
    assert len(examples) == SHOWN
    assert examples[0].id == "p3: 0.70"
    told = [float(example.id.split(": ")[1]) for example in examples]
    assert told == sorted(told, reverse=True)
    assert [*examples[0].images] == ["photo", "pre-trained", "adapted"]
    assert float(examples[0].images["adapted"].mean()) == pytest.approx(0.2, abs=0.01)
    assert "pre-trained 0.10 and 0.10" in text
    assert "to the photo" in text
    assert "beyond 0.6: pre-trained 0 of 12, adapted 1 of 12, target 1 of 2" in text


def test_where_the_base_is_exported_it_is_shown_once(out: Path):
    rows = {"pre-trained": measured({"p1": 0.2}, "identity")}
    examples, text = changed_most(out, rows, NAMED, "pre-trained", lost_from=0.3)
    assert [*examples[0].images] == ["photo", "pre-trained"]
    assert "to the original" in text


def test_nothing_measured_nothing_shown(out: Path):
    assert changed_most(out, {"adapted": Evaluation(scores={}, rows=[])}, NAMED, "adapted", lost_from=0.3) == ([], "")
