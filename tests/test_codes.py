"""The code-level objective: its losses against the public code's numbers, what it trains, and a run of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection

import numpy as np
import pytest
import torch
from networks import SMALL_CODEFORMER, lively_codeformer, lively_vqgan
from pydantic import ValidationError
from reference import Reference

from adapt.errors import UsageError
from adapt.finetuning.codes import CODE_NEEDS, CodeObjective, code_objective
from adapt.finetuning.image_losses import AdversarialTerm, Photos
from adapt.finetuning.objectives import network_with_codes
from adapt.restorers.base import Restorer
from adapt.restorers.codeformer import PARTS, CodeFormer, Reading
from adapt.restorers.vqgan import Codebook
from adapt.settings import CodeFinetuneSettings
from adapt.training.adversary import last_layer
from adapt.training.code_losses import Attempt, PredictsCodes, Teacher, code_feature, code_token
from adapt.training.losses import l1

CODES = CodeFinetuneSettings(steps=1)
PICTURES = CodeFinetuneSettings(
    steps=1, trains=["encoder", "transformer", "fusion"], l1=1.0, perceptual=0.5, adversarial=0.1
)


class Known:
    """A teacher that knows the codes beforehand."""

    def __init__(self, quantize: Codebook, codes: np.ndarray) -> None:
        self.quantize = quantize
        self.known = torch.from_numpy(codes).long()

    def codes(self, image: torch.Tensor) -> torch.Tensor:
        return self.known


def taught(network: CodeFormer, settings: CodeFinetuneSettings = CODES) -> CodeObjective:
    """An objective whose teacher is a VQGAN with the network's codebook."""
    teacher = lively_vqgan(seed=1)
    teacher.quantize.load_state_dict(network.quantize.state_dict())
    return code_objective(settings, network, teacher=teacher.requires_grad_(False), distance=l1)


def test_losses_against_their_definitions(gen: torch.Generator):
    feature, rows = torch.randn(2, 2, 5, 3, 3, generator=gen, dtype=torch.float64)
    expected = ((feature.numpy() - rows.numpy()) ** 2).reshape(2, -1).sum(1) / 45
    assert code_feature(feature, rows).tolist() == pytest.approx(expected.tolist())
    logits = torch.randn(2, 9, 7, generator=gen, dtype=torch.float64)
    codes = torch.randint(0, 7, (2, 9), generator=gen)
    for found, row, truth in zip(code_token(logits, codes), logits.tolist(), codes.tolist(), strict=True):
        chances = [math.exp(place[code]) / sum(map(math.exp, place)) for place, code in zip(row, truth, strict=True)]
        assert float(found) == pytest.approx(-sum(map(math.log, chances)) / 9)


def joined(attempts: list[Attempt]) -> Attempt:
    """Attempts at single photos as one at all of them."""
    readings = [attempt.reading for attempt in attempts]
    logits, feature = (torch.cat([getattr(each, name) for each in readings]) for name in ("logits", "feature"))
    return Attempt(Reading(logits, feature, {}), None)


def test_finetune_losses_fixture(reference: Reference, public_codeformer: CodeFormer):
    """The public code's losses and gradients, with the codes it found.

    The encoder goes forward only, but for its last convolution, and through one photo at a time: backward too it would
    take a minute, and both at once take half as long again. The rest, and the codes, are in benchmarks/codeformer.py.
    """
    arrays, about = reference.arrays("codeformer_finetune_losses"), reference.json("codeformer_finetune_losses")
    network = copy.deepcopy(public_codeformer)
    known = Known(network.quantize, arrays["idx_gt"])
    objective = code_objective(CODES, network, teacher=known, distance=l1)
    last = dict(network.named_parameters())["encoder.blocks.24.weight"]
    network.train_only(["transformer"])
    last.requires_grad_()
    photos = torch.from_numpy(reference.fill.smooth("codeformer_finetune_losses.lq", [2, 3, 512, 512]))
    module = objective.module().train()
    attempt = joined([module(photo[None]) for photo in photos])
    total, parts = objective.losses(attempt, photos, None)
    np.testing.assert_array_equal(attempt.reading.logits.argmax(-1), arrays["logits_argmax"])
    found = [parts["feature"].mean().item(), 0.5 * parts["token"].mean().item(), total.item()]
    assert found == pytest.approx(arrays["losses"].tolist(), rel=2e-6)
    total.backward()
    norms = dict(zip(about["grad_norm_keys"], arrays["grad_norms"].tolist(), strict=True))
    del norms["encoder.blocks.0.weight"]
    for name, parameter in network.named_parameters():
        if name in norms:
            assert parameter.grad is not None
            assert parameter.grad.norm().item() == pytest.approx(norms[name], rel=1e-4), name
    assert network.position_emb.grad is not None
    np.testing.assert_allclose(network.position_emb.grad[:8], arrays["grad_pos_emb"], rtol=0, atol=1e-8)
    network.train_only(CODES.trains)
    assert sum(parameter.requires_grad for parameter in network.parameters()) == about["n_params_with_grad"]


@pytest.mark.parametrize(("settings", "parts"), [
    (CODES, {"encoder", "transformer"}),
    (CODES.model_copy(update={"trains": ["encoder"]}), {"encoder"}),
    (PICTURES, {"encoder", "transformer", "fusion"}),
])
def test_what_learns(settings: CodeFinetuneSettings, parts: set[str], gen: torch.Generator):
    network = lively_codeformer()
    objective = taught(network, settings)
    photo, target = torch.rand(2, 1, 3, 16, 16, generator=gen)
    total, _ = objective.losses(objective.module().train()(photo), target, None if settings is not PICTURES else FLAT)
    total.backward()
    moved = {part for part, prefixes in PARTS.items()
             if any(p.grad is not None and p.grad.any()
                    for name, p in network.named_parameters() if name.startswith(prefixes))}
    assert moved == parts


FLAT = AdversarialTerm(lambda image: image.mean(dim=(1, 2, 3)))
"""What stands for a discriminator."""


def test_a_discriminator_is_balanced_at_the_fusions_last_layer(gen: torch.Generator):
    """The only part that learns from images: its pull there is the share of the other losses' that was asked for."""
    settings = CodeFinetuneSettings.model_validate({
        **PICTURES.model_dump(), "adversarial": 0.25, "consistency": 1.0, "trains": ["fusion"],
        "discriminator": {"kind": "patch", "balance": True},
    })  # fmt: skip
    network = lively_codeformer()
    objective = taught(network, settings)
    photo, target = torch.rand(2, 2, 3, 16, 16, generator=gen)
    last = last_layer(network)
    assert any(weight is last for name, weight in network.named_parameters() if name.startswith(PARTS["fusion"]))
    attempt = objective.module().train()(photo)
    gan = AdversarialTerm(lambda image: 5 * image.square().mean(dim=(1, 2, 3)), last)
    photos = Photos(photo, torch.tensor([0.5, math.nan]))
    total, parts = objective.losses(attempt, target, gan, photos)
    others = 1.0 * parts["l1"] + 0.5 * parts["perceptual"] + parts["consistency"]
    pulls = [
        torch.autograd.grad(each.mean(), last, retain_graph=True)[0].norm() for each in (others, parts["adversarial"])
    ]
    ratio = min(1.0, float(pulls[0] / (pulls[1] + 1e-4)))
    assert parts["balance"].item() == pytest.approx(ratio, rel=1e-5)
    codes = parts["feature"].mean() + 0.5 * parts["token"].mean()
    expected = codes + others.mean() + 0.25 * ratio * parts["adversarial"].mean()
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_images_train_the_fusion_alone(gen: torch.Generator):
    """What the losses on images add reaches neither encoder nor transformer."""
    photo, target = torch.rand(2, 2, 3, 16, 16, generator=gen)
    grads: list[dict[str, torch.Tensor | None]] = []
    for settings in (CODES, PICTURES.model_copy(update={"adversarial": 0.0})):
        network = lively_codeformer()
        objective = taught(network, settings)
        objective.losses(objective.module().train()(photo), target, None)[0].backward()
        grads.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, grad in grads[0].items():
        if name.startswith(PARTS["encoder"] + PARTS["transformer"]):
            assert grad is not None
            torch.testing.assert_close(grads[1][name], grad, rtol=1e-6, atol=1e-9)


def test_the_total_weighs_the_parts(gen: torch.Generator):
    network = lively_codeformer()
    objective = taught(network, PICTURES.model_copy(update={"feature": 2.0, "token": 0.25}))
    photo, target = torch.rand(2, 2, 3, 16, 16, generator=gen)
    attempt = objective.module().train()(photo)
    total, parts = objective.losses(attempt, target, FLAT)
    weights = {"feature": 2.0, "token": 0.25, "l1": 1.0, "perceptual": 0.5, "adversarial": 0.1}
    assert set(parts) == set(weights)
    assert total.item() == pytest.approx(sum(weights[name] * part.mean().item() for name, part in parts.items()))
    assert torch.equal(objective.image(attempt), network.generate(attempt.reading, 1.0))


def test_the_score_is_of_the_image_the_restorer_gives(gen: torch.Generator):
    network = lively_codeformer()
    objective = taught(network)
    photo, target = torch.rand(2, 2, 3, 16, 16, generator=gen)
    with torch.no_grad():
        score = objective.score(objective.module().eval()(photo), target)
        assert torch.equal(score["l1"], l1(network(photo).clamp(0, 1), target))
        assert torch.equal(score["total"], score["feature"] + 0.5 * score["token"])
        codes = objective.teacher.codes(target)
        right = Reading(100.0 * torch.nn.functional.one_hot(codes, 12), network.quantize.look_up(codes), {})
        perfect = objective.score(objective.module().eval()(photo)._replace(reading=right), target)
    assert perfect["total"].abs().max() < 1e-6


def test_a_teacher_of_another_codebook_is_refused():
    network = lively_codeformer()
    other = lively_vqgan(SMALL_CODEFORMER.model_copy(update={"codebook_size": 10}))
    with pytest.raises(UsageError, match="its codebook has 10 codes of 8 numbers, and the restorer's 12 of 8"):
        code_objective(CODES, network, teacher=other, distance=l1)
    teacher = lively_vqgan()
    teacher.quantize.load_state_dict(network.quantize.state_dict())
    stored = copy.deepcopy(teacher)
    stored.load_state_dict({key: value.half().float() for key, value in teacher.state_dict().items()})
    code_objective(CODES, network, teacher=stored, distance=l1)
    with torch.no_grad():
        teacher.quantize.embedding.weight[3] += 0.1
    with pytest.raises(UsageError, match="its codebook is not the restorer's, so its codes mean other things"):
        code_objective(CODES, network, teacher=teacher, distance=l1)


@pytest.mark.parametrize(("change", "message"), [
    ({"l1": 1.0}, "name fusion in trains"),
    ({"face_identity": 1.0}, "name fusion in trains"),
    ({"consistency": 1.0}, "name fusion in trains"),
    ({"trains": ["encoder", "fusion"]}, "name fusion in trains"),
    ({"trains": ["fusion"], "l1": 1.0, "fidelity": 0.0}, "at a fidelity above 0"),
    ({"trains": ["encoder"], "feature": 0.0, "token": 0.0}, "one needs a weight"),
    ({"token": 0.0}, "the transformer learns from nothing else"),
    ({"trains": ["generator"]}, "trains"),
])
def test_settings_that_would_train_nothing(change: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        CodeFinetuneSettings.model_validate({"steps": 1, **change})


class Another(torch.nn.Module):
    """A network of no architecture that is known, which offers what the objective needs and nothing else."""

    def __init__(self, inside: CodeFormer) -> None:
        super().__init__()
        self.inside = inside
        self.quantize = inside.quantize

    def codes(self, image: torch.Tensor) -> torch.Tensor:
        return self.inside.codes(image)

    def read(self, photo: torch.Tensor) -> Reading:
        return self.inside.read(photo)

    def generate(self, reading: Reading, fidelity: float) -> torch.Tensor:
        return self.inside.generate(reading, fidelity)

    def train_only(self, parts: Collection[str]) -> None:
        self.inside.train_only(parts)


def test_any_network_that_offers_what_the_objective_needs_can_learn_by_it(gen: torch.Generator):
    network = lively_codeformer()
    photo, target = torch.rand(2, 2, 3, 16, 16, generator=gen)
    totals: list[torch.Tensor] = []
    for each in (network, Another(network)):
        offered = network_with_codes(Restorer("theirs", "another", SMALL_CODEFORMER, each))
        objective = code_objective(CODES, offered, teacher=network, distance=l1)
        total, _ = objective.losses(objective.module().train()(photo), target, None)
        totals.append(total.detach())
        weights = {id(weight) for weight in network.parameters()}
        assert {id(weight) for weight in objective.module().parameters()} == weights, "what is trained is the network"
    torch.testing.assert_close(totals[0], totals[1], rtol=0, atol=0)


def test_what_a_network_without_codes_lacks_is_named():
    with pytest.raises(UsageError, match=r"theirs: a vqgan predicts no codes \(it has no read, generate, train_only\)"):
        network_with_codes(Restorer("theirs", "vqgan", SMALL_CODEFORMER, lively_vqgan()))


def test_the_needs_are_the_members_of_the_protocol():
    members = {name for each in (Teacher, PredictsCodes) for name in (*vars(each), *each.__annotations__)}
    assert {name for name in members if not name.startswith("_")} == set(CODE_NEEDS)
