"""The guidance adjuster: its layers, its maps, its file, and the maps as images."""

from __future__ import annotations

import pytest
import torch

from adapt.blur.adjuster import GuidanceAdjuster, build_adjuster
from adapt.errors import ShapeError, WeightsError
from adapt.guidance.maps import map_image
from adapt.settings import AdjusterNetworkSettings


def test_the_layers_are_those_of_table_5():
    network = GuidanceAdjuster(AdjusterNetworkSettings(model_channels=32))
    layers = {"first": network.first, "second": network.second, "last": network.last}
    weights = {name: sum(parameter.numel() for parameter in layer.parameters()) for name, layer in layers.items()}
    assert weights == {"first": 6 * 64 * 9 + 64, "second": 64 * 64 * 9 + 64, "last": 64 * 3 * 9 + 3}


def test_the_map_is_between_0_and_1_at_any_size_and_knows_the_time(gen: torch.Generator):
    network = GuidanceAdjuster(AdjusterNetworkSettings(features=8, model_channels=32))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5, generator=gen)
    network.requires_grad_(False)
    guidance, x0 = torch.randn(2, 2, 3, 13, 21, generator=gen)
    early, late = (network(guidance, x0, torch.tensor([t, t])) for t in (900, 20))
    assert early.shape == x0.shape
    for scale in (early, late):
        assert 0 == float(scale.min()) < float(scale.max()) == 1
    assert not torch.equal(early, late)
    assert not torch.equal(network(x0, guidance, torch.tensor([20, 20])), late)
    alone = network(guidance[:1], x0[:1], torch.tensor([20]))
    torch.testing.assert_close(alone, late[:1], rtol=0, atol=1e-3)  # large weights, float32, another order of sums
    with pytest.raises(ShapeError, match=r"guidance adjuster: .* got \(2, 3, 13, 21\), \(1, 3, 13, 21\) and \(2,\)"):
        network(guidance, x0[:1], torch.tensor([20, 20]))


@pytest.mark.parametrize(("begin", "wanted"), [(1.5, 0.25), (-0.5, 0.75)])
def test_a_map_comes_back_from_beyond_its_ends(begin: float, wanted: float):
    network = GuidanceAdjuster(AdjusterNetworkSettings(features=8, model_channels=32))
    bias = network.last.bias
    assert bias is not None
    with torch.no_grad():
        network.last.weight.zero_()
        bias.fill_(begin)
    image = torch.zeros(1, 3, 4, 4)
    for target, moves in ((wanted, True), (begin, False)):  # what is wanted beyond the ends does not lead further out
        (gradient,) = torch.autograd.grad((network(image, image, torch.tensor([5])) - target).square().sum(), bias)
        assert bool(gradient.any()) is moves


def test_a_file_without_header_is_rebuilt_from_its_shapes_and_another_is_refused(gen: torch.Generator):
    network = GuidanceAdjuster(AdjusterNetworkSettings(features=8, model_channels=32))
    again = build_adjuster("mine", network.state_dict(), {})
    inputs = (*torch.randn(2, 1, 3, 9, 8, generator=gen), torch.tensor([77]))
    assert again.settings == network.settings
    assert torch.equal(again(*inputs), network(*inputs))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    with pytest.raises(WeightsError, match="mine: not a guidance adjuster"):
        build_adjuster("mine", {"conv.weight": torch.zeros(1)}, {})
    with pytest.raises(WeightsError, match="mine: expected a guidance-adjuster, its header names unet"):
        build_adjuster("mine", network.state_dict(), {"architecture": "unet"})


def test_map_images_go_from_blue_over_white_to_red():
    scale = torch.tensor([0.0, 0.5, 1.0]).expand(3, 1, 3)
    image = map_image(scale)
    assert image.shape == (3, 1, 3)
    red, green, blue = image[:, 0]
    assert blue[0] == max(red[0], green[0], blue[0])
    assert red[2] == max(red[2], green[2], blue[2])
    assert image[:, 0, 1].tolist() == [1, 1, 1]
    assert torch.equal(map_image(scale[None])[0], image)
    with pytest.raises(ShapeError, match=r"guidance map: .* got \(1, 3\)"):
        map_image(scale[0])
