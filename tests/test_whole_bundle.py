"""A bundle for whole photographs: its numpy code beside ours, and its runner beside `adapt restore`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import SIDE, at, photograph, some_faces
from PIL import Image
from test_runner import make_bundle, run_model
from torch import Tensor

import adapt
from adapt.digests import file_digest
from adapt.errors import VerificationError
from adapt.exporting import face_detector as detecting
from adapt.exporting import finding
from adapt.exporting import whole_photographs as alone
from adapt.exporting.finding import DETECTOR_ONNX, LANDMARKS_ONNX, FindingNetworks, write_finding
from adapt.exporting.onnx import INPUT, open_session
from adapt.exporting.runner import WHOLE
from adapt.faces import align, find, landmarks, mtcnn, paste
from adapt.faces.crops import Window, resized_from_corner
from adapt.faces.mtcnn import CascadeDetector
from adapt.images import to_uint8
from adapt.loading import load_detector, load_face_finder, load_landmarks
from adapt.photos.files import read_image

RANDOM = torch.rand(3, 61, 47, generator=torch.Generator().manual_seed(3))
PLACES = [at(30, 20, 40, 20), at(10, 50, 90, -30), at(24, 30, 300, 5), at(200, 200, 50)]


def ours(place: align.Placement) -> alone.Placement:
    return alone.Placement(place.a, place.b, place.x, place.y)


def cascade() -> CascadeDetector:
    loaded = load_detector("tiny")
    assert isinstance(loaded, CascadeDetector)
    return loaded


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer that blurs and tints, at 128 px, with what finds faces."""
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "whole", fidelity=False)
    worst = write_finding(FindingNetworks(cascade(), load_landmarks("tiny")), folder)
    assert set(worst) == {*DETECTOR_ONNX, LANDMARKS_ONNX}
    assert 0 < max(worst.values()) < finding.AGREES
    about = json.loads((folder / "bundle.json").read_text())
    about["size"] = SIDE
    about["sha256"] |= {name: file_digest(folder / name) for name in WHOLE}
    (folder / "bundle.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole ones of every kind, an aligned face and a square one of another size."""
    folder, faces = tmp_path_factory.mktemp("photos"), some_faces(9)

    def image(photo: Tensor) -> Image.Image:
        return Image.fromarray(to_uint8(photo))

    group = photograph(360, 560, [(faces[1], at(150, 140, 170)), (faces[2], at(420, 200, 110, turn=20))])
    image(group).save(folder / "group.png", dpi=(300, 300))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    turned = image(photograph(400, 300, [(faces[3], at(160, 200, 220, turn=-10))]))
    turned.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95, dpi=(300, 150))
    image(photograph(900, 1400, [(faces[4], at(700, 450, 640, turn=8))])).save(folder / "large.jpg", quality=95)
    image(photograph(300, 420, [(faces[5], at(210, 150, 200))])).convert("L").save(folder / "grey.png")
    veiled = image(photograph(300, 420, [(faces[6], at(30, 150, 200))]))
    veiled.putalpha(Image.linear_gradient("L").resize(veiled.size))
    veiled.save(folder / "veiled.png")
    image(photograph(200, 300, [])).save(folder / "none.png")
    image(photograph(200, 300, [])).save(folder / "told.tif", tiffinfo={271: "A scanner", 33432: "Somebody"})
    image(faces[7]).save(folder / "aligned.png")
    image(faces[8]).resize((200, 200)).save(folder / "larger aligned.png")
    return folder


@pytest.fixture(scope="module")
def pair(bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """What the runner and `adapt restore` made of all of them, and what the runner said."""
    out = tmp_path_factory.mktemp("out")
    done = run_model(bundle / "run_model.py", photos, out / "runner")
    assert done.returncode == 0, done.stderr
    restored = adapt.restore(bundle, photos, out / "restore", device="cpu", faces="auto")
    assert restored.done == len(list(photos.iterdir()))
    return out / "runner", out / "restore", done.stderr


NAMES = ("group", "turned", "large", "grey", "veiled", "none", "told", "aligned", "larger aligned")


@pytest.mark.parametrize("name", NAMES)
def test_the_runner_makes_what_restore_makes(name: str, photos: Path, pair: tuple[Path, Path, str]):
    runner, restore, said = pair
    got, expected = (read_image(folder / f"{name}.png") for folder in (runner, restore))
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1.01 / 255
    source = next(photos.glob(f"{name}.*"))
    faces = {"group": "2 faces", "none": "no faces", "told": "no faces"}.get(name, "1 face")
    assert (f"{source}: {faces} found" in said) == ("aligned" not in name)
    before = read_image(source)
    if "aligned" not in name:
        changed = (got - before).abs() > 0.5 / 255
        assert before.shape == got.shape
        assert changed.any() == (name not in ("none", "told"))
        assert not changed[:, :, -8:].any(), "nothing but faces changes"


def test_what_goes_with_a_photo_stays(pair: tuple[Path, Path, str]):
    with Image.open(pair[0] / "group.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    with Image.open(pair[0] / "turned.png") as image:
        assert image.size == (300, 400)
        assert image.getexif()[0x010F] == "A camera"
        assert 0x0112 not in image.getexif()
        assert image.info["dpi"] == pytest.approx((150, 300), abs=0.1), "a quarter turned"
    with Image.open(pair[0] / "told.png") as image, Image.open(pair[1] / "told.png") as other:
        assert (image.getexif()[271], image.getexif()[33432]) == ("A scanner", "Somebody")
        assert dict(image.getexif()) == dict(other.getexif())
    with Image.open(pair[0] / "grey.png") as image:
        assert image.mode == "L"
    with Image.open(pair[0] / "veiled.png") as image, Image.open(pair[1] / "veiled.png") as other:
        assert np.array_equal(np.asarray(image.getchannel("A")), np.asarray(other.getchannel("A")))


def test_faces_are_as_it_is_told(bundle: Path, photos: Path, tmp_path: Path):
    one = tmp_path / "one"
    one.mkdir()
    shutil.copyfile(photos / "aligned.png", one / "aligned.png")
    whole = run_model(bundle / "run_model.py", one, tmp_path / "whole", "--faces", "whole")
    assert "found" in whole.stderr, "searched, whatever its look says"
    runner = bundle / "run_model.py"
    again = run_model(runner, one, tmp_path / "whole")
    assert (again.returncode, "holds images of --faces whole, not auto" in again.stderr) == (2, True)
    aligned = run_model(runner, photos, tmp_path / "aligned", "--faces", "aligned")
    assert aligned.returncode == 3
    assert "group.png: cannot be read (not an aligned face" in aligned.stderr


def test_a_bundle_without_is_for_aligned_faces(tmp_path: Path, photos: Path):
    plain = make_bundle(tmp_path / "plain", fidelity=False)
    done = run_model(plain / "run_model.py", photos, tmp_path / "out", "--faces", "whole")
    assert (done.returncode, "export it with --whole" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", WHOLE)
def test_no_other_file_than_the_one_that_is_named(name: str, bundle: Path, photos: Path, tmp_path: Path):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    with (other / name).open("ab") as stream:
        stream.write(b"\n")
    done = run_model(other / "run_model.py", photos, tmp_path / "out")
    assert (done.returncode, done.stderr) == (2, f"{other / name}: is not the file that bundle.json names; export it"
                                                 " again\n")  # fmt: skip


@pytest.mark.parametrize("faulted", DETECTOR_ONNX)
def test_a_detector_whose_file_computes_something_else_is_not_let_through(
    faulted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    networks = FindingNetworks(cascade(), load_landmarks("tiny"))
    real = finding.export_finding

    def faulty(network: torch.nn.Module, path: Path, side: int | None, outputs: Sequence[str]) -> None:
        real(network, path, side, outputs)
        if path.name == faulted:
            with torch.no_grad():
                next(network.parameters()).mul_(1.01)

    monkeypatch.setattr(finding, "export_finding", faulty)
    with pytest.raises(VerificationError, match=f"^{faulted}: differs from the network by"):
        write_finding(networks, tmp_path)


# ---------------------------------------------------------------- the code by itself


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mirrored", [True, False])
def test_sampling(place: align.Placement, mirrored: bool):
    window = Window(-5, 3, 40, 50)
    expected = align.sampled(RANDOM, place, window, outside="reflection" if mirrored else "zeros")
    got = alone.sampled(RANDOM.numpy(), ours(place), (-5, 3, 40, 50), mirrored=mirrored)
    assert np.abs(got - expected.numpy()).max() < 5e-5


@pytest.mark.parametrize("window", [(0, 0, 61, 61), (-20, -3, 30, 47), (10.3, 20.2, 14.9, 24.8), (70, 80, 90, 100)])
def test_windows_of_the_networks(window: tuple[float, float, float, float]):
    expected = resized_from_corner(RANDOM[None], Window(*window), 32)[0]
    assert np.abs(alone.resized(RANDOM.numpy(), window, 32) - expected.numpy()).max() < 1e-6


def test_views():
    photo = torch.rand(3, 700, 1500, generator=torch.Generator().manual_seed(0))
    for (view, window), (own, same) in zip(
        find.views(photo, 24), detecting.views(photo.numpy(), 24), strict=True
    ):
        assert tuple(window) == same
        assert np.abs(view.numpy() - own).max() < 1e-6


@pytest.mark.parametrize("own", [True, False])
def test_the_place_of_five_points(own: bool):
    for place in PLACES:
        points = place.to_photo(align.template(SIDE, own=own)) + torch.randn(
            5, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64
        )
        expected = align.placed(points, find.CROP, own=own)
        got = alone.placed(points.numpy(), alone.TEMPLATE if own else alone.DETECTOR_TEMPLATE)
        assert got is not None
        assert np.allclose([got.a, got.b, got.x, got.y], [expected.a, expected.b, expected.x, expected.y], atol=1e-9)
    assert alone.placed(np.ones((5, 2)), alone.TEMPLATE) is None


def test_mask_and_what_is_laid_over():
    points = torch.tensor(np.random.default_rng(0).normal(64, 22, (68, 2)))
    mask = paste.face_mask(points, SIDE)
    own = alone.face_mask(points.numpy(), SIDE)
    assert np.abs(mask.numpy() - own).max() < 1e-6
    assert own.max() == 1
    crop, restored = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for place in PLACES[:3]:
        part, window = paste.paste(RANDOM, crop, restored, mask, place)
        expected, laid = RANDOM.clone(), RANDOM.numpy().copy()
        left, top, right, bottom = (int(edge) for edge in window)
        expected[:, top:bottom, left:right] = part
        alone.paste(laid, crop.numpy(), restored.numpy(), own, ours(place))
        assert np.abs(expected.numpy() - laid).max() < 1e-4


@pytest.mark.parametrize("size", [(61, 47), (24, 24), (48, 90), (7, 5)])
def test_means_over_pixels(size: tuple[int, int]):
    expected = torch.nn.functional.interpolate(RANDOM[None], size, mode="area")[0]
    assert np.abs(detecting.averaged(RANDOM.numpy(), *size) - expected.numpy()).max() < 1e-6


def drawn_windows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Windows around a photo of 47 x 61, (count, 4), and scores of which some are equal but for the last bits."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 70 - 15
    windows = torch.cat([corners, corners + 20 + 30 * torch.rand(count, 2, generator=generator)], dim=1)
    scores = (torch.rand(count, generator=generator) * 8).ceil() / 8
    return windows, scores - 1e-5 * torch.rand(count, generator=generator)


@pytest.mark.parametrize("side", mtcnn.SIDES)
def test_what_the_detectors_networks_look_at(side: int):
    windows, _ = drawn_windows(40, 1)
    expected = mtcnn.looked_at(RANDOM, windows, side)
    assert np.abs(detecting.looked_at(RANDOM.numpy(), windows.numpy(), side) - expected.numpy()).max() < 1e-6
    assert detecting.looked_at(RANDOM.numpy(), windows[:0].numpy(), side).shape == (0, 3, side, side)


@pytest.mark.parametrize("count", [0, 1, 60])
def test_windows_of_the_detector(count: int):
    windows, scores = drawn_windows(count, 2)
    offsets = torch.randn(count, 4, generator=torch.Generator().manual_seed(4)) / 5
    changed = mtcnn.moved(windows, offsets)
    assert np.allclose(detecting.moved(windows.numpy(), offsets.numpy()), changed.numpy(), rtol=0, atol=1e-5)
    assert np.allclose(detecting.squared(changed.numpy()), mtcnn.squared(changed).numpy(), rtol=0, atol=1e-5)
    for most in (0.3, 0.5, 0.7):
        for of_smaller in (False, True):
            expected = mtcnn.each_once(windows, scores, most, of_smaller=of_smaller)
            assert detecting.each_once(windows.numpy(), scores.numpy(), most, of_smaller=of_smaller) == expected
            assert count < 2 or 1 < len(expected) < count


def test_windows_that_share_just_a_half_stay():
    """Places of the first network, four pixels of its view apart, in pixels of a photo: in single and in double."""
    for width, own in ((239, 560), (85, 560), (43, 560), (97, 301)):
        corner = torch.arange(0, 60, 4, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.0], dtype=torch.float64)
        windows = torch.cat([corner, corner + 12], dim=1) * own / width
        scores = torch.linspace(0.9, 0.7, len(windows), dtype=torch.float64)
        every = list(range(len(windows)))
        assert mtcnn.each_once(windows.float(), scores.float(), mtcnn.SAME_AT_ONE_SIZE) == every
        assert mtcnn.each_once(windows, scores, mtcnn.SAME_AT_ONE_SIZE) == every
        assert detecting.each_once(windows.numpy(), scores.numpy(), detecting.SAME_AT_ONE_SIZE) == every


def test_faces_of_a_view(bundle: Path, photos: Path):
    """Box, score and points of every face, in pixels and in [0, 1]; found apart by 1e-4."""

    def network(name: str) -> detecting.Session:
        session = open_session(bundle / name)
        return lambda pixels: session.run(None, {INPUT: pixels})

    proposal, refine, output = (network(name) for name in DETECTOR_ONNX)
    finder, detector = detecting.Detector(proposal, refine, output), cascade()
    for name, faces in (("group.png", 2), ("none.png", 0)):
        view = read_image(photos / name)
        found, expected = finder.detected(view.numpy()), detector.find(view)
        assert len(found) == len(expected) == faces
        for (box, score, points), face in zip(found, expected, strict=True):
            assert np.allclose(box, face.box, rtol=0, atol=0.01)
            assert score == pytest.approx(face.score, abs=1e-3)
            assert np.allclose(points, face.points, rtol=0, atol=0.01)


def test_the_numbers_are_the_same():
    for code, names in (
        (detecting, ("MIN_FACE", "SEEN_AT", "SMALLEST_SEEN", "OVERLAP", "SAME_BOX")),
        (alone, ("SAME_FACE", "CROP", "ROUNDS", "WORST_MISFIT", "ACROSS")),
    ):
        assert [getattr(code, name) for name in names] == [getattr(find, name) for name in names]
    names = ("CELL", "STRIDE", "SMALLEST", "FACTOR", "SIDES", "PROPOSED", "REFINED", "SCORE_STEPS", "ROUNDED",
             "SAME_AT_ONE_SIZE", "SAME", "INSIDE", "MORE")  # fmt: skip
    assert [getattr(detecting, name) for name in names] == [getattr(mtcnn, name) for name in names]
    assert (alone.FOREHEAD, alone.FEATHER, alone.MOST_SAMPLES) == (paste.FOREHEAD, paste.FEATHER, align.MOST_SAMPLES)
    assert np.array_equal(alone.TEMPLATE, align.OWN_TEMPLATE)
    assert np.array_equal(alone.DETECTOR_TEMPLATE, align.TEMPLATE)
    assert (landmarks.SIDE, tuple(landmarks.AROUND)) == (alone.LANDMARKS_AT, alone.AROUND)
    finder = load_face_finder("tiny")
    assert finder.min_score == cascade().min_score == detecting.MIN_SCORE
    assert finder.scores == mtcnn.SCORES == (detecting.MIN_SCORE, alone.SURE, alone.SURE_AGAIN)
