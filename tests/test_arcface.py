"""A user's ArcFace file: parity with the public network, and as the recogniser of measures and losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import adapt
from reference import Reference

from adapt.errors import WeightsError
from adapt.faces.arcface import ArcFace, ArcFaceNetwork, build_arcface
from adapt.faces.measures import identity_distance, identity_loss
from adapt.loading import load_face_networks, load_recogniser
from adapt.packs.pack import load_pack
from adapt.photos.files import write_image
from adapt.targets.likeness import likeness
from degradations.cosines import gaussian_blur


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in the public layout, wrapped as a parallel training leaves them."""
    generator, network = torch.Generator().manual_seed(0), ArcFaceNetwork()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    path = tmp_path_factory.mktemp("arcface") / "arcface_resnet18.pth"
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, path)
    return path


def test_fixture(reference: Reference):
    arrays = reference.arrays("arcface")
    network = reference.fill.load(ArcFaceNetwork().eval())
    known = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert known == reference.manifest("arcface_resnet18")["tensors"]
    with torch.no_grad():
        found = network(torch.from_numpy(arrays["x"]))
    torch.testing.assert_close(found, torch.from_numpy(arrays["out"]), rtol=0, atol=2e-5)


def test_a_file_is_known_by_its_tensors(file: Path):
    loaded = load_recogniser(file)
    assert isinstance(loaded, ArcFace)
    faces = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    together = loaded.of_aligned(faces)
    assert together.shape == (3, 512)
    torch.testing.assert_close(together[1:2], loaded.of_aligned(faces[1:2]), rtol=0, atol=1e-5)
    grey = (faces * torch.tensor([0.2989, 0.5870, 0.1140]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    twice = grey.expand(-1, 3, -1, -1) / (0.2989 + 0.5870 + 0.1140)
    torch.testing.assert_close(loaded.of_aligned(twice.clamp(0, 1)), together, rtol=0, atol=1e-3)
    assert not any(weight.requires_grad for weight in loaded.network.parameters())


def test_distances_and_gradients(file: Path):
    loaded = load_recogniser(file)
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(identity_distance(a, a, loaded), torch.zeros(2), rtol=0, atol=1e-5)
    assert float(identity_distance(a, b, loaded).min()) > 1e-4
    moving = (a * 1.2 - 0.1).requires_grad_()
    identity_loss(moving, b, loaded).sum().backward()
    assert moving.grad is not None
    assert float(moving.grad.abs().max()) > 0


def test_weights_that_do_not_fit_are_refused(file: Path):
    state = torch.load(file, weights_only=True)
    del state["module.fc5.bias"]
    with pytest.raises(WeightsError, match=r"fc5\.bias"):
        build_arcface("mine", state)


def test_evaluate_measures_by_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    for folder, image in (("a", faces[0]), ("b", faces[1])):
        write_image(tmp_path / folder / "x.png", image)
    command = ["evaluate", tmp_path / "a", "--truth", tmp_path / "b", "--json"]
    told: list[float] = []
    for options in ([], ["--recogniser", file]):
        assert adapt(monkeypatch, *command, *options) == 0
        told.append(json.loads(capsys.readouterr().out)["scores"]["identity"]["mean"])
    assert told[0] != pytest.approx(told[1])


def test_a_pack_may_have_it(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Entered as the recogniser, it is what gate and verdict ask, and its own line is where a face is lost."""
    words = ["--licence", "mine", "--source", "here", "--trained", "elsewhere", "--size", "128"]
    assert adapt(monkeypatch, "packs", "add", tmp_path / "pack", "recogniser", file, *words) == 0
    assert load_pack(tmp_path / "pack").network("recogniser").architecture == "arcface-resnet18"
    networks, _ = load_face_networks(tmp_path / "pack", torch.device("cpu"))
    assert isinstance(networks.recogniser, ArcFace)
    a, b = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    kept = likeness(a, b, b, networks)
    blurred = gaussian_blur(torch.stack([a, b]), torch.tensor([kept.own_std] * 2)).clamp(0, 1)
    distance = float(identity_distance(blurred[:1], blurred[1:], networks.recogniser))
    assert kept.identity == pytest.approx(distance / 0.7, abs=1e-4)
