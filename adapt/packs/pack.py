"""A pack: networks that belong together, named in `pack.yaml` with files, digests, sources and licences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt, ValidationError

from adapt.digests import bytes_digest, file_digest, settings_digest
from adapt.disk import write_text
from adapt.errors import RecipeError, UsageError, WeightsError
from adapt.locks import locked
from adapt.settings import Settings
from adapt.settings.draft import Draft, to_yaml

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDED = Path(__file__).parent
GROUP = "adapt.packs"  # entry points of packages that hold a pack: its name, and the package that lies beside its card
APART = {"small": "adapt-bfr-small"}  # packs of this project that are packages of their own
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
        """Tensors (as float32) and header of one network; nothing of a file is looked at before its digest is right.

        Raises:
            WeightsError: no such network, or a file that is missing or damaged.
        """
        from adapt.weights import parse_state

        state: dict[str, Tensor] = {}
        metadata: dict[str, str] = {}
        for file, expected in self.network(name).files.items():
            path = self.folder / file
            tensors, header = parse_state(self._checked(path, expected), path)
            state.update({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
            metadata.update(header)
        return state, metadata

    def table(self, name: str) -> tuple[Path, bytes]:
        """The file of an entry that is no network but a table, and its content, checked against its digest.

        Raises:
            WeightsError: no such entry, or a file that is missing or damaged.
        """
        file, expected = next(iter(self.network(name).files.items()))
        path = self.folder / file
        return path, self._checked(path, expected)

    def _checked(self, path: Path, expected: str) -> bytes:
        """The content of a file, if it has this digest: the bytes that are used, not those of another reading."""
        from adapt.weights import read_bytes

        data = read_bytes(path)
        if bytes_digest(data) != expected:
            raise WeightsError(f"{path}: not the file that {self.folder / 'pack.yaml'} names; fetch it again")
        return data


def known_packs() -> dict[str, Path]:
    """The folders of the packs that have a name: those that ship, and those of packages that are installed beside."""
    found = {card.parent.name: card.parent for card in EMBEDDED.glob("*/pack.yaml")}
    for point in entry_points(group=GROUP):
        spec = find_spec(point.value)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / "pack.yaml").is_file():
                found.setdefault(point.name, Path(folder))
    return dict(sorted(found.items()))


def to_install(name: str | Path) -> str:
    """What to add to a message where a pack of this project was named that is not installed; else nothing."""
    return f"; it is a package of its own: pip install {APART[str(name)]}" if str(name) in APART else ""


def load_pack(name: str | Path) -> Pack:
    """Open a pack by its name (`known_packs`), or by a folder or its `pack.yaml`.

    Raises:
        UsageError: there is no such pack.
        WeightsError: its card cannot be read.
    """
    known, given = known_packs(), Path(name)
    folder = known.get(str(name), given)
    card = folder / "pack.yaml" if folder.is_dir() else folder
    if not card.is_file() or card.suffix not in (".yaml", ".yml"):
        raise UsageError(f"no pack '{name}'{to_install(name)}; there are {', '.join(known)}, else name a folder")
    try:
        return Pack(card.parent, PackCard.model_validate(_card_values(card)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise WeightsError(
            f"{card}: not a pack card: {where}: {first['msg']}{more}; mend it, or put it back from a copy"
        ) from error


def _card_values(card: Path) -> dict[str, Any]:
    """What a card's file says, not yet checked. Raises WeightsError: it is not YAML, or holds too much."""
    try:
        draft = Draft.read(card)
        if draft.problems:
            raise RecipeError(str(min(draft.problems)))
        return draft.values
    except RecipeError as error:
        reason = str(error).removeprefix(f"{card}: ")
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

    Raises:
        UsageError: another command works in the folder.
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
    with locked(folder):
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

    Raises:
        UsageError: another command works in the folder.
    """
    copy = folder / f"{name}.json"
    with locked(folder):
        write_text(copy, table.read_text(encoding="utf-8"))
        _enter(folder, name, {**entry, "files": {copy.name: file_digest(copy)}})


def named_file(folder: Path, file: Path, sha256: str) -> dict[str, str]:
    """A file as a card names it where it lies: its path from the folder on if it is inside, else the absolute one, and
    its sha256, that of what was seen to be in it.

    Folders are resolved, but the file's own name stays: it may be a link to one whose name says nothing.
    """
    path, inside = file.parent.resolve() / file.name, folder.resolve()
    place = path.relative_to(inside) if path.is_relative_to(inside) else path
    return {place.as_posix(): sha256}


def write_card(folder: Path, card: PackCard) -> None:
    """Write a card as the folder's `pack.yaml`; the folder is made if it is missing."""
    _write(folder / "pack.yaml", card.model_dump(mode="json"))


def _enter(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Put an entry into a pack's card."""
    card_path = folder / "pack.yaml"
    card = _card_values(card_path)
    card.setdefault("networks", {})[name] = entry
    _write(card_path, card)


def _write(path: Path, card: dict[str, Any]) -> None:
    write_text(path, to_yaml(card, in_blocks=True))
