"""Tables, contact sheets and the result page: what they refuse, what they show, and that they stay small."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scores import evaluate_images
from torch import Tensor

from adapt.errors import RangeError, ShapeError, UsageError
from adapt.evaluation.curves import HEIGHT, MOST_POINTS, WIDTH, loss_curves
from adapt.evaluation.metrics import Better, MetricProtocol
from adapt.evaluation.report import Example, Report, write_report
from adapt.evaluation.scores import Evaluation, Score
from adapt.evaluation.sheets import EMPTY, GAP, INK, LABEL, contact_sheet, write_sheet
from adapt.evaluation.tables import markdown_table, tabulate, text_table

NAME = 'x<b>&"y'


def score(key: str, mean: float, error: float = float("nan"), changes: Mapping[str, str] | None = None) -> Score:
    titles: dict[str, tuple[str, Better]] = {
        "psnr": ("PSNR", "higher"),
        "perceptual": ("net", "lower"),
        "kid": ("KID", "lower"),
    }
    title, better = titles.get(key, (key, "neither"))
    protocol = MetricProtocol(title=title, better=better, method="m", computed_by="net", n=2, files="f")
    return Score(mean, error, dataclasses.replace(protocol, **(changes or {})))


def evaluation(count: int = 2, **scores: Score) -> Evaluation:
    return Evaluation(scores=scores, rows=[{"id": str(index)} for index in range(count)])


# ---------------------------------------------------------------- tables


def test_the_best_goes_by_direction_and_by_what_is_printed():
    both = {
        "a": evaluation(psnr=score("psnr", 20.001), perceptual=score("perceptual", 0.3), low_frequency=score("low", 1)),
        "b": evaluation(psnr=score("psnr", 20.002), perceptual=score("perceptual", 0.2), low_frequency=score("low", 2)),
    }
    (_, a), (_, b) = tabulate(both).rows
    assert [cell.best for cell in a] == [True, False, False], "20.00 is as good as 20.00; a change is neither"
    assert [cell.best for cell in b] == [True, True, False]
    assert tabulate(both).headings == ["PSNR ↑", "net ↓", "low-freq. change"]


def test_kid_is_printed_with_its_interval_and_a_missing_number_as_a_dash():
    both = {"a": evaluation(kid=score("kid", 0.00123, 0.00045)), "b": evaluation(psnr=score("psnr", 20))}
    assert "1.230 ± 0.450" in text_table(both)
    assert markdown_table(both).splitlines()[2] == "| a | - | 1.230 ± 0.450 |"


def test_infinite_and_missing_numbers_do_not_hide_the_best():
    both = {"same": evaluation(psnr=score("psnr", float("inf"))), "nan": evaluation(psnr=score("psnr", float("nan")))}
    assert [row[0].value for _, row in tabulate(both).rows] == ["inf", "nan"]
    three = both | {"other": evaluation(psnr=score("psnr", 30.0))}
    assert [row[0].best for _, row in tabulate(three).rows] == [True, False, False]
    text = json.dumps(both["same"].as_json(), allow_nan=False)
    assert '"mean": "inf"' in text
    assert '"error": null' in text


def test_unequal_numbers_of_photos_are_said():
    both = {"a": evaluation(2, psnr=score("psnr", 20)), "b": evaluation(3, psnr=score("psnr", 21))}
    assert [name for name, _ in tabulate(both).rows] == ["a (n = 2)", "b (n = 3)"]


@pytest.mark.parametrize("field", ["title", "method", "computed_by", "weights", "resize"])
def test_numbers_obtained_in_different_ways_are_refused(field: str):
    both = {
        "a": evaluation(perceptual=score("perceptual", 1)),
        "b": evaluation(perceptual=score("perceptual", 1, changes={field: "another"})),
    }
    with pytest.raises(UsageError, match=rf"'a' and 'b' cannot stand in one table: {field} is .* and 'another'"):
        text_table(both)


# ---------------------------------------------------------------- sheets


def test_every_pixel_is_where_it_belongs(gen: torch.Generator):
    images = (torch.randint(0, 256, (2, 3, 3, 5, 7), generator=gen) / 255).float()
    drawn = contact_sheet("abc", [list(row) for row in images], row_names=["r", "s"], scale=3)
    sheet = np.asarray(drawn).astype(int)
    for r in range(2):
        for c in range(3):
            top, left = LABEL + GAP + r * (15 + GAP + LABEL), GAP + c * (21 + GAP)
            block = sheet[top : top + 15, left : left + 21].reshape(5, 3, 7, 3, 3)
            expected = (images[r, c] * 255).round().int().permute(1, 2, 0).numpy()
            assert (block == expected[:, None, :, None]).all()
    assert sheet.shape == (LABEL + 2 * (15 + GAP + LABEL) + GAP, GAP + 3 * (21 + GAP), 3)


def test_headings_and_names_are_drawn_and_missing_images_are_grey():
    white = torch.ones(3, 32, 64)
    sheet = np.asarray(contact_sheet(["photo", "target"], [[white, None]], row_names=["a name"]))
    corner = LABEL + GAP, GAP + 64 + GAP
    assert (sheet[corner[0] : corner[0] + 32, corner[1] : corner[1] + 64] == EMPTY).all()
    for part in (sheet[:LABEL, :64], sheet[:LABEL, 72:], sheet[LABEL + GAP + 32 :]):
        assert np.abs(part.astype(int) - INK).sum(axis=2).min() < 60, "ink"


def test_long_names_keep_their_end():
    white = torch.ones(3, 16, 128)
    short = contact_sheet(["a"], [[white]], row_names=["name" * 40 + "-1"])
    other = contact_sheet(["a"], [[white]], row_names=["name" * 40 + "-2"])
    assert short.size == other.size
    assert np.any(np.asarray(short) != np.asarray(other))


@pytest.mark.parametrize(
    ("rows", "names", "scale", "error", "message"),
    [
        ([], None, 1, UsageError, "rows of 1 images, got none"),
        ([[torch.zeros(3, 4, 4)]], ["a", "b"], 1, UsageError, "a name for each of 1 rows, got 2"),
        ([[torch.zeros(3, 4, 4)]], None, 0, UsageError, "scale of 1 or more, got 0"),
        ([[None]], None, 1, UsageError, "empty fields only"),
        ([[torch.zeros(3, 4, 4)], [torch.zeros(3, 4, 5)]], None, 1, ShapeError, "row 1, h: .* 4 x 4 .* got 5 x 4"),
        ([[torch.full((3, 4, 4), 255.0)]], None, 1, RangeError, "row 0, h: .* 8-bit"),
    ],
)
def test_sheets_refuse(
    rows: list[list[Tensor | None]], names: list[str] | None, scale: int, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        contact_sheet(["h"], rows, row_names=names, scale=scale)


def test_sheets_are_written_whole_and_by_suffix(tmp_path: Path):
    rows = [[torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))]]
    write_sheet(tmp_path / "a" / "sheet.png", ["h"], rows)
    write_sheet(tmp_path / "a" / "sheet.jpg", ["h"], rows)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["sheet.jpg", "sheet.png"]
    with Image.open(tmp_path / "a" / "sheet.png") as png, Image.open(tmp_path / "a" / "sheet.jpg") as jpeg:
        assert np.array_equal(np.asarray(png), np.asarray(contact_sheet(["h"], rows)))
        assert (png.format, jpeg.format, jpeg.size) == ("PNG", "JPEG", png.size)
    with pytest.raises(UsageError, match=r"sheet\.gif: a contact sheet is written as"):
        write_sheet(tmp_path / "sheet.gif", ["h"], rows)


# ---------------------------------------------------------------- curves


def test_a_curve_fills_its_field_and_tells_its_ends():
    log = [{"step": 10, "l1": 4.0}, {"step": 20, "l1": 2.0}, {"step": 50, "l1": 3.0}, {"step": 60, "psnr": 1.0}]
    (curve,) = loss_curves(log)
    points = [tuple(map(float, point.split(","))) for point in curve.points.split()]
    assert [x for x, _ in points] == [0, WIDTH / 4, WIDTH]
    assert points[0][1] < points[2][1] < points[1][1] < HEIGHT, "larger is higher"
    assert (curve.first, curve.last, curve.low, curve.high) == ("4", "3", "2", "4")
    assert (curve.begin, curve.end) == (10, 50)


def test_a_flat_curve_is_a_line_in_the_middle():
    (curve,) = loss_curves([{"step": step, "l1": 1.0} for step in range(3)])
    assert {point.split(",")[1] for point in curve.points.split()} == {f"{HEIGHT / 2:.1f}"}


def test_long_logs_are_averaged_over_stretches():
    """A saw of period 2 averages to its mean, whatever the number of stretches that divide the log evenly."""
    (curve,) = loss_curves([{"step": step, "l1": float(step % 2)} for step in range(40 * MOST_POINTS)])
    assert len(curve.points.split()) == MOST_POINTS
    assert (curve.low, curve.high) == ("0.5", "0.5")


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Tags with their attributes, checked for balance, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(side: int = 24, count: int = 8, **changes: object) -> Report:
    noise = torch.rand(count, 3, side, side + 8, generator=torch.Generator().manual_seed(0))
    numbers = {name: evaluate_images(noise * share, noise, distance=None) for name, share in (("a", 0.8), ("b", 0.9))}
    names = [f"{NAME}{index}" for index in range(count)]
    kinds = ["photo", "pre-trained", "target", "adapted"]
    images = [dict.fromkeys(kinds, image) for image in noise]
    plain = Report(
        title="T <i>",
        summary="What was done",
        verdict="Better & better",
        improved=True,
        evaluations=numbers,
        examples=[Example(name, shown) for name, shown in zip(names, images, strict=True)],
        log=[{"step": 0, "l1": 0.5}, {"step": 10, "l1": 0.25}],
        problems=[f"failed: {NAME}: cut short"],
        settings="steps: 1 # </pre><script>",
        versions={"torch": "2"},
        notes=["a note"],
    )
    return dataclasses.replace(plain, **changes)


def written(folder: Path, what: Report) -> tuple[str, Reader]:
    write_report(folder / "report.html", what)
    page = (folder / "report.html").read_text(encoding="utf-8")
    return page, Reader(page)


def test_the_page_asks_nothing_of_the_network(tmp_path: Path):
    page, reader = written(tmp_path, report())
    policy = next(meta["content"] for meta in reader.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    for _, attributes in reader.tags:
        assert not {"href", "srcset", "action", "poster", "onclick"} & attributes.keys()
        assert (attributes.get("src") or "data:image/webp;base64,").startswith("data:image/webp;base64,")
    for word in ("http:", "https:", "url(", "@import"):
        assert word not in page


def test_the_page_escapes_and_names_every_example(tmp_path: Path):
    page, reader = written(tmp_path, report())
    assert "<b>&" not in page
    assert len(reader.all("script")) == 1, "the settings' script is text"
    assert len(reader.all("i")) == 0
    for index in range(8):
        assert f"{NAME}{index}" in reader.text
    assert {f"photo {NAME}0", f"target of {NAME}7"} <= {image["alt"] for image in reader.all("img")}
    assert all(image["alt"] and image["width"] == "32" and image["height"] == "24" for image in reader.all("img"))
    assert f"failed: {NAME}: cut short" in reader.text
    assert "</pre><script>" in reader.text


def test_six_photos_get_a_slider_that_works_by_keyboard(tmp_path: Path):
    _, reader = written(tmp_path, report())
    sliders = reader.all("input")
    assert len(sliders) == 6
    assert all(s["type"] == "range" and f"{NAME}" in (s["aria-label"] or "") for s in sliders)


def test_the_page_has_the_numbers_with_their_protocols(tmp_path: Path):
    page, reader = written(tmp_path, report())
    score = report().evaluations["b"].scores["psnr"]
    assert f'<td class="best">{score.mean:.2f}<span class="error">± {score.error:.2f}</span></td>' in page
    assert "Gaussian window 11 x 11" in reader.text
    assert "8 photos, files " + score.protocol.files[:12] in reader.text


def test_the_page_stays_small(tmp_path: Path):
    """Twelve photos of 128 pixels: noise, which compresses worst, and a log of 20 000 steps."""
    log = [{"step": step, **dict.fromkeys("abcd", 1 / (step + 1))} for step in range(20_000)]
    written(tmp_path, report(side=128, count=12, log=log))
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_large_images_are_scaled_down(tmp_path: Path):
    large = torch.zeros(3, 300, 1024)
    example = Example("a", {"photo": large, "adapted": large})
    _, reader = written(tmp_path, report(examples=[example]))
    sizes = [(image["width"], image["height"]) for image in reader.all("img")]
    assert sizes == 2 * [("512", "150")] + 2 * [("256", "75")]


def test_a_page_without_anything_to_show_still_opens(tmp_path: Path):
    empty = report(evaluations={}, examples=[], log=[], problems=[], notes=[], improved=False)
    _, reader = written(tmp_path, empty)
    assert "every photo was read" in reader.text
    assert not reader.all("table")
    assert any("same" in (p.get("class") or "") for p in reader.all("p"))


def test_names_that_are_no_unicode_do_not_stop_the_page(tmp_path: Path):
    page, _ = written(tmp_path, report(problems=["failed: \udcff.png: cut short"]))
    assert "failed: ?.png" in page


def test_an_example_without_its_images_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match="report, a: expected images named photo and adapted, got no adapted"):
        write_report(tmp_path / "r.html", report(examples=[Example("a", {"photo": torch.zeros(3, 8, 8)})]))
    assert not (tmp_path / "r.html").exists()
