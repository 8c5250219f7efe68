"""Identity guidance: its gradient, its length, its mask, and what it does to a draw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapt.diffusion.sampler import Conditioning
from adapt.diffusion.steps import Step, plan_from
from adapt.errors import UsageError
from adapt.faces.measures import embeddings, identity_distance, rank_among
from adapt.faces.recogniser import FaceIdentifier
from adapt.guidance.identity import Identity
from adapt.images import to_signed, to_unit
from adapt.loading import load_blur_parts, load_identity_mask, load_prior, load_recogniser, load_restorer
from adapt.photos.files import read_image
from adapt.photos.folder import find_photos
from adapt.settings import TargetSettings
from adapt.settings.recipe import load_recipe
from adapt.targets.methods import target_maker


@pytest.fixture(scope="module")
def recogniser() -> FaceIdentifier:
    return load_recogniser("tiny")


@pytest.fixture(scope="module")
def people() -> Tensor:
    """Two faces of nobody, (2, 3, 128, 128) in [0, 1]."""
    from adapt.loading import KNOWN

    return torch.stack([read_image(photo.path) for photo in find_photos(KNOWN)[:2]])


def step_at(t: int) -> Step:
    return plan_from(t, 4, 0).steps[0]


def term(recogniser: FaceIdentifier, **more: object) -> Identity:
    return Identity(recogniser=recogniser, **more)  # pyright: ignore[reportArgumentType]


def test_it_descends_the_distance(recogniser: FaceIdentifier, people: Tensor):
    """A step along its gradient brings the face nearer to the other one, by about what a linear distance would lose."""
    guide, face = to_signed(people[:1]), to_signed(people[1:])
    own = term(recogniser, most=1e-3)
    memory = own.begin(Conditioning(guide))
    loss = own.guidance_loss(face, step_at(300), memory)
    assert loss is not None
    way = loss.gradient / (2 * own.scale)
    assert float(way.square().mean().sqrt()) == pytest.approx(1e-3, rel=1e-3), "no further than that"
    before = identity_distance(to_unit(face), people[:1], recogniser)
    after = recogniser.distance(recogniser.unchecked(to_unit(face - way)), memory.guide)
    other = recogniser.distance(recogniser.unchecked(to_unit(face + way)), memory.guide)
    assert float(after) < float(before) < float(other)
    assert float(loss.value) == pytest.approx(own.scale * float(way.square().sum()), rel=1e-4)


def test_a_scale_means_the_same_everywhere(recogniser: FaceIdentifier, people: Tensor):
    guide, face = to_signed(people[:1]), to_signed(people[1:])
    memory = term(recogniser).begin(Conditioning(guide))
    losses = [term(recogniser, scale=scale).guidance_loss(face, step_at(t), memory)
              for scale, t in ((0.1, 900), (0.1, 20), (0.2, 20))]  # fmt: skip
    first, later, twice = (loss.gradient for loss in losses if loss is not None)
    torch.testing.assert_close(first, later)
    torch.testing.assert_close(2 * first, twice)


def test_it_rests_outside_of_its_timesteps(recogniser: FaceIdentifier, people: Tensor):
    own = term(recogniser, first_t=500, last_t=100)
    memory = own.begin(Conditioning(to_signed(people)))
    asked = [own.guidance_loss(to_signed(people), step_at(t), memory) is not None for t in (900, 500, 300, 101, 100)]
    assert asked == [False, True, True, True, False]


def test_the_mask_is_where_the_restorer_changed_much(recogniser: FaceIdentifier, people: Tensor):
    """Eq. 8, on the scale of [0, 1]."""
    restored = people[:1] * 0.5
    photo = restored.clone()
    photo[:, 1, 40:60, 50:80] += 0.4
    photo[:, :, 90:100] += 0.2
    own = term(recogniser, mask=0.3)
    memory = own.begin(Conditioning(to_signed(restored), None, to_signed(photo)))
    expected = torch.zeros(1, 1, 128, 128)
    expected[:, :, 40:60, 50:80] = 1
    assert torch.equal(memory.mask, expected)
    loss = own.guidance_loss(to_signed(people[1:]), step_at(200), memory)
    assert loss is not None
    assert float((loss.gradient * (1 - expected)).abs().max()) == 0
    assert float((loss.gradient * expected).abs().max()) > 0
    with pytest.raises(UsageError, match="the mask needs the photos"):
        own.begin(Conditioning(to_signed(restored)))


def test_the_same_face_is_not_moved(recogniser: FaceIdentifier, people: Tensor):
    own = term(recogniser)
    memory = own.begin(Conditioning(to_signed(people)))
    loss = own.guidance_loss(to_signed(people), step_at(200), memory)
    assert loss is not None
    assert bool(loss.gradient.isfinite().all())
    assert float(loss.value.max()) < 1e-6


@pytest.mark.parametrize(("gradient", "least"), [("network", 0.97), ("x0", 0.9)])
def test_a_draw_keeps_the_person(recogniser: FaceIdentifier, people: Tensor, gradient: str, least: float):
    """From far, where the prior draws faces of its own: with the term they are nearer to the guide's person."""
    prior = load_prior("tiny")
    own = {"name": "identity", "gradient": gradient}
    settings = TargetSettings.model_validate({
        "kind": "targets", "method": "identity", "start_t": 600, "steps": 5, "solver": "ddim", "eta": 0.0,
        "guidance": [own], "gate": {},
    })  # fmt: skip
    plain = settings.model_copy(update={"guidance": []})
    guided = target_maker(settings, prior, None, recogniser).make(people, people, [1, 2]).images.clamp(0, 1)
    free = target_maker(plain, prior).make(people, people, [1, 2]).images.clamp(0, 1)
    near, far = (identity_distance(each, people, recogniser) for each in (guided, free))
    assert bool((near < least * far).all()), (near, far)
    swapped = identity_distance(guided, people.flip(0), recogniser)
    assert bool((near < swapped).all()), "each is nearest to its own person"


def test_the_recipe_ships_and_says_what_it_needs():
    settings = load_recipe("identity", TargetSettings, pack="tiny")
    assert (settings.start_t, settings.needs_recogniser, settings.needs_mask) == (400, True, True)
    prior = load_prior("tiny", settings.prior)
    assert prior.sees_photo
    with pytest.raises(UsageError, match="needs a recogniser"):
        target_maker(settings, prior, mask=load_identity_mask("tiny"))


PLAIN = {"kind": "targets", "guidance": [], "solver": "ddim", "eta": 0.0}


@pytest.mark.parametrize(("method", "own"), [
    ("identity", True), ("adaptive", True), ("low-frequency", True), ("from noise", False),
])  # fmt: skip
def test_each_target_is_nearest_to_its_own_person(method: str, own: bool, recogniser: FaceIdentifier):
    """Of six people in one batch; without anything that holds it, a draw is anybody's."""
    from adapt.loading import KNOWN

    faces = torch.stack([read_image(photo.path) for photo in find_photos(KNOWN)[:6]])
    photos = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(faces, 3, 3, ceil_mode=True), 128)
    if method == "from noise":
        settings = TargetSettings.model_validate({**PLAIN, "start_t": 999, "steps": 4})
    else:
        fewer = [] if method == "low-frequency" else ["steps=4"]  # from so far above, a few steps lose a person
        settings = load_recipe(method, TargetSettings, fewer, pack="tiny")
    maker = target_maker(
        settings, load_prior("tiny", settings.prior), load_blur_parts("tiny", settings, torch.device("cpu"))[0],
        recogniser, load_identity_mask("tiny") if settings.needs_mask else None,
    )
    restored = load_restorer("tiny")(photos)
    made = maker.make(photos, restored, list(range(6))).images.clamp(0, 1)
    with torch.no_grad():
        places = rank_among(embeddings(made, recogniser), embeddings(faces, recogniser))
    assert bool((places == 1).all()) == own, places
