"""Writes and folders: whole or not there, ours or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapt.digests import file_digest, is_unchanged
from adapt.disk import (
    append_json_line,
    claim_folder,
    marked,
    read_json,
    read_json_lines,
    remove_written,
    write_atomic,
    write_json,
)
from adapt.errors import UsageError
from adapt.targets.store import TargetStore
from adapt.training.run import Run

WRITES = ["image.png", "deep/image.png", "mine/a.png", "ours/b.png", "link/d.png", "[ab].png"]


def claim(folder: Path, about: dict[str, str], overwrite: bool = False) -> dict[str, str]:
    return claim_folder(
        folder, "about.json", about, kind="test", ours="one of ours", writes=lambda: WRITES, overwrite=overwrite
    )


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_is_claimed_once_and_gone_on_with(tmp_path: Path):
    folder = tmp_path / "deep" / "out"
    a, b = (marked("test", {"model": name}) for name in "ab")
    assert claim(folder, {"model": "a"}) == a
    (folder / "deep").mkdir()
    for name in ("image.png", "deep/image.png", "deep/.adapt-731-0123abcd.part"):
        (folder / name).touch()
    assert claim(folder, {"model": "b"}) == a
    assert json.loads((folder / "about.json").read_text()) == a
    assert claim(folder, {"model": "b"}, overwrite=True) == b
    assert names(folder) == ["about.json"]


def test_only_what_a_command_wrote_is_removed(tmp_path: Path):
    """By its name, not by one that is like it; and nothing that lies elsewhere."""
    folder = tmp_path / "out"
    claim(folder, {})
    mine = ["mine/novel.txt", "mine/.other.png.731.part", "ours too/b.png", "a.png", "c.png"]
    for name in (*mine, "mine/a.png", "ours/b.png", "[ab].png", "empty of old/c.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "empty of old" / "c.txt").unlink()
    claim(folder, {}, overwrite=True)
    assert names(folder) == sorted(["about.json", "empty of old", "link", "mine", "ours too", *mine])
    for name in ("../elsewhere/d.png", str(tmp_path / "elsewhere" / "d.png"), "link/d.png", "nothing.png", "x" * 300):
        remove_written(folder, [name])
    assert names(tmp_path / "elsewhere") == ["d.png"]


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
    assert claim(tmp_path, {"model": "a"})["model"] == "a"


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


def test_a_line_whose_end_an_editor_left_out_counts(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"step": 1}\r\n{"step": 2}')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    append_json_line(path, {"step": 3})
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


@pytest.mark.parametrize("name", [
    "m\udcfcller", "gran\u2028ma", "aunt\x85x", "a\u2029\x0b\x0c\x1c\x1e", "two\nlines", "é 测 😀",
])
def test_any_name_may_stand_in_a_line(name: str, tmp_path: Path):
    for number in (1, 2):
        append_json_line(tmp_path / "log.jsonl", {"id": name, "number": number})
    assert read_json_lines(tmp_path / "log.jsonl", ("id",)) == [{"id": name, "number": n} for n in (1, 2)]
    write_json(tmp_path / "about.json", {"id": name})
    assert read_json(tmp_path / "about.json", "") == {"id": name}
    (tmp_path / "about.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "reason"), [
    (b"", "empty"), (b" \n", "empty"), (b"garbage", "not JSON: "), (b"[1]", "expected an object"),
    (b"\xff{}", "byte 1 is not UTF"), (b"{", "not JSON"), (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    (b"{}", r"lacks id"), (b"[" * 100_000, "not JSON"), (b"\0" * 40, "not JSON"),
])
def test_a_damaged_state_file_is_named_with_what_to_do(text: bytes, reason: str, tmp_path: Path):
    lines, whole = tmp_path / "log.jsonl", tmp_path / "about.json"
    lines.write_bytes(b'{"id": 1}\n' + text + b"\n")
    whole.write_bytes(text)
    if text.strip():
        with pytest.raises(UsageError, match=rf"log\.jsonl, line 2: is damaged \({reason}.*\); remove that line"):
            read_json_lines(lines, ("id",))
    if text != b"{}":
        with pytest.raises(UsageError, match=rf"about\.json: is damaged \({reason}.*\); choose another folder, or put"):
            claim(tmp_path, {})
        assert whole.read_bytes() == text
    else:
        with pytest.raises(UsageError, match=r"its about\.json is not that of one of ours"):
            claim(tmp_path, {}, overwrite=True)


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path):
    path = tmp_path / f"{'x' * 251}.png"
    write_atomic(path, lambda stream: stream.write(b"image"))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_out_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for out in ("file", "link"):
        with pytest.raises(UsageError, match="expected a folder, there is a file"):
            claim(tmp_path / out, {})


def test_a_letter_that_a_crash_cut_through_is_dropped(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    append_json_line(path, {"file": "ä\u2028"})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: whole.index("ä".encode()) + 1])
    assert read_json_lines(path) == [{"file": "ä\u2028"}]
