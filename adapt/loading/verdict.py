"""What a verdict asks: the networks of a pack, and known faces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapt.loading.faces import load_face_networks, named_face_network
from adapt.loading.networks import PRIOR, load_distance, load_prior, load_restorer
from adapt.packs.pack import Pack, load_pack

if TYPE_CHECKING:
    import torch

    from adapt.restorers.base import Restorer
    from adapt.verdict.evidence import Evaluator

KNOWN = Path(__file__).parents[1] / "known_faces"  # of nobody: those of trials


def load_evaluator(pack: str | Path, device: torch.device) -> Evaluator:
    """The networks that a verdict asks, on a device, and the known faces of its trials, at the pack's size.

    The faces are of nobody.
    """
    import torch

    from adapt.photos.folder import find_photos
    from adapt.photos.pairs import load_fitted
    from adapt.verdict.evidence import Evaluator, EvidenceNetworks

    opened = load_pack(pack)
    faces, _ = load_face_networks(pack, device)
    networks = EvidenceNetworks(
        prior=load_prior(pack).to(device),
        recogniser=faces.recogniser,
        landmarks=faces.landmarks,
        distance=load_distance(opened, _own_distance(opened)).to(device),
    )
    known = torch.stack([load_fitted(photo.path, opened.card.size) for photo in find_photos(_known(opened))]).to(device)
    reference = _reference(opened)
    if reference is None:
        return Evaluator(networks, known, device)
    return Evaluator(networks, known, device, reference.to(device))


def _known(pack: Pack) -> Path:
    """The folder of known faces: a pack's own, for they have to be as sharp as its size, else those that ship."""
    own = pack.folder / KNOWN.name
    return own if own.is_dir() else KNOWN


def _reference(pack: Pack) -> Restorer | None:
    """The restorer by which a verdict knows photos' damage: a pack's own, where it has one of its faces' size.

    A student's gain holds it back where a photo was damaged little, and what it leaves would be no damage: a model that
    changes nothing would look good on a trial. So the reference has none.
    """
    from dataclasses import replace

    from adapt.restorers.onestep import OneStep, without_gain

    if pack.card.restorer not in pack.card.networks:
        return None
    own = load_restorer(str(pack.folder))
    if own.size != pack.card.size:
        return None
    if isinstance(own.network, OneStep) and own.network.network.gain is not None:
        return replace(own, network=without_gain(own.network), digest=f"{own.digest}, without gain")
    return own


def _own_distance(pack: Pack) -> Literal["pack", "auto"]:
    """A pack's own perceptual distance where it has one, so that a verdict is the same on every machine."""
    return "pack" if "perceptual" in pack.card.networks else "auto"


def evaluator_digest(pack: str | Path) -> str:
    """Stands for all that `load_evaluator` gives."""
    from adapt.digests import file_digest, settings_digest
    from adapt.faces.entries import LANDMARKS, RECOGNISER
    from adapt.photos.folder import find_photos
    from adapt.verdict.evidence import NOISY

    opened = load_pack(pack)
    networks = opened.card.networks
    own = {entry: opened.network_digest(entry) for entry in (PRIOR,) if entry in networks}
    faces = {entry: named_face_network(opened.folder, entry).digest() for entry in (RECOGNISER, LANDMARKS)}
    distance = load_distance(opened, _own_distance(opened)).digest
    reference = _reference(opened)
    more: dict[str, Any] = {} if reference is None else {"reference": reference.digest}
    if (known := _known(opened)) != KNOWN:
        more["known"] = [file_digest(photo.path) for photo in find_photos(known)]
    return settings_digest({**own, **faces, **more, "distance": distance, "noisy": NOISY})
