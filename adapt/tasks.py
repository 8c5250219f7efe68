"""The commands' work, from names to results: what `adapt.cli` calls and `adapt.pipeline` chains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapt.build import load_blur_parts, load_distance, load_model, load_prior, load_restorer
from adapt.digests import bytes_digest
from adapt.disk import optional_path
from adapt.errors import UsageError
from adapt.packs.named import named_restorer
from adapt.packs.pack import load_pack
from adapt.recipe import load_recipe
from adapt.runs import distance_of
from adapt.settings import TargetSettings
from adapt.settings.paths import ONNX, is_bundle
from adapt.weights import read_bytes

if TYPE_CHECKING:
    from adapt.evaluation.scores import Evaluation
    from adapt.restorers.base import Restorer
    from adapt.restoring import OnPhoto as RestoreProgress
    from adapt.restoring import Restored
    from adapt.targets.generate import OnPhoto, Summary


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: `auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: cannot be used here ({reason}); try auto or cpu") from error
    return device


def weights_digest(name: str | Path) -> str:
    """Stands for what `adapt.build.load_model` would run by this name now: of a bundle its model.onnx."""
    if is_bundle(Path(name)):
        return bytes_digest(read_bytes(Path(name) / ONNX))
    return named_restorer(name).digest()


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
    from adapt.map_sheet import write_maps
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
            f"--maps: {method} as it is set guides without an adjuster, and has no maps; leave it out, or take adaptive"
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
    )


def restore(
    model: str | Path,
    photos: str | Path,
    out: str | Path,
    *,
    fidelity: float | None = None,
    size: int | None = None,
    limit: int | None = None,
    batch: int = 8,
    overwrite: bool = False,
    device: str = "auto",
    on_photo: RestoreProgress | None = None,
) -> Restored:
    """Restore a folder of aligned faces; see `adapt.restoring.restore_folder`.

    Args:
        model: as `adapt.build.load_model`.
        photos, out, limit, batch, overwrite, on_photo: as there.
        fidelity: from 0, what faces look like, to 1, what the photo shows; the network's own where None. Only for
            networks that take one.
        size: side of the faces in pixels, for a network that takes any; where None what it was made for, or 512 where
            its file does not say.
        device: auto, cpu, cuda, cuda:1, ...; for a bundle auto is CUDA where onnxruntime has it.

    Raises:
        UsageError: what cannot be used, or a size that the model does not work at.
    """
    from adapt.restorers.base import Restorer
    from adapt.restoring import restore_folder

    chosen = pick_device(device)
    loaded = load_model(model, None if device == "auto" else chosen)
    chosen_fidelity = loaded.chosen_fidelity(fidelity)
    if isinstance(loaded, Restorer):
        loaded = (loaded if size is None else _at(loaded, size)).to(chosen)
    elif size not in (None, loaded.size):
        raise UsageError(
            f"--size {size}: {model} is a bundle, which works at the size it was exported for, {loaded.size} px; leave"
            " this out, or name the weights it was exported from"
        )
    return restore_folder(
        loaded,
        Path(photos),
        Path(out),
        digest=loaded.digest,
        fidelity=chosen_fidelity,
        limit=limit,
        batch=batch,
        overwrite=overwrite,
        device=chosen,
        on_photo=on_photo,
    )


def _at(restorer: Restorer, size: int) -> Restorer:
    """The restorer at the size that a user asks for; raises UsageError where it does not work at that."""
    if size < 1:
        raise UsageError(f"--size {size}: expected a number of pixels, 1 or more")
    if restorer.one_size and size != restorer.size:
        raise UsageError(f"--size {size}: {restorer.name} takes faces of {restorer.size} px only; leave this out")
    try:
        return restorer.at(size, "--size")
    except UsageError as error:
        raise UsageError(f"--size {size}: {error}") from error


def evaluate(
    restored: str | Path,
    *,
    truth: str | Path | None = None,
    photos: str | Path | None = None,
    reference: str | Path | None = None,
    pack: str | Path = "tiny",
    half_raw: bool = False,
) -> tuple[Evaluation, str]:
    """Metrics of a folder of restored photos, and a table of them; see `adapt.evaluation.compare.evaluate_folder`."""
    from adapt.evaluation.compare import evaluate_folder
    from adapt.evaluation.tables import text_table
    from adapt.photos.folder import find_photos, photos_of

    restored = Path(restored)
    find_photos(restored)
    for option, folder, what in (
        ("truth", truth, "clean originals, named like the restored photos"),
        ("photos", photos, "the photos they were restored from, named alike"),
        ("reference", reference, "clean faces of other people"),
    ):
        if folder is not None:
            photos_of(option, Path(folder), what)
    distance = load_distance(load_pack(pack))
    evaluation = evaluate_folder(
        restored,
        truth=optional_path(truth),
        photos=optional_path(photos),
        reference=optional_path(reference),
        distance=distance,
        half_raw=half_raw,
    )
    return evaluation, text_table({restored.name: evaluation}) + f"\nperceptual network: {distance.name}"


def export(
    model: str | Path,
    out: str | Path,
    *,
    fidelity: float | None = None,
    source: dict[str, Any] | None = None,
    evaluation: Any = None,
    photos: Sequence[torch.Tensor] = (),
    overwrite: bool = False,
) -> Path:
    """Export a restorer as a checked bundle; see `adapt.exporting.bundle.export_bundle`."""
    from adapt.exporting.bundle import export_bundle

    restorer = load_restorer(model)
    trained_with = distance_of(Path(model))
    about = source or {
        "weights": str(model),
        "weights sha256": restorer.digest,
        **({} if trained_with is None else {"perceptual distance of the training": trained_with}),
    }
    return export_bundle(
        restorer,
        Path(out),
        fidelity=fidelity,
        source=about,
        evaluation=evaluation,
        photos=photos,
        overwrite=overwrite,
    )


def describe(values: dict[str, Any]) -> str:
    """Numbers as `name value` for a progress line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
