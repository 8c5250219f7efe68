"""A pack: networks that belong together, named in `pack.yaml` with files, digests, sources and licences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import Field, PositiveInt, ValidationError

from adapt.digests import file_digest, is_unchanged, settings_digest
from adapt.disk import write_text
from adapt.errors import UsageError, WeightsError
from adapt.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDED = Path(__file__).parent
SHARD_BYTES = 15_000_000  # every file of the embedded pack stays under 16 MB
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PackNetwork(Settings):
    """One network of a pack."""

    architecture: str
    files: dict[str, Sha256] = Field(
        min_length=1, description="shards, in order, with their sha256; a path is absolute, or begins at the folder"
    )
    licence: str
    source: str = Field(description="where the weights come from")
    trained: str = Field(description="on what, with which recipe, for how long")

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of its files by their names: where they lie does not matter."""
        return {Path(file).name: sha256 for file, sha256 in self.files.items()}


class PackCard(Settings):
    """The contents of `pack.yaml`."""

    name: str
    size: PositiveInt = Field(description="side of the aligned faces, in pixels")
    description: str
    restorer: str = Field(description="the network that restores where none is named")
    networks: dict[str, PackNetwork]


@dataclass(frozen=True, slots=True)
class Pack:
    """An opened pack: its card and the folder of its files."""

    folder: Path
    card: PackCard

    @property
    def digest(self) -> str:
        """Stands for all weights of the pack."""
        return settings_digest({name: network.digests for name, network in self.card.networks.items()})

    def network(self, name: str) -> PackNetwork:
        """The entry of one network.

        Raises:
            WeightsError: the pack has no such network.
        """
        if name not in self.card.networks:
            raise WeightsError(f"pack {self.card.name}: has no '{name}'; it has {', '.join(self.card.networks)}")
        return self.card.networks[name]

    def network_digest(self, name: str) -> str:
        """Stands for the weights of one network."""
        return settings_digest(self.network(name).digests)

    def problems(self) -> list[str]:
        """Files that are missing or not what the card says, one line each."""
        found: list[str] = []
        for network in self.card.networks.values():
            for name, expected in network.files.items():
                path = self.folder / name
                if not path.is_file():
                    found.append(f"{path}: missing")
                elif (got := file_digest(path)) != expected:
                    found.append(f"{path}: expected sha256 {expected[:12]}..., got {got[:12]}...")
        return found

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors (as float32) and header of one network, its files checked against their digests.

        Raises:
            WeightsError: no such network, or a file that is missing or damaged.
        """
        from adapt.weights import read_state

        state: dict[str, Tensor] = {}
        metadata: dict[str, str] = {}
        for file, expected in self.network(name).files.items():
            path = self.folder / file
            tensors, header = read_state(path)
            if file_digest(path) != expected:
                raise WeightsError(self._not_the_file(path))
            state.update({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
            metadata.update(header)
        return state, metadata

    def table(self, name: str) -> Path:
        """The file of an entry that is no network but a table, checked against its digest.

        Raises:
            WeightsError: no such entry, or a file that is missing or damaged.
        """
        file, expected = next(iter(self.network(name).files.items()))
        path = self.folder / file
        if not is_unchanged(path, expected):
            raise WeightsError(self._not_the_file(path))
        return path

    def _not_the_file(self, path: Path) -> str:
        return f"{path}: not the file that {self.folder / 'pack.yaml'} names; fetch it again"


def embedded_packs() -> list[str]:
    """Names of the packs that ship with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/pack.yaml"))


def load_pack(name: str | Path) -> Pack:
    """Open a pack by the name of an embedded one, or by a folder or its `pack.yaml`.

    Raises:
        UsageError: there is no such pack.
        WeightsError: its card cannot be read.
    """
    embedded = EMBEDDED / str(name) / "pack.yaml"
    given = Path(name)
    card = embedded if embedded.is_file() else given / "pack.yaml" if given.is_dir() else given
    if not card.is_file() or card.suffix not in (".yaml", ".yml"):
        raise UsageError(f"no pack '{name}'; embedded packs are {', '.join(embedded_packs())}, else name a folder")
    try:
        return Pack(card.parent, PackCard.model_validate(yaml.safe_load(card.read_bytes())))
    except (ValidationError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{card}: not a pack card: {reason}; mend it, or put it back from a copy") from error


def add_network(
    folder: Path, name: str, state: dict[str, Tensor], *, header: dict[str, str], entry: dict[str, str]
) -> None:
    """Write a network into a pack's folder as half-precision shards, and enter it in `pack.yaml`.

    Args:
        folder: a pack's folder; its `pack.yaml` must be there.
        name: what the network is called in the pack.
        state: its tensors; floating ones are stored as float16.
        header: architecture and settings, for the files' headers.
        entry: architecture, licence, source and trained, for the card.
    """
    from adapt.weights import write_state

    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for key, value in state.items():
        bytes_needed = value.numel() * (2 if value.is_floating_point() else value.element_size())
        if used + bytes_needed > SHARD_BYTES and shards[-1]:
            shards.append({})
            used = 0
        shards[-1][key] = value
        used += bytes_needed
    files: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        suffix = f"-{index}-of-{len(shards)}" if len(shards) > 1 else ""
        path = folder / f"{name}{suffix}.safetensors"
        write_state(path, shard, header, half=True)
        files[path.name] = file_digest(path)
    shard_name = re.compile(rf"{re.escape(name)}-\d+-of-\d+\.safetensors")
    for stale in folder.iterdir():
        if shard_name.fullmatch(stale.name) and stale.name not in files:  # not a network's of a longer name
            stale.unlink()
    _enter(folder, name, {**entry, "files": files})


def add_table(folder: Path, name: str, table: Path, *, entry: dict[str, str]) -> None:
    """Copy a table, a JSON file, into a pack's folder, and enter it in `pack.yaml` beside the networks.

    Args:
        folder: a pack's folder; its `pack.yaml` must be there.
        name: what the table is called in the pack.
        table: the file; its copy has the pack's name for it.
        entry: architecture, licence, source and trained, for the card.
    """
    copy = folder / f"{name}.json"
    write_text(copy, table.read_text(encoding="utf-8"))
    _enter(folder, name, {**entry, "files": {copy.name: file_digest(copy)}})


def named_file(folder: Path, file: Path) -> dict[str, str]:
    """A file as a card names it where it lies: its path from the folder on if it is inside, else the absolute one, and
    its sha256.

    Folders are resolved, but the file's own name stays: it may be a link to one whose name says nothing.
    """
    path, inside = file.parent.resolve() / file.name, folder.resolve()
    place = path.relative_to(inside) if path.is_relative_to(inside) else path
    return {place.as_posix(): file_digest(path)}


def write_card(folder: Path, card: PackCard) -> None:
    """Write a card as the folder's `pack.yaml`; the folder is made if it is missing."""
    _write(folder / "pack.yaml", card.model_dump(mode="json"))


def _enter(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Put an entry into a pack's card."""
    card_path = folder / "pack.yaml"
    card = yaml.safe_load(card_path.read_text(encoding="utf-8"))
    card.setdefault("networks", {})[name] = entry
    _write(card_path, card)


def _write(path: Path, card: dict[str, Any]) -> None:
    write_text(path, yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=110))
