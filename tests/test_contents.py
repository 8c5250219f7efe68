"""Folders of images in the identity of a run: by what is in them, read once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from command_line import adapt

from adapt.commands.finetune import finetune
from adapt.digests import file_digest
from adapt.errors import UsageError
from adapt.photos import contents
from adapt.photos.contents import FILE, Contents
from adapt.photos.folder import find_photos

LONG_AGO = 1_600_000_000_000_000_000


@pytest.fixture
def faces(tmp_path: Path, small_photos: Path) -> Path:
    """Images that were written long ago."""
    folder = shutil.copytree(small_photos, tmp_path / "faces")
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files whose contents are read."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(contents, "file_digest", noted)
    return names


def digest_of(folder: Path, run: Path) -> str:
    seen = Contents(run)
    digest = seen.digest("faces", find_photos(folder))
    seen.remember(run / FILE)
    return digest


def test_files_are_read_once(faces: Path, tmp_path: Path, read: list[str]):
    run, count = tmp_path / "run", len(find_photos(faces))
    first = digest_of(faces, run)
    assert len(read) == count
    assert digest_of(faces, run) == first
    faces.rename(tmp_path / "moved")
    assert digest_of(tmp_path / "moved", run) == first
    assert len(read) == count


@pytest.mark.parametrize("same_size", [False, True])
def test_a_file_that_was_changed_is_read_again(same_size: bool, faces: Path, tmp_path: Path, read: list[str]):
    run = tmp_path / "run"
    first = digest_of(faces, run)
    read.clear()
    changed = find_photos(faces)[0].path
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + b"?" if same_size else data + b"?")
    assert digest_of(faces, run) != first
    assert read == [changed.name]


def test_a_file_that_was_just_written_is_not_known_by_its_time(faces: Path, tmp_path: Path, read: list[str]):
    """It may be written again within the same tick of the disk's clock."""
    run, file = tmp_path / "run", find_photos(faces)[0].path
    file.touch()
    digest_of(faces, run)
    read.clear()
    digest_of(faces, run)
    assert read == [file.name]


def test_another_name_and_one_more_are_other_folders(faces: Path, tmp_path: Path):
    run = tmp_path / "run"
    digests = {digest_of(faces, run)}
    file = find_photos(faces)[0].path
    file.rename(file.with_name("zz.png"))
    digests.add(digest_of(faces, run))
    shutil.copy(file.with_name("zz.png"), faces / "zzz.png")
    digests.add(digest_of(faces, run))
    (faces / "zzzz.png").symlink_to(tmp_path / "nothing")  # who reads it names it
    digests.add(digest_of(faces, run))
    assert len(digests) == 4


@pytest.mark.parametrize("text", ["", "[]", '{"faces": []}', '{"faces": {"a": 3, "b": [1, "2", null]}}', "[" * 100_000])
def test_what_is_remembered_wrongly_is_not_used(text: str, faces: Path, tmp_path: Path):
    run = tmp_path / "run"
    first = digest_of(faces, run)
    (run / contents.FILE).write_text(text)
    assert digest_of(faces, run) == first


@pytest.mark.parametrize("option", ["real", "replay"])
def test_a_fine_tuning_goes_on_with_folders_that_were_moved_and_with_no_others(
    option: str, small_photos: Path, small_pack: Path, faces: Path, tmp_path: Path
):
    def tune(folder: Path) -> None:
        finetune(
            small_photos, small_photos, tmp_path / "run", pack=str(small_pack), max_steps=1,
            overrides=["steps=2", "batch=2", "discriminator.features=4"], **{option: folder},  # pyright: ignore[reportArgumentType]
        )

    tune(faces)
    faces.rename(tmp_path / "moved")
    tune(tmp_path / "moved")
    file = find_photos(tmp_path / "moved")[0].path
    other = find_photos(tmp_path / "moved")[1].path.read_bytes()
    file.write_bytes(other.ljust(file.stat().st_size, b"\0"))  # another image in a file of the same size
    with pytest.raises(UsageError, match="holds a run with other settings, photos or weights"):
        tune(tmp_path / "moved")


def test_a_pretraining_goes_on_with_faces_that_were_moved_and_with_no_others(
    small_pack: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "kind: pretrain-perceptual\nsteps: 4\nbatch: 2\nsize: 16\nlearning_rate: 1e-3\nchannels: [4, 4]\n"
        "save_every: 1\n"
    )

    def train(folder: Path) -> int:
        return adapt(monkeypatch, "pretrain", "--recipe", recipe, "--faces", folder, "-o", tmp_path / "run", "--pack",
                     small_pack, "--max-steps", 1)

    assert train(faces) == 0
    shutil.copytree(faces, tmp_path / "copied")
    assert train(tmp_path / "copied") == 0
    find_photos(tmp_path / "copied")[0].path.unlink()
    capsys.readouterr()
    assert train(tmp_path / "copied") == 2
    assert "holds a run with other settings, photos or weights" in capsys.readouterr().err
