"""Target makers: what is a photo's own, from its blur level; what is fed directly; what a pack must have."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from knobs import differing, settings_of
from networks import SMALL, lively_blur_parts, lively_prior
from PIL import Image
from torch import Tensor

from adapt.blur.estimator import Estimate
from adapt.blur.labels import std_limits
from adapt.blur.parts import BlurParts
from adapt.commands.generate_targets import generate_targets
from adapt.commands.map_sheet import write_maps
from adapt.diffusion.prior import Prediction, Predictor, Prior
from adapt.diffusion.sampler import PhotoNoise, StepRecord
from adapt.diffusion.steps import Step
from adapt.digests import seed_again
from adapt.errors import UsageError, WeightsError
from adapt.guidance.low_frequency import factor_for, low_pass
from adapt.guidance.maps import SHOWN_STEPS, MapSnapshot, MapWatch, guidance_maps, map_image, shown_steps
from adapt.guidance.regions import region_stds
from adapt.images import to_uint8, to_unit
from adapt.settings import (
    FallbackSettings,
    GaussianBlurSettings,
    IdentitySettings,
    LowFrequencySettings,
    PhotoShareSettings,
    ReliabilitySettings,
    RestraintSettings,
    TargetSettings,
)
from adapt.settings.recipe import load_recipe
from adapt.targets.fallback import needs_fallback
from adapt.targets.methods import TargetBatch, target_maker
from adapt.targets.photo_share import Shown, keep_photo, photo_share, shown
from adapt.targets.prior_score import PriorScore, score_by_prior
from adapt.targets.reliability import LEAST, unreliable_std
from adapt.targets.restored import restored_for
from adapt.targets.terms import TERMS
from degradations.cosines import gaussian_blur

SIZE = SMALL


@pytest.fixture(scope="module")
def prior() -> Prior:
    return lively_prior()


PARTS = lively_blur_parts()
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


def drawn(
    settings: TargetSettings, prior: Prior, photos: Tensor, rows: list[int], parts: BlurParts = PARTS
) -> TargetBatch:
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
    for info, std in zip(made.infos, stds, strict=True):
        assert info.std == pytest.approx(std, rel=1e-5)
        low, high = ((0.01, 300), (0.2, 600)) if std < 0.2 else ((0.2, 600), (0.47, 900))
        start = round(low[1] + (min(std, 0.47) - low[0]) / (high[0] - low[0]) * (high[1] - low[1]))
        assert (info.start_t, info.evaluations) == (start, math.ceil(6 * (start + 1) / 1000))
        assert info.factor == 2
        assert not info.fallback
    assert bool(made.images.isfinite().all())


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
    """What phi_N keeps of an image is nearly the same before and after the blur; what phi_2 keeps is not."""
    image = torch.rand(1, 3, 96, 96, generator=gen, dtype=torch.float64)
    factor = factor_for(2.2, (96, 96))
    lost = image - gaussian_blur(image, torch.tensor([2.2]))
    assert float(low_pass(lost, factor).std()) < 0.35 * float(low_pass(lost, 2).std())


ALWAYS = PhotoShareSettings(most=0.5, lightness=(98, 99), colour=(98, 99))

KNOBS = [
    changed(steps=9), changed(solver="dpm++2m", eta=0.0), changed(eta=0.3), changed(start_t=500, steps=3),
    changed(solver="ddpm", eta=0.0),
    changed(guidance=[ADAPTIVE.guidance[0].model_dump(), {"name": "low_frequency", "last_t": 500}]),
    changed(guidance=[ADAPTIVE.guidance[0].model_dump(), {"name": "low_frequency", "last_t": 200, "acts_on": "x0"}]),
    changed(guidance=[ADAPTIVE.guidance[0].model_dump(), {"name": "low_frequency", "last_t": 200, "factor": 8}]),
    changed(guidance=[ADAPTIVE.guidance[0].model_dump()]), changed(end_t=300),
    changed(fallback=FallbackSettings(max_low_frequency_change=1e-3)),
    changed(fallback=FallbackSettings(change_ratio=1e3)),
    blurred_by(weights=[1.0]), blurred_by(scale=0.05), blurred_by(std_rate=0.0), blurred_by(gradient="x0"),
    blurred_by(limit=False), blurred_by(adjuster=True), blurred_by(regions=2),
    changed(reliability=ReliabilitySettings(floor=0.0, slope=100.0)),
    changed(photo_share=ALWAYS),
    changed(restraint=RestraintSettings(ratio=[99], latest_t=[200])), changed(mean_of=2),
]


def test_every_setting_is_turned_below():
    """But for what lies around the drawing: seeds, light, batches, repetitions, gate; test_targets.py has those. Which
    prior and restorer, test_identity_training.py turns. The method is what the reader calls it."""
    others = {"kind", "method", "seed", "batch", "draws", "gate", "compat", "match_mean_luminance", "mirrored",
              "light_by_noise", "prior", "restorer"}
    assert differing(ADAPTIVE, KNOBS) == set(TargetSettings.model_fields) - others
    blurs, lows = ([term for each in KNOBS for term in each.guidance[place : place + 1]] for place in (0, 1))
    assert differing(ADAPTIVE.guidance[0], blurs) == settings_of(GaussianBlurSettings, "name")
    assert differing(ADAPTIVE.guidance[1], lows) == settings_of(LowFrequencySettings, "name")
    assert differing(FallbackSettings(), [each.fallback for each in KNOBS if each.fallback]) == settings_of(
        FallbackSettings
    )


@pytest.mark.parametrize("knobs", KNOBS, ids=lambda each: repr({
    key: value for key, value in each.model_dump().items() if value != ADAPTIVE.model_dump()[key]
})[:60])
def test_every_knob_turns(knobs: TargetSettings, prior: Prior, photos: Tensor):
    before, after = (drawn(each, prior, photos, [1, 2]).images for each in (ADAPTIVE, knobs))
    assert float((before - after).abs().amax(dim=(1, 2, 3)).max()) > 1e-5


def test_a_photo_does_not_depend_on_its_batch(prior: Prior, photos: Tensor):
    together = drawn(ADAPTIVE, prior, photos, [0, 1, 2])
    for row in range(3):
        alone = drawn(ADAPTIVE, prior, photos, [row])
        assert alone.infos == together.infos[row : row + 1]
        assert float((alone.images[0] - together.images[row]).abs().max()) < 0.5 / 255
    backwards = drawn(ADAPTIVE, prior, photos, [2, 0])
    assert float((backwards.images[0] - together.images[2]).abs().max()) < 0.5 / 255


def test_a_photo_that_is_not_finite_fails_alone(prior: Prior, photos: Tensor):
    restored = restored_of(photos)
    restored[1, 0, 3, 3] = math.nan
    made = target_maker(ADAPTIVE, prior, PARTS).make(photos, restored, [10, 11, 12])
    assert [bool(each.isfinite().all()) for each in made.images] == [True, False, True]


def test_maps_and_stds_can_be_seen(prior: Prior, photos: Tensor):
    records: list[StepRecord] = []
    maker = target_maker(blurred_by(adjuster=True), prior, PARTS)
    made = maker.make(photos, restored_of(photos), [1, 2, 3], on_step=records.append)
    assert {record.trajectory for record in records} == {0, 1, 2}
    assert all(guidance_maps(record.memory)[0].shape == (1, 3, SIZE, SIZE) for record in records)
    for trajectory, info in enumerate(made.infos):
        assert [r.left for r in records if r.trajectory == trajectory] == list(range(info.evaluations))[::-1]


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 6, 11, 250])
def test_the_steps_that_are_shown_are_spread_over_the_way(steps: int):
    shown = sorted(shown_steps(steps))
    assert len(shown) == min(SHOWN_STEPS, steps)
    assert (shown[0], shown[-1]) == (0, steps - 1)
    gaps = np.diff(shown)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_a_watch_keeps_what_is_shown_of_each_photo(prior: Prior, photos: Tensor):
    watch = MapWatch(3)
    records: list[StepRecord] = []

    def both(record: StepRecord) -> None:
        watch(record)
        records.append(record)

    estimator, table = PARTS.estimator, PARTS.start_steps
    assert estimator is not None
    assert table is not None
    levels = sorted(estimator(photos).std.double().tolist())
    parts = replace(PARTS, start_steps=table.model_copy(update={"stds": levels[::2], "steps": [200, 900]}))
    settings = TargetSettings.model_validate({**blurred_by(adjuster=True).model_dump(), "steps": 14})
    made = target_maker(settings, prior, parts).make(photos, restored_of(photos), [1, 2, 3], on_step=both)
    lengths = [info.evaluations for info in made.infos]
    assert len(set(lengths)) > 1, "the test needs infos of different lengths"
    assert max(lengths) > SHOWN_STEPS
    for trajectory, (seen, length) in enumerate(zip(watch.seen, lengths, strict=True)):
        steps = [record for record in records if record.trajectory == trajectory]
        kept = [steps[index] for index in sorted(shown_steps(length))]
        assert [each.t for each in seen] == [record.step.t for record in kept]
        for each, record in zip(seen, kept, strict=True):
            assert torch.equal(each.clean, to_unit(record.x0)[0])
            assert torch.equal(each.scale, map_image(guidance_maps(record.memory)[0])[0])
    target_maker(ADAPTIVE, prior, PARTS).make(photos, restored_of(photos), [1, 2, 3], on_step=(none := MapWatch(3)))
    assert none.seen == [[], [], []], "no adjuster, no maps"


def test_a_map_lies_under_its_clean_image(tmp_path: Path, gen: torch.Generator):
    faces = {name: [MapSnapshot(t, *torch.rand(2, 3, 6, 40, generator=gen)) for t in (700, 20)] for name in ("a", "b")}
    write_maps(tmp_path / "maps.png", faces)
    sheet = np.asarray(Image.open(tmp_path / "maps.png")).astype(int)
    images = [getattr(each, row) for seen in faces.values() for row in ("clean", "scale") for each in seen]
    places = [find(sheet, to_uint8(image).astype(int)) for image in images]
    assert places == sorted(places), "row by row, and in each from the first timestep to the last"
    with pytest.raises(UsageError, match=r"same timesteps, got \[\[700, 20\], \[20\]\]"):
        write_maps(tmp_path / "other.png", {"a": faces["a"], "b": faces["b"][1:]})
    with pytest.raises(UsageError, match="got none"):
        write_maps(tmp_path / "other.png", {})


def find(sheet: np.ndarray, image: np.ndarray) -> tuple[int, int]:
    """Row and column at which an image lies in a sheet."""
    height, width = image.shape[:2]
    starts = np.argwhere((sheet == image[0, 0]).all(axis=2))
    (place,) = [(y, x) for y, x in starts.tolist() if np.array_equal(sheet[y : y + height, x : x + width], image)]
    return place


# ---------------------------------------------------------------- regions


def test_one_region_is_the_whole_and_many_average_to_it(photos: Tensor):
    estimator = PARTS.estimator
    assert estimator is not None
    torch.testing.assert_close(region_stds(estimator, photos, 1)[:, 0], estimator(photos).std)
    assert region_stds(estimator, photos, 3).shape == (3, 9)
    half = torch.cat([photos[:1, :, :, :8], photos[2:, :, :, 8:]], dim=3)
    stds = region_stds(estimator, half, 2).view(2, 2)
    assert not torch.allclose(stds[:, 0], stds[:, 1])


# ---------------------------------------------------------------- the prior's prior_score: fed directly, doubted


class KnowsSmooth(Predictor):
    """Gives the smooth part of an image back, as blurred as `std` says, and none of its noise."""

    def __init__(self, std: float) -> None:
        self.std = std

    def predict(self, x: Tensor, step: Step) -> Prediction:
        noise = PhotoNoise([7], (3, 32, 32))()
        clean = (x - (1 - step.abar) ** 0.5 * noise) / step.abar**0.5
        return Prediction(gaussian_blur(clean, torch.full((len(x),), self.std)), torch.zeros_like(x))


def waves(*waves_per_side: int) -> Tensor:
    """Cosines across images of 32 px, each with so many waves in 62 px: (B, 3, 32, 32), of amplitude 0.3."""
    places = torch.arange(32.0)
    rows = [0.5 + 0.3 * (2 * math.pi * each / 62 * places).cos() for each in waves_per_side]
    return torch.stack(rows)[:, None, None].expand(-1, 3, 32, 32)


def left_of(number: int, std: float) -> float:
    """What a Gaussian leaves of such a cosine: exp(-2 (pi std f)^2)."""
    return math.exp(-2 * (math.pi * std * number / 62) ** 2)


def test_an_opinion_in_closed_form():
    """COARSE is 0.625 and FINE 0.25 pixels of these 32."""
    numbers = (8, 20)
    prior_score = score_by_prior(KnowsSmooth(1.5), waves(*numbers), [7, 7])
    for index, number in enumerate(numbers):
        wave = waves(number)[0] - 0.5
        change = float(wave.abs().mean()) * (1 - left_of(number, 1.5)) * left_of(number, 0.625)
        detail = float(wave.std()) * left_of(number, 1.5) * (1 - left_of(number, 0.25))
        assert float(prior_score.change[index]) == pytest.approx(change, rel=1e-3)
        assert float(prior_score.detail[index]) == pytest.approx(detail, rel=1e-2, abs=1e-6)
    alone = score_by_prior(KnowsSmooth(1.5), waves(20), [7])
    assert torch.equal(alone.change, prior_score.change[1:])
    assert torch.equal(alone.detail, prior_score.detail[1:])


def prior_score(change: list[float], detail: list[float]) -> PriorScore:
    return PriorScore(torch.tensor(change).double(), torch.tensor(detail).double())


def test_what_is_fed_directly(photos: Tensor):
    """A restored photo that left its photo; and one that is no better. Neither where detail came or a change went."""
    darker = photos * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1, 1)
    limits = FallbackSettings(max_low_frequency_change=0.08, change_ratio=1.1)
    shown = {"photo_score": prior_score([0.3] * 3, [0.1] * 3), "restored_score": prior_score([0.1] * 3, [0.1] * 3)}
    assert needs_fallback(photos, darker, **shown, settings=limits).tolist() == [False, True, False]
    shown["photo_score"] = prior_score([0.105, 0.115, 0.105], [0.1, 0.1, 0.09])
    assert needs_fallback(photos, photos, **shown, settings=limits).tolist() == [True, False, False]


def test_what_is_fed_directly_is_what_is_sampled_towards(prior: Prior, photos: Tensor):
    darker = photos * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1, 1)
    limits = FallbackSettings(max_low_frequency_change=0.08, change_ratio=1e-6)
    made = target_maker(changed(fallback=limits), prior, PARTS).make(photos, darker, [1, 2, 3])
    assert [info.fallback for info in made.infos] == [False, True, False]
    assert torch.equal(made.towards[1], photos[1])
    assert torch.equal(made.towards[0], darker[0])


def test_doubt_is_a_line_from_its_floor():
    line = ReliabilitySettings(floor=0.02, slope=800.0)
    asked = unreliable_std(torch.tensor([0.0, 0.02, 0.03, 9.0]), 256, settings=line)
    torch.testing.assert_close(asked, torch.tensor([0.0, 0.0, 4.0, 7.5], dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_a_doubted_photo_is_taken_for_blurrier(prior: Prior, photos: Tensor):
    def stds(doubt: dict[str, float] | None, restored: Tensor = photos) -> list[float | None]:
        fallback = FallbackSettings(max_low_frequency_change=0.08, change_ratio=1e-6)
        settings = changed(reliability=doubt, fallback=fallback)
        return [info.std for info in target_maker(settings, prior, PARTS).make(photos, restored, [1, 2, 3]).infos]

    plain, highest = stds(None), pytest.approx(std_limits(SIZE)[1])
    assert stds({"floor": 1.0, "slope": 1.0}) == plain
    assert stds({"floor": 0.0, "slope": 1e6}) == [highest] * 3
    darker = photos * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1, 1)
    fed = stds({"floor": 1.0, "slope": 1.0}, darker)
    assert fed[0] == plain[0]
    assert fed[1] == pytest.approx(LEAST * SIZE / 512), "the estimator speaks of the restored photo, which is not fed"


# ---------------------------------------------------------------- no later than asked


def test_the_latest_start_narrows_blur_guidance_and_steps(prior: Prior, photos: Tensor):
    """Each photo's own; where it would start earlier anyway nothing changes."""
    maker = target_maker(ADAPTIVE, prior, PARTS)
    free = maker.make(photos, restored_of(photos), [10, 11, 12])
    assert PARTS.start_steps is not None
    low = min(info.start_t for info in free.infos) - 50
    held = maker.make(photos, restored_of(photos), [10, 11, 12], latest=[None, low, 999])
    assert held.infos[0] == free.infos[0]
    assert held.infos[2] == free.infos[2]
    assert torch.equal(held.images[[0, 2]], free.images[[0, 2]])
    info = held.infos[1]
    assert info.start_t == pytest.approx(low, abs=1)
    assert info.std == pytest.approx(PARTS.start_steps.std_for(low))
    assert info.evaluations == math.ceil(6 * (info.start_t + 1) / 1000)


def test_the_latest_start_of_a_recipe_with_one_start(prior: Prior, photos: Tensor):
    """Its steps are as long as those of the others, which share a trajectory no more."""
    settings = TargetSettings(guidance=[LowFrequencySettings(factor=2, last_t=100)], start_t=600, steps=6, end_t=20)
    maker = target_maker(settings, prior)
    free = maker.make(photos, restored_of(photos), [1, 2, 3])
    held = maker.make(photos, restored_of(photos), [1, 2, 3], latest=[None, 300, 700])
    assert [(info.start_t, info.evaluations) for info in held.infos] == [(600, 6), (300, 3), (600, 6)]
    torch.testing.assert_close(held.images[[0, 2]], free.images[[0, 2]], rtol=0, atol=1e-5)


# ---------------------------------------------------------------- as little as the damage asks


def test_the_share_of_a_photo_falls_along_two_lines():
    lines = PhotoShareSettings(most=0.6, lightness=(0.5, 1.5), colour=(1.0, 3.0))

    def share(lightness: float, colour: float) -> float:
        return photo_share(Shown(lightness, colour, torch.zeros(3, 1)), lines)

    found = [share(*pair) for pair in ((0.1, 0.2), (0.5, 1.0), (1.0, 0.0), (0.0, 2.0), (1.0, 2.0), (1.5, 0), (0, 9))]
    assert found == pytest.approx([0.6, 0.6, 0.3, 0.3, 0.15, 0, 0])


def test_what_the_photo_shows_is_known_from_noise_and_blur(gen: torch.Generator):
    """A photo that a filter explains is shown whole, where it is blurred less, where it is noise not at all."""
    restored = gaussian_blur(torch.rand(1, 3, 128, 128, generator=gen), torch.tensor([0.7]))
    clear = shown(restored, 0.2 + 0.7 * restored)
    assert max(clear.lightness, clear.colour) < 1e-4
    assert float(clear.weights[:, 0].max()) == 0, "light and tint are the restored one's"
    assert float(clear.weights[:, 1:].median()) == pytest.approx(0.7**4, abs=0.02), "by what is left of power, squared"
    blurred = shown(restored, gaussian_blur(restored, torch.tensor([2.0])))
    assert float(blurred.weights[:, 1].mean()) > 0.7
    assert float(blurred.weights[:, 12:].max()) < 0.05
    noise = 0.1 * torch.randn(1, 3, 128, 128, generator=gen)
    grainy = shown(restored, restored + noise.mean(1, keepdim=True))
    coloured = shown(restored, restored + noise - noise.mean(1, keepdim=True))
    assert grainy.lightness > 100 * max(coloured.lightness, clear.lightness)
    assert coloured.colour > 100 * max(grainy.colour, clear.colour)
    assert float(coloured.weights[1:, 16:].max()) < 0.4 < float(grainy.weights[1:, 16:].min())


def test_what_is_kept_of_a_photo_is_its_share(gen: torch.Generator):
    base = waves(8)[:1]
    photo = 0.5 + 0.8 * (base - 0.5)
    ones = torch.ones(3, 64, dtype=torch.float64)
    assert torch.equal(keep_photo(base, photo, 0.0, ones), base)
    torch.testing.assert_close(keep_photo(base, photo, 0.5, ones), (base + photo) / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(keep_photo(base, photo, 0.5, 0 * ones), base, rtol=0, atol=1e-5)


def test_little_damage_is_kept_from_the_sampler(prior: Prior, photos: Tensor):
    """By each photo's own ratio: what is restored, with what the photo shows in it, is the target as it is."""
    restored = restored_of(photos)
    plain = target_maker(changed(restraint={"ratio": [1e-9], "latest_t": [0]}), prior, PARTS)
    ratios = [info.change_ratio for info in plain.make(photos, restored, [1, 2, 3]).infos]
    assert all(ratio is not None for ratio in ratios)
    low, middle, high = sorted(ratio or 0 for ratio in ratios)
    limit = (low + middle) / 2
    settings = changed(restraint={"ratio": [limit, (middle + high) / 2], "latest_t": [0, 350]}, photo_share=ALWAYS)
    maker = target_maker(settings, prior, PARTS)
    made = maker.make(photos, restored, [1, 2, 3])
    for row, ratio in enumerate(ratios):
        info, alone = made.infos[row], maker.make(photos[row : row + 1], restored[row : row + 1], [row + 1])
        assert alone.infos == (info,)
        assert info.change_ratio == ratio
        assert info.photo_share == pytest.approx(0.5)
        assert torch.equal(alone.towards[0], made.towards[row])
        pair = restored[row : row + 1], photos[row : row + 1]
        torch.testing.assert_close(made.towards[row : row + 1], keep_photo(*pair, 0.5, shown(*pair).weights))
        if ratio == low:
            assert (info.start_t, info.evaluations) == (0, 0)
            assert torch.equal(made.images[row], made.towards[row])
        elif ratio == middle:
            assert 0 < info.start_t <= 351
        else:
            assert info.start_t == plain.make(photos, restored, [1, 2, 3]).infos[row].start_t


def test_a_photo_fed_directly_is_drawn_all_the_same(prior: Prior, photos: Tensor):
    """The photo itself is no target: it has no share, and no restraint."""
    darker = photos * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1, 1)
    settings = changed(
        fallback=FallbackSettings(max_low_frequency_change=0.08, change_ratio=1e-6),
        restraint={"ratio": [99], "latest_t": [0]}, photo_share=ALWAYS,
    )
    infos = target_maker(settings, prior, PARTS).make(photos, darker, [1, 2, 3]).infos
    assert [(info.fallback, info.photo_share, info.start_t > 0) for info in infos] == [
        (False, 0.5, False), (True, 0.0, True), (False, 0.5, False),
    ]


def test_a_photo_and_its_mirror_image_are_restored_alike():
    """By a restorer that shifts to the right the mean of both has no side."""
    photos = waves(8)
    settings = changed(mirrored=True, match_mean_luminance=False)
    restored = restored_for(photos, lambda batch: batch.roll(2, -1), settings)
    torch.testing.assert_close(restored, (photos.roll(2, -1) + photos.roll(-2, -1)) / 2)
    mirrored = restored_for(photos.flip(-1), lambda batch: batch.roll(2, -1), settings)
    torch.testing.assert_close(mirrored, restored.flip(-1))


def test_light_is_matched_where_there_is_noise(gen: torch.Generator):
    photos = gaussian_blur(torch.rand(2, 3, 64, 64, generator=gen), torch.tensor([1.0, 1.0])) * 0.5 + 0.2
    photos[1] += 0.2 * torch.randn(3, 64, 64, generator=gen)
    photos = photos.clamp(0, 1)
    brighter = gaussian_blur(photos, torch.tensor([1.0, 1.0])) * 1.1
    settings = changed(match_mean_luminance=True, light_by_noise=0.01)
    noisy_alone = restored_for(photos, lambda batch: brighter, settings)
    all_of_them = restored_for(photos, lambda batch: brighter, changed(match_mean_luminance=True))
    assert torch.equal(noisy_alone[0], brighter[0])
    assert torch.equal(noisy_alone[1], all_of_them[1])
    assert not torch.equal(all_of_them[0], brighter[0])


def test_a_mean_of_draws_is_their_mean(prior: Prior, photos: Tensor):
    """The first with the photo's own noise; maps and steps are seen of it alone."""
    seen: list[tuple[int, int]] = []
    one = target_maker(ADAPTIVE, prior, PARTS)
    two = target_maker(changed(mean_of=2), prior, PARTS).make(
        photos, restored_of(photos), [1, 2, 3], on_step=lambda record: seen.append((record.trajectory, record.step.t))
    )
    draws = [
        one.make(photos, restored_of(photos), [1, 2, 3], noise=[seed_again(seed, again) for seed in (1, 2, 3)]).images
        for again in (0, 1)
    ]
    torch.testing.assert_close(two.images, (draws[0] + draws[1]) / 2, rtol=0, atol=2e-3)
    first = one.make(photos, restored_of(photos), [1, 2, 3]).infos
    assert [info.evaluations for info in two.infos] == [2 * info.evaluations for info in first]
    assert sorted({row for row, _ in seen}) == [0, 1, 2]
    assert len(seen) == sum(info.evaluations for info in first)


@pytest.mark.parametrize(("setting", "message"), [
    ({"restraint": {"ratio": [2.0, 1.0], "latest_t": [0, 100]}}, "as many of both, rising"),
    ({"restraint": {"ratio": [1.0], "latest_t": [0, 100]}}, "as many of both, rising"),
    ({"photo_share": {"most": 0.5, "lightness": [2.0, 1.0], "colour": [1, 2]}}, "lightness: expected two rising"),
    ({"photo_share": {"most": 0.5, "lightness": [1, 2], "colour": [2.0, 2.0]}}, "colour: expected two rising"),
])
def test_lines_that_are_none_are_refused(setting: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        changed(**setting)


def test_the_tiny_recipe_needs_a_prior_alone():
    settings = load_recipe("adaptive", TargetSettings, pack="tiny")
    assert settings.method == "adaptive"
    assert not settings.needs_blur
    assert settings.needs_ratio


# ---------------------------------------------------------------- recipes and refusals


@pytest.mark.parametrize("name", ["dynamic", "guided"])
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
    with pytest.raises(ValueError, match=r"terms ask for blur levels of \[2, 3\] windows along a side; take one"):
        changed(guidance=[{"name": "gaussian_blur", "regions": regions} for regions in (2, 3)])
    with pytest.raises(UsageError, match="end_t: expected a timestep at or below the start, 200, got 300"):
        target_maker(changed(start_t=200, end_t=300), prior, PARTS)
    wrong = Prior("large", prior.settings.model_copy(update={"image_size": 32}), prior.network)
    with pytest.raises(UsageError, match=r"blur estimator: made for images of 16 pixels, the prior is for 32"):
        target_maker(ADAPTIVE, wrong, PARTS)


def test_what_is_not_finite_before_the_sampler_costs_its_photo_alone(prior: Prior, photos: Tensor):
    """Of the restorer or of the blur estimator; the others come out as they would have."""
    seeds = [1, 2, 3]
    plain = target_maker(ADAPTIVE, prior, PARTS).make(photos, photos, seeds)
    broken = photos.clone()
    broken[1, 0, 3, 3] = torch.nan
    made = target_maker(ADAPTIVE, prior, PARTS).make(photos, broken, seeds)
    assert [info.problem for info in made.infos] == [None, "the restorer gave values that are not finite", None]
    assert torch.equal(made.images[[0, 2]], plain.images[[0, 2]])
    alone = target_maker(ADAPTIVE, prior, PARTS).make(photos[[1]], broken[[1]], [2])
    assert bool(alone.images.isnan().all())
    assert alone.infos[0].evaluations == 0

    class Blind:
        size, network = SIZE, None

        def __call__(self, photo: Tensor) -> Estimate:
            return Estimate(torch.full((len(photo),), torch.nan, dtype=torch.float64), photo)

    blind = replace(PARTS, estimator=Blind())
    made = target_maker(ADAPTIVE, prior, blind).make(photos, photos, seeds)  # pyright: ignore[reportArgumentType]
    assert {info.problem for info in made.infos} == {"the blur estimator gave a value that is not finite"}


def test_a_way_may_end_before_the_clean_image(prior: Prior, photos: Tensor):
    """Then the last prediction is the target; the steps lie between start and end, fewer where the way is shorter."""
    for settings in (changed(end_t=300), changed(start_t=500, end_t=300, steps=3)):
        made = target_maker(settings, prior, PARTS)
        plan = made.plan_for(1.0)
        assert plan.steps[-1].t == 300
        assert plan.steps[-1].last
        assert plan.steps[-1].abar_prev == 1
        whole = target_maker(settings.model_copy(update={"end_t": 0}), prior, PARTS)
        ended, walked = (maker.make(photos, photos, [1, 2, 3]).images for maker in (made, whole))
        assert not torch.equal(ended, walked)
    assert len(target_maker(changed(end_t=300), prior, PARTS).plan_for(1.0).steps) <= len(
        target_maker(ADAPTIVE, prior, PARTS).plan_for(1.0).steps
    )


def test_a_term_is_a_line_in_a_table():
    """Every term that a recipe can name is built by the table, and no other name is there."""
    fields = [each.model_fields["name"] for each in (GaussianBlurSettings, IdentitySettings, LowFrequencySettings)]
    assert set(TERMS) == {str(get_args(field.annotation)[0]) for field in fields}
