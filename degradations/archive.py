"""What happens to photographs in albums, newspapers and on screens: tone, ink, scratches, dust, lines, few levels.

All functions take one image (3, H, W) in [0, 1] and give one back; none draws but from the seeds it is given. They
are models of our own; the sentences say what they leave out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from degradations.camera.steps import to_linear, to_tone
from degradations.fields import smooth_field
from degradations.filters import check_one

BLACK_DENSITY = 2.2  # of the blackest print; reflectance is 10^-density


# ---------------------------------------------------------------- tone


def one_colour(image: Tensor, red: float, blue: float) -> Tensor:
    """Grey, as a film sees it: `red` and `blue` are what these colours are worth, green takes the rest of 1.

    Weights of 0.299 and 0.114 are luma; film before about 1930 saw no red, so that lips and skin came out dark.

    Raises:
        ValueError: weights that are negative or sum to more than 1.
    """
    check_one(image, "grey")
    if min(red, blue) < 0 or red + blue > 1:
        raise ValueError(f"grey: expected weights of 0 or more with a sum of at most 1, got red {red}, blue {blue}")
    weights = image.new_tensor([red, 1 - red - blue, blue])[:, None, None]
    return (image * weights).sum(0, keepdim=True).expand_as(image).contiguous()


def faded(image: Tensor, *, cyan: float, magenta: float, yellow: float, stain: float) -> Tensor:
    """A colour print whose dyes have faded, on paper that has yellowed.

    Density, the logarithm of the light that a print swallows, is in proportion to its dye, so each layer's density is
    multiplied by the share of dye that is left; paper white stays and black becomes grey. Cyan goes first in most
    prints, which turns them red. Differs from the real thing: dyes swallow some light of the other colours as well.

    Args:
        image: (3, H, W) in [0, 1].
        cyan, magenta, yellow: share of each dye that is left, 0 to 1.
        stain: density that old paper adds in blue; a third of it in green.
    """
    check_one(image, "fading")
    left = image.new_tensor([cyan, magenta, yellow])[:, None, None]
    added = image.new_tensor([0.0, stain / 3, stain])[:, None, None]
    density = -to_linear(image, "srgb").clamp(min=10**-BLACK_DENSITY).log10()
    return to_tone((10 ** -(density * left + added)).clamp(0, 1), "srgb")


def sepia(image: Tensor, strength: float) -> Tensor:
    """A grey print toned brown: of the silver's density a part becomes one that swallows blue more than red.

    Args:
        image: (3, H, W) in [0, 1]; its luma is what is printed.
        strength: 0 leaves it grey, 1 is a fully toned print.
    """
    check_one(image, "sepia")
    grey = one_colour(image, 0.299, 0.114)
    layers = 1 + strength * image.new_tensor([-0.25, 0.0, 0.4])[:, None, None]
    density = -to_linear(grey, "srgb").clamp(min=10**-BLACK_DENSITY).log10()
    return to_tone((10 ** -(density * layers)).clamp(0, 1), "srgb")


def few_levels(image: Tensor, levels: int) -> Tensor:
    """Each channel rounded to so many even levels, black and white among them: smooth shades break into bands.

    Raises:
        ValueError: fewer than two levels.
    """
    check_one(image, "banding")
    if levels < 2:
        raise ValueError(f"banding: expected two levels or more, got {levels}")
    return (image * (levels - 1)).round() / (levels - 1)


# ---------------------------------------------------------------- lines and dots


def scan_lines(image: Tensor, *, period: float, depth: float, phase: float) -> Tensor:
    """Dark lines across, as between the rows of a tube: light times 1 - depth in the middle of each gap.

    Args:
        image: (3, H, W) in [0, 1].
        period: from line to line in pixels, 2 or more.
        depth: share of the light that is missing where it is darkest, 0 to 1.
        phase: where the first line lies, as a share of the period.

    Raises:
        ValueError: a period that the pixels cannot hold.
    """
    check_one(image, "scan lines")
    if period < 2:
        raise ValueError(f"scan lines: expected a period of at least 2 pixels, got {period:g}")
    rows = torch.arange(image.shape[1], dtype=torch.float64)
    dark = 0.5 - 0.5 * torch.cos(2 * math.pi * (rows / period + phase))
    return to_tone(to_linear(image, "srgb") * (1 - depth * dark).to(image)[:, None], "srgb")


def halftone(image: Tensor, *, period: float, angle: float, phase: tuple[float, float], coloured: bool) -> Tensor:
    """Printed in dots of one size of grid and many sizes of ink; their area gives each tone its light.

    Args:
        image: (3, H, W) in [0, 1].
        period: from dot to dot in pixels, 2 or more.
        angle: of the grid in radians. Coloured prints turn it by 15, 75 and 0 degrees for cyan, magenta and yellow.
        phase: shift of the grid in periods, along both of its axes.
        coloured: three inks; otherwise black ink, by luma.

    Raises:
        ValueError: a period that the pixels cannot hold.

    Differs from the real thing: inks are perfect, lie exactly over each other and do not spread in the paper.
    """
    check_one(image, "halftone")
    if period < 2:
        raise ValueError(f"halftone: expected a period of at least 2 pixels, got {period:g}")
    light = to_linear(image if coloured else one_colour(image, 0.299, 0.114), "srgb")
    turns = (math.radians(15), math.radians(75), 0.0) if coloured else (0.0,)
    inked = [_screened(light[channel], period, angle + turn, phase) for channel, turn in enumerate(turns)]
    return to_tone(torch.stack(inked if coloured else inked * 3), "srgb")


def _screened(light: Tensor, period: float, angle: float, phase: tuple[float, float]) -> Tensor:
    """White paper where the light is over the screen; each pixel with the share of it that is white."""
    fine = 4  # points for each pixel's side
    height, width = light.shape
    y = (torch.arange(height * fine, dtype=torch.float64)[:, None] + 0.5) / fine
    x = (torch.arange(width * fine, dtype=torch.float64)[None, :] + 0.5) / fine
    across = (x * math.cos(angle) - y * math.sin(angle)) / period + phase[0]
    along = (x * math.sin(angle) + y * math.cos(angle)) / period + phase[1]
    screen = torch.cos(2 * math.pi * across) + torch.cos(2 * math.pi * along)
    # The share of a cell below each threshold, so that a tone's area of white is its light.
    steps = (torch.arange(256, dtype=torch.float64) + 0.5) / 256 * 2 * math.pi
    cell = (steps.cos()[:, None] + steps.cos()[None, :]).flatten().sort().values
    thresholds = cell[(light.double().cpu().clamp(0, 1) * (len(cell) - 1)).long()]
    thresholds = torch.where(light.cpu() <= 0, -3.0, torch.where(light.cpu() >= 1, 3.0, thresholds))
    white = screen <= thresholds.repeat_interleave(fine, 0).repeat_interleave(fine, 1)
    return white.view(height, fine, width, fine).double().mean((1, 3)).to(light)


# ---------------------------------------------------------------- scratches and dust


def scratched(image: Tensor, seed: int, *, count: int, width: float, tone: float, upright: bool) -> Tensor:
    """Scratches: long thin lines, waving a little, here and there interrupted.

    Args:
        image: (3, H, W) in [0, 1].
        seed: of their places.
        count: how many.
        width: of each in pixels, varied by half.
        tone: what is at the bottom of a scratch: 1 the white of bare paper, 0 black.
        upright: along the running film, within 3 degrees; otherwise in all directions, and shorter.
    """
    check_one(image, "scratches")
    generator = torch.Generator().manual_seed(seed)
    height, columns = image.shape[1:]
    y, x = _pixel_grid(height, columns)
    diagonal = math.hypot(height, columns)
    cover = torch.zeros(height, columns, dtype=torch.float64)
    for index in range(count):
        place_y, place_x, turn, long, wide, wave, strength = torch.rand(
            7, generator=generator, dtype=torch.float64
        ).tolist()
        angle = math.radians(90 + 6 * (turn - 0.5)) if upright else math.pi * turn
        half = diagonal * (0.5 + long if upright else 0.05 + 0.3 * long) / 2
        from_y, from_x = y - place_y * height, x - place_x * columns
        along = from_x * math.cos(angle) + from_y * math.sin(angle)
        aside = from_y * math.cos(angle) - from_x * math.sin(angle)
        amplitude = 0.004 * diagonal * wave
        bent = aside - amplitude * torch.sin(along / (0.12 * diagonal) + 2 * math.pi * wave)
        line = (width * (0.5 + wide) / 2 + 0.5 - bent.abs()).clamp(0, 1)
        ends = ((half - along.abs()) / (0.1 * half + 1)).clamp(0, 1)
        gaps = smooth_field((height, columns), 0.03 * diagonal, seed % 2**52 + index + 1)[0].double()
        cover = torch.maximum(cover, line * ends * (gaps + 1.2).clamp(0, 1) * (0.4 + 0.6 * strength))
    return _laid_over(image, cover, tone)


def dusty(image: Tensor, seed: int, *, count: int, radius: float, tone: float) -> Tensor:
    """Dust: small ragged specks.

    Args:
        image: (3, H, W) in [0, 1].
        seed: of their places and shapes.
        count: how many.
        radius: in pixels of the largest; most are far smaller.
        tone: 1 the white that dust on a negative leaves, 0 the black of dust on the print.
    """
    check_one(image, "dust")
    generator = torch.Generator().manual_seed(seed)
    height, columns = image.shape[1:]
    cover = torch.zeros(height, columns, dtype=torch.float64)
    for _ in range(count):
        place_y, place_x, size, flat, turn, ragged, strength = torch.rand(
            7, generator=generator, dtype=torch.float64
        ).tolist()
        middle_y, middle_x = place_y * height, place_x * columns
        reach = radius * (0.15 + 0.85 * size**3)
        far = math.ceil(1.5 * reach) + 1
        rows = slice(max(0, int(middle_y) - far), min(height, int(middle_y) + far + 1))
        across = slice(max(0, int(middle_x) - far), min(columns, int(middle_x) + far + 1))
        y = torch.arange(rows.start, rows.stop, dtype=torch.float64)[:, None] + 0.5 - middle_y
        x = torch.arange(across.start, across.stop, dtype=torch.float64)[None, :] + 0.5 - middle_x
        angle = torch.atan2(y, x) - math.pi * turn
        shape = 1 / torch.sqrt(angle.cos() ** 2 + (angle.sin() / (0.4 + 0.6 * flat)) ** 2)
        edge = reach * shape * (1 + 0.25 * torch.sin(3 * angle + 7 * ragged) + 0.15 * torch.sin(5 * angle + 9 * turn))
        speck = (edge + 0.5 - torch.hypot(x, y)).clamp(0, 1) * (0.5 + 0.5 * strength)
        cover[rows, across] = torch.maximum(cover[rows, across], speck)
    return _laid_over(image, cover, tone)


def _pixel_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the middles of pixels, (H, 1) and (1, W)."""
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    return y, torch.arange(width, dtype=torch.float64)[None, :] + 0.5


def _laid_over(image: Tensor, cover: Tensor, tone: float) -> Tensor:
    return image + cover.to(image) * (tone - image)
