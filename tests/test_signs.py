"""The commands where standard output cannot encode every sign, as on Windows when it goes to a file."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapt.cli.signs import show_what_can_be_shown
from adapt.photos.files import write_image

ENCODINGS = ("cp1252", "ascii")


def command(encoding: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    asked = [sys.executable, "-m", "adapt", *map(str, arguments)]
    return subprocess.run(asked, capture_output=True, check=False, env=environment)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the same two images: one as restored, with names that few encodings have, one as the truth."""
    folder = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(("żółw", "→ naïve")):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))
        write_image(folder / "truth" / f"{name}.png", image)
        write_image(folder / "restored" / f"{name}.png", image * 0.9)
    (folder / "restored" / "broken→.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_table_is_printed_in_any_encoding(images: Path, encoding: str):
    shown = command(encoding, "evaluate", images / "truth", "--truth", images / "truth")
    assert (shown.returncode, shown.stderr) == (0, b"")
    table = shown.stdout.decode(encoding).splitlines()
    arrows = "↑↓" if "↑".encode(encoding, "ignore") else "^v"
    assert f"PSNR {arrows[0]}" in table[0]
    assert f"tiny-perceptual {arrows[1]}" in table[0]
    assert len(table[0]) == len(table[1])  # columns stay where they are


@pytest.mark.parametrize("encoding", ["cp1252"])
def test_names_and_progress_are_printed_in_any_encoding(
    images: Path, small_pack: Path, encoding: str, tmp_path: Path
):
    shown = command(encoding, "restore", small_pack, images / "restored", "-o", tmp_path / "out")
    assert shown.returncode == 3
    assert b"2 restored, 0 already there, 1 failed" in shown.stdout
    assert b"broken" + "→".encode(encoding, "ignore") in shown.stderr
    assert b"broken->.png" in shown.stderr
    assert b"Traceback" not in shown.stderr


@pytest.mark.parametrize("asked", [
    ["--help"], ["run", "--help"], ["packs", "show", "tiny"], ["recipes", "list"]
], ids=" ".join)
def test_texts_are_printed_in_any_encoding(asked: list[str]):
    shown = command("ascii", *asked)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert len(shown.stdout) > 100


def test_what_the_user_wrote_is_printed_in_any_encoding(tmp_path: Path):
    """A pack's card, with words of any language, and a mistake in one."""
    (tmp_path / "pack.yaml").write_text(
        "name: łódź\nsize: 16\ndescription: “größer → ≥ 2” 日本\nrestorer: swinir\nnetworks: {}\n", encoding="utf-8"
    )
    shown = command("ascii", "packs", "show", tmp_path)
    assert shown.returncode == 0
    assert rb"""description: "gr\xf6\xdfer -> >= 2" \u65e5\u672c""" in shown.stdout
    recipe = tmp_path / "é→.yaml"
    recipe.write_text("kind: targets\nśmieć: 1\n", encoding="utf-8")
    shown = command("ascii", "recipes", "check", recipe)
    assert shown.returncode == 2
    assert rb"\xe9->.yaml:2:1: \u015bmie\u0107: not a key of this recipe" in shown.stderr
    assert b"Traceback" not in shown.stderr


def test_a_way_of_replacement_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch):
    for chosen, expected in (("replace", b"PSNR ?"), ("strict", b"PSNR ^")):
        stream = io.TextIOWrapper(io.BytesIO(), "ascii", chosen)
        monkeypatch.setattr(sys, "stdout", stream)
        show_what_can_be_shown()
        stream.write("PSNR ↑")
        stream.flush()
        assert stream.buffer.getvalue() == expected  # pyright: ignore[reportAttributeAccessIssue]
