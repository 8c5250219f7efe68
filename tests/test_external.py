"""Networks of the community, as spandrel builds them: sizes, gradients, files, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from command_line import adapt, export_adapted
from networks import SMALL_CODEFORMER, SMALL_SWINIR, lively_codeformer, lively_swinir
from torch import Tensor, nn

from adapt.commands.finetune_setup import set_up_finetune
from adapt.commands.restore import restore
from adapt.errors import UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.loading import load_restorer
from adapt.packs.pack import add_network
from adapt.photos.files import read_image, write_image
from adapt.photos.pairs import load_fitted
from adapt.restorers.base import EXTERNAL, Restorer, load_restorer_file
from adapt.restorers.external import ExternalNetwork, ExternalSettings


@pytest.fixture(scope="module")
def spandrel() -> ModuleType:
    return pytest.importorskip("spandrel", reason="spandrel is absent: pip install adapt-bfr[models]")


def lively(network: nn.Module) -> nn.Module:
    """Weights from a generator of the test's own, large enough that every layer shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return network.eval()


def nafnet(spandrel: ModuleType, channels: int = 3, levels: int = 2) -> nn.Module:
    from spandrel.architectures.NAFNet import NAFNet

    blocks = [1] * levels
    return lively(NAFNet(img_channel=channels, width=4, middle_blk_num=1, enc_blk_nums=blocks, dec_blk_nums=blocks))


def test_a_network_of_the_community_restores_trains_and_is_written(
    spandrel: ModuleType, tmp_path: Path, gen: torch.Generator
):
    own = nafnet(spandrel)
    torch.save({"params": own.state_dict()}, tmp_path / "theirs.pth")
    restorer = load_restorer_file(tmp_path / "theirs.pth")
    assert (restorer.architecture, restorer.size) == ("spandrel", 512)
    photo = torch.rand(2, 3, 37, 51, generator=gen)
    with torch.no_grad():
        torch.testing.assert_close(restorer(photo), own(photo).clamp(0, 1), rtol=0, atol=1e-5)
    restorer.network(photo).sum().backward()
    reached = [parameter.grad is not None for parameter in restorer.network.parameters()]
    assert all(reached)
    restorer.save(tmp_path / "ours.safetensors")
    torch.testing.assert_close(load_restorer_file(tmp_path / "ours.safetensors")(photo), restorer(photo))
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / "ours.safetensors")
    assert theirs.architecture.id == "NAFNet"
    smaller = restorer.at(16, "a pack")
    assert (smaller.size, smaller.network, restorer.size) == (16, restorer.network, 512)
    smaller.save(tmp_path / "smaller.safetensors")
    assert load_restorer_file(tmp_path / "smaller.safetensors").size == 16


def test_networks_that_do_not_keep_the_size_are_refused(spandrel: ModuleType, tmp_path: Path):
    from spandrel.architectures.Compact import Compact

    doubles = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=1, upscale=2)
    torch.save(lively(doubles).state_dict(), tmp_path / "doubles.pth")
    with pytest.raises(WeightsError, match=r"doubles.pth: a Compact of 3 to 3 channels at 2 times the size; expected"):
        load_restorer_file(tmp_path / "doubles.pth")
    torch.save(nafnet(spandrel, channels=1).state_dict(), tmp_path / "grey.pth")
    with pytest.raises(WeightsError, match=r"grey.pth: a NAFNet of 1 to 1 channels at 1 times the size"):
        load_restorer_file(tmp_path / "grey.pth")
    broken = nafnet(spandrel).state_dict()
    broken["intro.bias"][0] = float("nan")
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=r"broken.pth: 1 tensors hold NaN or infinity \(intro.bias\)"):
        load_restorer_file(tmp_path / "broken.pth")


def test_a_network_that_spandrel_cannot_build_is_named(spandrel: ModuleType, tmp_path: Path):
    state = nafnet(spandrel).state_dict()
    state["ending.weight"] = torch.zeros(5)
    torch.save(state, tmp_path / "bent.pth")
    with pytest.raises(WeightsError, match=r"bent.pth: spandrel cannot build its network \(.+\)"):
        load_restorer_file(tmp_path / "bent.pth")


def test_without_spandrel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    torch.save({"intro.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"pip install adapt-bfr\[models\]"):
        load_restorer_file(tmp_path / "x.pth")


class Demanding(nn.Module):
    """Squares of at least 32 px whose side is a multiple of 12; the image comes first of two outputs."""

    def forward(self, photo: Tensor) -> tuple[Tensor, None]:
        height, width = photo.shape[-2:]
        assert height == width >= 32
        assert height % 12 == 0
        return F.conv2d(photo, torch.ones(3, 1, 3, 3, dtype=photo.dtype) / 9, padding=1, groups=3), None


@pytest.mark.parametrize(("size", "side"), [((20, 30), 36), ((36, 36), 36), ((37, 12), 48)])
def test_demands_on_sizes_are_met_by_repeating_the_edge(size: tuple[int, int], side: int, gen: torch.Generator):
    settings = ExternalSettings(layout="demanding", minimum=32, multiple=12, square=True)
    photo = torch.rand(2, 3, *size, generator=gen)
    rows = torch.arange(side).clamp(max=size[0] - 1)
    columns = torch.arange(side).clamp(max=size[1] - 1)
    expected = Demanding()(photo[:, :, rows][..., columns])[0][..., : size[0], : size[1]]
    torch.testing.assert_close(ExternalNetwork(Demanding(), settings)(photo), expected, rtol=0, atol=1e-6)


class Fixed(nn.Module):
    """Takes 24 px and nothing else, as face networks with a constant for their lowest grid do."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.zeros(3, 24, 24))

    def forward(self, photo: Tensor) -> Tensor:
        return photo + self.grid


class Halving(nn.Module):
    """Gives no more than 24 px, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, photo: Tensor) -> Tensor:
        return self.gain * photo[..., :24, :24]


@pytest.mark.parametrize(("network", "minimum", "size", "message"), [
    (Fixed(), 0, 16, r"theirs: a layout does not restore faces of 16 px \(The size of tensor a \(16\) must match"),
    (Halving(), 0, 32, r"theirs: a layout does not restore faces of 32 px \(\(1, 3, 24, 24\)\); take faces of the"),
    (Halving(), 40, 16, r"theirs: a layout takes images of 40 px or more, and these faces have 16 px; take larger"),
])
def test_a_network_that_takes_no_faces_of_a_size_says_so(network: nn.Module, minimum: int, size: int, message: str):
    settings = ExternalSettings(layout="layout", minimum=minimum)
    restorer = Restorer("theirs", EXTERNAL, settings, ExternalNetwork(network, settings).eval())
    with pytest.raises(UsageError, match=message):
        restorer.at(size, "a pack")
    assert restorer.at(512, "a pack") is restorer


QUICK = ["targets.guidance.0.factor=4", "targets.steps=2", "targets.gate.max_low_frequency_change=1",
         "targets.gate.min_contrast=0", "finetune.steps=2", "finetune.batch=2", "finetune.evaluate_every=1",
         "finetune.discriminator.features=4", "finetune.learning_rate=1e-6"]


@pytest.mark.parametrize("kept", [False, True])
def test_run_fine_tunes_a_network_of_the_community_at_the_size_of_the_pack(
    kept: bool, spandrel: ModuleType, small_pack: Path, small_photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):
    """From a file that tells no size to model.onnx and the page, all at the 16 px that the pack's prior draws; also
    where the verdict keeps the network as it was."""
    if not kept:
        export_adapted(monkeypatch)
    torch.save(nafnet(spandrel, levels=1).state_dict(), tmp_path / "naf.pth")
    out = tmp_path / "out"
    arguments = ["run", small_photos, "-o", out, "--recipe", "generic", "--restorer", tmp_path / "naf.pth",
                 "--method", "low-frequency", "--pack", small_pack, "--device", "cpu", *QUICK]
    assert adapt(monkeypatch, *arguments) == 0
    assert "resized" not in capsys.readouterr().out
    for name in ("model.onnx", "report.html", "sheet.jpg", "finetune/best.safetensors"):
        assert (out / name).is_file(), name
    adapted = load_restorer(out / "finetune")
    assert (adapted.architecture, adapted.size) == (EXTERNAL, 16)
    about = json.loads((out / "bundle" / "bundle.json").read_text())
    assert (about["size"], about["one_size"], about["source"]["started from"]) == (
        16, False, str(tmp_path / "naf.pth")
    )
    photo = read_image(small_photos / "a.png")[None]
    base = load_restorer(tmp_path / "naf.pth")
    for model, folder in ((base, "base"), (base if kept else adapted, "restored")):
        torch.testing.assert_close(read_image(out / folder / "a.png")[None], model(photo), rtol=0, atol=0.51 / 255)
    restore(tmp_path / "naf.pth", small_photos, tmp_path / "24", size=24, device="cpu")
    assert read_image(tmp_path / "24" / "a.png").shape == (3, 24, 24)
    with pytest.raises(UsageError, match=r"--size 24: .*bundle is a bundle, which .* was exported for, 16 px; leave"):
        restore(out / "bundle", small_photos, tmp_path / "b", size=24, device="cpu")


def test_restore_at_a_size(
    small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Of a network that takes any: what it was made for is a convention, and the folder remembers what was taken."""
    Restorer("", "swinir", SMALL_SWINIR, lively_swinir()).save(tmp_path / "any.safetensors")
    command = ["restore", tmp_path / "any.safetensors", small_photos, "--device", "cpu"]
    network = lively_swinir()
    for name, options, side in (("own", [], 32), ("16", ["--size", 16], 16), ("24", ["--size", 24], 24)):
        assert adapt(monkeypatch, *command, "-o", tmp_path / name, *options) == 0
        with torch.no_grad():
            expected = network(load_fitted(small_photos / "a.png", side)[None]).clamp(0, 1)
        got = read_image(tmp_path / name / "a.png")[None]
        torch.testing.assert_close(got, expected, rtol=0, atol=0.51 / 255)
        assert json.loads((tmp_path / name / "restored.json").read_text())["size"] == side
        assert ("6 photos were enlarged to the model" in capsys.readouterr().out) == (side != 16)
    assert adapt(monkeypatch, *command, "-o", tmp_path / "own", "--size", 32) == 0
    assert "0 restored, 6 already there" in capsys.readouterr().out, "its own size, said aloud, is the same"
    for name, options, held, asked in (("own", ["--size", 24], 32, 24), ("24", [], 24, 32)):
        assert adapt(monkeypatch, *command, "-o", tmp_path / name, *options) == 2
        assert f"{name}: holds images of {held} px, not {asked}; choose another folder" in capsys.readouterr().err
    assert adapt(monkeypatch, *command, "-o", tmp_path / "own", "--size", 24, "--overwrite") == 0
    assert read_image(tmp_path / "own" / "a.png").shape == (3, 24, 24)


@pytest.mark.parametrize(("model", "size", "message"), [
    ("codeformer", 24, "--size 24: {file} takes faces of 16 px only; leave this out"),
    ("fixed", 16, "--size 16: {file}: a layout does not restore faces of 16 px (The size of tensor"),
    ("codeformer", 0, "--size 0: expected a number of pixels, 1 or more"),
])
def test_a_size_that_a_network_does_not_take_is_refused_before_anything_is_written(
    model: str, size: int, message: str, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "file.safetensors"
    codeformer = Restorer(str(file), "codeformer", SMALL_CODEFORMER, lively_codeformer())
    fixed = ExternalNetwork(Fixed(), ExternalSettings(layout="layout")).eval()
    loaded = codeformer if model == "codeformer" else Restorer(str(file), EXTERNAL, fixed.settings, fixed)
    monkeypatch.setattr("adapt.commands.restore.load_model", lambda *_: loaded)
    with pytest.raises(UsageError, match=re.escape(message.format(file=file))):
        restore(file, small_photos, tmp_path / "out", size=size, device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_swinir_made_for_larger_faces_works_at_the_size_of_the_pack(
    small_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Its 32 px are a convention; the one target of 32 px is counted, and what was tuned remembers its size."""
    Restorer("", "swinir", SMALL_SWINIR, lively_swinir()).save(tmp_path / "large.safetensors")
    name = str(tmp_path / "large.safetensors")
    begun = set_up_finetune("swinir", pack=small_pack, restorer=name)
    assert (load_restorer(name).size, begun.restorer.size) == (32, 16)
    targets = tmp_path / "targets"
    shutil.copytree(small_photos, targets)
    write_image(targets / "b.png", smooth_images((1, 32, 32), seed=2)[0], overwrite=True)
    command = ["finetune", "--photos", small_photos, "--targets", targets, "-o", tmp_path / "run", "--pack", small_pack]
    quick = ["steps=1", "batch=2", "evaluate_every=1", "discriminator.features=4"]
    assert adapt(monkeypatch, *command, "--restorer", name, "--device", "cpu", *quick) == 0
    printed = capsys.readouterr().out
    assert "\n1 target was resized to the model's size\n" in printed
    assert "photo was" not in printed
    assert load_restorer(tmp_path / "run").size == 16


def test_a_restorer_of_a_pack_works_at_the_size_of_the_pack(spandrel: ModuleType, small_pack: Path, tmp_path: Path):
    pack = Path(shutil.copytree(small_pack, tmp_path / "pack"))
    entry = {"architecture": "spandrel", "licence": "none", "source": "a test", "trained": "not at all"}
    add_network(pack, "naf", nafnet(spandrel).state_dict(), header={}, entry=entry)
    assert load_restorer(f"{pack}/naf").size == 16


def test_a_restorer_of_another_fixed_size_is_refused_before_any_work(
    small_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    settings = SMALL_CODEFORMER.model_copy(update={"img_size": 32, "connect_list": [16], "attn_resolutions": [8]})
    Restorer("", "codeformer", settings, lively_codeformer(settings)).save(tmp_path / "large.safetensors")
    file, out = tmp_path / "large.safetensors", tmp_path / "out"
    rest = ["--recipe", "generic", "--restorer", file, "--pack", small_pack]
    for command in (
        ["run", small_photos, "-o", out, *rest],
        ["finetune", "--photos", small_photos, "--targets", small_photos, "-o", out, *rest],
    ):
        assert adapt(monkeypatch, *command) == 2
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1
        assert f"{file}: takes faces of 32 px only, and those of pack {small_pack} have 16 px; take a pack" in error[0]
        assert not out.exists()
