"""What the benchmarks compare rests on: nested subsets of one store, rows that the recipes know, people kept apart."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import ROOT
from PIL import Image

from adapt.errors import UsageError
from adapt.photos.files import write_image
from adapt.photos.folder import find_photos
from adapt.settings import CodeFinetuneSettings, FinetuneSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.store import Record, TargetStore, accepted_targets, image_name


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("codes")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Eight photos with two targets each; of one photo both are rejected, of another one failed."""
    folder = tmp_path / "targets" / "full"
    opened = TargetStore(folder, {"recipe": "any"})
    for index, letter in enumerate("abcdefgh"):
        for draw in range(2):
            id, failed = f"people/{letter}", letter == "g" and draw == 1
            target = None if failed else image_name(id, draw)
            if target:
                write_image(folder / target, torch.full((3, 4, 4), (2 * index + draw) / 255))
            status = "failed" if failed else "rejected" if letter == "c" else "done"
            opened.add(Record(id=id, draw=draw, photo=letter, photo_sha256="", status=status, target=target))
    return folder


def test_subsets_of_a_store_are_nested_and_lose_no_target(codes: ModuleType, store: Path):
    full = accepted_targets(store)
    smaller: set[str] = set()
    for count in (2, 5, 7):
        part = codes.subset(store, count)
        chosen = accepted_targets(part)
        assert len(chosen) == count, "photos without an accepted target are not counted"
        assert smaller < set(chosen)
        smaller = set(chosen)
        for id, paths in chosen.items():
            assert [path.resolve() for path in paths] == [path.resolve() for path in full[id]]
        assert chosen == accepted_targets(codes.subset(store, count)), "made again, it is the same"
        assert json.loads((part / "store.json").read_text())["identity"] == {"recipe": "any"}


def test_the_targets_that_are_scored_were_accepted(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each photo's first accepted target: of `c` none, and of `a` the second, where the first was rejected."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    domain = importlib.import_module("domain")
    name = image_name("people/a", 0)
    rejected = Record(id="people/a", draw=0, photo="a", photo_sha256="", status="rejected", target=name)
    TargetStore(store, {"recipe": "any"}).add(rejected)
    given: list[dict[str, Path]] = []
    monkeypatch.setattr(domain, "load_distance", lambda _: None)
    monkeypatch.setattr(domain, "evaluate_folder", lambda images, **_: given.append(images))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "targets").symlink_to(store)
    monkeypatch.setattr(domain, "find_photos", lambda _: [])
    domain.evaluate_targets([tmp_path], {"work": "work"}, None)
    (images,) = given
    draws = {id.removeprefix("people/"): path.parent.parent.name for id, path in images.items()}
    assert draws == {"a": "images-2", **dict.fromkeys("bdefgh", "images")}


def test_a_turned_domain_adapts_on_what_the_other_tests_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    domain = importlib.import_module("domain")
    for index in range(12):
        write_image(tmp_path / "faces" / f"{index}.png", torch.full((3, 16, 16), index / 12))
    faces = find_photos(tmp_path / "faces")
    names: list[dict[str, set[str]]] = []
    for turned in (False, True):
        out = tmp_path / f"{turned}"
        domain.make_domain(faces, out, "web", 16, turned=turned)
        names.append({part: {photo.id for photo in find_photos(out / part / "lq")} for part in ("adapt", "test")})
    assert names[0]["adapt"] == names[1]["test"]
    assert names[0]["test"] == names[1]["adapt"]
    every = {photo.id for photo in faces}
    assert all(parts["adapt"] | parts["test"] == every and parts["adapt"] and parts["test"] for parts in names)


@pytest.mark.parametrize("pack", ["tiny", None])
def test_the_rows_of_table_5_are_set_ups_that_the_recipe_knows(codes: ModuleType, pack: str | None):
    own = load_recipe("codeformer", CodeFinetuneSettings, pack=pack)
    images = load_recipe("swinir", FinetuneSettings, pack=pack)
    rows = {
        name: load_recipe("codeformer", CodeFinetuneSettings, changes, pack=pack)
        for name, changes in codes.what_learns(own, images).items()
    }
    assert [settings.trains for settings in rows.values()] == [
        ["encoder"],
        ["encoder", "transformer"],
        ["encoder", "transformer", "fusion"],
        ["encoder", "transformer"],
    ]
    assert [settings.teacher for settings in rows.values()] == ["codebook"] * 3 + ["restorer"]
    _, frozen, fused, _ = rows.values()
    assert own == (fused if "fusion" in own.trains else frozen), "one row is the recipe as it is"
    assert (frozen.l1, frozen.perceptual, frozen.adversarial) == (0, 0, 0)
    taken = own if "fusion" in own.trains else images
    assert (fused.l1, fused.perceptual, fused.adversarial) == (taken.l1, taken.perceptual, taken.adversarial)
    assert fused.discriminator == taken.discriminator


def test_nobody_is_adapted_on_and_tested_on(codes: ModuleType, tmp_path: Path):
    for folder, value in (("faces/ours", 0.2), ("others/one", 0.4), ("others/again", 0.2)):
        write_image(tmp_path / f"{folder}.png", torch.full((3, 8, 8), value))
    arguments = argparse.Namespace(
        faces=tmp_path / "faces", adapt_on=tmp_path / "others", limit=None, pack="tiny", out=tmp_path / "out",
        degradation="dtbfr-4x-severe", method="low-frequency", overrides=[],
    )
    with pytest.raises(UsageError, match=r"others: 1 faces are among .*faces too, first: again"):
        codes.open_bench(arguments)
    assert not (tmp_path / "out").exists()


def test_a_curve_that_rises_is_drawn_rising_in_its_own_colour(codes: ModuleType):
    panels = importlib.import_module("panels")
    curves = {"up": [(0.0, 1.0), (1.0, 3.0), (2.0, 9.0)], "down": [(2.0, 2.0), (0.0, 5.0)]}
    panel = panels.draw_panel("title", curves, across="x", up="y")
    left, top, right, bottom = panels.MARGINS
    inside = panel.crop((left, top, panels.PANEL[0] - right, panels.PANEL[1] - bottom))
    ends = {
        name: [_height(inside, colour, x) for x in (0, inside.width - 1)]
        for name, colour in zip(curves, ("R", "B"), strict=True)
    }
    assert ends["up"][0] > ends["up"][1], "an image's rows count downwards"
    assert ends["down"][0] < ends["down"][1]
    assert ends["up"][1] < ends["down"][0] < ends["down"][1] < ends["up"][0], "the values are 9, 5, 2 and 1"


def _height(image: Image.Image, colour: str, column: int) -> float:
    """The mean row of a colour in one column of an image."""
    from adapt.commands.noise_plot import COLOURS

    rows = [y for y in range(image.height) if image.getpixel((column, y)) == COLOURS[colour]]
    assert rows, f"no {colour} in column {column}"
    return sum(rows) / len(rows)


def test_target_strength_counts_what_is_no_farther(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As many photos of every set; a photo counts for all only where no number is worse."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    strength = importlib.import_module("target_strength")
    for name in ("one/a", "one/b", "one/c", "two/a", "three/a", "three/b"):
        write_image(tmp_path / f"{name}.png", torch.zeros(3, 4, 4))
    assert [photo.id for photo in strength.over_sets(tmp_path, 5)] == ["one/a", "three/a", "two/a", "one/b", "three/b"]

    def evaluation(*rows: tuple[float, float, float]) -> SimpleNamespace:
        keys = ("psnr", "perceptual", "identity")
        return SimpleNamespace(rows=[
            {"id": str(place), "sharpness": 1.0, **dict(zip(keys, row, strict=True))} for place, row in enumerate(rows)
        ])

    base = evaluation((20, 0.1, 0.3), (20, 0.1, 0.3), (20, 0.1, 0.3))
    other = evaluation((21, 0.1, 0.3), (19, 0.05, 0.2), (21, 0.2, 0.4))
    each, together = strength.shares(base, other)
    assert each == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert together == pytest.approx(1 / 3)
