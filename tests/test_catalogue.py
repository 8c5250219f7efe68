"""The table of metrics: a record is all it takes, networks are loaded when needed, signs come from one place."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from command_line import adapt
from conftest import ROOT
from scores import evaluate_images
from torch import Tensor

from adapt.commands.run_report import verdict_of
from adapt.evaluation.catalogue import ARROWS, METRICS, Metric
from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.inputs import FromFeatures, FromImages, Networks
from adapt.evaluation.metrics import sharpness
from adapt.evaluation.report import Example, Report, write_report
from adapt.evaluation.scores import Evaluation, difference
from adapt.evaluation.tables import markdown_table, text_table
from adapt.exporting.card import model_card
from adapt.photos.files import read_image, write_image
from adapt.verdict.decision import Verdict


def green(image: Tensor) -> Tensor:
    return image[:, 1].amax(dim=(1, 2))


GREENEST = Metric(
    key="greenest",
    compute=FromImages(lambda batch: green(batch.restored) - green(batch.sides["truth"])),
    needs=("truth",),
    better="lower",
    title="greenest pixel",
    heading="green x100",
    called="the greenest pixel",
    digits=1,
    factor=100,
    told="difference",
    method="difference of the largest value of the green channel",
    colour="sRGB, green",
)


def images(count: int, seed: int = 0, size: int = 24) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 0.8


def write_images(folder: Path, batch: Tensor) -> Path:
    for index, image in enumerate(batch):
        write_image(folder / f"{index:02}.png", image)
    return folder


# ---------------------------------------------------------------- records


def test_records_are_whole():
    for key, metric in METRICS.items():
        assert key == metric.key
        assert metric.per == "photo" or isinstance(metric.compute, FromFeatures), "of a set only by features"
        assert "truth" in metric.sides or not metric.told, "the verdict tells of the originals"
        assert metric.title or metric.networks, "or the protocol has no name for it"
        assert not {*metric.sides} & {*metric.unless}
        with pytest.raises(dataclasses.FrozenInstanceError):
            metric.key = "another"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_metric_is_one_record(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """It is found wherever a result is told, and its numbers are those of its function."""
    monkeypatch.setitem(METRICS, "greenest", GREENEST)
    files = {path.stem: path for path in sorted(small_photos.rglob("*.png"))}
    for name, path in files.items():
        write_image(tmp_path / "restored" / path.relative_to(small_photos).parent / f"{name}.png", read_image(path) / 2)
    expected = [float(read_image(path)[1].max()) for path in files.values()]
    mean = -sum(expected) / len(expected) / 2
    arguments = ("evaluate", tmp_path / "restored", "--truth", small_photos, "--pack", small_pack)

    assert adapt(monkeypatch, *arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scores"]["greenest"]["mean"] == pytest.approx(mean, abs=0.01)
    assert told["scores"]["greenest"]["protocol"] == {
        **told["scores"]["psnr"]["protocol"],
        "title": "greenest pixel",
        "unit": "",
        "better": "lower",
        "method": "difference of the largest value of the green channel",
        "colour": "sRGB, green",
    }
    assert all("greenest" in row for row in told["rows"])

    printed = f"{told['scores']['greenest']['mean'] * 100:.1f}"
    assert adapt(monkeypatch, *arguments) == 0
    heading, numbers = capsys.readouterr().out.splitlines()[:2]
    assert heading.endswith(f"green x100 {ARROWS['lower']}")
    assert numbers.endswith(printed)

    truth = torch.stack([read_image(path) for path in files.values()])
    evaluations = {
        "pre-trained": evaluate_images(truth, truth, distance=None),
        "adapted": evaluate_images(truth / 2, truth, distance=None),
    }
    printed = f"{evaluations['adapted'].scores['greenest'].mean * 100:.1f}"
    markdown = markdown_table(evaluations).splitlines()
    assert markdown[0].endswith(f"| green x100 {ARROWS['lower']} |")
    assert markdown[3].endswith(f"| **{printed}** |")

    image = images(1)[0]
    write_report(tmp_path / "report.html", Report(
        title="t", summary="s", verdict="v", improved=True, evaluations=evaluations,
        examples=[Example("a", {"photo": image, "adapted": image})], log=[], problems=[], settings="", versions={},
    ))
    page = (tmp_path / "report.html").read_text()
    assert f'<th scope="col">green x100 {ARROWS["lower"]}</th>' in page
    assert f'<td class="best">{printed}<span class="error">± ' in page
    assert "difference of the largest value of the green channel. By adapt" in page

    card = model_card({
        "parity": [{"largest": 0, "undecided": 0}], "fidelity": None, "size": 16, "one_size": False,
        "architecture": "a", "input": {"name": "photo", "shape": []}, "output": {"name": "restored"}, "source": {},
        "evaluation": markdown_table(evaluations), "licences": [],
    })
    assert markdown[3] in card

    monkeypatch.setattr("adapt.commands.run_report.sentences", lambda verdict: "Adapted.")
    verdict = verdict_of(Verdict(1.0, 4, ()), evaluations)
    assert re.search(rf"the greenest pixel {printed} \(95 % interval -\S+ to -\S+\)\.$", verdict)


def test_a_metric_of_sets_is_one_record(monkeypatch: pytest.MonkeyPatch):
    """With its interval in text, with differences over the same draws, and left out where images are too few."""
    spread = Metric(
        key="spread",
        compute=FromFeatures(
            lambda image, networks: image.double().mean(dim=(1, 2, 3))[:, None],
            lambda sets: torch.stack([sets.restored.std() * share for share in (0.9, 1.0, 1.1)]),
        ),
        needs=("photos",), per="set", at_least=4, better="higher", title="spread", called="The spread", method="m",
    )
    monkeypatch.setitem(METRICS, "spread", spread)
    truth = images(5)
    base, other = (evaluate_images(truth * share, truth, photos=truth, distance=None) for share in (1, 0.5))
    std = float(truth.double().mean(dim=(1, 2, 3)).std())
    assert base.scores["spread"].mean == pytest.approx(std)
    assert base.scores["spread"].error == pytest.approx(std / 10)
    assert f"{std:.4f} ± {std / 10:.4f}" in text_table({"a": base})
    gain = difference(base, other, "spread")
    assert (gain.mean, gain.n) == (pytest.approx(-std / 2), 5)
    assert gain.low < gain.mean < gain.high < 0
    few = evaluate_images(truth[:3], truth[:3], photos=truth[:3], distance=None)
    assert "spread" not in few.scores
    assert few.notes == ("The spread left out: it needs 4 photos or more, there are 3",)


# ---------------------------------------------------------------- networks


class Faces:
    """Stands for a network that knows faces: the mean of each image is who it shows."""

    name, digest = "faces-1", "f" * 64

    def __call__(self, image: Tensor) -> Tensor:
        return image.mean(dim=(1, 2, 3)).double()


def test_networks_are_loaded_when_a_metric_needs_them_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded: list[str] = []

    def loader(name: str) -> Callable[[], Faces]:
        def load() -> Faces:
            loaded.append(name)
            return Faces()

        return load

    faces = Metric(
        key="identity",
        compute=FromImages(
            lambda batch: batch.networks["faces"](batch.restored) - batch.networks["faces"](batch.sides["truth"])
        ),
        needs=("truth", "faces"), better="lower", title="identity", method="m", colour="sRGB",
        resize="crop of the face, 112 pixels",
    )
    monkeypatch.setitem(METRICS, "identity", faces)
    networks = Networks({"faces": loader("faces"), "unasked": loader("unasked")})
    restored = write_images(tmp_path / "restored", images(9, size=12))
    truth = write_images(tmp_path / "truth", images(9, size=12) / 2)

    without = evaluate_folder(restored, photos=truth, distance=None, networks=networks)
    assert loaded == []
    assert "identity" not in without.scores
    assert "identity" not in evaluate_folder(restored, truth=truth, distance=None).scores, "no network, no metric"
    _, found = (evaluate_folder(restored, truth=truth, distance=None, networks=networks) for _ in range(2))
    assert loaded == ["faces"]
    protocol = found.scores["identity"].protocol
    assert (protocol.computed_by, protocol.weights, protocol.n) == ("faces-1", "f" * 64, 9)
    assert (protocol.colour, protocol.resize) == ("sRGB", "crop of the face, 112 pixels")


# ---------------------------------------------------------------- signs


def test_signs_come_from_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(ARROWS, "higher", "(up)")
    monkeypatch.setitem(ARROWS, "lower", "(down)")
    truth = images(2)
    found = {"a": evaluate_images(truth / 2, truth, photos=truth, distance=None)}
    assert "PSNR (up)" in text_table(found)
    assert "colour shift (down)" in markdown_table(found)
    write_report(tmp_path / "report.html", Report(
        title="t", summary="s", verdict="v", improved=True, evaluations=found, examples=[], log=[], problems=[],
        settings="", versions={},
    ))
    page = (tmp_path / "report.html").read_text()
    assert "(up) higher is better, (down) lower is better" in page
    assert not re.search("[↑↓]", page)


def test_no_other_module_knows_a_metric_or_a_sign_by_itself():
    """What branches on a metric's key would pass over the next one."""
    keys = "|".join(METRICS)
    rooms = [ROOT / "adapt" / name for name in ("evaluation", "commands", "exporting", "cli")]
    for path in (path for room in rooms for path in room.rglob("*") if path.suffix in (".py", ".j2")):
        text = path.read_text(encoding="utf-8")
        if path.name != "catalogue.py":
            assert path.name == "signs.py" or not re.search("[↑↓]", text), path  # it may put words in their place
            named = {*re.findall(rf"\"({keys})\"", text)} - {"perceptual"}  # a network and a loss as well
            assert path.name == "metrics.py" or not named, f"{path}: {named}"  # there they are called in messages


# ---------------------------------------------------------------- sharpness in an evaluation


def test_sharpness_is_held_against_the_truth_else_the_reference_else_nothing(tmp_path: Path):
    class Distance:
        name, digest = "a test's", "0"

        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).abs().mean(dim=(1, 2, 3))

        def features(self, image: Tensor) -> Tensor:
            return image.mean(dim=(2, 3))

    ours, clean, others = images(10, size=32) / 2, images(10, size=32), images(12, seed=1, size=32)
    folders = {
        name: write_images(tmp_path / name, batch)
        for name, batch in {"restored": ours, "truth": clean, "reference": others}.items()
    }

    def found(**sides: Path) -> Evaluation:
        return evaluate_folder(folders["restored"], distance=Distance(), **cast(Any, sides))

    def kinds(evaluation: Evaluation) -> list[str]:
        return [key for key in evaluation.scores if key.startswith("sharpness")]

    both = found(truth=folders["truth"], reference=folders["reference"])
    assert kinds(both) == ["sharpness"]
    assert both.scores["sharpness"].mean == pytest.approx(0.5, abs=0.01)
    assert kinds(found(photos=folders["truth"])) == ["sharpness_absolute"]
    alone = found(photos=folders["truth"]).scores["sharpness_absolute"].mean
    assert alone == pytest.approx(float(sharpness(ours).mean()), rel=0.01)

    relative = found(reference=folders["reference"])
    assert kinds(relative) == ["sharpness_reference", "sharpness_absolute"]
    written = {name: torch.stack([read_image(path) for path in sorted(folder.iterdir())])
               for name, folder in folders.items()}
    expected = sharpness(written["restored"]) / sharpness(written["reference"]).mean()
    assert [row["sharpness_reference"] for row in relative.rows] == pytest.approx(expected.tolist(), rel=1e-12)
    score = relative.scores["sharpness_reference"]
    assert (score.mean, score.error) == pytest.approx((float(expected.mean()), float(expected.std()) / math.sqrt(10)))
    assert (score.protocol.n, score.estimates) == (10, ())
    sharper = evaluate_folder(folders["truth"], reference=folders["reference"], distance=Distance())
    gain = difference(relative, sharper, "sharpness_reference")
    assert gain.n == 10
    assert gain.mean == pytest.approx(float(expected.mean()), rel=0.02), "twice as sharp, photo by photo"
    assert relative.scores["sharpness_absolute"].protocol.files != sharper.scores["sharpness_reference"].protocol.files


def test_a_flat_original_has_no_sharpness_and_does_not_spoil_the_mean(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    truth = images(3)
    truth[1] = torch.tensor([0.2, 0.4, 0.6])[:, None, None]
    restored = images(3) / 2
    found = evaluate_images(restored, truth, distance=None, ids=["a", "b", "c"])
    assert found.scores["sharpness"].mean == pytest.approx(0.5, rel=1e-6)
    assert found.scores["sharpness"].protocol.n == 2
    assert ["sharpness" in row for row in found.rows] == [True, False, True]
    note = "sharpness left out of 1 of 3 photos, it has no value: b"
    assert found.notes == (note,)
    assert difference(found, found, "sharpness").n == 2
    nothing = evaluate_images(restored[1:2], truth[1:2], distance=None)
    assert "sharpness" not in nothing.scores
    a, b = write_images(tmp_path / "a", restored), write_images(tmp_path / "b", truth)
    assert adapt(monkeypatch, "evaluate", a, "--truth", b, "--pack", small_pack) == 0
    assert note.replace(": b", ": 01") in capsys.readouterr().out, "whoever reads the table learns of it"
