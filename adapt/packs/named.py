"""Weights by the names that users give: what a name means is said here, to who loads them and to who compares them.

A name is a checkpoint file, a run or a bundle (a folder with one of `adapt.settings.paths.WEIGHT_FILES`), a pack (its
name, folder or card), or PACK/RESTORER.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.digests import bytes_digest
from adapt.errors import UsageError
from adapt.packs.pack import Pack, known_packs, load_pack, to_install
from adapt.settings.paths import weights_file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Read:
    """Weights as they were read.

    Attributes:
        state: the tensors by name.
        metadata: of the file's header.
        digest: stands for the bytes that these were read from.
    """

    state: dict[str, Tensor]
    metadata: dict[str, str]
    digest: str


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """What a name means: a file, or a network of a pack.

    Attributes:
        label: what messages call it.
        file: the file, if it is one.
        pack, network: else the pack, and what it calls the network.
    """

    label: str
    file: Path | None = None
    pack: Pack | None = None
    network: str = ""

    def read(self) -> Read:
        """Tensors and header. Raises WeightsError: they cannot be read, or are not those that the pack's card names."""
        from adapt.weights import parse_state, read_bytes

        if self.pack is not None:
            return Read(*self.pack.read(self.network), self.pack.network_digest(self.network))
        assert self.file is not None
        data = read_bytes(self.file)
        return Read(*parse_state(data, self.file), bytes_digest(data))

    def digest(self) -> str:
        """Stands for the weights that are there now, as `Read.digest`. Raises WeightsError: there are none."""
        from adapt.weights import read_bytes

        if self.pack is not None:
            return self.pack.network_digest(self.network)
        assert self.file is not None
        return bytes_digest(read_bytes(self.file))


def named_network(name: str | Path, network: str) -> NamedWeights:
    """A network by checkpoint file or run, or by the pack that has it.

    Args:
        name: of the weights.
        network: what a pack calls it.

    Raises:
        UsageError: no such file, run or pack.
        WeightsError: a pack whose card cannot be read.
    """
    file = weights_file(Path(name))
    if file is not None:
        return NamedWeights(str(file), file=file)
    pack = load_pack(name)
    return NamedWeights(f"{pack.card.name}/{network}", pack=pack, network=network)


def named_restorer(name: str | Path) -> NamedWeights:
    """A restorer by checkpoint file, run, bundle (the weights beside its model), PACK or PACK/RESTORER.

    Raises:
        UsageError: none of them.
        WeightsError: a pack whose card cannot be read.
    """
    file = weights_file(Path(name))
    if file is not None:
        return NamedWeights(str(file), file=file)
    pack, network = pack_restorer(name)
    return NamedWeights(f"{pack.card.name}/{network}", pack=pack, network=network)


def pack_restorer(name: str | Path) -> tuple[Pack, str]:
    """The pack and its network that PACK (name, folder or card: its default restorer) or PACK/RESTORER means.

    Raises:
        UsageError: neither.
    """
    text, given = str(name), Path(name)
    if text in known_packs() or (given / "pack.yaml").is_file() or given.name == "pack.yaml":
        pack = load_pack(name)
        return pack, pack.card.restorer
    pack_name, _, wanted = text.rpartition("/")
    try:
        return load_pack(pack_name), wanted
    except UsageError as error:
        raise UsageError(
            f"no restorer '{name}': expected a checkpoint file, a run, a bundle, PACK or PACK/RESTORER"
            f" (packs: {', '.join(known_packs())}){to_install(text.partition('/')[0])}"
        ) from error
