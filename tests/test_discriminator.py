"""The discriminator against the public implementation's fixture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import Reference

from adapt.errors import ShapeError
from adapt.training.discriminator import SpectralConv, UNetDiscriminator


def test_fixture(reference: Reference):
    arrays = reference.arrays("disc")
    network = reference.fill.load(UNetDiscriminator().eval())
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == reference.manifest("disc_unet_sn")["tensors"]
    for name in ("1x128x128", "2x64x96"):
        shape = [int(n) for n in name.split("x")]
        image = torch.from_numpy(reference.fill.smooth(f"disc.x{name}", [shape[0], 3, *shape[1:]]))
        with torch.no_grad():
            logits = network(image)
        np.testing.assert_allclose(logits.numpy(), arrays[f"eval_{name}"], rtol=0, atol=2e-6)
    image = torch.from_numpy(arrays["x_1x128x128"])
    network.train()
    with torch.no_grad():
        logits = network(image)
    np.testing.assert_allclose(logits.numpy(), arrays["train_first_forward"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(network.conv1.weight_u.numpy(), arrays["conv1_weight_u_after"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(network.conv5.weight_u.numpy(), arrays["conv5_weight_u_after"], rtol=0, atol=2e-6)


def test_spectral_norm_is_the_largest_singular_value(gen: torch.Generator):
    layer = SpectralConv(3, 5, 3)
    with torch.no_grad():
        layer.weight_orig.normal_(generator=gen)
        for _ in range(200):
            layer.normalised()
    largest = torch.linalg.svdvals(layer.normalised().detach().flatten(1).double())[0]
    assert float(largest) == pytest.approx(1, abs=1e-5)


def test_two_forwards_then_backward(gen: torch.Generator):
    """Real and fake batches share the buffers: the first graph must survive the second forward."""
    network = UNetDiscriminator(features=4, generator=gen).train()
    a, b = torch.rand(2, 1, 3, 16, 24, generator=gen)
    loss = F.softplus(-network(a)).mean() + F.softplus(network(b)).mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_same_generator_same_weights():
    first, second = (
        UNetDiscriminator(features=4, generator=torch.Generator().manual_seed(1)).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_odd_sides_are_named(gen: torch.Generator):
    with pytest.raises(ShapeError, match=r"multiples of 8, got \(20, 16\)"):
        UNetDiscriminator(features=4)(torch.rand(1, 3, 20, 16, generator=gen))
