"""`adapt generate-targets`: from a recipe and a pack to a maker, and from photos to a target store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.commands.photographs import FaceMode, Finding
from adapt.devices import pick_device
from adapt.errors import UsageError
from adapt.loading import load_blur_parts, load_face_networks, load_identity_mask, load_prior, load_restorer
from adapt.locks import locked
from adapt.settings import TargetSettings
from adapt.settings.paths import FACES
from adapt.settings.recipe import load_recipe

if TYPE_CHECKING:
    from adapt.commands.align import OnPhoto as OnFace
    from adapt.targets.generate import OnPhoto, Summary


def generate_targets(
    photos: str | Path,
    out: str | Path,
    *,
    method: str | Path = "adaptive",
    pack: str | Path = "tiny",
    restorer: str | Path | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    device: str = "auto",
    maps: bool = False,
    faces: FaceMode = "aligned",
    finding: Finding | None = None,
    on_photo: OnPhoto | None = None,
    on_face: OnFace | None = None,
) -> Summary:
    """Make pseudo-targets of a folder of faces; see `adapt.targets.generate.generate_targets`.

    Args:
        photos, out, limit, shard, overwrite, on_photo: as there.
        method: name or file of a targets recipe.
        pack: name or folder of the pack with the prior, or a prior's checkpoint file.
        restorer: R of the papers: a checkpoint, a run, PACK or PACK/RESTORER; where None the recipe's, else the pack's
            own.
        overrides: `key=value` for the recipe.
        device: auto, cpu, cuda, cuda:1, ...
        maps: draw where each target that is made now was guided; for methods with a guidance adjuster or a mask.
        faces: whether photos are whole, or aligned faces, or each as it looks. Those of whole ones are cut out into
            `out`/faces first, and the targets are theirs. With shards, auto takes them as aligned.
        finding: how faces are found in whole ones; the pack's networks where None.
        on_face: told of photos whose faces are cut out: id, status, done, in all.

    Raises:
        UsageError: an output folder inside the photos, what cannot be used, a restorer that takes no faces of the
            prior's size, or `overwrite` of a store that others make their parts of; whole photographs in shards.
        PhotoError: whole photographs without a face.
    """
    from adapt.commands.align import faces_of, remove_faces
    from adapt.commands.map_sheet import write_maps
    from adapt.photos.files import size_of
    from adapt.photos.folder import find_photos, refuse_overlap
    from adapt.targets.generate import generate_targets as generate
    from adapt.targets.methods import target_maker
    from adapt.targets.store import TargetStore

    photos, out, pack = Path(photos), Path(out), str(pack)
    if overwrite and shard[1] > 1:
        raise UsageError(
            f"{out}: --overwrite would empty the store of all shards, not of this one alone; remove the folder, then"
            " start the shards without it"
        )
    if faces == "whole" and shard[1] > 1:
        raise UsageError("--faces whole: faces are cut out once, not by every shard; do that with adapt align first")
    refuse_overlap(photos, out)
    found = find_photos(photos, limit)  # before anything heavy is loaded: no photos is the commonest mistake
    settings = load_recipe(method, TargetSettings, overrides, pack=pack)
    if maps and not settings.has_maps:
        raise UsageError(
            f"--maps: {method} as it is set guides everywhere alike, and has no maps; leave it out, or take dynamic"
        )
    chosen = pick_device(device)
    prior = load_prior(pack, settings.prior).to(chosen)
    parts, blur = load_blur_parts(pack, settings, chosen)
    judges, told = None, None
    if settings.gate.likeness is not None or settings.needs_recogniser:
        judges, told = load_face_networks(pack, chosen)
    mask = load_identity_mask(pack).to(chosen) if settings.needs_mask else None
    maker = target_maker(settings, prior, parts, None if judges is None else judges.recogniser, mask)
    name = restorer or (pack if settings.restorer is None else f"{pack}/{settings.restorer}")
    model = load_restorer(name).at(prior.size, f"pack {pack}").to(chosen)
    identity = {
        "recipe": settings.model_dump(mode="json", exclude={"batch"}),
        "prior": prior.digest,
        "blur": blur,
        "restorer": model.digest,
    }
    if told is not None:
        identity["faces"] = told
    if mask is not None:
        identity["mask"] = mask.digest
    if faces == "auto" and (shard[1] > 1 or all(size_of(each.path) == (prior.size, prior.size) for each in found)):
        faces = "aligned"
    cut = None
    if faces != "aligned":
        with locked(out):
            TargetStore(out, identity, overwrite=overwrite)  # takes the folder, before another's is there
        cut = faces_of(
            photos, out / FACES, faces=faces, finding=finding or Finding(pack=pack), size=prior.size, limit=limit,
            device=device, overwrite=overwrite, only=True, on_photo=on_face,
        )  # fmt: skip
        overwrite = False
        if cut is not None:
            photos, limit = out / FACES, None
    elif overwrite and shard[1] == 1:
        with locked(out):
            TargetStore(out, identity, overwrite=True)
            remove_faces(out / FACES)  # or the targets would be taken for those of faces that an earlier run cut out
    summary = generate(
        photos,
        out,
        settings=settings,
        maker=maker,
        restorer=model,
        identity=identity,
        limit=limit,
        shard=shard,
        overwrite=overwrite,
        device=chosen,
        on_photo=on_photo,
        draw_maps=write_maps if maps else None,
        faces=judges,
    )
    return summary if cut is None else replace(
        summary, faces=cut.faces, unread=tuple(cut.failed), kept=(*summary.kept, *cut.kept)
    )
