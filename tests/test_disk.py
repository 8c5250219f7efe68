"""Writes and folders: whole or not there, ours or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapt.digests import file_digest, is_unchanged
from adapt.disk import (
    append_json_line,
    claim_folder,
    listed_files,
    read_json_lines,
    remove_written,
    write_atomic,
)
from adapt.errors import UsageError
from adapt.targets.store import TargetStore
from adapt.training.run import Run


def claim(folder: Path, about: dict[str, str], overwrite: bool = False) -> dict[str, str]:
    return claim_folder(folder, "about.json", about, ours="one of ours", writes=["**/*.png"], overwrite=overwrite)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_is_claimed_once_and_gone_on_with(tmp_path: Path):
    folder = tmp_path / "deep" / "out"
    assert claim(folder, {"model": "a"}) == {"model": "a"}
    (folder / "deep").mkdir()
    for name in ("image.png", "deep/image.png", "deep/.other.png.731.part"):
        (folder / name).touch()
    assert claim(folder, {"model": "b"}) == {"model": "a"}
    assert json.loads((folder / "about.json").read_text()) == {"model": "a"}
    assert claim(folder, {"model": "b"}, overwrite=True) == {"model": "b"}
    assert names(folder) == ["about.json"]


@pytest.mark.parametrize("content", [
    b"", b"{", b'{"a": ' + b"9" * 5000 + b"}", b"[" * 100_000, b"\xff", b"[1]"
], ids=["empty", "cut", "number", "nested", "bytes", "list"])
def test_a_file_of_ours_that_was_changed_is_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "about.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"^[^\n]*about\.json: cannot be used: it is not [^\n]*as we write it[^\n]*$"):
        claim(tmp_path, {})
    lines = tmp_path / "log.jsonl"
    lines.write_bytes(b'{"a": 1}\n' + content + b"\n")
    if content not in (b"", b"[1]"):
        with pytest.raises(UsageError, match=r"log\.jsonl: cannot be used: a line of it is not JSON"):
            read_json_lines(lines)


def test_only_what_a_command_wrote_is_removed(tmp_path: Path):
    folder = tmp_path / "out"
    claim(folder, {})
    for name in ("mine/novel.txt", "mine/a.png", "ours/b.png", "empty of old/c.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "empty of old" / "c.txt").unlink()
    claim(folder, {}, overwrite=True)
    assert names(folder) == ["about.json", "empty of old", "link", "mine", "mine/novel.txt"]
    remove_written(folder, ["../elsewhere/d.png", str(tmp_path / "elsewhere" / "d.png"), "nothing.png"])
    assert names(tmp_path / "elsewhere") == ["d.png"]


def test_listed_files_are_meant_literally(tmp_path: Path):
    for name in ("a.png", "[ab].png", "b.png", "c.png"):
        (tmp_path / name).touch()
    remove_written(tmp_path, listed_files([{"file": "[ab].png"}, {"file": "gone.png"}], ["c.png"]))
    assert names(tmp_path) == ["a.png", "b.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, overwrite: bool):
    for name in ("letter.txt", "novel.txt", "x", "y"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"one of ours; it holds other files \(letter\.txt, novel\.txt, x, \.\.\.\)"):
        claim(tmp_path, {}, overwrite)
    with pytest.raises(UsageError, match="expected a new folder or a run of ours; it holds other files"):
        Run(tmp_path, recipe="", digest="", overwrite=overwrite)
    with pytest.raises(UsageError, match="expected a new folder or a target store; it holds other files"):
        TargetStore(tmp_path, {}, overwrite=overwrite)
    assert names(tmp_path) == ["letter.txt", "novel.txt", "x", "y"]


def test_an_empty_folder_may_be_claimed(tmp_path: Path):
    (tmp_path / ".DS_Store").touch()  # as a file manager leaves it
    assert claim(tmp_path, {"model": "a"}) == {"model": "a"}


def test_a_file_is_unchanged_or_not(tmp_path: Path):
    path = tmp_path / "a.png"
    assert not is_unchanged(path, None)
    path.write_bytes(b"one")
    digest = file_digest(path)
    assert is_unchanged(path, digest)
    path.write_bytes(b"two")
    assert not is_unchanged(path, digest)
    assert not is_unchanged(tmp_path, digest)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file"
    write_atomic(path, lambda stream: stream.write(b"old"))

    def half(stream: object) -> None:
        stream.write(b"ne")  # pyright: ignore[reportAttributeAccessIssue]
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_atomic(path, half)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    append_json_line(path, {"step": 1})
    with path.open("a") as stream:
        stream.write('{"step": 2')
    assert read_json_lines(path) == [{"step": 1}]
    append_json_line(path, {"step": 2})
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_letter_that_a_crash_cut_through_is_dropped(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    append_json_line(path, {"file": "ä\u2028"})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: whole.index("ä".encode()) + 1])
    assert read_json_lines(path) == [{"file": "ä\u2028"}]
