"""Evidence on restored photos that needs no originals: of each kind one number per photo.

Three sources, none of which is the targets' own agreement:

- the photo: what both can show must stay. It is believed as far as photo and restored photo agree: where a photo is
  mostly noise, a model that follows it is no better for that;
- the prior: how much of the image's coarse structure it would change;
- a trial: known faces, of nobody in the photos, under the damage of these photos. There the truth is known.

Source: none of the papers. Which kinds there are, `EVIDENCE` tells; what they weigh, a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from adapt.blur.labels import std_labels, std_limits
from adapt.blur.linear import linear_damage
from adapt.devices import full_precision
from adapt.diffusion.prior import Predictor
from adapt.evaluation.metrics import sharpness
from adapt.faces.landmarks import Landmarks
from adapt.faces.measures import identity_distance, landmark_distance
from adapt.faces.recogniser import FaceIdentifier
from adapt.images import clamped
from adapt.targets.likeness import AGREES
from adapt.targets.prior_score import score_by_prior
from adapt.targets.restored import match_light_of_noisy
from adapt.targets.rings import image_of, power_in, rings_of, spectrum_of
from degradations.cosines import gaussian_blur

NOISY: Final = 5.0  # noise in colours from which a photo's light is its scene's; the pack's `adaptive` has the same


class Distance(Protocol):
    """A perceptual distance: (B, 3, H, W) twice in [0, 1] -> (B,)."""

    def __call__(self, a: Tensor, b: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceNetworks:
    """The networks that are asked.

    Attributes:
        prior: of faces of the photos' size.
        recogniser, landmarks: of aligned faces of any size.
        distance: the perceptual distance.
    """

    prior: Predictor
    recogniser: FaceIdentifier
    landmarks: Landmarks
    distance: Distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A photo, and a trial under its damage, as every model is shown them.

    Attributes:
        photo: (1, 3, S, S) in [0, 1].
        std: the photo's own blur level in pixels, (1,): the least under which it and what the base makes of it agree.
        trust: how far the photo is believed, from 1 at the least blur level to 0 at the largest.
        seed: of the noise under which the prior sees what is made of it.
        known: a clean face, as the photo.
        trial: that face under the photo's damage.
    """

    photo: Tensor
    std: Tensor
    trust: float
    seed: int
    known: Tensor
    trial: Tensor


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a model makes of a sample: of the photo and of the trial, (1, 3, S, S) in [0, 1]."""

    photo: Tensor
    trial: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One kind of evidence.

    Attributes:
        key: its name in recipes and files.
        title: in tables.
        better: which direction speaks for a model.
        measure: gives a number, not negative.
        by_photo: it counts as far as the photo is believed.
        gained, lost: what a gain or a loss means.
    """

    key: str
    title: str
    better: Literal["higher", "lower"]
    measure: Callable[[Sample, Restoration, EvidenceNetworks], Tensor]
    by_photo: bool = False
    gained: str
    lost: str


def _at_its_blur(sample: Sample, restoration: Restoration) -> tuple[Tensor, Tensor]:
    """Restored image and photo at the photo's own blur level: what both can show."""
    return clamped(gaussian_blur(restoration.photo, sample.std)), clamped(gaussian_blur(sample.photo, sample.std))


def _identity(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    return identity_distance(*_at_its_blur(sample, restoration), networks.recogniser)


def _landmarks(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    return landmark_distance(restoration.photo, sample.photo, networks.landmarks)


def _consistency(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    restored, photo = _at_its_blur(sample, restoration)
    return (restored - photo).abs().mean()


def _prior(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    return score_by_prior(networks.prior, restoration.photo, [sample.seed]).change


def _sharpness(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    return sharpness(restoration.photo)


def _trial_error(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    return (restoration.trial - sample.known).square().mean().sqrt()


def _trial_distance(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    return networks.distance(restoration.trial, sample.known)


def _trial_identity(sample: Sample, restoration: Restoration, networks: EvidenceNetworks) -> Tensor:
    return identity_distance(restoration.trial, sample.known, networks.recogniser)


EVIDENCE: Final[dict[str, Evidence]] = {
    evidence.key: evidence
    for evidence in (
        Evidence(
            key="identity",
            title="identity distance to the photo, at its blur level",
            better="lower",
            measure=_identity,
            by_photo=True,
            gained="the person is nearer to the photo's",
            lost="the person moves away from the photo's",
        ),
        Evidence(
            key="landmarks",
            title="landmark distance to the photo",
            better="lower",
            measure=_landmarks,
            by_photo=True,
            gained="eyes, nose and mouth are nearer to where the photo has them",
            lost="eyes, nose and mouth move from where the photo has them",
        ),
        Evidence(
            key="consistency",
            title="difference to the photo, at its blur level",
            better="lower",
            measure=_consistency,
            by_photo=True,
            gained="what the photo shows is kept better",
            lost="what the photo shows is kept worse",
        ),
        Evidence(
            key="prior",
            title="change that the prior asks for",
            better="lower",
            measure=_prior,
            gained="the images look more like faces to the prior",
            lost="the images look less like faces to the prior",
        ),
        Evidence(
            key="trial_error",
            title="known faces under the photos' damage: root mean square error",
            better="lower",
            measure=_trial_error,
            gained="known faces under this damage come out nearer to the truth",
            lost="known faces under this damage come out farther from the truth",
        ),
        Evidence(
            key="trial_perceptual",
            title="known faces under the photos' damage: perceptual distance",
            better="lower",
            measure=_trial_distance,
            gained="known faces under this damage look more like themselves",
            lost="known faces under this damage look less like themselves",
        ),
        Evidence(
            key="trial_identity",
            title="known faces under the photos' damage: identity distance",
            better="lower",
            measure=_trial_identity,
            gained="known people under this damage are recognised better",
            lost="known people under this damage are recognised worse",
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


@dataclass(frozen=True, slots=True)
class Evaluator:
    """The networks of a pack, and what they show models.

    Attributes:
        networks: the networks.
        known: clean faces for trials, (N, 3, S, S) in [0, 1].
        device: where all of it is.
        reference: the pack's own restorer, by which the damage is known: (B, 3, S, S) in [0, 1] to the same; None
            where it has none, and the base stands in.
    """

    networks: EvidenceNetworks
    known: Tensor
    device: torch.device
    reference: Callable[[Tensor], Tensor] | None = None

    @full_precision()
    @torch.no_grad()
    def clean(self, photo: Tensor, base: Tensor) -> Tensor:
        """What a photo was before its damage, as nearly as the reference knows it, with a noisy photo's mean light.

        Restorers make dark tones of noise too bright and bright ones too dark, and damage known by such an image would
        have made that light: who gives it back, as targets do, would be wrong on the trials.

        Args:
            photo: (3, S, S) in [0, 1].
            base: what the base makes of it, the same; taken where there is no reference, or it gives no image.
        """
        own, found = photo[None].to(self.device), base[None].to(self.device)
        if self.reference is not None:
            asked = self.reference(own)
            found = asked if bool(asked.isfinite().all()) else found
        return match_light_of_noisy(found, own, NOISY)[0]

    @full_precision()
    @torch.no_grad()
    def as_soft_as(self, restored: Sequence[Tensor]) -> Tensor:
        """The known faces, as soft as restored photos, (N, 3, S, S).

        What damage took away for good is not in a restored photo either, so that a filter between both does not tell
        of it. In each ring of frequencies the known faces get the mean power of the restored ones, where that is less.

        Args:
            restored: of the photos what `clean` gives, (3, S, S) each.

        Returns:
            In their order, in no held range: a filter overshoots.
        """
        rings = rings_of(self.known)
        ours, theirs = (
            torch.stack([power_in(spectrum_of(each[None].to(self.device)), rings) for each in images]).mean(0)
            for images in (self.known, restored)
        )
        share = (theirs / ours.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1).sqrt()
        share[:, 0] = 1  # light and colour
        return image_of(spectrum_of(self.known) * share[:, rings].to(self.known)).to(self.known)

    @full_precision()
    @torch.no_grad()
    def sample(
        self, photo: Tensor, base: Tensor, *, clean: Tensor, soft: Tensor, place: int, seed: int
    ) -> Sample:
        """A photo as every model is shown it, with a trial under its damage.

        With y the photo, R(y) what the reference makes of it, L the filter that brings R(y) nearest to y
        (`adapt.blur.linear`) and z' a known face z made as soft as R(y) is, the trial is L(z') + y - L(R(y)), held to
        [0, 1]. The targets have no part in it: damage that they left in would be in no trial, and who learned to leave
        it in would pass.

        Args:
            photo: (3, S, S) in [0, 1].
            base: what the base makes of it, the same, finite.
            clean: R(y), of `clean`.
            soft: the known faces as soft, of `as_soft_as`.
            place: of the photo among all; it chooses the known face.
            seed: of the photo's noise.
        """
        own, restored = photo[None].to(self.device), base[None].to(self.device)
        low, high = std_limits(photo.shape[-1])
        std = std_labels(restored, own, xi=AGREES).to(own)
        nearest = clean[None].to(own)
        damage = linear_damage(nearest, own)
        chosen = place % len(self.known)
        known = self.known[chosen][None]
        trial = (damage(soft[chosen][None]) + own - damage(nearest)).clamp(0, 1)
        trust = 1 - (float(std) - low) / (high - low)
        return Sample(photo=own, std=std, trust=trust, seed=seed, known=known, trial=trial)

    @full_precision()
    @torch.no_grad()
    def measure(self, sample: Sample, restoration: Restoration) -> dict[str, float] | None:
        """All evidence on a model's restoration; None where that is not finite."""
        if not bool(restoration.photo.isfinite().all() and restoration.trial.isfinite().all()):
            return None
        own = Restoration(restoration.photo.to(self.device), restoration.trial.to(self.device))
        return {key: float(each.measure(sample, own, self.networks)) for key, each in EVIDENCE.items()}
