"""Networks of the community, as spandrel builds them: sizes, gradients, files, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.errors import WeightsError
from adapt.restorers.base import load_restorer_file
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


def nafnet(spandrel: ModuleType, channels: int = 3) -> nn.Module:
    from spandrel.architectures.NAFNet import NAFNet

    return lively(NAFNet(img_channel=channels, width=4, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]))


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
    """Squares of at least 32 px whose side is a multiple of 12; the picture comes first of two outputs."""

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
