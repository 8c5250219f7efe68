"""Pre-training of a CodeFormer's three stages: what is learnt, what rests, and exact resume; all on 16 px."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SMALL_CODEFORMER, lively_codeformer, lively_vqgan, on_cpu
from pydantic import ValidationError
from reference import Reference

from adapt.commands.finetune import finetune
from adapt.commands.pretrain import pretrain
from adapt.errors import UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.loading import load_codebook, load_restorer
from adapt.pretraining.codebook import Autoencoding, initialise, random_crops, reset_dead_codes, train_codebook
from adapt.pretraining.codeformer import train_code_predictor, train_fusion
from adapt.restorers.base import build_restorer
from adapt.restorers.codeformer import PARTS, CodeFormer
from adapt.restorers.vqgan import VQGAN, Reconstruction, build_vqgan
from adapt.settings import (
    BlindSettings,
    CodebookSettings,
    CodeFormerSettings,
    CodePredictorSettings,
    FusionSettings,
    PatchDiscriminatorSettings,
    VQGANSettings,
)
from adapt.training.adversary import PatchDiscriminator, Verdict, balance, discriminator_loss, generator_loss
from adapt.training.loop import StepContext
from adapt.training.losses import l1
from adapt.training.run import Run
from adapt.training.sampling import step_generator

COARSE = VQGANSettings(**{key: getattr(SMALL_CODEFORMER, key) for key in VQGANSettings.model_fields})
PATCHES = PatchDiscriminatorSettings(features=4, layers=1)
MILD = BlindSettings(blur_std=(0.1, 4.0), downsample=(0.8, 2.0), noise=(0.0, 5.0))
CODEBOOK = CodebookSettings(
    network=COARSE, steps=3, batch=2, size=16, learning_rate=2e-3, ema=0.0, adversarial_from=1, discriminator=PATCHES,
    idle=2,
)
PREDICTOR = CodePredictorSettings(
    steps=3, batch=2, size=16, learning_rate=2e-3, ema=0.0, dim_embd=64, n_head=2, n_layers=2, connect_list=[8, 16],
    degradation=MILD,
)
FUSION = FusionSettings(
    steps=3, batch=2, size=16, learning_rate=2e-3, ema=0.0, adversarial_from=1, discriminator=PATCHES, degradation=MILD,
)


def faces(count: int = 2) -> torch.Tensor:
    return smooth_images((count, 16, 16), seed=3).mul(255).round().byte()


def run_of(
    stage: str, folder: Path, log: list[dict[str, float]] | None = None, *, max_steps: int | None = None, **changes: Any
) -> dict[str, torch.Tensor]:
    """Train a stage in a folder, with its settings changed; losses go into `log`."""
    on_step = None if log is None else lambda step, steps, values: log.append(values)
    settings = {"codebook": CODEBOOK, "predictor": PREDICTOR, "fusion": FUSION}[stage].model_copy(update=changes)
    with Run(folder, recipe="", digest=stage) as run:
        context = on_cpu(run, on_step, max_steps)
        match settings:
            case CodebookSettings():
                start = teacher() if settings.generator_only else None
                return train_codebook(settings, faces(), context, distance=l1, start=start)
            case CodePredictorSettings():
                return train_code_predictor(settings, faces(), context, codebook=teacher())[1]
            case _:
                network = lively_codeformer(SMALL_CODEFORMER)
                network.load_state_dict(teacher().state_dict(), strict=False)
                return train_fusion(
                    settings, faces(), context, network=network, codebook=teacher(), distance=l1
                )


def teacher() -> VQGAN:
    return lively_vqgan(COARSE, seed=1)


KNOBS = {
    "codebook": ["l1", "perceptual", "codebook", "commitment", "adversarial"],
    "predictor": ["feature", "token"],
    "fusion": ["l1", "perceptual", "adversarial", "feature", "token", "fidelity"],
}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """What each stage ends in."""
    return {stage: run_of(stage, tmp_path_factory.mktemp("runs") / stage) for stage in KNOBS}


@pytest.mark.parametrize("stage", KNOBS)
def test_stop_and_resume_is_exact(stage: str, wholes: dict[str, dict[str, torch.Tensor]], tmp_path: Path):
    whole = wholes[stage]
    parts: dict[str, torch.Tensor] = {}
    for _ in range(3):
        parts = run_of(stage, tmp_path, max_steps=1)
    assert whole
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_codebook_learns_two_faces(tmp_path: Path):
    log: list[dict[str, float]] = []
    state = run_of("codebook", tmp_path, log, steps=40, adversarial=0.0, idle=10)
    assert log[-1]["l1"] < 0.5 * log[0]["l1"]
    assert log[-1]["chosen"] > 0.5
    network = VQGAN(COARSE)
    network.load_state_dict(state)
    with torch.no_grad():
        made = network(faces().float() / 255)
    assert float(l1(made.image, faces().float() / 255).mean()) < 0.5 * log[0]["l1"]


def test_a_codebook_begins_on_crops(tmp_path: Path):
    """Of the side asked for and anywhere in the image, until the step at which images are whole."""
    images = torch.arange(64.0).view(1, 1, 8, 8).expand(2, 3, 8, 8)
    crops = [random_crops(images, 6, step_generator(seed, 0)) for seed in range(100)]
    corners = set(torch.stack(crops)[:, :, 0, 0, 0].flatten().int().tolist())
    assert corners == {row * 8 + column for row in range(3) for column in range(3)}
    whole = run_of("codebook", tmp_path / "whole")
    crops = run_of("codebook", tmp_path / "crops", crop=8, whole_from=2)
    assert any(not torch.equal(whole[key], crops[key]) for key in whole)
    for wrong in ({"crop": 8}, {"whole_from": 2}, {"crop": 32, "whole_from": 2}, {"crop": 7, "whole_from": 2}):
        with pytest.raises(ValidationError, match="crop"):
            CodebookSettings.model_validate({**CODEBOOK.model_dump(), **wrong})


def test_a_generator_goes_on_alone(tmp_path: Path):
    learnt = run_of("codebook", tmp_path, generator_only=True, detail=True, start="tiny")
    own = teacher().state_dict()
    moved = {name.partition(".")[0] for name in own if not torch.equal(learnt[name], own[name])}
    assert moved == {"generator"}
    with pytest.raises(ValidationError, match="needs a start"):
        CodebookSettings.model_validate({**CODEBOOK.model_dump(), "generator_only": True})


def test_a_fusion_draws_by_the_codebooks_generator(tmp_path: Path):
    network, codebook = lively_codeformer(SMALL_CODEFORMER), lively_vqgan(COARSE, seed=7)
    with Run(tmp_path, recipe="", digest="fusion") as run:
        learnt = train_fusion(FUSION, faces(), on_cpu(run), network=network, codebook=codebook, distance=l1)
    for name, value in codebook.generator.state_dict().items():
        assert torch.equal(learnt[f"generator.{name}"], value)
    wider = lively_vqgan(COARSE.model_copy(update={"nf": 64}), seed=7)
    with Run(tmp_path / "other", recipe="", digest="fusion") as run, pytest.raises(UsageError, match="same layout"):
        train_fusion(FUSION, faces(), on_cpu(run), network=network, codebook=wider, distance=l1)


def test_a_code_predictor_learns_two_faces(tmp_path: Path):
    log: list[dict[str, float]] = []
    state = run_of("predictor", tmp_path, log, steps=40)
    assert log[-1]["token"] < 0.5 * log[0]["token"]
    assert log[-1]["feature"] < log[0]["feature"]
    assert log[-1]["right"] > 0.5
    for key, value in teacher().state_dict().items():
        if not key.startswith("encoder."):
            assert torch.equal(state[key], value), f"{key} should be as it was"
    network = CodeFormer(SMALL_CODEFORMER.model_copy(update={"n_head": 2}))
    network.load_state_dict(state)
    with torch.no_grad():
        reading = network.read(faces().float() / 255)
        assert torch.equal(network.generate(reading, 0.0), network.generate(reading, 1.0)), "the fusion acts already"


def test_a_fusion_learns_two_faces(tmp_path: Path):
    log: list[dict[str, float]] = []
    state = run_of("fusion", tmp_path, log, steps=30, adversarial=0.0)
    assert log[-1]["l1"] < 0.7 * log[0]["l1"]
    assert log[-1]["token"] < log[0]["token"]
    begun = lively_codeformer(SMALL_CODEFORMER)
    begun.load_state_dict(teacher().state_dict(), strict=False)
    moved = {part for part, prefixes in PARTS.items() for key, value in begun.state_dict().items()
             if key.startswith(prefixes) and not torch.equal(value, state[key])}
    assert moved == {"encoder", "transformer", "fusion"}


@pytest.mark.parametrize("stage", ["codebook", "fusion"])
def test_the_discriminator_begins_at_its_step(stage: str, tmp_path: Path):
    log: list[dict[str, float]] = []
    run_of(stage, tmp_path, log)
    assert ["discriminator" in values for values in log] == [False, True, True]


@pytest.mark.parametrize(("stage", "knob"), [(stage, knob) for stage, knobs in KNOBS.items() for knob in knobs])
def test_every_weight_turns(
    stage: str, knob: str, wholes: dict[str, dict[str, torch.Tensor]], tmp_path: Path
):
    change: dict[str, Any] = {knob: 0.3}
    turned = run_of(stage, tmp_path / "run", **change)
    assert any(not torch.equal(wholes[stage][key], turned[key]) for key in turned), f"{knob} changes nothing"


def test_idle_codes_are_placed_on_features(gen: torch.Generator):
    both = Autoencoding(lively_vqgan(COARSE), None, idle=0)
    rows = both.network.quantize.embedding.weight.detach().clone()
    feature = torch.randn(1, 8, 4, 4, generator=gen)
    codes = torch.tensor([[0, 1, 2, 3] * 4])
    made = Reconstruction(torch.zeros(1), feature, feature, codes)
    turn = StepContext(0, 0, 0, 1, torch.device("cpu"), step_generator(0, 0))
    for step in range(1, 3):
        reset_dead_codes(both, made, after=3, step=turn)
        assert both.idle.tolist() == [0] * 4 + [step] * 8
        assert torch.equal(both.network.quantize.embedding.weight, rows)
    reset_dead_codes(both, made, after=3, step=turn)
    now = both.network.quantize.embedding.weight
    assert torch.equal(now[:4], rows[:4])
    candidates = feature[0].flatten(1).T
    assert all(any(torch.equal(row, each) for each in candidates) for row in now[4:])
    assert both.idle.tolist() == [0] * 12
    for _ in range(5):
        reset_dead_codes(both, made, after=None, step=turn)
    assert torch.equal(both.network.quantize.embedding.weight, now)


def test_the_discriminator_is_the_public_one(reference: Reference):
    manifest = reference.manifest("vqgan_discriminator")
    settings = PatchDiscriminatorSettings(features=manifest["config"]["ndf"], layers=manifest["config"]["n_layers"])
    network = PatchDiscriminator(settings, torch.Generator())
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == manifest["tensors"]
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 1, 2, 2)


def test_each_side_of_the_game_has_its_own_gradient(gen: torch.Generator):
    network = PatchDiscriminator(PATCHES, gen)
    real, made = torch.rand(2, 2, 3, 16, 16, generator=gen)
    made.requires_grad_()
    verdict = network.judge(real, made)
    torch.testing.assert_close(verdict.made, verdict.fake)
    generator_loss(verdict).backward(retain_graph=True)
    assert made.grad is not None
    assert made.grad.any()
    assert all(parameter.grad is None for parameter in network.parameters())
    made.grad = None
    discriminator_loss(verdict).backward()
    assert made.grad is None
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_hinge_losses_against_their_definitions(gen: torch.Generator):
    made, real, fake = 2 * torch.randn(3, 2, 1, 3, 3, generator=gen)
    verdict = Verdict(made, real, fake)
    assert float(generator_loss(verdict)) == pytest.approx(-sum(made.flatten().tolist()) / 18)
    expected = sum(max(0, 1 - a) + max(0, 1 + b) for a, b in zip(real.flatten().tolist(), fake.flatten().tolist(),
                                                                  strict=True)) / 36
    assert float(discriminator_loss(verdict)) == pytest.approx(expected, rel=1e-6)


def test_the_balance_makes_both_pull_equally(gen: torch.Generator):
    weight = torch.randn(5, generator=gen, requires_grad=True)
    mild, strong = (weight * 0.5).sum(), (weight * 4.0).sum()
    assert float(balance(mild, strong, weight).detach()) == pytest.approx(0.125, rel=1e-4)
    assert float(balance(strong, mild, weight)) == 1.0


def test_a_fusion_begins_with_no_effect():
    network = CodeFormer(SMALL_CODEFORMER)
    initialise(network, torch.Generator().manual_seed(0))
    photo = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network(photo, 0.0), network(photo, 1.0))


def test_refusals(tmp_path: Path):
    with pytest.raises(ValidationError, match=r"size 32 is not network.img_size 16"):
        CodebookSettings.model_validate({**CODEBOOK.model_dump(), "size": 32})
    with pytest.raises(UsageError, match="codebook: expected one for 32 pixels, the recipe's size; got one for 16"):
        run_of("predictor", tmp_path / "a", size=32)
    with pytest.raises(UsageError, match=r"do not fit: .*no feature map has a side of \[64\]"):
        run_of("predictor", tmp_path / "b", connect_list=[64])
    without = CodeFormer(CodeFormerSettings.model_validate({**SMALL_CODEFORMER.model_dump(), "connect_list": []}))
    with Run(tmp_path / "c", recipe="", digest="") as run, pytest.raises(UsageError, match="it has no fusion to train"):
        train_fusion(FUSION, faces(), on_cpu(run), network=without, codebook=teacher(), distance=l1)


COMMANDS = {
    "codebook": """kind: pretrain-codebook
network: {img_size: 16, nf: 32, ch_mult: [1, 1, 2], res_blocks: 1, attn_resolutions: [4], emb_dim: 8, codebook_size: 12}
discriminator: {features: 4, layers: 1}
""",
    "code-predictor": "kind: pretrain-code-predictor\ndim_embd: 64\nn_head: 2\nn_layers: 1\nconnect_list: [8]\n",
    "fusion": "kind: pretrain-fusion\ndiscriminator: {features: 4, layers: 1}\n",
}


def test_from_clean_faces_to_a_finetuned_codeformer(small_photos: Path, small_pack: Path, tmp_path: Path):
    """The three stages enter a pack one after the other, and its CodeFormer is fine-tuned by its codes."""
    pack = shutil.copytree(small_pack, tmp_path / "pack")
    for stage, text in COMMANDS.items():
        recipe = tmp_path / f"{stage}.yaml"
        recipe.write_text(text + "steps: 2\nbatch: 2\nsize: 16\nlearning_rate: 1.0e-3\n")
        pretrain(str(recipe), small_photos, tmp_path / stage, pack=str(pack), add_to=pack)
    restorer = load_restorer(f"{pack}/codeformer")
    assert restorer.settings == load_restorer(tmp_path / "fusion").settings
    assert restorer.settings.model_dump()["n_head"] == 2
    rows = load_codebook(pack).quantize.embedding.weight
    assert torch.equal(rows, restorer.network.get_parameter("quantize.embedding.weight"))
    tuned = finetune(
        small_photos, small_photos, tmp_path / "tuned", recipe="codeformer", pack=str(pack),
        overrides=["steps=2", "batch=2", "evaluate_every=1", "holdout=0.34"],
    )
    assert {"feature", "token", "l1", "perceptual", "total"} == set(tuned.base)
    assert load_restorer(tmp_path / "tuned").settings == restorer.settings
    resumed = [finetune(
        small_photos, small_photos, tmp_path / "again", recipe="codeformer", pack=str(pack), max_steps=1,
        overrides=["steps=2", "batch=2", "evaluate_every=1", "holdout=0.34"],
    ) for _ in range(2)]
    assert resumed[-1].best == tuned.best
    states = [torch.load(tmp_path / run / "last" / "state.pt")["network"] for run in ("tuned", "again")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_restorer_without_codes_or_a_pack_without_a_teacher(small_photos: Path, small_pack: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"small/swinir: a swinir predicts no codes \(it has no quantize, codes, "):
        finetune(
            small_photos, small_photos, tmp_path / "a", recipe="codeformer", pack=str(small_pack),
            restorer=f"{small_pack}/swinir", overrides=[f"teacher={write_codebook(tmp_path)}"],
        )
    network = build_restorer("x", lively_codeformer().state_dict(), {})
    network.save(tmp_path / "codeformer.safetensors")
    with pytest.raises(UsageError, match=r"has no codebook to give the codes of targets; name a VQGAN's file"):
        finetune(
            small_photos, small_photos, tmp_path / "b", recipe="codeformer", pack=str(small_pack),
            restorer=str(tmp_path / "codeformer.safetensors"),
        )
    quick = ["steps=1", "batch=1", "holdout=0.34", "teacher=restorer"]
    outcome = finetune(
        small_photos, small_photos, tmp_path / "c", recipe="codeformer", pack=str(small_pack), overrides=quick,
        restorer=str(tmp_path / "codeformer.safetensors"),
    )
    assert (outcome.trained, outcome.validation) == (4, 2)
    with pytest.raises(UsageError, match=r"small/swinir: a swinir predicts no codes .* as a codeformer, and one"):
        finetune(small_photos, small_photos, tmp_path / "d", recipe="codeformer", pack=str(small_pack),
                 restorer=str(small_pack), overrides=quick)


def write_codebook(folder: Path) -> Path:
    path = folder / "vqgan.pth"
    torch.save({"params_ema": lively_vqgan().state_dict()}, path)
    return path


def test_a_codebook_is_read_off_any_public_file(tmp_path: Path):
    settings = COARSE.model_copy(update={"img_size": 64, "attn_resolutions": [16]})
    state = lively_vqgan(settings).state_dict()
    torch.save({"params_ema": state}, tmp_path / "vqgan.pth")
    network = load_codebook(tmp_path / "vqgan.pth")
    assert network.settings == settings
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    with pytest.raises(WeightsError, match="expected a vqgan, got a unet"):
        build_vqgan("x", state, {"architecture": "unet"})
    with pytest.raises(WeightsError, match="1 missing"):
        build_vqgan("x", {key: value for key, value in state.items() if key != "generator.blocks.0.bias"}, {})
