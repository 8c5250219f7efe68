"""`adapt generate-targets`: from a recipe and a pack to a maker, and from photos to a target store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.build import load_blur_parts, load_face_networks, load_prior, load_restorer
from adapt.devices import pick_device
from adapt.errors import UsageError
from adapt.settings import TargetSettings
from adapt.settings.recipe import load_recipe

if TYPE_CHECKING:
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
    on_photo: OnPhoto | None = None,
) -> Summary:
    """Make pseudo-targets of a folder of aligned faces; see `adapt.targets.generate.generate_targets`.

    Args:
        photos, out, limit, shard, overwrite, on_photo: as there.
        method: name or file of a targets recipe.
        pack: name or folder of the pack with the prior, or a prior's checkpoint file.
        restorer: R of the papers: a checkpoint, a run, PACK or PACK/RESTORER; the pack's own where None.
        overrides: `key=value` for the recipe.
        device: auto, cpu, cuda, cuda:1, ...
        maps: draw the guidance maps of each target that is made now; only for methods with a guidance adjuster.

    Raises:
        UsageError: what cannot be used, a restorer that takes no faces of the prior's size, or `overwrite` of a store
            that others make their parts of.
    """
    from adapt.commands.map_sheet import write_maps
    from adapt.photos.folder import find_photos
    from adapt.targets.generate import generate_targets as generate
    from adapt.targets.methods import target_maker

    photos, out, pack = Path(photos), Path(out), str(pack)
    if overwrite and shard[1] > 1:
        raise UsageError(
            f"{out}: --overwrite would empty the store of all shards, not of this one alone; remove the folder, then"
            " start the shards without it"
        )
    find_photos(photos, limit)  # before anything heavy is loaded: no photos is the commonest mistake
    settings = load_recipe(method, TargetSettings, overrides, pack=pack)
    if maps and not settings.needs_adjuster:
        raise UsageError(
            f"--maps: {method} as it is set guides without an adjuster, and has no maps; leave it out, or take dynamic"
        )
    chosen = pick_device(device)
    prior = load_prior(pack).to(chosen)
    parts, blur = load_blur_parts(pack, settings, chosen)
    maker = target_maker(settings, prior, parts)
    name = restorer or pack
    model = load_restorer(name).at(prior.size, f"pack {pack}").to(chosen)
    identity = {
        "recipe": settings.model_dump(mode="json", exclude={"batch"}),
        "prior": prior.digest,
        "blur": blur,
        "restorer": model.digest,
    }
    faces = None
    if settings.gate.likeness is not None:
        faces, identity["faces"] = load_face_networks(pack, chosen)
    return generate(
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
        faces=faces,
    )
