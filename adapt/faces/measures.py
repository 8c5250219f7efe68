"""What is kept of a face: pure functions of aligned images, one value per image.

All take aligned faces, (B, 3, S, S) in [0, 1], aligned as those of FFHQ are, and are differentiable. Identity and
landmarks are compared by networks that this project did not train; their names belong beside every number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.errors import ShapeError
from adapt.faces.landmarks import Landmarks, eye_distance
from adapt.faces.recogniser import FaceIdentifier, cosine_similarity
from adapt.images import check_image


def identity_similarity(a: Tensor, b: Tensor, recogniser: FaceIdentifier) -> Tensor:
    """Cosine of the embeddings of two faces, (B,) in [-1, 1]; higher is better.

    Protocol: the middle of each face, from 10 % to 90 % of both sides, at 150 px. With dlib's network strangers
    are at 0.92 on average and two photos of one person at 0.99: read `identity_distance` beside it.

    Raises:
        ShapeError, RangeError: not two batches of square images, as many in one as in the other, in [0, 1].
    """
    return cosine_similarity(*_embedded(a, b, recogniser))


def identity_distance(a: Tensor, b: Tensor, recogniser: FaceIdentifier) -> Tensor:
    """The recogniser's distance of the embeddings of two faces, (B,); 0 for equal ones. The pack's is Euclidean: 0.19
    for two photos of one person and 0.55 for strangers, on average over 60 people of the London set at 128 or 256 px.
    ArcFace's is one less the cosine.

    Protocol and errors as for `identity_similarity`; lower is better.
    """
    return recogniser.distance(*_embedded(a, b, recogniser))


def identity_angle(a: Tensor, b: Tensor, recogniser: FaceIdentifier) -> Tensor:
    """The angle between the embeddings of two faces (Deg.), (B,) in [0, 180] degrees; lower is better.

    Protocol and errors as for `identity_similarity`.
    """
    return identity_similarity(a, b, recogniser).clamp(-1, 1).acos().rad2deg()


def person_lost(a: Tensor, b: Tensor, recogniser: FaceIdentifier) -> Tensor:
    """1 where two faces are as far apart as those of strangers, else 0: (B,); the recogniser's `lost_from` decides.

    Protocol and errors as for `identity_similarity`; lower is better.
    """
    return (identity_distance(a, b, recogniser) > recogniser.lost_from).double()


def embeddings(faces: Tensor, recogniser: FaceIdentifier) -> Tensor:
    """Embeddings (B, D) whose Euclidean distances order people as the recogniser's own distance does.

    Args:
        faces: as above.
        recogniser: whose embeddings; where the angle alone tells people apart, they are brought to the length 1.
    """
    found = recogniser.of_aligned(faces)
    return F.normalize(found, dim=-1) if recogniser.by_angle else found


def rank_among(restored: Tensor, gallery: Tensor) -> Tensor:
    """Which place its own original has among all, by how near they are to each restored photo: (N,), 1 is the first.

    Args:
        restored, gallery: embeddings, (N, D); row i on both sides is one photo's.
    """
    distances = torch.cdist(restored.double(), gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")
    own = distances.diagonal()[:, None]
    return 1 + (distances < own).sum(1)


def identity_loss(restored: Tensor, target: Tensor, recogniser: FaceIdentifier) -> Tensor:
    """The same distance, for training: (B,).

    Differs: `restored` may leave [0, 1], as the output of a network in training does; and gradients reach it alone.
    """
    with torch.autocast(restored.device.type, enabled=False):
        with torch.no_grad():
            known = recogniser.unchecked(target.float())
        return recogniser.distance(recogniser.unchecked(restored.float()), known)


def _embedded(a: Tensor, b: Tensor, recogniser: FaceIdentifier) -> tuple[Tensor, Tensor]:
    _check_as_many(a, b, "identity")
    return recogniser.of_aligned(a), recogniser.of_aligned(b)


def landmark_distance(a: Tensor, b: Tensor, landmarks: Landmarks) -> Tensor:
    """Mean distance of the 68 points of `a` from those of `b` (LMD), (B,) in shares of b's eye distance.

    0.04 between a neutral face and a smiling one of the same person, 0.08 between strangers, on average (as above).

    Protocol: points as `Landmarks.of_aligned` finds them; the eye distance is between the middles of the six points of
    each eye, of the face in `b`. Lower is better.

    Raises:
        ShapeError, RangeError: not two batches of one shape, square, in [0, 1].
    """
    _check_as_many(a, b, "landmarks")
    if a.shape != b.shape:
        raise ShapeError(f"landmarks: expected two batches of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    points, reference = landmarks.of_aligned(a), landmarks.of_aligned(b)
    return torch.linalg.vector_norm(points - reference, dim=-1).mean(1) / eye_distance(reference)


def _check_as_many(a: Tensor, b: Tensor, name: str) -> None:
    check_image(a, f"{name}: the first batch")
    check_image(b, f"{name}: the second batch")
    if len(a) != len(b):
        raise ShapeError(f"{name}: expected as many faces in both batches, got {len(a)} and {len(b)}")
