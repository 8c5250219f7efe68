"""`adapt packs add`: a file that is on the user's disk, checked, and entered into a pack's card where it lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

from adapt import loading
from adapt.blur import adjuster, estimator, start_steps
from adapt.diffusion.prior import build_prior
from adapt.digests import bytes_digest
from adapt.errors import AdaptError, UsageError, WeightsError
from adapt.faces.arcface import ArcFace
from adapt.faces.entries import ARCFACE
from adapt.faces.entries import ARCHITECTURES as FACE_NETWORKS
from adapt.guidance import mask
from adapt.locks import locked
from adapt.packs.pack import PackCard, PackNetwork, known_packs, load_pack, named_file, write_card
from adapt.perceptual.distance import load_pack_distance
from adapt.restorers import vqgan
from adapt.restorers.base import ARCHITECTURES, build_restorer
from adapt.settings.paths import BUNDLE, ONNX, WEIGHT_FILES
from adapt.weights import header_mapping, parse_state, read_bytes

PARTS: Final[dict[str, str]] = {  # entries that are no restorers, and their architectures
    loading.PRIOR: "unet",
    loading.CONDITIONAL_PRIOR: "unet",
    mask.ENTRY: mask.ENTRY,
    "perceptual": "perceptual",
    loading.CODEBOOK: vqgan.ARCHITECTURE,
    estimator.ARCHITECTURE: estimator.ARCHITECTURE,
    adjuster.ARCHITECTURE: adjuster.ARCHITECTURE,
    start_steps.ENTRY: start_steps.ENTRY,
    **FACE_NETWORKS,
}
# A folder with one of these is taken for a run or a bundle, whatever else it holds.
TAKEN: Final = (*WEIGHT_FILES, ONNX, BUNDLE)
DESCRIPTION: Final = "Files of this machine, entered where they lie."


@dataclass(frozen=True, slots=True)
class Content:
    """What a file turned out to hold.

    Attributes:
        architecture: as the pack's card names it.
        parameters: how many; 0 of a table.
        sha256: of the file that was read to see this.
        size: side in pixels of the faces that it is for, where it is for no others.
    """

    architecture: str
    parameters: int
    sha256: str
    size: int | None = None


def add_to_pack(
    folder: Path,
    name: str,
    file: Path,
    *,
    licence: str,
    source: str,
    trained: str,
    architecture: str | None = None,
    size: int | None = None,
    restorer: str | None = None,
    description: str | None = None,
    overwrite: bool = False,
) -> Content:
    """Enter a file into a pack's card; it is read to see what it is, and stays where it lies.

    Args:
        folder: of the pack; a card is made where there is none.
        name: what the file is in the pack: one of `PARTS`, or a restorer by any other name.
        file: a checkpoint in the public layout or of ours, or a start-step table.
        licence, source, trained: for the card: under which terms, from where, and on what it was trained.
        architecture: the only one to accept; of a restorer named like an architecture that one, else any.
        size: side of the pack's aligned faces, in pixels; a new pack needs it.
        restorer: the network that restores where none is named; else the one that is entered first.
        description: for the card.
        overwrite: replace an entry of that name.

    Raises:
        UsageError: a name, folder, size or restorer that cannot be used, an entry that is there already, or a folder
            that another command is at work in.
        WeightsError: a file that is not what its name in the pack says, or not for faces of this size.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UsageError(f"'{name}': expected a name of letters, digits, - and _ for an entry of a pack")
    card = _card(folder, size)
    _refuse_taken(card, name, overwrite)
    content = _checked(file, name, card.size, architecture or (name if name in ARCHITECTURES else None))
    entry = PackNetwork(
        architecture=content.architecture,
        licence=licence,
        source=source,
        trained=trained,
        files=named_file(folder, file, content.sha256),
    )
    _with_entry(card, name, entry, restorer, description)  # says what is wrong while there is no folder yet
    with locked(folder):
        card = _card(folder, size)  # as another command may have left it meanwhile
        _refuse_taken(card, name, overwrite)
        write_card(folder, _with_entry(card, name, entry, restorer, description))
    return content


def _refuse_taken(card: PackCard, name: str, overwrite: bool) -> None:
    if name in card.networks and not overwrite:
        raise UsageError(f"pack {card.name}: has '{name}' already; give --overwrite to replace it")


def _with_entry(
    card: PackCard, name: str, entry: PackNetwork, restorer: str | None, description: str | None
) -> PackCard:
    """The card with one more entry, and with what is said of the pack."""
    networks = {**card.networks, name: entry}
    able = [each for each in networks if each not in PARTS]
    if restorer is not None and restorer not in able:
        raise UsageError(f"--restorer {restorer}: pack {card.name} has the restorers {', '.join(able) or 'none yet'}")
    own = restorer or (card.restorer if card.restorer in able or not able else able[0])
    about = description or card.description
    return card.model_copy(update={"networks": networks, "restorer": own, "description": about})


def _card(folder: Path, size: int | None) -> PackCard:
    """The folder's card, or a new one."""
    if str(folder) in known_packs():
        raise UsageError(f"{folder}: is a pack that ships, and would be meant by this name; name another folder")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected the folder of a pack, this is a file")
    for taken in TAKEN:
        if (folder / taken).exists():
            raise UsageError(f"{folder}: holds {taken}, so it is taken for a run; give the pack a folder of its own")
    if (folder / "pack.yaml").exists():
        card = load_pack(folder.resolve()).card
        if size not in (None, card.size):
            raise UsageError(f"--size {size}: pack {card.name} is for faces of {card.size} px")
        return card
    if size is None:
        raise UsageError(f"{folder}: no pack yet; say with --size how large its aligned faces are, such as --size 512")
    return PackCard(
        name=folder.resolve().name, size=size, description=DESCRIPTION, restorer="swinir", networks={}
    )


def _checked(file: Path, name: str, size: int, architecture: str | None) -> Content:
    """What a file holds, if that can be this entry of a pack for faces of this size."""
    try:
        content = _content(file, name, size)
    except (AdaptError, ValueError) as error:  # ValueError: pydantic's and JSON's, of the header
        reason = str(error) if isinstance(error, AdaptError) else "its header is not one of ours"
        raise WeightsError(f"{file}: cannot be '{name}': {reason.removeprefix(f'{file}: ')}") from error
    if architecture not in (None, content.architecture):
        raise WeightsError(f"{file}: cannot be '{name}': expected a {architecture}, got a {content.architecture}")
    if content.size not in (None, size):
        raise WeightsError(f"{file}: cannot be '{name}': it is for faces of {content.size} px, the pack's have {size}")
    return content


def _content(file: Path, name: str, size: int) -> Content:
    """Build what the file holds in the way that the pack's entry of this name is built."""
    source, data = str(file), read_bytes(file)
    sha256 = bytes_digest(data)
    if name == start_steps.ENTRY:
        return Content(name, 0, sha256, start_steps.parse_start_steps(data, file).size)
    state, header = parse_state(data, file)
    expected, told = PARTS.get(name), header.get("architecture")
    if None not in (expected, told) and told != expected:
        raise WeightsError(f"expected a {expected}, its header names a {told}")
    match name:
        case loading.PRIOR | loading.CONDITIONAL_PRIOR:
            prior = build_prior(source, state, header, size=size)
            if prior.sees_photo != (name == loading.CONDITIONAL_PRIOR):
                raise WeightsError(f"it is a prior {'that' if prior.sees_photo else 'no part of which'} sees the photo")
            return Content(PARTS[name], _parameters(prior.network), sha256, prior.size)
        case mask.ENTRY:
            return Content(PARTS[name], _parameters(mask.build_mask(source, state, header).network), sha256)
        case "perceptual":
            settings = header_mapping(source, header)
            return Content(PARTS[name], _parameters(load_pack_distance(state, settings, "").module), sha256)
        case loading.CODEBOOK:
            codebook = vqgan.build_vqgan(source, state, header)
            return Content(PARTS[name], _parameters(codebook), sha256, codebook.settings.img_size)
        case estimator.ARCHITECTURE:
            blur = estimator.build_blur_estimator(source, state, header)
            return Content(PARTS[name], _parameters(blur.network), sha256, blur.size)
        case adjuster.ARCHITECTURE:
            return Content(PARTS[name], _parameters(adjuster.build_adjuster(source, state, header)), sha256)
        case _ if name in FACE_NETWORKS:
            faces = loading.build_face_network(name, source, state, header)
            built = ARCFACE if isinstance(faces, ArcFace) else PARTS[name]
            return Content(built, _parameters(faces.network), sha256)
        case _:
            restorer = build_restorer(source, state, header)
            only = restorer.size if restorer.one_size else None
            return Content(restorer.architecture, _parameters(restorer.network), sha256, only)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
