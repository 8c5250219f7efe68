"""Whether a target is still the person, the scene and the light of its photo, measured without an original.

Detail that a photo does not show is the target's own to invent. So target, restored photo and photo are compared under
the photo's own blur: the least under which photo and restored photo agree. What the target lost there was in the photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.blur.labels import std_labels
from adapt.faces.landmarks import Landmarks
from adapt.faces.measures import identity_distance, landmark_distance
from adapt.faces.recogniser import FaceIdentifier
from adapt.targets.prior_score import fine_detail
from degradations.cosines import gaussian_blur

AGREES: Final = 0.0225  # mean absolute difference in [0, 1]: as of the tiny estimator's labels
BLOCKS: Final = 16  # along a side: a beard or an eye is two or three of them
FLAT: Final = 1e-4  # fine detail below which there is nothing to be lost


@dataclass(frozen=True, slots=True)
class FaceNetworks:
    """The networks that tell people apart.

    Attributes:
        recogniser: whose face it is.
        landmarks: where its eyes, nose and mouth are.
    """

    recogniser: FaceIdentifier
    landmarks: Landmarks


@dataclass(frozen=True, slots=True)
class Likeness:
    """How far a target went from its photo.

    Attributes:
        own_std: the photo's own blur, in pixels, under which all but `colour` and `sharpness` are measured.
        identity: distance of its embedding from the restored photo's or the photo's, whichever is nearer, over that
            from which a face is somebody else's (`lost_from` of the recogniser): the same line for every recogniser.
        landmarks: mean distance of its 68 points from the restored photo's, in shares of the eye distance.
        departure: by how much farther it is from the photo than the restored photo is, mean absolute difference in
            [0, 1]; negative where it is nearer.
        region: the largest change of one of 16 x 16 blocks against the restored photo or the photo, whichever is
            nearer, mean absolute difference in [0, 1].
        colour: the largest change of the mean of R, G or B against the restored photo, in [0, 1].
        sharpness: its fine detail over that of the restored photo.
    """

    own_std: float
    identity: float
    landmarks: float
    departure: float
    region: float
    colour: float
    sharpness: float


@torch.no_grad()
def likeness(target: Tensor, towards: Tensor, photo: Tensor, networks: FaceNetworks) -> Likeness:
    """What a target kept; images (3, H, W) in [0, 1], on the networks' device.

    Args:
        target: to be judged.
        towards: what it was sampled towards: the restored photo, or the photo in its place.
        photo: the damaged photo.
        networks: that tell people apart.
    """
    sharp = torch.stack([target, towards, photo])
    std = std_labels(towards[None], photo[None], xi=AGREES)
    blurred = gaussian_blur(sharp, std.to(sharp).expand(3)).clamp(0, 1)
    made, restored, given = blurred.split(1)
    blocks = F.adaptive_avg_pool2d(blurred, BLOCKS)
    changes = torch.stack([(blocks[0] - other).abs().mean(0) for other in blocks[1:]])
    embedded = (identity_distance(made, other, networks.recogniser) for other in (restored, given))
    departures = (blurred[:2] - blurred[2]).abs().mean(dim=(1, 2, 3))
    details = fine_detail(sharp[:2])
    return Likeness(
        own_std=float(std),
        identity=min(float(distance) for distance in embedded) / networks.recogniser.lost_from,
        landmarks=float(landmark_distance(made, restored, networks.landmarks)),
        departure=float(departures[0] - departures[1]),
        region=float(changes.amin(0).amax()),
        colour=float((target - towards).mean(dim=(1, 2)).abs().amax()),
        sharpness=float(details[0] / details[1].clamp(min=FLAT)),
    )
