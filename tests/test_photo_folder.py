"""Folders of photos and pairs of them: no two share an id, links are followed once, outputs do not mix with them."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt.errors import PhotoError, UsageError
from adapt.photos.files import read_photo
from adapt.photos.folder import find_photos, refuse_overlap, scan
from adapt.photos.pairs import match


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


NAME = st.text(st.sampled_from("aAbé" + unicodedata.normalize("NFD", "é")[1] + "_."), min_size=1, max_size=5)


@given(st.lists(st.tuples(NAME, st.sampled_from([".png", ".PNG", ".jpg", ".jpeg"])), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_no_two_photos_share_an_id(tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]]):
    """As names of outputs on a disc that knows neither case nor the spelling of accents."""
    folder = tmp_path_factory.mktemp("ids")
    touch(folder, "first.png", *(f"x{stem}{suffix}" for stem, suffix in names))
    photos = scan(folder).photos
    assert len(photos) == len(list(folder.iterdir()))
    assert len({unicodedata.normalize("NFC", photo.id.casefold()) for photo in photos}) == len(photos)
    assert list(photos[:2]) == find_photos(folder, 2)


def test_an_id_that_is_another_files_name(tmp_path: Path):
    touch(tmp_path, "a.jpg", "a.png", "a_jpg.png")
    ids = [photo.id for photo in find_photos(tmp_path)]
    assert ids[1:] == ["a_png", "a_jpg_png"]
    assert ids[0].startswith("a_jpg_")


def test_other_entries_are_counted(tmp_path: Path):
    touch(tmp_path, "a.png", "note.txt", ".hidden.png", ".cache/x.png", ".cache/y.png", "deep/Thumbs.db")
    assert scan(tmp_path).ignored == 4
    with pytest.raises(UsageError, match="entries of other kinds: 1"):
        scan(tmp_path / "deep")


def test_links_are_followed_once(tmp_path: Path):
    touch(tmp_path / "photos", "a.png")
    touch(tmp_path / "elsewhere", "b.png")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "lost.png").symlink_to(tmp_path / "nothing.png")
    photos = {photo.id: photo.path for photo in find_photos(tmp_path / "photos")}
    assert list(photos) == ["a", "lost", "more/b"]
    with pytest.raises(PhotoError, match=r"lost\.png: no such file"):
        read_photo(photos["lost"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stores names that are not Unicode")
def test_names_that_are_not_unicode_can_be_stored(tmp_path: Path):
    (tmp_path / os.fsdecode(b"\xff.png")).touch()
    (tmp_path / os.fsdecode(b"\xfe.png")).touch()
    photos = find_photos(tmp_path)
    assert len({photo.id.encode() for photo in photos}) == 2
    with pytest.raises(PhotoError) as error:
        read_photo(photos[0].path)
    assert str(error.value).encode()


def test_outputs_among_the_photos_are_seen_through_links(tmp_path: Path):
    touch(tmp_path / "photos", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for photos, out in (("photos", "link/out"), ("link", "photos/out/deep"), ("photos", "link")):
        with pytest.raises(UsageError, match="lies inside the photos"):
            refuse_overlap(tmp_path / photos, tmp_path / out)
    for photos, out in (("photos", "."), ("link", ""), ("photos/a.png", "photos"), ("photos/a.png", "link")):
        with pytest.raises(UsageError, match="holds --truth"):
            refuse_overlap(tmp_path / photos, tmp_path / out, "--truth")
    refuse_overlap(tmp_path / "photos", tmp_path / "photos-out")
    refuse_overlap(tmp_path / "photos" / "a.png", tmp_path / "photos" / "out")


def test_ids(tmp_path: Path):
    touch(tmp_path, "b.png", "a.jpg", "a.png", "deep/ü 测.JPEG", ".hidden.png", ".cache/x.png", "note.txt", "Thumbs.db")
    found = {photo.id: photo.path.name for photo in find_photos(tmp_path)}
    assert found == {"a_jpg": "a.jpg", "a_png": "a.png", "b": "b.png", "deep/ü 测": "ü 测.JPEG"}
    assert [photo.id for photo in find_photos(tmp_path, limit=2)] == ["a_jpg", "a_png"]
    assert [photo.id for photo in find_photos(tmp_path / "b.png")] == ["b"]


def test_names_are_the_same_however_accents_are_spelled(tmp_path: Path):
    touch(tmp_path, unicodedata.normalize("NFD", "é.png"))
    assert find_photos(tmp_path)[0].id == unicodedata.normalize("NFC", "é")


def test_folder_refusals(tmp_path: Path):
    with pytest.raises(UsageError, match="no such folder or file"):
        find_photos(tmp_path / "nowhere")
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(UsageError, match=r"no photos in this folder \(looked for avif,"):
        find_photos(tmp_path)
    for out in (tmp_path, tmp_path / "out"):
        with pytest.raises(UsageError, match="lies inside the photos"):
            refuse_overlap(tmp_path, out)
    refuse_overlap(tmp_path, tmp_path.parent / "elsewhere")


def test_pairs(tmp_path: Path):
    touch(tmp_path / "l", "a.png", "b.png", "c/d.png")
    touch(tmp_path / "r", "a.jpg", "c/d.png", "e.png")
    matches = match(tmp_path / "l", tmp_path / "r")
    assert [pair.id for pair in matches.pairs] == ["a", "c/d"]
    assert (matches.left_only, matches.right_only) == (["b"], ["e"])
    with pytest.raises(UsageError, match=r"right: 1 images of left have no partner of the same name there \(b\)"):
        matches.complete("left", "right")
