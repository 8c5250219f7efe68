"""`adapt finetune`: from a recipe, photos and targets to a run; what is missing is said before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.commands.align import faces_in, photos_by_face
from adapt.commands.finetune_setup import default_recipe, set_up_finetune
from adapt.devices import pick_device
from adapt.digests import file_digest, settings_digest
from adapt.disk import optional_path, shown_name
from adapt.errors import UsageError
from adapt.loading import (
    CODEBOOK,
    evaluator_digest,
    load_evaluator,
    read_codebook,
)
from adapt.settings import (
    CodeFinetuneSettings,
    DegradeSettings,
    TuningSettings,
    VerdictSettings,
)
from adapt.settings.recipe import dump, load_recipe, recipe_digest

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.finetuning.loop import OnSamples
    from adapt.finetuning.outcome import Outcome
    from adapt.finetuning.replay import Replay
    from adapt.photos.contents import Contents
    from adapt.restorers.base import Restorer
    from adapt.training.code_losses import Teacher
    from adapt.training.context import Progress


def finetune(
    photos: str | Path,
    targets: str | Path,
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    pack: str | Path = "tiny",
    restorer: str | Path | None = None,
    real: str | Path | None = None,
    replay: str | Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    device: str = "auto",
    limit: int | None = None,
    renew: bool = False,
    verdict: str | Path | None = None,
    verdict_overrides: Sequence[str] = (),
    max_steps: int | None = None,
    on_warning: Callable[[str], None] | None = None,
    on_step: Progress | None = None,
    on_samples: OnSamples | None = None,
) -> Outcome:
    """Fine-tune a restorer on photos and targets; see `adapt.finetuning.loop.finetune`.

    Args:
        photos: folder of aligned faces; or the whole photographs that a target store was made of: it has their faces.
        targets: a target store, or any folder of images with the photos' names. A store's targets whose photo is gone
            are left out, and the outcome's notes tell how many.
        out: the run folder.
        recipe: name or file of a finetune recipe; where None, as `adapt.commands.run.run`.
        pack: the pack with the restorer, the perceptual network, and the codebook where the objective is codes.
        restorer: what to start from; where None the pack's own, its CodeFormer where the objective is codes, or the
            student that the recipe names.
        real: a folder of sharp faces for the discriminator; the accepted targets, unpaired, where None.
        replay: a folder of clean faces: pairs of them, damaged by the recipe's `replay.degradation`, are mixed into the
            batches against forgetting what the restorer could. Sharp and clean faces are brought to the restorer's size
            as they are read, and not counted: there may be 70,000.
        overrides: `key=value` for the recipe.
        overwrite: start the run anew.
        device: auto, cpu, cuda, cuda:1, ...; several processes that train together each have their own, by auto.
        limit: only the first so many photos.
        renew: where a run is there that differs in nothing but which photos and targets of these folders it had, start
            it anew, and say so in the outcome's notes, instead of refusing.
        verdict: recipe of the verdict by whose evidence `best` is chosen; by the agreement with the targets where None.
        verdict_overrides: `key=value` for that.
        on_warning: called before the first step, where there is something to be warned of; of several processes, in
            the main one.
        max_steps, on_step, on_samples: as there.

    Raises:
        UsageError: as `set_up_finetune`; a device that cannot be used, or one for several processes; a target that is
            gone; a run of other settings; an `out` among the images, or above them.
    """
    from adapt.devices import processes
    from adapt.finetuning.data import SharpFaces, split_pairs
    from adapt.finetuning.loop import finetune as run_finetune
    from adapt.finetuning.outcome import few_photos
    from adapt.photos.contents import FILE as CONTENTS
    from adapt.photos.contents import Contents
    from adapt.photos.folder import find_photos, photos_of, refuse_overlap
    from adapt.targets.store import accepted_targets, is_store, target_digests
    from adapt.training.context import TrainingContext
    from adapt.training.run import open_run
    from adapt.verdict.selector import EvidenceSelector

    photos, targets, out = Path(photos), Path(targets), Path(out)
    real, replay = optional_path(real), optional_path(replay)
    chosen = pick_device(device)
    together = processes(chosen)
    if device != "auto" and together.num_processes > 1:
        raise UsageError(
            f"--device {device}: {together.num_processes} processes train together, each on its own device; leave this"
            " out"
        )
    photos_of("photos", photos, "aligned face photos")
    cut = faces_in(targets)
    if cut is not None and photos.resolve() != cut.resolve():
        refuse_overlap(photos, out)
        _refuse_others(photos, cut)
        photos = cut
    if not is_store(targets):
        photos_of("targets", targets, "target images, or a target store")
    recipe = default_recipe(pack, restorer) if recipe is None else recipe
    setup = set_up_finetune(
        recipe, pack=pack, restorer=restorer, real=real, replay=replay, overrides=overrides
    )
    folders = {"the photos": photos, "the targets": targets, "sharp faces": real, "clean faces": replay}
    for what, folder in folders.items():
        if folder is not None and not is_store(folder):  # a store knows which images are its own
            refuse_overlap(folder, out, what)
    settings, model = setup.settings, setup.restorer
    teacher = teacher_digest = None
    if isinstance(settings, CodeFinetuneSettings):
        teacher, teacher_digest = _teacher(settings, model, pack)
    distance = setup.distance.to(chosen)
    accepted, notes = _of_photos(accepted_targets(targets), photos, targets, limit)
    digests, changed = target_digests(targets, accepted)
    if changed:
        many = "1 target was" if len(changed) == 1 else f"{len(changed)} targets were"
        notes.append(f"{many} changed after being made, and used as now; first: {shown_name(changed[0])}.")
    blur = _blur_levels(targets, accepted, settings)
    train, validation = split_pairs(
        photos, accepted, size=model.size, holdout=settings.holdout, seed=settings.seed, blur=blur,
        groups=photos_by_face(photos),
    )  # fmt: skip
    contents = Contents(out)
    sharp = None if real is None else find_photos(real)
    replayed, replay_digest = _replay(settings, replay, model.size, contents)
    rule = None if verdict is None else load_recipe(verdict, VerdictSettings, verdict_overrides, pack=str(pack))
    settled = {
        "recipe": recipe_digest(settings),
        "restorer": model.digest,
        **({} if model.face_size is None else {"size": model.face_size}),
        "distance": distance.digest,
        "teacher": teacher_digest,
        "real": None if sharp is None else contents.digest("real", sharp),
        "replay": replay_digest,
        **({} if setup.recogniser is None else {"recogniser": [setup.recogniser.name, setup.recogniser.digest]}),
        **({} if setup.discriminator is None else {"discriminator": setup.discriminator.digest}),
        **({} if rule is None else {"verdict": rule.what_gains(), "judges": evaluator_digest(pack)}),
    }
    read = [*train.photos.paths, *validation.photos.paths]
    pairs = {
        "targets": digests, "photos": [file_digest(path) for path in read], **({"blur": blur} if blur else {})
    }
    digest = settings_digest({**settled, **pairs})
    folders = {"photos": str(photos.resolve()), "targets": str(targets.resolve())}
    renewable = settings_digest({**settled, **folders}) if renew else None
    reals = None if sharp is None else SharpFaces([photo.path for photo in sharp], model.size)
    warning = few_photos(settings, len(accepted))
    if warning and on_warning is not None and together.is_main_process:
        on_warning(warning)
    with open_run(
        out,
        recipe=dump(settings),
        digest=digest,
        settled=renewable,
        distance=distance.about,
        overwrite=overwrite,
    ) as run:
        if together.is_main_process:
            contents.remember(run.place(CONTENTS))
        if run.renewed:
            notes.append("The photos or their targets are not those of before: the fine-tuning was made anew.")
        outcome = run_finetune(
            model,
            train,
            validation,
            settings=settings,
            distance=distance,
            context=TrainingContext(run=run, device=chosen, on_step=on_step, max_steps=max_steps),
            teacher=teacher,
            recogniser=None if setup.recogniser is None else setup.recogniser.network,
            real=reals,
            replay=replayed,
            selector=None if rule is None else EvidenceSelector(load_evaluator(pack, chosen), rule),
            discriminator=None if setup.discriminator is None else setup.discriminator.state,
            on_samples=on_samples,
        )
    notes += [] if reals is None else reals.note("sharp")
    notes += [] if replayed is None else replayed.faces.note("clean")
    return replace(outcome, notes=tuple(notes), main=together.is_main_process)


def _of_photos(
    accepted: dict[str, list[Path]], photos: Path, targets: Path, limit: int | None
) -> tuple[dict[str, list[Path]], list[str]]:
    """The targets of the chosen photos, and what is to be told of others.

    Raises:
        UsageError: no target has a photo, or a target has none that lies in a plain folder: a name may be mistaken; or
            all photos are others than those that a store's targets were made of.
    """
    from adapt.finetuning.data import content_digest
    from adapt.photos.folder import find_photos
    from adapt.targets.store import is_store, read_records

    there, chosen = ({photo.id: photo.path for photo in find_photos(photos, most)} for most in (None, limit))
    gone = [id for id in accepted if id not in there]
    if gone and (len(gone) == len(accepted) or not is_store(targets)):
        raise UsageError(
            f"{photos}: {len(gone)} of {len(accepted)} targets have no photo of the same name there, first: {gone[0]}"
        )
    left = "1 photo that has a target is" if len(gone) == 1 else f"{len(gone)} photos that have targets are"
    notes = [f"{left} not there any more, and left out; first: {gone[0]}."] if gone else []
    made_of = {record.id: record.photo_sha256 for record in read_records(targets)} if is_store(targets) else {}
    own = {id: paths for id, paths in accepted.items() if id in chosen}
    changed = [id for id in own if made_of.get(id) and content_digest(chosen[id]) != made_of[id]]
    if changed and len(changed) == len(own):
        raise UsageError(
            f"{photos}: none of {len(own)} photos is the one that its target was made of; run generate-targets again,"
            " which makes these anew"
        )
    if changed:
        many = "1 photo is another" if len(changed) == 1 else f"{len(changed)} photos are others"
        notes.append(f"{many} than the target was made of, and left out; first: {changed[0]}.")
    return {id: paths for id, paths in own.items() if id not in changed}, notes


def _refuse_others(photos: Path, faces: Path) -> None:
    """Raise UsageError where faces were cut out of none of the photos."""
    from adapt.photos.folder import find_photos

    if not {*photos_by_face(faces).values()} & {photo.id for photo in find_photos(photos)}:
        raise UsageError(
            f"{photos}: the targets are of faces in other photographs; name those that they were made of, or {faces}"
        )


def _blur_levels(targets: Path, accepted: Mapping[str, Sequence[Path]], settings: TuningSettings) -> dict[str, float]:
    """The std of photos' blur in pixels, by id, where the recipe's `consistency` needs it: what a store tells of a
    photo's first accepted target, or the recipe's own where it tells nothing.

    Raises:
        UsageError: a photo of which neither tells it.
    """
    from adapt.targets.store import is_store, read_records

    if not settings.consistency:
        return {}
    known: dict[str, float] = {}
    for record in read_records(targets) if is_store(targets) else ():
        if record.status == "done" and record.blur_std is not None:
            known.setdefault(record.id, record.blur_std)
    if settings.consistency_std is not None:
        return {id: known.get(id, settings.consistency_std) for id in accepted}
    if unknown := [id for id in accepted if id not in known]:
        raise UsageError(
            f"{targets}: `consistency` needs the blur level of each photo, and {len(unknown)} of {len(accepted)}"
            f" targets tell none, first: {shown_name(unknown[0])}; make them with --method dynamic or guided, or say"
            " it for these in pixels (consistency_std=1.5)"
        )
    return {id: known[id] for id in accepted}


def _teacher(settings: CodeFinetuneSettings, model: Restorer, pack: str | Path) -> tuple[Teacher, str]:
    """What gives the codes of targets, frozen, and a digest that stands for it."""
    from copy import deepcopy

    from adapt.finetuning.objectives import network_with_codes

    if settings.teacher == "restorer":
        own = deepcopy(model)
        own.network.requires_grad_(False)
        return network_with_codes(own), "restorer"
    name = pack if settings.teacher == CODEBOOK else settings.teacher
    codebook, digest = read_codebook(name)
    return codebook.requires_grad_(False), digest


def _replay(
    settings: TuningSettings, faces: Path | None, size: int, contents: Contents
) -> tuple[Replay | None, str | None]:
    """The pairs to mix in, and a digest that stands for faces and damage; None twice where there are none."""
    from adapt.finetuning.data import SharpFaces
    from adapt.finetuning.replay import Replay
    from adapt.photos.folder import find_photos

    if settings.replay is None or faces is None:
        return None, None
    damage = load_recipe(settings.replay.degradation, DegradeSettings)
    files = find_photos(faces)
    digest = settings_digest({"damage": recipe_digest(damage), "faces": contents.digest("replay", files)})
    return Replay(SharpFaces([file.path for file in files], size), damage.degradations, settings.replay.share), digest


def sample_writer(out: Path) -> Callable[[int, list[str], list[Tensor]], None]:
    """Writes the contact sheets of a fine-tuning: the same validation photos along the way."""

    from adapt.evaluation.sheets import write_sheet
    from adapt.journal import Journal

    def write(step: int, ids: list[str], rows: list[Tensor]) -> None:
        columns = ("photo", "pre-trained", f"step {step}", "target")
        name = f"samples/step-{step:06d}.jpg"
        Journal(out).tell(name)
        write_sheet(out / name, columns, [list(row) for row in rows], row_names=ids)

    return write
