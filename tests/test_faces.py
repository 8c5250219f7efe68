"""The face networks: what their authors' own code computes, real people told apart, and what every use relies on."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from command_line import adapt
from conftest import ROOT
from PIL import Image
from torch import Tensor

from adapt.errors import AdaptError, RangeError, ShapeError, UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.faces.crops import Window, letterbox, resized, resized_from_corner
from adapt.faces.detector import FaceDetector
from adapt.faces.entries import ARCHITECTURES, DETECTOR, SSD_DETECTOR
from adapt.faces.landmarks import LEFT_EYE, RIGHT_EYE, Landmarks, eye_distance
from adapt.faces.measures import (
    identity_distance,
    identity_similarity,
    landmark_distance,
)
from adapt.faces.recogniser import Recogniser, cosine_similarity, crop, euclidean_distance
from adapt.loading import load_detector, load_landmarks, load_recogniser
from adapt.packs.pack import EMBEDDED, load_pack
from adapt.photos.files import read_image
from adapt.weights import read_state, write_state
from degradations.cosines import gaussian_blur

TINY = EMBEDDED / "tiny"
AtOneSize = Literal["ssd", "tiny"]  # the detectors that see a photo so; the cascade has its own tests
SHIPPED = [entry for entry in ARCHITECTURES if entry != SSD_DETECTOR]  # MTCNN finds more in less time
DETECTORS: dict[str, AtOneSize] = {"ssd_mobilenetv1": "ssd", "tiny_face_detector": "tiny"}


def detector_of(name: str | Path, kind: AtOneSize) -> FaceDetector:
    loaded = load_detector(name, kind)
    assert isinstance(loaded, FaceDetector)
    return loaded


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    loaded = load_recogniser("tiny")
    assert isinstance(loaded, Recogniser)
    return loaded


@pytest.fixture(scope="module")
def landmarks() -> Landmarks:
    return load_landmarks("tiny")


@pytest.fixture(scope="module")
def package(shared: Path) -> Path:
    """The npm package's weights, four faces and a photo, and what its own code says of them."""
    folder = shared / "networks" / "face-api"
    if not folder.is_dir():
        pytest.skip("../shared/networks/face-api is absent: this test needs what the authors' own code computed")
    return folder


@pytest.fixture(scope="module")
def converted(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of the package's networks, the SSD among them, which does not ship."""
    folder = tmp_path_factory.mktemp("converted")
    (folder / "pack.yaml").write_text("name: p\nsize: 8\ndescription: d\nrestorer: r\nnetworks: {}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setattr("sys.argv", ["convert", str(package), "--pack", str(folder), "--with-ssd"])
        importlib.import_module("convert_face_networks").main()
    assert load_pack(folder).card.networks[SSD_DETECTOR].licence == "MIT AND Apache-2.0"
    return folder


@pytest.fixture(scope="module")
def fixtures(package: Path) -> dict[str, Any]:
    return json.loads((package / "fixtures.json").read_text())


def images(side: int, count: int = 3) -> Tensor:
    return torch.stack(list(smooth_images((count, side, side), seed=5)))


# ---------------------------------------------------------------- what the authors' own code computes


def test_embeddings_and_points_are_those_of_the_authors_code(
    package: Path, fixtures: dict[str, Any], recogniser: Recogniser, landmarks: Landmarks
) -> None:
    """Computed by @vladmandic/face-api 1.7.15. Tolerance: rounding of weights to half precision; found 2.3e-4, 5e-5."""
    names = sorted(fixtures["faces"])
    faces = torch.stack([read_image(package / name) for name in names])
    embeddings, points = (
        torch.tensor([fixtures["faces"][name][kind] for name in names]) for kind in ("descriptor", "landmarks")
    )
    torch.testing.assert_close(recogniser(faces), embeddings, rtol=0, atol=5e-4)
    torch.testing.assert_close(landmarks(faces), points, rtol=0, atol=0.01)


@pytest.mark.parametrize("model", DETECTORS)
def test_boxes_are_those_of_the_authors_code(
    package: Path, converted: Path, fixtures: dict[str, Any], model: str
) -> None:
    """Two faces, one small and one turned by 12 degrees, in a photo wider than high; boxes in pixels."""
    found = detector_of(converted, DETECTORS[model]).find(read_image(package / "whole.png"))
    expected = fixtures["whole"][model]
    boxes = [(left, top, left + width, top + height) for left, top, width, height in (each["box"] for each in expected)]
    assert len(found) == len(expected)
    np.testing.assert_allclose(np.array([face.box for face in found]), boxes, rtol=0, atol=0.05)
    np.testing.assert_allclose([face.score for face in found], [each["score"] for each in expected], rtol=0, atol=1e-4)


def test_real_people_are_told_apart(shared: Path, recogniser: Recogniser) -> None:
    """Twenty people, neutral and smiling: any two photos of one are nearer than any of two (AUC 1)."""
    folder = shared / "faces" / "train" / "256" / "london_set"
    neutral = sorted(folder.glob("*neutral*"))[:20]
    people = [path.name.split("__")[0] for path in neutral]
    smiling = [next(folder.glob(f"{person}__*smiling*")) for person in people]
    with torch.no_grad():
        first, second = (
            recogniser.of_aligned(torch.stack([read_image(path) for path in paths])) for paths in (neutral, smiling)
        )
    distances = torch.cdist(first, second)
    same = distances.diagonal()
    others = distances[~torch.eye(len(people), dtype=torch.bool)]
    auc = (same[:, None] < others[None, :]).double().mean()
    assert auc > 0.999
    assert same.mean() < 0.3 < 0.5 < others.mean()
    torch.testing.assert_close(euclidean_distance(first, second), same, rtol=0, atol=1e-5)
    alike = cosine_similarity(first, second)
    assert alike.min() > cosine_similarity(first, second.roll(1, 0)).mean()


def test_points_of_aligned_faces_are_those_inside_a_detectors_box(
    shared: Path, converted: Path, landmarks: Landmarks
) -> None:
    """By way of the SSD at 256 px, and as the pack's faces are, at 128 px; in shares of the eye distance."""
    paths = sorted((shared / "faces" / "train" / "256" / "london_set").glob("*neutral*"))[:8]
    detector = load_detector(converted, "ssd")
    with torch.no_grad():
        for path in paths:
            face = read_image(path)[None]
            by_box = landmarks.inside(face, detector.find(face[0])[0].box)
            small = resized(face, Window(0, 0, 256, 256), 128)
            for found in (landmarks.of_aligned(face), landmarks.of_aligned(small) * 2):
                distance = torch.linalg.vector_norm(found - by_box, dim=-1).mean() / eye_distance(by_box)
                assert distance < 0.05, path.name
            eyes = landmarks.of_aligned(face)[0] / 256
            torch.testing.assert_close(
                torch.stack([eyes[RIGHT_EYE].mean(0), eyes[LEFT_EYE].mean(0)]),
                torch.tensor([[0.375, 0.469], [0.62, 0.469]]), rtol=0, atol=0.025,
            )  # fmt: skip


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize("side", [97, 128, 256, 512])
def test_a_crop_is_pillows(side: int) -> None:
    """Pillow resizes floats by the same definition; it rounds the box to float32, hence the tolerance."""
    faces = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    box = (0.1 * side, 0.1 * side, 0.9 * side, 0.9 * side)
    channels = [Image.fromarray(channel.numpy()) for channel in faces.flatten(0, 1)]
    expected = np.array([np.asarray(each.resize((150, 150), Image.Resampling.BILINEAR, box)) for each in channels])
    np.testing.assert_allclose(crop(faces).flatten(0, 1).numpy(), expected, rtol=0, atol=2e-5)


def test_the_crop_of_a_face_whose_crop_has_150_pixels_is_cut_out_exactly() -> None:
    faces = torch.rand(1, 3, 250, 250, generator=torch.Generator().manual_seed(0))
    for read in (resized, resized_from_corner):
        cut = read(faces, Window(25, 50, 175, 200), 150)
        torch.testing.assert_close(cut, faces[..., 50:200, 25:175], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(20, 50), (50, 20), (37, 37)])
@pytest.mark.parametrize("centred", [True, False])
def test_what_is_missing_to_a_square_is_black(height: int, width: int, centred: bool) -> None:
    """Reference: the image pasted into a black square, brought to a third of it and to three times as much."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) + 1
    side = max(height, width)
    square = torch.zeros(1, 3, side, side)
    top, left = ((side - height) // 2, (side - width) // 2) if centred else (0, 0)
    square[..., top : top + height, left : left + width] = image
    window = letterbox(height, width, centred=centred)
    assert window.right - window.left == window.bottom - window.top == side
    torch.testing.assert_close(resized(image, window, side), square, rtol=0, atol=1e-6)
    for size in (side // 3, side * 3):
        for read in (resized, resized_from_corner):
            boxed, whole = read(image, window, size), read(square, Window(0, 0, side, side), size)
            edge = -(-2 * max(size, side) // side)  # there one is a mean with black and the other is not
            rows, columns = (slice(edge, -edge),) * 2
            differ = (boxed - whole).abs().amax(1)[0] > 1e-5
            assert differ[rows, columns].float().mean() < 4 * edge / size
            assert (boxed == 0).float().mean() == pytest.approx(1 - height * width / side**2, abs=2 / min(size, 20))


# ---------------------------------------------------------------- what every use relies on


def test_no_face_depends_on_its_batch(recogniser: Recogniser, landmarks: Landmarks) -> None:
    faces = images(128, 4)
    detector = detector_of("tiny", "tiny")
    network = detector.network(resized(faces, Window(0, 0, 128, 128), detector.network.side))
    alone = detector.network(resized(faces[2:3], Window(0, 0, 128, 128), detector.network.side))
    for together, apart in (
        (recogniser.of_aligned(faces), recogniser.of_aligned(faces[2:3])),
        (landmarks.of_aligned(faces), landmarks.of_aligned(faces[2:3])),
        (landmarks(faces[:, :, 16:]), landmarks(faces[2:3, :, 16:])),
        (network[0], alone[0]),
        (network[1], alone[1]),
    ):
        torch.testing.assert_close(together[2:3], apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [128, 512])
def test_gradients_reach_the_faces_and_not_the_weights(
    recogniser: Recogniser, landmarks: Landmarks, size: int
) -> None:
    other = images(size, 1).flip(-1) * 0.8
    for name, measured in (
        ("embeddings", lambda x: recogniser.of_aligned(x).square().sum()),
        ("points", lambda x: landmarks.of_aligned(x).square().sum()),
        ("distance", lambda x: identity_distance(x, other, recogniser).sum()),
        ("similarity", lambda x: identity_similarity(x, other, recogniser).sum()),
        ("landmarks", lambda x: landmark_distance(x, other, landmarks).sum()),
    ):
        face = images(size, 1).requires_grad_()
        measured(face).backward()
        assert face.grad is not None
        assert torch.isfinite(face.grad).all(), name
        assert face.grad.abs().max() > 0, name
    weights = [*recogniser.network.parameters(), *landmarks.network.parameters()]
    assert all(weight.grad is None and not weight.requires_grad for weight in weights)


def test_a_gradient_is_the_slope(recogniser: Recogniser) -> None:
    """Against finite differences in float64, along the gradient itself."""
    network = copy.deepcopy(recogniser.network).double()
    face = images(64, 1).double().requires_grad_()
    value = network(crop(face)).square().sum()
    (slope,) = torch.autograd.grad(value, face)
    step = 1e-5 * slope / slope.norm()
    with torch.no_grad():
        rise = network(crop(face + step)).square().sum() - network(crop(face - step)).square().sum()
    assert rise.item() == pytest.approx(2e-5 * slope.norm().item(), rel=1e-3)


def test_equal_faces_have_no_distance_and_a_gradient_that_is_finite(recogniser: Recogniser) -> None:
    face = images(64, 1).requires_grad_()
    distance = identity_distance(face, face.detach().clone(), recogniser)
    distance.sum().backward()
    assert distance.item() < 1e-5
    assert face.grad is not None
    assert torch.isfinite(face.grad).all()


GREY = torch.full((2, 3, 32, 32), 0.5)
REFUSED = {
    "8-bit data": (GREY * 255, RangeError, r"expected values in \[0, 1\], got \[128, 128\] -- 8-bit data"),
    "not finite": (GREY * float("nan"), RangeError, r"expected values in \[0, 1\], got \[nan, nan\]"),
    "one image": (GREY[0], ShapeError, r"expected a batch of shape \(B, 3, H, W\), got \(3, 32, 32\)"),
    "grey": (GREY[:, :1], ShapeError, r"expected a batch of shape \(B, 3, H, W\), got \(2, 1, 32, 32\)"),
    "no image": (GREY[:0], ShapeError, "expected one image or more"),
}
OBLONG = GREY[:, :, :20]


@pytest.mark.parametrize("case", REFUSED)
def test_other_images_are_refused(recogniser: Recogniser, landmarks: Landmarks, case: str) -> None:
    faces, error, message = REFUSED[case]
    for use in (recogniser, recogniser.of_aligned, landmarks, landmarks.of_aligned):
        with pytest.raises(error, match=message):
            use(faces)
    with pytest.raises(error, match=message):
        detector_of("tiny", "tiny").find_all(faces)
    with pytest.raises(error, match=message):
        identity_distance(GREY, faces, recogniser)


def test_shapes_that_do_not_go_together_are_refused(recogniser: Recogniser, landmarks: Landmarks) -> None:
    for use, name in ((recogniser, "tiny/recogniser"), (landmarks.of_aligned, "tiny/landmarks"), (crop, "crop")):
        with pytest.raises(ShapeError, match=rf"^{name}: expected square faces of shape \(B, 3, S, S\), got \(2, 3, 2"):
            use(OBLONG)
    with pytest.raises(ShapeError, match=r"^identity: expected as many faces in both batches, got 2 and 1$"):
        identity_similarity(GREY, GREY[:1], recogniser)
    with pytest.raises(ShapeError, match=r"^landmarks: expected two batches of one shape, got \(2, 3, 32, 32\) and"):
        landmark_distance(GREY, GREY[..., :16, :16], landmarks)
    with pytest.raises(ShapeError, match=r"^recogniser: expected faces of \(B, 3, 150, 150\), got \(2, 3, 32, 32\)"):
        recogniser.network(GREY)
    with pytest.raises(ShapeError, match=r"^tiny/detector-tiny: expected one photo of shape \(3, H, W\), got \(2"):
        detector_of("tiny", "tiny").find(GREY)


# ---------------------------------------------------------------- detectors


class Fixed(torch.nn.Module):
    """A network that says the same of every photo: boxes in shares of the square around it."""

    side = 8

    def __init__(self, boxes: list[list[float]], scores: list[float]) -> None:
        super().__init__()
        self.boxes = torch.nn.Parameter(torch.tensor(boxes), requires_grad=False)
        self.scores = torch.tensor(scores)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        assert photos.shape[1:] == (3, self.side, self.side)
        return self.boxes.expand(len(photos), -1, -1), self.scores.expand(len(photos), -1)


BOXES = [
    [0.1, 0.1, 0.3, 0.3], [0.12, 0.1, 0.32, 0.3], [-0.2, 0.3, 0.5, 0.9], [0.2, 0.7, 0.4, 0.9], [0.0, 0.0, 0.1, 0.1],
]  # fmt: skip
SCORES = [0.7, 0.9, 0.8, 0.95, 0.3]


def found_with(**settings: Any) -> list[tuple[list[float], float]]:
    network: Any = Fixed(BOXES, SCORES)
    detector = FaceDetector(name="fixed", network=network, **settings)
    faces = detector.find(torch.rand(3, 100, 200, generator=torch.Generator().manual_seed(0)))
    return [([round(edge, 3) for edge in face.box], round(face.score, 3)) for face in faces]


def test_boxes_are_in_pixels_and_within_the_photo_the_surest_first() -> None:
    """A photo of 200 x 100 is the upper half of its square: the third face is cut off, the fourth is outside."""
    assert found_with() == [([24, 20, 64, 60], 0.9), ([0, 60, 100, 100], 0.8)]


def test_every_setting_of_a_detector_turns() -> None:
    assert len(found_with(max_overlap=0.9)) == 3
    assert len(found_with(min_score=0.2)) == 3
    assert [score for _, score in found_with(min_score=0.85)] == [0.9]
    for settings, message in (
        ({"min_score": 1.5}, "fixed: min_score: expected a score between 0 and 1, got 1.5"),
        ({"min_score": 0.0}, "fixed: min_score: expected a score between 0 and 1, got 0"),
        ({"max_overlap": 0.0}, r"fixed: max_overlap: expected a share in \(0, 1\], got 0"),
        ({"max_overlap": float("nan")}, r"fixed: max_overlap: expected a share in \(0, 1\], got nan"),
    ):
        with pytest.raises(UsageError, match=message):
            found_with(**settings)


def test_a_photo_without_a_face_has_none() -> None:
    assert detector_of("tiny", "tiny").find_all(torch.full((2, 3, 30, 61), 0.4)) == [[], []]


def test_a_photo_without_a_face_has_none_for_the_ssd(converted: Path) -> None:
    assert detector_of(converted, "ssd").find_all(torch.full((2, 3, 30, 61), 0.4)) == [[], []]


def test_a_photo_of_any_size_shows_the_same_faces(package: Path, converted: Path) -> None:
    """Small, as it is, and so large that blocks of pixels are averaged first; at a share of 1.5 % of the side."""
    photo = read_image(package / "whole.png")
    for kind in DETECTORS.values():
        detector = detector_of(converted, kind)
        expected = np.array([face.box for face in detector.find(photo)]) / 640
        for size in ((360, 480), (1801, 2401)):
            resized_photo = torch.nn.functional.interpolate(photo[None], size, mode="bilinear", antialias=True)
            found = detector.find_all(resized_photo.clamp(0, 1).expand(2, -1, -1, -1))
            assert found[0] == found[1]
            np.testing.assert_allclose(np.array([f.box for f in found[0]]) / size[1], expected, rtol=0, atol=0.015)


# ---------------------------------------------------------------- measures


def test_identity_and_landmarks_say_how_much_a_face_changed(
    package: Path, recogniser: Recogniser, landmarks: Landmarks
) -> None:
    face, other = (read_image(package / name)[None] for name in ("face0.png", "face2.png"))  # two people
    soft = gaussian_blur(face, torch.tensor([1.0]))
    with torch.no_grad():
        assert identity_distance(face, soft, recogniser) < 0.5 * identity_distance(face, other, recogniser)
        assert identity_similarity(face, soft, recogniser) > identity_similarity(face, other, recogniser)
        assert identity_similarity(face, face, recogniser).item() == pytest.approx(1, abs=1e-5)
        assert landmark_distance(face, face, landmarks).item() == 0
        assert landmark_distance(face, soft, landmarks) < 0.5 * landmark_distance(face, other, landmarks)


def test_a_face_moved_by_some_pixels_has_its_points_moved_by_as_many(package: Path, landmarks: Landmarks) -> None:
    """In shares of the eye distance, whatever the size of the image."""
    face = read_image(package / "face0.png")[None]
    moved = torch.roll(face, 6, dims=-1)
    with torch.no_grad():
        distance = landmark_distance(moved, face, landmarks)
        large, large_moved = (resized(x, Window(0, 0, 150, 150), 300) for x in (face, moved))
        twice = landmark_distance(large_moved, large, landmarks)
        expected = 6 / eye_distance(landmarks.of_aligned(face))
    assert distance.item() == pytest.approx(expected.item(), rel=0.25)
    assert twice.item() == pytest.approx(distance.item(), rel=0.1)


# ---------------------------------------------------------------- the pack


def test_the_pack_names_what_others_trained() -> None:
    card = load_pack("tiny").card
    assert SSD_DETECTOR not in card.networks
    for entry in SHIPPED:
        architecture, network = ARCHITECTURES[entry], card.networks[entry]
        assert network.architecture == architecture
        assert network.trained.startswith("not by this project")
        assert ("facenet-pytorch 2.6.0" if entry == DETECTOR else "@vladmandic/face-api 1.7.15") in network.source
    assert {entry: card.networks[entry].licence for entry in SHIPPED} == {
        "recogniser": "CC0-1.0", "landmarks": "MIT", "detector": "MIT", "detector-tiny": "MIT",
    }  # fmt: skip
    assert "Vladimir Mandic" in (TINY / "LICENSE-face-api").read_text()
    assert "Timothy Esler" in (TINY / "LICENSE-mtcnn").read_text()
    notice = (ROOT / "NOTICE").read_text()
    assert all(name in notice for name in ("Davis King", "Kaipeng Zhang", "Timothy Esler"))


def test_the_pack_is_what_the_package_makes(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The converter, run again, writes the same bytes; the card's entries with them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    converter: ModuleType = importlib.import_module("convert_face_networks")
    (tmp_path / "pack.yaml").write_text("name: p\nsize: 8\ndescription: d\nrestorer: r\nnetworks: {}\n")
    monkeypatch.setattr("sys.argv", ["convert", str(package), "--pack", str(tmp_path)])
    converter.main()
    made, shipped = load_pack(tmp_path).card.networks, load_pack("tiny").card.networks
    assert made == {entry: shipped[entry] for entry in SHIPPED if entry != DETECTOR}
    assert (tmp_path / "LICENSE-face-api").read_bytes() == (TINY / "LICENSE-face-api").read_bytes()
    assert "recogniser: 117 tensors, 5,614,592 values" in capsys.readouterr().out


def test_face_networks_of_a_file_enter_another_pack_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = ["--licence", "L", "--source", "S", "--trained", "T"]
    for entry in SHIPPED:
        file = TINY / f"{entry}.safetensors"
        assert adapt(monkeypatch, "packs", "add", tmp_path / "mine", entry, file, "--size", 64, *about) == 0
        assert f": {entry} is a {ARCHITECTURES[entry]} of " in capsys.readouterr().out
    faces = images(64, 1)
    mine = tmp_path / "mine"
    for load in (load_recogniser, load_landmarks):
        torch.testing.assert_close(load(mine).of_aligned(faces), load("tiny").of_aligned(faces), rtol=0, atol=0)
    assert detector_of(mine, "tiny").find(faces[0]) == detector_of("tiny", "tiny").find(faces[0])
    assert load_detector(TINY / "detector.safetensors").name == str(TINY / "detector.safetensors")
    assert adapt(monkeypatch, "packs", "verify", mine) == 0
    assert load_pack(mine).card.restorer == "swinir", "none of them is a restorer"
    wrong = TINY / "recogniser.safetensors"
    assert adapt(monkeypatch, "packs", "add", mine, "landmarks", wrong, *about, "--overwrite") == 4
    refusal = "cannot be 'landmarks': expected a dense-landmarks, its header names a dlib-resnet"
    assert refusal in capsys.readouterr().err


def test_files_that_are_none_of_these_networks_are_refused(small_pack: Path, tmp_path: Path) -> None:
    state, header = read_state(TINY / "landmarks.safetensors")
    without = {key: value for key, value in header.items() if key != "quantised"}
    short = {key: value for key, value in state.items() if key != "fc.bias"}
    for name, tensors, told, message in (
        ("a", state, without, "its header does not say what its bytes stand for; fetch the file again"),
        ("b", state, {**header, "quantised": "[3]"}, "its header does not say what its bytes stand for"),
        ("c", state, {**header, "quantised": "{}"}, "its header does not say what the bytes of dense0.conv0.bias"),
        ("d", short, header, r"not the weights of this LandmarkNetwork: 1 missing \(fc.bias\)"),
        ("e", state, {}, "expected a dense-landmarks of ours, its header names nothing"),
    ):
        write_state(tmp_path / f"{name}.safetensors", tensors, told)
        with pytest.raises(WeightsError, match=message):
            load_landmarks(tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsError, match="expected one of mtcnn, ssd-mobilenet, tiny-yolo, its header names dense"):
        load_detector(TINY / "landmarks.safetensors")
    for load, entry in ((load_recogniser, "recogniser"), (load_landmarks, "landmarks"), (load_detector, "detector")):
        assert load(small_pack).name == f"tiny/{entry}", "they take faces of any size"
        with pytest.raises(AdaptError, match="no pack 'nowhere'"):
            load("nowhere")
    with pytest.raises(WeightsError, match="pack tiny: has no 'detector-ssd'"):
        load_detector(small_pack, "ssd")


def test_a_found_face_cannot_be_changed(package: Path) -> None:
    face = detector_of("tiny", "tiny").find(read_image(package / "whole.png"))[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        face.score = 1.0  # pyright: ignore[reportAttributeAccessIssue]
