"""Whole photographs through the commands: faces found and cut out, restored and put back, and a run from end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import QUICK_FINETUNE, QUICK_TARGETS, adapt
from photographs import SIDE, at, photograph, some_faces, write
from PIL import Image
from torch import Tensor

from adapt.commands.align import align, photos_by_face
from adapt.commands.photographs import Choice, Finding, Preparer
from adapt.commands.restore import restore_folder
from adapt.commands.run import run
from adapt.errors import UsageError
from adapt.faces.find import SEEN_AT, FaceFinder, views
from adapt.images import to_uint8
from adapt.loading import load_face_finder, load_restorer
from adapt.photos.boxes import read_boxes
from adapt.photos.files import read_image, read_photo, write_image
from adapt.targets.store import accepted_targets

PLACES = {"group": [at(150, 140, 170), at(420, 200, 110, turn=20)], "one": [at(200, 210, 240, turn=-12)], "none": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs: two faces, one, and none."""
    where, faces = tmp_path_factory.mktemp("photographs"), iter(some_faces(6)[1:])
    for name, places in PLACES.items():
        write(where / f"{name}.png", photograph(360, 560, [(next(faces), place) for place in places]))
    return where


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return load_face_finder("tiny")


class Unchanged:
    """A model that leaves faces as they are; or brightens them."""

    size = SIDE

    def __init__(self, more: float = 0.0) -> None:
        self.more = more

    def __call__(self, photo: Tensor, fidelity: float | None = None) -> Tensor:
        change = torch.zeros_like(photo)
        change[:, :, 40:90, 40:90] = self.more
        return (photo + change).clamp(0, 1)


def preparer(finder: FaceFinder, **more: object) -> Preparer:
    return Preparer(size=SIDE, mode="whole", finder=finder, **more)  # pyright: ignore[reportArgumentType]


def test_faces_are_found_where_they_lie_and_nowhere_else(folder: Path, finder: FaceFinder):
    for name, places in PLACES.items():
        found = finder.find(read_image(folder / f"{name}.png"))
        assert len(found) == len(places)
        for face, place in zip(found, places, strict=True):  # both the largest first
            assert face.side == pytest.approx(place.scale * SIDE, rel=0.08)
            assert face.placement.angle == pytest.approx(place.angle, abs=4)
            true = place.outline(SIDE).mean(0)
            assert float(torch.linalg.vector_norm(face.placement.outline(256).mean(0) - true)) < 0.06 * face.side


def test_views_cover_the_photo_and_show_small_faces_large_enough():
    photo = torch.rand(3, 700, 2300, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(700, 2300)
    finest = 1e9
    for view, window in views(photo, 24):
        assert max(view.shape[1:]) <= SEEN_AT
        left, top, right, bottom = (int(edge) for edge in window)
        if max(right - left, bottom - top) <= SEEN_AT:
            seen[top:bottom, left:right] += 1
        finest = min(finest, (right - left) / view.shape[2])
    assert bool((seen >= 1).all())
    assert finest == 1


def test_nothing_restored_is_the_same_file_to_the_last_pixel(folder: Path, finder: FaceFinder, tmp_path: Path):
    result = restore_folder(Unchanged(), folder, tmp_path / "out", digest="x", preparer=preparer(finder))
    assert result.faces == {"group": 2, "none": 0, "one": 1}
    assert result.failed == []
    for name in PLACES:
        assert np.array_equal(
            np.array(Image.open(tmp_path / "out" / f"{name}.png")), np.array(Image.open(folder / f"{name}.png"))
        )


def test_the_change_is_in_the_faces_alone(folder: Path, finder: FaceFinder, tmp_path: Path):
    restore_folder(Unchanged(0.3), folder, tmp_path / "out", digest="x", preparer=preparer(finder))
    change = read_image(tmp_path / "out" / "group.png") - read_image(folder / "group.png")
    far = torch.ones(360, 560, dtype=torch.bool)
    for place in PLACES["group"]:
        left, top = place.outline(SIDE).amin(0).int().tolist()
        right, bottom = (place.outline(SIDE).amax(0) + 1).int().tolist()
        far[max(0, top) : bottom, max(0, left) : right] = False
        x, y = (int(value) for value in place.outline(SIDE).mean(0).tolist())
        assert float(change[:, y, x].mean()) > 0.1
    assert bool((change[:, far] == 0).all())
    half = preparer(finder, strength=0.5)
    restore_folder(Unchanged(0.3), folder, tmp_path / "half", digest="x", preparer=half)
    less = read_image(tmp_path / "half" / "group.png") - read_image(folder / "group.png")
    apart = (less - change / 2).abs()
    assert float((apart > 1.6 / 255).float().mean()) < 1e-3, "but where white is reached"
    middle = (slice(None), slice(120, 160), slice(130, 170))
    assert float(less[middle].mean()) == pytest.approx(float(change[middle].mean()) / 2, rel=0.05)


def test_a_photo_without_colour_stays_without(folder: Path, finder: FaceFinder, tmp_path: Path):
    (tmp_path / "grey").mkdir()
    grey = to_uint8(read_image(folder / "one.png")).mean(2, keepdims=True).round().astype(np.uint8).repeat(3, 2)
    Image.fromarray(grey).save(tmp_path / "grey" / "one.jpg", quality=95)

    class Tinted(Unchanged):
        def __call__(self, photo: Tensor, fidelity: float | None = None) -> Tensor:
            ramp = torch.linspace(0, 0.3, SIDE)
            return (photo + torch.stack([ramp, -ramp, ramp]).unsqueeze(1)).clamp(0, 1)

    restore_folder(Tinted(), tmp_path / "grey", tmp_path / "out", digest="x", preparer=preparer(finder))
    image = read_photo(tmp_path / "out" / "one.png").image
    assert float((image.amax(0) - image.amin(0)).max()) <= 2 / 255


def test_align_cuts_every_face_out_and_goes_on_where_it_stopped(folder: Path, tmp_path: Path):
    out = tmp_path / "crops"
    result = align(folder, out, size=96)
    assert (result.faces, result.done) == ({"group": 2, "none": 0, "one": 1}, 3)
    crops = sorted(path.name for path in out.glob("*.png"))
    assert crops == ["group-face1.png", "group-face2.png", "one-face1.png"]
    assert photos_by_face(out) == {"group-face1": "group", "group-face2": "group", "one-face1": "one"}
    face = torch.nn.functional.interpolate(some_faces(6)[1][None], (96, 96), mode="area")[0]
    assert float((read_image(out / "group-face1.png") - face)[:, 15:80, 15:80].abs().mean()) < 0.05
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir() if path.suffix == ".png"}
    (out / "one-face1.png").unlink()
    again = align(folder, out, size=96)
    assert (again.done, again.skipped) == (1, 2)
    assert (out / "one-face1.png").read_bytes() == before[out / "one-face1.png"][1]
    assert all(path.stat().st_mtime_ns == time for path, (time, _) in before.items() if path.name[0] == "g")
    with pytest.raises(UsageError, match="found otherwise"):
        align(folder, out, size=64)
    assert align(folder, out, size=64, renew=True).done == 3
    assert read_image(out / "one-face1.png").shape == (3, 64, 64)


def test_which_faces_are_taken(folder: Path, tmp_path: Path):
    assert align(folder, tmp_path / "a", finding=Finding(largest=True)).faces["group"] == 1
    assert align(folder, tmp_path / "b", finding=Finding(most=1)).faces["group"] == 1
    assert align(folder, tmp_path / "c", finding=Finding(min_face=300)).faces == {"group": 0, "none": 0, "one": 0}
    lines = [json.loads(line) for line in (tmp_path / "a" / "faces.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["photo"] == "one"]
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*own, {"photo": "group"}]))
    given = Finding(boxes=tmp_path / "boxes.jsonl")
    assert align(folder, tmp_path / "d", finding=given).faces == {"group": 0, "none": 0, "one": 1}
    for name in ("one-face1.png",):  # its placement is taken as it is
        torch.testing.assert_close(
            read_image(tmp_path / "d" / name), read_image(tmp_path / "a" / name), rtol=0, atol=1 / 255
        )


def test_faces_of_a_photo_that_became_another_are_gone(folder: Path, tmp_path: Path):
    """Its old crop would be trained on, and its old place restored in the new photo."""
    photos, out = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "out"
    align(photos, out, faces="auto")
    (out / "one-face1.png").unlink()
    align(photos, out, faces="auto")
    assert len(read_boxes(out / "faces.jsonl")["one"].faces) == 1, "each face once, though there are two lines of it"
    shutil.copy(folder / "one.png", tmp_path / "kept.png")
    shutil.copy(folder / "none.png", photos / "one.png")
    result = align(photos, out, faces="auto")
    assert (result.faces["one"], (out / "one-face1.png").exists()) == (0, False)
    assert read_boxes(out / "faces.jsonl")["one"].faces == ()
    shutil.copy(tmp_path / "kept.png", photos / "one.png")
    assert align(photos, out, faces="auto").faces["one"] == 1
    assert len(read_boxes(out / "faces.jsonl")["one"].faces) == 1
    shutil.copy(folder / "none.png", photos / "group.png")
    (out / "group-face1.png").write_bytes(b"retouched")
    again = align(photos, out, faces="auto")
    assert [line.partition(" was changed")[0] for line in again.kept] == [f"{out / 'group-face1.png'}:"]


def test_an_aligned_face_among_whole_photographs_is_restored(folder: Path, finder: FaceFinder, tmp_path: Path):
    photos = shutil.copytree(folder, tmp_path / "photos")
    write_image(photos / "own.png", some_faces(1)[0])
    align(photos, tmp_path / "faces", size=SIDE, faces="auto")
    known = read_boxes(tmp_path / "faces" / "faces.jsonl")
    assert "own" not in known, "an aligned face says nothing of where faces are"
    both = Preparer(size=SIDE, mode="auto", finder=finder, choice=Choice(known=known))
    restore_folder(Unchanged(0.3), photos, tmp_path / "out", digest="x", preparer=both)
    change = read_image(tmp_path / "out" / "own.png") - read_image(photos / "own.png")
    assert float(change[:, 50:80, 50:80].mean()) > 0.1


def test_two_photos_whose_faces_would_be_one_file(folder: Path, tmp_path: Path):
    photos = shutil.copytree(folder, tmp_path / "photos")
    write_image(photos / "group-face1.png", some_faces(1)[0])
    for _ in range(2):
        result = align(photos, tmp_path / "out", size=SIDE, faces="auto")
        assert result.failed == [
            "group: its face would be group-face1.png, as that of group-face1 is; rename one of both photos"
        ]
        assert (result.aligned, result.faces) == (["group-face1"], {"none": 0, "one": 1})


def test_boxes_that_come_later_are_heeded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    boxes = tmp_path / "b.jsonl"
    boxes.write_text('{"photo": "one"}')
    command = ("restore", "tiny", folder / "one.png", "-o", tmp_path / "out")
    assert adapt(monkeypatch, *command) == 0
    assert adapt(monkeypatch, *command, "--boxes", boxes) == 2
    assert "whose faces were found otherwise" in capsys.readouterr().err
    assert adapt(monkeypatch, *command, "--boxes", boxes, "--overwrite") == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "one.png")), np.array(Image.open(folder / "one.png")))


def test_a_file_of_boxes_is_not_written_over(folder: Path, tmp_path: Path):
    align(folder, tmp_path / "out", size=SIDE)
    own = tmp_path / "out" / "faces.jsonl"
    before = own.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"faces.jsonl: lies in .*out, whose files are made anew; copy it"):
            align(folder, tmp_path / "out", size=SIDE, finding=Finding(boxes=own), overwrite=overwrite)
    assert own.read_bytes() == before


def test_a_face_outside_of_its_photo(folder: Path, finder: FaceFinder, tmp_path: Path):
    boxes = tmp_path / "b.jsonl"
    boxes.write_text('{"photo": "one", "box": [5000, 10, 5100, 90]}')
    outside = preparer(finder, choice=Choice(known=read_boxes(boxes)))
    result = restore_folder(Unchanged(), folder, tmp_path / "out", digest="x", preparer=outside)
    assert [reason.partition(", which")[0] for reason in result.failed] == [
        "one: --boxes has a face at [5000, 10, 5100, 90], outside of the photo"
    ]
    assert result.done == 2


def test_boxes_of_a_photo_that_became_another_are_not_taken(folder: Path, finder: FaceFinder, tmp_path: Path):
    photos = shutil.copytree(folder, tmp_path / "photos")
    align(photos, tmp_path / "faces", size=SIDE)
    shutil.copy(folder / "one.png", photos / "group.png")
    old = preparer(finder, choice=Choice(known=read_boxes(tmp_path / "faces" / "faces.jsonl")))
    result = restore_folder(Unchanged(0.3), photos, tmp_path / "out", digest="x", preparer=old)
    assert result.failed == [
        f"{photos / 'group.png'}: is not the photo any more that its boxes were found in; run adapt align again"
    ]
    assert result.done == 2
    lines = (tmp_path / "faces" / "faces.jsonl").read_text()
    (tmp_path / "b.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    assert read_boxes(tmp_path / "b.jsonl") == old.choice.known, "some editors begin a file with a mark"


def test_points_of_another_detector_are_taken(folder: Path, tmp_path: Path):
    from adapt.faces.align import template

    points = PLACES["one"][0].to_photo(template(SIDE, own=False)).tolist()
    line = {"photo": "one", "box": [100, 100, 300, 320], "points": points}
    (tmp_path / "boxes.jsonl").write_text(json.dumps(line))
    align(folder / "one.png", tmp_path / "out", finding=Finding(boxes=tmp_path / "boxes.jsonl"))
    found = json.loads((tmp_path / "out" / "faces.jsonl").read_text().splitlines()[0])
    x, y, along, down = found["placement"]
    place = PLACES["one"][0]
    assert (x, y) == (pytest.approx(place.x, abs=1), pytest.approx(place.y, abs=1))
    assert (along, down) == (pytest.approx(place.a * SIDE, rel=0.01), pytest.approx(place.b * SIDE, rel=0.05))


@pytest.mark.parametrize("text", [
    '{"photo": "a", "box": [1, 2, 3]}', '{"photo": "a", "box": [9, 0, 1, 5]}', '{"box": [0, 0, 1, 1]}', "[]", "no JSON",
    '{"photo": "a", "box": [0, 0, 9, 9], "points": [[1, 2]]}', '{"photo": 3}',
    '{"photo": "a", "box": [0, 0, 9, 9], "placement": [0, 0, 0, 0]}',
    '{"photo": "a", "box": [0, 0, 9, 9], "placement": [0, NaN, 1, 0]}',
    '{"photo": "a", "box": [0, 0, 9, 9], "points": [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]}',
])  # fmt: skip
def test_a_bad_line_of_boxes_is_named(text: str, tmp_path: Path):
    (tmp_path / "b").write_text('{"photo": "good", "box": [0, 0, 1, 1]}\n' + text)
    with pytest.raises(UsageError, match=r"--boxes .*b, line 2: expected \{"):
        read_boxes(tmp_path / "b")


def test_what_a_photo_is_is_told_by_its_look(folder: Path, finder: FaceFinder, tmp_path: Path):
    auto = Preparer(size=SIDE, mode="auto", finder=finder)
    large = torch.nn.functional.interpolate(some_faces(1)[0][None], (300, 300), mode="bicubic")[0].clamp(0, 1)
    square = photograph(400, 400, [(some_faces(2)[1], at(120, 140, 130))])
    for name, image, whole in (("own", some_faces(1)[0], False), ("large", large, False), ("square", square, True)):
        write_image(tmp_path / f"{name}.png", image)
        assert ("faces" in auto(name, tmp_path / f"{name}.png").line) == whole, name
    assert "faces" in auto("group", folder / "group.png").line


def test_the_command_restores_whole_photographs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert adapt(monkeypatch, "restore", "tiny", folder, "-o", out, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "3 faces in 3 whole photographs" in printed
    assert "no face found: none; it was left as it is" in printed
    first = {path.name: path.read_bytes() for path in out.glob("*.png")}
    change = np.abs(np.array(Image.open(out / "one.png")).astype(int) - np.array(Image.open(folder / "one.png")))
    assert change.max() > 8
    assert change[:20].max() == 0
    (out / "one.png").unlink()
    assert adapt(monkeypatch, "restore", "tiny", folder, "-o", out, "--device", "cpu") == 0
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == first
    assert adapt(monkeypatch, "restore", "tiny", folder, "-o", out, "--largest") == 2
    assert "holds photos whose faces were found otherwise" in capsys.readouterr().err
    assert adapt(monkeypatch, "restore", "tiny", folder, "-o", out, "--strength", "0.5") == 2
    assert "holds images of strength 1.0, not 0.5" in capsys.readouterr().err
    assert adapt(monkeypatch, "restore", "tiny", folder, "-o", out, "--faces", "aligned", "--largest") == 2
    assert "--largest: is for whole photographs" in capsys.readouterr().err


def test_a_run_gives_whole_photographs_back(
    folder: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    photos = Path(shutil.copytree(folder, tmp_path / "photos"))
    write(photos / "two.png", photograph(300, 420, [(some_faces(8)[7], at(200, 150, 180))]))
    (photos / "broken.jpg").write_bytes(b"nothing")
    out = tmp_path / "out"
    command = [
        "run", photos, "-o", out, "--pack", small_pack, "--device", "cpu", "--method", "low-frequency",
        *(f"targets.{each}" for each in QUICK_TARGETS), *(f"finetune.{each}" for each in QUICK_FINETUNE),
        "verdict.photos=2",
    ]  # fmt: skip
    bundled: list[object] = []

    def export_choice(out: Path, *_: object, whole: object, **__: object) -> Path:
        bundled.append(whole)
        return out / "model.onnx"

    monkeypatch.setattr("adapt.commands.run.export_choice", export_choice)
    assert adapt(monkeypatch, *command) == 3
    printed = capsys.readouterr()
    assert "4 faces in 4 whole photographs" in printed.out
    assert "broken.jpg" in printed.err
    whole = sorted(path.stem for path in (out / "restored").glob("*.png"))
    assert whole == ["group", "none", "one", "two"]
    assert Image.open(out / "restored" / "group.png").size == (560, 360)
    assert len(list((out / "restored-faces").glob("*.png"))) == 4
    page = (out / "report.html").read_text()
    assert "group-face1" in page
    assert 'class="whole"' in page
    assert bundled == ["tiny"], "the bundle takes what the run took, by the networks that found it"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".png", ".onnx")}
    assert adapt(monkeypatch, *command) == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is made twice"


def test_targets_and_fine_tuning_take_whole_photographs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    store, tuned = tmp_path / "store", tmp_path / "tuned"
    make = [
        "generate-targets", folder, "-o", store, "--device", "cpu", "--method", "low-frequency", "steps=2",
        "gate.min_contrast=0", "gate.max_low_frequency_change=1",
    ]  # fmt: skip
    assert adapt(monkeypatch, *make) == 0
    assert "3 faces in 3 whole photographs" in capsys.readouterr().out
    names = {"group-face1", "group-face2", "one-face1"}
    assert {path.stem for path in (store / "faces").glob("*.png")} == names
    targets = accepted_targets(store)
    assert {*targets} == names
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.png")}
    assert adapt(monkeypatch, *make) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is made twice"

    tune = ["finetune", "--targets", store, "-o", tuned, "--device", "cpu", "steps=1", "batch=2",
            "evaluate_every=1", "discriminator.first_steps=0", "--recipe", "swinir"]  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    shutil.copyfile(folder / "one.png", other / "somebody.png")
    assert adapt(monkeypatch, *tune, "--photos", other) == 2
    assert "are of faces in other photographs" in capsys.readouterr().err
    assert adapt(monkeypatch, *tune, "--photos", folder) == 0
    again = load_restorer(tuned).digest
    assert adapt(monkeypatch, *tune, "--photos", store / "faces") == 0, "the same photos"
    assert load_restorer(tuned).digest == again
    make[1] = tmp_path / "aligned"
    for name, face in zip("ab", some_faces(2), strict=True):
        write_image(tmp_path / "aligned" / f"{name}.png", face)
    assert adapt(monkeypatch, *make, "--overwrite") == 0
    assert {*accepted_targets(store)} == {"a", "b"}
    assert not (store / "faces").exists(), "they would be taken for the targets' photos"


def test_whole_photographs_are_cut_once_and_not_by_every_shard(folder: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    command = ["generate-targets", folder, "-o", tmp_path / "store", "--shard", "1/2", "--faces", "whole"]
    assert adapt(monkeypatch, *command) == 2
    assert not (tmp_path / "store").exists()


def test_faces_of_one_photograph_lie_on_one_side(tmp_path: Path):
    from adapt.finetuning.data import split_pairs

    for number in range(8):
        write_image(tmp_path / f"{number}.png", torch.full((3, 16, 16), number / 10))
    targets = {str(number): [tmp_path / f"{number}.png"] for number in range(8)}
    groups = {str(number): f"photo {number // 4}" for number in range(8)}
    for seed in range(6):
        train, held = split_pairs(tmp_path, targets, size=16, holdout=0.3, seed=seed, groups=groups)
        assert {groups[id] for id in train.ids}.isdisjoint(groups[id] for id in held.ids)
        assert len(held.ids) == 4


def test_originals_are_for_aligned_faces(folder: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="originals are held against aligned faces"):
        run(folder, tmp_path / "out", truth=folder, faces="whole")
    assert not (tmp_path / "out").exists()
