"""The commands' work, from names to results: what `adapt.cli` calls and `adapt.pipeline` chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapt.build import (
    CODEBOOK,
    CODEFORMER,
    WEIGHT_SUFFIXES,
    load_blur_parts,
    load_codebook,
    load_distance,
    load_model,
    load_prior,
    load_restorer,
    pack_restorer,
)
from adapt.digests import file_digest, settings_digest
from adapt.disk import optional_path
from adapt.errors import UsageError, WeightsError
from adapt.packs.pack import load_pack
from adapt.recipe import dump, load_recipe, recipe_digest
from adapt.settings import (
    CodeFinetuneSettings,
    DegradeSettings,
    FinetuneSettings,
    ReplaySettings,
    TargetSettings,
    TuningSettings,
)

if TYPE_CHECKING:
    from adapt.evaluation.scores import Evaluation
    from adapt.finetuning.codes import Teacher
    from adapt.finetuning.loop import OnSamples, OnStep
    from adapt.finetuning.outcome import Outcome
    from adapt.finetuning.replay import Replay
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
    """Stands for weights named by a file, a run, a bundle, a pack, or PACK/NETWORK."""
    path = Path(name)
    inside = ("best.safetensors", "model.onnx", "model.safetensors", "weights.safetensors")
    for file in (path, *(path / each for each in inside)):
        if file.is_file():
            return file_digest(file)
    pack, network = pack_restorer(name)
    return pack.network_digest(network)


def codebook_digest(name: str | Path) -> str:
    """Stands for the codebook that `adapt.build.load_codebook` loads by this name."""
    path = Path(name)
    for file in (path, path / "weights.safetensors"):
        if file.is_file():
            return file_digest(file)
    return load_pack(name).network_digest(CODEBOOK)


def generate_targets(
    photos: str | Path,
    out: str | Path,
    *,
    method: str | Path = "low-frequency",
    pack: str | Path = "tiny",
    restorer: str | Path | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    device: str = "auto",
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
    """
    from adapt.photos.folder import find_photos
    from adapt.targets.generate import generate_targets as generate
    from adapt.targets.methods import target_maker

    photos, out, pack = Path(photos), Path(out), str(pack)
    find_photos(photos, limit)  # before anything heavy is loaded: no photos is the commonest mistake
    settings = load_recipe(method, TargetSettings, overrides, pack)
    chosen = pick_device(device)
    prior = load_prior(pack).to(chosen)
    parts, blur = load_blur_parts(pack, settings, chosen)
    maker = target_maker(settings, prior, parts)
    name = restorer or pack
    model = load_restorer(name).to(chosen)
    if model.one_size and model.size != prior.size:
        raise UsageError(
            f"{name}: takes faces of {model.size} px only, and the prior of {pack} draws them at {prior.size} px;"
            " take a pack and a restorer of one size"
        )
    identity = {
        "recipe": settings.model_dump(mode="json", exclude={"batch"}),
        "prior": _prior_digest(pack),
        "blur": blur,
        "restorer": weights_digest(name),
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
    )


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a fine-tuning begins with: its settings, the restorer, and the name that loads it."""

    settings: FinetuneSettings | CodeFinetuneSettings
    name: str
    restorer: Restorer


def begin_finetune(
    recipe: str | Path,
    *,
    pack: str | Path,
    restorer: str | Path | None = None,
    replay: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Beginning:
    """Read a finetune recipe and load the restorer it starts from; whatever is missing is said here, before any work.

    Args:
        recipe, pack, replay, overrides: as `finetune`.
        restorer: what to start from; where None the pack's own, or its CodeFormer where the objective is codes.

    Raises:
        UsageError: a pack without what the recipe needs, a restorer that cannot learn by it, or a folder for replay
            without its settings or these without it.
    """
    from adapt.finetuning.objectives import network_with_codes
    from adapt.recipe import find_recipe, kind_of

    pack = str(pack)
    path = find_recipe(recipe, "finetune", pack)
    by_codes = kind_of(path) == "finetune-codes"
    settings = load_recipe(path, CodeFinetuneSettings if by_codes else FinetuneSettings, overrides, pack)
    if settings.replay is not None and replay is None:
        raise UsageError(f"{recipe}: replay mixes in pairs of clean faces; name their folder with --replay FACES")
    if settings.replay is None and replay is not None:
        settings = settings.model_copy(update={"replay": ReplaySettings()})
    networks = load_pack(pack).card.networks
    if by_codes and restorer is None and CODEFORMER not in networks:
        raise UsageError(
            f"pack {pack}: has no {CODEFORMER}, which recipe {recipe} starts from (it has {', '.join(networks)});"
            " name one with --restorer FILE, or take --recipe swinir"
        )
    if isinstance(settings, CodeFinetuneSettings) and settings.teacher == CODEBOOK and CODEBOOK not in networks:
        raise UsageError(
            f"pack {pack}: has no codebook to give the codes of targets; name a VQGAN's file (teacher=FILE), or take"
            " the restorer's own encoder (teacher=restorer)"
        )
    name = str(restorer or (f"{pack}/{CODEFORMER}" if by_codes else pack))
    model = load_restorer(name)
    if by_codes:
        network_with_codes(model)
    return Beginning(settings, name, model)


def finetune(
    photos: str | Path,
    targets: str | Path,
    out: str | Path,
    *,
    recipe: str | Path = "swinir",
    pack: str | Path = "tiny",
    restorer: str | Path | None = None,
    real: str | Path | None = None,
    replay: str | Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    max_steps: int | None = None,
    on_warning: Callable[[str], None] | None = None,
    on_step: OnStep | None = None,
    on_samples: OnSamples | None = None,
) -> Outcome:
    """Fine-tune a restorer on photos and targets; see `adapt.finetuning.loop.finetune`.

    Args:
        photos: folder of aligned faces.
        targets: a target store, or any folder of pictures with the photos' names.
        out: the run folder.
        recipe: name or file of a finetune recipe.
        pack: the pack with the restorer, the perceptual network, and the codebook where the objective is codes.
        restorer: what to start from; the pack's own where None, or its CodeFormer where the objective is codes.
        real: a folder of sharp faces for the discriminator; the accepted targets, unpaired, where None.
        replay: a folder of clean faces: pairs of them, damaged by the recipe's `replay.degradation`, are mixed into the
            batches against forgetting what the restorer could.
        overrides: `key=value` for the recipe.
        overwrite: start the run anew.
        on_warning: called before the first step, where there is something to be warned of.
        max_steps, on_step, on_samples: as there.
    """
    from adapt.finetuning.data import Pictures, split_pairs
    from adapt.finetuning.loop import finetune as run_finetune
    from adapt.finetuning.outcome import few_photos
    from adapt.photos.folder import find_photos
    from adapt.runs import Run
    from adapt.targets.store import accepted_targets

    photos, targets, out = Path(photos), Path(targets), Path(out)
    real, replay = optional_path(real), optional_path(replay)
    beginning = begin_finetune(recipe, pack=pack, restorer=restorer, replay=replay, overrides=overrides)
    settings, model = beginning.settings, beginning.restorer
    teacher = teacher_digest = None
    if isinstance(settings, CodeFinetuneSettings):
        teacher, teacher_digest = _teacher(settings, model, pack)
    distance = load_distance(load_pack(pack)).to(pick_device())
    accepted = accepted_targets(targets)
    train, held = split_pairs(photos, accepted, size=model.size, holdout=settings.holdout, seed=settings.seed)
    replayed, replay_digest = _replay(settings, replay, model.size)
    digest = settings_digest(
        {
            "recipe": recipe_digest(settings),
            "restorer": weights_digest(beginning.name),
            "distance": distance.digest,
            "teacher": teacher_digest,
            "targets": {id: [file_digest(path) for path in paths] for id, paths in accepted.items()},
            "photos": [file_digest(path) for path in train.photos.paths],
            "real": str(real),
            "replay": replay_digest,
        }
    )
    reals = Pictures([photo.path for photo in find_photos(real)], model.size) if real is not None else None
    warning = few_photos(settings, len(accepted))
    if warning and on_warning is not None:
        on_warning(warning)
    with Run(out, recipe=dump(settings), digest=digest, overwrite=overwrite) as run:
        return run_finetune(
            model,
            train,
            held,
            settings=settings,
            distance=distance,
            run=run,
            teacher=teacher,
            real=reals,
            replay=replayed,
            on_step=on_step,
            on_samples=on_samples,
            max_steps=max_steps,
        )


def _teacher(settings: CodeFinetuneSettings, model: Restorer, pack: str | Path) -> tuple[Teacher, str]:
    """What gives the codes of targets, frozen, and a digest that stands for it."""
    from copy import deepcopy

    from adapt.restorers.codeformer import CodeFormer

    if settings.teacher == "restorer":
        if not isinstance(model.network, CodeFormer):
            raise UsageError(f"{model.name}: `teacher: restorer` needs a codeformer, this is a {model.architecture}")
        return deepcopy(model.network).requires_grad_(False), "restorer"
    name = pack if settings.teacher == CODEBOOK else settings.teacher
    return load_codebook(name).requires_grad_(False), codebook_digest(name)


def _replay(settings: TuningSettings, faces: Path | None, size: int) -> tuple[Replay | None, str | None]:
    """The pairs to mix in, and a digest that stands for faces and damage; None twice where there are none."""
    from adapt.finetuning.data import Pictures
    from adapt.finetuning.replay import Replay
    from adapt.photos.folder import find_photos

    if settings.replay is None or faces is None:
        return None, None
    damage = load_recipe(settings.replay.degradation, DegradeSettings)
    files = find_photos(faces)
    listed = [(file.id, file.path.stat().st_size) for file in files]  # not read: it may be all of FFHQ
    digest = settings_digest({"damage": recipe_digest(damage), "faces": listed})
    return Replay(Pictures([file.path for file in files], size), damage.pieces, settings.replay.share), digest


def restore(
    model: str | Path,
    photos: str | Path,
    out: str | Path,
    *,
    fidelity: float | None = None,
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
        device: auto, cpu, cuda, cuda:1, ...
    """
    from adapt.restorers.base import Restorer
    from adapt.restoring import restore_folder

    chosen = pick_device(device)
    loaded = load_model(model)
    chosen_fidelity = loaded.chosen_fidelity(fidelity)
    if isinstance(loaded, Restorer):
        loaded.to(chosen)
    return restore_folder(
        loaded,
        Path(photos),
        Path(out),
        digest=weights_digest(model),
        fidelity=chosen_fidelity,
        limit=limit,
        batch=batch,
        overwrite=overwrite,
        device=chosen,
        on_photo=on_photo,
    )


def evaluate(
    restored: str | Path,
    *,
    truth: str | Path | None = None,
    photos: str | Path | None = None,
    reference: str | Path | None = None,
    pack: str | Path = "tiny",
) -> tuple[Evaluation, str]:
    """Metrics of a folder of restored photos, and a table of them; see `adapt.evaluation.compare.evaluate_folder`."""
    from adapt.evaluation.compare import evaluate_folder
    from adapt.evaluation.tables import text_table

    restored, distance = Path(restored), load_distance(load_pack(pack))
    evaluation = evaluate_folder(
        restored,
        truth=optional_path(truth),
        photos=optional_path(photos),
        reference=optional_path(reference),
        distance=distance,
    )
    return evaluation, text_table({restored.name: evaluation}) + f"\nperceptual network: {distance.name}"


def export(
    model: str | Path,
    out: str | Path,
    *,
    source: dict[str, Any] | None = None,
    evaluation: Any = None,
    photos: Sequence[torch.Tensor] = (),
    overwrite: bool = False,
) -> Path:
    """Export a restorer as a checked bundle; see `adapt.exporting.bundle.export_bundle`."""
    from adapt.exporting.bundle import export_bundle

    about = source or {"weights": str(model), "weights sha256": weights_digest(model)}
    return export_bundle(
        load_restorer(model), Path(out), source=about, evaluation=evaluation, photos=photos, overwrite=overwrite
    )


def _prior_digest(pack: str) -> str:
    path = Path(pack)
    if path.is_file() and path.suffix in WEIGHT_SUFFIXES:
        return file_digest(path)
    opened = load_pack(pack)
    if "prior" not in opened.card.networks:
        raise WeightsError(f"pack {opened.card.name}: has no prior; see adapt packs show {pack}")
    return opened.network_digest("prior")


def describe(values: dict[str, Any]) -> str:
    """Numbers as `name value` for a progress line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
