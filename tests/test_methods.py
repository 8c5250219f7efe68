"""Target makers: what is a photo's own, from its blur level; what is fed directly; what a pack must have."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapt.blur.adjuster import GuidanceAdjuster
from adapt.blur.estimator import BlurEstimator, BlurNetwork
from adapt.blur.labels import std_limits
from adapt.blur.start_steps import StartSteps
from adapt.diffusion.prior import Prediction, Predictor, Prior
from adapt.diffusion.sampler import PhotoNoise, StepRecord
from adapt.diffusion.steps import Step
from adapt.diffusion.unet import UNet
from adapt.errors import UsageError, WeightsError
from adapt.guidance.gaussian_blur import guidance_maps
from adapt.guidance.low_frequency import factor_for, low_pass
from adapt.guidance.regions import region_stds
from adapt.pretrain.prior import initialise
from adapt.recipe import load_recipe
from adapt.settings import (
    AdjusterNetworkSettings,
    BlurNetworkSettings,
    DirectSettings,
    DoubtSettings,
    GaussianBlurSettings,
    LowFrequencySettings,
    SwinIRSettings,
    TargetSettings,
    UNetSettings,
)
from adapt.targets.direct import made_worse
from adapt.targets.doubt import doubted_std
from adapt.targets.methods import BlurParts, Made, target_maker
from adapt.tasks import generate_targets
from degradations.cosines import gaussian_blur

SIZE = 16


@pytest.fixture(scope="module")
def prior() -> Prior:
    settings = UNetSettings(
        image_size=SIZE, model_channels=32, channel_mult=[1, 2], num_res_blocks=[0, 1], attention_resolutions=[]
    )
    network = UNet(settings)
    initialise(network, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the last layer starts at zero, and then x0 follows x_t blindly
        for parameter in network.out.parameters():
            parameter.normal_(std=0.05, generator=generator)
    return Prior("small", settings, network.eval().requires_grad_(False))


def blur_parts() -> BlurParts:
    """An estimator whose std depends on the photo, a table, and an adjuster whose map is not flat."""
    swinir = SwinIRSettings(img_size=16, embed_dim=8, depths=[1], num_heads=[2], window_size=4, sf=1, num_feat=8,
                            upsampler="")
    network = BlurNetwork(BlurNetworkSettings(size=SIZE, transfer=swinir, channels=[4, 4, 4]))
    adjuster = GuidanceAdjuster(AdjusterNetworkSettings(features=4, model_channels=32))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (network, adjuster):
            for parameter in part.parameters():
                parameter.normal_(std=0.3, generator=generator)
        network.deviation.head[-1].weight.mul_(20)  # pyright: ignore[reportArgumentType, reportCallIssue]
        network.deviation.head[-1].bias.fill_(8.0)  # pyright: ignore[reportArgumentType, reportCallIssue]
    table = StartSteps(
        size=SIZE, statistic="share", share=0.95, tol=1e-3, pictures=1, spectrum=[1.0],
        stds=[0.01, 0.2, 0.47], steps=[300, 600, 900],
    )
    return BlurParts(
        estimator=BlurEstimator("small", network.eval().requires_grad_(False)), start_steps=table,
        adjuster=adjuster.eval().requires_grad_(False),
    )


PARTS = blur_parts()
ADAPTIVE = TargetSettings(
    method="adaptive", guidance=[GaussianBlurSettings(weights=[0.7, 0.3]), LowFrequencySettings(last_t=200)],
    steps=6, solver="ddim", eta=None,
)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(3, 3, SIZE, SIZE, generator=generator)
    return gaussian_blur(noise, torch.tensor([0.3, 1.0, 2.5])).clamp(0, 1)


def restored_of(photos: Tensor) -> Tensor:
    return (photos + 0.05 * photos.flip(-1)).clamp(0, 1)


def drawn(settings: TargetSettings, prior: Prior, photos: Tensor, rows: list[int], parts: BlurParts = PARTS) -> Made:
    maker = target_maker(settings, prior, parts)
    return maker.make(photos[rows], restored_of(photos)[rows], [10 + row for row in rows])


def changed(**values: object) -> TargetSettings:
    return TargetSettings.model_validate({**ADAPTIVE.model_dump(), **values})


def blurred_by(**values: object) -> TargetSettings:
    guidance = [{**ADAPTIVE.guidance[0].model_dump(), **values}, ADAPTIVE.guidance[1].model_dump()]
    return changed(guidance=guidance)


# ---------------------------------------------------------------- what is a photo's own


def test_constants_follow_the_blur(prior: Prior, photos: Tensor):
    """Start, share of the steps, N and eta of every photo, from the table and the rule, by hand."""
    made = drawn(ADAPTIVE, prior, photos, [0, 1, 2])
    assert PARTS.estimator is not None
    stds = PARTS.estimator(photos).std.tolist()
    assert len(set(stds)) == 3, "the test needs photos that differ"
    for way, std in zip(made.ways, stds, strict=True):
        assert way.std == pytest.approx(std, rel=1e-5)
        low, high = ((0.01, 300), (0.2, 600)) if std < 0.2 else ((0.2, 600), (0.47, 900))
        start = round(low[1] + (min(std, 0.47) - low[0]) / (high[0] - low[0]) * (high[1] - low[1]))
        assert (way.start_t, way.evaluations) == (start, math.ceil(6 * (start + 1) / 1000))
        assert way.factor == 2
        assert not way.direct
    assert bool(made.pictures.isfinite().all())


@pytest.mark.parametrize(("std", "side", "factor"), [(6.0, 512, 16), (3.0, 512, 8), (1.5, 128, 4), (0.1, 512, 2),
                                                     (15.0, 512, 32), (2.0, 96, 6), (300.0, 512, 512)])
def test_the_factor_is_the_least_that_keeps_what_the_blur_left(std: float, side: int, factor: int):
    """The rule by bisection: the frequency at which a Gaussian's transfer, squared, is a tenth."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.exp(-2 * (math.pi * std * middle) ** 2) ** 2 > 0.1 else (low, middle)
    assert factor_for(std, (side, side)) == factor
    assert factor == side or 1 / (2 * factor) <= low
    smaller = [each for each in range(2, factor) if side % each == 0]
    assert not smaller or 1 / (2 * smaller[-1]) > low


def test_the_low_pass_of_that_factor_hides_the_blur(gen: torch.Generator):
    """What phi_N keeps of a picture is nearly the same before and after the blur; what phi_2 keeps is not."""
    picture = torch.rand(1, 3, 96, 96, generator=gen, dtype=torch.float64)
    factor = factor_for(2.2, (96, 96))
    lost = picture - gaussian_blur(picture, torch.tensor([2.2]))
    assert float(low_pass(lost, factor).std()) < 0.35 * float(low_pass(lost, 2).std())


@pytest.mark.parametrize("knobs", [
    changed(steps=9), changed(solver="dpm++2m", eta=0.0), changed(eta=0.3), changed(start_t=500, steps=3),
    changed(solver="ddpm", eta=0.0),
    changed(guidance=[ADAPTIVE.guidance[0].model_dump(), {"name": "low_frequency", "last_t": 500}]),
    changed(guidance=[ADAPTIVE.guidance[0].model_dump(), {"name": "low_frequency", "last_t": 200, "factor": 8}]),
    changed(method="dynamic", guidance=[ADAPTIVE.guidance[0].model_dump()]),
    changed(direct=DirectSettings(max_low_frequency_change=1e-3)), changed(direct=DirectSettings(error_ratio=0.1)),
    blurred_by(weights=[1.0]), blurred_by(scale=0.05), blurred_by(std_rate=0.0), blurred_by(gradient="x0"),
    blurred_by(limit=False), blurred_by(adjuster=True), blurred_by(regions=2),
], ids=lambda each: repr({
    key: value for key, value in each.model_dump().items() if value != ADAPTIVE.model_dump()[key]
})[:60])
def test_every_knob_turns(knobs: TargetSettings, prior: Prior, photos: Tensor):
    before, after = (drawn(each, prior, photos, [1, 2]).pictures for each in (ADAPTIVE, knobs))
    assert float((before - after).abs().amax(dim=(1, 2, 3)).max()) > 1e-5


def test_a_photo_does_not_depend_on_its_batch(prior: Prior, photos: Tensor):
    together = drawn(ADAPTIVE, prior, photos, [0, 1, 2])
    for row in range(3):
        alone = drawn(ADAPTIVE, prior, photos, [row])
        assert alone.ways == together.ways[row : row + 1]
        assert float((alone.pictures[0] - together.pictures[row]).abs().max()) < 0.5 / 255
    backwards = drawn(ADAPTIVE, prior, photos, [2, 0])
    assert float((backwards.pictures[0] - together.pictures[2]).abs().max()) < 0.5 / 255


def test_a_photo_that_is_not_finite_fails_alone(prior: Prior, photos: Tensor):
    restored = restored_of(photos)
    restored[1, 0, 3, 3] = math.nan
    made = target_maker(ADAPTIVE, prior, PARTS).make(photos, restored, [10, 11, 12])
    assert [bool(each.isfinite().all()) for each in made.pictures] == [True, False, True]


def test_maps_and_stds_can_be_seen(prior: Prior, photos: Tensor):
    records: list[StepRecord] = []
    maker = target_maker(blurred_by(adjuster=True), prior, PARTS)
    maker.make(photos, restored_of(photos), [1, 2, 3], records.append)
    assert {record.walk for record in records} == {0, 1, 2}
    assert all(guidance_maps(record.memory)[0].shape == (1, 3, SIZE, SIZE) for record in records)


# ---------------------------------------------------------------- regions


def test_one_region_is_the_whole_and_many_average_to_it(photos: Tensor):
    estimator = PARTS.estimator
    assert estimator is not None
    torch.testing.assert_close(region_stds(estimator, photos, 1)[:, 0], estimator(photos).std)
    assert region_stds(estimator, photos, 3).shape == (3, 9)
    half = torch.cat([photos[:1, :, :, :8], photos[2:, :, :, 8:]], dim=3)
    stds = region_stds(estimator, half, 2).view(2, 2)
    assert not torch.allclose(stds[:, 0], stds[:, 1])


# ---------------------------------------------------------------- fed directly


def test_a_restorer_that_leaves_the_photo_is_passed_over(prior: Prior, photos: Tensor):
    limits = DirectSettings(max_low_frequency_change=0.08, error_ratio=1e6)
    darker = photos * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1, 1)
    std = torch.tensor([0.1, 0.1, 0.1])
    assert made_worse(prior, photos, darker, std, [1, 2, 3], settings=limits).tolist() == [False, True, False]
    made = target_maker(changed(direct=limits), prior, PARTS).make(photos, darker, [1, 2, 3])
    assert [way.direct for way in made.ways] == [False, True, False]
    assert torch.equal(made.towards[1], photos[1])
    assert torch.equal(made.towards[0], darker[0])


def test_a_restored_photo_that_the_prior_does_not_know_is_passed_over(photos: Tensor):
    class Smooth(Predictor):
        """Knows smooth pictures only."""

        def predict(self, x: Tensor, step: Step) -> Prediction:
            return Prediction(gaussian_blur(x / step.abar**0.5, torch.full((len(x),), 1.5)), torch.zeros_like(x))

    flat = torch.full((2, 3, 32, 32), 0.5)
    checks = (torch.arange(32)[:, None] // 2 + torch.arange(32)[None] // 2) % 2 * 0.6 - 0.3
    restored = torch.stack([flat[0], flat[1] + checks])
    limits = DirectSettings(max_low_frequency_change=1.0, error_ratio=1.5)
    assert made_worse(Smooth(), flat, restored, torch.tensor([0.3, 0.3]), [1, 2], settings=limits).tolist() == [
        False, True,
    ]


# ---------------------------------------------------------------- doubted


class KnowsSmooth(Predictor):
    """Gives smooth pictures back, noise-free, and of others their smooth part: as blurred as `std` says."""

    def __init__(self, std: float) -> None:
        self.std = std

    def predict(self, x: Tensor, step: Step) -> Prediction:
        noise = PhotoNoise([7], (3, 32, 32))()
        clean = (x - (1 - step.abar) ** 0.5 * noise) / step.abar**0.5
        return Prediction(gaussian_blur(clean, torch.full((len(x),), self.std)), torch.zeros_like(x))


def test_doubt_is_a_line_through_what_the_prior_changes():
    """Of a cosine of 7.75 pixels all is known: a blur of std s leaves exp(-2 (pi s / 7.75)^2) of it."""
    wave = (2 * math.pi / 7.75 * torch.arange(32.0)).cos().expand(1, 3, 32, 32)
    settings = DoubtSettings(blur_std=32.0, floor=0.001, slope=160.0)  # 2 and 10 pixels of these 32
    kept = [math.exp(-2 * (math.pi * std / 7.75) ** 2) for std in (1.5, 2.0)]
    change = 0.3 * float(wave.abs().mean()) * (1 - kept[0]) * kept[1]
    asked = doubted_std(KnowsSmooth(1.5), 0.5 + 0.3 * wave, [7], settings=settings)
    torch.testing.assert_close(asked, torch.tensor([10 * (change - 0.001)], dtype=torch.float64), rtol=1e-3, atol=0)
    assert doubted_std(KnowsSmooth(1.5), torch.full((1, 3, 32, 32), 0.4), [7], settings=settings).item() == 0


def test_a_doubted_photo_is_taken_for_blurrier_and_its_neighbour_is_not(prior: Prior, photos: Tensor):
    certain = changed(doubt={"floor": 1.0, "slope": 1.0}, direct=None)
    doubtful = changed(doubt={"floor": 0.0, "slope": 1e6}, direct=None)
    plain = target_maker(changed(doubt=None, direct=None), prior, PARTS).make(photos, photos, [1, 2, 3])
    same = target_maker(certain, prior, PARTS).make(photos, photos, [1, 2, 3])
    wider = target_maker(doubtful, prior, PARTS).make(photos, photos, [1, 2, 3])
    assert [way.std for way in same.ways] == [way.std for way in plain.ways]
    assert torch.equal(same.pictures, plain.pictures)
    assert [way.std for way in wider.ways] == [pytest.approx(std_limits(SIZE)[1])] * 3
    assert all(after.start_t >= before.start_t for after, before in zip(wider.ways, plain.ways, strict=True))
    left = photos * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1, 1)
    fed = changed(doubt={"floor": 0.0, "slope": 1e6}, direct=DirectSettings(error_ratio=1e6))
    made = target_maker(fed, prior, PARTS).make(photos, left, [1, 2, 3])
    assert made.ways[1].direct
    assert made.ways[1].std == plain.ways[1].std, "a photo that is fed directly is not doubted"


# ---------------------------------------------------------------- recipes and refusals


@pytest.mark.parametrize("name", ["dynamic", "adaptive"])
@pytest.mark.parametrize("pack", [None, "tiny"])
def test_the_recipes_that_ship_are_read(name: str, pack: str | None):
    settings = load_recipe(name, TargetSettings, pack=pack)
    assert settings.method == name
    assert settings.needs_blur
    assert settings.needs_adjuster


def test_a_pack_without_the_parts_is_told_what_makes_them(small_photos: Path, small_pack: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match=(
        r"method adaptive: needs a blur estimator and a start-step table and a guidance adjuster, .*"
        r"--recipe blur-estimator and adapt pretrain --recipe start-steps and adapt pretrain --recipe guidance-adjuster"
    )):
        generate_targets(small_photos, tmp_path / "out", method="adaptive", pack=str(small_pack), device="cpu")
    assert not (tmp_path / "out").exists()


def test_refusals(prior: Prior):
    missing = r"needs a start-step table, .* --recipe start-steps, or take the method low-frequency"
    with pytest.raises(WeightsError, match=missing):
        target_maker(ADAPTIVE, prior, BlurParts(estimator=PARTS.estimator))
    with pytest.raises(UsageError, match=r"dt-bfr: .* got no start_t"):
        target_maker(changed(compat="dt-bfr", solver="ddpm", eta=0.0), prior, PARTS)
    with pytest.raises(UsageError, match=r"eta: belongs to ddim and changes nothing with ddpm"):
        target_maker(changed(solver="ddpm"), prior, PARTS)
    for method, names, expected in (
        ("dynamic", ["low_frequency"], r"method dynamic has one gaussian_blur and nothing else; got low_frequency"),
        ("adaptive", ["gaussian_blur"], r"method adaptive has one gaussian_blur, and low_frequency; got gaussian_blur"),
        ("low-frequency", ["gaussian_blur"], r"method low-frequency has no gaussian_blur; got gaussian_blur"),
    ):
        guidance = [{"name": name, **({"last_t": 1} if name == "low_frequency" else {})} for name in names]
        with pytest.raises(ValueError, match=expected):
            changed(method=method, guidance=guidance)
    wrong = Prior("large", prior.settings.model_copy(update={"image_size": 32}), prior.network)
    with pytest.raises(UsageError, match=r"blur estimator: made for pictures of 16 pixels, the prior is for 32"):
        target_maker(ADAPTIVE, wrong, PARTS)
