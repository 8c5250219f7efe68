"""The perceptual room: properties of the distance, lpips from local files, and the training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adapt.digests import file_digest, settings_digest
from adapt.errors import ShapeError, TrainingError, UsageError, WeightsError
from adapt.perceptual import distance as distance_room
from adapt.perceptual.distance import PerceptualDistance, find_lpips, load_pack_distance
from adapt.perceptual.network import PerceptualNetwork, initialise
from adapt.pretrain import distortions
from adapt.pretrain.distortions import DISTORTIONS, FORGIVEN, RESENTED, at_equal_error, by_severity, gaussian
from adapt.pretrain.loop import Progress
from adapt.pretrain.ordering import ordering_table, squared_error
from adapt.pretrain.perceptual import load_portraits, train_perceptual
from adapt.runs import Run
from adapt.settings import PerceptualSettings

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


def photos(gen: torch.Generator, count: int = 3, height: int = 37, width: int = 31) -> Tensor:
    """Smooth random pictures with edges, (count, 3, height, width) in [0, 1]."""
    waves = gaussian(torch.randn(count, 3, height, width, generator=gen), torch.full((count,), 2.0))
    edges = (gaussian(torch.randn(count, 1, height, width, generator=gen), torch.full((count,), 4.0)) > 0).float()
    return (0.35 + 0.5 * waves + 0.3 * edges).clamp(0, 1)


# ---------------------------------------------------------------- network


def test_the_distance_is_a_distance(network: PerceptualNetwork, gen: torch.Generator) -> None:
    a, b = photos(gen), photos(gen)
    assert torch.equal(network(a, a), torch.zeros(3))
    assert torch.equal(network(a, b), network(b, a))
    assert (network(a, b) > 0).all()


def test_the_distance_follows_the_equation(network: PerceptualNetwork, gen: torch.Generator) -> None:
    """Zhang et al. 2018, Eq. (1), position by position in float64 numpy, from the same features."""
    a, b = photos(gen, 1), photos(gen, 1)
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


def test_a_picture_does_not_depend_on_its_batch(network: PerceptualNetwork, gen: torch.Generator) -> None:
    a, b = photos(gen, 5), photos(gen, 5)
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
    """Flat pictures are the hard case: with zero biases, mid-grey has no activation at all."""
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


def test_the_pack_distance_trains_pictures_not_weights(network: PerceptualNetwork, gen: torch.Generator) -> None:
    half = {key: value.half() for key, value in network.state_dict().items()}
    distance = load_pack_distance(half, {"channels": [4, 6, 8, 8, 10]}, "d1")
    assert (distance.name, distance.digest) == ("tiny-perceptual", "d1")
    image = photos(gen).requires_grad_()
    distance(image, photos(gen)).mean().backward()
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


# ---------------------------------------------------------------- distortions


def test_the_blur_is_a_mirrored_gaussian(gen: torch.Generator) -> None:
    """Reference: a sampled kernel over an explicitly mirrored row, float64; at std 2 sampling errs below 1e-6."""
    image = torch.rand(1, 3, 23, 29, generator=gen)
    row = image[0].double().numpy()
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / 2.0) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (20, 20)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(row, pad, mode="symmetric"), 41, axis=axis)
        row = windows @ kernel
    blurred = gaussian(image, torch.tensor([2.0]))[0].double()
    torch.testing.assert_close(blurred, torch.from_numpy(row), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_more_strength_is_more_damage(kind: str, gen: torch.Generator) -> None:
    """The order that training takes for granted, on means over the pictures."""
    images = photos(gen, 6, 40, 36)
    field = torch.randn(images.shape, generator=gen)
    made = [DISTORTIONS[kind](images, torch.full((6,), s), field) for s in (0.0, 0.35, 0.7, 1.0)]
    errors = [float(squared_error(images, image).mean()) for image in made]
    assert errors == sorted(errors)
    assert errors[0] > 0
    assert all(image.shape == images.shape and image.min() >= 0 and image.max() <= 1 for image in made)
    alone = DISTORTIONS[kind](images[2:3], torch.full((1,), 0.7), field[2:3])
    torch.testing.assert_close(alone, made[2][2:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("forgiven", FORGIVEN)
@pytest.mark.parametrize("resented", RESENTED)
def test_equal_error_is_equal(forgiven: str, resented: str, gen: torch.Generator) -> None:
    triplets = at_equal_error(photos(gen, 6), forgiven, resented, draw=gen)
    better = squared_error(triplets.reference, triplets.better)
    worse = squared_error(triplets.reference, triplets.worse)
    torch.testing.assert_close(better, worse, rtol=1e-4, atol=1e-9)


def test_a_shift_moves_by_one_pixel(gen: torch.Generator) -> None:
    image = photos(gen, 16, 20, 20)
    moved = distortions.shift(image, torch.ones(16), torch.randn(image.shape, generator=gen))
    inner = slice(2, -2)
    for one, other in zip(image, moved, strict=True):
        offsets = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        equal = [o for o in offsets if torch.equal(other[:, inner, inner], one.roll(o, (1, 2))[:, inner, inner])]
        assert len(equal) == 1
        assert equal != [(0, 0)]


# ---------------------------------------------------------------- training


SETTINGS = PerceptualSettings(
    channels=[4, 6, 8], steps=6, batch=6, size=24, learning_rate=1e-3, warmup=2, ema=0.9, save_every=2, seed=3
)


@pytest.fixture
def faces(tmp_path: Path, gen: torch.Generator) -> Path:
    """Eight small portraits of five people, with their table."""
    folder = tmp_path / "faces/128/a"
    folder.mkdir(parents=True)
    rows = ["file,person,set"]
    for number, image in enumerate(photos(gen, 8, 32, 28)):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,p{number % 5},a")
    (tmp_path / "faces/a.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "faces/128"


def test_people_come_from_the_table_beside_the_folder(faces: Path) -> None:
    assert load_portraits(faces, 24).people == [0, 1, 2, 3, 4, 0, 1, 2]
    (faces.parent / "b.csv").write_text("name,person\n1.png,x\n")
    with pytest.raises(UsageError, match=r"b.csv: expected the columns 'file' and 'person', got \['name', 'person'\]"):
        load_portraits(faces, 24)
    (faces.parent / "b.csv").unlink()
    (faces.parent / "a.csv").unlink()
    assert load_portraits(faces, 24).people == list(range(8))
    with pytest.raises(UsageError, match=r"sides of 30 pixels or more, got \(28, 32\)"):
        load_portraits(faces, 30)
    with pytest.raises(UsageError, match="found no picture"):
        load_portraits(faces.parent / "none", 24)


def train(
    settings: PerceptualSettings,
    faces: Path,
    out: Path,
    *,
    held_out: Path | None = None,
    on_step: Progress | None = None,
    max_steps: int | None = None,
) -> dict[str, Tensor]:
    """Train in a run folder, as the command line does."""
    digest = settings_digest(settings.model_dump(mode="json"))
    with Run(out, recipe="", digest=digest) as run:
        return train_perceptual(settings, faces, run, held_out=held_out, on_step=on_step, max_steps=max_steps)


@pytest.mark.parametrize("stops_in", ["tasks", "ranking"])
def test_training_resumes_bit_for_bit(faces: Path, tmp_path: Path, stops_in: str) -> None:
    """Six steps, of which two rank: stopped at step 2 or at step 4 the saved state, a crash follows, and it goes on."""
    whole = train(SETTINGS, faces, tmp_path / "whole", held_out=faces)

    class CrashError(Exception):
        pass

    settings = SETTINGS.model_copy(update={"save_every": 3 if stops_in == "tasks" else 5})
    reference = train(settings, faces, tmp_path / "other")

    def crash(step: int, steps: int, losses: object) -> None:
        if step == steps:  # everything after the last saved state is lost
            raise CrashError

    with pytest.raises(CrashError):
        train(settings, faces, tmp_path / "part", on_step=crash)
    state = torch.load(tmp_path / "part/last/state.pt", weights_only=True)
    assert state["step"] == settings.save_every
    resumed = train(settings, faces, tmp_path / "part")
    for key, value in whole.items():
        assert torch.equal(value, reference[key])
        assert torch.equal(value, resumed[key])
    ends = [torch.load(tmp_path / run / "last/state.pt", weights_only=True) for run in ("part", "other")]
    for key, value in ends[0]["networks"].items():
        assert torch.equal(value, ends[1]["networks"][key])
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("part", "other")]
    assert logs[0] == logs[1] != ""


def test_training_stops_in_time_and_goes_on(faces: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    train(SETTINGS, faces, tmp_path / "run", max_steps=1, on_step=lambda step, total, losses: steps.append(step))
    assert torch.load(tmp_path / "run/last/state.pt", weights_only=True)["step"] == 1
    assert not (tmp_path / "run/perceptual.json").exists(), "facts of an unfinished network"
    with pytest.raises(UsageError, match="other settings"):
        train(SETTINGS.model_copy(update={"seed": 4}), faces, tmp_path / "run")
    train(SETTINGS, faces, tmp_path / "run", on_step=lambda step, total, losses: steps.append(step))
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_not_finite_stops_the_training(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is (nan|inf)"):
        train(SETTINGS.model_copy(update={"learning_rate": 1e20}), faces, tmp_path / "run")


def test_what_training_makes(faces: Path, tmp_path: Path) -> None:
    state = train(SETTINGS, faces, tmp_path / "run", held_out=faces)
    assert {value.dtype for value in state.values()} == {torch.float16}
    distance = load_pack_distance(state, {"channels": SETTINGS.channels}, "0" * 64)
    assert isinstance(distance.module, PerceptualNetwork)
    weights = distance.module.channel_weights()
    assert all((stage > 0).all() for stage in weights)
    assert any(stage.std() > 0 for stage in weights), "ranking left the channel weights as they were"
    facts = json.loads((tmp_path / "run/perceptual.json").read_text())
    assert facts["people"] == 5
    assert set(facts["held_out"]) >= {"blur", "shift < blur"}


KNOBS = {
    "channels": [4, 6, 10], "steps": 7, "batch": 5, "size": 20, "learning_rate": 2e-3, "warmup": 4, "ema": 0.0,
    "seed": 4,
}  # fmt: skip


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(knob: str, faces: Path, tmp_path: Path) -> None:
    before = train(SETTINGS, faces, tmp_path / "plain")
    after = train(SETTINGS.model_copy(update={knob: KNOBS[knob]}), faces, tmp_path / "turned")
    assert any(value.shape != after[key].shape or not torch.equal(value, after[key]) for key, value in before.items())


def test_pairs_of_equal_error_are_a_coin_to_toss_for_l2(faces: Path) -> None:
    """The table tells measures apart: L2 is blind where errors are equal, and knows the strength of noise."""
    table = ordering_table(squared_error, faces, seed=1)
    assert table["brightness < noise"]["l2"] == 0.5
    assert table["noise"]["l2"] == 1.0
    assert table["noise"]["tiny-perceptual"] == 1.0  # here, the measure under test is L2 itself
    assert table["noise"]["triplets"] == 8


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


def test_severity_triplets_share_their_noise(gen: torch.Generator) -> None:
    """With the same field, the stronger noise is the weaker one scaled up, where nothing was clipped."""
    images = torch.full((4, 3, 16, 16), 0.5)
    triplets = by_severity(images, "noise", gen)
    weak, strong = (triplets.better - images).flatten(1), (triplets.worse - images).flatten(1)
    whole = (strong.abs() < 0.49) & (weak.abs() < 0.49) & (weak.abs() > 0.01)
    ratios = [(s[w] / q[w]) for s, q, w in zip(strong, weak, whole, strict=True)]
    assert all(float(r.min()) > 1 and float(r.std() / r.mean()) < 1e-3 for r in ratios)
