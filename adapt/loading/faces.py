"""Face networks: a pack's own, the embedded pack's where it has none, or a user's file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapt.packs.named import NamedWeights, named_network
from adapt.packs.pack import Pack
from adapt.settings.paths import weights_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from adapt.evaluation.inputs import Networks
    from adapt.faces.arcface import ArcFace
    from adapt.faces.detector import FaceDetector
    from adapt.faces.find import FaceFinder
    from adapt.faces.landmarks import Landmarks
    from adapt.faces.mtcnn import CascadeDetector
    from adapt.faces.recogniser import FaceIdentifier, Recogniser
    from adapt.targets.likeness import FaceNetworks


def load_recogniser(name: str | Path) -> FaceIdentifier:
    """A face recogniser by pack name, pack folder (the embedded pack's, where it has none), a file of such weights, an
    ArcFace file in the public layout, or, for scores alone, an ONNX file as insightface passes them on.

    Raises:
        UsageError: no such pack or file.
        WeightsError: weights that cannot be read or do not fit.
    """
    return read_recogniser(name)[0]


def read_recogniser(name: str | Path) -> tuple[FaceIdentifier, str]:
    """As `load_recogniser`, and the digest of what was loaded."""
    from adapt.faces.entries import RECOGNISER
    from adapt.faces.onnx_recogniser import SUFFIX

    if Path(name).suffix.lower() == SUFFIX and Path(name).is_file():
        return _onnx_recogniser(Path(name))
    named = named_face_network(name, RECOGNISER)
    read = named.read()
    return _recogniser(named.label, read.state, read.metadata), read.digest


def named_face_network(name: str | Path, entry: str) -> NamedWeights:
    """As `adapt.packs.named.named_network`, but a face network that a pack lacks is the embedded one's: they take faces
    of any size."""
    from adapt.faces.entries import ARCHITECTURES

    named = named_network(name, entry)
    if entry in ARCHITECTURES and named.pack is not None and entry not in named.pack.card.networks:
        return named_network("tiny", entry)
    return named


def _onnx_recogniser(path: Path) -> tuple[FaceIdentifier, str]:
    """The recogniser in an ONNX file, and the file's digest. Raises WeightsError: it holds none."""
    from adapt.digests import bytes_digest
    from adapt.errors import VerificationError, WeightsError
    from adapt.exporting.onnx import open_session
    from adapt.faces.onnx_recogniser import build_onnx_recogniser
    from adapt.weights import read_bytes

    data = read_bytes(path)
    try:
        session = open_session(path, data=data)
    except VerificationError as error:
        raise WeightsError(f"{path}: not an ONNX model that can be run ({error})") from error
    return build_onnx_recogniser(str(path), session, data), bytes_digest(data)


def _recogniser(name: str, state: dict[str, Tensor], header: dict[str, str]) -> Recogniser | ArcFace:
    """What a file's tensors are; raises WeightsError: of no layout that is known."""
    from adapt.faces.arcface import build_arcface, is_arcface
    from adapt.faces.recogniser import build_recogniser

    return build_arcface(name, state) if is_arcface(state) else build_recogniser(name, state, header)


def load_landmarks(name: str | Path) -> Landmarks:
    """A network of 68 landmarks by pack name, pack folder, or a file of such weights; errors as above."""
    from adapt.faces.entries import LANDMARKS
    from adapt.faces.landmarks import build_landmarks

    return build_landmarks(*read_parts(name, LANDMARKS))


def load_detector(
    name: str | Path, kind: Literal["mtcnn", "ssd", "tiny"] = "mtcnn"
) -> FaceDetector | CascadeDetector:
    """A face detector by pack name, pack folder, or a file of such weights; errors as above.

    Args:
        name: what to load.
        kind: which of a pack's; a file's header says which it is.
    """
    from adapt.faces.detector import build_detector
    from adapt.faces.entries import DETECTORS

    return build_detector(*read_parts(name, DETECTORS[kind]))


def load_face_finder(
    name: str | Path, device: torch.device | str = "cpu", *, kind: Literal["mtcnn", "ssd", "tiny"] = "mtcnn",
    min_face: float | None = None, min_score: float | None = None,
) -> FaceFinder:
    """What finds the faces of photographs, of a pack's networks; errors as above.

    Args:
        name: the pack.
        device: where they compute.
        kind: as `load_detector`.
        min_face, min_score: as `adapt.faces.find.FaceFinder`; where None its default, and the detector's.
    """
    from dataclasses import replace

    from adapt.faces.find import MIN_FACE, FaceFinder

    detector = load_detector(name, kind).to(device)
    finder = FaceFinder(
        detector=detector,
        landmarks=load_landmarks(name).to(device),
        min_face=MIN_FACE if min_face is None else min_face,
        min_score=detector.scores.least if min_score is None else min_score,
        scores=detector.scores,
    )
    return replace(finder, detector=replace(detector, min_score=finder.min_score))


def read_parts(name: str | Path, entry: str) -> tuple[str, dict[str, Tensor], dict[str, str]]:
    """What to call a network of a pack, its tensors and its header; of a face network as `named_face_network`."""
    named = named_face_network(name, entry)
    read = named.read()
    return named.label, read.state, read.metadata


def measuring_networks(pack: Pack, recogniser: str | Path | None = None) -> Networks:
    """The face networks by which `adapt.evaluation` measures: a pack's own, or the embedded one's where it has none; or
    a recogniser that is named, as `load_recogniser`.

    They take faces of any size, and load when the first metric asks for them.
    """
    from adapt.evaluation.inputs import Measuring, Networks
    from adapt.faces.entries import LANDMARKS, RECOGNISER

    loads: dict[str, Callable[[Path], FaceIdentifier | Landmarks]] = {
        RECOGNISER: load_recogniser, LANDMARKS: load_landmarks
    }

    def measuring(entry: str) -> Measuring:
        if entry == RECOGNISER and recogniser is not None:
            network, digest = read_recogniser(recogniser)
            return Measuring(network.name, digest, network)
        home = named_face_network(pack.folder, entry).pack
        assert home is not None
        architecture = home.network(entry).architecture
        return Measuring(f"{home.card.name} {architecture}", home.network_digest(entry), loads[entry](home.folder))

    return Networks({entry: partial(measuring, entry) for entry in loads})


def load_face_networks(pack: str | Path, device: torch.device) -> tuple[FaceNetworks, str]:
    """What the gate tells people apart by, of the pack or of the embedded one where it has none, and a digest that
    stands for it. A prior's checkpoint file has no such networks."""
    from adapt.digests import settings_digest
    from adapt.faces.entries import LANDMARKS, RECOGNISER
    from adapt.targets.likeness import FaceNetworks

    home = "tiny" if weights_file(Path(pack)) is not None else pack
    networks = FaceNetworks(load_recogniser(home).to(device), load_landmarks(home).to(device))
    digests = {entry: named_face_network(home, entry).digest() for entry in (RECOGNISER, LANDMARKS)}
    return networks, settings_digest(digests)


def build_face_network(
    entry: str, name: str, state: dict[str, Tensor], header: dict[str, str]
) -> Recogniser | ArcFace | Landmarks | FaceDetector | CascadeDetector:
    """What an entry of a pack must be, by the entry's name; raises WeightsError as the networks' own builders do."""
    from adapt.faces.detector import build_detector
    from adapt.faces.entries import LANDMARKS, RECOGNISER
    from adapt.faces.landmarks import build_landmarks

    builders = {RECOGNISER: _recogniser, LANDMARKS: build_landmarks}
    return builders.get(entry, build_detector)(name, state, header)
