"""The cascade of three networks: what others' code computes with these weights, and each of its steps by hand."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT
from photographs import at, photograph, some_faces
from torch import Tensor
from torchvision.ops import nms

from adapt.errors import RangeError, ShapeError, UsageError, WeightsError
from adapt.faces.detector import FoundFace
from adapt.faces.mtcnn import (
    CELL,
    FACTOR,
    MORE,
    SMALLEST,
    CascadeDetector,
    MtcnnNetwork,
    each_once,
    looked_at,
    moved,
    pyramid,
    squared,
)
from adapt.loading import load_detector
from adapt.packs.pack import EMBEDDED, load_pack
from adapt.weights import read_state, write_state

FILE = EMBEDDED / "tiny" / "detector.safetensors"

# Middle, half axes, colour and softness of each ellipse, in shares of the side: hair, skin, brows, eyes, nose, mouth.
ELLIPSES = (
    (0.5, 0.42, 0.47, 0.5, (0.2, 0.13, 0.1), 0.1),
    (0.5, 0.52, 0.38, 0.47, (0.85, 0.66, 0.55), 0.1),
    (0.33, 0.36, 0.11, 0.03, (0.3, 0.2, 0.15), 0.6),
    (0.67, 0.36, 0.11, 0.03, (0.3, 0.2, 0.15), 0.6),
    (0.33, 0.44, 0.08, 0.04, (0.15, 0.1, 0.1), 0.6),
    (0.67, 0.44, 0.08, 0.04, (0.15, 0.1, 0.1), 0.6),
    (0.5, 0.6, 0.07, 0.05, (0.65, 0.45, 0.38), 0.6),
    (0.5, 0.78, 0.17, 0.035, (0.6, 0.25, 0.25), 0.6),
)
DRAWN = ((0.33, 0.44), (0.67, 0.44), (0.5, 0.6), (0.33, 0.78), (0.67, 0.78))  # its eyes, nose, corners of the mouth
LAID = ((20, 30, 96), (140, 90, 48))  # left, top and side of the faces in `two_faces`

# What facenet-pytorch 2.6.0 (PyPI) computes in float64 of `drawn_face`, with the weights that it brings.
PROPOSAL_OFFSETS = (
    (0.191131, 0.051238, -0.022076, -0.217560, -0.338241),
    (-0.230457, -0.117947, -0.079113, -0.215123, -0.290525),
    (0.301870, 0.092787, 0.046582, -0.084970, -0.242663),
    (0.171386, 0.106274, 0.206585, 0.211530, 0.159005),
)  # the middle row of places, at 20 px
PROPOSAL_SCORES = (0.330445, 0.994524, 0.935973, 0.999968, 0.920173)
REFINE_OFFSETS, REFINE_SCORE = (0.102240, -0.002976, -0.118777, 0.018747), 0.987575
OUTPUT_OFFSETS, OUTPUT_SCORE = (0.125820, 0.070092, -0.141097, 0.009419), 0.918965
OUTPUT_POINTS = (
    (0.334772, 0.432507), (0.663920, 0.431903), (0.476444, 0.573757), (0.332844, 0.773860), (0.655564, 0.773231)
)  # fmt: skip
# And where its whole cascade sees the faces of `two_faces`: box and points, in pixels.
ITS_BOXES = ((33.19, 35.26, 103.10, 126.22), (147.03, 93.10, 182.24, 138.54))
ITS_POINTS = (
    ((52.98, 72.29), (83.91, 72.18), (67.90, 86.51), (53.05, 104.51), (83.88, 104.24)),
    ((157.01, 111.32), (172.97, 111.35), (164.72, 118.76), (157.02, 127.58), (172.19, 127.64)),
)


def drawn_face(side: int) -> Tensor:
    """A face of ellipses, (3, side, side) float64."""
    middles = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    y, x = middles[:, None], middles[None, :]
    image = torch.stack([0.35 + 0.2 * x + 0 * y, 0.45 - 0.1 * y + 0 * x, 0.5 + 0.1 * x * y])
    for across, down, half_width, half_height, colour, soft in ELLIPSES:
        radius = (((x - across) / half_width) ** 2 + ((y - down) / half_height) ** 2).sqrt()
        mask = ((1 - radius) / soft + 0.5).clamp(0, 1)
        image = image * (1 - mask) + image.new_tensor(colour)[:, None, None] * mask
    return image.float().double()


def two_faces() -> Tensor:
    """A grey photo, (3, 160, 210), with the drawn face at two sizes."""
    photo = torch.full((3, 160, 210), 0.45)
    for left, top, side in LAID:
        photo[:, top : top + side, left : left + side] = drawn_face(side).float()
    return photo


@pytest.fixture(scope="module")
def detector() -> CascadeDetector:
    loaded = load_detector("tiny")
    assert isinstance(loaded, CascadeDetector)
    return loaded


@pytest.fixture(scope="module")
def found(detector: CascadeDetector) -> list[FoundFace]:
    """The faces of `two_faces`, the larger first."""
    return sorted(detector.find(two_faces()), key=lambda face: face.box.left)


@pytest.fixture(scope="module")
def two_people() -> Tensor:
    """A photo, (3, 200, 300), with two faces that ship, one of them turned by 20 degrees."""
    faces = some_faces(3)[1:]
    return photograph(200, 300, [(faces[0], at(90, 90, 150)), (faces[1], at(220, 110, 110, turn=20))])


# ---------------------------------------------------------------- what others' code computes


def test_the_three_networks_are_those_of_facenet_pytorch(detector: CascadeDetector) -> None:
    """Tolerance: rounding of weights to half precision; found 6e-4."""
    network = MtcnnNetwork().double()
    network.load_state_dict(detector.network.state_dict())
    places, small, large = (drawn_face(side)[None] for side in (20, 24, 48))
    with torch.no_grad():
        offsets, scores = network.proposal(places)
        assert (offsets.shape, scores.shape) == ((1, 4, 5, 5), (1, 5, 5))
        pairs = [(offsets[0, :, 2], PROPOSAL_OFFSETS), (scores[0, 2], PROPOSAL_SCORES)]
        offsets, scores = network.refine(small)
        pairs += [(offsets[0], REFINE_OFFSETS), (scores[0], REFINE_SCORE)]
        offsets, scores, points = network.output(large)
        pairs += [(offsets[0], OUTPUT_OFFSETS), (scores[0], OUTPUT_SCORE), (points[0], OUTPUT_POINTS)]
    for computed, expected in pairs:
        torch.testing.assert_close(computed, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-3)


def test_faces_lie_where_facenet_pytorch_sees_them_and_where_they_were_drawn(found: list[FoundFace]) -> None:
    """In shares of the face's side. Places are counted otherwise there, and windows are rounded to whole pixels."""
    assert len(found) == 2
    for face, (left, top, side), box, points in zip(found, LAID, ITS_BOXES, ITS_POINTS, strict=True):
        np.testing.assert_allclose(np.array([*face.box]) / side, np.array(box) / side, rtol=0, atol=0.05)
        np.testing.assert_allclose(np.array(face.points) / side, np.array(points) / side, rtol=0, atol=0.05)
        own = (np.array(face.points) - (left, top)) / side
        np.testing.assert_allclose(own, DRAWN, rtol=0, atol=0.05)


def test_the_converter_orders_dense_inputs_as_the_networks_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn weights: the package turns (B, C, H, W) to (B, W, H, C) before its dense layers, which is done here."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    converter: ModuleType = importlib.import_module("convert_mtcnn")
    generator, whole = torch.Generator().manual_seed(0), MtcnnNetwork()
    given: dict[str, dict[str, Tensor]] = {}
    for part, file in converter.FILES.items():
        tensors = getattr(whole, part).state_dict().items()
        given[part] = {key: torch.randn(value.shape, generator=generator).half().float() for key, value in tensors}
        torch.save(given[part], tmp_path / file)
    (tmp_path / "pack.yaml").write_text("name: p\nsize: 8\ndescription: d\nrestorer: r\nnetworks: {}\n")
    monkeypatch.setattr("sys.argv", ["convert", str(tmp_path), "--pack", str(tmp_path)])
    converter.main()
    converted, shipped = (load_pack(pack).card.networks["detector"] for pack in (tmp_path, "tiny"))
    assert converted.model_copy(update={"files": shipped.files}) == shipped
    made = load_detector(tmp_path).network.state_dict()
    for part, layer, size in (("refine", "dense4", (64, 3, 3)), ("output", "dense5", (128, 3, 3))):
        maps = torch.randn(2, *size, generator=generator)
        expected = maps.permute(0, 3, 2, 1).reshape(2, -1) @ given[part][f"{layer}.weight"].T
        torch.testing.assert_close(maps.flatten(1) @ made[f"{part}.{layer}.weight"].T, expected, rtol=1e-4, atol=1e-4)
    for part, tensors in given.items():
        for key, value in tensors.items():
            if key not in ("dense4.weight", "dense5.weight"):
                assert torch.equal(made[f"{part}.{key}"], value), key


# ---------------------------------------------------------------- each step by hand


def test_a_pyramid_ends_where_a_cell_no_longer_fits() -> None:
    assert pyramid(19, 400) == []
    assert pyramid(20, 33) == [(12, 20)]
    assert pyramid(160, 210) == [(96, 126), (69, 90), (49, 64), (35, 45), (25, 32), (18, 23), (13, 17)]
    for height, width in ((61, 47), (512, 340), (29, 500)):
        sizes = pyramid(height, width)
        for index, size in enumerate(sizes):
            share = CELL / SMALLEST * FACTOR**index
            for own, length in zip(size, (height, width), strict=True):
                assert length * share - 1e-6 <= own < length * share + 1
        shorter = min(height, width) * CELL / SMALLEST
        assert shorter * FACTOR ** (len(sizes) - 1) >= CELL > shorter * FACTOR ** len(sizes)


@pytest.mark.parametrize("side", [24, 48])
@pytest.mark.parametrize(
    "window", [(3.4, 5.2, 60.9, 62.6), (-7.3, 2.0, 20.0, 29.3), (30.0, 40.5, 55.2, 65.7), (10.5, 8.5, 15.5, 13.5)]
)
def test_a_window_is_seen_as_means_over_the_pixels_it_touches(
    window: tuple[float, float, float, float], side: int
) -> None:
    """Pixel by pixel: a new one is the mean over all old ones that its share of the window touches, 0 outside."""
    photo = torch.rand(3, 61, 47, generator=torch.Generator().manual_seed(1))
    left, top, right, bottom = (
        math.floor(window[0]), math.floor(window[1]), math.ceil(window[2]), math.ceil(window[3])
    )  # fmt: skip
    expected = np.zeros((3, side, side))
    for row in range(side):
        rows = range(top + row * (bottom - top) // side, top - (-(row + 1) * (bottom - top) // side))
        for column in range(side):
            first = left + column * (right - left) // side
            last = left - (-(column + 1) * (right - left) // side)
            values = [
                photo[:, y, x].numpy() if 0 <= y < 61 and 0 <= x < 47 else np.zeros(3)
                for y in rows
                for x in range(first, last)
            ]
            expected[:, row, column] = np.mean(values, axis=0)
    seen = looked_at(photo, torch.tensor([window]), side)
    np.testing.assert_allclose(seen[0].numpy(), expected, rtol=0, atol=1e-6)


def test_a_last_bit_decides_nothing_of_what_is_seen() -> None:
    """Windows of whole pixels, but for less than a hundredth of one, are cut out as they are; those outside are black.

    In double precision: 30.001 is no single.
    """
    photo = torch.rand(3, 61, 47, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    windows = torch.tensor([[6.0, 30.0, 30.0, 54.0]] * 3 + [[60.0, 70.0, 90.0, 100.0]], dtype=torch.float64)
    windows[1] += 0.005
    windows[2] -= 0.005
    seen = looked_at(photo, windows, 24)
    for index in range(3):
        torch.testing.assert_close(seen[index], photo[:, 30:54, 6:30], rtol=0, atol=1e-12)
    assert not seen[3].any()


def test_windows_move_by_shares_of_their_own_sides_and_become_squares() -> None:
    windows = torch.tensor([[10.0, 20.0, 30.0, 60.0], [-4.0, 0.0, 4.0, 8.0]])
    offsets = torch.tensor([[0.1, 0.25, -0.5, 0.0], [0.0, 0.5, 0.25, -0.125]])
    assert moved(windows, offsets).tolist() == [[12, 30, 20, 60], [-4, 4, 6, 7]]
    assert squared(windows).tolist() == [[0, 20, 40, 60], [-4, 0, 4, 8]]
    assert squared(torch.tensor([[0.0, 0.0, 9.0, 2.0]])).tolist() == [[0, -3.5, 9, 5.5]]
    assert squared(moved(windows[:0], offsets[:0])).shape == (0, 4)


@pytest.mark.parametrize("most", [0.3, 0.5, 0.7])
def test_of_windows_that_share_much_the_surest_stays(most: float) -> None:
    """Against torchvision's, on scores that are a thousandth and more apart; and by areas of the smaller, by hand."""
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(60, 2, generator=generator) * 60
    windows = torch.cat([corners, corners + 10 + 40 * torch.rand(60, 2, generator=generator)], dim=1)
    scores = (torch.randperm(60, generator=generator) + 1) / 100
    kept = each_once(windows, scores, most)
    assert kept == nms(windows, scores, most + MORE).tolist()
    assert 1 < len(kept) < 60
    by_hand: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        left, top, right, bottom = windows[index].tolist()
        shares = [0.0]
        for other in by_hand:
            x0, y0, x1, y1 = windows[other].tolist()
            both = max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(bottom, y1) - max(top, y0))
            shares.append(both / min((right - left) * (bottom - top), (x1 - x0) * (y1 - y0)))
        if max(shares) <= most + MORE:
            by_hand.append(index)
    assert each_once(windows, scores, most, of_smaller=True) == by_hand


def test_of_equals_the_first_stays_and_a_face_within_a_face_goes() -> None:
    same, apart = [0.0, 0.0, 20.0, 20.0], [50.0, 50.0, 70.0, 70.0]
    windows = torch.tensor([same, apart, same])
    assert each_once(windows, torch.tensor([0.99996, 0.99997, 1.0]), 0.5) == [0, 1], "the last bits do not decide"
    assert each_once(windows, torch.tensor([0.9, 0.95, 1.0]), 0.5) == [2, 1]
    inside = torch.tensor([[5.0, 5.0, 15.0, 15.0], same])
    for scores in ([0.9, 0.8], [0.8, 0.9]):
        surest = scores.index(0.9)
        assert each_once(inside, torch.tensor(scores), 0.7) == [surest, 1 - surest]
        assert each_once(inside, torch.tensor(scores), 0.7, of_smaller=True) == [surest]
    assert each_once(torch.zeros(0, 4), torch.zeros(0), 0.5) == []
    assert each_once(torch.tensor([[3.0, 3.0, 3.0, 9.0], same]), torch.tensor([0.9, 0.8]), 0.5) == [0, 1]


# ---------------------------------------------------------------- what every use relies on


def test_points_lie_in_the_box_and_eyes_left_to_right(
    detector: CascadeDetector, found: list[FoundFace], two_people: Tensor
) -> None:
    seen = detector.find(two_people)
    assert len(seen) == 2
    assert [face.score for face in seen] == sorted((face.score for face in seen), reverse=True)
    for face in [*found, *seen]:
        left, top, right, bottom = face.box
        eye, other_eye, nose, corner, other_corner = face.points
        assert all(left < x < right and top < y < bottom for x, y in face.points)
        assert eye[0] < nose[0] < other_eye[0]
        assert corner[0] < other_corner[0]
        assert max(eye[1], other_eye[1]) < nose[1] < min(corner[1], other_corner[1])


def test_no_photo_depends_on_those_before_it(detector: CascadeDetector, found: list[FoundFace]) -> None:
    photo = two_faces()
    detector.find(photo.flip(-1))
    assert sorted(detector.find(photo), key=lambda face: face.box.left) == found
    before = photo.clone()
    detector.find(photo)
    assert torch.equal(photo, before)


def test_a_box_ends_where_the_photo_ends(detector: CascadeDetector) -> None:
    """The larger face, cut at the temple and above the eyes."""
    (face,) = detector.find(two_faces()[:, 45:140, 40:125])
    left, top, right, bottom = face.box
    assert (left, top) == (0, 0)
    assert right < 76
    assert bottom < 95


def test_the_score_that_is_asked_for_decides(detector: CascadeDetector, two_people: Tensor) -> None:
    scores = [face.score for face in detector.find(two_people)]
    assert detector.min_score == 0.85
    most, least = scores
    assert 1 >= most > least > detector.min_score
    assert [face.score for face in replace(detector, min_score=(least + most) / 2).find(two_people)] == [most]
    assert replace(detector, min_score=1 - 1e-7).find(two_faces()) == []
    for score in (0.0, 1.0, -0.5, 1.5, float("nan")):
        message = f"^tiny/detector: min_score: expected a score between 0 and 1, got {score:g}$"
        with pytest.raises(UsageError, match=message):
            replace(detector, min_score=score)


@pytest.mark.parametrize("size", [(1, 1), (19, 200), (30, 61), (120, 12)])
def test_a_photo_without_a_face_has_none(detector: CascadeDetector, size: tuple[int, int]) -> None:
    assert detector.find(torch.full((3, *size), 0.4)) == []


GREY = torch.full((3, 32, 40), 0.5)
REFUSED = {
    "a batch": (GREY[None], ShapeError, r"expected one photo of shape \(3, H, W\), got \(1, 3, 32, 40\)"),
    "one channel": (GREY[:1], ShapeError, r"expected a batch of shape \(B, 3, H, W\), got \(1, 1, 32, 40\)"),
    "8-bit data": (GREY * 255, RangeError, r"expected values in \[0, 1\], got \[128, 128\] -- 8-bit data"),
    "not finite": (GREY * float("nan"), RangeError, r"expected values in \[0, 1\], got \[nan, nan\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_photos_are_refused(detector: CascadeDetector, case: str) -> None:
    photo, error, message = REFUSED[case]
    with pytest.raises(error, match=f"^tiny/detector: {message}"):
        detector.find(photo)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state, header = read_state(FILE)
    assert sum(value.numel() for value in state.values()) == 495_850
    write_state(tmp_path / "short.safetensors", {k: v for k, v in state.items() if k != "output.dense5.bias"}, header)
    with pytest.raises(WeightsError, match=r"not the weights of this MtcnnNetwork: 1 missing \(output.dense5.bias\)"):
        load_detector(tmp_path / "short.safetensors")
