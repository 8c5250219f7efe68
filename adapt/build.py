"""Names to objects: the one module that sees every room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapt.digests import file_digest
from adapt.errors import UsageError, WeightsError
from adapt.packs.pack import Pack, embedded_packs, load_pack
from adapt.settings.paths import WEIGHT_FILES, WEIGHT_SUFFIXES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adapt.blur.adjuster import GuidanceAdjuster
    from adapt.blur.estimator import BlurEstimator
    from adapt.blur.parts import BlurParts
    from adapt.blur.start_steps import StartSteps
    from adapt.diffusion.prior import Prior
    from adapt.exporting.bundle import BundleModel
    from adapt.faces.detector import FaceDetector
    from adapt.faces.landmarks import Landmarks
    from adapt.faces.recogniser import Recogniser
    from adapt.perceptual.distance import PerceptualDistance
    from adapt.restorers.base import Restorer
    from adapt.restorers.vqgan import VQGAN
    from adapt.settings import TargetSettings

CODEBOOK, CODEFORMER = "codebook", "codeformer"  # what a pack calls them


def load_prior(name: str | Path) -> Prior:
    """A diffusion prior by pack name, pack folder, or checkpoint file in the public layout.

    Raises:
        UsageError: no such pack or file.
        WeightsError: weights that cannot be read or do not fit.
    """
    from adapt.diffusion.prior import build_prior, load_prior_file

    if Path(name).suffix in WEIGHT_SUFFIXES:
        return load_prior_file(Path(name))
    pack = load_pack(name)
    state, metadata = pack.read("prior")
    return build_prior(f"{pack.card.name}/prior", state, metadata, size=pack.card.size)


def load_blur_estimator(name: str | Path) -> BlurEstimator:
    """A blur estimator by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack or file.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.blur.estimator import ARCHITECTURE, build_blur_estimator, load_blur_estimator_file

    if Path(name).suffix in WEIGHT_SUFFIXES:
        return load_blur_estimator_file(Path(name))
    pack = load_pack(name)
    state, metadata = pack.read(ARCHITECTURE)
    return build_blur_estimator(f"{pack.card.name}/{ARCHITECTURE}", state, metadata)


def load_start_steps(name: str | Path) -> StartSteps:
    """A start-step table by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack.
        WeightsError: a pack without one, or a file that is not a start-step table.
    """
    from adapt.blur.start_steps import ENTRY, load_start_steps_file

    path = Path(name)
    return load_start_steps_file(path if path.suffix == ".json" else load_pack(name).table(ENTRY))


def load_adjuster(name: str | Path) -> GuidanceAdjuster:
    """A guidance adjuster by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack or file.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.blur.adjuster import ARCHITECTURE, build_adjuster
    from adapt.weights import read_state

    if Path(name).suffix in WEIGHT_SUFFIXES:
        state, metadata = read_state(Path(name))
        return build_adjuster(str(name), state, metadata)
    pack = load_pack(name)
    state, metadata = pack.read(ARCHITECTURE)
    return build_adjuster(f"{pack.card.name}/{ARCHITECTURE}", state, metadata)


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

    if Path(name).suffix in WEIGHT_SUFFIXES:
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
    from adapt.restorers.base import build_restorer, load_restorer_file

    path = Path(name)
    if path.suffix in WEIGHT_SUFFIXES:
        return load_restorer_file(path)
    for inside in WEIGHT_FILES:
        if (path / inside).is_file():
            return load_restorer_file(path / inside)
    pack, chosen = pack_restorer(name)
    state, metadata = pack.read(chosen)
    restorer = build_restorer(f"{pack.card.name}/{chosen}", state, metadata)
    return restorer.at(pack.card.size, f"pack {name}")


def load_codebook(name: str | Path) -> VQGAN:
    """A codebook with its encoder and generator, by checkpoint file, pre-training run, pack name or pack folder.

    Raises:
        UsageError: no such file, run or pack.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.restorers.vqgan import build_vqgan
    from adapt.weights import read_state

    path = Path(name)
    for file in (path, path / "weights.safetensors"):
        if file.suffix in WEIGHT_SUFFIXES and (file == path or file.is_file()):
            state, metadata = read_state(file)
            return build_vqgan(str(file), state, metadata)
    pack = load_pack(name)
    state, metadata = pack.read(CODEBOOK)
    return build_vqgan(f"{pack.card.name}/{CODEBOOK}", state, metadata)


def load_recogniser(name: str | Path) -> Recogniser:
    """A face recogniser by pack name, pack folder, or a file of such weights.

    Raises:
        UsageError: no such pack or file.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.faces.entries import RECOGNISER
    from adapt.faces.recogniser import build_recogniser

    return build_recogniser(*_face_weights(name, RECOGNISER))


def load_landmarks(name: str | Path) -> Landmarks:
    """A network of 68 landmarks by pack name, pack folder, or a file of such weights; errors as above."""
    from adapt.faces.entries import LANDMARKS
    from adapt.faces.landmarks import build_landmarks

    return build_landmarks(*_face_weights(name, LANDMARKS))


def load_detector(name: str | Path, *, fast: bool = False) -> FaceDetector:
    """A face detector by pack name, pack folder, or a file of such weights; errors as above.

    Args:
        name: what to load.
        fast: of a pack the small one, for faces that look at the camera; a file's header says which it is.
    """
    from adapt.faces.detector import build_detector
    from adapt.faces.entries import DETECTOR, FAST_DETECTOR

    return build_detector(*_face_weights(name, FAST_DETECTOR if fast else DETECTOR))


def _face_weights(name: str | Path, entry: str) -> tuple[str, dict[str, Tensor], dict[str, str]]:
    """What to call a face network, its tensors and its header."""
    from adapt.weights import read_state

    if Path(name).suffix in WEIGHT_SUFFIXES:
        return str(name), *read_state(Path(name))
    pack = load_pack(name)
    return f"{pack.card.name}/{entry}", *pack.read(entry)


def build_face_network(
    entry: str, name: str, state: dict[str, Tensor], header: dict[str, str]
) -> Recogniser | Landmarks | FaceDetector:
    """What an entry of a pack must be, by the entry's name; raises WeightsError as the networks' own builders do."""
    from adapt.faces.detector import build_detector
    from adapt.faces.entries import LANDMARKS, RECOGNISER
    from adapt.faces.landmarks import build_landmarks
    from adapt.faces.recogniser import build_recogniser

    builders = {RECOGNISER: build_recogniser, LANDMARKS: build_landmarks}
    return builders.get(entry, build_detector)(name, state, header)


def pack_restorer(name: str | Path) -> tuple[Pack, str]:
    """The pack and its network that PACK (name or folder: its default restorer) or PACK/RESTORER means.

    Raises:
        UsageError: neither.
    """
    text = str(name)
    if text in embedded_packs() or (Path(name) / "pack.yaml").is_file():
        pack = load_pack(name)
        return pack, pack.card.restorer
    pack_name, _, wanted = text.rpartition("/")
    try:
        return load_pack(pack_name), wanted
    except UsageError as error:
        raise UsageError(
            f"no restorer '{name}': expected a checkpoint file, a run, a bundle, PACK or PACK/RESTORER"
            f" (packs: {', '.join(embedded_packs())})"
        ) from error


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
    if (path / "bundle.json").is_file():
        from adapt.exporting.bundle import load_bundle

        return load_bundle(path, device)
    restorer = load_restorer(name)
    return restorer if device is None else restorer.to(device)


def load_distance(pack: Pack) -> PerceptualDistance:
    """LPIPS where its weights are on the machine, else the pack's own perceptual distance; `.name` says which."""
    from adapt.perceptual.distance import find_lpips

    return find_lpips() or _pack_distance(pack)


def load_texture_distance(pack: Pack) -> PerceptualDistance:
    """DISTS where its weights are on the machine, else the pack's own perceptual distance; `.name` says which."""
    from adapt.perceptual.dists import find_dists

    return find_dists() or _pack_distance(pack)


def _pack_distance(pack: Pack) -> PerceptualDistance:
    import json

    from adapt.perceptual.distance import load_pack_distance

    state, metadata = pack.read("perceptual")
    return load_pack_distance(state, json.loads(metadata["settings"]), pack.network_digest("perceptual"))


def weights_digest(name: str | Path) -> str:
    """Stands for weights named by a file, a run, a bundle, a pack, or PACK/NETWORK."""
    path = Path(name)
    inside = ("best.safetensors", "model.onnx", "model.safetensors", "weights.safetensors")
    for file in (path, *(path / each for each in inside)):
        if file.is_file():
            return file_digest(file)
    pack, network = pack_restorer(name)
    return pack.network_digest(network)


def codebook_digest(name: str | Path) -> str:
    """Stands for the codebook that `adapt.build.load_codebook` loads by this name."""
    path = Path(name)
    for file in (path, path / "weights.safetensors"):
        if file.is_file():
            return file_digest(file)
    return load_pack(name).network_digest(CODEBOOK)


def prior_digest(pack: str) -> str:
    path = Path(pack)
    if path.is_file() and path.suffix in WEIGHT_SUFFIXES:
        return file_digest(path)
    opened = load_pack(pack)
    if "prior" not in opened.card.networks:
        raise WeightsError(f"pack {opened.card.name}: has no prior; see adapt packs show {pack}")
    return opened.network_digest("prior")
