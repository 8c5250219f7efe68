"""The losses of the guidance adjuster: the stationary wavelet transform against pywt, DISTS against torchmetrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor

from adapt.digests import file_digest
from adapt.errors import ShapeError, UsageError, WeightsError
from adapt.perceptual import distance as distance_room
from adapt.perceptual.dists import DistsNetwork, find_dists
from adapt.perceptual.swt import BANDS, swt2, swt_loss

# ---------------------------------------------------------------- SWT

# Lengths 2 to 62, symmetric and not, orthogonal and biorthogonal; sym19 and dmey are longer than the image is wide.
WAVELETS = ("haar", "db2", "sym4", "sym19", "bior3.5", "rbio1.3", "coif3", "dmey")


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_bands_are_those_of_pywt(wavelet: str, gen: torch.Generator) -> None:
    image = torch.randn(2, 3, 38, 22, generator=gen, dtype=torch.float64)
    ((ll, (lh, hl, hh)),) = pywt.swt2(image.numpy(), wavelet, 1, axes=(2, 3))
    expected = torch.from_numpy(np.stack([ll, lh, hl, hh], axis=1))
    torch.testing.assert_close(swt2(image, wavelet), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("wavelet", ["db3", "sym19"])
def test_odd_sides_are_periodic_sums(wavelet: str, gen: torch.Generator) -> None:
    """pywt refuses odd sides; reference: the defining sum, shift by shift."""
    image = torch.randn(1, 1, 13, 9, generator=gen, dtype=torch.float64)
    filters = pywt.Wavelet(wavelet)  # pyright: ignore[reportAttributeAccessIssue]

    def along(values: np.ndarray, taps: list[float], axis: int) -> np.ndarray:
        return sum(tap * np.roll(values, k - len(taps) // 2, axis) for k, tap in enumerate(taps))  # type: ignore[return-value]

    pairs = {"L": filters.dec_lo, "H": filters.dec_hi}
    for index, band in enumerate(BANDS):
        expected = along(along(image[0, 0].numpy(), pairs[band[0]], 1), pairs[band[1]], 0)
        torch.testing.assert_close(swt2(image, wavelet)[0, index, 0], torch.from_numpy(expected), rtol=0, atol=1e-13)


def test_edges_go_to_their_bands() -> None:
    """A horizontal edge is detail along the columns (LH), a vertical one along the rows (HL)."""
    image = torch.zeros(3, 1, 16, 12, dtype=torch.float64)
    image[0, :, 5:] = 1
    image[1, :, :, 5:] = 1
    image[2] = 0.7
    energy = swt2(image, "haar").square().sum(dim=(2, 3, 4))
    assert energy[0, 1] > 1
    assert energy[1, 2] > 1
    torch.testing.assert_close(energy[0, 2:], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-20)
    assert float(energy[1, 1] + energy[1, 3] + energy[2, 1:].sum()) < 1e-20
    torch.testing.assert_close(swt2(image, "haar")[2, 0], 2 * image[2], rtol=0, atol=1e-14)  # LL is doubled


def test_loss_is_a_weighted_mean_of_differences(gen: torch.Generator) -> None:
    a, b = torch.rand(2, 3, 3, 20, 16, generator=gen, dtype=torch.float64)
    weights = (0.5, 0.01, 0.02, 0.05)
    parts = [pywt.swt2(x.numpy(), "sym19", 1, axes=(2, 3))[0] for x in (a, b)]
    (ll_a, high_a), (ll_b, high_b) = parts
    expected = 0.0
    for weight, x, y in zip(weights, (ll_a, *high_a), (ll_b, *high_b), strict=True):
        expected = expected + weight * np.abs(x - y).mean(axis=(1, 2, 3))
    found = swt_loss(a, b, weights)
    torch.testing.assert_close(found, torch.from_numpy(np.asarray(expected)), rtol=1e-12, atol=0)
    torch.testing.assert_close(swt_loss(a[1:2], b[1:2], weights), found[1:2], rtol=1e-12, atol=0)
    assert float(swt_loss(a, a, weights).sum()) == 0


def test_loss_has_the_right_gradient(gen: torch.Generator) -> None:
    a, b = torch.rand(2, 1, 2, 7, 5, generator=gen, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: swt_loss(x, b, (0.1, 0.2, 0.3, 0.4), wavelet="db2"), a.requires_grad_())


def test_what_the_transform_refuses() -> None:
    with pytest.raises(UsageError, match="no discrete wavelet 'sym91' in PyWavelets"):
        swt2(torch.zeros(1, 1, 4, 4), "sym91")
    with pytest.raises(UsageError, match=r"a weight for each of LL, LH, HL, HH, got 3 weights"):
        swt_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), (0, 1, 1))
    with pytest.raises(ShapeError, match=r"got \(1, 1, 4, 4\) and \(1, 1, 4, 5\)"):
        swt_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5), (0, 1, 1, 1))
    with pytest.raises(ShapeError, match=r"expected a batch of shape \(B, C, H, W\), got \(4, 4\)"):
        swt2(torch.zeros(4, 4))


# ---------------------------------------------------------------- DISTS


@pytest.fixture(scope="module")
def vgg() -> dict[str, Tensor]:
    """Random tensors in the layout and, roughly, the scale of torchvision's VGG-16 (its convolutions)."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    generator = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {}
    for number, before, width in zip(numbers, widths, widths[1:], strict=False):
        scale = (2 / (9 * before)) ** 0.5
        state[f"features.{number}.weight"] = scale * torch.randn(width, before, 3, 3, generator=generator)
        state[f"features.{number}.bias"] = 0.1 * torch.randn(width, generator=generator)
    return state


@pytest.fixture
def backbone(vgg: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the file that torch.hub would keep."""
    path = tmp_path / "hub/checkpoints/vgg16-397923af.pth"
    path.parent.mkdir(parents=True)
    torch.save(vgg, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(distance_room, "VGG_SHA256_STARTS", file_digest(path)[:8])
    return path


def test_dists_is_that_of_torchmetrics(
    vgg: dict[str, Tensor], backbone: Path, monkeypatch: pytest.MonkeyPatch, gen: torch.Generator
) -> None:
    """The same backbone in both; alpha and beta are the published ones, which torchmetrics carries."""
    from torchmetrics.functional.image import dists as theirs
    from torchvision.models import vgg16

    def filled(weights: object) -> torch.nn.Module:
        del weights
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = vgg16()
        network.features.load_state_dict(
            {key.removeprefix("features."): value for key, value in vgg.items()}, assign=True
        )
        return network

    monkeypatch.setattr(theirs, "vgg16", filled)
    before = torch.random.get_rng_state()
    ours = find_dists()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert ours is not None
    assert ours.name == "dists-vgg"
    assert len(ours.digest) == 64
    a, b = torch.rand(2, 2, 3, 45, 34, generator=gen)
    with torch.random.fork_rng(devices=[]):
        reference = theirs.DISTSNetwork()
    expected = reference(a, b, require_grad=True)
    torch.testing.assert_close(ours(a, b), expected.detach(), rtol=1e-5, atol=1e-6)
    # Their covariance is a difference of means and loses digits; the image's own sums agree for one and for many.
    torch.testing.assert_close(ours(a[:1], b[:1]), ours(a, b)[:1], rtol=1e-5, atol=1e-6)
    assert float(ours(a, a).abs().max()) < 1e-6
    assert ours.features(a).shape == (2, 2048)


def test_dists_passes_gradients_to_the_image_only(backbone: Path, gen: torch.Generator) -> None:
    found = find_dists(backbone)
    assert found is not None
    a, b = torch.rand(2, 1, 3, 16, 16, generator=gen)
    a = torch.zeros_like(a).requires_grad_(True)  # nothing is active in places: roots and quotients of zero
    found(a, b).sum().backward()
    assert a.grad is not None
    assert bool(torch.isfinite(a.grad).all())
    assert float(a.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in found.module.parameters())


def test_dists_is_never_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_dists() is None
    with pytest.raises(WeightsError, match="no such file"):
        find_dists(tmp_path / "vgg16.pth")


def test_dists_of_a_damaged_backbone(vgg: dict[str, Tensor], backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({key: value for key, value in vgg.items() if "28" not in key}, backbone)
    monkeypatch.setattr(distance_room, "VGG_SHA256_STARTS", file_digest(backbone)[:8])
    with pytest.raises(WeightsError, match=r"2 missing \(stages.4.2.weight, stages.4.2.bias\)"):
        find_dists()


def test_dists_refuses_other_shapes() -> None:
    network = DistsNetwork()
    with pytest.raises(ShapeError, match="two batches of one shape"):
        network(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))
    with pytest.raises(ShapeError, match="sides of 16 pixels"):
        network(torch.zeros(1, 3, 8, 16), torch.zeros(1, 3, 8, 16))
