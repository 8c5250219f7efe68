"""Where guidance acts along the way to a target, kept to be looked at.

The guidance adjuster's maps (DynFaceRestore Fig. 12), and the mask of identity guidance (Diffuse and Restore Fig. 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from adapt.diffusion.sampler import StepRecord
from adapt.errors import ShapeError
from adapt.guidance.gaussian_blur import BlurMemory
from adapt.guidance.identity import IdentityMemory
from adapt.images import to_unit

SHOWN_STEPS: Final = 5

# Fig. 12: blue where the prior is free, red where the guidance holds it; white is halfway.
_FREE = (0.13, 0.30, 0.78)
_HELD = (0.80, 0.10, 0.15)


class MapSnapshot(NamedTuple):
    """What is shown of one timestep of a face's way.

    Attributes:
        t: the timestep.
        clean: the clean image there, (3, H, W) in [0, 1], on the CPU.
        scale: the map or mask as an image (`map_image`), the same shape and range.
    """

    t: int
    clean: Tensor
    scale: Tensor


def map_image(scale: Tensor) -> Tensor:
    """A map as an image, as in Fig. 12: blue is 0, white one half, red 1.

    Args:
        scale: (C, H, W) or (B, C, H, W) in [0, 1]; the mean over channels is shown.

    Returns:
        (3, H, W) or (B, 3, H, W) in [0, 1].

    Raises:
        ShapeError: neither.
    """
    if scale.ndim not in (3, 4):
        raise ShapeError(f"guidance map: expected a map (C, H, W) or a batch of them, got {tuple(scale.shape)}")
    height = scale.detach().float().mean(dim=-3, keepdim=True).clamp(0, 1)
    free, held = (torch.tensor(colour).to(height).view(3, 1, 1) for colour in (_FREE, _HELD))
    return torch.where(height < 0.5, free + 2 * height * (1 - free), 1 + (2 * height - 1) * (held - 1))


class MapWatch:
    """Sees every step of trajectories of one photo each, and keeps few: the first, the last, and some evenly between.

    Args:
        photos: how many trajectories there are.

    Attributes:
        seen: of each trajectory at most `SHOWN_STEPS` timesteps, in the order of the steps; none where no map guided.
    """

    def __init__(self, photos: int) -> None:
        self.seen: list[list[MapSnapshot]] = [[] for _ in range(photos)]
        self._taken = [0] * photos

    def __call__(self, record: StepRecord) -> None:
        """One step; its clean image is the one after the terms that act on it, towards which the step goes."""
        taken = self._taken[record.trajectory]
        self._taken[record.trajectory] += 1
        if taken not in shown_steps(taken + 1 + record.left):
            return
        for scale in guidance_maps(record.memory):
            clean = to_unit(record.x0)[0].float().cpu()
            self.seen[record.trajectory].append(MapSnapshot(record.step.t, clean, map_image(scale[0]).cpu()))


def shown_steps(steps: int) -> set[int]:
    """Which of a trajectory's steps are shown, as evenly spread as whole numbers allow; all where there are few."""
    gaps = min(SHOWN_STEPS, steps) - 1
    return {round(index * (steps - 1) / gaps) for index in range(gaps + 1)} if gaps else {0}


def guidance_maps(memories: Sequence[object]) -> list[Tensor]:
    """Maps and masks among the memories of a step's terms, each (B, 3, H, W) or (B, 1, H, W) in [0, 1]."""
    scales = [memory.scale_map for memory in memories if isinstance(memory, BlurMemory)]
    masks = [memory.mask for memory in memories if isinstance(memory, IdentityMemory)]
    return [scale for scale in scales if scale is not None] + masks
