"""A loaded restorer as a typed object, and the table of architectures that load from a file."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from adapt.devices import full_precision
from adapt.errors import RangeError, UsageError, WeightsError
from adapt.images import check_image, clamped
from adapt.restorers.codeformer import DEFAULT_FIDELITY, CodeFormer, codeformer_settings
from adapt.restorers.external import ALIGNED_FACE, ExternalNetwork, load_external
from adapt.restorers.onestep import OneStep, is_unet, onestep_settings, parse_onestep_settings
from adapt.restorers.swinir import SwinIR, swinir_settings
from adapt.settings import CodeFormerSettings, Settings, SwinIRSettings
from adapt.weights import load_weights, read_state, refuse_not_finite, settings_of, write_state

PARITY: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Architecture:
    """How an architecture is recognised and built.

    Attributes:
        recognises: whether a state dict is this architecture's.
        read_settings: its settings, from names and shapes.
        parse_settings: its settings, from the JSON in a file's header.
        build: an untrained network.
        size: side of the images it was made for, in pixels.
        recomputed: endings of names that the network computes itself.
        one_size: it takes images of that size only.
        fidelity: where its second input is the fidelity, a number in [0, 1], the one it takes by itself.
        parity: how far an exported file may be from the network, on the scale of [0, 1]; deep ones round more.
    """

    recognises: Callable[[dict[str, Tensor]], bool]
    read_settings: Callable[[dict[str, Tensor]], Any]
    parse_settings: Callable[[str], Any]
    build: Callable[[Any], nn.Module]
    size: Callable[[Any], int]
    recomputed: tuple[str, ...] = ()
    one_size: bool = False
    fidelity: float | None = None
    parity: float = PARITY


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "swinir": Architecture(
        recognises=lambda state: "layers.0.residual_group.blocks.0.norm1.weight" in state,
        read_settings=swinir_settings,
        parse_settings=SwinIRSettings.model_validate_json,
        build=SwinIR,
        size=lambda settings: settings.img_size * (settings.unshuffle_scale or 1),
        recomputed=("attn_mask", "relative_position_index"),
    ),
    "codeformer": Architecture(
        recognises=lambda state: "quantize.embedding.weight" in state and "position_emb" in state,
        read_settings=codeformer_settings,
        parse_settings=CodeFormerSettings.model_validate_json,
        build=CodeFormer,
        size=lambda settings: settings.img_size,
        one_size=True,
        fidelity=DEFAULT_FIDELITY,
        parity=1e-3,
    ),
    "onestep": Architecture(
        recognises=is_unet,
        read_settings=onestep_settings,
        parse_settings=parse_onestep_settings,
        build=OneStep,
        size=lambda settings: settings.network.image_size,
    ),
}

EXTERNAL: Final = "spandrel"
FACE_SIZE: Final = "face_size"  # in a file's header


@dataclass(slots=True)
class Restorer:
    """A restorer that is ready to use.

    Attributes:
        name: what the user calls it (a file, `tiny/swinir`).
        architecture: key of `ARCHITECTURES`, or `EXTERNAL`: a network that spandrel built.
        settings: the network's layout.
        network: (B, 3, H, W) in [0, 1] to the same, not clamped; what fine-tuning trains.
        face_size: side of the aligned faces it works at, in pixels, where that is not what its layout tells; see `at`.
        digest: stands for the weights that it was loaded with; empty where it was not loaded by a name.
    """

    name: str
    architecture: str
    settings: Settings
    network: nn.Module
    face_size: int | None = None
    digest: str = ""

    @property
    def size(self) -> int:
        """Side of the aligned faces it works at, in pixels."""
        if self.face_size is not None:
            return self.face_size
        known = ARCHITECTURES.get(self.architecture)
        return ALIGNED_FACE if known is None else known.size(self.settings)

    @property
    def one_size(self) -> bool:
        """Whether it takes images of `size` by `size` pixels only."""
        return self.architecture in ARCHITECTURES and ARCHITECTURES[self.architecture].one_size

    def at(self, size: int, whose: str) -> Restorer:
        """The same network, for faces of a given size. It is decided here, and nowhere else, whether it takes them.

        What a network was made for is a convention where it takes any size: it works at that of the pack's faces, and
        what fine-tuning writes remembers it.

        Args:
            size: side of the faces, in pixels.
            whose: whose faces they are, for the message.

        Raises:
            UsageError: it takes no faces of that size.
        """
        if size == self.size:
            return self
        if self.one_size:
            raise UsageError(
                f"{self.name}: takes faces of {self.size} px only, and those of {whose} have {size} px; take a pack and"
                " a restorer of one size"
            )
        if isinstance(self.network, ExternalNetwork):
            self.network.refuse_size(self.name, size)
        return replace(self, face_size=size)

    def with_adain(self, adain: bool) -> Restorer:
        """A CodeFormer that gives its codes the mean and spread of the photo's features, or leaves them as they are.

        The network itself is changed, and what is saved of it remembers it.

        Raises:
            UsageError: no CodeFormer.
        """
        if not isinstance(self.network, CodeFormer):
            raise UsageError(f"{self.name}: adain is a choice that a codeformer has; this is a {self.architecture}")
        self.network.settings = self.network.settings.model_copy(update={"adain": adain})
        return replace(self, settings=self.network.settings)

    def towards(self, other: Restorer, share: float) -> Restorer:
        """A network on the straight line between two of one layout, weight by weight (Wortsman et al. 2022).

        Args:
            other: adapted from this one.
            share: of the way to it; 0 is this one, 1 the other.

        Raises:
            UsageError: networks of different layouts.
        """
        if share == 1:
            return other
        own, others = self.network.state_dict(), other.network.state_dict()
        if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in others.items()}:
            raise UsageError(f"{self.name} and {other.name}: are of two layouts, so nothing lies between their weights")
        network = deepcopy(other.network)
        network.load_state_dict(
            {
                key: torch.lerp(own[key].to(value.device), value, share) if value.is_floating_point() else value
                for key, value in others.items()
            }
        )
        name = f"{100 * share:g} % of the way from {self.name} to {other.name}"
        return replace(other, name=name, network=network, digest="")

    @property
    def parity(self) -> float:
        """How far an exported file of it may be from the network, on the scale of [0, 1]."""
        return ARCHITECTURES[self.architecture].parity if self.architecture in ARCHITECTURES else PARITY

    def chosen_fidelity(self, given: float | None = None) -> float | None:
        """The fidelity it restores at: the one that is given, else its own; None where it takes none.

        Raises:
            UsageError, RangeError: as `choose_fidelity`.
        """
        known = ARCHITECTURES.get(self.architecture)
        own = known.fidelity if known else None
        return choose_fidelity(self.name, self.architecture, own=own, given=given)

    @property
    def size_rule(self) -> str:
        """Which images it takes, in words."""
        if self.one_size:
            return f"any batch; aligned faces of {self.size} by {self.size} pixels and no other: resize to that first"
        return f"any batch, height and width; made for aligned faces of {self.size} pixels, so resize to that first"

    @torch.no_grad()  # and not inference_mode, whose results no loss may hold on to
    def __call__(self, photo: Tensor, fidelity: float | None = None) -> Tensor:
        """Restore (B, 3, H, W) RGB in [0, 1] to the same shape, clamped to [0, 1], on the photo's device.

        Values that are not finite come back as NaN: who calls it decides what becomes of that photo.

        The network is in evaluation mode from here on, and computes in full float32: a batch does not show. A photo of
        another type is converted to the network's; the result is float32, whatever came in.

        Args:
            photo: the batch.
            fidelity: from 0, what faces look like, to 1, what the photo shows; the network's default where None.

        Raises:
            ShapeError, RangeError: not such a batch, or a fidelity outside [0, 1].
            UsageError: a fidelity for a network that takes none.
        """
        check_image(photo, self.name)
        chosen = self.chosen_fidelity(fidelity)
        self.network.eval()
        weights = next(self.network.parameters())
        second = () if chosen is None else (chosen,)
        with full_precision():
            restored = self.network(photo.to(weights.device, weights.dtype), *second)
        return clamped(restored.float()).to(photo.device)

    def to(self, device: torch.device | str) -> Restorer:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    def save(self, path: Path, *, half: bool = False, metadata: dict[str, str] | None = None) -> None:
        """Write the weights as safetensors in the public layout, with what rebuilds the network in the header."""
        header = {"architecture": self.architecture, "settings": self.settings.model_dump_json(), **(metadata or {})}
        if self.face_size is not None:
            header[FACE_SIZE] = str(self.face_size)
        state = self.network.state_dict()
        architecture = ARCHITECTURES.get(self.architecture)
        endings = architecture.recomputed if architecture is not None and half else ()
        kept = {key: value for key, value in state.items() if not (endings and key.endswith(endings))}
        write_state(path, kept, header, half=half)


def choose_fidelity(name: str, architecture: str, *, own: float | None, given: float | None) -> float | None:
    """The fidelity at which a model restores.

    Args:
        name, architecture: the model's.
        own: the fidelity it takes by itself; None where it has none to choose.
        given: the user's choice; None for none.

    Raises:
        UsageError: a choice for a model that has none.
        RangeError: a choice outside [0, 1].
    """
    if given is None:
        return own
    if own is None:
        able = ", ".join(key for key, each in ARCHITECTURES.items() if each.fidelity is not None)
        raise UsageError(f"{name}: a {architecture} has no fidelity to choose; known with one: {able}")
    if not 0 <= given <= 1:  # written so that NaN fails too
        raise RangeError(f"fidelity: expected a number in [0, 1], got {given:g}")
    return given


def build_restorer(name: str, state: dict[str, Tensor], metadata: dict[str, str]) -> Restorer:
    """Rebuild a restorer from its tensors and, where there are some, the settings in a file's header.

    Raises:
        WeightsError: of no known architecture, or weights that do not fit.
    """
    known = metadata.get("architecture")
    chosen = known if known in ARCHITECTURES else next(
        (key for key, architecture in ARCHITECTURES.items() if architecture.recognises(state)), None
    )
    face_size = _face_size(name, metadata)
    if chosen is None:
        return replace(_external(name, state), face_size=face_size)
    architecture = ARCHITECTURES[chosen]
    stored = metadata.get("settings")
    with settings_of(name, chosen):
        settings = architecture.parse_settings(stored) if stored else architecture.read_settings(state)
        network = architecture.build(settings)
    load_weights(network, state, source=name, ignore=architecture.recomputed)
    return Restorer(name, chosen, settings, network.eval(), face_size)


def _face_size(name: str, metadata: dict[str, str]) -> int | None:
    """The size of faces that a file's header names, if it does."""
    told = metadata.get(FACE_SIZE)
    if told is None:
        return None
    if not (told.isdecimal() and len(told) < 6 and int(told)):
        raise WeightsError(f"{name}: its header names a {FACE_SIZE} of '{told[:20]}'; expected a number of pixels")
    return int(told)


def _external(name: str, state: dict[str, Tensor]) -> Restorer:
    """A restorer of none of our architectures, if spandrel is there and knows it."""
    refuse_not_finite(state, source=name)
    found = load_external(name, state)
    if found is None:
        raise WeightsError(
            f"{name}: not a restorer this version knows; known are: {', '.join(ARCHITECTURES)},"
            " and with `pip install adapt-bfr[models]` those of spandrel."
            f" Its first tensors are {sorted(state)[:3]}"
        )
    settings, network = found
    return Restorer(name, EXTERNAL, settings, network)


def load_restorer_file(path: Path) -> Restorer:
    """Load a restorer from a checkpoint of ours or in the public layout.

    Raises:
        WeightsError: the file cannot be read, or holds no restorer that is known.
    """
    state, metadata = read_state(path)
    return build_restorer(str(path), state, metadata)
