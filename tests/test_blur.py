"""Blur labels, the estimator and the mapping, each against a derivation of its own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SMALL_SWINIR, lively_swinir
from torch import Tensor, nn

from adapt.blur.estimator import BlurEstimator, BlurNetwork, StdEstimator, build_blur_estimator
from adapt.blur.labels import blur_errors, std_labels, std_levels, std_limits, survey, widest_xi
from adapt.blur.mapping import blurred_guides, guide_stds
from adapt.errors import RangeError, ShapeError, UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.loading import load_restorer
from adapt.photos.files import read_photo
from adapt.settings import BlurNetworkSettings
from degradations.blind import BlindParameters, degrade_blind
from degradations.cosines import gaussian_blur

SIZE = 32
NETWORK = BlurNetworkSettings(size=SIZE, transfer=SMALL_SWINIR, channels=[4, 6, 8])


def blurred_by_hand(image: np.ndarray, std: float) -> np.ndarray:
    """(C, H, W) convolved with the sampled Gaussian to 8 std, borders mirrored about the outermost pixels, float64."""
    reach = math.ceil(8 * std)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / std) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        length = image.shape[axis]
        places = np.abs((np.arange(-reach, length + reach) + length - 1) % (2 * (length - 1)) - (length - 1))
        padded = np.take(image, places, axis)
        shifted = [tap * np.take(padded, np.arange(k, k + length), axis) for k, tap in enumerate(taps)]
        image = np.sum(shifted, axis=0)
    return image


def images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def answer_always(network: StdEstimator, pixels_at_512: float) -> None:
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(pixels_at_512)


def estimator(seed: int = 0) -> BlurEstimator:
    """Untrained, but no layer of it silent; batch statistics as after some training."""
    network = BlurNetwork(NETWORK)
    generator = torch.Generator().manual_seed(seed)
    network.transfer = lively_swinir()
    with torch.no_grad():
        for parameter in network.deviation.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        for part in network.deviation.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.get_buffer("running_mean").normal_(generator=generator)
                part.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    return BlurEstimator("mine", network)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("wave", [3, 7, 12])
@pytest.mark.parametrize("xi", [0.003, 0.01, 0.02])
def test_the_label_of_a_cosine_is_where_its_gaussian_reaches_xi(wave: int, xi: float) -> None:
    """Off by a cos(pi k i / (n - 1)), an image blurred by s is off by exp(-s^2 (pi k / (n - 1))^2 / 2) of it."""
    height, width, amplitude = 37, 64, 0.1
    line = np.cos(np.pi * wave * np.arange(width) / (width - 1))
    truth = images(1, height, width) * 0.5 + 0.2
    restored = truth + amplitude * torch.tensor(line, dtype=torch.float32)
    omega = math.pi * wave / (width - 1)
    std = math.sqrt(2 * math.log(amplitude * np.abs(line).mean() / xi)) / omega
    tenth = math.ceil(std * 10 * 512 / width)
    expected = min(tenth, 150) / 10 * width / 512
    assert std_labels(restored, truth, xi=xi).tolist() == pytest.approx([expected])


def test_the_errors_are_those_of_blurs_written_out() -> None:
    """Where the sampled kernel is exact, at 1.5 pixels and more; odd and not square."""
    restored, truth = images(2, 29, 41), images(2, 29, 41, seed=1)
    levels = torch.tensor([[1.5, 2.3, 4.0], [1.7, 3.1, 9.0]], dtype=torch.float64)
    expected = [
        [
            np.abs(blurred_by_hand(a.double().numpy(), std) - blurred_by_hand(b.double().numpy(), std)).mean()
            for std in own
        ]
        for a, b, own in zip(restored, truth, levels.tolist(), strict=True)
    ]
    np.testing.assert_allclose(blur_errors(restored, truth, levels).numpy(), expected, rtol=1e-4)
    shared_levels = blur_errors(restored, truth, levels[0])
    torch.testing.assert_close(shared_levels[0], blur_errors(restored, truth, levels)[0])


@pytest.mark.parametrize("xi", [0.01, 0.03, 0.06, 0.1, 0.2])
def test_the_search_in_two_passes_finds_what_all_levels_would(xi: float) -> None:
    truth = smooth_images((6, SIZE, SIZE), seed=1)
    noise = images(6, SIZE, SIZE) - 0.5
    restored = truth + noise * torch.linspace(0.05, 1, 6).view(-1, 1, 1, 1)
    found = std_labels(restored, truth, xi=xi)
    for one, a, b in zip(found, restored, truth, strict=True):
        errors = gaussian_blur((a - b).expand(150, -1, -1, -1), std_levels(SIZE)).abs().mean(dim=(1, 2, 3))
        passing = std_levels(SIZE)[errors < xi].tolist()
        assert float(one) == min(passing, default=15 * SIZE / 512)
    assert torch.equal(found[2:3], std_labels(restored[2:3], truth[2:3], xi=xi))


def test_labels_end_where_the_range_ends() -> None:
    truth = images(1, 24, 40)
    low, high = std_limits(40)
    assert (low, high) == pytest.approx((0.1 * 40 / 512, 15 * 40 / 512))
    assert std_labels(truth, truth, xi=1e-6).tolist() == pytest.approx([low])
    assert std_labels(truth, truth + 0.5, xi=0.1).tolist() == pytest.approx([high])  # a shift that no blur takes away
    assert len(std_levels(40)) == 150
    np.testing.assert_allclose(np.diff(std_levels(512).numpy()), 0.1)


def test_labels_refuse_what_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="xi: expected a positive tolerance, got 0"):
        std_labels(images(1, 8, 8), images(1, 8, 8), xi=0.0)
    with pytest.raises(ShapeError, match=r"blur labels: .* got \(1, 3, 8, 8\) and \(1, 3, 8, 9\)"):
        std_labels(images(1, 8, 8), images(1, 8, 9), xi=0.1)


def test_a_survey_counts_labels_and_the_widest_xi_spreads_them() -> None:
    """Fifteen photos, photo i below 0.05 from its i-th pixel on: at 0.05 one label lies in each pixel of the range."""
    level = torch.arange(1, 151) / 10
    falls = torch.arange(15)[:, None] + 0.55
    errors = torch.where(level > falls, 0.0492, 0.2)
    spread = survey(errors, xi=0.05, size=512)
    assert spread.counts == (1,) * 15
    assert spread.evenness == pytest.approx(1)
    assert (spread.least, spread.never) == (0, 0)
    assert 0.0492 < widest_xi(errors, size=512) <= 0.2
    none, all_of_them = survey(errors, xi=0.01, size=64), survey(errors, xi=0.3, size=64)
    assert (none.counts[-1], none.never, none.evenness) == (15, 1.0, 0.0)
    assert (all_of_them.counts[0], all_of_them.least) == (15, 1.0)


def test_more_damage_leaves_less_that_is_true(shared: Path) -> None:
    """With the tiny recipe's tolerance and the tiny pack's restorer, on faces it has not seen."""
    files = sorted((shared / "faces" / "test" / "128").rglob("*.*"))[::60][:3]
    truth = torch.stack([read_photo(file).image for file in files])
    mild = BlindParameters(std_x=0.3, std_y=0.3, angle=0, downsample=1.5, noise=2, jpeg=95)
    severe = BlindParameters(std_x=3, std_y=3, angle=0, downsample=6, noise=15, jpeg=40)
    noise = torch.Generator().manual_seed(0)
    restore = load_restorer("tiny")
    little, much = (
        std_labels(restore(torch.stack([degrade_blind(face, damage, noise) for face in truth])), truth, xi=0.024)
        for damage in (mild, severe)
    )
    low, high = std_limits(128)
    assert (low <= little).all()
    assert (little < much).all()
    assert (much <= high).all()


# ---------------------------------------------------------------- estimator


def test_the_std_estimator_is_that_of_table_4() -> None:
    network = StdEstimator([64, 128, 256], 512)
    kinds = [type(layer).__name__ for layer in network.features]
    assert kinds == ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 6
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0], c.kernel_size) for c in convolutions] == [
        (3, 64, 1, (3, 3)), (64, 64, 1, (3, 3)), (64, 128, 2, (3, 3)), (128, 128, 1, (3, 3)), (128, 256, 2, (3, 3)),
        (256, 256, 1, (3, 3)),
    ]  # fmt: skip
    assert [type(layer).__name__ for layer in network.head] == ["Linear", "LeakyReLU", "Linear", "Linear"]
    assert [layer.weight.shape for layer in network.head if isinstance(layer, nn.Linear)] == [
        (256, 256), (256, 256), (1, 256),
    ]  # fmt: skip
    assert sum(parameter.numel() for parameter in network.parameters()) == (
        9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256)  # kernels
        + 3 * 2 * (64 + 128 + 256)  # their biases, and scale and shift after each
        + 2 * 256 * 257 + 257
    )


def test_the_std_estimator_counts_in_pixels_of_the_size_it_was_trained_at() -> None:
    """Its last layer alone: a bias of 7.5 is 7.5 px at 512 and 1.875 px at 128, at any size of the image."""
    for size, expected in ((512, 7.5), (128, 1.875)):
        network = StdEstimator([4, 4, 4], size).eval()
        answer_always(network, 7.5)
        assert network(images(2, 17, 23)).tolist() == [expected, expected]


def test_an_estimate_does_not_depend_on_the_batch_and_stays_in_the_range() -> None:
    model = estimator()
    photos = smooth_images((3, SIZE, SIZE), seed=2)
    together = model(photos)
    assert together.std.shape == (3,)
    assert together.blurred.shape == photos.shape
    for i in range(3):
        alone = model(photos[i : i + 1])
        torch.testing.assert_close(alone.std, together.std[i : i + 1], rtol=1e-5, atol=1e-6)
    answer_always(model.network.deviation, 20)
    assert model(photos).std.tolist() == pytest.approx([15 * SIZE / 512] * 3)
    answer_always(model.network.deviation, -1)
    assert model(photos).std.tolist() == pytest.approx([0.1 * SIZE / 512] * 3)
    assert model(photos.double()).std.dtype == torch.float32
    with pytest.raises(RangeError, match=r"mine: .*8-bit"):
        model(photos * 255)


def test_a_blurred_photo_passes_the_transfer_model_by() -> None:
    network = estimator().network.eval()
    photo = images(1, SIZE, SIZE)
    std, blurred = network(photo, True)
    assert torch.equal(blurred, photo)
    assert torch.equal(std, network.deviation(photo))
    std, blurred = network(photo)
    assert torch.equal(blurred, network.transfer(photo))
    assert torch.equal(std, network.deviation(blurred))


def test_only_an_estimator_loads_as_one() -> None:
    model = estimator()
    header = {"architecture": "blur-estimator", "settings": NETWORK.model_dump_json()}
    again = build_blur_estimator("again", model.network.state_dict(), header)
    photo = images(1, SIZE, SIZE)
    assert torch.equal(again(photo).std, model(photo).std)
    assert again.size == SIZE
    with pytest.raises(WeightsError, match="x: expected a blur-estimator of ours, its header names swinir"):
        build_blur_estimator("x", {}, {"architecture": "swinir", "settings": "{}"})
    with pytest.raises(WeightsError, match=r"x: not the weights of this BlurNetwork: .* missing"):
        build_blur_estimator("x", {"a": torch.zeros(1)}, header)
    grown = NETWORK.model_copy(update={"transfer": SMALL_SWINIR.model_copy(update={"sf": 8})})
    with pytest.raises(UsageError, match="expected a TM that keeps the size, got one of x2"):
        BlurNetwork(grown)


# ---------------------------------------------------------------- mapping


def test_guidances_are_a_pixel_of_512_apart_and_never_below_the_least() -> None:
    stds = guide_stds(torch.tensor([2.0, 0.4]), 4, 128)
    assert stds.tolist() == [pytest.approx([2.0, 1.75, 1.5, 1.25]), pytest.approx([0.4, 0.15, 0.025, 0.025])]
    assert guide_stds(torch.tensor([5.0]), 3, 512).tolist() == [[5.0, 4.0, 3.0]]
    with pytest.raises(UsageError, match="guidances: expected 1 to 4, got 5"):
        guide_stds(torch.tensor([2.0]), 5, 128)


def test_each_guidance_is_the_restored_photo_under_its_gaussian() -> None:
    restored = images(2, 29, 41)
    stds = torch.tensor([[3.0, 1.5], [2.2, 1.8]])
    expected = [
        [blurred_by_hand(image.double().numpy(), std) for std in own]
        for image, own in zip(restored, stds.tolist(), strict=True)
    ]
    np.testing.assert_allclose(blurred_guides(restored, stds).numpy(), expected, atol=1e-5)
