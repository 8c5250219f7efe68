"""The start-step table: against noised images and a derivation of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from images import seeded
from torch import Tensor

import adapt.packs
from adapt.blur.start_steps import (
    StartSteps,
    build_start_steps,
    differences,
    load_start_steps_file,
    power_spectrum,
    table_of,
)
from adapt.errors import ShapeError, UsageError, WeightsError
from adapt.exporting.verify import smooth_images
from adapt.settings import StartStepsSettings


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
    with pytest.raises(UsageError, match="spectrum: no images"):
        power_spectrum([])
    with pytest.raises(ShapeError, match=r"square images of one size, got \(1, 3, 8, 9\)"):
        power_spectrum([torch.zeros(1, 3, 8, 9)])
    with pytest.raises(ShapeError, match=r"square images of one size, got \(1, 3, 10, 10\)"):
        power_spectrum([torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 10, 10)])


@pytest.mark.parametrize(("std", "t"), [(0.4, 40), (1.0, 120), (1.5, 250)])
def test_the_closed_form_is_what_noised_images_show(std: float, t: int) -> None:
    """Images of a known spectrum, blurred and noised in numpy; 240 of them, each sharp and blurred."""
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
    clean = np.fft.ifft2(np.sqrt(power), norm="ortho").real  # one image with exactly that spectrum
    known = power_spectrum([torch.from_numpy(clean).expand(1, 3, -1, -1)])
    closed = differences(known, std, torch.tensor([abar], dtype=torch.float64))[0]
    assert closed.max() > 0.1
    np.testing.assert_allclose(measured.numpy(), closed.numpy(), atol=0.1 * float(closed.max()))


def test_a_flat_spectrum_starts_where_the_noise_is_as_strong_as_it_has_to_be() -> None:
    """A blur that leaves nothing but the mean: log(1 + abar p / (1 - abar)) <= tol, solved for abar."""
    side, power, tol = 512, 0.3, 0.01
    table = table_of(
        torch.full((side // 2 + 1,), power, dtype=torch.float64), StartStepsSettings(size=side, tol=tol), images=1
    )
    ratio = (math.exp(tol) - 1) / power
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    expected = int(np.argmax(abar <= ratio / (1 + ratio)))
    assert table.steps[-1] == expected


def face_table(**changes: object) -> StartSteps:
    faces = smooth_images((6, 64, 64), seed=5)
    grain = 0.02 * torch.rand(6, 3, 64, 64, generator=seeded(0))
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


def test_the_table_is_of_images_in_the_samplers_range(gen: torch.Generator) -> None:
    """Twice the amplitude of [0, 1], so four times the power at radius 1 and more."""
    stored = torch.randint(0, 256, (2, 3, 16, 16), generator=gen, dtype=torch.uint8)
    table = build_start_steps(stored, StartStepsSettings(size=16, tol=0.5))
    unit = power_spectrum([stored.float() / 255])
    np.testing.assert_allclose(table.spectrum[1:], 4 * unit[1:].numpy(), rtol=1e-5)


def small_table(**changes: object) -> dict[str, object]:
    known = {"size": 8, "statistic": "share", "share": 0.95, "tol": 1e-3, "images": 1, "spectrum": [1.0]}
    return {**known, "stds": [1.0, 2.0, 4.0], "steps": [100, 200, 260], **changes}


def test_between_two_levels_the_start_step_is_between_theirs(tmp_path: Path) -> None:
    table = StartSteps.model_validate(small_table())
    found = [table.start_t(std) for std in (0.0, 1.0, 1.25, 2.0, 3.0, 3.5, 4.0, 99.0)]
    assert found == [100, 100, 125, 200, 230, 245, 260, 260]
    table.save(tmp_path / "t.json")
    assert load_start_steps_file(tmp_path / "t.json") == table
    assert {"statistic", "tol", "spectrum"} <= set(json.loads((tmp_path / "t.json").read_text()))


def test_the_level_of_a_start_step_is_the_way_back() -> None:
    """Also where several levels start alike: the highest of them."""
    table = StartSteps.model_validate(small_table(stds=[1.0, 2.0, 3.0, 4.0], steps=[100, 200, 200, 260]))
    assert [table.std_for(t) for t in (50, 100, 150, 200, 230, 260, 999)] == [1, 1, 1.5, 3, 3.5, 4, 4]


def test_the_packs_table_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    packed = load_start_steps_file(Path(adapt.packs.__file__).parent / "tiny" / "start-steps.json")
    assert packed.images == 1216
    packed.save(tmp_path / "table.json")
    assert load_start_steps_file(tmp_path / "table.json") == packed



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
