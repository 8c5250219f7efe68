"""Faces followed through the frames of a film: by made paths whose truth is known, and through the commands."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from command_line import adapt
from photographs import SIDE, at, photograph, some_faces, write

from adapt.commands.frames import FOUND, in_order
from adapt.faces.tracks import LONGEST_GAP, Placed, Seen, follow
from adapt.photos.files import read_image
from adapt.photos.folder import PhotoFile

BRIGHT = [0.5] * 64


def crop(x: float, y: float, side: float, turn: float = 0.0) -> tuple[Placed, tuple[float, float, float, float]]:
    """A crop around a point, and a box in it."""
    along, down = side * math.cos(turn), side * math.sin(turn)
    half = side / 4
    return (x - (along - down) / 2, y - (along + down) / 2, along, down), (x - half, y - half, x + half, y + half)


def middle(place: Placed) -> tuple[float, float]:
    x, y, along, down = place
    return x + (along - down) / 2, y + (along + down) / 2


def walk(frame: int) -> tuple[float, float, float, float]:
    """Across the picture, faster and faster, nearer and turning."""
    return 100 + 2 * frame + 0.1 * frame**2, 200 - frame, 80 + 0.5 * frame, 0.01 * frame


def test_a_smooth_path_is_kept_as_it_is():
    """Second degree fits it: neither lag nor shrinking of the movement, at the ends too."""
    followed = follow([Seen([crop(*walk(frame))], BRIGHT) for frame in range(30)])
    for frame, faces in enumerate(followed):
        (face,) = faces
        x, y, side, _ = walk(frame)
        assert middle(face.placement) == pytest.approx((x, y), abs=0.05)
        assert math.hypot(*face.placement[2:]) == pytest.approx(side, abs=0.05)
        assert (face.track, face.found) == (1, True)


def test_what_networks_guess_differently_is_smoothed():
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).tolist()
    followed = follow(
        [Seen([crop(walk(n)[0] + dx, walk(n)[1] + dy, *walk(n)[2:])], BRIGHT) for n, (dx, dy) in enumerate(noise)]
    )
    errors = [math.dist(middle(faces[0].placement), walk(n)[:2]) for n, faces in enumerate(followed)]
    before = [math.hypot(*each) for each in noise]
    assert sum(errors) < 0.6 * sum(before)


@pytest.mark.parametrize("missing", [1, LONGEST_GAP, LONGEST_GAP + 1])
def test_a_face_that_is_missed_is_put_where_it_must_be(missing: int):
    gone = range(10, 10 + missing)
    frames = [Seen([] if n in gone else [crop(100 + n, 100, 200)], BRIGHT) for n in range(30)]
    followed = follow(frames)
    if missing > LONGEST_GAP:
        assert [len(followed[n]) for n in gone] == [0] * missing
        assert followed[-1][0].track == 2
        return
    for n, faces in enumerate(followed):
        (face,) = faces
        assert middle(face.placement) == pytest.approx((100 + n, 100), abs=0.05)
        assert face.found == (n not in gone)
        assert face.track == 1
        assert (face.box[0] + face.box[2]) / 2 == pytest.approx(100 + n, abs=0.05)


def test_faces_that_pass_each_other_keep_their_numbers():
    """Whichever the detector names first."""
    frames = [
        Seen([crop(100 + 6 * n, 100, 60), crop(400 - 6 * n, 190, 60)][:: 1 if n % 2 else -1], BRIGHT) for n in range(50)
    ]
    followed = follow(frames)
    rows = {face.track: {round(middle(face.placement)[1]) for faces in followed for face in faces
                         if face.track == track} for track in (1, 2) for face in followed[0] if face.track == track}
    assert sorted(map(tuple, rows.values())) == [(100,), (190,)]


def test_a_cut_begins_anew_and_nothing_is_smoothed_across_it():
    dark = [0.1] * 64
    frames = [Seen([crop(100, 100, 80)], BRIGHT)] * 10 + [Seen([crop(115, 100, 80)], dark)] * 10
    followed = follow(frames)
    assert [faces[0].track for faces in followed] == [1] * 10 + [2] * 10
    assert middle(followed[9][0].placement) == pytest.approx((100, 100))
    assert middle(followed[10][0].placement) == pytest.approx((115, 100))


def test_no_frames_and_frames_without_faces():
    assert follow([]) == []
    assert follow([Seen([], []), Seen([], BRIGHT)]) == [[], []]


def test_frames_go_by_their_numbers():
    names = ["b/frame10", "b/frame9", "a/2", "a/10", "a/x", "take2_frame0011", "take2_frame0002"]
    order = [file.id for file in in_order([PhotoFile(name, Path(name)) for name in names])]
    assert order == ["a/2", "a/10", "a/x", "b/frame9", "b/frame10", "take2_frame0002", "take2_frame0011"]


# ---------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames: one face moves to the right, in one frame nothing of it is seen; another appears late, and small."""
    folder, faces = tmp_path_factory.mktemp("film"), some_faces(4)
    for frame in range(8, 14):
        laid = [] if frame == 10 else [(faces[1], at(150 + 6 * frame, 150, 170))]
        if frame > 11:
            laid.append((faces[2], at(440, 230, 90)))
        write(folder / f"{frame}.png", photograph(300, 520, laid))
    return folder


def test_align_numbers_faces_through_the_film(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    assert adapt(monkeypatch, "align", film, "-o", out, "--frames", "--device", "cpu") == 0
    names = sorted(path.name for path in out.glob("*.png"))
    assert names == sorted([*(f"{n}-face1.png" for n in range(8, 14)), "12-face2.png", "13-face2.png"])
    lines = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    middles = [middle(line["placement"])[0] for line in lines if line["track"] == 1]
    assert middles == pytest.approx([150 + 6 * n for n in range(8, 14)], abs=4)
    found = (out / FOUND).read_text()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix != ".lock"}
    assert adapt(monkeypatch, "align", film, "-o", out, "--frames", "--device", "cpu") == 0
    assert (out / FOUND).read_text() == found, "nothing is looked for twice"
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert adapt(monkeypatch, "align", film, "-o", out, "--device", "cpu") == 2, "found otherwise"


def test_restore_lays_nothing_over_a_frame_of_another(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The largest face alone: the small one stays as it is in every frame."""
    out = tmp_path / "out"
    options = ("--frames", "--largest", "--device", "cpu")
    assert adapt(monkeypatch, "restore", "tiny", film, "-o", out, *options) == 0
    lines = {line["id"]: line for line in map(json.loads, (out / "log.jsonl").read_text().splitlines())}
    assert [len(lines[str(n)]["faces"]) for n in range(8, 14)] == [1] * 6
    before, after = (read_image(folder / "13.png") for folder in (film, out))
    assert torch.equal(before[:, 185:275, 395:485], after[:, 185:275, 395:485])
    x = 150 + 6 * 13
    assert not torch.equal(before[:, 110:190, x - 40 : x + 40], after[:, 110:190, x - 40 : x + 40])
    assert SIDE == 128


def test_frames_are_no_aligned_faces(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]):  # fmt: skip
    code = adapt(monkeypatch, "restore", "tiny", film, "-o", tmp_path / "o", "--frames", "--faces", "aligned")
    assert (code, "--frames: is for whole photographs" in capsys.readouterr().err) == (2, True)
