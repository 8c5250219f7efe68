"""The pack small, a package of its own beside this one: whole, as large as may be published, and of use."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from adapt._version import __version__
from adapt.evaluation.metrics import psnr, relative_sharpness
from adapt.loading import load_restorer
from adapt.packs.pack import APART, load_pack
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from adapt.photos.pairs import fit
from adapt.settings import DegradeSettings
from adapt.settings.recipe import load_recipe
from degradations.chain import degrade

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "small" / "adapt_bfr_small"


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "small" / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_package_is_what_adapt_looks_for(project: dict[str, object]) -> None:
    assert project["name"] == APART["small"]
    assert project["version"] == __version__
    assert project["entry-points"] == {"adapt.packs": {"small": SMALL.name}}


def test_the_pack_is_whole() -> None:
    pack = load_pack(SMALL)
    assert (pack.card.name, pack.card.size) == ("small", 256)
    assert pack.problems() == []
    named = {file for network in pack.card.networks.values() for file in network.files}
    assert {path.name for path in SMALL.glob("*.safetensors")} == named
    assert sum(path.stat().st_size for path in SMALL.rglob("*") if path.is_file()) < 95 * 2**20


def test_its_known_faces_are_as_large_as_its_own() -> None:
    faces = find_photos(SMALL / "known_faces")
    assert len(faces) == 24
    assert {read_image(photo.path).shape for photo in faces} == {(3, 256, 256)}


def test_it_restores_better_than_tiny_at_its_size() -> None:
    """A face that was damaged as a messenger does: nearer to the original than the photo, and sharper than tiny's."""
    clean = read_image(SMALL / "known_faces" / "face-15.png")
    damage = load_recipe("messenger-moderate", DegradeSettings).degradations
    photo = degrade(clean, damage, seed=0)[0]
    with torch.no_grad():
        restored = load_restorer(SMALL)(photo[None])
        small = load_restorer("tiny")(fit(photo, 128)[0][None])
    enlarged = fit(small[0], 256)[0][None]
    assert float(psnr(restored, clean[None])) > float(psnr(photo[None], clean[None]))
    sharp, soft = (float(relative_sharpness(image, clean[None])) for image in (restored, enlarged))
    assert soft < sharp < 1
