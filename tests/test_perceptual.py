"""The perceptual room: properties of the distance, lpips from local files, and the training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from images import edged_images
from torch import Tensor

from adapt.digests import file_digest
from adapt.errors import ShapeError, UsageError, WeightsError
from adapt.perceptual import distance as distance_room
from adapt.perceptual.distance import PerceptualDistance, find_lpips, load_pack_distance
from adapt.perceptual.network import PerceptualNetwork, initialise
from adapt.pretraining.distortions import DISTORTIONS, at_equal_error

SHIPPED = Path(__file__).resolve().parents[1] / "adapt/packs/tiny/perceptual.safetensors"


@pytest.fixture
def network(gen: torch.Generator) -> PerceptualNetwork:
    """A random network with unequal channel weights."""
    made = PerceptualNetwork([4, 6, 8, 8, 10])
    initialise(made, gen)
    for raw in made.raw_weights:
        torch.nn.init.normal_(raw, generator=gen)
    return made


@pytest.fixture(scope="module")
def shipped() -> PerceptualDistance:
    """The pack's own distance, as it ships."""
    from safetensors import safe_open

    with safe_open(SHIPPED, "pt") as stored:
        state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 -- safe_open is no mapping
        metadata = stored.metadata()
    assert metadata["architecture"] == "perceptual"
    return load_pack_distance(state, json.loads(metadata["settings"]), file_digest(SHIPPED))


# ---------------------------------------------------------------- network


def test_the_distance_is_a_distance(network: PerceptualNetwork, gen: torch.Generator) -> None:
    a, b = edged_images(gen), edged_images(gen)
    assert torch.equal(network(a, a), torch.zeros(3))
    assert torch.equal(network(a, b), network(b, a))
    assert (network(a, b) > 0).all()


def test_the_distance_follows_the_equation(network: PerceptualNetwork, gen: torch.Generator) -> None:
    """Zhang et al. 2018, Eq. (1), position by position in float64 numpy, from the same features."""
    a, b = edged_images(gen, 1), edged_images(gen, 1)
    expected = 0.0
    sides = zip(network.features(a), network.features(b), network.channel_weights(), strict=True)
    for first, second, weights in sides:
        y, y0, w = (value.detach().double().squeeze(0).numpy() for value in (first, second, weights))
        _, height, width = y.shape
        for row in range(height):
            for column in range(width):
                difference = y[:, row, column] / np.linalg.norm(y[:, row, column])
                difference = difference - y0[:, row, column] / np.linalg.norm(y0[:, row, column])
                expected += float((w * difference**2).sum()) / (height * width)
    torch.testing.assert_close(float(network(a, b).detach()), expected, rtol=1e-5, atol=0)


def test_orthogonal_features_are_one_apart(network: PerceptualNetwork) -> None:
    """The scale: by symmetry, the mean over all pairs of different axes of feature space."""
    total = torch.zeros(())
    for weights in network.channel_weights():
        axes = torch.eye(len(weights))
        pairs = [
            ((axes[i] - axes[j]).square() * weights).sum()
            for i in range(len(weights))
            for j in range(len(weights))
            if i != j
        ]
        total = total + torch.stack(pairs).mean()
    torch.testing.assert_close(total, torch.ones(()), rtol=1e-6, atol=0)


def test_a_image_does_not_depend_on_its_batch(network: PerceptualNetwork, gen: torch.Generator) -> None:
    a, b = edged_images(gen, 5), edged_images(gen, 5)
    alone = torch.cat([network(a[i : i + 1], b[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(network(a, b), alone, rtol=0, atol=1e-6)
    codes = torch.cat([network.embed(a[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(network.embed(a), codes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (37, 16), (128, 128)])
def test_sizes(network: PerceptualNetwork, gen: torch.Generator, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, generator=gen)
    shapes = [tuple(stage.shape[2:]) for stage in network.features(image)]
    assert shapes == [(-(-size[0] // 2**i), -(-size[1] // 2**i)) for i in range(5)]
    assert network.embed(image).shape == (2, 36)
    assert torch.isfinite(network(image, image.flip(3))).all()


@pytest.mark.parametrize("other", ["noise", "flat"])
def test_the_gradient_is_finite_and_not_zero(network: PerceptualNetwork, gen: torch.Generator, other: str) -> None:
    """Flat images are the hard case: with zero biases, mid-grey has no activation at all."""
    a = torch.full((2, 3, 21, 19), 0.5)
    b = torch.rand(a.shape, generator=gen) if other == "noise" else torch.full_like(a, 0.6)
    for start in (a, b):
        image = start.clone().requires_grad_()
        network(image, a if start is b else b).sum().backward()
        assert image.grad is not None
        assert torch.isfinite(image.grad).all()
        assert image.grad.abs().max() > 0


def test_the_gradient_is_that_of_the_distance(network: PerceptualNetwork, gen: torch.Generator) -> None:
    """Against a central difference along a random direction, in float64."""
    network = network.double()
    a, b, direction = (torch.rand(1, 3, 19, 17, generator=gen, dtype=torch.float64) for _ in range(3))
    a.requires_grad_()
    (slope,) = torch.autograd.grad(network(a, b).sum(), a)
    step = 1e-6
    with torch.no_grad():
        numeric = (network(a + step * direction, b) - network(a - step * direction, b)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), numeric[0], rtol=1e-4, atol=1e-9)


def test_a_shape_that_cannot_be_is_named(network: PerceptualNetwork) -> None:
    with pytest.raises(ShapeError, match=r"sides of 16 pixels or more, got \(1, 3, 15, 40\)"):
        network.features(torch.zeros(1, 3, 15, 40))
    with pytest.raises(ShapeError, match=r"got \(1, 1, 32, 32\)"):
        network.embed(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ShapeError, match=r"of one shape, got \(1, 3, 32, 32\) and \(2, 3, 32, 32\)"):
        network(torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32))
    with pytest.raises(UsageError, match="one stage or more"):
        PerceptualNetwork([])


# ---------------------------------------------------------------- distances by name


def test_the_pack_distance_trains_images_not_weights(network: PerceptualNetwork, gen: torch.Generator) -> None:
    half = {key: value.half() for key, value in network.state_dict().items()}
    distance = load_pack_distance(half, {"channels": [4, 6, 8, 8, 10]}, "d1")
    assert (distance.name, distance.digest) == ("tiny-perceptual", "d1")
    image = edged_images(gen).requires_grad_()
    distance(image, edged_images(gen)).mean().backward()
    assert image.grad is not None
    assert all(parameter.grad is None for parameter in distance.module.parameters())
    assert distance.to("cpu") is distance
    assert torch.equal(distance.features(image), distance.features(image))


def test_weights_that_do_not_fit_are_named(network: PerceptualNetwork) -> None:
    state = network.state_dict()
    with pytest.raises(WeightsError, match=r"missing \['raw_weights.5', 'stages.5.0.bias'"):
        load_pack_distance(state, {"channels": [4, 6, 8, 8, 10, 12]}, "")
    with pytest.raises(WeightsError, match=r"stages.0.0.weight is \(4, 3, 3, 3\) instead of \(5, 3, 3, 3\)"):
        load_pack_distance(state, {"channels": [5, 6, 8, 8, 10]}, "")
    with pytest.raises(UsageError, match="expected the settings"):
        load_pack_distance(state, {"chanels": [4]}, "")
    with pytest.raises(UsageError, match="positive whole numbers as channels"):
        load_pack_distance(state, {"channels": [4, 0]}, "")


def test_lpips_is_never_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_lpips() is None
    with pytest.raises(WeightsError, match="no such file"):
        find_lpips(tmp_path / "vgg16.pth")
    (tmp_path / "vgg16.pth").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="whose sha256 starts with 397923af, got"):
        find_lpips(tmp_path / "vgg16.pth")


def test_lpips_from_a_local_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gen: torch.Generator) -> None:
    """A random backbone in torchvision's layout, where torch.hub looks; compared with lpips itself."""
    import lpips

    own = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    stored = {"features." + key.split(".", 1)[1]: value for key, value in own.net.state_dict().items()}
    path = tmp_path / "hub/checkpoints/vgg16-397923af.pth"
    path.parent.mkdir(parents=True)
    torch.save(stored, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(distance_room, "VGG_SHA256_STARTS", file_digest(path)[:8])
    before = torch.random.get_rng_state()
    found = find_lpips()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found is not None
    assert found.name == "lpips-vgg-v0.1"
    assert len(found.digest) == 64
    assert all(not parameter.requires_grad for parameter in found.module.parameters())
    a, b = torch.rand(2, 2, 3, 40, 32, generator=gen)
    torch.testing.assert_close(found(a, b), own(2 * a - 1, 2 * b - 1).reshape(2), rtol=1e-6, atol=0)
    assert found.features(a).shape == (2, 2 * (512 + 512))


# ---------------------------------------------------------------- the weights that ship


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg", "downscale", "smoothing", "ringing"])
def test_the_shipped_distance_grows_with_the_damage(shipped: PerceptualDistance, kind: str, shared: Path) -> None:
    from adapt.photos.files import read_image

    paths = sorted((shared / "faces/test/128").rglob("*.jpg"))[::24]
    images = torch.stack([read_image(path) for path in paths])
    field = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    rows = torch.stack([
        shipped(images, DISTORTIONS[kind](images, torch.full((len(images),), s), field))
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    ])  # fmt: skip
    assert (rows[1:] > rows[:-1]).all()


def test_the_shipped_distance_forgives_a_shift(shipped: PerceptualDistance, shared: Path) -> None:
    from adapt.photos.files import read_image

    paths = sorted((shared / "faces/test/128").rglob("*.jpg"))[::8]
    images = torch.stack([read_image(path) for path in paths])
    triplets = at_equal_error(images, "shift", "blur", draw=torch.Generator().manual_seed(1))
    better = shipped(triplets.reference, triplets.better)
    worse = shipped(triplets.reference, triplets.worse)
    assert (worse > better).float().mean() > 0.7


def test_the_shipped_weights_are_positive_small_and_cheap(shipped: PerceptualDistance) -> None:
    assert SHIPPED.stat().st_size < 4_000_000
    network = shipped.module
    assert isinstance(network, PerceptualNetwork)
    assert all((stage > 0).all() for stage in network.channel_weights())
    operations = 0

    def count(layer: torch.nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal operations
        if isinstance(layer, torch.nn.Conv2d):
            operations += output[0].numel() * layer.weight[0].numel()

    handles = [layer.register_forward_hook(count) for layer in network.modules()]
    network.features(torch.zeros(1, 3, 128, 128))
    for handle in handles:
        handle.remove()
    assert 0 < operations < 0.6e9
