"""The one-step student: a prior's network as a restorer, from its formula to a run that fine-tunes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import QUICK_FINETUNE, QUICK_TARGETS, adapt, export_adapted
from networks import lively_prior

from adapt.commands.finetune_setup import default_recipe, set_up_finetune
from adapt.diffusion.unet import UNet
from adapt.errors import UsageError, WeightsError
from adapt.exporting.bundle import export_bundle, load_bundle
from adapt.finetuning.discriminators import build_discriminator
from adapt.loading import load_prior, load_restorer
from adapt.packs.pack import add_network
from adapt.photos.files import read_image
from adapt.restorers.base import Restorer, build_restorer
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepSettings, PatchAdversarySettings, UNetSettings
from adapt.training.adversary import PatchDiscriminator
from adapt.weights import read_state, write_state

DEEP = UNetSettings(  # three levels: sides are padded to multiples of 4
    image_size=16, model_channels=32, channel_mult=[1, 2, 3], num_res_blocks=[0, 1, 1], attention_resolutions=[4],
    num_head_channels=32,
)


def lively_student(settings: UNetSettings = DEEP, t: int = 300) -> OneStep:
    network = OneStep(OneStepSettings(network=settings, t=t))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.05, generator=generator).add_(float(parameter.ndim == 1) / 2)
    return network.eval()


@pytest.fixture(scope="module")
def lively_pack(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small pack with a prior whose output shows."""
    folder = Path(shutil.copytree(small_pack, tmp_path_factory.mktemp("packs") / "lively"))
    prior = lively_prior()
    header = {"architecture": "unet", "settings": prior.settings.model_dump_json()}
    add_network(folder, "prior", prior.network.state_dict(), header=header, entry=entry("unet"))
    return folder


def entry(architecture: str) -> dict[str, str]:
    return {"architecture": architecture, "licence": "none", "source": "a test", "trained": "not at all"}


def by_hand(network: UNet, photo: torch.Tensor, t: int) -> torch.Tensor:
    """x_0 of the x_t that the scaled photo is: from the betas on, in float64 but for the network."""
    abar = np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: t + 1])
    x_t = np.sqrt(abar) * (photo.double().numpy() * 2 - 1)
    with torch.no_grad():
        noise = network(torch.from_numpy(x_t).float(), torch.full((len(photo),), t))[:, :3].double().numpy()
    return torch.from_numpy(((x_t - np.sqrt(1 - abar) * noise) / np.sqrt(abar) + 1) / 2)


@pytest.mark.parametrize("t", [0, 300, 999])
def test_the_output_is_the_x0_that_the_noise_implies(t: int, gen: torch.Generator):
    student, photo = lively_student(t=t), torch.rand(2, 3, 16, 12, generator=gen)
    expected = by_hand(student.network, photo, t)
    with torch.no_grad():
        got = student(photo).double()
    assert (expected - photo).abs().max() > 1e-3, "else this shows nothing"
    scale = float(expected.abs().max())  # at the last timesteps x_t is divided by 0.006
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (13, 19), (5, 22), (3, 1)])
def test_any_size_is_as_if_mirrored_by_hand(size: tuple[int, int], gen: torch.Generator):
    student, photo = lively_student(), torch.rand(2, 3, *size, generator=gen)
    borders = [-side % 4 for side in size]
    mirrored = [min(border, side - 1) for border, side in zip(borders, size, strict=True)]
    rest = [border - inner for border, inner in zip(borders, mirrored, strict=True)]
    padded = np.pad(photo.numpy(), [(0, 0), (0, 0), *((0, n) for n in mirrored)], mode="reflect")
    padded = np.pad(padded, [(0, 0), (0, 0), *((0, n) for n in rest)], mode="edge")
    with torch.no_grad():
        expected = student(torch.from_numpy(padded))[..., : size[0], : size[1]]
        torch.testing.assert_close(student(photo), expected, rtol=0, atol=1e-6)


def test_a_photo_does_not_depend_on_its_batch(gen: torch.Generator):
    photos = torch.rand(3, 3, 16, 16, generator=gen)
    with torch.no_grad():
        torch.testing.assert_close(lively_student()(photos)[1:2], lively_student()(photos[1:2]), rtol=0, atol=1e-5)


def test_a_prior_is_one_by_every_name_it_has(lively_pack: Path, tmp_path: Path, gen: torch.Generator):
    """The pack's entry, its file alone, and a checkpoint of the field without any header."""
    prior = load_prior(lively_pack)
    photo = torch.rand(2, 3, 16, 16, generator=gen)
    assert isinstance(prior.network, UNet)
    expected = by_hand(prior.network, photo, 300).clamp(0, 1).float()
    shutil.copy(lively_pack / "prior.safetensors", tmp_path / "own.safetensors")
    torch.save({"model": prior.network.state_dict()}, tmp_path / "public.pt")
    for name in (f"{lively_pack}/prior", tmp_path / "own.safetensors", tmp_path / "public.pt"):
        restorer = load_restorer(name)
        assert (restorer.architecture, restorer.size, restorer.one_size) == ("onestep", 16, False)
        assert restorer.settings.model_dump()["t"] == 300
        torch.testing.assert_close(restorer(photo), expected, rtol=0, atol=1e-5)
    assert load_restorer(f"{lively_pack}/prior").digest == prior.digest


def test_what_is_saved_is_the_same_with_the_names_of_the_network(tmp_path: Path, gen: torch.Generator):
    settings = OneStepSettings(network=DEEP, t=123)
    before = Restorer("x", "onestep", settings, lively_student(t=123))
    before.save(tmp_path / "student.safetensors")
    state, header = read_state(tmp_path / "student.safetensors")
    assert header["architecture"] == "onestep"
    assert state.keys() == UNet(DEEP).state_dict().keys()
    after = load_restorer(tmp_path / "student.safetensors")
    assert after.settings == settings
    photo = torch.rand(1, 3, 9, 14, generator=gen)
    assert torch.equal(after(photo), before(photo))
    with pytest.raises(WeightsError, match=r"student\.safetensors: not the layout of a prior"):
        load_prior(tmp_path / "student.safetensors")  # what was fine-tuned is no diffusion model any more


PLAIN = DEEP.model_copy(update={"channel_mult": [1, 2, 2], "num_head_channels": 64})


def changed(settings: UNetSettings = DEEP, **changes: tuple[int, ...] | None) -> dict[str, torch.Tensor]:
    """A U-Net's tensors with other ones: None takes one out."""
    state: dict[str, torch.Tensor] = {**UNet(settings).state_dict()}
    for name, shape in changes.items():
        key = name.replace("__", ".")
        if shape is None:
            del state[key]
        else:
            state[key] = torch.zeros(shape)
    return state


NOT_UNETS = {
    "of six channels": (
        changed(input_blocks__0__0__weight=(32, 6, 3, 3)),
        "not the layout of a onestep (Value error, a U-Net of 6 to 6 channels; a prior of RGB images takes 3, and gives"
        " their noise in 3, or in 6 with the variance)",
    ),
    "of latents": (
        changed(input_blocks__0__0__weight=(32, 4, 3, 3), out__2__weight=(4, 32, 3, 3)),
        "not the layout of a onestep (Value error, a U-Net of 4 to 4 channels; a prior of RGB images takes 3, and gives"
        " their noise in 3, or in 6 with the variance)",
    ),
    "without an end": (
        changed(out__2__weight=None),
        "not a U-Net in the public layout: it begins like one, but its blocks are others, or some are missing",
    ),
    "with heads of its own": (changed(), "attention over 96 channels cannot be split into heads of 64"),
    "of classes": (
        changed(PLAIN, label_emb__weight=(10, 128)),
        "not the weights of this OneStep: 1 unexpected (label_emb.weight)",
    ),
    "of odd widths": (
        changed(time_embed__0__weight=(128, 20)),
        "not a U-Net in the public layout: it begins like one, but its blocks are others, or some are missing",
    ),
}


@pytest.mark.parametrize("name", NOT_UNETS)
def test_a_file_that_is_no_u_net_of_images_is_refused_in_one_line(
    name: str, tmp_path: Path, small_photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    state, message = NOT_UNETS[name]
    file = tmp_path / "other.safetensors"
    write_state(file, state, {})
    assert adapt(monkeypatch, "restore", file, small_photos, "-o", tmp_path / "out") == 4
    assert capsys.readouterr().err == f"adapt: {file}: {message}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("settings", "message"), [
    ({**DEEP.model_dump(), "channel_mult": [1, 2]}, "num_res_blocks 3; they must agree"),
    ({**DEEP.model_dump(), "model_channels": 20}, r"levels of \[20, 40, 60\] channels .* take multiples of 32"),
    ({**DEEP.model_dump(), "num_head_channels": 40}, "96 channels cannot be split into heads of 40"),
    ({"network": DEEP.model_dump(), "t": 1000}, "t: Input should be less than 1000"),
    ([1], "Input should be an object"),
])
def test_a_header_with_a_layout_that_cannot_be_is_refused(settings: object, message: str):
    state = dict(UNet(DEEP).state_dict())
    with pytest.raises(WeightsError, match=rf"^file: .*{message}"):
        build_restorer("file", state, {"settings": json.dumps(settings)})


def test_the_exported_file_does_the_same_at_any_size(tmp_path: Path, gen: torch.Generator):
    """The timestep and what hangs on it alone are constants of the graph: the photo is the one input."""
    restorer = Restorer("x", "onestep", OneStepSettings(network=DEEP), lively_student())
    export_bundle(restorer, tmp_path / "bundle", source={"weights": "x"})
    about = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert (about["architecture"], about["settings"]["t"], about["one_size"]) == ("onestep", 300, False)
    assert max(each["largest"] for each in about["parity"]) < 1e-5
    model = load_bundle(tmp_path / "bundle")
    for size in ((2, 3, 16, 16), (1, 3, 37, 30)):
        photo = torch.rand(size, generator=gen)
        torch.testing.assert_close(model(photo), restorer(photo), rtol=0, atol=1e-5)
    again = load_restorer(tmp_path / "bundle")
    assert again.settings == restorer.settings


def test_the_recipe_fine_tunes_the_packs_student_or_its_prior_on_targets_of_its_restorer(
    lively_pack: Path, tmp_path: Path
):
    setup = set_up_finetune("onestep", pack=lively_pack)
    assert (setup.name, setup.base_name) == (f"{lively_pack}/prior", str(lively_pack))
    assert (setup.restorer.architecture, setup.base.architecture) == ("onestep", "swinir")
    pack = Path(shutil.copytree(lively_pack, tmp_path / "pack"))
    settings = OneStepSettings(network=DEEP, t=200)
    header = {"architecture": "onestep", "settings": settings.model_dump_json()}
    add_network(pack, "onestep", lively_student(t=200).state_dict(), header=header, entry=entry("onestep"))
    own = set_up_finetune("onestep", pack=pack)
    assert (own.name, own.base_name, own.restorer.settings) == (f"{pack}/onestep", f"{pack}/onestep", settings)
    with pytest.raises(UsageError, match=r"student=onestep-thin: the pack has .*onestep; name one of its restorers"):
        set_up_finetune("tiny/finetune/onestep-thin", pack=pack)
    add_network(pack, "onestep-thin", lively_student(t=250).state_dict(), header=header, entry=entry("onestep"))
    thin = set_up_finetune("tiny/finetune/onestep-thin", pack=pack, overrides=["adversarial=0"])
    assert thin.name == thin.base_name == f"{pack}/onestep-thin"
    named = set_up_finetune("onestep", pack=pack, restorer=f"{pack}/prior")
    assert (named.name, named.base_name) == (f"{pack}/prior", f"{pack}/onestep")
    other = set_up_finetune("onestep", pack=pack, base=f"{pack}/prior")
    assert (other.name, other.base_name) == (f"{pack}/onestep", f"{pack}/prior")
    same = set_up_finetune("swinir", pack=pack, base=f"{pack}/onestep")
    assert same.restorer is same.base
    assert same.name == same.base_name == f"{pack}/onestep"


def test_the_recipe_of_a_run_is_that_of_the_packs_restorer(lively_pack: Path, tmp_path: Path):
    assert default_recipe("tiny") == "onestep"
    assert default_recipe(lively_pack) == "swinir"
    assert default_recipe("tiny", restorer="any.pth") == "swinir"
    pack = Path(shutil.copytree(lively_pack, tmp_path / "pack"))
    card = (pack / "pack.yaml").read_text()
    (pack / "pack.yaml").write_text(card.replace("restorer: swinir", "restorer: prior"))
    assert default_recipe(pack) == "swinir", "no recipe is named like it"


def test_the_discriminator_of_the_pack_is_what_fine_tuning_begins_with(lively_pack: Path, tmp_path: Path):
    patches = ["discriminator={kind: patch, features: 4, layers: 1, pretrained: true}"]
    with pytest.raises(UsageError, match=r"has no discriminator, which the recipe begins with"):
        set_up_finetune("swinir", pack=lively_pack, overrides=patches)
    pack = Path(shutil.copytree(lively_pack, tmp_path / "pack"))
    layout = PatchAdversarySettings(features=4, layers=1)
    judge = PatchDiscriminator(layout, torch.Generator().manual_seed(5), detail=True)
    add_network(
        pack, "discriminator", judge.state_dict(),
        header={"architecture": "patch-discriminator", "settings": "{}"}, entry=entry("patch-discriminator"),
    )  # fmt: skip
    setup = set_up_finetune("swinir", pack=pack, overrides=patches)
    assert setup.discriminator is not None
    built = build_discriminator(setup.settings, 16, setup.discriminator.state)
    assert built is not None
    for name, value in built[0].state_dict().items():
        torch.testing.assert_close(value, judge.state_dict()[name], rtol=0, atol=1e-3)  # half precision in a pack
    with pytest.raises(WeightsError, match="the pack's discriminator"):
        build_discriminator(
            set_up_finetune("swinir", pack=pack, overrides=["discriminator={kind: patch, pretrained: true}"]).settings,
            16, setup.discriminator.state,
        )  # fmt: skip


def test_run_fine_tunes_the_student_on_targets_of_the_packs_restorer(
    lively_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    arguments = [
        "run", small_photos, "-o", out, "--recipe", "onestep", "--pack", lively_pack, "--method", "low-frequency",
        "--device", "cpu", *[f"targets.{each}" for each in QUICK_TARGETS],
        *[f"finetune.{each}" for each in QUICK_FINETUNE], "finetune.learning_rate=1e-3",
    ]
    export_adapted(monkeypatch)
    assert adapt(monkeypatch, *arguments) == 0
    assert "pre-trained" in capsys.readouterr().out
    photo = read_image(small_photos / "a.png")[None]
    adapted, base = load_restorer(out / "finetune"), load_restorer(lively_pack)
    assert (adapted.architecture, base.architecture) == ("onestep", "swinir")
    torch.testing.assert_close(read_image(out / "base" / "a.png")[None], base(photo), rtol=0, atol=0.51 / 255)
    torch.testing.assert_close(read_image(out / "restored" / "a.png")[None], adapted(photo), rtol=0, atol=0.51 / 255)
    assert json.loads((out / "targets" / "store.json").read_text())["identity"]["restorer"] == base.digest
    about = json.loads((out / "bundle" / "bundle.json").read_text())
    assert (about["architecture"], about["source"]["started from"]) == ("onestep", f"{lively_pack}/prior")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".png", ".onnx")}
    assert adapt(monkeypatch, *arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is made twice"

    # The bundle's runner, without the package, and the student as R(y) of other targets.
    assert adapt(monkeypatch, "restore", out / "bundle", small_photos, "-o", tmp_path / "x", "--device", "cpu") == 0
    torch.testing.assert_close(read_image(tmp_path / "x" / "a.png")[None], adapted(photo), rtol=0, atol=1.01 / 255)
    assert adapt(
        monkeypatch, "generate-targets", small_photos, "-o", tmp_path / "targets", "--pack", lively_pack,
        "--restorer", out / "finetune", "--method", "low-frequency", "--device", "cpu", *QUICK_TARGETS,
    ) == 0
    assert json.loads((tmp_path / "targets" / "store.json").read_text())["identity"]["restorer"] == adapted.digest
