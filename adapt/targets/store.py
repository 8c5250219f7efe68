"""The target store: images, and a manifest with one line per target, written last.

    store.json       what the targets were made with: recipe, weights, versions; part of it is the identity
    manifest.jsonl   one line per target; a shard writes its own manifest-I-of-N.jsonl beside it
    images/ID.png    the targets, mirrored like the photos' folders; further draws of them in images-2/, images-3/, ...
    maps/ID.jpg      how each was guided, where that was asked for; of further draws in maps-2/, ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from adapt._version import versions
from adapt.digests import file_digest, is_unchanged
from adapt.disk import append_json_line, claim_folder, is_marked, read_json_lines
from adapt.errors import UsageError
from adapt.journal import Journal, journal_names
from adapt.settings.draft import differences

Status = Literal["done", "rejected", "failed"]
Key = tuple[str, int]
"""A target: the photo's id and the draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of one draw of a photo's target.

    Attributes:
        id: the photo's name in its folder, without suffix.
        draw: which of the recipe's draws, from 0.
        photo, photo_sha256: the file and its content.
        status: done; rejected (by the gate; the image is kept to be looked at); failed (no image).
        reason: why it is not done.
        target, target_sha256: the image, relative to the store, and its content.
        seed: the seed of its noise.
        start_t: timestep the sampler started from.
        evaluations: network evaluations.
        blur_std: the blur level it was drawn for, in pixels, as in `adapt.targets.methods.SamplingInfo`.
        factor: N of its first low-frequency constraint.
        direct: sampled towards the photo itself, which the restorer had made worse.
        change_ratio, photo_share: what it was restrained by, as in `SamplingInfo`.
        scores: what the gate saw.
        redrawn: how many targets of this draw the gate had refused before; the seed and start_t are the last one's.
        refused: why each of those was refused.
        resized: the photo was brought to the network's size first.
        enlarged: how many times longer its side became by that; None where it was not smaller.
        revision: how many lines told of this target before; the store sets it. The highest counts, for lines of one
            target may stand in the manifests of several shards.
    """

    id: str
    draw: int = 0
    photo: str
    photo_sha256: str
    status: Status
    reason: str | None = None
    target: str | None = None
    target_sha256: str | None = None
    seed: int | None = None
    start_t: int | None = None
    evaluations: int | None = None
    blur_std: float | None = None
    factor: int | None = None
    fallback: bool = False
    change_ratio: float | None = None
    photo_share: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    redrawn: int = 0
    refused: list[str] = field(default_factory=list)
    resized: bool = False
    enlarged: float | None = None
    revision: int = 0


CLAIM: Final = "store.json"
KIND: Final = "target store"
_MANIFEST: Final = re.compile(r"manifest(-[0-9]+-of-[0-9]+)?\.jsonl")
SHOWN: Final = 10  # reasons, where nothing was accepted
_KNOWN = {item.name for item in fields(Record)}


class TargetStore:
    """An open store.

    Args:
        folder: where it lives; made if it is missing.
        identity: everything that decides what a target looks like; a store with another identity is refused.
        shard: (index, count) of this process, from 0.
        overwrite: remove first what was written there.

    Attributes:
        journal: what was written there.

    Raises:
        UsageError: the folder holds targets made otherwise, or other files.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], *, shard: tuple[int, int] = (0, 1), overwrite: bool = False
    ) -> None:
        self.folder = folder
        about = {"identity": identity, "versions": versions()}
        found = claim_folder(
            folder, CLAIM, about, kind=KIND, ours="a target store", writes=lambda: written(folder), overwrite=overwrite
        ).get("identity")
        known: dict[str, Any] = found if isinstance(found, dict) else {}
        differs = sorted(key for key in {*known, *identity} if known.get(key) != identity.get(key))
        if differs:
            named = (_named(key, known.get(key), identity.get(key)) for key in differs)
            raise UsageError(
                f"{folder}: holds targets made with another {', '.join(named)};"
                " choose another folder, or --overwrite to start anew"
            )
        index, count = shard
        name = "manifest.jsonl" if count == 1 else f"manifest-{index + 1}-of-{count}.jsonl"
        self.manifest = folder / name
        self.journal = Journal(folder, _told(folder), shard=shard, overwrite=overwrite)
        self._latest = {(record.id, record.draw): record for record in read_records(folder)}

    def add(self, record: Record) -> None:
        """Append a target's line, where its last one says something else. Its image must be on the disk already."""
        before = self._latest.get((record.id, record.draw))
        if before is not None and before == replace(record, revision=before.revision):
            return
        record = replace(record, revision=before.revision + 1 if before else 0)
        append_json_line(self.manifest, {k: v for k, v in asdict(record).items() if v is not None and v != {}})
        self._latest[record.id, record.draw] = record

    def unfinished(self, wanted: Mapping[Key, str]) -> set[Key]:
        """Which of the wanted targets, (id, draw) -> sha256 of the photo, still need work.

        None is needed where the photo is the same and the target is still what was written. Failed ones are tried
        again.
        """
        return {key for key, digest in wanted.items() if not self._finished(self._latest.get(key), digest)}

    def tells_of(self, key: Key, photo_sha256: str) -> bool:
        """Whether a target with an image was made of this photo, whatever the image has become since."""
        record = self._latest.get(key)
        return record is not None and record.target is not None and record.photo_sha256 == photo_sha256

    def _finished(self, record: Record | None, photo_sha256: str) -> bool:
        if record is None or record.status == "failed" or record.photo_sha256 != photo_sha256:
            return False
        return is_unchanged(self.folder / (record.target or ""), record.target_sha256)


def _named(key: str, there: Any, now: Any) -> str:
    """A part of the identity, and where it is settings and no digest, what differs."""
    return f"{key} ({differences(there, now)})" if isinstance(there, dict) and isinstance(now, dict) else key


def is_store(folder: Path) -> bool:
    """Whether a folder is a target store of ours.

    Raises:
        UsageError: its store.json is damaged, so that it cannot be told.
    """
    return is_marked(folder / CLAIM, KIND)


def read_records(folder: Path) -> list[Record]:
    """The last line of each target in a store's manifests, in the order of ids and draws.

    Raises:
        UsageError: the folder is not a target store, or a line is damaged.
    """
    if not is_store(folder):
        raise UsageError(f"{folder}: not a target store (no store.json of one); make one with adapt generate-targets")
    latest: dict[Key, Record] = {}
    for line in _lines(folder):
        record = Record(**{key: value for key, value in line.items() if key in _KNOWN})
        known = latest.get((record.id, record.draw))
        if known is None or record.revision >= known.revision:
            latest[record.id, record.draw] = record
    return [latest[key] for key in sorted(latest)]


def written(folder: Path) -> list[str]:
    """What was written into a store beside store.json, for `adapt.disk.remove_written`."""
    manifests = [manifest.name for manifest in _manifests(folder)]
    return [*(name for name, _ in _told(folder)), *manifests, *journal_names(folder)]


def _manifests(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if _MANIFEST.fullmatch(each.name))


def _lines(folder: Path) -> list[dict[str, Any]]:
    needed = ("id", "photo", "photo_sha256", "status")
    return [line for manifest in _manifests(folder) for line in read_json_lines(manifest, needed)]


def _told(folder: Path) -> list[tuple[str, str | None]]:
    """The images that the manifests tell of, and what was written into each."""
    return [(line["target"], line.get("target_sha256", "")) for line in _lines(folder) if line.get("target")]


def image_name(id: str, draw: int) -> str:
    """Where a target lies in its store. Each draw has a folder, so that no photo's name can meet another's draw."""
    return f"images{_numbered(draw)}/{id}.png"


def maps_name(id: str, draw: int) -> str:
    """Where the image of a target's guidance maps lies in its store."""
    return f"maps{_numbered(draw)}/{id}.jpg"


def _numbered(draw: int) -> str:
    return f"-{draw + 1}" if draw else ""


def accepted_targets(folder: Path) -> dict[str, list[Path]]:
    """Images to train on, by photo id: a store's done ones, or all of a plain folder of images.

    Raises:
        UsageError: none.
    """
    reasons: list[str] = []
    if is_store(folder):
        found: dict[str, list[Path]] = {}
        for record in read_records(folder):
            reasons += [f"\n  {record.status}: {record.id}: {record.reason}"] if record.reason else []
            if record.status == "done" and record.target is not None:
                found.setdefault(record.id, []).append(folder / record.target)
    else:
        from adapt.photos.folder import find_photos

        found = {photo.id: [photo.path] for photo in find_photos(folder)}
    if not found:
        more = f"\n  and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        raise UsageError(f"{folder}: holds no accepted targets{''.join(reasons[:SHOWN])}{more}")
    return found


def target_digests(folder: Path, accepted: Mapping[str, list[Path]]) -> tuple[dict[str, list[str]], list[Path]]:
    """The sha256 of images that `accepted_targets` has found, by photo id; and those that somebody changed after
    they were made. They count as they are now: that is how a target is corrected by hand.

    Raises:
        UsageError: a store's image is gone, or empty.
    """
    written: dict[Path, str | None] = {}
    if is_store(folder):
        written = {folder / record.target: record.target_sha256 for record in read_records(folder) if record.target}
    there = {path: path.is_file() and path.stat().st_size > 0 for paths in accepted.values() for path in paths}
    if lost := [path for path, found in there.items() if not found]:
        raise UsageError(
            f"{folder}: {len(lost)} of {len(there)} targets are gone or empty, first: {lost[0]}; run"
            " generate-targets again, which makes these anew"
        )
    digests = {path: file_digest(path) for path in there}
    changed = [path for path, digest in digests.items() if written.get(path) not in (None, digest)]
    return {id: [digests[path] for path in paths] for id, paths in accepted.items()}, changed
