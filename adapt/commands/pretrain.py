"""`adapt pretrain`: a pack's own networks and tables, from clean faces to weights that the pack's card names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from adapt.blur import adjuster, estimator, start_steps
from adapt.build import (
    CODEBOOK,
    CODEFORMER,
    DISCRIMINATOR,
    ONESTEP,
    PRIOR,
    load_blur_estimator,
    load_codebook,
    load_distance,
    load_prior,
    load_recogniser,
    load_restorer,
    load_start_steps,
    load_texture_distance,
    load_unet,
)
from adapt.devices import pick_device, processes
from adapt.digests import settings_digest
from adapt.errors import UsageError
from adapt.faces.entries import ARCHITECTURES as FACE_NETWORKS
from adapt.faces.entries import RECOGNISER
from adapt.packs.named import named_network, named_restorer
from adapt.packs.pack import Pack, add_network, add_table, load_pack
from adapt.photos.contents import FILE as CONTENTS
from adapt.photos.contents import Contents
from adapt.photos.folder import find_photos, photos_of
from adapt.pretraining.faces import load_faces
from adapt.settings import (
    AdjusterSettings,
    BlurEstimatorSettings,
    CodebookSettings,
    CodePredictorSettings,
    FusionSettings,
    OneStepTrainingSettings,
    PerceptualSettings,
    PriorSettings,
    RestorerSettings,
    Settings,
    StartStepsSettings,
    TrainingSettings,
)
from adapt.settings.paths import WEIGHTS
from adapt.settings.recipe import KINDS, dump, find_recipe, kind_of, load_recipe, recipe_digest
from adapt.training.context import Progress, TrainingContext
from adapt.training.run import Run, open_run
from adapt.weights import write_state

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.perceptual.distance import PerceptualDistance
    from adapt.pretraining.adjuster import FrozenModels


PATCHES: Final = "patch-discriminator"  # an architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """One training: its faces, the pack whose other networks it needs, and where it runs.

    Attributes:
        main: this process is the one that writes, where several train together.
        distance: the perceptual distance of its losses, where they have one.
    """

    faces: Path
    pack: str
    main: bool
    distance: PerceptualDistance | None
    context: TrainingContext

    def images(self, size: int) -> Tensor:
        """The faces as (N, 3, size, size) uint8."""
        return load_faces(self.faces, size, self.context.run.folder)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training made.

    Attributes:
        architecture: the key of its loader.
        header: its settings as JSON, for the weights file.
        state: the averaged weights.
        more: further lines of the file's header.
        discriminator: the weights that it learned against, where they are for the pack too, and their layout as JSON.
    """

    architecture: str
    header: str
    state: dict[str, Tensor]
    more: dict[str, str] = field(default_factory=dict)
    discriminator: tuple[dict[str, Tensor], str] | None = None


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
        on_step: progress.

    Raises:
        UsageError: no faces, no pretrain recipe, a run or a pack that does not fit it, other entries of the pack that
            share no licence where none is given, words for a card without a pack, `max_steps` for a table, which has no
            steps, or several processes for what one does.
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
    if isinstance(settings, ALONE) and together.num_processes > 1:
        raise UsageError(f"{path}: is the work of one process; it was started in {together.num_processes}")
    own = pack or "tiny"
    contents = Contents(out)
    distance = _distance(settings, own)
    digest = settings_digest(_identity(settings, contents.digest("faces", find_photos(faces)), own, distance))
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
        context = TrainingContext(run=run, device=pick_device(), on_step=on_step, max_steps=max_steps)
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


def _distance(settings: Settings, pack: str) -> PerceptualDistance | None:
    """The perceptual distance that a recipe gives a weight, as it says; None where it gives none."""
    if isinstance(settings, AdjusterSettings):
        return load_texture_distance(load_pack(pack), settings.distance)
    if (
        isinstance(settings, RestorerSettings | OneStepTrainingSettings | CodebookSettings | FusionSettings)
        and settings.perceptual
    ):
        return load_distance(load_pack(pack), settings.distance).to(pick_device())
    return None


def _identity(settings: Settings, faces: str, pack: str, distance: PerceptualDistance | None) -> dict[str, str]:
    """What a run depends on, the faces by their digest: resuming with anything else is refused."""
    identity = {"recipe": recipe_digest(settings), "faces": faces}
    if distance is not None:
        identity["distance"] = distance.digest
    if isinstance(settings, PriorSettings) and settings.start is not None:
        identity["start"] = named_network(settings.start, PRIOR).digest()
    if isinstance(settings, BlurEstimatorSettings):
        identity["restorer"] = named_restorer(pack).digest()
    if isinstance(settings, AdjusterSettings):
        identity["frozen_models"] = _frozen_models_digest(settings, load_pack(pack))
    if isinstance(settings, OneStepTrainingSettings):
        start = named_network(pack, PRIOR) if settings.start is None else named_restorer(settings.start)
        identity["start"] = start.digest()
        if settings.recognition:
            identity["recogniser"] = named_network(pack, RECOGNISER).digest()
    if isinstance(settings, CodePredictorSettings | FusionSettings):
        identity["codebook"] = named_network(settings.codebook or pack, CODEBOOK).digest()
    if isinstance(settings, FusionSettings):
        identity["start"] = named_restorer(settings.start or f"{pack}/{CODEFORMER}").digest()
    return identity


# ---------------------------------------------------------------- one function for each kind of recipe


def _prior(settings: PriorSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.prior import train_prior

    images = job.images(max(phase.size for phase in settings.phases))
    start = None if settings.start is None else load_prior(settings.start).network
    state = train_prior(settings, images, job.context, start=start)
    return Trained("unet", settings.network.model_dump_json(), state)


def _restorer(settings: RestorerSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.restorer import train_restorer

    images = job.images(settings.size)
    state = train_restorer(
        settings, images, job.context, distance=job.distance
    )
    return Trained("swinir", settings.network.model_dump_json(), state)


def _onestep(settings: OneStepTrainingSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.onestep import train_onestep

    images = job.images(settings.size)
    layout, state, discriminator = train_onestep(
        settings,
        images,
        job.context,
        start=load_unet(settings.start, job.pack),
        distance=job.distance,
        recogniser=load_recogniser(job.pack) if settings.recognition else None,
    )
    judge = (discriminator, settings.discriminator.model_dump_json()) if discriminator else None
    return Trained(ONESTEP, layout.model_dump_json(), state, discriminator=judge)


def _perceptual(settings: PerceptualSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.perceptual import train_perceptual

    state = train_perceptual(settings, job.faces, job.context)
    return Trained("perceptual", json.dumps({"channels": settings.channels}), state)


def _codebook(settings: CodebookSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.codebook import train_codebook
    from adapt.restorers.vqgan import ARCHITECTURE

    images = job.images(settings.size)
    state = train_codebook(
        settings, images, job.context, distance=job.distance
    )
    return Trained(ARCHITECTURE, settings.network.model_dump_json(), state)


def _code_predictor(settings: CodePredictorSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.codeformer import train_code_predictor

    images, codebook = job.images(settings.size), load_codebook(settings.codebook or job.pack)
    layout, state = train_code_predictor(
        settings, images, job.context, codebook=codebook
    )
    return Trained(CODEFORMER, layout.model_dump_json(), state)


def _fusion(settings: FusionSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.codeformer import train_fusion
    from adapt.restorers.codeformer import CodeFormer

    images, codebook = job.images(settings.size), load_codebook(settings.codebook or job.pack)
    start = load_restorer(settings.start or f"{job.pack}/{CODEFORMER}")
    if not isinstance(start.network, CodeFormer):
        raise UsageError(f"{start.name}: expected a codeformer of stage II, got a {start.architecture}")
    state = train_fusion(
        settings,
        images,
        job.context,
        network=start.network,
        codebook=codebook,
        distance=job.distance,
    )
    return Trained(CODEFORMER, start.settings.model_dump_json(), state)


def _blur_estimator(settings: BlurEstimatorSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.blur import train_blur_estimator

    images, model = job.images(settings.size), load_restorer(job.pack).to(pick_device())
    layout, state = train_blur_estimator(
        settings, images, job.context, restorer=model
    )
    return Trained(estimator.ARCHITECTURE, layout.model_dump_json(), state)


def _adjuster(settings: AdjusterSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.adjuster import adjuster_layout, train_adjuster

    images, around = job.images(settings.size), load_frozen_models(load_pack(job.pack), settings, pick_device())
    state = train_adjuster(settings, images, job.context, around=around)
    header = adjuster_layout(settings, around.prior).model_dump_json()
    if job.main and job.context.run.stopped is None:
        folder = job.context.run.folder
        network = adjuster.build_adjuster(str(folder), state, {"settings": header})
        _draw_maps(job.context.run.place("maps.jpg"), images, network, around)
    return Trained(adjuster.ARCHITECTURE, header, state, {"distance": around.distance.name})


TRAININGS: Final[dict[type[Settings], Callable[[Any, Pretraining], Trained]]] = {
    PriorSettings: _prior,
    RestorerSettings: _restorer,
    OneStepTrainingSettings: _onestep,
    PerceptualSettings: _perceptual,
    CodebookSettings: _codebook,
    CodePredictorSettings: _code_predictor,
    FusionSettings: _fusion,
    BlurEstimatorSettings: _blur_estimator,
    AdjusterSettings: _adjuster,
}

ENTRIES: Final[dict[type[Settings], str]] = {  # what a pack calls what is made of each
    PriorSettings: "prior",
    RestorerSettings: "swinir",
    OneStepTrainingSettings: ONESTEP,
    PerceptualSettings: "perceptual",
    CodebookSettings: CODEBOOK,
    CodePredictorSettings: CODEFORMER,
    FusionSettings: CODEFORMER,
    BlurEstimatorSettings: estimator.ARCHITECTURE,
    AdjusterSettings: adjuster.ARCHITECTURE,
    StartStepsSettings: start_steps.ENTRY,
}

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


def _frozen_models_digest(settings: AdjusterSettings, pack: Pack) -> str:
    """Stands for the weights between which a guidance adjuster is trained."""
    names = ["prior", "start-steps"]
    if settings.first_stage < settings.steps:
        names += [pack.card.restorer, "blur-estimator"]
    parts = {name: pack.network_digest(name) for name in names}
    return settings_digest(parts)


def _draw_maps(path: Path, faces: Tensor, network: adjuster.GuidanceAdjuster, around: FrozenModels) -> None:
    """A contact sheet of clean images and maps of some faces as sampling goes on (DynFaceRestore Fig. 12)."""
    from adapt.commands.map_sheet import write_maps
    from adapt.pretraining.adjuster import SHOWN_FACES, maps_over_time

    network.to(pick_device())
    shown = [maps_over_time(network, face.float() / 255, around) for face in faces[:SHOWN_FACES]]
    write_maps(path, {f"face {number}": seen for number, seen in enumerate(shown, start=1)})


def load_frozen_models(pack: Pack, settings: AdjusterSettings, device: torch.device) -> FrozenModels:
    """What a guidance adjuster is trained between: a pack's prior, table and, for the second stage, its mapping.

    Raises:
        WeightsError: the pack lacks one of them.
    """
    from adapt.guidance.gaussian_blur import blur_gradient
    from adapt.pretraining.adjuster import FrozenModels
    from degradations.cosines import gaussian_blur

    return FrozenModels(
        prior=load_prior(pack.folder).to(device),
        blur=gaussian_blur,
        gradient=blur_gradient,
        start_t=load_start_steps(pack.folder).start_t,
        distance=load_texture_distance(pack, settings.distance).to(device),
        mapping=_blur_mapping(pack, device) if settings.first_stage < settings.steps else None,
    )


def _blur_mapping(pack: Pack, device: torch.device) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """DBLM of a pack: degraded photos to their restored selves under a Gaussian blur, and its std."""
    from adapt.blur.mapping import guide_stds
    from degradations.cosines import gaussian_blur

    restorer, estimator = load_restorer(pack.folder).to(device), load_blur_estimator(pack.folder).to(device)

    def mapping(damaged: Tensor) -> tuple[Tensor, Tensor]:
        std = guide_stds(estimator(damaged).std, 1, damaged.shape[-1])[:, 0]
        return gaussian_blur(restorer(damaged), std), std

    return mapping
