"""How identity is told: cosine, angle, place among all, and who is lost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapt.evaluation.compare import evaluate_folder
from adapt.evaluation.tables import tabulate, text_table
from adapt.faces.arcface import ArcFace, ArcFaceNetwork
from adapt.faces.measures import embeddings, identity_angle, identity_distance, person_lost, rank_among
from adapt.loading import load_distance, load_recogniser, measuring_networks
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image, write_image


def test_the_place_among_all_originals():
    gallery = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 5.0], [9.0, 9.0]])
    restored = torch.tensor([[0.1, 0.0], [0.4, 0.0], [0.9, 0.1], [9.0, 9.0]])
    assert rank_among(restored, gallery).tolist() == [1, 2, 3, 1]


class Fixed:
    """Gives embeddings that are written into the first pixels."""

    name, by_angle, lost_from = "fixed", True, 0.5

    def of_aligned(self, faces: Tensor) -> Tensor:
        return faces[:, 0, 0, :2]

    unchecked = of_aligned

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return 1 - torch.nn.functional.cosine_similarity(a, b)

    def to(self, device: torch.device | str) -> Fixed:
        return self


def with_embedding(*values: float) -> Tensor:
    face = torch.zeros(1, 3, 8, 8)
    face[0, 0, 0, : len(values)] = torch.tensor(values)
    return face


def test_the_angle_is_in_degrees_and_lengths_say_nothing_where_angles_do():
    a, b = with_embedding(0.4, 0.0), with_embedding(0.5, 0.5)
    assert float(identity_angle(a, b, Fixed())) == pytest.approx(45.0, abs=1e-4)
    assert float(identity_angle(a, a, Fixed())) == pytest.approx(0.0, abs=0.1)
    found = embeddings(torch.cat([a, b]), Fixed())
    assert found.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert float((found[0] - found[1]).norm()) == pytest.approx(2 * math.sin(math.radians(22.5)), abs=1e-5)


def test_who_is_lost_is_as_far_as_a_stranger():
    a = with_embedding(0.4, 0.0)
    others = (a, with_embedding(0.5, 0.5), with_embedding(0, 1))
    assert [float(person_lost(a, other, Fixed())) for other in others] == [0, 0, 1]


def test_limits_stand_with_each_recogniser():
    """Of the pack's, on faces of nobody: a face is nearer to itself a little blurred than to others."""
    recogniser = load_recogniser("tiny")
    assert (recogniser.by_angle, recogniser.lost_from) == (False, 0.37)
    assert (ArcFace("a", ArcFaceNetwork()).by_angle, ArcFace("a", ArcFaceNetwork()).lost_from) == (True, 0.7)
    from adapt.loading import KNOWN
    from adapt.photos.folder import find_photos

    faces = torch.stack([read_image(photo.path) for photo in find_photos(KNOWN)[:4]])
    soft = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(faces, (1, 1, 1, 1), "reflect"), 3, 1)
    with torch.no_grad():
        assert person_lost(soft, faces, recogniser).tolist() == [0, 0, 0, 0]
        assert bool((identity_distance(faces, faces.roll(1, 0), recogniser) > recogniser.lost_from).all())
        assert rank_among(embeddings(soft, recogniser), embeddings(faces, recogniser)).tolist() == [1, 1, 1, 1]


def test_an_evaluation_has_them_and_tables_leave_them_aside(tmp_path: Path):
    from adapt.loading import KNOWN
    from adapt.photos.folder import find_photos

    paths = [photo.path for photo in find_photos(KNOWN)[:10]]
    for index, path in enumerate(paths):
        face = read_image(path)
        write_image(tmp_path / "hq" / f"{index}.png", face)
        write_image(tmp_path / "restored" / f"{index}.png", face.flip(-1) if index == 3 else (face * 0.9))
    pack = load_pack("tiny")
    found = evaluate_folder(
        tmp_path / "restored", truth=tmp_path / "hq", distance=load_distance(pack, "pack"),
        networks=measuring_networks(pack),
    )
    scores = found.scores
    assert {"ids", "degrees", "lost", "rank_1", "rank_3", "rank_5"} <= set(scores)
    assert 0.9 <= scores["rank_1"].mean <= scores["rank_3"].mean <= scores["rank_5"].mean <= 1.0
    assert scores["degrees"].mean == pytest.approx(
        sum(math.degrees(math.acos(float(row["ids"]))) for row in found.rows) / 10, abs=0.05
    )
    shown = tabulate({"a": found})
    assert "ids" not in shown.keys
    assert "identity" in shown.keys
    assert "IDS" in text_table({"a": found}, everything=True)
