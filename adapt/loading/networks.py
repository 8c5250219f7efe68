"""Priors, restorers, distances and what else a pack holds: names to objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from adapt.digests import bytes_digest
from adapt.errors import WeightsError
from adapt.loading.faces import read_parts
from adapt.packs.named import named_network, named_restorer
from adapt.packs.pack import Pack, load_pack
from adapt.settings.paths import ONNX, bundle_in, weights_file
from adapt.weights import read_bytes

if TYPE_CHECKING:
    import torch

    from adapt.blur.adjuster import GuidanceAdjuster
    from adapt.blur.estimator import BlurEstimator
    from adapt.blur.parts import BlurParts
    from adapt.blur.start_steps import StartSteps
    from adapt.diffusion.prior import Prior
    from adapt.diffusion.unet import UNet
    from adapt.exporting.bundle import BundleModel
    from adapt.guidance.mask import IdentityMask
    from adapt.perceptual.distance import PerceptualDistance
    from adapt.restorers.base import Restorer
    from adapt.restorers.vqgan import VQGAN
    from adapt.settings import TargetSettings

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

    return build_mask(*read_parts(name, ENTRY), named_network(name, ENTRY).digest())


def load_blur_estimator(name: str | Path) -> BlurEstimator:
    """A blur estimator by pack name, pack folder, or a file that `adapt pretrain` wrote.

    Raises:
        UsageError: no such pack or file.
        WeightsError: a pack without one, or weights that cannot be read or do not fit.
    """
    from adapt.blur.estimator import ARCHITECTURE, build_blur_estimator

    return build_blur_estimator(*read_parts(name, ARCHITECTURE))


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

    return build_adjuster(*read_parts(name, ARCHITECTURE))


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


def load_model(name: str | Path, device: torch.device | None = None) -> Restorer | BundleModel:
    """What `adapt restore` runs: a bundle through onnxruntime, anything else through PyTorch.

    Args:
        name: a bundle's folder, one that `adapt run` made, whose bundle is meant, or as `load_restorer`.
        device: where it computes; where None a bundle is on CUDA if onnxruntime has it, and all else on the CPU.

    Raises:
        UsageError: nothing of that name, or a bundle for a device that onnxruntime does not have.
        WeightsError: weights that cannot be read or do not fit.
    """
    if (bundle := bundle_in(Path(name))) is not None:
        from adapt.exporting.bundle import load_bundle

        return load_bundle(bundle, device)
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
    """Stands for what `adapt.loading.load_model` would run by this name now: of a bundle its model.onnx."""
    if (bundle := bundle_in(Path(name))) is not None:
        return bytes_digest(read_bytes(bundle / ONNX))
    return named_restorer(name).digest()
