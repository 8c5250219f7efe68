"""What a fine-tuning begins with: a recipe and the networks it needs; what is missing is said before any work."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapt.errors import UsageError
from adapt.loading import (
    CODEBOOK,
    CODEFORMER,
    DISCRIMINATOR,
    ONESTEP,
    PRIOR,
    load_codebook,
    load_distance,
    load_restorer,
    measuring_networks,
)
from adapt.packs.named import Read, named_network
from adapt.packs.pack import load_pack
from adapt.settings import (
    CodeFinetuneSettings,
    DegradeSettings,
    FinetuneSettings,
    PatchAdversarySettings,
    ReplaySettings,
    TuningSettings,
)
from adapt.settings.recipe import load_recipe

SWINIR: Final = "swinir"  # the recipe with losses on images, for every restorer
WITHOUT: Final = ("restorer", SWINIR, CODEFORMER, ONESTEP)  # students for which a pack that lacks them has another

if TYPE_CHECKING:
    from adapt.evaluation.inputs import Measuring
    from adapt.perceptual.distance import PerceptualDistance
    from adapt.restorers.base import Restorer


@dataclass(frozen=True, slots=True)
class FinetuneSetup:
    """What a fine-tuning begins with.

    Attributes:
        name, restorer: what is fine-tuned, and the name that loads it.
        base_name, base: what the targets are made with, and the result is compared with; mostly the same.
        distance: the perceptual distance.
        recogniser: where the recipe asks for one.
        discriminator: weights that it begins with, where the recipe asks for them.
    """

    settings: FinetuneSettings | CodeFinetuneSettings
    name: str
    restorer: Restorer
    base_name: str
    base: Restorer
    distance: PerceptualDistance
    recogniser: Measuring | None
    discriminator: Read | None


def default_recipe(pack: str | Path, restorer: str | Path | None = None) -> str:
    """The finetune recipe where none is named: that of the pack's own restorer, or the one that suits any restorer.

    Raises:
        UsageError: no such pack.
    """
    if restorer is not None:
        return SWINIR
    card = load_pack(pack).card
    own = card.networks.get(card.restorer)
    return own.architecture if own is not None and own.architecture in (SWINIR, CODEFORMER, ONESTEP) else SWINIR


def set_up_finetune(
    recipe: str | Path,
    *,
    pack: str | Path,
    restorer: str | Path | None = None,
    base: str | Path | None = None,
    real: str | Path | None = None,
    replay: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> FinetuneSetup:
    """Read a finetune recipe and load the restorer it starts from; whatever is missing is said here, before any work.

    Args:
        recipe, pack, real, replay, overrides: as `finetune`.
        restorer: what to start from; where None `base`, unless the recipe names a student of the pack's.
        base: what targets are made with; where None `restorer`, unless the recipe names a student, else the pack's own,
            or its CodeFormer where the objective is codes. Both work at the size of the pack's faces, which its prior
            draws, whatever they were made for; one that cannot is refused.

    Raises:
        UsageError: a pack without what the recipe needs, a restorer that cannot learn by it or takes no faces of the
            pack's size, a discriminator of more layers than that size has room for, settings for replay without a
            folder, sharp faces for a recipe without a discriminator, or a folder, a recipe of damage or a teacher that
            is not there.
    """
    from adapt.faces.entries import RECOGNISER
    from adapt.finetuning.objectives import network_with_codes
    from adapt.photos.folder import photos_of
    from adapt.settings.recipe import find_recipe, kind_of
    from adapt.training.adversary import check_layers

    pack = str(pack)
    path = find_recipe(recipe, "finetune", pack)
    by_codes = kind_of(path) == "finetune-codes"
    settings = load_recipe(path, CodeFinetuneSettings if by_codes else FinetuneSettings, overrides, pack=pack)
    if settings.replay is not None and replay is None:
        raise UsageError(f"{recipe}: replay mixes in pairs of clean faces; name their folder with --replay FACES")
    if settings.replay is None and replay is not None:
        settings = settings.model_copy(update={"replay": ReplaySettings()})
    if real is not None and not settings.adversarial:
        raise UsageError(
            f"--real {real}: sharp faces are shown to a discriminator, and {recipe} has none; leave this out, or give"
            " `adversarial` a weight"
        )
    if real is not None:
        photos_of("real", Path(real), "sharp aligned faces")
    if replay is not None:
        photos_of("replay", Path(replay), "clean aligned faces")
    if settings.replay is not None:
        load_recipe(settings.replay.degradation, DegradeSettings)
    card = load_pack(pack).card
    networks = card.networks
    if by_codes and restorer is None and base is None and CODEFORMER not in networks:
        raise UsageError(
            f"pack {pack}: has no {CODEFORMER}, which recipe {recipe} starts from (it has {', '.join(networks)});"
            " name one with --restorer FILE, or take --recipe swinir"
        )
    if isinstance(settings, CodeFinetuneSettings) and settings.teacher == CODEBOOK and CODEBOOK not in networks:
        raise UsageError(
            f"pack {pack}: has no codebook to give the codes of targets; name a VQGAN's file (teacher=FILE), or take"
            " the restorer's own encoder (teacher=restorer)"
        )
    if isinstance(settings, CodeFinetuneSettings) and settings.teacher not in (CODEBOOK, "restorer"):
        load_codebook(settings.teacher)
    entry = _entry(settings, networks)
    own = pack if entry is None else f"{pack}/{entry}"
    untrained = f"{pack}/{PRIOR}" if entry is None and _wants(settings, ONESTEP) else None
    named = None if _wants(settings, ONESTEP) else restorer
    base_name = str(base or named or own)
    name = str(restorer or untrained or (own if _wants(settings, ONESTEP) else base_name))
    model = load_restorer(name).at(card.size, f"pack {pack}")
    if by_codes:
        network_with_codes(model)
    guide = model if name == base_name else load_restorer(base_name).at(card.size, f"pack {pack}")
    distance = load_distance(load_pack(pack), settings.distance)
    recogniser = measuring_networks(load_pack(pack))[RECOGNISER] if settings.face_identity else None
    if settings.adversarial and isinstance(settings.discriminator, PatchAdversarySettings):
        check_layers(settings.discriminator, model.size)
    discriminator = _discriminator(settings, pack, networks) if settings.adversarial else None
    return FinetuneSetup(settings, name, model, base_name, guide, distance, recogniser, discriminator)


def _discriminator(settings: TuningSettings, pack: str, networks: Collection[str]) -> Read | None:
    """The pack's discriminator, where a recipe begins with it."""
    chosen = settings.discriminator
    if not isinstance(chosen, PatchAdversarySettings) or not chosen.pretrained:
        return None
    if DISCRIMINATOR not in networks:
        raise UsageError(
            f"pack {pack}: has no {DISCRIMINATOR}, which the recipe begins with (discriminator.pretrained); take one"
            " that learns anew (discriminator.pretrained=false)"
        )
    return named_network(pack, DISCRIMINATOR).read()


def _entry(settings: FinetuneSettings | CodeFinetuneSettings, networks: Collection[str]) -> str | None:
    """What a recipe fine-tunes of a pack's networks; None where it is the pack's own restorer, or its prior."""
    wanted = CODEFORMER if isinstance(settings, CodeFinetuneSettings) else settings.student
    if wanted not in networks and wanted not in WITHOUT:
        raise UsageError(f"student={wanted}: the pack has {', '.join(networks)}; name one of its restorers")
    return wanted if wanted in networks else None


def _wants(settings: TuningSettings, student: str) -> bool:
    """Whether a recipe fine-tunes the pack's network of that name."""
    return isinstance(settings, FinetuneSettings) and settings.student == student
