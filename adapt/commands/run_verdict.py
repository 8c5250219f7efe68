"""What `adapt run` exports: the adapted model, one between it and its start, or the one that was there before.

    OUT/verdict.json            the decision, its evidence, and what it was made from
    OUT/exported.safetensors    the weights that are exported, where they are neither the adapted ones nor the base's
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from adapt.build import judges_digest, load_judges, load_restorer
from adapt.commands.result_folder import Pages
from adapt.devices import full_precision
from adapt.digests import file_digest, photo_seed, settings_digest
from adapt.disk import read_json, write_json
from adapt.photos.files import read_image
from adapt.settings import VerdictSettings
from adapt.settings.recipe import recipe_digest
from adapt.verdict.decision import Verdict, decide, verdict_of_json
from adapt.verdict.evidence import Restored, evidence_on

if TYPE_CHECKING:
    from adapt.restorers.base import Restorer

VERDICT: Final = "verdict.json"
EXPORTED: Final = "exported.safetensors"
SEED: Final = 0  # of the noise under which the prior sees the images


@dataclass(frozen=True, slots=True)
class Chosen:
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
    base: str,
    *,
    start: str,
    ids: Sequence[str],
    pack: str | Path,
    settings: VerdictSettings,
    device: torch.device,
    fidelities: tuple[float | None, float | None],
    on_step: Callable[[int, int], object],
) -> Chosen:
    """Decide what a run exports; a decision that is there, from the same models, photos and recipe, stays.

    Args:
        out: of `adapt.commands.run.run`; its photos are in `out`/photos, its adapted weights in `out`/finetune.
        pages: writes the run's own files.
        base: the name of what restored the photos for the targets.
        start: the name of what was fine-tuned; models of lower strength lie between it and the adapted one.
        ids: the photos that could be read.
        pack, settings, device, fidelities, on_step: as `judge`.
    """
    photos = {id: out / "photos" / f"{id}.png" for id in ids}
    before, begun, adapted = load_restorer(base), load_restorer(start), load_restorer(out / "finetune")
    made_from = settings_digest(
        {
            "base": before.digest,
            "start": begun.digest,
            "adapted": adapted.digest,
            "photos": [file_digest(path) for path in photos.values()],
            "recipe": recipe_digest(settings),
            "pack": judges_digest(pack),
            "fidelities": fidelities,
        }
    )
    candidates = {strength: begun.towards(adapted, strength).to(device) for strength in settings.strengths}
    verdict = _known(out / VERDICT, made_from)
    if verdict is None:
        verdict = judge(
            before.to(device), candidates, photos,
            pack=pack, settings=settings, device=device, fidelities=fidelities, on_step=on_step,
        )  # fmt: skip
        about = {"made from": made_from, **verdict.as_json()}
        pages.put(VERDICT, lambda path: write_json(path, about))
    of_base, own = fidelities
    if 0 < verdict.strength < 1:
        between = candidates[verdict.strength]
        pages.put(EXPORTED, lambda path: between.save(path, metadata={"strength": f"{verdict.strength:g}"}))
        return Chosen(verdict, str(out / EXPORTED), own)
    pages.remove(EXPORTED)  # of an earlier verdict
    return Chosen(verdict, str(out / "finetune"), own) if verdict.strength else Chosen(verdict, base, of_base)


def _known(path: Path, made_from: str) -> Verdict | None:
    """The decision of an earlier run, where it would come out the same."""
    if not path.is_file():
        return None
    told = read_json(path, "remove it, and the verdict is made anew")
    return verdict_of_json(told) if told.get("made from") == made_from else None


def judge(
    base: Restorer,
    candidates: Mapping[float, Restorer],
    photos: Mapping[str, Path],
    *,
    pack: str | Path,
    settings: VerdictSettings,
    device: torch.device,
    fidelities: tuple[float | None, float | None] = (None, None),
    on_step: Callable[[int, int], object] = lambda done, total: None,
) -> Verdict:
    """The verdict on candidates for a base's place, from photos alone.

    Args:
        base: what was there before.
        candidates: restorers by strength.
        photos: aligned faces of the pack's size, by id; at most `settings.photos` of them are judged.
        pack: whose prior, blur estimator and face networks are asked.
        settings: the recipe.
        device: where to compute.
        fidelities: at which the base and the candidates restore; None for one that takes none.
        on_step: told of photos done, and of all, over all models.
    """
    judges, levels = load_judges(pack, device)
    chosen = spread([*photos.values()], settings.photos)
    models: dict[float, Restorer] = {0.0: base, **candidates}
    numbers: dict[float, dict[str, list[float]]] = {}
    with full_precision():
        stds = [levels(read_image(path)[None].to(device)) for path in chosen]
        for index, (strength, model) in enumerate(models.items()):
            own = numbers.setdefault(strength, {})
            for place, (path, std) in enumerate(zip(chosen, stds, strict=True)):
                photo = read_image(path)[None].to(device)
                seeds = [photo_seed(SEED, file_digest(path))]
                restored = Restored(photos=photo, images=model(photo, fidelities[strength > 0]), stds=std, seeds=seeds)
                for key, values in evidence_on(restored, judges).items():
                    own.setdefault(key, []).extend(values)
                on_step(index * len(chosen) + place + 1, len(models) * len(chosen))
    return decide(numbers[0.0], {strength: numbers[strength] for strength in candidates}, settings)


def spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many, evenly through all."""
    count = min(most, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]
