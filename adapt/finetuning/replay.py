"""Source replay: pairs like those of the restorer's first training, mixed into the batches against forgetting it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.errors import UsageError
from adapt.finetuning.data import SharpFaces
from degradations import chain
from degradations.blind import to_grey
from degradations.pieces.base import Degradation, Parameters


@dataclass(frozen=True, slots=True)
class Replay:
    """Clean faces and known damage, of which some of a batch's pairs are made anew at every step.

    Attributes:
        faces: clean aligned faces, the targets of these pairs.
        degradations: the damage; lengths are for 512 pixels.
        share: chance of each pair of a batch to be replaced by one of these, in (0, 1).
    """

    faces: SharpFaces
    degradations: Sequence[Degradation]
    share: float

    def mix(self, photos: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch of pairs, (B, 3, S, S) in [0, 1] each, with some of them replaced; everything random is drawn here.

        Raises:
            PhotoError: no face can be read.
            UsageError: the damage does not go with images of this size.
        """
        replaced = (torch.rand(len(photos), generator=generator) < self.share).nonzero().flatten().tolist()
        chosen = torch.randint(len(self.faces), (len(photos),), generator=generator).tolist()
        seeds = torch.randint(2**62, (len(photos),), generator=generator).tolist()
        photos, targets = photos.clone(), targets.clone()
        for place in replaced:
            face = self.faces.batch([chosen[place]])[0]
            try:
                photos[place], drawn = chain.degrade(face, self.degradations, seeds[place])
            except ValueError as error:
                raise UsageError(f"replay, {self.faces.paths[chosen[place]]}: {error}") from error
            targets[place] = to_grey(face[None])[0] if _grey(drawn) else face
        return photos, targets


def _grey(drawn: Sequence[Parameters]) -> bool:
    """Whether the ground truth of the blind degradation is grey: it drew so."""
    return any(each["name"] == "blind" and each.get("grey", False) for each in drawn)
