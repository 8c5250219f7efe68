"""Generation of pseudo-targets: photos in, a target store out; resumed, sharded, a bad photo named and passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapt.devices import full_precision, within_memory
from adapt.digests import file_digest, photo_seed
from adapt.disk import shown_name
from adapt.errors import PhotoError
from adapt.guidance.maps import MapSnapshot, MapWatch
from adapt.images import to_grey
from adapt.journal import KeptError
from adapt.locks import locked
from adapt.photos.files import encode_png
from adapt.photos.folder import PhotoFile, find_photos
from adapt.photos.pairs import Fitted, read_fitted
from adapt.restorers.base import Restorer
from adapt.settings import TargetSettings
from adapt.targets.gate import Candidate, judge
from adapt.targets.likeness import FaceNetworks, likeness
from adapt.targets.methods import SamplingInfo, TargetBatch, TargetMaker
from adapt.targets.restored import restored_for
from adapt.targets.store import Key, Record, TargetStore, image_name, maps_name, read_records

OnPhoto = Callable[[Record, int, int], None]
DrawMaps = Callable[[Path, Mapping[str, Sequence[MapSnapshot]]], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the targets of this shard.

    Attributes:
        records: in the order of photos and draws.
        without_maps: how many of them have no image of their guidance maps; 0 where none were asked for.
        kept: a line for each target that was changed since it was made, and for each image of maps that stays so.
        faces: how many faces each whole photograph has, by id; the records are of those.
        unread: a line for each whole photograph that could not be read.
    """

    records: list[Record]
    without_maps: int = 0
    kept: tuple[str, ...] = ()
    faces: Mapping[str, int] = field(default_factory=dict[str, int])
    unread: tuple[str, ...] = ()

    def count(self, status: str) -> int:
        """How many targets ended in a status; a photo that cannot be read is one failed target."""
        return sum(record.status == status for record in self.records)

    @property
    def resized(self) -> int:
        """How many photos were brought to the prior's size first."""
        return len({record.id for record in self.records if record.resized})

    @property
    def enlarged(self) -> dict[str, float]:
        """How many times longer the side of each photo became that was smaller than the prior's, by id."""
        return {record.id: record.enlarged for record in self.records if record.enlarged is not None}


@dataclass(frozen=True, slots=True)
class _Item:
    photo: PhotoFile
    sha256: str
    draw: int

    @property
    def key(self) -> Key:
        return self.photo.id, self.draw


@dataclass(frozen=True, slots=True)
class _Result:
    """A target's line, and where it has an image, that and what was seen on the way to it.

    An unreadable photo has one line for all its draws.
    """

    record: Record
    image: bytes | None = None
    seen: Sequence[MapSnapshot] = ()
    unreadable: bool = False


def generate_targets(
    photos: Path,
    out: Path,
    *,
    settings: TargetSettings,
    maker: TargetMaker,
    restorer: Restorer,
    identity: dict[str, Any],
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    on_photo: OnPhoto | None = None,
    draw_maps: DrawMaps | None = None,
    faces: FaceNetworks | None = None,
) -> Summary:
    """Make the targets of a folder of photos that are not there yet.

    Each target's noise comes from the seed, the photo's content and the draw, so that order and shards do not matter.
    On the CPU targets are made one at a time: batches save nothing there (2.5 s for 8 evaluations of the tiny prior,
    2.4 s for one of 8), and a target is the same to the last bit whatever else is asked for. Elsewhere batches are cut
    from the list of all targets, the draws of a photo side by side, so that a resumed run computes what the
    uninterrupted one would have.

    Args:
        photos: folder of aligned faces (or one file), not where the store writes.
        out: the store.
        settings: the recipe; batch, seed, draws, match_mean_luminance, compat and gate are read here.
        maker: the method with its prior.
        restorer: R of the papers.
        identity: what decides the result, for the store.
        limit: only the first so many photos.
        shard: (index, count): this process takes every count-th photo, from index on.
        overwrite: start the store anew.
        device: where the networks are.
        on_photo: sees each record, with targets finished and targets in all.
        draw_maps: writes what was seen of a photo, by its id, to a file: of each target that is made now. Those that
            are there already keep the image they have, or none. The targets are the same with and without.
        faces: what the gate tells people apart by, on the device; needed where the recipe has `gate.likeness`.

    Raises:
        UsageError: no photos, an output folder with other files, or a store made otherwise.
    """
    chosen = find_photos(photos, limit)[shard[0] :: shard[1]]
    with locked(out, shard):
        store = TargetStore(out, identity, shard=shard, overwrite=overwrite)
        drawing = _Drawing(settings, maker, restorer, device, faces)
        return _make_all(chosen, store, drawing, on_photo=on_photo, draw_maps=draw_maps)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """What draws targets and judges them, as `generate_targets` was given it."""

    settings: TargetSettings
    maker: TargetMaker
    restorer: Restorer
    device: torch.device | str
    faces: FaceNetworks | None


def _make_all(
    chosen: Sequence[PhotoFile],
    store: TargetStore,
    drawing: _Drawing,
    *,
    on_photo: OnPhoto | None,
    draw_maps: DrawMaps | None,
) -> Summary:
    """`generate_targets` in a store that is open and held."""
    out, journal = store.folder, store.journal
    digests = [_digest(photo) for photo in chosen]
    items = [
        _Item(photo, digest, draw)
        for photo, digest in zip(chosen, digests, strict=True)
        for draw in range(drawing.settings.draws)
    ]
    waiting = store.unfinished({item.key: item.sha256 for item in items})
    kept, refused = _in_the_way([item for item in items if item.key in waiting], store)
    waiting -= {*kept, *refused}
    finished = len(items) - len(waiting) - len(refused)

    def add(record: Record, count: int = 1) -> None:
        nonlocal finished
        store.add(record)
        finished += count
        if on_photo is not None:
            on_photo(record, finished, len(items))

    for record in refused.values():
        add(record)
    batch = at_a_time(drawing.settings, drawing.device)
    for first in range(0, len(items), batch):
        group = items[first : first + batch]
        if not any(item.key in waiting for item in group):
            continue
        with full_precision():
            results = _make_group(group, drawing)
        for result in results:
            record, image = result.record, result.image
            if (record.id, record.draw) not in waiting:
                continue
            maps = maps_name(record.id, record.draw)
            try:
                if image is not None and record.target is not None:
                    journal.write(record.target, image)
            except PhotoError as error:
                record = _without_target(record, str(error))
            try:
                journal.remove(maps)  # of an older target
                if record.target is not None and draw_maps is not None:
                    with journal.replacing(maps) as path:
                        draw_maps(path, {record.id: result.seen})
            except PhotoError as error:
                if record.target is not None:  # else it is told of already
                    kept[record.id, record.draw] = str(error)
            add(record, sum(id == record.id for id, _ in waiting) if result.unreadable else 1)
    records = {(record.id, record.draw): record for record in read_records(out)}
    chosen_records = [records[item.key] for item in items if item.key in records]
    drawn = [r.target is None or (out / maps_name(r.id, r.draw)).is_file() for r in chosen_records]
    return Summary(chosen_records, 0 if draw_maps is None else drawn.count(False), tuple(kept.values()))


def _in_the_way(items: Sequence[_Item], store: TargetStore) -> tuple[dict[Key, str], dict[Key, Record]]:
    """Of targets that are not as they were written: a line for each that was changed since it was made of this photo;
    and what becomes of each in whose place something else is, or can be nothing.
    """
    kept: dict[Key, str] = {}
    refused: dict[Key, Record] = {}
    for item in items:
        try:
            store.journal.refuse_others(image_name(item.photo.id, item.draw))
        except PhotoError as error:
            if isinstance(error, KeptError) and store.tells_of(item.key, item.sha256):
                kept[item.key] = str(error)
            else:
                refused[item.key] = _failed(item, str(error))
    return kept, refused


def _digest(photo: PhotoFile) -> str:
    """Of its content; nothing for a file that cannot be opened: reading it, in its turn, says why."""
    try:
        return file_digest(photo.path)
    except OSError:
        return ""


def at_a_time(settings: TargetSettings, device: torch.device | str) -> int:
    """How many targets share an evaluation of the networks."""
    return 1 if torch.device(device).type == "cpu" else settings.batch


def _make_group(group: Sequence[_Item], drawing: _Drawing) -> list[_Result]:
    """The results of one batch of targets, in their order; of an unreadable photo only the first."""
    settings, device = drawing.settings, drawing.device
    results: list[_Result] = []
    images: dict[str, Fitted] = {}
    for item in group:
        if item.photo.id not in images:
            try:
                images[item.photo.id] = read_fitted(item.photo.path, drawing.maker.prior.size)
            except PhotoError as error:
                if item.draw == 0:
                    results.append(_Result(_failed(item, str(error)), unreadable=True))
    readable = [item for item in group if item.photo.id in images]
    if readable:
        rows = {id: row for row, id in enumerate(images)}
        photos = torch.stack([image.image for image in images.values()]).to(device)
        chosen = [rows[item.photo.id] for item in readable]
        restored = within_memory(lambda batch: restored_for(batch, drawing.restorer, settings), photos)
        grey = torch.tensor([image.grey for image in images.values()], device=photos.device)
        restored = torch.where(grey[:, None, None, None], to_grey(restored), restored)
        results += _drawn(readable, photos[chosen], restored[chosen], images, drawing)
    order = {item.key: place for place, item in enumerate(group)}
    return sorted(results, key=lambda result: order[result.record.id, result.record.draw])


def _drawn(
    items: Sequence[_Item], photos: Tensor, restored: Tensor, fitted: Mapping[str, Fitted], drawing: _Drawing
) -> list[_Result]:
    """A result for each target. What the gate refuses is drawn again, together with what else it refused: once with
    other noise, and then from at most half the start step of before, as often as the recipe says.
    """
    settings = drawing.settings
    results: dict[int, _Result] = {}
    waiting = list(range(len(items)))
    latest: list[int | None] = [None] * len(items)
    refused: list[list[str]] = [[] for _ in items]
    for redraw in range(settings.gate.redraws + 1):
        shown, seeds = (
            [photo_seed(settings.seed, items[row].sha256, items[row].draw, again) for row in waiting]
            for again in (0, redraw)
        )
        asked = _Inputs(photos[waiting], restored[waiting], shown, seeds, [latest[row] for row in waiting])
        made, seen = _made_within_memory(drawing.maker, asked)
        for place, row in enumerate(waiting):
            read, info = fitted[items[row].photo.id], made.infos[place]
            target = to_grey(made.images[place]) if read.grey else made.images[place]
            kept = None
            if drawing.faces is not None and settings.gate.likeness is not None and bool(target.isfinite().all()):
                kept = likeness(target, made.towards[place], photos[row], drawing.faces)
            candidate = Candidate(
                target=target.cpu(), towards=made.towards[place].cpu(), photo=photos[row].cpu(), likeness=kept
            )
            record, encoded = _judged(items[row], seeds[place], candidate, info, settings)
            enlarged = None if read.enlarged is None else round(read.enlarged, 4)
            record = replace(
                record, resized=read.resized, enlarged=enlarged, redrawn=redraw, refused=list(refused[row])
            )
            refused[row].append(record.reason or "")
            results[row] = _Result(record, encoded, seen[place])
            if redraw:
                latest[row] = info.start_t // 2
        records = {row: results[row].record for row in waiting}
        waiting = [row for row, record in records.items() if record.status == "rejected" and record.evaluations]
        if not waiting:
            break
    return [results[row] for row in range(len(items))]


class _Inputs(NamedTuple):
    """What a maker is asked for, in its order."""

    photos: Tensor
    restored: Tensor
    seeds: Sequence[int]
    noise: Sequence[int]
    latest: Sequence[int | None]

    def part(self, rows: slice) -> _Inputs:
        return _Inputs(self.photos[rows], self.restored[rows], self.seeds[rows], self.noise[rows], self.latest[rows])


def _made_within_memory(maker: TargetMaker, asked: _Inputs) -> tuple[TargetBatch, list[list[MapSnapshot]]]:
    """The batch and what was seen of each on the way, in one go, or in halves where memory runs out."""
    watch = MapWatch(len(asked.seeds))
    try:
        photos, restored, seeds, noise, latest = asked
        return maker.make(photos, restored, seeds, noise=noise, latest=latest, on_step=watch), watch.seen
    except torch.OutOfMemoryError:
        if len(asked.seeds) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(asked.seeds) // 2
    first, seen = _made_within_memory(maker, asked.part(slice(half)))
    second, seen_after = _made_within_memory(maker, asked.part(slice(half, None)))
    made = TargetBatch(
        torch.cat([first.images, second.images]),
        torch.cat([first.towards, second.towards]),
        first.infos + second.infos,
    )
    return made, seen + seen_after


def _judged(
    item: _Item, seed: int, candidate: Candidate, info: SamplingInfo, settings: TargetSettings
) -> tuple[Record, bytes | None]:
    """The record of a target, and its image unless it is not one."""
    if info.problem is not None:
        return _failed(item, info.problem), None
    reason, scores = judge(candidate, settings.gate)
    if not scores:
        return _failed(item, reason), None
    image = encode_png(candidate.target)
    name = image_name(item.photo.id, item.draw)
    record = Record(
        id=item.photo.id,
        draw=item.draw,
        photo=item.photo.path.name,
        photo_sha256=item.sha256,
        status="rejected" if reason else "done",
        reason=reason,
        target=name,
        target_sha256=hashlib.sha256(image).hexdigest(),
        seed=seed,
        start_t=info.start_t,
        evaluations=info.evaluations,
        blur_std=None if info.std is None else round(info.std, 4),
        factor=info.factor,
        fallback=info.fallback,
        change_ratio=None if info.change_ratio is None else round(info.change_ratio, 4),
        photo_share=None if info.photo_share is None else round(info.photo_share, 4),
        scores={key: round(value, 6) for key, value in scores.items()},
    )
    return record, image


def _failed(item: _Item, reason: str | None) -> Record:
    return Record(
        id=item.photo.id,
        draw=item.draw,
        photo=item.photo.path.name,
        photo_sha256=item.sha256,
        status="failed",
        reason=None if reason is None else shown_name(reason),
    )


def _without_target(record: Record, reason: str) -> Record:
    """What becomes of a target that cannot be written."""
    return Record(
        id=record.id, draw=record.draw, photo=record.photo, photo_sha256=record.photo_sha256, status="failed",
        reason=shown_name(reason),
    )
