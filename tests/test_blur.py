"""Blur labels, the estimator, the mapping and the start-step table, each against a derivation of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import adapt
from conftest import ROOT
from networks import SMALL_SWINIR, lively_codeformer, lively_swinir
from torch import Tensor, nn

from adapt.blur.estimator import BlurEstimator, BlurNetwork, StdEstimator, build_blur_estimator
from adapt.blur.labels import Survey, blur_errors, std_labels, std_levels, std_limits, survey, widest_xi
from adapt.blur.mapping import blurred_guides, guide_stds, map_to_blur
from adapt.blur.start_steps import (
    StartSteps,
    build_start_steps,
    differences,
    load_start_steps_file,
    power_spectrum,
    table_of,
)
from adapt.build import load_blur_estimator, load_restorer, load_start_steps
from adapt.errors import RangeError, ShapeError, UsageError, WeightsError
from adapt.exporting.verify import smooth_pictures
from adapt.photos.files import read_photo
from adapt.pretrain.blur import train_blur_estimator, untrained
from adapt.recipe import load_recipe
from adapt.restorers.base import Restorer
from adapt.runs import Run
from adapt.settings import BlindSettings, BlurEstimatorSettings, BlurNetworkSettings, StartStepsSettings
from adapt.weights import read_state
from degradations.blind import BlindParameters, degrade_blind
from degradations.cosines import gaussian_blur

SIZE = 32
NETWORK = BlurNetworkSettings(size=SIZE, transfer=SMALL_SWINIR, channels=[4, 6, 8])
TRAINING = BlurEstimatorSettings(
    channels=[4, 4, 8], steps=4, first_stage=2, batch=2, size=SIZE, learning_rate=1e-3, ema=0.5, survey=3, save_every=1
)


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


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
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
    """Off by a cos(pi k i / (n - 1)), a picture blurred by s is off by exp(-s^2 (pi k / (n - 1))^2 / 2) of it."""
    height, width, amplitude = 37, 64, 0.1
    line = np.cos(np.pi * wave * np.arange(width) / (width - 1))
    truth = pictures(1, height, width) * 0.5 + 0.2
    restored = truth + amplitude * torch.tensor(line, dtype=torch.float32)
    omega = math.pi * wave / (width - 1)
    std = math.sqrt(2 * math.log(amplitude * np.abs(line).mean() / xi)) / omega
    tenth = math.ceil(std * 10 * 512 / width)
    expected = min(tenth, 150) / 10 * width / 512
    assert std_labels(restored, truth, xi=xi).tolist() == pytest.approx([expected])


def test_the_errors_are_those_of_blurs_written_out() -> None:
    """Where the sampled kernel is exact, at 1.5 pixels and more; odd and not square."""
    restored, truth = pictures(2, 29, 41), pictures(2, 29, 41, seed=1)
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
    truth = smooth_pictures((6, SIZE, SIZE), seed=1)
    noise = pictures(6, SIZE, SIZE) - 0.5
    restored = truth + noise * torch.linspace(0.05, 1, 6).view(-1, 1, 1, 1)
    found = std_labels(restored, truth, xi=xi)
    for one, a, b in zip(found, restored, truth, strict=True):
        errors = gaussian_blur((a - b).expand(150, -1, -1, -1), std_levels(SIZE)).abs().mean(dim=(1, 2, 3))
        passing = std_levels(SIZE)[errors < xi].tolist()
        assert float(one) == min(passing, default=15 * SIZE / 512)
    assert torch.equal(found[2:3], std_labels(restored[2:3], truth[2:3], xi=xi))


def test_labels_end_where_the_range_ends() -> None:
    truth = pictures(1, 24, 40)
    low, high = std_limits(40)
    assert (low, high) == pytest.approx((0.1 * 40 / 512, 15 * 40 / 512))
    assert std_labels(truth, truth, xi=1e-6).tolist() == pytest.approx([low])
    assert std_labels(truth, truth + 0.5, xi=0.1).tolist() == pytest.approx([high])  # a shift that no blur takes away
    assert len(std_levels(40)) == 150
    np.testing.assert_allclose(np.diff(std_levels(512).numpy()), 0.1)


def test_labels_refuse_what_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="xi: expected a positive tolerance, got 0"):
        std_labels(pictures(1, 8, 8), pictures(1, 8, 8), xi=0.0)
    with pytest.raises(ShapeError, match=r"blur labels: .* got \(1, 3, 8, 8\) and \(1, 3, 8, 9\)"):
        std_labels(pictures(1, 8, 8), pictures(1, 8, 9), xi=0.1)


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
    """Its last layer alone: a bias of 7.5 is 7.5 px at 512 and 1.875 px at 128, at any size of the picture."""
    for size, expected in ((512, 7.5), (128, 1.875)):
        network = StdEstimator([4, 4, 4], size).eval()
        answer_always(network, 7.5)
        assert network(pictures(2, 17, 23)).tolist() == [expected, expected]


def test_an_estimate_does_not_depend_on_the_batch_and_stays_in_the_range() -> None:
    model = estimator()
    photos = smooth_pictures((3, SIZE, SIZE), seed=2)
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
    with pytest.raises(RangeError, match=r"mine: .*8-bit"):
        model(photos * 255)


def test_a_blurred_photo_passes_the_transfer_model_by() -> None:
    network = estimator().network.eval()
    photo = pictures(1, SIZE, SIZE)
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
    photo = pictures(1, SIZE, SIZE)
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
    restored = pictures(2, 29, 41)
    stds = torch.tensor([[3.0, 1.5], [2.2, 1.8]])
    expected = [
        [blurred_by_hand(image.double().numpy(), std) for std in own]
        for image, own in zip(restored, stds.tolist(), strict=True)
    ]
    np.testing.assert_allclose(blurred_guides(restored, stds).numpy(), expected, atol=1e-5)


def test_the_mapping_blurs_the_restored_photo_and_not_the_photo() -> None:
    model = estimator()
    photo = smooth_pictures((2, SIZE, SIZE), seed=4)
    guides = map_to_blur(photo, restorer=lambda y: 1 - y, estimator=model, count=2)
    assert torch.equal(guides.restored, 1 - photo)
    assert torch.equal(guides.std[:, 0], model(photo).std)
    assert guides.blurred.shape == (2, 2, 3, SIZE, SIZE)
    torch.testing.assert_close(guides.blurred[:, 1], gaussian_blur(1 - photo, guides.std[:, 1]))


# ---------------------------------------------------------------- start steps


def test_the_spectrum_of_white_noise_is_one_and_that_of_a_wave_stands_in_its_ring() -> None:
    noise = torch.randn(60, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    spectrum = power_spectrum([noise[:20], noise[20:]])
    assert spectrum.shape == (17,)
    np.testing.assert_allclose(spectrum[2:].numpy(), 1, atol=0.12)  # 180 draws of 8 and more frequencies
    line = torch.cos(2 * math.pi * 5 * torch.arange(24) / 24)
    wave = line.expand(1, 3, 24, 24)
    spectrum = power_spectrum([wave])
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(24, 1 / 24), np.fft.fftfreq(24, 1 / 24)))
    expected = np.zeros(13)
    expected[5] = 24 * 24 / 2 / (np.round(radius) == 5).sum()  # Parseval: all of the power, 1/2 a pixel, in one ring
    np.testing.assert_allclose(spectrum.numpy(), expected, atol=1e-4)


def test_spectrum_refuses_what_has_none() -> None:
    with pytest.raises(UsageError, match="spectrum: no pictures"):
        power_spectrum([])
    with pytest.raises(ShapeError, match=r"square pictures of one size, got \(1, 3, 8, 9\)"):
        power_spectrum([torch.zeros(1, 3, 8, 9)])
    with pytest.raises(ShapeError, match=r"square pictures of one size, got \(1, 3, 10, 10\)"):
        power_spectrum([torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 10, 10)])


@pytest.mark.parametrize(("std", "t"), [(0.4, 40), (1.0, 120), (1.5, 250)])
def test_the_closed_form_is_what_noised_pictures_show(std: float, t: int) -> None:
    """Pictures of a known spectrum, blurred and noised in numpy; 240 of them, each sharp and blurred."""
    side = 40
    draw = np.random.Generator(np.random.PCG64(1))
    line = np.fft.fftfreq(side)
    frequency = np.hypot(line[:, None], line[None, :])
    power = 40 / (1 + (frequency * side) ** 2) + 0.02
    transfer = np.exp(-0.5 * (2 * np.pi * std * frequency) ** 2)
    abar = float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: t + 1]))
    white = np.fft.fft2(draw.standard_normal((240, side, side)), norm="ortho") * np.sqrt(power)
    noise = draw.standard_normal((240, side, side))

    def spectrum_at_t(waves: np.ndarray) -> Tensor:
        images = math.sqrt(abar) * np.fft.ifft2(waves, norm="ortho").real + math.sqrt(1 - abar) * noise
        return power_spectrum([torch.from_numpy(images).view(80, 3, side, side)])

    measured = spectrum_at_t(white).log() - spectrum_at_t(white * transfer).log()
    clean = np.fft.ifft2(np.sqrt(power), norm="ortho").real  # one picture with exactly that spectrum
    known = power_spectrum([torch.from_numpy(clean).expand(1, 3, -1, -1)])
    closed = differences(known, std, torch.tensor([abar], dtype=torch.float64))[0]
    assert closed.max() > 0.1
    np.testing.assert_allclose(measured.numpy(), closed.numpy(), atol=0.1 * float(closed.max()))


def test_a_flat_spectrum_starts_where_the_noise_is_as_strong_as_it_has_to_be() -> None:
    """A blur that leaves nothing but the mean: log(1 + abar p / (1 - abar)) <= tol, solved for abar."""
    side, power, tol = 512, 0.3, 0.01
    table = table_of(
        torch.full((side // 2 + 1,), power, dtype=torch.float64), StartStepsSettings(size=side, tol=tol), pictures=1
    )
    ratio = (math.exp(tol) - 1) / power
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    expected = int(np.argmax(abar <= ratio / (1 + ratio)))
    assert table.steps[-1] == expected


def face_table(**changes: object) -> StartSteps:
    faces = smooth_pictures((6, 64, 64), seed=5)
    grain = 0.02 * pictures(6, 64, 64)
    settings = StartStepsSettings.model_validate({"size": 64, "tol": 1e-2, **changes})
    return build_start_steps(((faces * 0.9 + grain) * 255).round().byte(), settings)


def test_more_blur_starts_later_and_each_step_is_the_first_within_tol() -> None:
    table = face_table()
    assert len(table.stds) == len(table.steps) == 150
    assert table.steps == sorted(table.steps)
    assert table.steps[0] < table.steps[-1]
    spectrum = np.array(table.spectrum)
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    frequency = np.arange(33) / 64
    for i in (10, 60, 149):
        gain = np.exp(-((2 * np.pi * table.stds[i] * frequency) ** 2))
        shares = []
        for t in (table.steps[i] - 1, table.steps[i]):
            sharp, blurred = (abar[t] * spectrum * kept + 1 - abar[t] for kept in (1, gain))
            shares.append(float((np.log(sharp) - np.log(blurred) <= table.tol).mean()))
        assert shares[0] < 0.95 <= shares[1]


def test_each_setting_of_the_table_turns() -> None:
    base = face_table(tol=0.05)
    assert face_table(tol=0.1).steps[-1] < base.steps[-1]
    assert face_table(tol=0.05, share=0.5).steps[-1] < base.steps[-1]
    assert face_table(tol=0.05, statistic="largest").steps[-1] > base.steps[-1]
    assert face_table(tol=0.05, statistic="mean").steps != base.steps
    with pytest.raises(UsageError, match=r"start steps: a blur of .* pixels is not within tol 1e-09 .*raise tol"):
        face_table(tol=1e-9)
    with pytest.raises(ShapeError, match=r"start steps: expected \(N, 3, 8, 8\), got \(2, 3, 9, 8\)"):
        build_start_steps(torch.zeros(2, 3, 9, 8, dtype=torch.uint8), StartStepsSettings(size=8))


def test_the_table_is_of_pictures_in_the_samplers_range(gen: torch.Generator) -> None:
    """Twice the amplitude of [0, 1], so four times the power at radius 1 and more."""
    stored = torch.randint(0, 256, (2, 3, 16, 16), generator=gen, dtype=torch.uint8)
    table = build_start_steps(stored, StartStepsSettings(size=16, tol=0.5))
    unit = power_spectrum([stored.float() / 255])
    np.testing.assert_allclose(table.spectrum[1:], 4 * unit[1:].numpy(), rtol=1e-5)


def small_table(**changes: object) -> dict[str, object]:
    known = {"size": 8, "statistic": "share", "share": 0.95, "tol": 1e-3, "pictures": 1, "spectrum": [1.0]}
    return {**known, "stds": [1.0, 2.0, 4.0], "steps": [100, 200, 260], **changes}


def test_between_two_levels_the_start_step_is_between_theirs(tmp_path: Path) -> None:
    table = StartSteps.model_validate(small_table())
    found = [table.start_t(std) for std in (0.0, 1.0, 1.25, 2.0, 3.0, 3.5, 4.0, 99.0)]
    assert found == [100, 100, 125, 200, 230, 245, 260, 260]
    table.save(tmp_path / "t.json")
    assert load_start_steps_file(tmp_path / "t.json") == table
    assert {"statistic", "tol", "spectrum"} <= set(json.loads((tmp_path / "t.json").read_text()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": [1]}, "expected ascending stds with a step each, got 3 and 1"),
        ({"stds": [1.0, 1.0, 2.0]}, "expected ascending stds"),
        ({"steps": [1, 2, 2000]}, r"steps\.2: .*less than or equal to 1000"),
        ({"kind": "targets"}, "kind: "),
    ],
)
def test_a_file_that_is_no_table_is_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(small_table(**changes)))
    with pytest.raises(WeightsError, match=rf"t\.json: not a start-step table \(.*{words}.*adapt pretrain"):
        load_start_steps_file(tmp_path / "t.json")
    with pytest.raises(WeightsError, match=r"none\.json: cannot be read \(No such file"):
        load_start_steps_file(tmp_path / "none.json")


# ---------------------------------------------------------------- training


def uint8_faces(count: int = 5) -> Tensor:
    return (smooth_pictures((count, SIZE, SIZE), seed=6) * 255).round().byte()


def restorer() -> Restorer:
    return Restorer("r", "swinir", SMALL_SWINIR, lively_swinir())


def trained(
    folder: Path, settings: BlurEstimatorSettings = TRAINING, max_steps: int | None = None
) -> dict[str, Tensor]:
    with Run(folder, recipe="", digest="x") as run:
        layout, state = train_blur_estimator(settings, uint8_faces(), run, restorer=restorer(), max_steps=max_steps)
    assert layout.transfer == SMALL_SWINIR
    return state


def test_stop_and_resume_is_exact(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    parts: dict[str, Tensor] = {}
    for _ in range(4):
        parts = trained(tmp_path / "parts", max_steps=1)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    for name in ("log.jsonl", "labels.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "parts" / name).read_text()


def test_the_transfer_model_begins_as_the_restorer_and_rests_in_the_first_stage(tmp_path: Path) -> None:
    first = trained(tmp_path / "run", max_steps=2)
    begun = untrained(TRAINING, restorer()).state_dict()
    theirs = lively_swinir().state_dict()
    transfer = {key.removeprefix("transfer.") for key in first if key.startswith("transfer.")}
    assert transfer == {name for name, _ in lively_swinir().named_parameters()}
    assert all(torch.equal(first[f"transfer.{key}"], theirs[key]) for key in transfer)
    assert not torch.equal(first["deviation.head.3.weight"], begun["deviation.head.3.weight"])
    second = trained(tmp_path / "run", max_steps=2)
    assert not torch.equal(second["transfer.conv_last.weight"], first["transfer.conv_last.weight"])


def test_the_first_stage_learns_the_std(tmp_path: Path) -> None:
    """Blurs of one grain: the error falls from that of always saying the middle, a quarter of the range."""
    settings = TRAINING.model_copy(update={"steps": 30, "first_stage": 30, "batch": 8, "learning_rate": 2e-2})
    grain = (pictures(1, SIZE, SIZE) * 255).byte()
    seen: list[float] = []
    with Run(tmp_path, recipe="", digest="x") as run:
        train_blur_estimator(
            settings, grain, run, restorer=restorer(), on_step=lambda _i, _n, parts: seen.append(parts["std"])
        )
    assert np.mean(seen[:4]) == pytest.approx(15 / 4, abs=1.2)
    assert np.mean(seen[-5:]) < 1.5


KNOBS = {
    "xi": 0.2,
    "picture": 0.0,
    "first_stage": 1,
    "degradation": BlindSettings(isotropic=1.0, grey=0.0, noise=(0.0, 1.0)),
    "channels": [4, 8, 8],
    "seed": 1,
}


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_turns(knob: str, tmp_path: Path) -> None:
    settings = TRAINING.model_copy(update={"xi": 0.05})
    base = trained(tmp_path / "base", settings)
    turned = trained(tmp_path / "turned", settings.model_copy(update={knob: KNOBS[knob]}))
    assert any(base[key].shape != turned[key].shape or not torch.equal(base[key], turned[key]) for key in base)


def test_xi_is_the_recipes_or_the_one_that_spreads_the_labels(tmp_path: Path) -> None:
    trained(tmp_path / "open", max_steps=1)
    trained(tmp_path / "fixed", TRAINING.model_copy(update={"xi": 0.5, "survey": 5}), max_steps=1)
    chosen, fixed = (json.loads((tmp_path / name / "labels.json").read_text()) for name in ("open", "fixed"))
    assert (fixed["xi"], fixed["photos"], chosen["photos"]) == (0.5, 5, 3)
    assert sum(fixed["counts"]) == 5
    assert chosen["evenness"] > 0


def test_the_labels_that_are_written_down_are_of_as_many_faces_as_they_say() -> None:
    """docs/measurements.md, Blur labels: columns add up, evenness follows from them, and the recipe is among them."""
    settings = load_recipe("tiny/pretrain/blur-estimator", BlurEstimatorSettings)
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    section = text.split("## Blur labels\n")[1].split("\n## ")[0]
    head, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == [f"{part}.1 to {part + 1}.0" for part in range(15)]
    evenness: list[str] = []
    for column, title in list(enumerate(head))[1:4]:
        counts = tuple(int(row[column]) for row in rows[1:])
        assert sum(counts) == int(title.removesuffix(" faces"))
        evenness.append(f"{Survey(0.024, 128, counts, least=0, never=0).evenness:.3f}")
    assert f"Evenness (entropy over that of equal counts) is {evenness[0]}, {evenness[1]} and {evenness[2]}." in section
    assert f"{settings.survey} faces" in head
    assert f"All three columns are at {settings.xi}" in section


def test_a_transfer_model_copies_nothing_but_a_swinir() -> None:
    network = lively_codeformer()
    codeformer = Restorer("c", "codeformer", network.settings, network)
    with pytest.raises(UsageError, match="c: TM can only begin as a copy of a SwinIR, and this is a codeformer"):
        untrained(TRAINING, codeformer)
    own = TRAINING.model_copy(update={"transfer": SMALL_SWINIR})
    a, b = (untrained(own, codeformer).state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)


RECIPES = {
    "blur-estimator": """kind: pretrain-blur-estimator
channels: [4, 4, 8]
steps: 4
first_stage: 2
batch: 2
size: 16
learning_rate: 1.0e-3
survey: 4
""",
    "start-steps": "kind: pretrain-start-steps\nsize: 16\ntol: 0.05\n",
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_enters_both_into_a_pack(
    name: str, small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe, pack, out = tmp_path / "mine.yaml", tmp_path / "pack", tmp_path / "run"
    recipe.write_text(RECIPES[name])
    pack.mkdir()
    (pack / "pack.yaml").write_text("name: p\nsize: 16\ndescription: d\nrestorer: swinir\nnetworks: {}\n")
    command = ["pretrain", "--recipe", recipe, "--faces", small_photos, "-o", out, "--pack", small_pack]
    assert adapt(monkeypatch, *command, "--add-to", pack, "--licence", "none", "--trained", "in a test") == 0
    printed = capsys.readouterr().out
    if name == "start-steps":
        assert printed == f"Table: {out / 'start-steps.json'}\n"
        assert load_start_steps(pack) == load_start_steps(out / "start-steps.json")
        (pack / "start-steps.json").write_text("{}")
        with pytest.raises(WeightsError, match=r"start-steps\.json: not the file that .*pack\.yaml names"):
            load_start_steps(pack)
        with pytest.raises(WeightsError, match="has no 'start-steps'"):
            load_start_steps(small_pack)
        return
    assert printed == f"Weights: {out / 'weights.safetensors'}\n"
    photos = smooth_pictures((2, 16, 16), seed=8)
    from_run, from_pack = load_blur_estimator(out / "weights.safetensors"), load_blur_estimator(pack)
    torch.testing.assert_close(from_pack(photos).std, from_run(photos).std, rtol=0.02, atol=1e-3)  # half precision
    assert from_pack.size == 16
    assert read_state(out / "weights.safetensors")[1]["architecture"] == "blur-estimator"
    with pytest.raises(WeightsError, match="has no 'blur-estimator'"):
        load_blur_estimator(small_pack)
