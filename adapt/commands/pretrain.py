"""`adapt pretrain`: a pack's own networks and tables, from clean faces to weights that the pack's card names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapt.blur import start_steps
from adapt.commands.trainings import ENTRIES, TRAININGS, Pretraining, distance_of, identity_of
from adapt.devices import pick_device, processes
from adapt.digests import settings_digest
from adapt.errors import UsageError
from adapt.faces.entries import ARCHITECTURES as FACE_NETWORKS
from adapt.loading import (
    DISCRIMINATOR,
)
from adapt.packs.pack import Pack, add_network, add_table, load_pack
from adapt.photos.contents import FILE as CONTENTS
from adapt.photos.contents import Contents
from adapt.photos.folder import find_photos, photos_of
from adapt.pretraining.faces import load_faces
from adapt.settings import (
    PerceptualSettings,
    PriorSettings,
    Settings,
    StartStepsSettings,
    TrainingSettings,
)
from adapt.settings.paths import WEIGHTS
from adapt.settings.recipe import KINDS, dump, find_recipe, kind_of, load_recipe
from adapt.training.context import Progress, TrainingContext
from adapt.training.run import Run, open_run
from adapt.weights import write_state

if TYPE_CHECKING:

    pass


PATCHES: Final = "patch-discriminator"  # an architecture


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What became of a pre-training.

    Attributes:
        file: the weights, or the table; None where the training was stopped before its end.
        verdict: the same in a line or two, and how to go on; empty in all processes but the main one.
    """

    file: Path | None
    verdict: str


def pretrain(
    recipe: str,
    faces: Path,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    pack: str | None = None,
    add_to: Path | None = None,
    licence: str | None = None,
    trained: str = "",
    overwrite: bool = False,
    max_steps: int | None = None,
    minutes: float | None = None,
    workers: int = 0,
    on_step: Progress | None = None,
) -> Pretrained:
    """Train one of a pack's own networks, or build its start-step table, from clean aligned faces.

    Args:
        recipe: name or file of a pretrain recipe.
        faces: folder of clean aligned faces, at least as large as the recipe's size.
        out: the run folder; the averaged weights end in `weights.safetensors`, the table in `start-steps.json`. The
            adjuster leaves a sheet of its maps over time as well, `maps.jpg`. Of several processes the main one writes.
        overrides: `key=value` for the recipe.
        pack: whose recipes go first, and whose networks the training needs.
        add_to: folder of a pack to enter the network or the table into.
        licence: the network's terms, for the pack's card; left out, those that all other entries of the pack share.
        trained: what to write of the training into the pack's card.
        overwrite: start the run anew.
        max_steps: stop, resumably, after so many steps; before the end of the training no weights are written.
        minutes: train for so long instead of the recipe's steps; the learning rate falls by the clock.
        workers: processes that make damaged images ahead.
        on_step: progress.

    Raises:
        UsageError: no faces, no pretrain recipe, a run or a pack that does not fit it, other entries of the pack that
            share no licence where none is given, words for a card without a pack, `max_steps` for a table, which has no
            steps, `minutes` for what does not go by steps of its own, or several processes for what one does.
    """
    if add_to is None:
        _refuse_words_for_no_card({"licence": licence, "trained": trained})
    photos_of("faces", faces, "clean aligned faces")
    path = find_recipe(recipe, "pretrain", pack)
    settings = load_recipe(path, KINDS[kind_of(path)], overrides, pack=pack)
    if not isinstance(settings, StartStepsSettings) and type(settings) not in TRAININGS:
        raise UsageError(f"{path}: not a pretrain recipe")
    if isinstance(settings, StartStepsSettings) and max_steps is not None:
        raise UsageError(f"{path}: builds a table, in one go; leave out --max-steps {max_steps}")
    together = processes()
    if minutes is not None and (isinstance(settings, ALONE) or together.num_processes > 1):
        raise UsageError(f"--minutes {minutes:g}: is for one process, and not for the perceptual network or a table")
    if isinstance(settings, ALONE) and together.num_processes > 1:
        raise UsageError(f"{path}: is the work of one process; it was started in {together.num_processes}")
    own = pack or "tiny"
    contents = Contents(out)
    distance = distance_of(settings, own)
    digest = settings_digest(identity_of(settings, contents.digest("faces", find_photos(faces)), own, distance))
    home = None if add_to is None else load_pack(add_to.resolve())
    about: dict[str, str] = {}
    if home is not None:
        _refuse_other_size(path, settings, home)
        terms = _shared_licence(home, ENTRIES[type(settings)]) if licence is None else licence
        about = {"licence": terms, "source": "adapt pretrain", "trained": trained}
    by = None if distance is None else distance.about
    with open_run(out, recipe=dump(settings), digest=digest, distance=by, overwrite=overwrite) as run:
        if together.is_main_process:
            contents.remember(run.place(CONTENTS))
        if isinstance(settings, StartStepsSettings):
            return _start_steps(settings, faces, run, home, about)
        main = together.is_main_process
        context = TrainingContext(
            run=run, device=pick_device(), on_step=on_step, max_steps=max_steps, minutes=minutes, workers=workers
        )
        job = Pretraining(faces=faces, pack=own, main=main, distance=distance, context=context)
        made = TRAININGS[type(settings)](settings, job)
        if run.stopped is not None:
            step, steps = run.stopped
            stopped = (
                f"Stopped at step {step} of {steps}; no weights are written before the end.\n"
                f"To go on, give the same command again, without --overwrite: {out} keeps the state."
            )
            return Pretrained(None, stopped if main else "")
        weights = out / WEIGHTS
        metadata = {"architecture": made.architecture, "settings": made.header, **made.more}
        if main:
            write_state(run.place(weights.name), made.state, metadata)
            if home is not None:
                entry = {"architecture": made.architecture, **about}
                add_network(home.folder, ENTRIES[type(settings)], made.state, header=metadata, entry=entry)
                if made.discriminator is not None:
                    state, layout = made.discriminator
                    header = {"architecture": PATCHES, "settings": layout}
                    entry = {"architecture": PATCHES, **about}
                    add_network(home.folder, DISCRIMINATOR, state, header=header, entry=entry)
        together.wait_for_everyone()
    return Pretrained(weights, f"Weights: {weights}" if main else "")


# ---------------------------------------------------------------- one function for each kind of recipe


ALONE: Final = (PerceptualSettings, StartStepsSettings)  # one process makes these


def _start_steps(
    settings: StartStepsSettings, faces: Path, run: Run, home: Pack | None, about: dict[str, str]
) -> Pretrained:
    """A table and no network: its file, entered into a pack as it is."""
    table = run.place(start_steps.FILE)
    start_steps.build_start_steps(load_faces(faces, settings.size, run.folder), settings).save(table)
    if home is not None:
        add_table(home.folder, start_steps.ENTRY, table, entry={"architecture": start_steps.ENTRY, **about})
    return Pretrained(table, f"Table: {table}")


# ---------------------------------------------------------------- parts


def _refuse_words_for_no_card(words: dict[str, str | None]) -> None:
    """Raise UsageError where something is said for a pack's card, and there is no pack to enter the network into."""
    given = [f"--{option} '{text}'" for option, text in words.items() if text]
    if given:
        raise UsageError(
            f"{' and '.join(given)}: goes into the card of a pack, and none is named; name its folder with --add-to, or"
            " leave this out"
        )


def _refuse_other_size(path: Path, settings: Settings, pack: Pack) -> None:
    """Raise UsageError where a recipe makes something for faces of another size than the pack's."""
    sizes: list[int] = []
    if isinstance(settings, PriorSettings):
        sizes = [settings.network.image_size, settings.phases[-1].size]
    elif isinstance(settings, PerceptualSettings):
        pass  # learns from crops, and compares images of any size
    elif isinstance(settings, TrainingSettings | StartStepsSettings):
        sizes = [settings.size]
    for size in sizes:
        if size != pack.card.size:
            raise UsageError(
                f"{path}: is for faces of {size} px, those of pack {pack.card.name} have {pack.card.size};"
                " take a recipe for that size, or add to another pack"
            )


def _shared_licence(pack: Pack, name: str) -> str:
    """The licence that all entries of a pack but this one have.

    Networks that look at faces do not count: nothing that is trained here begins from one. A one-step student may learn
    of a recogniser's answers (`recognition`); that of the embedded pack is in the public domain.

    Raises:
        UsageError: there are several, or none.
    """
    apart = {name, *FACE_NETWORKS}
    licences = {network.licence for other, network in pack.card.networks.items() if other not in apart}
    if len(licences) != 1:
        found = f"{len(licences)} licences" if licences else "no licence"
        raise UsageError(
            f"pack {pack.card.name}: its other entries have {found}; say with --licence what the terms of '{name}' are"
        )
    return licences.pop()


