"""Pre-training of the one-step student: what a thinner network takes of a prior, what is learnt, and exact resume."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import adapt
from networks import lively_prior, on_cpu

from adapt.commands.pretrain import pretrain
from adapt.diffusion.unet import UNet
from adapt.errors import UsageError
from adapt.exporting.verify import smooth_images
from adapt.faces.recogniser import Recogniser, RecogniserNetwork
from adapt.loading import load_prior, load_restorer
from adapt.packs.pack import add_network, load_pack
from adapt.pretraining.onestep import student_of
from adapt.pretraining.pairs import blind_pairs
from adapt.pretraining.restorer import train_restorer
from adapt.pretraining.thinning import thinned
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepTrainingSettings, PatchDiscriminatorSettings, UNetSettings
from adapt.training.run import Run
from degradations.blind import BlindRanges
from degradations.pieces.noise import GaussianNoise

THICK = UNetSettings(
    image_size=16, model_channels=32, channel_mult=[2, 3, 4], num_res_blocks=[0, 1, 2], attention_resolutions=[8, 4],
    num_head_channels=32,
)
THIN = THICK.model_copy(update={
    "channel_mult": [1, 1, 2], "num_res_blocks": [0, 1, 1], "attention_resolutions": [4], "out_channels": 3,
})  # fmt: skip
SETTINGS = OneStepTrainingSettings(steps=3, batch=2, size=16, learning_rate=1e-3, perceptual=0.0)


def lively(settings: UNetSettings) -> UNet:
    network, generator = UNet(settings), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1, generator=generator).add_(float(parameter.ndim == 1) / 2)
    return network.eval()


@pytest.mark.parametrize("change", [
    {}, {"use_scale_shift_norm": False}, {"use_new_attention_order": True}, {"conv_resample": False},
    {"resblock_updown": True},
])  # fmt: skip
def test_a_network_of_the_same_layout_is_a_copy(change: dict[str, object], gen: torch.Generator):
    settings = THICK.model_copy(update=change)
    thick = lively(settings)
    copy = thinned(thick, settings)
    x, t = torch.randn(1, 3, 16, 16, generator=gen), torch.tensor([40])
    with torch.no_grad():
        assert torch.equal(copy(x, t), thick(x, t))
    assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(copy.parameters(), thick.parameters(), strict=True))


def test_what_nothing_is_written_to_is_left_out(gen: torch.Generator):
    """Half the channels of a residual block are written and read by weights of zero: a block of the other half with
    statistics of the same groups does the same, up to what an empty channel does to its group's."""
    layout = THICK.model_copy(update={"channel_mult": [2, 4], "num_res_blocks": [0, 1], "attention_resolutions": []})
    thick = lively(layout)
    block = thick.input_blocks[2][0]  # pyright: ignore[reportIndexIssue]
    with torch.no_grad():
        convolution = block.out_layers[3]
        convolution.weight[:, 1::2] = 0  # of what is inside, nobody reads each second channel
        halved = thinned(thick, layout.model_copy(update={"channel_mult": [1, 2]}))
        own = halved.input_blocks[2][0]  # pyright: ignore[reportIndexIssue]
        inside = [int((block.in_layers[2].bias == each).nonzero()) for each in own.in_layers[2].bias]
    assert len(inside) == 64
    groups = [each // 4 for each in inside]
    assert groups == sorted([*range(32)] * 2), "as many of each group"
    assert not any(each % 2 for each in inside), "those that are read"
    assert torch.equal(own.emb_layers[1].bias, block.emb_layers[1].bias[[*inside, *(128 + each for each in inside)]])
    assert torch.equal(own.out_layers[0].weight, block.out_layers[0].weight[inside])


def test_a_thinner_network_has_parts_of_the_thick_one_in_every_layer():
    thick = lively(THICK)
    thin = thinned(thick, THIN)
    theirs = torch.cat([tensor.flatten() for tensor in thick.state_dict().values()]).numpy()
    some = {name: tensor.flatten()[::211].numpy() for name, tensor in thin.state_dict().items()}
    found = set(theirs[np.isin(theirs, np.concatenate([*some.values()]))].tolist())
    for name, values in some.items():
        assert found.issuperset(values.tolist()), name
    last = thick.output_blocks[2][0].state_dict()  # pyright: ignore[reportIndexIssue]
    own = thin.output_blocks[1][0].state_dict()  # pyright: ignore[reportIndexIssue]
    kept = torch.isin(own["in_layers.2.bias"], last["in_layers.2.bias"])
    assert kept.all(), "the block that reads the level above"


@pytest.mark.parametrize(("change", "message"), [
    ({"channel_mult": [2, 3, 5]}, r"network\.channel_mult: the network to start from has \[2, 3, 4\], expected as m"),
    ({"num_res_blocks": [1, 1, 2]}, r"network\.num_res_blocks: .* expected as many levels, and no more at any of them"),
    ({"num_res_blocks": [0, 0, 2]}, r"network\.num_res_blocks: .* expected at least one where these have one"),
    ({"channel_mult": [2, 3], "num_res_blocks": [0, 1]}, r"network\.channel_mult: .*, got \[2, 3\]"),
    ({"model_channels": 64}, r"network\.model_channels: the network to start from has 32, expected the same, got 64"),
    ({"attention_resolutions": [16]}, r"network\.attention_resolutions: .* has \[8, 4\], expected some of these"),
])  # fmt: skip
def test_a_layout_that_is_no_part_of_the_prior_is_refused(change: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        thinned(UNet(THICK), THICK.model_copy(update=change))


def faces(count: int = 5) -> torch.Tensor:
    return smooth_images((count, 16, 16), seed=3).mul(255).round().byte()


CHAIN = {
    "chain": [{"name": "gaussian_noise", "std": [20, 30]}], "chain_share": 0.5,
    "adversarial": 0.5, "adversarial_from": 1, "discriminator": {"features": 4, "layers": 1},
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, CHAIN], ids=["blind", "chain and discriminator"])
def test_stop_and_resume_is_exact(more: dict[str, object], tmp_path: Path):
    settings = OneStepTrainingSettings.model_validate(SETTINGS.model_dump() | more)
    prior = lively_prior()
    with Run(tmp_path / "whole", recipe="", digest="x") as run:
        student = student_of(prior.network, settings)
        whole, judge = train_restorer(student, settings, faces(), on_cpu(run))
    assert student.settings.network == prior.settings
    parts: dict[str, torch.Tensor] = {}
    for _ in range(3):
        with Run(tmp_path / "parts", recipe="", digest="x") as run:
            again = student_of(prior.network, settings)
            parts = train_restorer(again, settings, faces(), on_cpu(run, max_steps=1))[0]
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert bool(judge) == bool(more)
    assert whole.keys() == prior.network.state_dict().keys(), "the discriminator stays behind"
    assert any(not torch.equal(whole[key], value) for key, value in prior.network.state_dict().items())


def test_a_share_of_the_images_gets_the_chain():
    clean = faces(40)
    none = BlindRanges(blur_std=(0.1, 0.1), downsample=(1, 1), noise=(0, 0), jpeg=(100, 100), grey=0)
    strong = [GaussianNoise(std=(80, 80))]

    def noisy(share: float) -> int:
        damaged, truths = blind_pairs(clean, none, torch.Generator().manual_seed(0), chain=strong, share=share)
        return int(((damaged - truths).abs().mean(dim=(1, 2, 3)) > 0.1).sum())

    assert (noisy(0), noisy(1)) == (0, 40)
    assert 8 < noisy(0.5) < 32


def test_a_share_without_a_chain_is_refused():
    with pytest.raises(ValueError, match=r"chain_share: is 0\.5, and chain has no degradation"):
        OneStepTrainingSettings.model_validate(SETTINGS.model_dump() | {"chain_share": 0.5})


def test_it_begins_as_the_prior_in_one_step_and_the_prior_stays(gen: torch.Generator):
    prior = lively_prior()
    before = {key: value.clone() for key, value in prior.network.state_dict().items()}
    student = student_of(prior.network, SETTINGS.model_copy(update={"t": 200}))
    assert student.settings.t == 200
    assert all(parameter.requires_grad for parameter in student.parameters())
    twin = OneStep(student.settings)
    twin.load_state_dict(before)
    photo = torch.rand(1, 3, 16, 16, generator=gen)
    with torch.no_grad():
        assert torch.equal(student(photo), twin(photo))
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in prior.network.state_dict().items())


def test_every_loss_has_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recogniser = Recogniser("any", RecogniserNetwork().eval().requires_grad_(False))

    def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean(dim=(1, 2, 3))

    ends: dict[str, dict[str, torch.Tensor]] = {}
    for name in ("l1", "perceptual", "recognition", "adversarial"):
        weights = {"l1": 0.0, "perceptual": 0.0, "recognition": 0.0, name: 1.0}
        if name == "adversarial":  # a share of the others' pull
            weights = {**weights, "l1": 1.0, "discriminator": PatchDiscriminatorSettings(features=4, layers=1)}
        with Run(tmp_path / name, recipe="", digest="x") as run:
            ends[name] = train_restorer(
                student_of(lively_prior().network, SETTINGS),
                SETTINGS.model_copy(update={**weights, "steps": 3, "ema": 0.0}), faces(), on_cpu(run),
                distance=apart, recogniser=recogniser,
            )[0]  # fmt: skip
    for one, other in (("l1", "perceptual"), ("perceptual", "recognition"), ("l1", "adversarial")):
        assert any(not torch.equal(ends[one][key], ends[other][key]) for key in ends[one])


RECIPE = """kind: pretrain-onestep
network: {image_size: 16, model_channels: 32, channel_mult: [1, 2], num_res_blocks: [0, 1], attention_resolutions: [],
  out_channels: 3}
t: 250
steps: 2
batch: 2
size: 16
learning_rate: 1.0e-3
"""


def test_the_command_makes_the_packs_student_from_its_prior(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pack = Path(shutil.copytree(small_pack, tmp_path / "pack"))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    command = ["pretrain", "--faces", small_photos, "--pack", pack, "--recipe", tmp_path / "mine.yaml"]
    assert adapt(monkeypatch, *command, "-o", tmp_path / "run", "--add-to", pack, "--trained", "not much") == 0
    card = load_pack(pack).card.networks["onestep"]
    assert (card.architecture, card.licence, card.trained) == ("onestep", "none", "not much")
    made, entered = load_restorer(tmp_path / "run"), load_restorer(f"{pack}/onestep")
    assert made.settings.model_dump() == entered.settings.model_dump()
    assert made.settings.model_dump()["t"] == 250
    assert made.settings.model_dump()["network"]["out_channels"] == 3

    # From another prior, a file: its content counts, and not where it lies.
    other = lively_prior()
    add_network(
        pack, "prior", other.network.state_dict(),
        header={"architecture": "unet", "settings": other.settings.model_dump_json()},
        entry={"architecture": "unet", "licence": "none", "source": "a test", "trained": "not at all"},
    )  # fmt: skip
    with pytest.raises(UsageError, match="other settings"):
        pretrain(str(tmp_path / "mine.yaml"), small_photos, tmp_path / "run", pack=str(pack))
    start = f"start={pack / 'prior.safetensors'}"
    pretrain(str(tmp_path / "mine.yaml"), small_photos, tmp_path / "other", pack=str(small_pack), overrides=[start])
    from_other = load_restorer(tmp_path / "other").network.state_dict()
    assert any(not torch.equal(value, from_other[key]) for key, value in made.network.state_dict().items())

    # From a student: that of a pack, as it stands.
    pretrain(
        str(tmp_path / "mine.yaml"), small_photos, tmp_path / "on", pack=str(pack),
        overrides=[f"start={pack}/onestep", "learning_rate=1e-12"],
    )  # fmt: skip
    on = load_restorer(tmp_path / "on").network.state_dict()
    assert all(torch.allclose(value, on[key], atol=1e-6) for key, value in entered.network.state_dict().items())
    assert load_prior(pack).name.endswith("/prior")
