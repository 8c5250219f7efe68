"""The losses that keep sharpness and person: each formula, what each reaches, and exact resume of a run with them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from knobs import names_of, settings_of
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from adapt.commands.finetune import finetune
from adapt.commands.finetune_setup import set_up_finetune
from adapt.errors import RecipeError, UsageError
from adapt.evaluation.inputs import Measuring
from adapt.faces.measures import identity_distance, identity_loss
from adapt.faces.recogniser import FaceIdentifier, Recogniser
from adapt.finetuning import discriminators, loop
from adapt.finetuning.discriminators import build_discriminator
from adapt.finetuning.image_losses import (
    AdversarialTerm,
    ImageLosses,
    Photos,
    Terms,
    consistency,
)
from adapt.finetuning.objectives import ImageObjective
from adapt.images import fine_detail
from adapt.loading import load_recogniser, measuring_networks
from adapt.photos.files import read_image, write_image
from adapt.settings import DiscriminatorSettings, FinetuneSettings, PatchAdversarySettings
from adapt.targets.store import Record, TargetStore, accepted_targets, image_name
from adapt.training.adversary import PatchDiscriminator, check_layers, hinge, hinge_of_made, last_layer
from adapt.training.losses import l1
from degradations.cosines import gaussian_blur

FEW = PatchAdversarySettings(features=8)


@pytest.fixture(scope="module")
def recogniser() -> FaceIdentifier:
    return load_recogniser("tiny")


# ---------------------------------------------------------------- the discriminator


def test_fine_detail_is_the_image_less_its_blur(gen: torch.Generator):
    """Reference: scipy's sampled Gaussian over edge pixels that are repeated, 4 standard deviations wide."""
    for size, std in (((37, 160), 0.5), ((256, 300), 2.0)):
        image = torch.rand(1, 3, *size, generator=gen, dtype=torch.float64)
        blurred = gaussian_filter(image.numpy(), (0, 0, std, std), mode="nearest", truncate=4)
        np.testing.assert_allclose(fine_detail(image).numpy(), image.numpy() - blurred, rtol=0, atol=1e-12)


def test_a_verdict_is_of_one_image_alone(gen: torch.Generator):
    """In training as in evaluation, whatever else is in the batch; and nothing is carried from one step to the next."""
    network = PatchDiscriminator(FEW, gen, detail=True)
    images = torch.rand(3, 3, 32, 32, generator=gen)
    assert list(network.buffers()) == []
    with torch.no_grad():
        together, apart = network.train()(images), torch.cat([network.eval()(image[None]) for image in images])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_it_learns_sharpness_from_few(gen: torch.Generator):
    """Batches of 8, 8 features, the recipe's rate: within the first steps it tells images from blurred ones."""
    texture = torch.rand(24, 3, 32, 32, generator=gen)
    sharp = 0.5 + 0.3 * (gaussian_blur(texture, torch.full((24,), 0.7)) - 0.5)
    soft = gaussian_blur(sharp, torch.full((24,), 0.8))
    settings = FinetuneSettings(steps=1, batch=8, discriminator=FEW)
    network, optimizer = build_discriminator(settings, 32) or pytest.fail("none was built")
    for _ in range(FEW.first_steps):
        chosen = torch.randint(16, (2, 8), generator=gen)
        loss = hinge(network(sharp[chosen[0]]), network(soft[chosen[1]]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        of_sharp, of_soft = (-hinge_of_made(network(images[16:])) for images in (sharp, soft))
    assert float(of_sharp.min()) > float(of_soft.max()), "of images that it has not seen"


def test_hinge_losses_of_each_image(gen: torch.Generator):
    real, fake = 2 * torch.randn(2, 3, 1, 4, 5, generator=gen)
    assert hinge_of_made(fake).tolist() == pytest.approx([-sum(each.flatten().tolist()) / 20 for each in fake])
    expected = [max(0.0, 1 - a) + max(0.0, 1 + b)
                for a, b in zip(real.flatten().tolist(), fake.flatten().tolist(), strict=True)]
    assert float(hinge(real, fake)) == pytest.approx(sum(expected) / 120, rel=1e-6)


@pytest.mark.parametrize(("size", "most"), [(16, 2), (24, 3), (128, 5), (512, 7)])
def test_as_many_layers_as_leave_something(size: int, most: int, gen: torch.Generator):
    for layers in (most, most + 1):
        settings = PatchAdversarySettings(features=1, layers=layers)
        network = PatchDiscriminator(settings, gen, detail=True)
        image = torch.rand(1, 3, size, size, generator=gen)
        if layers == most:
            check_layers(settings, size)
            assert network(image).numel() >= 1
        else:
            with pytest.raises(UsageError, match=rf"layers: expected at most {most} for images of {size} pixels"):
                check_layers(settings, size)
            with pytest.raises(RuntimeError):
                network(image)


# ---------------------------------------------------------------- identity and consistency


def test_the_identity_is_the_metrics_and_its_gradient_the_outputs(recogniser: FaceIdentifier, gen: torch.Generator):
    restored, target = torch.rand(2, 2, 3, 64, 64, generator=gen)
    expected = identity_distance(restored, target, recogniser)
    restored.requires_grad_()
    target.requires_grad_()
    found = identity_loss(restored, target, recogniser)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert target.grad is None
    assert restored.grad is not None
    assert bool((restored.grad.abs().amax(dim=(1, 2, 3)) > 0).all())
    assert isinstance(recogniser, Recogniser)
    assert all(weight.grad is None for weight in recogniser.network.parameters())
    with torch.no_grad():
        assert bool(identity_loss(2 * restored - 0.5, target, recogniser).isfinite().all()), "outputs leave [0, 1]"


def test_consistency_against_its_definition(gen: torch.Generator):
    """Reference: scipy's Gaussian with mirrored edges, then means of 2 x 2 pixels by a reshape."""
    restored, photo = torch.rand(2, 3, 3, 36, 40, generator=gen, dtype=torch.float64)
    std = torch.tensor([1.5, 3.0, math.nan], dtype=torch.float64)
    found = consistency(restored.requires_grad_(), Photos(photo, std))
    for index in range(2):
        sigma = (0, std[index].item(), std[index].item())
        both = [gaussian_filter(each[index].detach().numpy(), sigma, mode="mirror", truncate=8)
                for each in (restored, photo)]
        means = (both[0] - both[1]).reshape(3, 18, 2, 20, 2).mean(axis=(2, 4))
        assert found[index].item() == pytest.approx(np.abs(means).mean(), rel=1e-4)
    assert found[2].item() == 0.0
    found.sum().backward()
    assert restored.grad is not None
    assert bool(restored.grad.isfinite().all())
    assert not restored.grad[2].any(), "nothing is known of it, so nothing is asked"


def test_what_blur_and_noise_hide_is_free(gen: torch.Generator):
    """A pattern finer than the blur costs nothing; another colour costs as much as it is another."""
    photo = torch.rand(1, 3, 64, 64, generator=gen)
    rows = torch.arange(64)
    checks = 0.2 * ((rows[:, None] + rows[None, :]) % 2 * 2.0 - 1)
    photos = Photos(photo, torch.tensor([1.0]))
    assert consistency(photo + checks, photos).item() < 0.002
    assert consistency(photo + 0.1, photos).item() == pytest.approx(0.1, rel=1e-4)


# ---------------------------------------------------------------- their sum


class OneLayer(torch.nn.Module):
    """A restorer of one convolution."""

    def __init__(self, gen: torch.Generator) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            for weight in self.parameters():
                weight.normal_(std=0.3, generator=gen)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        return self.conv(photo)


def settings_with(**values: Any) -> FinetuneSettings:
    return FinetuneSettings.model_validate({"steps": 1, "adversarial": 0.0, **values})


def test_the_total_weighs_every_part(recogniser: FaceIdentifier, gen: torch.Generator):
    settings = settings_with(l1=0.5, perceptual=0.25, face_identity=0.3, consistency=0.7, adversarial=0.02)
    network = OneLayer(gen)
    objective = ImageObjective(settings, network, l1, recogniser)
    photo, target = torch.rand(2, 2, 3, 32, 32, generator=gen)
    gan = AdversarialTerm(lambda image: image.mean(dim=(1, 2, 3)))
    photos = Photos(photo, torch.tensor([0.5, 1.0]))
    total, parts = objective.losses(network(photo), target, gan, photos)
    weights = {"l1": 0.5, "perceptual": 0.25, "face_identity": 0.3, "consistency": 0.7, "adversarial": 0.02}
    assert set(parts) == set(weights)
    assert total.item() == pytest.approx(sum(weights[name] * part.mean().item() for name, part in parts.items()))
    score = objective.score(network(photo), target)
    expected = 0.5 * score["l1"] + 0.25 * score["perceptual"] + 0.3 * score["face_identity"]
    torch.testing.assert_close(score["total"], expected)
    off = ImageObjective(settings_with(), network, l1).score(network(photo), target)
    assert set(off) == {"l1", "perceptual", "total"}


@pytest.mark.parametrize("strength", [0.01, 50.0])
def test_the_discriminator_pulls_at_the_last_layer_by_its_share(strength: float, gen: torch.Generator):
    """Where it pulls more than the others; where it pulls less, its weight is no more than was asked for."""
    settings = settings_with(perceptual=0.0, adversarial=0.3, discriminator={"kind": "patch", "balance": True})
    network = OneLayer(gen)
    last = last_layer(network)
    assert last is network.conv.weight
    photo, target = torch.rand(2, 2, 3, 16, 16, generator=gen)
    gan = AdversarialTerm(lambda image: strength * image.square().mean(dim=(1, 2, 3)), last)
    total, parts = ImageObjective(settings, network, l1).losses(network(photo), target, gan)
    wanted, other = (
        torch.autograd.grad(parts[name].mean(), last, retain_graph=True)[0].norm() for name in ("l1", "adversarial")
    )
    (pull,) = torch.autograd.grad(total - parts["l1"].mean(), last, retain_graph=True)
    assert float(pull.norm()) == pytest.approx(0.3 * float(torch.minimum(wanted, other)), rel=1e-2)
    assert parts["balance"].item() == pytest.approx(min(1.0, float(wanted / other)), rel=1e-2)


def test_a_last_layer_that_says_nothing_is_refused(gen: torch.Generator):
    settings = settings_with(adversarial=0.3, discriminator={"kind": "patch", "balance": True})
    network = OneLayer(gen)
    photo, target = torch.rand(2, 1, 3, 16, 16, generator=gen)
    gan = AdversarialTerm(lambda image: image.mean(dim=(1, 2, 3)), torch.zeros(3, requires_grad=True))
    with pytest.raises(UsageError, match="the last layer that this restorer names has no part in its images"):
        ImageObjective(settings, network, l1).losses(network(photo), target, gan)
    with pytest.raises(UsageError, match="no layer of the restorer learns"):
        last_layer(network.requires_grad_(False))


def test_terms_join(gen: torch.Generator):
    one = Terms({"a": torch.ones(2)}, {"a": 2.0}, {"told": torch.ones(1)})
    total, parts = one.joined(Terms({"b": torch.full((2,), 3.0)}, {"b": 0.5}))
    assert total.item() == 3.5
    assert set(parts) == {"a", "b", "told"}


def test_an_identity_without_a_recogniser_is_refused(gen: torch.Generator):
    image = torch.rand(1, 3, 16, 16, generator=gen)
    with pytest.raises(UsageError, match="face_identity: has a weight, and there is no recogniser"):
        ImageLosses(settings_with(face_identity=1.0), l1).terms(image, image, None, None)


# ---------------------------------------------------------------- the recipe


def test_a_recipe_that_names_no_kind_means_the_papers_unet():
    unnamed = FinetuneSettings.model_validate({"steps": 1, "discriminator": {"features": 8}})
    named = FinetuneSettings.model_validate({"steps": 1, "discriminator": {"kind": "unet", "features": 8}})
    assert unnamed.discriminator == DiscriminatorSettings(features=8)
    assert unnamed.identity() == named.identity()


@pytest.mark.parametrize(("change", "message"), [
    ({"consistency_std": 1.0}, "consistency_std: is for `consistency`, which has no weight"),
    ({"adversarial": 0.1, "l1": 0, "perceptual": 0, "discriminator": {"kind": "patch", "balance": True}},
     "needs another loss on images to be weighed against"),
    ({"discriminator": {"kind": "unet", "first_steps": 3}}, "first_steps"),
])  # fmt: skip
def test_settings_that_mean_nothing(change: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        settings_with(**change)


@pytest.mark.parametrize(("override", "message"), [
    ("discriminator.kind=pach", "discriminator.kind: should be 'unet', 'patch' .*did you mean 'patch'"),
    ("discriminator={kind: patch, featurs: 3}", "discriminator.featurs: not a setting of discriminator .*'features'"),
    ("discriminator={kind: patch, layers: 3}", "layers: expected at most 2 for images of 16 pixels"),
    ("face_identty=1", "did you mean 'face_identity'"),
])  # fmt: skip
def test_mistakes_are_said_before_any_work(override: str, message: str, small_pack: Path):
    with pytest.raises((RecipeError, UsageError), match=message):
        set_up_finetune("swinir", pack=str(small_pack), overrides=[override])


# ---------------------------------------------------------------- runs

QUICK = [
    "steps=6", "batch=2", "evaluate_every=3", "holdout=0.34", "learning_rate=1e-3", "adversarial=0.5",
    "discriminator={kind: patch, features: 4, first_steps: 3, balance: true}", "face_identity=0.1", "consistency=1",
    "consistency_std=0.4", "transplant=0.3",
]  # fmt: skip
KNOBS = [
    "discriminator.features=6", "discriminator.layers=1", "discriminator.learning_rate=0.01",
    "discriminator.first_steps=4", "discriminator.balance=false", "face_identity=0.2", "consistency=2",
    "consistency_std=1.2",
]  # fmt: skip


def tune(photos: Path, targets: Path, out: Path, pack: Path, *more: str, **options: Any):
    return finetune(photos, targets, out, pack=str(pack), overrides=[*QUICK, *more], **options)


def state_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "last" / "state.pt", weights_only=True)


def same(first: Path, second: Path) -> bool:
    a, b = (state_of(run)["network"] for run in (first, second))
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole(small_photos: Path, targets: Path, small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    outcome = tune(small_photos, targets, out, small_pack)
    assert set(outcome.base) == {"l1", "perceptual", "face_identity", "total"}
    assert f"face_identity {outcome.base['face_identity']:.4f} -> " in outcome.verdict
    return out


def test_every_part_is_logged(whole: Path):
    text = (whole / "log.jsonl").read_text(encoding="utf-8")
    for name in ("l1", "perceptual", "face_identity", "consistency", "adversarial", "balance", "discriminator",
                 "validation/face_identity"):
        assert f'"{name}": ' in text


def test_stop_and_resume_is_exact(
    whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The discriminator and its optimizer too; its first steps are taken once."""
    taken: list[int] = []
    first_steps = discriminators.first_steps
    monkeypatch.setattr(loop, "first_steps", lambda *a, **k: taken.append(1) or first_steps(*a, **k))
    for _ in range(3):
        tune(small_photos, targets, tmp_path / "run", small_pack, max_steps=2)
    assert same(whole, tmp_path / "run")
    ours, theirs = (state_of(run)["discriminator"] for run in (whole, tmp_path / "run"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (whole / "log.jsonl").read_text() == (tmp_path / "run" / "log.jsonl").read_text()
    assert taken == [1]


def test_the_first_steps_leave_the_restorer_as_it_was(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    """And end in another discriminator. At step 0 nothing but its verdict differs."""
    for steps in (0, 3):
        tune(
            small_photos, targets, tmp_path / f"{steps}", small_pack, f"discriminator.first_steps={steps}",
            "discriminator.learning_rate=1e-2", "face_identity=0", max_steps=1,
        )  # fmt: skip
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines()[0] for name in ("0", "3")]
    none, three = map(json.loads, lines)
    assert none["l1"] == three["l1"]
    assert none["adversarial"] != three["adversarial"]


def test_every_setting_is_turned_below():
    """Those of the other kind and all others are turned in test_finetune.py, `pretrained` in test_onestep.py."""
    others = ("kind", "pretrained")
    patches = {f"discriminator.{name}" for name in PatchAdversarySettings.model_fields if name not in others}
    added = {"face_identity", "consistency", "consistency_std"}
    assert names_of(KNOBS) == patches | added <= settings_of(FinetuneSettings)


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(knob: str, whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path):
    tune(small_photos, targets, tmp_path / "run", small_pack, knob)
    assert not same(whole, tmp_path / "run"), f"{knob} changes nothing"


def test_they_train_in_half_precision(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path, half_precision: None
):
    tune(small_photos, targets, tmp_path / "run", small_pack, max_steps=2)


def test_the_blur_of_a_photo_is_what_its_targets_tell(
    whole: Path, small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path
):
    """Of a store; where it tells none, what the recipe says, and else the photo is named. A run is of these levels."""
    stores = {"told": 0.4, "partly": 0.4, "other": 0.9}
    for name, std in stores.items():
        opened = TargetStore(tmp_path / name, {})
        for number, (id, (path,)) in enumerate(accepted_targets(targets).items()):
            write_image(tmp_path / name / image_name(id, 0), read_image(path))
            opened.add(Record(
                id=id, photo="", photo_sha256="", status="done", target=image_name(id, 0),
                blur_std=None if name == "partly" and number == 1 else std,
            ))  # fmt: skip
    tune(small_photos, tmp_path / "told", tmp_path / "run", small_pack, "consistency_std=null")
    assert same(whole, tmp_path / "run")
    tune(small_photos, tmp_path / "other", tmp_path / "second", small_pack, "consistency_std=0.4")
    assert not same(whole, tmp_path / "second"), "what is told goes before what the recipe says"
    message = r"partly: `consistency` needs the blur level of each photo, and 1 of 6 targets tell none, first: b; make"
    with pytest.raises(UsageError, match=message):
        tune(small_photos, tmp_path / "partly", tmp_path / "third", small_pack, "consistency_std=null")
    with pytest.raises(UsageError, match=r"and 6 of 6 targets tell none.*consistency_std=1\.5"):
        tune(small_photos, targets, tmp_path / "third", small_pack, "consistency_std=null")
    assert not (tmp_path / "third").exists()
    with pytest.raises(UsageError, match="other settings, photos or weights"):
        tune(small_photos, tmp_path / "other", tmp_path / "run", small_pack, "consistency_std=null")


def as_bytes(image: torch.Tensor) -> bytes:
    return image.mul(255).round().byte().numpy().tobytes()


def test_of_a_photo_that_was_made_up_nothing_is_known(
    small_photos: Path, targets: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another's damage over a target is no photo whose low frequencies are to be kept."""
    seen: list[Photos] = []

    def noting(restored: torch.Tensor, photos: Photos) -> torch.Tensor:
        seen.append(photos)
        return consistency(restored, photos)

    monkeypatch.setattr("adapt.finetuning.image_losses.consistency", noting)
    own = {as_bytes(read_image(paths[0])) for paths in accepted_targets(small_photos).values()}
    tune(small_photos, targets, tmp_path / "run", small_pack, "flips=false", "batch=4", "transplant=0.5")
    known = [bool(std.isfinite()) for photos in seen for std in photos.blur]
    theirs = [as_bytes(image) in own for photos in seen for image in photos.images]
    assert 0 < sum(known) < len(known)
    assert all(mine for mine, told in zip(theirs, known, strict=True) if told)
    assert sum(theirs) - sum(known) <= len(known) // 3, "a photo under its own damage may be itself again"


def test_a_run_is_of_one_recogniser(
    whole: Path, small_photos: Path, targets: Path, small_pack: Path, monkeypatch: pytest.MonkeyPatch
):
    found = measuring_networks

    def another(pack: Any) -> dict[str, Measuring]:
        known: Measuring = found(pack)["recogniser"]
        return {"recogniser": Measuring(known.name, "0" * 64, known.network)}

    monkeypatch.setattr("adapt.commands.finetune_setup.measuring_networks", another)
    with pytest.raises(UsageError, match="other settings, photos or weights"):
        tune(small_photos, targets, whole, small_pack)
