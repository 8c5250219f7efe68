"""What `adapt run` exports: the adapted model, one between it and its start, or the one that was there before.

    OUT/verdict.json            the decision, its evidence, and what it was made from
    OUT/exported.safetensors    the weights that are exported, where no other file holds them as they are
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from adapt.commands.finetune_setup import FinetuneSetup
from adapt.commands.result_folder import Pages
from adapt.digests import file_digest, photo_seed, settings_digest
from adapt.disk import read_json, write_json
from adapt.errors import PhotoError
from adapt.loading import evaluator_digest, load_evaluator, load_restorer
from adapt.photos.files import read_image
from adapt.settings import VerdictSettings
from adapt.settings.recipe import recipe_digest
from adapt.verdict.decision import Measurements, Verdict, decide, verdict_of_json
from adapt.verdict.evidence import EVIDENCE, Evaluator, Restoration
from adapt.verdict.selector import evenly

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.restorers.base import Restorer

VERDICT: Final = "verdict.json"
EXPORTED: Final = "exported.safetensors"
SEED: Final = 0  # of the noise under which the prior sees the images


@dataclass(frozen=True, slots=True)
class ExportChoice:
    """What a run exports.

    Attributes:
        verdict: the decision.
        model: the name that loads it: of the base, of the adapted weights, or of a file between both.
        fidelity: what it restores at; None where it takes none.
    """

    verdict: Verdict
    model: str
    fidelity: float | None


def choose(
    out: Path,
    pages: Pages,
    setup: FinetuneSetup,
    *,
    ids: Sequence[str],
    pack: str | Path,
    settings: VerdictSettings,
    device: torch.device,
    fidelities: tuple[float | None, float | None],
    on_step: Callable[[int, int], object],
) -> ExportChoice:
    """Decide what a run exports; a decision that is there, from the same models, photos and recipe, stays.

    Args:
        out: of `adapt.commands.run.run`; its photos are in `out`/photos, its adapted weights in `out`/finetune.
        pages: writes the run's own files.
        setup: the base, which made the targets, and what was fine-tuned: models of lower strength lie between that and
            the adapted one.
        ids: the photos that could be read.
        pack: whose prior, blur estimator and face networks are asked.
        settings: the recipe.
        device: where to compute.
        fidelities, on_step: as `measure_all`.

    Raises:
        PhotoError: as there.
    """
    photos = {id: out / "photos" / f"{id}.png" for id in ids}
    base, adapted = setup.base, load_restorer(out / "finetune")
    made_from = settings_digest(
        {
            "base": base.digest,
            "start": load_restorer(setup.name).digest,
            "adapted": adapted.digest,
            "photos": [file_digest(path) for path in photos.values()],
            "recipe": recipe_digest(settings),
            "pack": evaluator_digest(pack),
            "fidelities": fidelities,
        }
    )
    candidates = between(
        load_restorer(setup.name).to(device), adapted.to(device), settings.strengths
    )
    verdict = _known(out / VERDICT, made_from)
    if verdict is None:
        measurements = measure_all(
            base.to(device), candidates, spread(photos, settings.photos),
            evaluator=load_evaluator(pack, device), fidelities=fidelities, on_step=on_step,
        )  # fmt: skip
        verdict = decide(measurements, settings)
        about = {"made from": made_from, **verdict.as_json()}
        pages.put(VERDICT, lambda path: write_json(path, about))
    of_base, own = fidelities
    kept_as_it_is = verdict.strength == 0 and base.face_size is None
    if verdict.strength < 1 and not kept_as_it_is:  # a base of no size of its own is kept with that of the pack
        taken = candidates[verdict.strength] if verdict.strength else base
        pages.put(EXPORTED, lambda path: taken.save(path, metadata={"strength": f"{verdict.strength:g}"}))
        return ExportChoice(verdict, str(out / EXPORTED), own if verdict.strength else of_base)
    pages.remove(EXPORTED)  # of an earlier verdict
    if verdict.strength:
        return ExportChoice(verdict, str(out / "finetune"), own)
    return ExportChoice(verdict, setup.base_name, of_base)


def _known(path: Path, made_from: str) -> Verdict | None:
    """The decision of an earlier run, where it would come out the same."""
    if not path.is_file():
        return None
    told = read_json(path, "remove it, and the verdict is made anew")
    return verdict_of_json(told) if told.get("made from") == made_from else None


def between(start: Restorer, adapted: Restorer, strengths: Sequence[float]) -> dict[float, Restorer]:
    """The restorers on the way from a start to what was adapted from it, by how far they are."""
    return {strength: start.towards(adapted, strength) for strength in strengths}


def measure_all(
    base: Restorer,
    candidates: Mapping[float, Restorer],
    photos: Mapping[str, Path],
    *,
    evaluator: Evaluator,
    fidelities: tuple[float | None, float | None] = (None, None),
    on_step: Callable[[int, int], object] = lambda done, total: None,
) -> Measurements:
    """The evidence on a base and on candidates for its place: a number per photo and kind.

    A photo of which a model makes what is not finite is left out for all.

    Args:
        base: what was there before.
        candidates: restorers by strength.
        photos: aligned faces of the pack's size, by id.
        evaluator: of the pack, on the device where the restorers are.
        fidelities: at which the base and the candidates restore; None for one that takes none.
        on_step: told of what is done, and of all: of each photo its restoration, and all that follows.

    Raises:
        PhotoError: no photo is left.
    """
    trust: list[float] = []
    of_base, own = fidelities
    measured: list[list[dict[str, float]]] = [[] for _ in (base, *candidates)]
    images = {path: read_image(path) for path in photos.values()}
    by_base: dict[Path, Tensor] = {}
    for place, (path, image) in enumerate(images.items(), start=1):
        by_base[path] = base(image[None], of_base)[0]
        on_step(place, 2 * len(images))
    sound = {path: restored for path, restored in by_base.items() if bool(restored.isfinite().all())}
    clean = {path: evaluator.clean(images[path], each) for path, each in sound.items()}
    soft = evaluator.as_soft_as([*clean.values()]) if clean else evaluator.known
    for place, (path, photo) in enumerate(images.items()):
        if path in sound:
            restored, seed = sound[path], photo_seed(SEED, file_digest(path))
            sample = evaluator.sample(photo, restored, clean=clean[path], soft=soft, place=place, seed=seed)
            restorations = [
                Restoration(restored[None], base(sample.trial, of_base)),
                *(Restoration(model(sample.photo, own), model(sample.trial, own)) for model in candidates.values()),
            ]
            found = [evaluator.measure(sample, restoration) for restoration in restorations]
            whole = [each for each in found if each is not None]
            if len(whole) == len(found):
                trust.append(sample.trust)
                for numbers, each in zip(measured, whole, strict=True):
                    numbers.append(each)
        on_step(len(images) + place + 1, 2 * len(images))
    if not trust:
        raise PhotoError(f"none of {len(photos)} photos can be judged: the models give values that are not finite")
    first, *others = ({key: [each[key] for each in numbers] for key in EVIDENCE} for numbers in measured)
    return Measurements(trust, first, dict(zip(candidates, others, strict=True)))


def spread(photos: Mapping[str, Path], most: int) -> dict[str, Path]:
    """At most so many, evenly through all."""
    ids = [*photos]
    return {ids[index]: photos[ids[index]] for index in evenly(len(ids), most)}
