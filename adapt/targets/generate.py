"""Generation of pseudo-targets: photos in, a target store out; resumed, sharded, a bad photo named and passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapt.devices import full_precision
from adapt.digests import file_digest, photo_seed
from adapt.disk import write_atomic
from adapt.errors import PhotoError
from adapt.guidance.maps import MapSnapshot, MapWatch
from adapt.photos.files import encode_png
from adapt.photos.folder import PhotoFile, find_photos, refuse_overlap
from adapt.photos.pairs import Fitted, read_fitted
from adapt.restorers.base import Restorer
from adapt.settings import TargetSettings
from adapt.targets.exposure import restored_for
from adapt.targets.gate import judge
from adapt.targets.methods import SamplingInfo, TargetBatch, TargetMaker
from adapt.targets.store import Key, Record, TargetStore, image_name, maps_name, read_records

OnPhoto = Callable[[Record, int, int], None]
DrawMaps = Callable[[Path, Mapping[str, Sequence[MapSnapshot]]], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the targets of this shard.

    Attributes:
        records: in the order of photos and draws.
        without_maps: how many of them have no image of their guidance maps; 0 where none were asked for.
    """

    records: list[Record]
    without_maps: int = 0

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
) -> Summary:
    """Make the targets of a folder of photos that are not there yet.

    Each target's noise comes from the seed, the photo's content and the draw, so that order and shards do not matter.
    On the CPU targets are made one at a time: batches save nothing there (2.5 s for 8 evaluations of the tiny prior,
    2.4 s for one of 8), and a target is the same to the last bit whatever else is asked for. Elsewhere batches are cut
    from the list of all targets, the draws of a photo side by side, so that a resumed run computes what the
    uninterrupted one would have.

    Args:
        photos: folder of aligned faces (or one file).
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

    Raises:
        UsageError: no photos, an output folder inside the photos or with other files, or a store made otherwise.
    """
    refuse_overlap(photos, out)
    chosen = find_photos(photos, limit)[shard[0] :: shard[1]]
    store = TargetStore(out, identity, shard=shard, overwrite=overwrite)
    digests = [_digest(photo) for photo in chosen]
    items = [
        _Item(photo, digest, draw)
        for photo, digest in zip(chosen, digests, strict=True)
        for draw in range(settings.draws)
    ]
    waiting = store.unfinished({item.key: item.sha256 for item in items})
    finished = len(items) - len(waiting)
    batch = at_a_time(settings, device)
    for first in range(0, len(items), batch):
        group = items[first : first + batch]
        if not any(item.key in waiting for item in group):
            continue
        with full_precision():
            results = _make_group(group, settings, maker, restorer, device)
        for result in results:
            record, image = result.record, result.image
            if (record.id, record.draw) not in waiting:
                continue
            maps = out / maps_name(record.id, record.draw)
            maps.unlink(missing_ok=True)  # of an older target
            if image is not None and record.target is not None:
                write_atomic(out / record.target, lambda stream, data=image: stream.write(data))
                if draw_maps is not None:
                    draw_maps(maps, {record.id: result.seen})
            store.add(record)
            finished += sum(id == record.id for id, _ in waiting) if result.unreadable else 1
            if on_photo is not None:
                on_photo(record, finished, len(items))
    records = {(record.id, record.draw): record for record in read_records(out)}
    chosen_records = [records[item.key] for item in items if item.key in records]
    drawn = [r.target is None or (out / maps_name(r.id, r.draw)).is_file() for r in chosen_records]
    return Summary(chosen_records, 0 if draw_maps is None else drawn.count(False))


def _digest(photo: PhotoFile) -> str:
    """Of its content; nothing for a file that cannot be opened: reading it, in its turn, says why."""
    try:
        return file_digest(photo.path)
    except OSError:
        return ""


def at_a_time(settings: TargetSettings, device: torch.device | str) -> int:
    """How many targets share an evaluation of the networks."""
    return 1 if torch.device(device).type == "cpu" else settings.batch


def _make_group(
    group: Sequence[_Item],
    settings: TargetSettings,
    maker: TargetMaker,
    restorer: Restorer,
    device: torch.device | str,
) -> list[_Result]:
    """The results of one batch of targets, in their order; of an unreadable photo only the first."""
    results: list[_Result] = []
    images: dict[str, Fitted] = {}
    for item in group:
        if item.photo.id not in images:
            try:
                images[item.photo.id] = read_fitted(item.photo.path, maker.prior.size)
            except PhotoError as error:
                if item.draw == 0:
                    results.append(_Result(_failed(item, str(error)), unreadable=True))
    readable = [item for item in group if item.photo.id in images]
    if readable:
        rows = {id: row for row, id in enumerate(images)}
        photos = torch.stack([image.image for image in images.values()]).to(device)
        chosen = [rows[item.photo.id] for item in readable]
        seeds = [photo_seed(settings.seed, item.sha256, item.draw) for item in readable]
        restored = restored_for(photos, restorer, settings)
        made, seen = _within_memory(maker, photos[chosen], restored[chosen], seeds)
        before, after = made.towards.cpu(), made.images.cpu()
        for row, (item, seed) in enumerate(zip(readable, seeds, strict=True)):
            record, encoded = _judged(item, seed, before[row], after[row], made.ways[row], settings)
            fitted = images[item.photo.id]
            record = replace(
                record,
                resized=fitted.resized,
                enlarged=None if fitted.enlarged is None else round(fitted.enlarged, 4),
            )
            results.append(_Result(record, encoded, seen[row]))
    order = {item.key: place for place, item in enumerate(group)}
    return sorted(results, key=lambda result: order[result.record.id, result.record.draw])


def _within_memory(
    maker: TargetMaker, photos: Tensor, restored: Tensor, seeds: Sequence[int]
) -> tuple[TargetBatch, list[list[MapSnapshot]]]:
    """The batch and what was seen of each on the way, in one go, or in halves where memory runs out."""
    watch = MapWatch(len(seeds))
    try:
        return maker.make(photos, restored, seeds, on_step=watch), watch.seen
    except torch.OutOfMemoryError:
        if len(seeds) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(seeds) // 2
    first, seen = _within_memory(maker, photos[:half], restored[:half], seeds[:half])
    second, seen_after = _within_memory(maker, photos[half:], restored[half:], seeds[half:])
    made = TargetBatch(
        torch.cat([first.images, second.images]),
        torch.cat([first.towards, second.towards]),
        first.ways + second.ways,
    )
    return made, seen + seen_after


def _judged(
    item: _Item, seed: int, towards: Tensor, target: Tensor, way: SamplingInfo, settings: TargetSettings
) -> tuple[Record, bytes | None]:
    """The record of a target, and its image unless it is not one."""
    reason, scores = judge(target, towards, settings.gate)
    if not scores:
        return _failed(item, reason), None
    image = encode_png(target)
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
        start_t=way.start_t,
        evaluations=way.evaluations,
        blur_std=None if way.std is None else round(way.std, 4),
        factor=way.factor,
        fallback=way.fallback,
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
        reason=reason,
    )
