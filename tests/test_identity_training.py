"""Diffuse and Restore's own networks: the conditioner, the prior that sees the photo, and the mask."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import lively_prior, lively_swinir, on_cpu
from torch import Tensor

from adapt.commands.generate_targets import generate_targets
from adapt.commands.pretrain import pretrain
from adapt.diffusion.prior import Prior
from adapt.diffusion.steps import plan_from
from adapt.diffusion.unet import UNet
from adapt.errors import UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.guidance.identity import way_to
from adapt.guidance.mask import IdentityMask, MaskNetwork, changed
from adapt.images import to_signed
from adapt.loading import load_conditioner, load_identity_mask, load_prior, load_restorer
from adapt.packs.pack import load_pack
from adapt.pretraining.conditional_prior import seeing, train_conditional_prior
from adapt.pretraining.identity_mask import train_identity_mask
from adapt.restorers.base import Restorer
from adapt.settings import ConditionalPriorSettings, IdentityMaskSettings, TargetSettings
from adapt.targets.methods import target_maker
from adapt.training.run import Run

SHORT = {"steps": 3, "batch": 2, "size": 16, "learning_rate": 1e-3}
ABOUT = ["--licence", "none"]


class Blocks:
    """Tells faces apart by their colours in four blocks; a `FaceIdentifier` that costs nothing."""

    name = "blocks"
    by_angle = False
    lost_from = 1.0

    def of_aligned(self, faces: Tensor) -> Tensor:
        return self.unchecked(faces)

    def unchecked(self, faces: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(faces, 2).flatten(1)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vector_norm(a - b, dim=-1)

    def to(self, device: torch.device | str) -> Blocks:
        return self


def faces(count: int = 5) -> Tensor:
    return smooth_images((count, 16, 16), seed=3).mul(255).round().byte()


def conditional() -> Prior:
    """A prior that looks at the photo."""
    plain = lively_prior()
    network = seeing(plain.network)
    with torch.no_grad():
        network.input_blocks[0][0].weight[:, 3:].normal_(std=0.2, generator=torch.Generator().manual_seed(5))  # pyright: ignore
    return Prior("seeing", network.settings, network.eval().requires_grad_(False))


def conditioner() -> Restorer:
    network = lively_swinir()
    return Restorer("conditioner", "swinir", network.settings, network.eval())


# ---------------------------------------------------------------- the prior that sees the photo


def test_it_begins_as_the_prior_and_blind(gen: torch.Generator):
    plain = lively_prior()
    assert isinstance(plain.network, UNet)
    network = seeing(plain.network).eval()
    assert network.settings.in_channels == 6
    x, photos = torch.randn(2, 2, 3, 16, 16, generator=gen)
    t = torch.tensor([40, 900])
    with torch.no_grad():
        assert torch.allclose(network(torch.cat([x, photos], 1), t), plain.network(x, t), atol=1e-6)


def test_a_prior_that_sees_photos_asks_for_them(gen: torch.Generator):
    prior = conditional()
    step = plan_from(300, 1, 0).steps[0]
    x, photo, other = torch.randn(3, 2, 3, 16, 16, generator=gen).clamp(-1, 1)
    with torch.no_grad():
        with pytest.raises(UsageError, match="sees the photos beside the noisy images, and was given none"):
            prior.predict(x, step)
        seen = prior.predict(x, step, photo).x0
        assert not torch.allclose(seen, prior.predict(x, step, other).x0)
        alone = prior.predict(x[1:], step, photo[1:]).x0
    torch.testing.assert_close(seen[1:], alone, atol=1e-5, rtol=0)


def settings_of_targets(**more: object) -> TargetSettings:
    return TargetSettings.model_validate({
        "kind": "targets", "start_t": 400, "steps": 3, "solver": "ddim", "guidance": [], "prior": "conditional-prior",
        "restorer": "identity-conditioner", **more,
    })  # fmt: skip


def test_the_loop_tells_it_each_photo(gen: torch.Generator):
    maker = target_maker(settings_of_targets(), conditional())
    photos, restored = torch.rand(2, 3, 3, 16, 16, generator=gen)
    made = maker.make(photos, restored, [1, 2, 3]).images
    other = maker.make(photos.flip(-1), restored, [1, 2, 3]).images
    assert not torch.allclose(made, other, atol=1e-3)
    one = maker.make(photos[1:2], restored[1:2], [2]).images
    torch.testing.assert_close(made[1:2], one, atol=1e-5, rtol=0)


def test_it_has_no_opinion_of_images_by_themselves():
    settings = settings_of_targets(restraint={"ratio": [1.0], "latest_t": [0]})
    with pytest.raises(UsageError, match="conditional-prior: says nothing of images by themselves"):
        target_maker(settings, conditional())


def test_its_training_resumes_exactly_and_looks_at_the_photo(tmp_path: Path):
    settings = ConditionalPriorSettings.model_validate({**SHORT, "coarse": 0.1})
    start = lively_prior().network
    with Run(tmp_path / "whole", recipe="", digest="x") as run:
        layout, whole = train_conditional_prior(settings, faces(), on_cpu(run), start=start)
    parts: dict[str, Tensor] = {}
    for _ in range(3):
        with Run(tmp_path / "parts", recipe="", digest="x") as run:
            parts = train_conditional_prior(settings, faces(), on_cpu(run, max_steps=1), start=start)[1]
    assert layout.in_channels == 6
    own = seeing(start)
    own.load_state_dict(whole)
    again = seeing(own)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.items()), "it can go on from itself"
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert float(whole["input_blocks.0.0.weight"][:, 3:].abs().max()) > 0


# ---------------------------------------------------------------- the mask


def test_where_the_restorer_changed_much():
    """Eq. 8, of the greatest of three channels, on the scale of [0, 1]."""
    photo = torch.zeros(1, 3, 8, 8)
    restored = photo.clone()
    restored[:, 2, 1, 1], restored[:, :, 2, 2] = 0.8, 0.5
    found = changed(photo, restored, 0.3)
    assert (found.sum(), found[0, 0, 1, 1]) == (1, 1)


def test_the_way_is_through_the_mask_and_reaches_it(gen: torch.Generator):
    x0, guide = torch.rand(2, 3, 16, 16, generator=gen), torch.rand(2, 12, generator=gen)
    mask = torch.rand(2, 1, 16, 16, generator=gen).requires_grad_(True)
    way = way_to(x0, guide, Blocks(), mask=mask, most=10.0)
    assert torch.equal((way == 0).all(1, keepdim=True), mask == 0)
    way.square().sum().backward()
    assert mask.grad is not None
    assert float(mask.grad.abs().max()) > 0
    short = way_to(x0, guide, Blocks(), mask=torch.ones_like(mask), most=1e-3)
    assert float(short.square().mean(dim=(1, 2, 3)).sqrt().max()) == pytest.approx(1e-3, rel=1e-4)
    none = way_to(x0, guide, Blocks(), mask=torch.zeros_like(mask), most=1.0)
    assert float(none.abs().max()) == 0


def test_it_is_binary_and_of_each_photo(gen: torch.Generator):
    network = MaskNetwork(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5, generator=gen)
    mask = IdentityMask(name="mask", network=network, delta=0.1)
    photos, restored = torch.rand(2, 3, 3, 16, 16, generator=gen).mul(2).sub(1)
    found = mask(photos, restored)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(found[1:2], mask(photos[1:2], restored[1:2]))
    assert not torch.equal(found, mask(restored, photos))


def mask_settings(**more: object) -> IdentityMaskSettings:
    return IdentityMaskSettings.model_validate({**SHORT, "features": 4, "perceptual": 0.0, **more})


def test_its_training_resumes_exactly_and_every_loss_has_its_share(tmp_path: Path):
    def trained(name: str, settings: IdentityMaskSettings, pieces: int) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for _ in range(pieces):
            with Run(tmp_path / name, recipe="", digest="x") as run:
                state = train_identity_mask(
                    settings, faces(), on_cpu(run, max_steps=3 // pieces), conditioner=conditioner(),
                    prior=conditional(), recogniser=Blocks(),
                    distance=lambda a, b: (a - b).square().mean(dim=(1, 2, 3)),
                )
        return state

    whole, parts = trained("whole", mask_settings(), 1), trained("parts", mask_settings(), 3)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    other = trained("other", mask_settings(perceptual=5.0, recognition=0.0), 1)
    assert any(not torch.equal(whole[key], other[key]) for key in whole)
    small = trained("small", mask_settings(area=50.0, learning_rate=0.05), 1)
    assert float(small["out.bias"]) < float(whole["out.bias"]), "pixels cost something"


def test_a_recipe_that_asks_for_the_mask_says_which_makes_it():
    settings = settings_of_targets(guidance=[{"name": "identity", "mask": "learned"}])
    with pytest.raises(WeightsError, match=r"an identity mask.*adapt pretrain --recipe identity-mask"):
        target_maker(settings, conditional(), None, Blocks())


def test_the_learned_mask_says_where_a_draw_is_moved(gen: torch.Generator):
    settings = settings_of_targets(
        guidance=[{"name": "identity", "mask": "learned", "gradient": "x0", "most": 1.0, "limit": False}], steps=1
    )
    network = MaskNetwork(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.out.bias.fill_(9.0)  # pyright: ignore[reportOptionalMemberAccess]
    photos, restored = torch.rand(2, 1, 3, 16, 16, generator=gen)
    everywhere = IdentityMask(name="mask", network=network, delta=0.1)
    ends: list[Tensor] = []
    for sign in (1, -1):
        with torch.no_grad():
            network.out.bias.fill_(9.0 * sign)  # pyright: ignore[reportOptionalMemberAccess]
        maker = target_maker(settings, conditional(), None, Blocks(), everywhere)
        ends.append(maker.make(photos, restored, [1]).images)
    free = target_maker(settings_of_targets(steps=1), conditional()).make(photos, restored, [1]).images
    assert not torch.allclose(ends[0], free)
    assert torch.equal(ends[1], free), "nowhere"


# ---------------------------------------------------------------- by the command


RECIPES = {
    "identity-conditioner": "kind: pretrain-identity-conditioner\nrecognition: 1.0\n",
    "conditional-prior": "kind: pretrain-conditional-prior\n",
    "identity-mask": "kind: pretrain-identity-mask\nfeatures: 4\n",
}


def test_the_command_makes_all_three_and_targets_are_drawn_with_them(
    small_photos: Path, small_pack: Path, tmp_path: Path
):
    pack = Path(shutil.copytree(small_pack, tmp_path / "pack"))
    shutil.copy(load_pack("tiny").folder / "recogniser.safetensors", tmp_path / "recogniser.safetensors")
    from adapt.commands.add_to_pack import add_to_pack

    add_to_pack(
        pack, "recogniser", tmp_path / "recogniser.safetensors", licence="CC0-1.0", source="the embedded pack",
        trained="by others",
    )
    about = "steps: 2\nbatch: 2\nsize: 16\nlearning_rate: 1.0e-3\n"
    for name, text in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(text + about)
        pretrain(
            str(tmp_path / f"{name}.yaml"), small_photos, tmp_path / name, pack=str(pack), add_to=pack, licence="none"
        )
    card = load_pack(pack).card
    assert {name: card.networks[name].architecture for name in RECIPES} == {
        "identity-conditioner": "swinir", "conditional-prior": "unet", "identity-mask": "identity-mask",
    }
    assert load_conditioner(None, pack).settings == load_restorer(pack).settings
    assert load_prior(pack, "conditional-prior").sees_photo
    assert not load_prior(pack).sees_photo
    assert load_identity_mask(pack).delta == 0.05
    (tmp_path / "targets.yaml").write_text(
        "kind: targets\nmethod: identity\nstart_t: 400\nsteps: 2\nsolver: ddim\nprior: conditional-prior\n"
        "restorer: identity-conditioner\nguidance: [{name: identity, mask: learned}]\n"
    )
    made = generate_targets(
        small_photos, tmp_path / "store", method=tmp_path / "targets.yaml", pack=pack, device="cpu",
        overrides=["gate.max_low_frequency_change=1", "gate.min_contrast=0"], maps=True,
    )
    assert (made.count("done"), made.without_maps) == (6, 0)
    assert (tmp_path / "store" / "maps" / "a.jpg").is_file()
    ends = {record.target_sha256 for record in made.records if record.id == "a"}
    for knob in ("prior=prior", "restorer=null"):
        other = generate_targets(
            small_photos, tmp_path / knob, method=tmp_path / "targets.yaml", pack=pack, device="cpu", limit=1,
            overrides=["gate.max_low_frequency_change=1", "gate.min_contrast=0", knob],
        )
        ends.add(other.records[0].target_sha256)
    assert len(ends) == 3, "which prior and which restorer both show"


def test_a_conditioner_is_any_restorer_with_gradients_of_its_own(small_photos: Path, small_pack: Path, tmp_path: Path):
    """Of a run: its weights count, and not where they lie."""
    own = tmp_path / "own.safetensors"
    base = load_restorer(small_pack)
    replace(base, network=lively_swinir(base.settings, seed=4)).save(own)  # pyright: ignore[reportArgumentType]
    (tmp_path / "mine.yaml").write_text(
        "kind: pretrain-identity-conditioner\nrecognition: 0\nsteps: 1\nbatch: 1\nsize: 16\nlearning_rate: 1.0e-12\n"
    )
    start = [f"start={own}"]
    pretrain(str(tmp_path / "mine.yaml"), small_photos, tmp_path / "run", pack=str(small_pack), overrides=start)
    made, begun = load_restorer(tmp_path / "run"), load_restorer(own)
    photo = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(photo), begun(photo), atol=1e-5, rtol=0)
    assert not torch.allclose(to_signed(made(photo)), to_signed(base(photo)), atol=1e-2)


@pytest.mark.parametrize(("name", "source", "says"), [
    ("prior", "conditional-prior", "it is a prior that sees the photo"),
    ("conditional-prior", "prior", "it is a prior no part of which sees the photo"),
])  # fmt: skip
def test_a_pack_takes_each_prior_under_its_own_name(
    name: str, source: str, says: str, small_pack: Path, tmp_path: Path
):
    from adapt.commands.add_to_pack import add_to_pack
    from adapt.weights import write_state

    prior = conditional() if source == "conditional-prior" else load_prior(small_pack)
    file = tmp_path / "prior.safetensors"
    write_state(file, prior.network.state_dict(), {"settings": prior.settings.model_dump_json()})
    about = {"licence": "none", "source": "a test", "trained": "not at all", "size": 16}
    with pytest.raises(WeightsError, match=says):
        add_to_pack(tmp_path / "wrong", name, file, **about)  # pyright: ignore[reportArgumentType]
    assert add_to_pack(tmp_path / "right", source, file, **about).architecture == "unet"  # pyright: ignore[reportArgumentType]
