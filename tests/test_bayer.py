"""The mosaic of a sensor and its demosaicing: against plain loops, published filters and LibRaw."""

from __future__ import annotations

import itertools
import runpy
from typing import Any

import numpy as np
import pytest
import torch
from cameras import METHODS, PHASES
from conftest import ROOT

from degradations.camera.bayer import demosaic, mosaic, spread
from degradations.camera.profiles import Phase

# ---------------------------------------------------------------- mosaic


@pytest.mark.parametrize("phase", PHASES)
def test_mosaic_sees_the_colour_its_name_says(phase: Any, gen: torch.Generator) -> None:
    images = torch.rand(2, 3, 5, 7, generator=gen)
    seen = mosaic(images, phase)
    for image, y, x in itertools.product(range(2), range(5), range(7)):
        channel = "RGB".index(phase[2 * (y % 2) + x % 2])
        assert seen[image, 0, y, x] == images[image, channel, y, x]


@pytest.mark.parametrize("phase", PHASES)
def test_spread_is_the_adjoint_of_mosaic(phase: Any, gen: torch.Generator) -> None:
    images = torch.rand(2, 3, 5, 7, generator=gen, dtype=torch.float64)
    raw = torch.rand(2, 1, 5, 7, generator=gen, dtype=torch.float64)
    left, right = (mosaic(images, phase) * raw).sum(), (images * spread(raw, phase)).sum()
    torch.testing.assert_close(left, right, rtol=1e-13, atol=0)
    assert torch.equal(mosaic(spread(raw, phase), phase), raw)


@pytest.mark.parametrize("method", METHODS)
def test_every_image_has_its_own_phase(method: Any, gen: torch.Generator) -> None:
    images = torch.rand(4, 3, 6, 5, generator=gen)
    phases: Any = list(PHASES)
    raw = mosaic(images, phases)
    images = demosaic(raw, phases, method)
    for index, phase in enumerate(phases):
        assert torch.equal(raw[index], mosaic(images[index : index + 1], phase)[0])
        assert torch.equal(images[index], demosaic(raw[index : index + 1], phase, method)[0])


# ---------------------------------------------------------------- demosaic


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("height", "width"), [(8, 10), (7, 9), (2, 3)])
def test_demosaic_keeps_flat_colours_and_inside_slopes(phase: Any, method: Any, height: int, width: int) -> None:
    flat = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)[:, None, None].expand(1, 3, height, width)
    torch.testing.assert_close(demosaic(mosaic(flat, phase), phase, method), flat, rtol=0, atol=1e-12)
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    slope = torch.stack([0.1 * x + 0.2 * y, 0.3 * x - 0.1 * y, -0.2 * x + 0.05 * y])[None]
    reach = 1 if method == "bilinear" else 3
    inside = (slice(None), slice(None), slice(reach, -reach), slice(reach, -reach))
    found = demosaic(mosaic(slope, phase), phase, method)
    torch.testing.assert_close(found[inside], slope[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("phase", PHASES)
def test_demosaic_leaves_what_was_seen(phase: Any, method: Any, gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 7, 8, generator=gen, dtype=torch.float64)
    torch.testing.assert_close(mosaic(demosaic(raw, phase, method), phase), raw, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_phases_are_one_filter_at_four_places(method: Any, gen: torch.Generator) -> None:
    """A mosaic without its first column or row is one of another phase; away from the border nothing else changes."""
    raw = torch.rand(1, 1, 13, 14, generator=gen, dtype=torch.float64)
    whole = demosaic(raw, "RGGB", method)
    others: list[tuple[Phase, int, int]] = [("GRBG", 0, 1), ("GBRG", 1, 0), ("BGGR", 1, 1)]
    for phase, down, right in others:
        part = demosaic(raw[:, :, down:, right:], phase, method)
        torch.testing.assert_close(
            part[:, :, 4:-4, 4:-4], whole[:, :, down:, right:][:, :, 4:-4, 4:-4], rtol=0, atol=1e-14
        )


def test_bilinear_is_the_mean_of_the_nearest(gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 6, 8, generator=gen, dtype=torch.float64)
    image, seen = demosaic(raw, "RGGB", "bilinear")[0], raw[0, 0]
    assert float(image[1, 2, 4]) == pytest.approx(float(seen[1, 4] + seen[3, 4] + seen[2, 3] + seen[2, 5]) / 4)
    assert float(image[2, 2, 4]) == pytest.approx(float(seen[1, 3] + seen[1, 5] + seen[3, 3] + seen[3, 5]) / 4)
    assert float(image[0, 2, 3]) == pytest.approx(float(seen[2, 2] + seen[2, 4]) / 2)
    assert float(image[2, 2, 3]) == pytest.approx(float(seen[1, 3] + seen[3, 3]) / 2)


@pytest.mark.parametrize("phase", PHASES)
def test_bilinear_is_that_of_libraw(phase: Any, gen: torch.Generator) -> None:
    """But for the border, which it fills otherwise. It truncates to 16 bits, and reads the phase from the file."""
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "demosaic.py"))
    raw = torch.rand(1, 1, 48, 64, generator=gen)
    theirs = benchmark["by_libraw"](raw, phase, "LINEAR")
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(demosaic(raw, phase, "bilinear")[inside], theirs[inside], rtol=0, atol=4 / 65535)


# Malvar, He and Cutler 2004, Fig. 2, in sixteenths: green at red, red at green in a row of reds, red at blue.
PUBLISHED = {
    "green at red": ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0)),
    "red at green": ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0)),
    "red at blue": ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0)),
}


def test_malvar_has_the_published_filters(gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 11, 13, generator=gen, dtype=torch.float64)
    found = demosaic(raw, "RGGB", "malvar")[0]
    padded = np.pad(raw[0, 0].numpy(), 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    by_filter = {name: (windows * np.array(taps)).sum((2, 3)) / 16 for name, taps in PUBLISHED.items()}
    turned = (windows * np.array(PUBLISHED["red at green"]).T).sum((2, 3)) / 16
    red, blue = (slice(0, None, 2), slice(0, None, 2)), (slice(1, None, 2), slice(1, None, 2))
    beside_red, below_red = (slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))
    for channel, site, expected in (
        (1, red, by_filter["green at red"]),
        (1, blue, by_filter["green at red"]),
        (0, beside_red, by_filter["red at green"]),
        (2, below_red, by_filter["red at green"]),
        (0, below_red, turned),
        (2, beside_red, turned),
        (0, blue, by_filter["red at blue"]),
        (2, red, by_filter["red at blue"]),
    ):
        np.testing.assert_allclose(found[channel].numpy()[site], expected[site], rtol=0, atol=1e-14)


@pytest.mark.parametrize("turned", [False, True])
def test_hamilton_adams_follows_an_edge(turned: bool) -> None:
    """A grey edge along the columns, or the rows: exact, where the others smear it."""
    edge = torch.where(torch.arange(12) < 5, 0.2, 0.8).double().expand(1, 3, 12, 12)
    edge = edge.transpose(2, 3) if turned else edge
    raw = mosaic(edge, "GRBG")
    torch.testing.assert_close(demosaic(raw, "GRBG", "hamilton-adams"), edge, rtol=0, atol=1e-12)
    assert float((demosaic(raw, "GRBG", "malvar") - edge).abs().max()) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_gradients_flow_through_the_demosaicing(method: Any, gen: torch.Generator) -> None:
    raw = torch.rand(1, 1, 5, 4, generator=gen, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: demosaic(x, "GBRG", method), raw)


def test_bayer_says_what_it_refuses() -> None:
    raw, image = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"Bayer phase: expected RGGB, GRBG, GBRG or BGGR, got 'RGBG'"):
        mosaic(image, "RGBG")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Bayer phase: expected one for each of 2 images, got 1"):
        demosaic(raw, ["RGGB"])
    with pytest.raises(ValueError, match=r"demosaic: .* mosaics of shape \(B, 1, H, W\), got \(2, 3, 4, 4\)"):
        demosaic(image, "RGGB")
    with pytest.raises(ValueError, match=r"spread: expected floating values, got torch.int64"):
        spread(raw.long(), "RGGB")
    with pytest.raises(ValueError, match=r"mosaic: expected a batch of shape \(B, 3, H, W\), got \(2, 1, 4, 4\)"):
        mosaic(raw, "RGGB")
    with pytest.raises(ValueError, match=r"demosaic: expected at least 2 x 2 photosites, got 1 x 4"):
        demosaic(raw[:, :, :1], "RGGB")
    with pytest.raises(ValueError, match=r"method bilinear, malvar or hamilton-adams, got 'ahd'"):
        demosaic(raw, "RGGB", "ahd")  # pyright: ignore[reportArgumentType]
