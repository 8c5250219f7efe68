"""`adapt run` as a user meets it: the whole way, its folder, and what is refused before any work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from command_line import QUICK_FINETUNE, QUICK_TARGETS, adapt, export_adapted

from adapt.commands.run import split_overrides
from adapt.digests import file_digest
from adapt.disk import write_json, write_text
from adapt.errors import UsageError, VerificationError
from adapt.exporting import bundle
from adapt.loading import weights_digest
from adapt.photos.files import read_image, write_image


def test_run_end_to_end(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    arguments = [
        "run", small_photos, "-o", out, "--pack", small_pack, "--method", "low-frequency",
        "--truth", small_photos, "--device", "cpu",
        *[f"targets.{each}" for each in QUICK_TARGETS], *[f"finetune.{each}" for each in QUICK_FINETUNE],
    ]

    def differ(*_: object, **__: object) -> None:
        raise VerificationError("model.onnx: differs from the network. Nothing was exported")

    with monkeypatch.context() as broken:
        broken.setattr(bundle, "verify", differ)
        assert adapt(broken, *arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("adapt: model.onnx: differs from the network. Nothing was exported; the adapted weights")
    assert error.endswith(f"are in {out / 'finetune' / 'best.safetensors'}")
    assert (out / "report.html").is_file(), "what was measured is not lost"
    assert not [path for path in out.rglob("*") if "onnx" in path.name or "bundle" in path.name]

    assert adapt(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "pre-trained" in printed
    (verdict,) = (line for line in printed.splitlines() if "Against the originals of 6 photos" in line)
    assert verdict.count("95 % interval") >= 3
    assert "PSNR " in verdict.partition("Against the originals of 6 photos")[2]
    assert (out / "model.onnx").read_bytes() == (out / "bundle" / "model.onnx").read_bytes()
    assert [path.name for path in out.glob(".*")] == [".written.jsonl"]
    assert str(out / "report.html") in printed
    for name in ("model.onnx", "report.html", "sheet.jpg", "evaluation.json", "bundle/bundle.json",
                 "finetune/best.safetensors", "restored/deep/d é 测.png", "targets/images/a.png"):
        assert (out / name).is_file(), name
    before = {path: path.stat().st_mtime_ns for path in (out / "targets").rglob("*.png")}
    model = (out / "model.onnx").stat().st_mtime_ns
    assert adapt(monkeypatch, *arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is made twice"
    assert model == (out / "model.onnx").stat().st_mtime_ns
    for name in ("model.onnx", "bundle/model.onnx"):  # made anew where it was moved away
        (out / name).rename(tmp_path / "moved.onnx")
        assert adapt(monkeypatch, *arguments) == 0
        assert (out / "bundle" / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()
        assert (out / name).read_bytes() == (tmp_path / "moved.onnx").read_bytes()

    # Bundle, run and pack all restore; the bundle as the run does.
    for model, name in ((out / "bundle", "x"), (out / "finetune", "y"), (small_pack, "z")):
        assert adapt(monkeypatch, "restore", model, small_photos, "-o", tmp_path / name, "--device", "cpu") == 0
    a, b = (read_image(tmp_path / name / "a.png") for name in ("x", "y"))
    assert float((a - b).abs().max()) <= 1.01 / 255
    assert adapt(monkeypatch, "evaluate", tmp_path / "x", "--truth", small_photos, "--pack", small_pack, "--json") == 0
    scores = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))["scores"]
    assert {"psnr", "ssim", "perceptual"} <= set(scores)

    # --overwrite removes what the run made, all of it and nothing else; it is asked for before any work.
    notes, mine = out / "restored" / "deep" / "notes.txt", {out / "novel.txt", out / "finetune" / ".DS_Store"}
    for file in (notes, *mine):
        file.write_text("mine")
    assert adapt(monkeypatch, *arguments, "--overwrite") == 2
    assert f"its folders hold other files (1), first: {notes}; move them" in capsys.readouterr().err
    notes.unlink()
    with monkeypatch.context() as stopped:
        stopped.setattr("adapt.commands.run.generate_targets", Mock(side_effect=UsageError("enough")))
        assert adapt(stopped, *arguments, "--overwrite", "--restorer", out / "finetune") == 2
        assert "--restorer " in capsys.readouterr().err
        assert (out / "finetune" / "best.safetensors").is_file()
        assert adapt(stopped, *arguments, "--overwrite") == 2
    assert {path for path in out.rglob("*") if path.is_file()} == {*mine, out / "adapted.json"}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_run_leaves_what_others_put_into_its_folder(
    overwrite: list[str], small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Also where a folder looks like a result's, by its targets."""
    project, foo = tmp_path / "project", tmp_path / "foo"
    (foo / "targets").mkdir(parents=True)
    for file in (foo / "report.html", foo / "evaluation.json", foo / "mine.txt", foo / "targets" / "store.json"):
        file.write_text("mine")
    shutil.copytree(small_photos, project / "photos")
    (project / "adapted.json").write_text("{}")
    (project / "novel.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(project)
    quick = ["--pack", small_pack, "--method", "low-frequency", *overwrite]
    inside = project / "photos"
    for arguments, message in (
        (["photos", "-o", "."], ".: holds the photos (photos); choose an output folder elsewhere"),
        ([inside, "-o", project], f"{project}: holds the photos ({inside}); choose"),
        ([small_photos, "-o", ".", "--truth", "photos"], ".: holds --truth (photos); choose"),
        ([small_photos, "-o", "photos", "--real", "photos"], "photos: lies inside --real (photos); choose"),
        ([small_photos, "-o", ".", "--replay", "photos"], ".: holds --replay (photos); choose"),
        ([small_photos, "-o", foo], f"{foo}: expected a new folder or a result of adapt run; it holds other files ("),
    ):
        assert adapt(monkeypatch, "run", *arguments, *quick) == 2
        assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_run_is_of_the_photos_that_are_there_now(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """One removed, then fewer by --limit, then more, one of them no image: targets stay, the rest is made anew."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(small_photos, photos)
    monkeypatch.setattr("adapt.commands.run.export_choice", lambda out, *_, **__: out / "model.onnx")
    arguments = [
        "run", photos, "-o", out, "--pack", small_pack, "--method", "low-frequency", "--device", "cpu",
        *[f"targets.{each}" for each in QUICK_TARGETS], *[f"finetune.{each}" for each in QUICK_FINETUNE],
    ]

    def ended(*more: object, code: int = 0) -> tuple[str, str, set[int]]:
        """What was printed, the page, and of how many photos each row is."""
        assert adapt(monkeypatch, *arguments, *more) == code
        rows = json.loads((out / "evaluation.json").read_text())
        counts = {len(row["rows"]) for row in rows.values()}
        return capsys.readouterr().out, (out / "report.html").read_text(), counts

    anew = "The photos or their targets are not those of before: the fine-tuning was made anew."
    printed, page, counts = ended()
    assert counts == {6}
    assert anew not in printed
    before = {path: path.stat().st_mtime_ns for path in (out / "targets").rglob("*.png")}

    (photos / "b.png").unlink()
    printed, page, counts = ended()
    assert counts == {5}
    for text in (printed, page):
        assert anew in text
        assert "1 photo that has a target is not there any more, and left out; first: b." in text
    assert ">b<" not in page

    printed, page, counts = ended("--limit", 3)
    assert counts == {3}
    assert "fine-tuned on 2 pairs; 1 was held back" in page
    assert "best" in printed
    assert "rests on 1 validation photo alone: take it as a hint." in printed
    assert (out / "finetune" / "log.jsonl").is_file()

    (photos / "z.png").write_text("no image")
    printed, page, counts = ended(code=3)
    assert counts == {5}
    problems = [line for line in page.splitlines() if "z.png" in line]
    assert len(problems) == 1, problems
    assert before == {path: path.stat().st_mtime_ns for path in before}, "no target is made twice"

    assert adapt(monkeypatch, *arguments, "finetune.seed=5") == 2
    assert "--overwrite to start anew" in capsys.readouterr().err


def test_one_photo_is_refused_before_any_work(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    Path("copies").mkdir()
    for name in ("a", "b"):
        shutil.copy(small_photos / "a.png", f"copies/{name}.png")
    Path("copies/gone.png").symlink_to("nowhere.png")
    for photos, options, found in (
        ("copies", [], "there are 1 in 3 files"),
        (small_photos, ["--limit", 1], "there are 1 in 1 file with --limit 1"),
        (small_photos / "a.png", [], "there are 1 in 1 file"),
    ):
        assert adapt(monkeypatch, "run", photos, "-o", "out", "--pack", small_pack, *options) == 2
        error = capsys.readouterr().err
        assert f"{photos}: fine-tuning needs at least 2 different photos, {found}\n" in error
    assert not Path("out").exists()


def test_run_fine_tunes_on_the_device_that_is_named(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: list[object] = []

    def tune(*_: object, device: str, **__: object) -> None:
        given.append(device)
        raise UsageError("that is enough")

    monkeypatch.setattr("adapt.commands.run.finetune", tune)
    arguments = [small_photos, "-o", tmp_path / "out", "--pack", small_pack, "--method", "low-frequency", "--limit", 2]
    assert adapt(monkeypatch, "run", *arguments, "--device", "cpu", *[f"targets.{each}" for each in QUICK_TARGETS]) == 2
    assert given == ["cpu"]


def test_what_a_later_step_of_run_lacks_is_said_before_any_work(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """And before --overwrite has removed what an earlier run left."""
    out, truth, pack = tmp_path / "out", tmp_path / "truth", tmp_path / "pack"
    (out / "targets").mkdir(parents=True)
    (out / "targets" / "store.json").write_text("{}")
    shutil.copytree(small_photos, truth)
    (truth / "b.png").unlink()
    shutil.copytree(small_pack, pack)
    card = (pack / "pack.yaml").read_text()
    (pack / "pack.yaml").write_text(card.replace("  perceptual:", "  perceptible:"))
    monkeypatch.setattr("adapt.perceptual.distance.find_lpips", lambda: None)
    command = ["run", small_photos, "-o", out, "--overwrite", "--pack"]
    for options, code, message in (
        ([small_pack, "--truth", truth], 2, f"--truth {truth}: has no image named like 1 of 6 photos, first: b; nam"),
        ([small_pack, "--replay", truth, "finetune.replay.degradation=blid"], 2, "no degradations recipe 'blid'"),
        ([pack], 4, "no 'perceptual'"),
    ):
        assert adapt(monkeypatch, *command, *options) == code
        assert message in capsys.readouterr().err
        assert [path.name for path in out.rglob("*")] == ["targets", "store.json"]


def test_run_keeps_what_somebody_changed(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A target corrected by hand is trained on; of images that are results, and of pages, the rest goes on; and
    originals that nobody asked for are not copied."""
    photos, truth, out = tmp_path / "photos", tmp_path / "truth", tmp_path / "out"
    shutil.copytree(small_photos, photos)
    (photos / os.fsdecode(b"c\xe4.png")).write_bytes((small_photos / "e.png").read_bytes())
    shutil.copytree(photos, truth)
    write_image(truth / "another.png", read_image(small_photos / "a.png"))
    arguments = [
        "run", photos, "-o", out, "--pack", small_pack, "--method", "low-frequency", "--truth", truth, "--limit", 4,
        "--device", "cpu",
        *[f"targets.{each}" for each in QUICK_TARGETS], *[f"finetune.{each}" for each in QUICK_FINETUNE],
    ]

    def export(model: str, out: Path, **_: object) -> None:
        for name in ("model.onnx", "README.md"):
            write_text(out / name, weights_digest(model))
        digests = {"README.md": file_digest(out / "README.md")}
        write_json(out / "bundle.json", {"source": {"weights sha256": weights_digest(model)}, "sha256": digests})

    monkeypatch.setattr("adapt.commands.run_bundle.export", export)
    export_adapted(monkeypatch)
    assert adapt(monkeypatch, *arguments) == 0
    assert sorted(path.name for path in (out / "truth").rglob("*.png")) == ["a.png", "b.png", "c.png", "c\ufffd.png"]
    changed = {
        name: out / name for name in ("targets/images/b.png", "restored/a.png", "report.html", "bundle/README.md")
    }
    for path in changed.values():
        if path.suffix == ".png":
            write_image(path, 1 - read_image(path), overwrite=True)
        else:
            path.write_text("mine")
    before = {path: path.read_bytes() for path in changed.values()}
    capsys.readouterr()
    assert adapt(monkeypatch, *arguments) == 3
    said = capsys.readouterr()
    assert {path: path.read_bytes() for path in before} == before
    corrected = f"1 target was changed after being made, and used as now; first: {changed['targets/images/b.png']}."
    assert corrected in said.out
    assert "The photos or their targets are not those of before: the fine-tuning was made anew." in said.out
    for name in ("restored/a.png", "report.html", "bundle/README.md"):
        assert f"{changed[name]}: was changed after it was made" in said.err, name
    rows = json.loads((out / "evaluation.json").read_text())
    assert [row["id"] for row in rows["adapted"]["rows"]] == ["b", "c\ufffd", "deep/c"]
    changed["report.html"].unlink()
    assert adapt(monkeypatch, *arguments) == 3
    page = changed["report.html"].read_text()
    assert corrected.replace("'", "&#x27;") in page
    assert "restored/a.png: was changed after" in page
    for name in ("restored/a.png", "bundle/README.md"):
        changed[name].unlink()
    assert adapt(monkeypatch, *arguments) == 0, "a corrected target alone is no fault"


def test_overrides_of_run():
    split = split_overrides(["targets.steps=5", "finetune.discriminator.features=4", "verdict.photos=9"])
    assert split == {"targets": ["steps=5"], "finetune": ["discriminator.features=4"], "verdict": ["photos=9"]}
    with pytest.raises(ValueError, match=r"steps=5: expected targets\.KEY=VALUE, finetune\.KEY=VALUE or verdict\.KEY="):
        split_overrides(["steps=5"])
