"""What each kind of pre-training takes and gives: one function a kind of recipe, and what it begins from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from adapt.blur import adjuster, estimator, start_steps
from adapt.devices import pick_device
from adapt.digests import settings_digest
from adapt.errors import UsageError
from adapt.faces.entries import RECOGNISER
from adapt.guidance import mask
from adapt.loading import (
    CODEBOOK,
    CODEFORMER,
    CONDITIONAL_PRIOR,
    CONDITIONER,
    ONESTEP,
    PRIOR,
    SWINIR,
    load_blur_estimator,
    load_codebook,
    load_conditioner,
    load_distance,
    load_prior,
    load_recogniser,
    load_restorer,
    load_start_steps,
    load_texture_distance,
    load_unet,
    named_face_network,
)
from adapt.packs.named import NamedWeights, named_network, named_restorer
from adapt.packs.pack import Pack, load_pack
from adapt.pretraining.faces import load_faces
from adapt.settings import (
    AdjusterSettings,
    BlurEstimatorSettings,
    CodebookSettings,
    CodePredictorSettings,
    ConditionalPriorSettings,
    ConditionerSettings,
    FusionSettings,
    IdentityMaskSettings,
    OneStepTrainingSettings,
    PerceptualSettings,
    PriorSettings,
    RestorerSettings,
    RestorerTrainingSettings,
    Settings,
    StartStepsSettings,
)
from adapt.settings.networks import IdentityMaskLayout
from adapt.settings.recipe import recipe_digest
from adapt.training.context import TrainingContext

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adapt.perceptual.distance import PerceptualDistance
    from adapt.pretraining.adjuster import FrozenModels

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


def _prior(settings: PriorSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.prior import train_prior

    images = job.images(max(phase.size for phase in settings.phases))
    start = None if settings.start is None else load_prior(settings.start).network
    state = train_prior(settings, images, job.context, start=start)
    return Trained("unet", settings.network.model_dump_json(), state)


def _restorer(settings: RestorerSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.restorer import new_swinir

    network = new_swinir(settings)
    if settings.start is not None:
        start = load_restorer(settings.start)
        if start.settings != settings.network:
            raise UsageError(f"{start.name}: expected a swinir of the recipe's layout, got a {start.architecture}")
        network.load_state_dict(start.network.state_dict())
    faces = job.images(settings.size)
    return _trained_restorer(network, SWINIR, settings.network.model_dump_json(), settings, job, faces)


def _onestep(settings: OneStepTrainingSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.gain import GAIN, fit_gain
    from adapt.pretraining.onestep import student_of

    student, faces = student_of(load_unet(settings.start, job.pack), settings), job.images(settings.size)
    if settings.gain_pairs and student.network.gain is not None:
        student.network.gain.weigh.reset()  # of its start: it would hold back what is learnt
    trained = _trained_restorer(student, ONESTEP, student.settings.model_dump_json(), settings, job, faces)
    if settings.gain_pairs:
        student.load_state_dict(trained.state)
        told = job.context.on_step
        fit_gain(
            student.to(job.context.device), settings, faces,
            on_pairs=None if told is None else lambda done, total: told(done, total, {"pairs for the gain": done}),
        )
        fitted = student.state_dict().items()
        trained.state.update({name: value.cpu() for name, value in fitted if name.startswith(GAIN)})
    return trained


def _conditioner(settings: ConditionerSettings, job: Pretraining) -> Trained:
    start = load_restorer(settings.start or f"{job.pack}/{SWINIR}")
    start.network.train().requires_grad_(True)
    header, faces = start.settings.model_dump_json(), job.images(settings.size)
    return _trained_restorer(start.network, start.architecture, header, settings, job, faces)


def _trained_restorer(
    network: nn.Module, architecture: str, header: str, settings: RestorerTrainingSettings, job: Pretraining,
    faces: Tensor,
) -> Trained:
    """What becomes of a restorer that a recipe begins with, on faces (N, 3, S, S) uint8."""
    from adapt.pretraining.restorer import train_restorer

    state, discriminator = train_restorer(
        network, settings, faces, job.context, distance=job.distance,
        recogniser=load_recogniser(job.pack) if settings.recognition else None,
    )
    judge = (discriminator, settings.discriminator.model_dump_json()) if discriminator else None
    return Trained(architecture, header, state, discriminator=judge)


def _conditional_prior(settings: ConditionalPriorSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.conditional_prior import train_conditional_prior

    start = load_prior(settings.start or job.pack).network
    layout, state = train_conditional_prior(settings, job.images(settings.size), job.context, start=start)
    return Trained("unet", layout.model_dump_json(), state)


def _identity_mask(settings: IdentityMaskSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.identity_mask import train_identity_mask

    state = train_identity_mask(
        settings, job.images(settings.size), job.context,
        conditioner=load_conditioner(settings.conditioner, job.pack),
        prior=load_prior(settings.prior or job.pack, CONDITIONAL_PRIOR),
        recogniser=load_recogniser(job.pack),
        distance=job.distance,
    )
    layout = IdentityMaskLayout(features=settings.features, delta=settings.delta)
    return Trained(mask.ENTRY, layout.model_dump_json(), state)


def _perceptual(settings: PerceptualSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.perceptual import train_perceptual

    state = train_perceptual(settings, job.faces, job.context)
    return Trained("perceptual", json.dumps({"channels": settings.channels}), state)


def _codebook(settings: CodebookSettings, job: Pretraining) -> Trained:
    from adapt.pretraining.codebook import train_codebook
    from adapt.restorers.vqgan import ARCHITECTURE

    start = None if settings.start is None else load_codebook(settings.start)
    if start is not None and start.settings != settings.network:
        raise UsageError(f"{settings.start}: expected a codebook of the recipe's layout, got one of another")
    images = job.images(settings.size)
    state = train_codebook(settings, images, job.context, distance=job.distance, start=start)
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
    ConditionerSettings: _conditioner,
    ConditionalPriorSettings: _conditional_prior,
    IdentityMaskSettings: _identity_mask,
    PerceptualSettings: _perceptual,
    CodebookSettings: _codebook,
    CodePredictorSettings: _code_predictor,
    FusionSettings: _fusion,
    BlurEstimatorSettings: _blur_estimator,
    AdjusterSettings: _adjuster,
}

ENTRIES: Final[dict[type[Settings], str]] = {  # what a pack calls what is made of each
    PriorSettings: PRIOR,
    RestorerSettings: SWINIR,
    OneStepTrainingSettings: ONESTEP,
    ConditionerSettings: CONDITIONER,
    ConditionalPriorSettings: CONDITIONAL_PRIOR,
    IdentityMaskSettings: mask.ENTRY,
    PerceptualSettings: "perceptual",
    CodebookSettings: CODEBOOK,
    CodePredictorSettings: CODEFORMER,
    FusionSettings: CODEFORMER,
    BlurEstimatorSettings: estimator.ARCHITECTURE,
    AdjusterSettings: adjuster.ARCHITECTURE,
    StartStepsSettings: start_steps.ENTRY,
}



# ---------------------------------------------------------------- parts


def distance_of(settings: Settings, pack: str) -> PerceptualDistance | None:
    """The perceptual distance that a recipe gives a weight, as it says; None where it gives none."""
    if isinstance(settings, AdjusterSettings):
        return load_texture_distance(load_pack(pack), settings.distance)
    if (
        isinstance(settings, RestorerTrainingSettings | CodebookSettings | FusionSettings | IdentityMaskSettings)
        and settings.perceptual
    ):
        return load_distance(load_pack(pack), settings.distance).to(pick_device())
    return None


def identity_of(settings: Settings, faces: str, pack: str, distance: PerceptualDistance | None) -> dict[str, str]:
    """What a run depends on, the faces by their digest: resuming with anything else is refused."""
    identity = {"recipe": recipe_digest(settings), "faces": faces}
    if distance is not None:
        identity["distance"] = distance.digest
    if isinstance(settings, AdjusterSettings):
        identity["frozen_models"] = _frozen_models_digest(settings, load_pack(pack))
    return identity | {part: named.digest() for part, named in _beginnings(settings, pack).items()}


def _beginnings(settings: Settings, pack: str) -> dict[str, NamedWeights]:
    """The weights that a training begins with or learns from, by what they are to it."""
    found = dict[str, NamedWeights]()
    match settings:
        case PriorSettings() | CodebookSettings():
            if settings.start is not None:
                kind = PRIOR if isinstance(settings, PriorSettings) else CODEBOOK
                found["start"] = named_network(settings.start, kind)
        case ConditionalPriorSettings():
            found["start"] = named_network(settings.start or pack, PRIOR)
        case RestorerSettings():
            if settings.start is not None:
                found["start"] = named_restorer(settings.start)
        case OneStepTrainingSettings():
            found["start"] = named_network(pack, PRIOR) if settings.start is None else named_restorer(settings.start)
        case ConditionerSettings():
            found["start"] = named_restorer(settings.start or f"{pack}/{SWINIR}")
        case IdentityMaskSettings():
            found["conditioner"] = named_restorer(settings.conditioner or f"{pack}/{CONDITIONER}")
            found["prior"] = named_network(settings.prior or pack, CONDITIONAL_PRIOR)
        case BlurEstimatorSettings():
            found["restorer"] = named_restorer(pack)
        case CodePredictorSettings() | FusionSettings():
            found["codebook"] = named_network(settings.codebook or pack, CODEBOOK)
            if isinstance(settings, FusionSettings):
                found["start"] = named_restorer(settings.start or f"{pack}/{CODEFORMER}")
        case _:
            pass
    if isinstance(settings, IdentityMaskSettings) or (
        isinstance(settings, RestorerTrainingSettings) and settings.recognition
    ):
        found["recogniser"] = named_face_network(pack, RECOGNISER)
    return found


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
