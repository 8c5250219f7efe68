"""Clean faces, varied: what each setting changes, and what it leaves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.pretraining.augmentation import augmented
from adapt.pretraining.pairs import pairs_of
from adapt.settings import AugmentationSettings, OneStepTrainingSettings, UNetSettings

NOTHING = {"share": 1.0, "turn": 0.0, "scale": 0.0, "colour": 0.0, "exposure": 0.0}


def images(count: int = 4, side: int = 33) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=True).clamp(0.05, 0.95)


def made(changes: dict[str, float] | None = None, seed: int = 1) -> Tensor:
    settings = AugmentationSettings.model_validate(NOTHING | (changes or {}))
    return augmented(images(), settings, torch.Generator().manual_seed(seed))


def test_left_out_nothing_is_drawn_and_nothing_changes():
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    assert torch.equal(augmented(images(), AugmentationSettings(), generator), images())
    assert torch.equal(generator.get_state(), state)


def test_of_strength_zero_it_is_the_image():
    torch.testing.assert_close(made(), images(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", [{"turn": 6.0}, {"scale": 0.1}, {"colour": 0.05}, {"exposure": 0.2}])
def test_every_setting_changes_every_image_its_own_way(change: dict[str, float]):
    differences = (made(change) - images()).abs().mean(dim=(1, 2, 3))
    assert float(differences.min()) > 1e-4
    assert len({round(value, 6) for value in differences.tolist()}) == 4
    assert torch.equal(made(change), made(change))
    assert not torch.equal(made(change), made(change, 2))


def test_a_turn_moves_a_spot_along_a_circle_against_the_clock():
    spot = torch.zeros(1, 3, 33, 33)
    spot[..., 16, 26] = 1  # ten pixels to the right of the middle
    settings = AugmentationSettings.model_validate(NOTHING | {"turn": 45.0})
    seeds = range(12)
    places = [
        augmented(spot, settings, torch.Generator().manual_seed(seed))[0, 0].argmax().item() for seed in seeds
    ]
    radii = {round((((place // 33) - 16) ** 2 + ((place % 33) - 16) ** 2) ** 0.5) for place in places}
    assert radii <= {9, 10, 11}
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        torch.rand(1, generator=generator)
        drawn.append(float(2 * torch.rand(2, 1, generator=generator)[0] - 1))
    assert all((place // 33 < 16) == (turn > 0) for place, turn in zip(places, drawn, strict=True) if abs(turn) > 0.1)


def test_colours_are_multiplied_and_the_exposure_keeps_black_and_white():
    settings = AugmentationSettings.model_validate(NOTHING | {"colour": 0.05})
    tinted = augmented(images() * 0.8, settings, torch.Generator().manual_seed(1)) / (images() * 0.8)
    spread = tinted.flatten(2)
    torch.testing.assert_close(spread, spread[..., :1].expand_as(spread), rtol=2e-3, atol=0)
    extremes = torch.cat([torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)])
    settings = AugmentationSettings.model_validate(NOTHING | {"exposure": 0.5})
    torch.testing.assert_close(augmented(extremes, settings, torch.Generator().manual_seed(0)), extremes)


def test_the_share_of_the_images_is_changed():
    many = images(1).expand(400, 3, 33, 33)
    settings = AugmentationSettings.model_validate(NOTHING | {"share": 0.3, "exposure": 0.5})
    changed = augmented(many, settings, torch.Generator().manual_seed(0)) != many
    assert 0.22 < float(changed.flatten(1).any(1).float().mean()) < 0.38


def test_a_training_on_pairs_varies_both_images_alike():
    layout = UNetSettings(
        image_size=16, model_channels=32, channel_mult=[1, 2], num_res_blocks=[0, 1], attention_resolutions=[]
    )
    base = {
        "network": layout.model_dump(), "steps": 1, "batch": 4, "size": 32, "learning_rate": 1e-3,
        "degradation": {"blur_std": [0.1, 0.1], "downsample": [1, 1], "noise": [0, 0], "jpeg": [100, 100], "grey": 0},
    }  # fmt: skip
    plain = OneStepTrainingSettings.model_validate(base)
    varied = OneStepTrainingSettings.model_validate(base | {"augmentation": {"share": 1.0, "exposure": 0.6}})
    faces = (images(4, 32) * 255).to(torch.uint8)
    _, clean = pairs_of(faces, plain, torch.Generator().manual_seed(0))
    damaged, other = pairs_of(faces, varied, torch.Generator().manual_seed(0))
    assert float((other - clean).abs().mean()) > 0.03
    assert float((damaged - other).abs().mean()) < 0.02
