"""Target makers: a recipe's method as plans, solvers and guidance terms for the one loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from adapt.blur.parts import BlurParts
from adapt.diffusion.prior import Prior
from adapt.diffusion.sampler import (
    AnyTerm,
    Conditioning,
    OnStep,
    PhotoNoise,
    StepRecord,
    Trajectory,
    sample_together,
    start,
)
from adapt.diffusion.schedule import TIMESTEPS
from adapt.diffusion.solvers import Ancestral, Ddim, DpmSolver2M, Solver
from adapt.diffusion.steps import Plan, plan_dt_bfr, plan_from
from adapt.digests import seed_again
from adapt.errors import UsageError, WeightsError
from adapt.faces.recogniser import FaceIdentifier
from adapt.guidance.mask import IdentityMask
from adapt.guidance.regions import region_stds
from adapt.images import to_signed, to_unit
from adapt.settings import TargetSettings
from adapt.targets.fallback import needs_fallback
from adapt.targets.photo_share import keep_photo, photo_share, shown
from adapt.targets.prior_score import LITTLE, score_by_prior
from adapt.targets.reliability import LEAST, unreliable_std
from adapt.targets.terms import TERMS, TermInputs
from degradations.blind import PUBLISHED_SIZE

SOLVERS: Final[dict[str, Callable[[float], Solver]]] = {
    "ddpm": lambda eta: Ancestral(),
    "ddim": Ddim,
    "dpm++2m": lambda eta: DpmSolver2M(),
}
PLANS: Final[dict[str, Callable[[int, int, int], Plan]]] = {"none": plan_from, "dt-bfr": plan_dt_bfr}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingInfo:
    """How one target was drawn.

    Attributes:
        start_t: timestep it was started from.
        evaluations: of the network, on the way from there, of all draws of which the target is the mean; 0 where what
            was to be sampled towards is the target.
        std: the blur level it was drawn for, in pixels: as estimated, or wider where the prior doubts the restored
            photo; the blurriest region's where there are several; None if nobody asked.
        factor: N of its first low-frequency constraint; None without one.
        fallback: sampled towards the photo itself, not towards the restored one.
        change_ratio: how much more of the photo than of the restored one the prior would change; None if nobody asked.
        photo_share: how much of the photo stayed in what it was drawn towards; None where the recipe has no such.
        problem: why there is no target; None where there is one.
    """

    start_t: int
    evaluations: int
    std: float | None = None
    factor: int | None = None
    fallback: bool = False
    change_ratio: float | None = None
    photo_share: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Targets.

    Attributes:
        images: (B, 3, H, W) in [0, 1]; a photo whose guidance stopped being finite is NaN.
        towards: what they were sampled towards, same shape and range: restored photos, or photos.
        infos: how each was drawn.
    """

    images: Tensor
    towards: Tensor
    infos: tuple[SamplingInfo, ...]


@dataclass(frozen=True)
class TargetMaker:
    """Everything that turns photos into targets.

    Attributes:
        prior: the diffusion prior.
        settings: the recipe.
        parts: what its pack knows of blur.
        recogniser: tells people apart, where a term asks.
        mask: has learned where the person is; the same.
    """

    prior: Prior
    settings: TargetSettings
    parts: BlurParts
    recogniser: FaceIdentifier | None = None
    mask: IdentityMask | None = None

    def make(
        self,
        photos: Tensor,
        restored: Tensor,
        seeds: Sequence[int],
        *,
        noise: Sequence[int] | None = None,
        latest: Sequence[int | None] | None = None,
        on_step: OnStep | None = None,
    ) -> TargetBatch:
        """Targets of photos.

        Args:
            photos: (B, 3, H, W) in [0, 1]; their blur is looked at, and where the recipe feeds photos directly, what
                the prior thinks of them.
            restored: R(y), the same shape and range.
            seeds: one per photo, of what the prior is shown it under.
            noise: one per photo, of what it is drawn from; those of before where None.
            latest: the highest timestep that each photo may start from, whatever recipe and blur say; None: no such.
            on_step: sees every step of every photo, maps and refined stds among it.

        Returns:
            Targets. A photo's does not depend on the others in its batch.
        """
        noise = seeds if noise is None else noise
        stds = self._blur_levels(photos)
        problems = _problems(restored, stds)
        if all(problems):
            nothing = tuple(SamplingInfo(start_t=0, evaluations=0, problem=problem) for problem in problems)
            return TargetBatch(torch.full_like(photos, torch.nan), restored, nothing)
        # Unsound ones keep their place in the batch with what is harmless, and get no target.
        unsound = torch.tensor([problem is not None for problem in problems], device=photos.device)
        restored = torch.where(unsound[:, None, None, None], photos, restored)
        stds = None if stds is None else torch.where(unsound[:, None], 1.0, stds)
        fallback = torch.zeros(len(photos), dtype=torch.bool, device=photos.device)
        change = None
        ratios: list[float] | None = None
        settings = self.settings
        if settings.needs_score:
            restored_score = score_by_prior(self.prior, restored, seeds)
            change = restored_score.change
            photo_score = None
            if settings.fallback is not None or settings.needs_ratio:
                photo_score = score_by_prior(self.prior, photos, seeds)
                ratios = (photo_score.change / restored_score.change.clamp(min=LITTLE)).tolist()
            if settings.fallback is not None and photo_score is not None:
                fallback = needs_fallback(
                    photos,
                    restored,
                    photo_score=photo_score,
                    restored_score=restored_score,
                    settings=settings.fallback,
                )
                change = torch.where(fallback.to(change.device), photo_score.change, change)
        if stds is not None and change is not None:
            stds = self._widened(stds, change, fallback)
        fed = fallback.tolist()
        latest = self._restrained([None] * len(seeds) if latest is None else latest, ratios, fed)
        stds = self._narrowed(stds, latest)
        restored, kept = self._with_photo(restored, photos, fed)
        towards = torch.where(fallback[:, None, None, None], photos, restored)
        # Where nothing is a photo's own, and none is watched, all take the same steps and are one trajectory.
        own_way = stds is not None or on_step is not None or any(each is not None for each in latest)
        rows = [[row] for row in range(len(seeds))] if own_way else [list(range(len(seeds)))]
        moving: list[list[int]] = []
        trajectories: list[Trajectory] = []
        infos: list[SamplingInfo] = []
        draws = self.settings.mean_of
        for each in rows:
            own = None if stds is None else stds[each]
            if latest[each[0]] == 0:
                info = SamplingInfo(start_t=0, evaluations=0, std=None if own is None else float(own.amax()))
            else:
                moving.append(each)
                made = [
                    self._trajectory(
                        towards[each], photos[each], own, [seed_again(noise[row], again) for row in each],
                        latest[each[0]],
                    )
                    for again in range(draws)
                ]
                trajectories += [trajectory for trajectory, _ in made]
                info = replace(made[0][1], evaluations=draws * made[0][1].evaluations)
            infos += [
                replace(
                    info, fallback=fed[row], problem=problems[row], change_ratio=ratios[row] if ratios else None,
                    photo_share=kept[row],
                )
                for row in each
            ]
        images = towards.clone()
        drawn = sample_together(self.prior, trajectories, _of_photos(on_step, moving, draws)) if trajectories else []
        for index, each in enumerate(moving):
            images[each] = to_unit(torch.stack(drawn[index * draws : (index + 1) * draws])).mean(0)
        return TargetBatch(torch.where(unsound[:, None, None, None], torch.nan, images), towards, tuple(infos))

    def _blur_levels(self, photos: Tensor) -> Tensor | None:
        """(B, R) in pixels; None where the recipe asks for nothing of the kind.

        Each photo is looked at by itself: steps and factors are rounded, and a last bit that depends on the batch must
        not decide them.
        """
        estimator = self.parts.estimator
        if not self.settings.needs_blur or estimator is None:
            return None
        return torch.cat([region_stds(estimator, photo, self.settings.regions) for photo in photos.split(1)])

    def _widened(self, stds: Tensor, change: Tensor, fallback: Tensor) -> Tensor:
        """Blur levels (B, R), no less than the reliability of each image asks for.

        What the estimator says is how far a restored photo is true. Where the photo itself is fed, reliability alone
        counts.
        """
        if self.settings.reliability is None:
            return stds
        size = self.prior.size
        asked = unreliable_std(change, size, settings=self.settings.reliability).to(stds)[:, None]
        least = asked.clamp(min=LEAST * size / PUBLISHED_SIZE).expand_as(stds)
        return torch.where(fallback[:, None], least, torch.maximum(stds, asked))

    def _with_photo(
        self, restored: Tensor, photos: Tensor, fed: Sequence[bool]
    ) -> tuple[Tensor, list[float | None]]:
        """Restored photos with what their photos still show in them, and the share of each; one fed directly has none.
        Each by itself."""
        settings = self.settings.photo_share
        if settings is None:
            return restored, [None] * len(fed)
        images, kept = list[Tensor](), list[float | None]()
        for image, photo, direct in zip(restored.split(1), photos.split(1), fed, strict=True):
            share = 0.0
            if not direct and bool(image.isfinite().all()):
                found = shown(image, photo)
                share = photo_share(found, settings)
                image = keep_photo(image, photo, share, found.weights)
            images.append(image)
            kept.append(share)
        return torch.cat(images), kept

    def _restrained(
        self, latest: Sequence[int | None], ratios: Sequence[float] | None, fed: Sequence[bool]
    ) -> list[int | None]:
        """The latest start step of each photo, by how little it was damaged as well; 0 is not to start. One fed
        directly is no target yet."""
        restraint = self.settings.restraint
        if restraint is None or ratios is None:
            return list(latest)
        own = [None if direct else restraint.latest(ratio) for ratio, direct in zip(ratios, fed, strict=True)]
        return [min((t for t in pair if t is not None), default=None) for pair in zip(latest, own, strict=True)]

    def _narrowed(self, stds: Tensor | None, latest: Sequence[int | None]) -> Tensor | None:
        """Blur levels (B, R) no higher than what each photo's latest start step stands for: guidance goes with it."""
        table = self.parts.start_steps
        if stds is None or table is None:
            return stds
        highest = [math.inf if not t else table.std_for(t) for t in latest]
        ratio = torch.tensor(highest, device=stds.device)[:, None] / stds.amax(dim=1, keepdim=True)
        return stds * ratio.to(stds).clamp(max=1)

    def _trajectory(
        self, towards: Tensor, photos: Tensor, stds: Tensor | None, seeds: Sequence[int], latest: int | None = None
    ) -> tuple[Trajectory, SamplingInfo]:
        """The trajectory of photos that take the same steps, and what the record says of it."""
        size = (towards.shape[2], towards.shape[3])
        level = None if stds is None else float(stds.amax())
        plan = self.plan_for(level, latest)
        conditioning = Conditioning(to_signed(towards), stds, to_signed(photos))
        draw = PhotoNoise(seeds, (towards.shape[1], *size), towards.device)
        terms = self._terms(level, size)
        solver = SOLVERS[self.settings.solver](self._eta(level, size[1]))
        x = start(_begun(conditioning, terms), plan, draw)
        trajectory = Trajectory(x=x, steps=plan.steps, solver=solver, terms=terms, conditioning=conditioning, draw=draw)
        factor = next((term.facts["factor"] for term in terms if "factor" in term.facts), None)
        return trajectory, SamplingInfo(start_t=plan.steps[0].t, evaluations=len(plan.steps), std=level, factor=factor)

    def plan_for(self, std: float | None, latest: int | None = None) -> Plan:
        """The plan of a photo whose blur level is `std` pixels; where the recipe has a start_t, all have that plan,
        but for one that may start from `latest` at most: its steps are as long.

        Without one, `steps` are those of the whole way from 999 and a photo takes its share of them, rounded up, so
        that a step is about as long wherever it starts.
        """
        settings, table = self.settings, self.parts.start_steps
        if settings.start_t is not None and (latest is None or latest >= settings.start_t):
            return PLANS[settings.compat](settings.start_t, settings.steps, settings.end_t)
        if settings.start_t is not None and latest is not None:
            begin = max(1, settings.end_t, latest)
            share = (begin + 1 - settings.end_t) / (settings.start_t + 1 - settings.end_t)
            return plan_from(begin, max(1, math.ceil(settings.steps * share)), settings.end_t)
        assert table is not None  # `target_maker` made sure of it
        begin = max(1, table.start_t(_known(std)))
        count = math.ceil(settings.steps * (begin + 1 - settings.end_t) / TIMESTEPS)
        return plan_from(begin, max(1, count), min(settings.end_t, begin))

    def _eta(self, std: float | None, side: int) -> float:
        """eta of DDIM; by blur it is a tenth of the std at 512 pixels (DynFaceRestore's README), and at most 1."""
        if self.settings.eta is not None:
            return self.settings.eta
        return min(1.0, _known(std) * PUBLISHED_SIZE / side / 10)

    def _terms(self, std: float | None, size: tuple[int, int]) -> tuple[AnyTerm, ...]:
        """The guidance of a photo whose blur level is `std` pixels, in the recipe's order."""
        inputs = TermInputs(
            std=std, size=size, parts=self.parts, own_start=self.settings.start_t is None, recogniser=self.recogniser,
            mask=self.mask,
        )
        return tuple(TERMS[term.name](term, inputs) for term in self.settings.guidance)


def _problems(restored: Tensor, stds: Tensor | None) -> list[str | None]:
    """Why a photo can have no target, for each: a network before the sampler gave what is not finite."""
    problems: list[str | None] = []
    for row, image in enumerate(restored):
        if not bool(image.isfinite().all()):
            problems.append("the restorer gave values that are not finite")
        elif stds is not None and not bool(stds[row].isfinite().all()):
            problems.append("the blur estimator gave a value that is not finite")
        else:
            problems.append(None)
    return problems


def _of_photos(on_step: OnStep | None, moving: Sequence[Sequence[int]], draws: int) -> OnStep | None:
    """Calls it for the first of each photo's trajectories alone, under the photo's place in the batch."""
    if on_step is None:
        return None

    def one_of_each(record: StepRecord) -> None:
        place, again = divmod(record.trajectory, draws)
        if again == 0:
            on_step(replace(record, trajectory=moving[place][0]))

    return one_of_each


def _known(std: float | None) -> float:
    """A blur level that `target_maker` made sure of."""
    assert std is not None
    return std


def _begun(conditioning: Conditioning, terms: Sequence[AnyTerm]) -> Conditioning:
    """What is noised to begin with: what a term says, where one does (DynFaceRestore Alg. 1, line 4)."""
    for term in terms:
        image = term.starting_image(term.begin(conditioning))
        if image is not None:
            return Conditioning(image)
    return conditioning


def target_maker(
    settings: TargetSettings, prior: Prior, parts: BlurParts | None = None, recogniser: FaceIdentifier | None = None,
    mask: IdentityMask | None = None,
) -> TargetMaker:
    """The maker that a recipe describes.

    Args:
        settings: the recipe.
        prior: the diffusion prior.
        parts: what its pack knows of blur; only what the recipe asks for is used.
        recogniser: tells people apart; the same.
        mask: has learned where the person is; the same.

    Raises:
        UsageError: settings that contradict each other, a term without its recogniser, a prior that sees the photo
            where it is asked what it thinks of images, steps that cannot be walked, or
            a blur estimator or table of another size than the prior.
        WeightsError: the recipe asks for a part that is not there; the message says which recipe makes it.
    """
    parts = parts or BlurParts()
    if settings.compat == "dt-bfr" and (settings.solver != "ddpm" or settings.start_t is None):
        got = f"solver {settings.solver}" if settings.solver != "ddpm" else "no start_t"
        raise UsageError(f"compat dt-bfr: the public code samples with ddpm from one start_t, got {got}")
    if settings.compat == "dt-bfr" and settings.gate.redraws:
        raise UsageError("compat dt-bfr: the public code draws each target once; leave out gate.redraws")
    if settings.eta != 0 and settings.solver != "ddim":
        raise UsageError(f"eta: belongs to ddim and changes nothing with {settings.solver}; leave it out")
    needed = [
        ("a blur estimator", "blur-estimator", settings.needs_blur, parts.estimator),
        ("a start-step table", "start-steps", settings.start_t is None, parts.start_steps),
        ("a guidance adjuster", "guidance-adjuster", settings.needs_adjuster, parts.adjuster),
        ("an identity mask", "identity-mask", settings.needs_mask, mask),
    ]
    missing = [(what, recipe) for what, recipe, asked, part in needed if asked and part is None]
    if missing:
        raise WeightsError(
            f"method {settings.method}: needs {' and '.join(what for what, _ in missing)}, which the pack does not"
            f" have; make it with {' and '.join(f'adapt pretrain --recipe {recipe}' for _, recipe in missing)},"
            " or take the method low-frequency, which needs a prior alone"
        )
    for part in (parts.estimator, parts.start_steps):
        if part is not None and settings.needs_blur and part.size != prior.size:
            what = "blur estimator" if part is parts.estimator else "start-step table"
            raise UsageError(f"{what}: made for images of {part.size} pixels, the prior is for {prior.size}")
    if settings.needs_recogniser and recogniser is None:
        raise UsageError("identity: needs a recogniser, and none was given")
    if settings.needs_score and prior.sees_photo:
        raise UsageError("prior: conditional-prior: says nothing of images by themselves; leave out fallback, restraint"
                         " and reliability, or take prior: prior")
    maker = TargetMaker(
        prior, settings, parts, recogniser if settings.needs_recogniser else None,
        mask if settings.needs_mask else None,
    )
    maker.plan_for(None if settings.start_t is not None else 0.0)  # a plan that cannot be walked is refused here
    return maker
