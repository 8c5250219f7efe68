"""Evidence on restored photos that needs no originals: of each kind one number per photo.

None of it comes from the targets: a student that agrees with bad targets gets no credit for it here. Which kinds there
are, `EVIDENCE` tells; what they weigh, a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from adapt.devices import full_precision
from adapt.diffusion.prior import Predictor
from adapt.evaluation.metrics import sharpness
from adapt.faces.landmarks import Landmarks
from adapt.faces.measures import identity_distance, landmark_distance
from adapt.faces.recogniser import Recogniser
from adapt.images import clamped
from adapt.targets.prior_score import score_by_prior
from degradations.blind import PUBLISHED_SIZE
from degradations.cosines import gaussian_blur

TYPICAL: Final = 6.0  # blur level in pixels at 512, where nothing estimates the photos' own


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """The networks that are asked.

    Attributes:
        prior: of faces of the photos' size.
        recogniser, landmarks: of aligned faces of any size.
    """

    prior: Predictor
    recogniser: Recogniser
    landmarks: Landmarks


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """Photos that one model restored.

    Attributes:
        photos, images: (B, 3, S, S) in [0, 1]; the second are the model's.
        stds: the photos' blur levels in pixels, (B,): the same for every model.
        seeds: of the noise under which the prior sees the images: the same for every model.
    """

    photos: Tensor
    images: Tensor
    stds: Tensor
    seeds: Sequence[int]

    @property
    def alike(self) -> tuple[Tensor, Tensor]:
        """Images and photos at the photos' own blur levels: what both can show."""
        return clamped(gaussian_blur(self.images, self.stds)), clamped(gaussian_blur(self.photos, self.stds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One kind of evidence.

    Attributes:
        key: its name in recipes and files.
        title: in tables.
        better: which direction speaks for a model.
        measure: gives one number per photo, (B,), not negative.
        gained, lost: what a gain or a loss means, as the end of "on these photos ...".
    """

    key: str
    title: str
    better: Literal["higher", "lower"]
    measure: Callable[[Restored, Judges], Tensor]
    gained: str
    lost: str


def _identity(restored: Restored, judges: Judges) -> Tensor:
    return identity_distance(*restored.alike, judges.recogniser)


def _landmarks(restored: Restored, judges: Judges) -> Tensor:
    return landmark_distance(restored.images, restored.photos, judges.landmarks)


def _consistency(restored: Restored, judges: Judges) -> Tensor:
    images, photos = restored.alike
    return (images - photos).abs().mean(dim=(1, 2, 3))


def _prior_change(restored: Restored, judges: Judges) -> Tensor:
    return score_by_prior(judges.prior, restored.images, restored.seeds).change


def _sharpness(restored: Restored, judges: Judges) -> Tensor:
    return sharpness(restored.images)


EVIDENCE: Final[dict[str, Evidence]] = {
    evidence.key: evidence
    for evidence in (
        Evidence(
            key="identity",
            title="identity distance to the photo, at its blur level",
            better="lower",
            measure=_identity,
            gained="the person is nearer to the photo's",
            lost="the person moves away from the photo's",
        ),
        Evidence(
            key="landmarks",
            title="landmark distance to the photo",
            better="lower",
            measure=_landmarks,
            gained="eyes, nose and mouth are nearer to where the photo has them",
            lost="eyes, nose and mouth move from where the photo has them",
        ),
        Evidence(
            key="consistency",
            title="difference to the photo, at its blur level",
            better="lower",
            measure=_consistency,
            gained="what the photo shows is kept better",
            lost="what the photo shows is kept worse",
        ),
        Evidence(
            key="prior",
            title="change that the prior asks for",
            better="lower",
            measure=_prior_change,
            gained="the images look more like faces to the prior",
            lost="the images look less like faces to the prior",
        ),
        Evidence(
            key="sharpness",
            title="sharpness",
            better="higher",
            measure=_sharpness,
            gained="the images are sharper",
            lost="the images are less sharp",
        ),
    )
}


@torch.no_grad()
def evidence_on(restored: Restored, judges: Judges) -> dict[str, list[float]]:
    """All evidence on a batch, photo by photo: no photo's numbers depend on the others in its batch."""
    return {key: each.measure(restored, judges).double().tolist() for key, each in EVIDENCE.items()}


@dataclass(frozen=True, slots=True)
class Shown:
    """A photo as the judges see it.

    Attributes:
        image: (1, 3, S, S) in [0, 1], on their device.
        std: its blur level in pixels, (1,).
        seed: of the noise under which the prior sees what is made of it.
    """

    image: Tensor
    std: Tensor
    seed: int


@dataclass(frozen=True, slots=True)
class Panel:
    """The judges of a pack with what tells them how blurred a photo is.

    Attributes:
        judges: the networks.
        levels: blur levels of photos (B, 3, S, S) in pixels, (B,).
        device: where they are.
    """

    judges: Judges
    levels: Callable[[Tensor], Tensor]
    device: torch.device

    @full_precision()
    def show(self, image: Tensor, seed: int) -> Shown:
        """A photo, (3, S, S) in [0, 1]; one whose blur level is not finite is taken for one of the typical level."""
        photo = image[None].to(self.device)
        std = self.levels(photo)
        typical = TYPICAL * image.shape[-1] / PUBLISHED_SIZE
        return Shown(photo, torch.where(std.isfinite(), std, typical), seed)

    @full_precision()
    def hear(self, photo: Shown, image: Tensor) -> dict[str, float]:
        """Their evidence on what a model made of the photo, (1, 3, S, S) in [0, 1]."""
        restored = Restored(photos=photo.image, images=image.to(self.device), stds=photo.std, seeds=[photo.seed])
        return {key: values[0] for key, values in evidence_on(restored, self.judges).items()}
