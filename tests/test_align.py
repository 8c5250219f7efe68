"""Faces cut out upright and put back: similarities, sampling, masks, and what must not change."""

from __future__ import annotations

import math

import pytest
import torch
from images import smooth_image
from photographs import SIDE, at, photograph, some_faces
from torch import Tensor

from adapt.errors import ShapeError
from adapt.faces.align import Placement, cut_out, five_points, misfit, placed, sampled, template
from adapt.faces.crops import Window
from adapt.faces.paste import FEATHER, face_mask, paste

PLACES = [Placement(1.3, 0.4, 30.0, 20.0), Placement(0.2, -0.3, 90.0, 5.0), Placement(-0.7, 0.1, 50.0, 60.0)]


@pytest.mark.parametrize("place", PLACES)
def test_there_and_back(place: Placement, gen: torch.Generator):
    points = 100 * torch.rand(7, 2, generator=gen, dtype=torch.float64)
    torch.testing.assert_close(place.inverse().to_photo(place.to_photo(points)), points)
    corners = place.outline(64)
    sides = torch.linalg.vector_norm(corners.roll(-1, 0) - corners, dim=-1)
    torch.testing.assert_close(sides, torch.full((4,), 64 * place.scale, dtype=torch.float64))
    angle = math.degrees(math.atan2(*(corners[1] - corners[0]).flip(0).tolist()))
    assert place.angle == pytest.approx(angle)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_points_that_lie_on_the_template_give_its_place(place: Placement, own: bool):
    found = placed(place.to_photo(template(96, own=own)), 96, own=own)
    for got, expected in zip((found.a, found.b, found.x, found.y), (place.a, place.b, place.x, place.y), strict=True):
        assert got == pytest.approx(expected, abs=1e-9)


def test_it_is_the_least_squares_solution(gen: torch.Generator):
    """Against a solution by numpy's general solver, of points that lie on no template."""
    points = 300 * torch.rand(5, 2, generator=gen, dtype=torch.float64)
    known, rows, values = template(128, own=True), [], []
    for (u, v), (x, y) in zip(known.tolist(), points.tolist(), strict=True):
        rows += [[u, -v, 1, 0], [v, u, 0, 1]]
        values += [x, y]
    expected = torch.linalg.lstsq(torch.tensor(rows, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))
    found = placed(points, 128)
    torch.testing.assert_close(
        torch.tensor([found.a, found.b, found.x, found.y], dtype=torch.float64), expected.solution
    )


def test_points_in_one_place_are_refused():
    with pytest.raises(ShapeError, match="one place"):
        placed(torch.full((5, 2), 7.0), 64)
    with pytest.raises(ShapeError, match=r"five points of shape \(5, 2\), got \(68, 2\)"):
        placed(torch.rand(68, 2), 64)


def test_misfit_is_in_eye_distances():
    known = template(256, own=True)
    eyes = float(torch.linalg.vector_norm(known[1] - known[0]))
    assert misfit(known, 256) == pytest.approx(0)
    assert misfit(known + torch.tensor([3.0, 4.0]), 256) == pytest.approx(5 / eyes)


def test_a_shift_by_whole_pixels_is_exact():
    image = smooth_image(40, 50)
    window = sampled(image, Placement(1, 0, 7, 3), Window(0, 0, 20, 24), outside="reflection")
    torch.testing.assert_close(window, image[:, 3:27, 7:27], rtol=0, atol=2e-5)


def test_a_reduction_is_the_mean_over_each_pixels_area():
    image = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(1))
    reduced = sampled(image, Placement(4, 0, 0, 0), Window(0, 0, 12, 12), outside="reflection")
    torch.testing.assert_close(reduced, torch.nn.functional.avg_pool2d(image, 4), rtol=0, atol=2e-5)


def test_a_quarter_turn_is_exact():
    image = smooth_image(32, 32)
    turned = sampled(image, Placement(0, 1, 32, 0), Window(0, 0, 32, 32), outside="border")
    torch.testing.assert_close(turned, image.rot90(1, (1, 2)), rtol=0, atol=2e-5)


def test_a_face_that_was_laid_in_comes_out_again():
    face = some_faces(1)[0]
    photo = photograph(400, 420, [(face, at(210, 190, 256, turn=20))])
    crop = cut_out(photo, at(210, 190, 256, turn=20), SIDE)
    inner = slice(16, SIDE - 16)
    assert float((crop - face)[:, inner, inner].abs().mean()) < 0.01


# ---------------------------------------------------------------- mask and paste


def points_of_a_face(size: int) -> Tensor:
    """68 points: jaw, brows, nose, eyes and mouth, about where they are in an aligned crop."""
    turn = torch.linspace(math.pi, 0, 17, dtype=torch.float64)
    jaw = torch.stack([0.5 + 0.3 * turn.cos(), 0.5 + 0.35 * turn.sin()], dim=-1)
    brows = torch.stack([torch.linspace(0.28, 0.72, 10, dtype=torch.float64), torch.full((10,), 0.42).double()], dim=-1)
    others = 0.4 + 0.2 * torch.rand(41, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return size * torch.cat([jaw, brows, others])


@pytest.mark.parametrize("size", [64, 128])
def test_the_mask_is_1_on_the_face_0_outside_and_soft_between(size: int):
    points = points_of_a_face(size)
    mask = face_mask(points, size)
    assert mask.shape == (size, size)
    assert float(mask[int(0.55 * size), size // 2]) == 1
    edge = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert float(edge.max()) < 0.01
    assert float(mask[int(0.95 * size), size // 2]) == 0, "below the chin"
    assert float(mask[int(0.36 * size), size // 2]) > 0.9, "the forehead"
    step = float((mask[:, 1:] - mask[:, :-1]).abs().max())
    assert 0 < step < 2 / (FEATHER * size)


def test_points_that_leave_the_crop_leave_its_edge_free():
    points = points_of_a_face(64) * 1.5
    mask = face_mask(points, 64)
    assert float(torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).max()) < 0.05
    assert float(mask.max()) == 1


@pytest.mark.parametrize("length", [50.0, 128.0, 301.0])
def test_nothing_restored_is_nothing_changed(length: float):
    photo = smooth_image(330, 340)
    place = at(160, 150, length, turn=17)
    crop = cut_out(photo, place, SIDE)
    part, window = paste(photo, crop, crop.clone(), face_mask(points_of_a_face(SIDE), SIDE), place)
    left, top, right, bottom = (int(edge) for edge in window)
    assert torch.equal(part, photo[:, top:bottom, left:right])


@pytest.mark.parametrize("length", [60.0, 128.0, 260.0])
def test_the_change_is_laid_over_the_face_and_nowhere_else(length: float):
    photo = 0.5 * smooth_image(330, 340) + 0.25
    place = at(170, 160, length, turn=-25)
    mask = face_mask(points_of_a_face(SIDE), SIDE)
    crop = cut_out(photo, place, SIDE)
    bump = torch.zeros(3, SIDE, SIDE)
    bump[:, 60:80, 54:74] = 0.2
    part, window = paste(photo, crop, crop + bump, mask, place)
    left, top, right, bottom = (int(edge) for edge in window)
    after = photo.clone()
    after[:, top:bottom, left:right] = part
    change = cut_out((after - photo + 0.5).clamp(0, 1), place, SIDE) - 0.5
    assert float(change[:, 66:74, 60:68].mean()) == pytest.approx(0.2, abs=0.01)
    everywhere = Window(0, 0, 340, 330)
    reach = sampled(mask[None], place.inverse(), everywhere, outside="zeros")[0]
    assert torch.equal(after[:, reach < 1e-4], photo[:, reach < 1e-4])
    half, _ = paste(photo, crop, crop + bump, mask, place, strength=0.5)
    there = photo[:, top:bottom, left:right]
    torch.testing.assert_close(half - there, (part - there) / 2, rtol=0, atol=2e-3)


def test_a_step_of_colour_is_taken_out():
    photo = smooth_image(200, 200) * 0.6 + 0.2
    place, mask = at(100, 100, 128), face_mask(points_of_a_face(SIDE), SIDE)
    crop = cut_out(photo, place, SIDE)
    tinted = crop + torch.tensor([0.1, -0.05, 0.02])[:, None, None]
    part, window = paste(photo, crop, tinted, mask, place)
    left, top, right, bottom = (int(edge) for edge in window)
    assert float((part - photo[:, top:bottom, left:right]).abs().max()) < 1e-5


def test_a_face_at_the_border_stays_inside_the_photo():
    photo = smooth_image(120, 100)
    place = at(95, 10, 90)
    crop = cut_out(photo, place, SIDE)
    part, window = paste(photo, crop, (crop + 0.1).clamp(0, 1), face_mask(points_of_a_face(SIDE), SIDE), place)
    assert (window.top, window.right) == (0, 100)
    assert part.shape == (3, int(window.bottom - window.top), int(window.right - window.left))


def test_eyes_nose_and_mouth_of_68_points():
    points = torch.arange(136, dtype=torch.float64).view(68, 2)
    expected = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    assert torch.equal(five_points(points[None])[0], torch.stack(expected))
