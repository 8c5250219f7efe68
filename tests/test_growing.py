"""A U-Net for images twice as large: what it begins as, and which layouts it can have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from adapt.diffusion.schedule import linear_schedule
from adapt.diffusion.unet import UNet
from adapt.errors import UsageError
from adapt.images import to_signed
from adapt.loading import KNOWN, load_prior, load_restorer
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from adapt.pretraining.growing import grown, is_grown
from adapt.restorers.onestep import OneStep
from adapt.settings import OneStepSettings, UNetSettings

SMALL = UNetSettings(
    image_size=16, model_channels=32, channel_mult=[1, 2], num_res_blocks=[0, 1], attention_resolutions=[8],
    num_head_channels=32, out_channels=6,
)  # fmt: skip


def larger(small: UNetSettings, **changes: Any) -> UNetSettings:
    wanted = {
        "image_size": 2 * small.image_size, "channel_mult": [small.channel_mult[0], *small.channel_mult],
        "num_res_blocks": [1, *small.num_res_blocks], **changes,
    }
    return UNetSettings.model_validate(small.model_dump() | wanted)


@pytest.fixture
def small() -> UNet:
    generator, network = torch.Generator().manual_seed(0), UNet(SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return network.eval()


@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("outputs", [3, 6])
def test_all_weights_are_carried_over(small: UNet, blocks: int, outputs: int):
    large = grown(small, larger(SMALL, num_res_blocks=[blocks, 0, 1], out_channels=outputs))
    mine = list(large.parameters())
    for name, theirs in small.named_parameters():
        if name.startswith(("input_blocks.0", "out.2")):  # the first is made of two, the last may have fewer outputs
            continue
        assert any(theirs.shape == own.shape and torch.equal(theirs, own) for own in mine), name
    last = (large.get_parameter("out.2.weight"), small.get_parameter("out.2.weight")[:outputs])
    torch.testing.assert_close(*last, rtol=0, atol=0)


def test_what_is_handed_down_is_what_the_old_first_convolution_saw(small: UNet):
    """Exactly of an image of doubled pixels: the last of the six that it reached over is then as the one beside it."""
    large = grown(small, larger(SMALL, num_res_blocks=[0, 0, 1]))
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    twice = F.interpolate(image, scale_factor=2, mode="nearest")
    first, halving = large.input_blocks[0][0], large.input_blocks[1][0]  # pyright: ignore
    before, after = small.input_blocks[0][0](image), halving(first(twice))  # pyright: ignore
    torch.testing.assert_close(after[..., 1:-1, 1:-1], before[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-5)


def test_the_packs_student_begins_as_itself_enlarged():
    """What it makes of an enlarged photo is far nearer to its old result than the photo is; and it still can learn."""
    student = load_restorer("tiny/onestep").network
    assert isinstance(student, OneStep)
    layout = larger(student.settings.network, num_res_blocks=[0, *student.settings.network.num_res_blocks])
    assert is_grown(student.settings.network, layout)
    large = OneStep(OneStepSettings(network=layout, t=student.settings.t))
    large.network = grown(student.network, layout)
    generator = torch.Generator().manual_seed(2)
    smooth = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), (128, 128), mode="bicubic").clamp(0, 1)
    photo = (smooth + 0.1 * torch.randn(1, 3, 128, 128, generator=generator)).clamp(0, 1)
    with torch.no_grad():
        before = student(photo)
        after = F.avg_pool2d(large(F.interpolate(photo, scale_factor=2, mode="nearest")), 2)
    assert float((after - before).square().mean()) < 0.2 * float((photo - before).square().mean())
    large.train().requires_grad_(True)
    large(F.interpolate(photo, scale_factor=2)).mean().backward()
    still = [name for name, each in large.named_parameters() if each.grad is None]
    assert not still


def test_the_seed_decides_what_the_new_blocks_begin_with(small: UNet):
    layout = larger(SMALL)
    states = [grown(small, layout, seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_size": 64}, "network.image_size"),
        ({"channel_mult": [2, 1, 2]}, r"network.channel_mult: .*expected \[1, 1, 2\]"),
        ({"num_res_blocks": [1, 1, 1]}, "network.num_res_blocks"),
        ({"attention_resolutions": [16]}, "network.attention_resolutions"),
        ({"in_channels": 6}, "network.in_channels"),
    ],
)
def test_another_layout_is_refused(small: UNet, changes: dict[str, Any], told: str):
    with pytest.raises(UsageError, match=told):
        grown(small, larger(SMALL, **changes))


def test_a_prior_is_told_that_half_the_size_has_half_the_noise():
    """In means over blocks, where the inner levels work, it knows the noise from the first; details it must learn."""
    prior = load_prior("tiny").network
    assert isinstance(prior, UNet)
    layout = larger(prior.settings, num_res_blocks=[0, *prior.settings.num_res_blocks])
    generator = torch.Generator().manual_seed(3)
    faces = [read_image(photo.path) for photo in find_photos(KNOWN)[:2]]
    x0 = to_signed(F.interpolate(torch.stack(faces), scale_factor=2, mode="bicubic").clamp(0, 1))
    noise = torch.randn(x0.shape, generator=generator)
    abar = float(linear_schedule().abar[500])
    x_t, told = abar**0.5 * x0 + (1 - abar) ** 0.5 * noise, torch.full((2,), 500)
    errors: list[float] = []
    for noisy in (True, False):
        with torch.no_grad():
            found = grown(prior, layout, noisy=noisy).eval()(x_t, told)[:, :3]
        errors.append(float((F.avg_pool2d(found - noise, 8) * 8).square().mean()))
    assert errors[0] < 0.6, "1 is of a network that knows nothing"
    assert errors[1] > 2 * errors[0]
