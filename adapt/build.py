"""Names to objects: the one module that sees every room."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from adapt.digests import bytes_digest
from adapt.errors import WeightsError
from adapt.packs.named import NamedWeights, named_network, named_restorer
from adapt.packs.pack import Pack, load_pack
from adapt.settings.paths import ONNX, is_bundle, weights_file
from adapt.weights import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from adapt.blur.adjuster import GuidanceAdjuster
    from adapt.blur.estimator import BlurEstimator
    from adapt.blur.parts import BlurParts
    from adapt.blur.start_steps import StartSteps
    from adapt.diffusion.prior import Prior
    from adapt.diffusion.unet import UNet
    from adapt.evaluation.inputs import Networks
    from adapt.exporting.bundle import BundleModel
    from adapt.faces.arcface import ArcFace
    from adapt.faces.detector import FaceDetector
    from adapt.faces.find import FaceFinder
    from adapt.faces.landmarks import Landmarks
    from adapt.faces.mtcnn import CascadeDetector
    from adapt.faces.recogniser import FaceIdentifier, Recogniser
    from adapt.guidance.mask import IdentityMask
    from adapt.perceptual.distance import PerceptualDistance
    from adapt.restorers.base import Restorer
    from adapt.restorers.vqgan import VQGAN
    from adapt.settings import TargetSettings
    from adapt.targets.likeness import FaceNetworks
    from adapt.verdict.evidence import Evaluator

KNOWN = Path(__file__).parent / "known_faces"  # of nobody: those of trials
PRIOR, CODEBOOK, CODEFORMER, ONESTEP = "prior", "codebook", "codeformer", "onestep"  # what a pack calls them
DISCRIMINATOR = "discriminator"
CONDITIONER, CONDITIONAL_PRIOR, SWINIR = "identity-conditioner", "conditional-prior", "swinir"


def load_prior(name: str | Path, entry: str = PRIOR) -> Prior:
    """A diffusion prior by pack name, pack folder, or checkpoint file or run in the public layout.

    Args:
        name: what to load.
        entry: which of a pack's: `PRIOR`, or `CONDITIONAL_PRIOR`, which sees the photo.

    Raises:
        UsageError: no such pack or file.
        WeightsError: weights that cannot be read or do not fit.
    """
    from dataclasses import replace

    from adapt.diffusion.prior import build_prior

    named = named_network(name, entry)
    read = named.read()
    size = None if named.pack is None else named.pack.card.size
    return replace(build_prior(named.label, read.state, read.metadata, size=size), digest=read.digest)


def load_unet(name: str | Path | None, pack: str | Path) -> UNet:
    """The U-Net that a one-step student begins as: of a prior or a student by name, or of the pack's prior.

    Raises:
        UsageError: no such pack or file.
        WeightsError: weights that cannot be read, or are neither a prior's nor a student's.
    """
    from adapt.diffusion.unet import UNet as Network

    if name is not None and named_restorer(name).read().metadata.get("architecture") == ONESTEP:
        network = load_restorer(name).network.network
    else:
        network = load_prior(name or pack).network
    assert isinstance(network, Network)
    return network


def load_conditioner(name: str | Path | None, pack: str | Path) -> Restorer:
    """An identity-preserving conditioner by name, as `load_restorer`; the pack's where None."""
    return load_restorer(name or f"{pack}/{CONDITIONER}")


def load_identity_mask(name: str | Path) -> IdentityMask:
    """What has learned where the person is, by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack or file.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.guidance.mask import ENTRY, build_mask

    return build_mask(*_weights_of(name, ENTRY), named_network(name, ENTRY).digest())


def load_blur_estimator(name: str | Path) -> BlurEstimator:
    """A blur estimator by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack or file.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.blur.estimator import ARCHITECTURE, build_blur_estimator

    return build_blur_estimator(*_weights_of(name, ARCHITECTURE))


def load_start_steps(name: str | Path) -> StartSteps:
    """A start-step table by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack.
        WeightsError: a pack without one, or a file that is not a start-step table.
    """
    from adapt.blur.start_steps import ENTRY, load_start_steps_file, parse_start_steps

    path = Path(name)
    if path.suffix == ".json":
        return load_start_steps_file(path)
    path, data = load_pack(name).table(ENTRY)
    return parse_start_steps(data, path)


def load_adjuster(name: str | Path) -> GuidanceAdjuster:
    """A guidance adjuster by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack or file.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.blur.adjuster import ARCHITECTURE, build_adjuster

    return build_adjuster(*_weights_of(name, ARCHITECTURE))


def load_blur_parts(name: str | Path, settings: TargetSettings, device: torch.device) -> tuple[BlurParts, str]:
    """What a targets recipe needs to know of blur, as far as a pack has it, and a digest that stands for it.

    What is missing is named by `adapt.targets.methods.target_maker`, with the recipe that makes it. A prior's
    checkpoint file has no such parts.
    """
    from adapt.blur.adjuster import ARCHITECTURE as ADJUSTER
    from adapt.blur.estimator import ARCHITECTURE as ESTIMATOR
    from adapt.blur.parts import BlurParts
    from adapt.blur.start_steps import ENTRY
    from adapt.digests import settings_digest

    if weights_file(Path(name)) is not None:
        return BlurParts(), settings_digest({})
    pack = load_pack(name)
    asked = {ESTIMATOR: settings.needs_blur, ENTRY: settings.start_t is None, ADJUSTER: settings.needs_adjuster}
    found = {part for part, needed in asked.items() if needed and part in pack.card.networks}
    parts = BlurParts(
        estimator=load_blur_estimator(name).to(device) if ESTIMATOR in found else None,
        start_steps=load_start_steps(name) if ENTRY in found else None,
        adjuster=load_adjuster(name).to(device) if ADJUSTER in found else None,
    )
    return parts, settings_digest({part: pack.network_digest(part) for part in sorted(found)})


def load_restorer(name: str | Path, *, adain: bool | None = None) -> Restorer:
    """A restorer by checkpoint file, run folder, pack (its default restorer), or PACK/RESTORER.

    One of a pack that takes any size works at the pack's.

    Args:
        name: what to load.
        adain: only for a CodeFormer: whether its codes get the mean and spread of the photo's features. Where None as
            the file says; a public one says nothing, and has it on, as public inference does.

    Raises:
        UsageError: nothing of that name, a pack's restorer that takes no faces of the pack's size, or `adain` for
            another restorer than a CodeFormer.
        WeightsError: weights that cannot be read or do not fit.
    """
    restorer = _find_restorer(name)
    return restorer if adain is None else restorer.with_adain(adain)


def _find_restorer(name: str | Path) -> Restorer:
    from dataclasses import replace

    from adapt.restorers.base import build_restorer

    named = named_restorer(name)
    read = named.read()
    restorer = replace(build_restorer(named.label, read.state, read.metadata), digest=read.digest)
    return restorer if named.pack is None else restorer.at(named.pack.card.size, f"pack {name}")


def load_codebook(name: str | Path) -> VQGAN:
    """A codebook with its encoder and generator, by checkpoint file, pre-training run, pack name or pack folder.

    Raises:
        UsageError: no such file, run or pack.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    return read_codebook(name)[0]


def read_codebook(name: str | Path) -> tuple[VQGAN, str]:
    """As `load_codebook`, and the digest of what was loaded."""
    from adapt.restorers.vqgan import build_vqgan

    named = named_network(name, CODEBOOK)
    read = named.read()
    return build_vqgan(named.label, read.state, read.metadata), read.digest


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

    return build_landmarks(*_weights_of(name, LANDMARKS))


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

    return build_detector(*_weights_of(name, DETECTORS[kind]))


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


def _weights_of(name: str | Path, entry: str) -> tuple[str, dict[str, Tensor], dict[str, str]]:
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
    return Evaluator(networks, known, device, reference.to(device), reference.digest)


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

    opened = load_pack(pack)
    networks = opened.card.networks
    own = {entry: opened.network_digest(entry) for entry in (PRIOR,) if entry in networks}
    faces = {entry: named_face_network(opened.folder, entry).digest() for entry in (RECOGNISER, LANDMARKS)}
    distance = load_distance(opened, _own_distance(opened)).digest
    reference = _reference(opened)
    more: dict[str, Any] = {} if reference is None else {"reference": reference.digest}
    if (known := _known(opened)) != KNOWN:
        more["known"] = [file_digest(photo.path) for photo in find_photos(known)]
    return settings_digest({**own, **faces, **more, "distance": distance})


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


def load_model(name: str | Path, device: torch.device | None = None) -> Restorer | BundleModel:
    """What `adapt restore` runs: a bundle through onnxruntime, anything else through PyTorch.

    Args:
        name: a bundle's folder, or as `load_restorer`.
        device: where it computes; where None a bundle is on CUDA if onnxruntime has it, and all else on the CPU.

    Raises:
        UsageError: nothing of that name, or a bundle for a device that onnxruntime does not have.
        WeightsError: weights that cannot be read or do not fit.
    """
    path = Path(name)
    if is_bundle(path):
        from adapt.exporting.bundle import load_bundle

        return load_bundle(path, device)
    restorer = load_restorer(name)
    return restorer if device is None else restorer.to(device)


def load_distance(pack: Pack, chosen: Literal["pack", "lpips", "auto"] = "auto") -> PerceptualDistance:
    """A pack's own perceptual distance or LPIPS; `.name` says which, also where `auto` takes LPIPS if it is there.

    Raises:
        WeightsError: the weights that were chosen are not there.
    """
    from adapt.perceptual.distance import find_lpips

    found = None if chosen == "pack" else find_lpips()
    return found or (_no_backbone(chosen) if chosen == "lpips" else _pack_distance(pack))


def load_texture_distance(pack: Pack, chosen: Literal["pack", "dists", "auto"] = "auto") -> PerceptualDistance:
    """The same of DISTS in place of LPIPS."""
    from adapt.perceptual.dists import find_dists

    found = None if chosen == "pack" else find_dists()
    return found or (_no_backbone(chosen) if chosen == "dists" else _pack_distance(pack))


def _no_backbone(chosen: str) -> NoReturn:
    from adapt.perceptual.distance import vgg_place

    raise WeightsError(
        f"distance: {chosen}: its weights are not on this machine; put torchvision's file at {vgg_place()}, or say"
        " distance=pack and give `perceptual` a weight for that"
    )


def _pack_distance(pack: Pack) -> PerceptualDistance:
    from adapt.perceptual.distance import load_pack_distance
    from adapt.weights import header_mapping

    if "perceptual" not in pack.card.networks:
        raise WeightsError(
            f"pack {pack.card.name}: has no 'perceptual'; it has {', '.join(pack.card.networks)}. Enter one with adapt"
            " packs add, or where VGG-16's weights are on the machine say distance=auto"
        )
    state, metadata = pack.read("perceptual")
    settings = header_mapping(f"{pack.card.name}/perceptual", metadata)
    return load_pack_distance(state, settings, pack.network_digest("perceptual"))


def weights_digest(name: str | Path) -> str:
    """Stands for what `adapt.build.load_model` would run by this name now: of a bundle its model.onnx."""
    if is_bundle(Path(name)):
        return bytes_digest(read_bytes(Path(name) / ONNX))
    return named_restorer(name).digest()
