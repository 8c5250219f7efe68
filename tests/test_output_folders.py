"""What every command that writes a folder leaves alone: files of others, and files of its own that somebody changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import QUICK_FINETUNE, QUICK_TARGETS, adapt

from adapt.journal import Journal, KeptError, journal_names
from adapt.photos.files import write_image
from adapt.targets.store import read_records

Command = Callable[..., int]
WAYS = ("restore", "generate-targets", "degrade")
CLAIMS = {"restore": "restored.json", "generate-targets": "store.json", "degrade": "degraded.json"}
LINES = {"restore": "log.jsonl", "generate-targets": "manifest.jsonl", "degrade": "manifest.jsonl"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, a.png and b.png."""
    for seed, name in enumerate("ab"):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))
        write_image(tmp_path / "photos" / f"{name}.png", image)
    return tmp_path / "photos"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def command(way: str, photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`adapt` in one of the ways, of the photos to tmp_path/out, with more arguments; its exit code."""
    arguments = {
        "restore": ["restore", small_pack, photos, "--device", "cpu"],
        "generate-targets": [
            "generate-targets", photos, "--pack", small_pack, "--method", "low-frequency", "--device", "cpu",
            *QUICK_TARGETS,
        ],
        "degrade": ["degrade", photos, "--recipe", "web"],
    }[way]
    return lambda *more: adapt(monkeypatch, *arguments, "-o", tmp_path / "out", *more)


def image(way: str, out: Path, name: str) -> Path:
    """Where a way puts the image of a photo."""
    return (out / "images" if way == "generate-targets" else out) / f"{name}.png"


def test_overwrite_removes_what_was_written_alone(way: str, command: Command, photos: Path, tmp_path: Path):
    """Names that are like ours, links to elsewhere, and what lies behind them stay."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    assert command() == 0
    made = image(way, out, "b")
    foreign = [
        "images-mine/holiday.png", "images-0/a.png", "images-2/a.png", "mapsofeurope/rome.jpg", "maps/rome.jpg",
        "images/deep/mine.png", "manifest-notes.jsonl", ".mine.png.731.part", ".written-mine.jsonl", "mine.png",
    ]
    for name in foreign:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    elsewhere.mkdir()
    shutil.move(image(way, out, "a"), elsewhere / "a.png")
    (elsewhere / "family.png").write_text("mine")
    (out / "images-old").symlink_to(elsewhere)
    (photos / "b.png").unlink()
    assert command("--overwrite") == 0
    assert not made.exists()
    assert image(way, out, "a").is_file()
    assert all((out / name).read_text() == "mine" for name in foreign)
    assert {path.name for path in elsewhere.iterdir()} == {"a.png", "family.png"}


def test_what_lies_behind_a_link_stays_with_overwrite_too(
    way: str, command: Command, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (photos / "deep").mkdir()
    shutil.copy(photos / "a.png", photos / "deep" / "c.png")
    assert command() == 0
    folder = image(way, out, "deep/c").parent
    shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere)
    (elsewhere / "c.png").write_text("mine")
    assert command("--overwrite") == 3
    assert "c.png: lies behind a link, and is kept" in capsys.readouterr().err
    assert (elsewhere / "c.png").read_text() == "mine"


def test_a_folder_with_a_like_named_file_of_others_is_not_ours(
    way: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    out.mkdir()
    for text in ("{}", '{"model": "mine", "identity": {}, "digest": "x"}', '{"made by": "adapt", "kind": "other"}'):
        (out / CLAIMS[way]).write_text(text)
        (out / "a.png").write_text("mine")
        for options in ([], ["--overwrite"]):
            assert command(*options) == 2
            assert f"its {CLAIMS[way]} is not that of" in capsys.readouterr().err
        assert sorted(path.name for path in out.iterdir()) == sorted(["a.png", CLAIMS[way]])


def test_a_image_that_was_changed_stays_and_is_named(
    way: str, command: Command, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert command() == 0
    changed = image(way, out, "a")
    write_image(changed, torch.zeros(3, 16, 16), overwrite=True)
    mine = changed.read_bytes()
    for _ in range(2):
        assert command() == 3
        said = capsys.readouterr().err
        assert f"{changed}: was changed after it was made, and is kept; move it elsewhere to have it made" in said
        assert changed.read_bytes() == mine
    write_image(photos / "a.png", torch.ones(3, 16, 16), overwrite=True)  # nor where its photo is another
    assert command() == 3
    assert changed.read_bytes() == mine
    changed.rename(tmp_path / "mine.png")
    assert command() == 0
    assert changed.read_bytes() not in (mine, b"")
    write_image(changed, torch.zeros(3, 16, 16), overwrite=True)
    assert command("--overwrite") == 0
    assert changed.read_bytes() != mine


def test_a_file_of_others_in_the_place_of_a_new_image_stays(
    way: str, command: Command, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert command() == 0
    foreign = image(way, out, "zz")
    foreign.write_bytes(b"mine")
    shutil.copy(photos / "a.png", photos / "zz.png")
    shutil.copy(photos / "a.png", photos / "zzz.png")
    assert command() == 3
    assert f"{foreign}: was not made by this command, and is kept" in capsys.readouterr().err
    assert foreign.read_bytes() == b"mine"
    assert image(way, out, "zzz").is_file(), "the rest goes on"
    assert command("--overwrite") == 0
    assert foreign.read_bytes() != b"mine"


def test_a_photo_that_changed_has_its_image_made_anew(way: str, command: Command, photos: Path, tmp_path: Path):
    assert command() == 0
    before = image(way, tmp_path / "out", "a").read_bytes()
    shutil.copy(photos / "b.png", photos / "a.png")
    assert command() == 0
    assert image(way, tmp_path / "out", "a").read_bytes() != before


def test_names_that_are_not_unicode(
    way: str, command: Command, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, name = tmp_path / "out", os.fsdecode(b"m\xfcller.png")
    try:
        shutil.copy(photos / "a.png", photos / name)
        (photos / os.fsdecode(b"b\xe4d.png")).write_bytes(b"no image")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    for _ in range(2):
        assert command() == 3
        assert "b\\udce4d.png" in capsys.readouterr().err
    assert image(way, out, "m\ufffdller").is_file()
    (out / LINES[way]).read_text(encoding="utf-8")
    assert command("--overwrite") == 3
    if way == "generate-targets":
        assert name in {record.photo for record in read_records(out)}


@pytest.mark.parametrize("name", ["aunt\x85x", "gran\u2028ma", "a\u2029b", "a\x1cb\x0bc", "two\nlines"])
def test_names_with_line_separators(
    way: str, name: str, command: Command, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(photos / "a.png", photos / f"{name}.png")
    for _ in range(2):
        assert command() == 0
    made = image(way, tmp_path / "out", name)
    assert made.is_file()
    assert command("--overwrite") == 0
    made.unlink()
    assert command() == 0
    assert made.is_file()


def test_long_names(way: str, command: Command, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The longest that a photo can have; and one that only the output cannot have, beside a file of the same stem."""
    out, longest = tmp_path / "out", "x" * 251
    shutil.copy(photos / "a.png", photos / f"{longest}.png")
    shutil.copy(photos / "a.png", photos / f"y{longest[1:]}.png")
    shutil.copy(photos / "a.png", photos / f"y{longest[1:]}.bmp")
    shutil.copy(photos / "a.png", photos / "zzz.png")
    assert command() == 3
    assert image(way, out, longest).is_file()
    assert image(way, out, "zzz").is_file()
    told = [line for line in capsys.readouterr().err.splitlines() if "cannot be written: File name too long" in line]
    assert len(told) == 2
    assert not list(out.rglob("*.part"))
    for kind in ("png", "bmp"):
        (photos / f"y{longest[1:]}.{kind}").unlink()
    assert command() == 0
    assert command("--overwrite") == 0


def test_a_folder_in_the_place_of_a_image_fails_that_photo(
    way: str, command: Command, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """And a file in the place of a folder."""
    out = tmp_path / "out"
    assert command() == 0
    (photos / "deep").mkdir()
    for name in ("c", "deep/c", "d"):
        shutil.copy(photos / "a.png", photos / f"{name}.png")
    image(way, out, "c").mkdir()
    image(way, out, "deep/c").parent.write_text("mine")
    assert command() == 3
    said = capsys.readouterr().err
    assert f"{image(way, out, 'c')}: cannot be written: a folder is there" in said
    assert f"{image(way, out, 'deep/c')}: cannot be written: Not a directory" in said
    assert image(way, out, "d").is_file()


@pytest.mark.parametrize("damage", ["empty", "garbage", "[]"])
def test_a_damaged_state_file_is_named(
    way: str, damage: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert command() == 0
    claim, lines = out / CLAIMS[way], out / LINES[way]
    good = claim.read_bytes()
    claim.write_text("" if damage == "empty" else damage)
    for options in ([], ["--overwrite"]):
        assert command(*options) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"adapt: {claim}: is damaged (")
        assert error.endswith("put the file back from a copy, or remove the whole folder")
    claim.write_bytes(good)
    for file in (lines, out / ".written.jsonl"):
        before = file.read_bytes()
        file.write_bytes(b"garbage\n" + before)
        assert command() == 2
        assert f"adapt: {file}, line 1: is damaged (not JSON" in capsys.readouterr().err
        file.write_bytes(before)
    for file in (claim, lines):  # as an editor leaves it
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert command() == 0


def test_a_journal_knows_a_file_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed between the line and the file, or between the file and what else tells of it: it is ours."""
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    journal = Journal(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr("adapt.journal.write_atomic", stop)
        with pytest.raises(KeyboardInterrupt):
            journal.write("deep/a.png", b"one")
    Journal(tmp_path).write("deep/a.png", b"two")
    Journal(tmp_path).write("deep/a.png", b"one")
    assert (tmp_path / "deep" / "a.png").read_bytes() == b"one"
    (tmp_path / "deep" / "a.png").write_bytes(b"three")
    with pytest.raises(KeptError, match=r"a\.png: was changed after it was made"):
        Journal(tmp_path).write("deep/a.png", b"four")
    assert journal_names(tmp_path) == ["deep/a.png", "deep/a.png", ".written.jsonl"]


def test_a_file_that_changes_as_a_run_goes_on_is_ours_until_it_is_told(tmp_path: Path):
    (path := tmp_path / "page.html").write_text("half")
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path).replacing("other.html"):
        raise KeyboardInterrupt
    (tmp_path / "other.html").write_text("half")
    with Journal(tmp_path).replacing("other.html"):
        pass
    with pytest.raises(KeptError, match="was not made by this command"), Journal(tmp_path).replacing("page.html"):
        pass
    path.unlink()
    with Journal(tmp_path).replacing("page.html") as path:
        path.write_text("whole")
    path.write_text("changed")
    with pytest.raises(KeptError), Journal(tmp_path).replacing("page.html"):
        pass


def test_overwrite_of_a_run_removes_what_trainings_wrote(
    photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    shutil.copy(photos / "a.png", photos / "c.png")
    arguments = [
        "finetune", "--photos", photos, "--targets", photos, "-o", run, "--pack", small_pack, "--device", "cpu",
        *QUICK_FINETUNE,
    ]
    assert adapt(monkeypatch, *arguments) == 0
    made = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    assert {"best.safetensors", "last/state.pt", "samples/step-000002.jpg"} <= {path.as_posix() for path in made}
    foreign = [
        "maps.jpg", "labels.json", "samples/step-mine.jpg", "samples/step-000009.jpg",
        "tensorboard/events.out.tfevents.mine", "last/mine.pt", "weights.safetensors",
    ]
    for name in foreign:
        (run / name).write_text("mine")
    with monkeypatch.context() as stopped:
        stopped.setattr("adapt.finetuning.loop.finetune", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        adapt(stopped, *arguments, "--overwrite")
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert left - {".written.jsonl"} == {*foreign, "run.json", "recipe.yaml", "contents.json"}, "those of the new run"
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({"digest": about["digest"]}))
    assert adapt(monkeypatch, *arguments, "--overwrite") == 2
