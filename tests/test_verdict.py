"""The verdict: what evidence says of two models, and which of them is exported."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import QUICK_FINETUNE, QUICK_TARGETS, adapt
from safetensors import safe_open
from torch import Tensor

from adapt.errors import UsageError
from adapt.loading import load_evaluator, load_restorer
from adapt.photos.files import read_image
from adapt.settings import VerdictSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.restored import match_mean_luminance
from adapt.verdict.decision import Measurements, Numbers, Verdict, compare, decide, gains, verdict_of_json
from adapt.verdict.evidence import EVIDENCE, Evaluator, Restoration
from adapt.verdict.selector import EvidenceSelector
from adapt.verdict.wording import evidence_table, sentences
from degradations.cosines import gaussian_blur

CPU = torch.device("cpu")
RULE = VerdictSettings(weights={"identity": 1, "prior": 2}, threshold=0.05, limits={"sharpness": 0.2})
BELIEVED = [1.0] * 8


def numbers(**changes: float) -> Numbers:
    """Evidence on eight photos that differ a little, each kind times a factor."""
    return {key: [changes.get(key, 1.0) * (0.4 + 0.01 * photo) for photo in range(8)] for key in EVIDENCE}


@pytest.fixture(scope="module")
def evaluator(small_pack: Path) -> Evaluator:
    return load_evaluator(small_pack, CPU)


def test_gains_are_shares_of_the_base_and_positive_where_better():
    assert gains("identity", [1, 1], [0.2, 0.6], [0.1, 0.7]) == pytest.approx([0.25, -0.25])
    assert gains("identity", [1, 0.5], [0.2, 0.6], [0.1, 0.7]) == pytest.approx([0.25, -0.125]), "half believed"
    assert gains("sharpness", [0, 0], [0.2, 0.6], [0.1, 0.7]) == pytest.approx([-0.25, 0.25]), "not by the photo"
    assert gains("prior", [1, 1], [0.0, 0.0], [0.0, 0.1]) == pytest.approx([0.0, -0.1]), "nothing to divide by"


def test_the_sum_is_of_each_photo_and_has_its_own_interval():
    base, candidate = numbers(), numbers(identity=0.8, prior=0.9)
    comparison = compare(1.0, BELIEVED, base, candidate, RULE)
    sums = [a * (0.4 + 0.01 * p) / 0.435 for p in range(8) for a in [0.2 + 2 * 0.1]]
    assert comparison.total.mean == pytest.approx(sum(sums) / 8)
    deviation = math.sqrt(sum((value - sum(sums) / 8) ** 2 for value in sums) / 7)
    assert comparison.total.mean - comparison.total.low == pytest.approx(2.3646 * deviation / math.sqrt(8), rel=1e-3)
    assert comparison.better
    found = {finding.key: finding for finding in comparison.findings}
    assert found["identity"].says == "better"
    assert found["landmarks"].says == "chance"
    assert found["identity"].candidate == pytest.approx(0.8 * found["identity"].base)


@pytest.mark.parametrize(
    ("changes", "strength"),
    [
        ({}, 0.0),  # nothing changed: nothing is better
        ({"identity": 0.8}, 1.0),
        ({"identity": 0.97}, 0.0),  # a gain below the threshold
        ({"identity": 1.2}, 0.0),
        ({"landmarks": 0.5}, 0.0),  # weighs nothing
        ({"identity": 0.8, "prior": 1.15}, 0.0),  # a gain that a loss outweighs
        ({"identity": 0.8, "sharpness": 0.85}, 1.0),
        ({"identity": 0.8, "sharpness": 0.7}, 0.0),  # beyond its limit no sum helps
    ],
)
def test_what_is_exported(changes: dict[str, float], strength: float):
    verdict = decide(Measurements(BELIEVED, numbers(), {1.0: numbers(**changes)}), RULE)
    assert verdict.strength == strength
    assert verdict.judged == 8
    told = sentences(verdict)
    assert told.startswith("Exported: the adapted model" if strength else "Exported: the model it started from")
    assert "8 photos without originals" in told


def test_what_may_be_chance_decides_nothing():
    """A mean above the threshold whose interval is not; and too few photos for any interval."""
    scattered = {**numbers(), "identity": [0.1, 0.7, 0.1, 0.75, 0.1, 0.7, 0.1, 0.75]}
    verdict = decide(Measurements(BELIEVED, numbers(), {1.0: scattered}), RULE)
    assert verdict.shown.total.mean > RULE.threshold
    assert verdict.strength == 0
    three = {key: values[:3] for key, values in numbers().items()}
    better = {key: values[:3] for key, values in numbers(identity=0.5).items()}
    assert decide(Measurements([1.0] * 3, three, {1.0: better}), RULE).strength == 0
    with pytest.raises(UsageError, match="expected evidence of the same kinds on photos"):
        compare(1.0, BELIEVED, numbers(), {"identity": [0.1] * 8}, RULE)


def test_the_best_of_the_better_ones_is_taken():
    candidates = {1.0: numbers(identity=0.9), 0.5: numbers(identity=0.7), 0.25: numbers(identity=0.5, sharpness=0.1)}
    verdict = decide(Measurements(BELIEVED, numbers(), candidates), RULE)
    assert verdict.strength == 0.5
    assert verdict.shown.strength == 0.5
    assert "50 % of the way from the start to it" in sentences(verdict)
    kept = decide(Measurements(BELIEVED, numbers(), {1.0: numbers(identity=1.3), 0.5: numbers(identity=1.1)}), RULE)
    assert kept.shown.strength == 0.5, "the one that came nearest is told of"


def test_a_verdict_is_read_back_as_it_was_written():
    verdict = decide(Measurements(BELIEVED, numbers(), {1.0: numbers(identity=0.8), 0.5: numbers(prior=1.2)}), RULE)
    assert verdict_of_json(json.loads(json.dumps(verdict.as_json()))) == verdict


def test_reasons_are_told_with_their_direction():
    verdict = decide(Measurements(BELIEVED, numbers(), {1.0: numbers(identity=1.1, sharpness=1.5)}), RULE)
    told = sentences(verdict)
    assert "Against it: the person moves away from the photo's (+10 %)" in told
    assert "for it: the images are sharper (+50 %)" in told
    same = sentences(decide(Measurements(BELIEVED, numbers(), {1.0: numbers()}), RULE))
    assert "no step of the training was better" in same
    assert "nothing differs" in same
    around = [value * (1.02 if index % 2 else 0.98) for index, value in enumerate(numbers()["identity"])]
    by_chance = decide(Measurements(BELIEVED, numbers(), {1.0: {**numbers(), "identity": around}}), RULE)
    assert "What differs may be chance." in sentences(by_chance)
    lines = {line[0]: line for line in evidence_table(verdict)}
    assert lines["sharpness"][1:] == ("0.4350", "0.6525", lines["sharpness"][3], "better")
    assert lines["sharpness"][3].startswith("+50.0 % (95 % interval ")


def test_the_shipped_rule_keeps_what_does_not_change():
    rule = load_recipe("default", VerdictSettings)
    assert decide(Measurements(BELIEVED, numbers(), {1.0: numbers()}), rule).strength == 0
    worse = numbers(**dict.fromkeys(EVIDENCE, 1.3))
    assert decide(Measurements(BELIEVED, numbers(), {1.0: worse}), rule).strength == 0, "worse by all"
    with pytest.raises(ValueError, match="weights: no evidence weighs anything"):
        VerdictSettings(weights={"identity": 0})


def test_evidence_tells_a_kept_face_from_a_lost_one(evaluator: Evaluator, gen: torch.Generator):
    photo = torch.rand(3, 16, 16, generator=gen)
    sample = evaluator.sample(photo, photo, clean=photo, soft=evaluator.known, place=3, seed=1)
    assert sample.trust == pytest.approx(1), "photo and base agree as they are"
    kept, lost = (
        evaluator.measure(sample, Restoration(image, face))
        for image, face in ((photo[None], sample.known), (1 - photo[None], 1 - sample.known))
    )
    assert kept is not None
    assert lost is not None
    assert [*kept] == [*EVIDENCE]
    for key in set(EVIDENCE) - {"prior", "sharpness"}:
        assert kept[key] == pytest.approx(0, abs=1e-6), key
        assert lost[key] > 1e-3, key
    flat = evaluator.measure(sample, Restoration(sample.photo * 0 + 0.5, sample.known))
    assert flat is not None
    assert flat["sharpness"] == pytest.approx(0, abs=1e-6)
    assert evaluator.measure(sample, Restoration(sample.photo / 0, sample.known)) is None


def test_a_trial_is_a_known_face_under_the_photos_damage(evaluator: Evaluator, gen: torch.Generator):
    """L(z') + y - L(R(y)): with a restoration that is right, the damage itself, filter and noise."""
    calm = replace(evaluator, known=evaluator.known * 0.5 + 0.25)
    truth = torch.rand(3, 64, 64, generator=gen) * 0.2 + 0.4
    noise = 0.02 * torch.randn(3, 64, 64, generator=gen)
    known = torch.rand(2, 3, 64, 64, generator=gen) * 0.2 + 0.4
    calm = replace(calm, known=known)
    sample = calm.sample(truth + noise, truth, clean=truth, soft=known, place=1, seed=0)
    torch.testing.assert_close(sample.trial, known[1:2] + noise, atol=0.02, rtol=0)
    assert torch.equal(sample.known, known[1:2])
    far = calm.sample(truth + noise, truth * 0, clean=truth, soft=known, place=1, seed=0)
    assert far.trust == pytest.approx(0), "photo and base agree at no blur"
    std = torch.full((1,), 1.0)
    photo = 0.1 + 0.7 * gaussian_blur(truth[None], std)[0]
    sample = calm.sample(photo, truth, clean=truth, soft=known, place=0, seed=0)
    expected = 0.1 + 0.7 * gaussian_blur(known[:1], std)
    torch.testing.assert_close(sample.trial, expected, atol=6e-3, rtol=0)


def test_damage_is_known_by_the_packs_own_restorer(evaluator: Evaluator, gen: torch.Generator):
    """And by the base where there is none, or where it gives no image."""
    photo, base = torch.rand(2, 3, 16, 16, generator=gen)
    own = replace(evaluator, reference=lambda photos: photos / 2)
    assert torch.equal(own.clean(photo, base), photo / 2)
    assert torch.equal(replace(evaluator, reference=None).clean(photo, base), base)
    assert torch.equal(replace(evaluator, reference=lambda photos: photos / 0).clean(photo, base), base)


def test_damage_is_known_by_a_restoration_with_the_light_of_a_noisy_photo(evaluator: Evaluator, gen: torch.Generator):
    """Or who gives a photo its light back, as targets do, would be wrong on trials."""
    calm = gaussian_blur(torch.rand(1, 3, 64, 64, generator=gen), torch.tensor([1.0])) * 0.5 + 0.1
    noisy = (calm + 0.25 * torch.randn(1, 3, 64, 64, generator=gen)).clamp(0, 1)
    own = replace(evaluator, reference=lambda _: calm * 0.8)
    assert torch.equal(own.clean(calm[0], calm[0]), calm[0] * 0.8)
    assert torch.equal(own.clean(noisy[0], calm[0]), match_mean_luminance(calm * 0.8, noisy)[0])
    none = replace(evaluator, reference=None)
    assert torch.equal(none.clean(noisy[0], calm[0] * 0.8), own.clean(noisy[0], calm[0])), "the base's too"


def test_known_faces_get_as_soft_as_what_is_restored(evaluator: Evaluator, gen: torch.Generator):
    known = torch.rand(3, 3, 64, 64, generator=gen)
    own = replace(evaluator, known=known)
    torch.testing.assert_close(own.as_soft_as([*known]), known, atol=1e-4, rtol=0)
    torch.testing.assert_close(own.as_soft_as([*(3 * known - 1)]), known, atol=1e-4, rtol=0)  # sharper: as they are
    soft = own.as_soft_as([*gaussian_blur(known, torch.full((3,), 1.0))])
    torch.testing.assert_close(soft.mean((2, 3)), known.mean((2, 3)), atol=2e-3, rtol=0)
    assert float(soft.std()) == pytest.approx(float(gaussian_blur(known, torch.full((3,), 1.0)).std()), rel=0.1)


def test_models_between_two(small_pack: Path):
    start, other = load_restorer(small_pack), load_restorer(small_pack)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(1.0)
    between = start.towards(other, 0.25)
    for key, value in between.network.state_dict().items():
        own = start.network.state_dict()[key]
        if value.is_floating_point():
            expected = 0.75 * own + 0.25 * other.network.state_dict()[key]
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(value, own)
    assert start.towards(other, 1.0) is other
    with pytest.raises(UsageError, match="are of two layouts"):
        start.towards(load_restorer("tiny"), 0.5)


def test_a_critic_prefers_what_keeps_the_photo(evaluator: Evaluator, gen: torch.Generator):
    """By the rule's own sum; what is not finite, or beyond a limit, is never the best."""
    photos = 0.5 + 0.1 * torch.rand(5, 3, 16, 16, generator=gen)

    def noisy(shown: Tensor) -> Tensor:
        return (shown + 0.02).clamp(0, 1)

    selector = EvidenceSelector(evaluator, VerdictSettings(weights={"consistency": 1}, photos=4))
    assert selector.judged(5) == [0, 1, 2, 3]
    assert selector.judged(3) == [0, 1, 2]
    assert selector.judged(400) == [0, 100, 200, 300], "evenly: one collection lies at the front"
    seen: list[int] = []

    def at_once(shown: Tensor) -> Tensor:
        seen.append(len(shown))
        return noisy(shown)

    selector.begin(photos.repeat(4, 1, 1, 1), at_once)
    assert max(seen) <= 8, "48 at once would need gigabytes"
    selector.begin(photos, noisy)
    assert selector.gain(noisy) == 0
    assert selector.gain(lambda shown: shown) == pytest.approx(1), "all that there was to be gained"
    assert selector.gain(lambda shown: 1 - shown) < 0
    assert selector.gain(lambda shown: shown / 0) == -math.inf
    strict = EvidenceSelector(evaluator, VerdictSettings(weights={"consistency": 1}, limits={"sharpness": 0.01}))
    strict.begin(photos, noisy)
    assert strict.gain(lambda shown: shown * 0.1) == -math.inf, "less sharp than the limit allows"


@pytest.mark.parametrize("best", [0, 1])
def test_fine_tuning_keeps_what_its_critic_prefers(
    best: int, small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Whatever the targets say, and as exactly after a stop as without one."""
    gains = iter([0.5, 0.4] if best else [-0.1, -0.2])
    monkeypatch.setattr("adapt.verdict.selector.EvidenceSelector.gain", lambda *_: next(gains))
    arguments = ["finetune", "--photos", small_photos, "--targets", small_photos, "--pack", small_pack,
                 "--device", "cpu", "--verdict", "default", *QUICK_FINETUNE]  # fmt: skip
    assert adapt(monkeypatch, *arguments, "-o", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "by evidence that does not come from the targets" in said
    assert ("step 1 is the best" in said) == bool(best)
    with safe_open(str(tmp_path / "out" / "best.safetensors"), framework="pt") as weights:
        assert weights.metadata()["step"] == str(best)
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["validation/evidence"] for line in log if "validation/evidence" in line] == (
        [0.5, 0.4] if best else [-0.1, -0.2]
    )
    assert adapt(monkeypatch, *arguments, "-o", tmp_path / "out", "--verdict", Path("recipes/none.yaml")) == 2


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_run_exports_what_the_verdict_says(
    strength: float, small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """The base, the adapted model, or one between both; and everything the user is shown is of that."""
    out = tmp_path / "out"
    arguments = [
        "run", small_photos, "-o", out, "--pack", small_pack, "--method", "low-frequency", "--device", "cpu",
        *[f"targets.{each}" for each in QUICK_TARGETS], *[f"finetune.{each}" for each in QUICK_FINETUNE],
        "finetune.learning_rate=0.05", "finetune.final_learning_rate=0.05", "finetune.ema=0",
    ]
    judged: list[Verdict] = []

    def decided(measured: Measurements, settings: VerdictSettings) -> Verdict:
        comparison = tuple(
            compare(each, measured.trust, measured.base, numbers, settings)
            for each, numbers in measured.candidates.items()
        )
        judged.append(Verdict(strength, 6, comparison))
        return judged[-1]

    monkeypatch.setattr("adapt.commands.run_verdict.decide", decided)
    monkeypatch.setattr("adapt.verdict.selector.EvidenceSelector.gain", lambda *_: 1.0)  # the first step is the best
    assert adapt(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    source = {0.0: str(small_pack), 0.5: out / "exported.safetensors", 1.0: out / "finetune"}[strength]
    assert (out / "exported.safetensors").is_file() == (strength == 0.5)
    model = load_restorer(source)
    shown = read_image(out / "restored" / "a.png")
    expected = model(read_image(out / "photos" / "a.png")[None])[0]
    assert float((shown - expected).abs().max()) <= 0.51 / 255 + 1e-6
    start = read_image(out / "base" / "a.png")
    assert (float((shown - start).abs().max()) == 0) == (strength == 0)
    assert (out / "adapted").is_dir() == (strength < 1)
    told = json.loads((out / "verdict.json").read_text())
    assert told["strength"] == strength
    page = (out / "report.html").read_text()
    assert f"Exported: the {'adapted model' if strength else 'model it started from'}" in printed
    assert f"Exported: the {'adapted model' if strength else 'model it started from'}" in page
    rows = json.loads((out / "evaluation.json").read_text())
    assert ("exported" in rows) == (strength == 0.5)
    about = json.loads((out / "bundle" / "bundle.json").read_text())
    assert about["source"]["outcome"].startswith("Exported: ")

    assert adapt(monkeypatch, *arguments) == 0
    assert len(judged) == 1, "the same models and photos are judged once"
    assert adapt(monkeypatch, *arguments, "verdict.threshold=0.5") == 0
    assert len(judged) == 2
    assert adapt(monkeypatch, *arguments, "verdict.thresold=0.5") == 2
    assert "did you mean 'threshold'?" in capsys.readouterr().err
