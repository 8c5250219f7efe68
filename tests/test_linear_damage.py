"""The linear part of a photo's damage: found again where it is known, by itself and beside noise."""

from __future__ import annotations

import pytest
import torch

from adapt.blur.linear import PUBLISHED_SIZE, STDS, linear_damage
from degradations.cosines import gaussian_blur


@pytest.mark.parametrize("size", [64, 128])
def test_a_filter_is_found_and_does_the_same_to_another_image(size: int, gen: torch.Generator):
    """Blur of a width between those it knows, other contrast and light in each channel."""
    restored, other = torch.rand(2, 1, 3, size, size, generator=gen)
    gain = torch.tensor([0.9, 0.6, 1.2]).view(1, 3, 1, 1)
    std = torch.tensor([5.0 * size / PUBLISHED_SIZE])

    def damaged(image: torch.Tensor) -> torch.Tensor:
        return 0.1 + gain * gaussian_blur(image, std)

    found = linear_damage(restored, damaged(restored))
    torch.testing.assert_close(found(other), damaged(other), atol=0.02, rtol=0)


def test_sharpening_is_one_too(gen: torch.Generator):
    restored, other = gaussian_blur(torch.rand(2, 3, 128, 128, generator=gen), torch.tensor([1.0, 1.0])).split(1)
    std = torch.tensor([STDS[2] * 128 / PUBLISHED_SIZE])
    sharper = [1.8 * image - 0.8 * gaussian_blur(image, std) for image in (restored, other)]
    torch.testing.assert_close(linear_damage(restored, sharper[0])(other), sharper[1], atol=0.015, rtol=0)


def test_noise_is_left_and_changes_little(gen: torch.Generator):
    restored = gaussian_blur(torch.rand(1, 3, 128, 128, generator=gen), torch.tensor([1.0]))
    noise = 0.1 * torch.randn(1, 3, 128, 128, generator=gen)
    found = linear_damage(restored, restored + noise)
    left = restored + noise - found(restored)
    assert float((left - noise).std()) < 0.01
