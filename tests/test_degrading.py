"""`adapt degrade`: what it writes, that an image's damage is its own, and that it resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import adapt
from raw_files import write_dng

from adapt.commands.degrade import degrade
from adapt.disk import read_json_lines
from adapt.errors import RecipeError, UsageError
from adapt.evaluation.metrics import psnr
from adapt.photos.files import read_image, read_photo, write_image
from adapt.settings import DegradeSettings
from adapt.settings.recipe import dump, load_recipe, recipe_digest
from degradations.camera.profiles import read_profile, write_profile
from degradations.chain import repeat


@pytest.fixture
def originals(tmp_path: Path, gen: torch.Generator) -> Path:
    folder = tmp_path / "hq"
    for name, size in (("a", (24, 32)), ("b", (32, 24)), ("deep/c é", (24, 24))):
        write_image(folder / f"{name}.png", torch.rand(3, *size, generator=gen))
    return folder


def lines(out: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in read_json_lines(out / "manifest.jsonl")}


def test_images_have_the_originals_names_and_sizes_and_the_manifest_repeats_them(
    originals: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lq"
    assert degrade(originals, out, recipe="old-photo").done == 3
    degradations = load_recipe("old-photo", DegradeSettings).degradations
    for id, line in lines(out).items():
        original, damaged = read_image(originals / f"{id}.png"), read_image(out / f"{id}.png")
        assert damaged.shape == original.shape
        again = repeat(original, degradations, line["degradations"])
        assert float((again - damaged).abs().max()) <= 0.5001 / 255  # of the file
    recipe = json.loads((out / "degraded.json").read_text(encoding="utf-8"))["recipe"]
    assert DegradeSettings.model_validate(recipe) == load_recipe("old-photo", DegradeSettings)


def test_a_images_damage_depends_on_no_other_image(originals: Path, tmp_path: Path) -> None:
    degrade(originals, tmp_path / "all", recipe="web")
    (originals / "a.png").unlink()
    degrade(originals, tmp_path / "fewer", recipe="web")
    for id, line in lines(tmp_path / "fewer").items():
        assert line == lines(tmp_path / "all")[id]
    assert len({line["seed"] for line in lines(tmp_path / "all").values()}) == 3
    # But for a file of the same stem: then the id, from which the seed is, has to tell the two apart.
    write_image(originals / "b.jpg", torch.zeros(3, 24, 24))
    degrade(originals, tmp_path / "beside", recipe="web")
    assert set(lines(tmp_path / "beside")) == {"b_jpg", "b_png", "deep/c é"}
    assert lines(tmp_path / "beside")["b_png"]["seed"] != lines(tmp_path / "all")["b"]["seed"]


def test_the_seed_decides(originals: Path, tmp_path: Path) -> None:
    for name, overrides in (("x", []), ("y", ["seed=1"])):
        degrade(originals, tmp_path / name, recipe="dynface", overrides=overrides)
    for id in lines(tmp_path / "x"):
        assert lines(tmp_path / "x")[id]["degradations"] != lines(tmp_path / "y")[id]["degradations"]


def test_it_goes_on_where_it_stopped(originals: Path, tmp_path: Path) -> None:
    out = tmp_path / "lq"
    assert degrade(originals, out, recipe="web", limit=2).done == 2
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    result = degrade(originals, out, recipe="web")
    assert (result.done, result.skipped) == (1, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # What was changed, on either side, is made again; and comes out as it was where the original is the same.
    made = (out / "b.png").read_bytes()
    (out / "b.png").write_bytes(b"")
    write_image(originals / "a.png", torch.zeros(3, 24, 32), overwrite=True)
    assert degrade(originals, out, recipe="web").done == 2
    assert (out / "b.png").read_bytes() == made


def test_other_folders_are_refused(originals: Path, tmp_path: Path) -> None:
    out = tmp_path / "lq"
    degrade(originals, out, recipe="web")
    with pytest.raises(UsageError, match=r"lq: holds .* another recipe, .* profile \(seed: 0 there, 3 now\); "):
        degrade(originals, out, recipe="web", overrides=["seed=3"])
    assert degrade(originals, out, recipe="web", overrides=["seed=3"], overwrite=True).done == 3
    with pytest.raises(UsageError, match="holds other files"):
        degrade(originals / "a.png", originals / "deep", recipe="web", overwrite=True)
    assert (originals / "deep" / "c é.png").is_file()
    with pytest.raises(RecipeError, match="no degradations recipe 'old-foto'; did you mean 'old-photo'"):
        degrade(originals, tmp_path / "z", recipe="old-foto")


def brighten(profile: Path, factor: float) -> None:
    known = read_profile(profile)
    write_profile(profile, known.model_copy(update={"white": known.white * factor}))


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A recipe whose camera is measured in a file beside it."""
    recipe = tmp_path / "mine" / "slides.yaml"
    recipe.parent.mkdir()
    write_profile(recipe.parent / "cam.json", read_profile("generic-phone"))
    recipe.write_text(
        "kind: degrade\ndegradations:\n  - {name: camera, profile: cam.json, iso: [400, 800], scale: 1}\n",
        encoding="utf-8",
    )
    return recipe


def test_a_changed_profile_is_refused_like_a_changed_recipe(
    originals: Path, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, profile = tmp_path / "lq", slides.with_name("cam.json")
    degrade(originals, out, recipe=slides, limit=1)
    text = profile.read_text(encoding="utf-8")
    profile.write_text(text.replace('"description": "', '"description": "My own. '), encoding="utf-8")
    assert profile.read_text(encoding="utf-8") != text
    monkeypatch.chdir(slides.parent)
    assert degrade(originals, out, recipe="slides.yaml").done == 2, "words decide nothing, nor where one stands"
    elsewhere = tmp_path / "elsewhere"
    slides.parent.rename(elsewhere)
    assert degrade(originals, out, recipe=elsewhere / "slides.yaml").skipped == 3, "nor does the path"
    brighten(elsewhere / "cam.json", 1.5)
    with pytest.raises(UsageError, match="lq: holds images of another recipe, seed or camera profile"):
        degrade(originals, out, recipe=elsewhere / "slides.yaml")
    assert degrade(originals, out, recipe=elsewhere / "slides.yaml", overwrite=True).done == 3

    with pytest.raises(UsageError, match=r"another recipe, .* \(degradations\.0\.scale: 1 there, 2 now\); choose"):
        degrade(originals, out, recipe=elsewhere / "slides.yaml", overrides=["degradations.0.scale=2"])
    brighten(elsewhere / "cam.json", 2)
    with pytest.raises(UsageError, match=r"\(the recipe is the same, a profile that it names is not\)"):
        degrade(originals, out, recipe=elsewhere / "slides.yaml")


@pytest.mark.parametrize("around", [
    "CAMERA", "{name: resample, factor: [1, 2], degradations: [CAMERA]}", "{name: mixed, first: [CAMERA], second: []}",
    "{name: mixed, first: [], second: [{name: resample, factor: [1, 2], degradations: [CAMERA]}]}",
])
def test_the_profile_counts_wherever_the_camera_stands(around: str, slides: Path) -> None:
    degradation = around.replace("CAMERA", "{name: camera, profile: cam.json, iso: [400, 800]}")
    slides.write_text(f"kind: degrade\ndegradations:\n  - {degradation}\n", encoding="utf-8")
    before = recipe_digest(load_recipe(slides, DegradeSettings))
    brighten(slides.with_name("cam.json"), 1.5)
    assert recipe_digest(load_recipe(slides, DegradeSettings)) != before


def test_a_profile_is_looked_up_beside_the_recipe_then_from_here(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*overrides: str) -> str:
        return load_recipe(slides, DegradeSettings, overrides).degradations[0].model_dump()["profile"]

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("cam.json", "other.json"):
        write_profile(name, read_profile("generic-phone"))
    assert found() == str(slides.with_name("cam.json").resolve()), "beside the recipe, though one is here"
    assert found("degradations.0.profile=other.json") == str((here / "other.json").resolve())
    assert found("degradations.0.profile=generic-phone") == "generic-phone"
    assert found("degradations.0.profile=cam.json") == str((here / "cam.json").resolve()), "typed here"
    (here / "cam.json").unlink()
    assert found("degradations.0.profile=cam.json") == str(slides.with_name("cam.json").resolve()), "none is here"
    with pytest.raises(RecipeError, match=r"gone\.json: there is no such profile file in the working .*, nor .*mine$"):
        found("degradations.0.profile=gone.json")
    (here / "resolved.yaml").write_text(dump(load_recipe(slides, DegradeSettings)), encoding="utf-8")
    assert load_recipe(here / "resolved.yaml", DegradeSettings) == load_recipe(slides, DegradeSettings)


def test_half_size_of_raw_files_alone_and_for_a_whole_folder(
    originals: Path, small_pack: Path, tmp_path: Path, gen: torch.Generator, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mosaic = torch.randint(100, 900, (64, 96), generator=gen).numpy().astype(np.uint16)
    write_dng(originals / "raw.dng", mosaic)

    def command(name: str, *flags: str) -> int:
        return adapt(monkeypatch, "degrade", originals, "-o", tmp_path / name, "--recipe", "web", *flags)

    for name, flags, size in (("full", [], [64, 96]), ("half", ["--half-raw"], [32, 48])):
        assert command(name, *flags) == 0
        made = lines(tmp_path / name)
        assert made["raw"]["size"] == size == list(read_image(tmp_path / name / "raw.png").shape[1:])
        assert made["a"]["size"] == [24, 32], "no other image is halved"
        assert command(name, *flags) == 0
        assert "0 degraded, 4 already there" in capsys.readouterr().out
    assert command("full", "--half-raw") == 2
    assert "full: was begun with RAW files at full size; leave out --half-raw" in capsys.readouterr().err
    assert command("half") == 2
    assert "half: was begun with RAW files at half size; give --half-raw" in capsys.readouterr().err

    # The originals are the truth to compare with, read alike.
    truth = ("--truth", originals, "--pack", small_pack)
    capsys.readouterr()
    assert adapt(monkeypatch, "evaluate", tmp_path / "half" / "raw.png", *truth) == 2
    assert "raw.dng: expected 48 x 32 pixels as" in capsys.readouterr().err
    assert adapt(monkeypatch, "evaluate", tmp_path / "half" / "raw.png", *truth, "--half-raw", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    half = read_photo(originals / "raw.dng", at_least=1).image
    expected = float(psnr(read_image(tmp_path / "half" / "raw.png")[None], half[None]))
    assert row["psnr"] == pytest.approx(expected, abs=1e-4)
    photos = ("--photos", originals, "--pack", small_pack, "--half-raw")
    assert adapt(monkeypatch, "evaluate", tmp_path / "half" / "raw.png", *photos) == 2
    assert "--half-raw: is how RAW files of the truth are read, and none is given" in capsys.readouterr().err


def test_the_command_names_what_it_cannot_read_and_goes_on(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (originals / "b.png").write_bytes((originals / "b.png").read_bytes()[:70])
    write_image(originals / "odd.png", torch.rand(3, 23, 24))
    arguments = ["degrade", originals, "-o", tmp_path / "lq", "--recipe", "camera-noise-severe", "--seed", 4]
    assert adapt(monkeypatch, *arguments, "degradations.0.gain=0.02") == 3
    printed = capsys.readouterr()
    assert "2 degraded, 0 already there, 2 failed" in printed.out
    assert "b.png: " in printed.err
    assert "odd.png: resize_area: expected a factor that divides both sides, got 2" in printed.err
    assert set(lines(tmp_path / "lq")) == {"a", "deep/c é"}
    about = json.loads((tmp_path / "lq" / "degraded.json").read_text(encoding="utf-8"))["recipe"]
    assert (about["seed"], about["degradations"][0]["gain"]) == (4, 0.02)


def test_mistakes_in_a_recipe_are_named_with_their_line(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "kind: degrade\ndegradations:\n"
        "  - {name: jpg, quality: [30, 60]}\n"
        "  - {name: jpeg, quality: [60, 30]}\n"
        "  - {name: defocus, radius: [1, 2], radus: 3}\n"
        "  - name: mixed\n"
        "    first: [{name: resample, factor: [0.5, 2], degradations: [{name: webp, quality: [0, 5]}]}]\n"
        "    second: [{name: mixed, first: [], second: []}]\n"
        "  - {name: camera, iso: [100, 200], profile: generic-fone}\n"
        "  - {quality: [60, 70]}\n",
        encoding="utf-8",
    )
    assert adapt(monkeypatch, "degrade", originals, "-o", tmp_path / "lq", "--recipe", recipe) == 2
    errors = capsys.readouterr().err.splitlines()
    assert not (tmp_path / "lq").exists()
    expected = [
        ("mine.yaml:3:6: degradations.0.name: ", "did you mean 'jpeg'"),
        ("mine.yaml:4:18: degradations.1.quality: ", "expected a range from low to high, got [60, 30]"),
        ("mine.yaml:5:37: degradations.2.radus: ", "did you mean 'radius'"),
        ("mine.yaml:7:39: degradations.3.first.0.factor.0: ", "should be greater than or equal to 1 (got 0.5)"),
        ("mine.yaml:7:86: degradations.3.first.0.degradations.0.quality.0: ", "greater than or equal to 1 (got 0)"),
        ("mine.yaml:8:15: degradations.3.second.0.name: ", "(got 'mixed')"),
        ("mine.yaml:9:37: degradations.4.profile: ", "generic-fone"),
        ("mine.yaml:10:5: degradations.5.name: needed: ", "(got a mapping)"),
    ]
    assert len(errors) == len(expected), errors
    for line, (start, end) in zip(errors, expected, strict=True):
        assert start in line
        assert end in line
