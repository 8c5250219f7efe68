"""CodeFormer and its VQGAN against the public implementation, and their properties on small ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import SMALL_CODEFORMER, lively_codeformer, lively_vqgan
from pydantic import ValidationError
from reference import Reference

from adapt.errors import RangeError, ShapeError, UsageError, WeightsError
from adapt.images import to_signed
from adapt.loading import load_restorer
from adapt.restorers.base import Restorer, build_restorer, load_restorer_file
from adapt.restorers.codeformer import PARTS, CodeFormer, Reading, codeformer_settings, with_statistics_of
from adapt.restorers.vqgan import VQGAN, vqgan_settings
from adapt.settings import CodeFormerSettings, VQGANSettings


def smooth(reference: Reference, name: str) -> torch.Tensor:
    return torch.from_numpy(reference.fill.smooth(name, [1, 3, 512, 512]))


@pytest.fixture(scope="module")
def reading(reference: Reference, public_codeformer: CodeFormer) -> Reading:
    """What the public network reads in the fixture's photo; all its images are made of it."""
    with torch.no_grad():
        return public_codeformer.read(smooth(reference, "codeformer_512.x"))


def test_vqgan_fixture(reference: Reference, public_codeformer: CodeFormer):
    """What it encodes and which codes are nearest. Its generator is the one of `test_image_fixture`, and how the
    parts go together is tested on a small network: here the whole would take three times as long."""
    arrays = reference.arrays("vqgan_512")
    with torch.device("meta"):
        network = VQGAN(VQGANSettings()).eval()
    weights = public_codeformer.state_dict()  # of a name and a shape the fill makes the same numbers in both networks
    network.load_state_dict({name: weights[name] for name in network.state_dict()}, assign=True)
    with torch.no_grad():
        feature = network.encoder(to_signed(smooth(reference, "vqgan_512.x")))
        distances = network.quantize.distances(feature)
    np.testing.assert_allclose(feature[:, :8], arrays["z_first8ch"], rtol=0, atol=5e-5)
    np.testing.assert_array_equal(network.quantize.nearest(feature), arrays["indices"])
    assert distances.mean().item() == pytest.approx(arrays["scalars"][2], rel=1e-6)


def test_codeformer_fixture(reference: Reference, public_codeformer: CodeFormer, reading: Reading):
    """Features, logits, codes, and the codes with the photo's statistics."""
    arrays = reference.arrays("codeformer_512")
    np.testing.assert_allclose(reading.feature, arrays["lq_feat"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(reading.logits[:, :16], arrays["logits_first16"], rtol=0, atol=5e-5)
    np.testing.assert_array_equal(reading.logits.argmax(-1), arrays["logits_argmax"])
    chosen = public_codeformer.quantize.look_up(reading.logits.argmax(-1))
    taken = with_statistics_of(chosen, reading.feature)
    np.testing.assert_allclose(chosen[:, :4], arrays["quant_feat_first4ch"], rtol=0, atol=0)
    np.testing.assert_allclose(taken[:, :4], arrays["quant_feat_adain_first4ch"], rtol=0, atol=5e-5)


def test_image_fixture(reference: Reference, public_codeformer: CodeFormer, reading: Reading):
    """One of the fixture's four images, on which all parts act; benchmarks/codeformer.py has the other three."""
    arrays = reference.arrays("codeformer_512")
    with torch.no_grad():
        made = public_codeformer.generate(reading, 0.5)
    np.testing.assert_allclose((made * 2 - 1)[..., ::4, ::4], arrays["out_w0.5_adain1"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "build", "read"), [
    ("codeformer", CodeFormer, codeformer_settings), ("vqgan512_code1024", VQGAN, vqgan_settings),
])
def test_manifest(reference: Reference, name: str, build, read):
    manifest = reference.manifest(name)
    state = {key: torch.empty(shape, device="meta") for key, shape in manifest["tensors"].items()}
    settings = read(state)
    with torch.device("meta"):
        network = build(settings)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == manifest["tensors"]
    assert sum(p.numel() for p in network.parameters()) == manifest["n_params"]
    stated = {key: value for key, value in manifest["config"].items() if hasattr(settings, key)}
    stated["connect_list"] = [int(side) for side in stated.get("connect_list", [])]
    assert {key: getattr(settings, key, []) for key in stated} == stated


OTHERS = [
    SMALL_CODEFORMER,
    SMALL_CODEFORMER.model_copy(update={"res_blocks": 3, "attn_resolutions": [8, 16], "connect_list": []}),
    SMALL_CODEFORMER.model_copy(update={"ch_mult": [2], "img_size": 4, "connect_list": [4], "n_layers": 1}),
    SMALL_CODEFORMER.model_copy(update={"attn_resolutions": [], "dim_embd": 128, "n_head": 2}),
]


@pytest.mark.parametrize("settings", OTHERS)
def test_the_layout_is_read_off_any_file(settings: CodeFormerSettings):
    assert codeformer_settings(CodeFormer(settings).state_dict()) == settings
    coarse = VQGANSettings(**{key: getattr(settings, key) for key in VQGANSettings.model_fields})
    assert vqgan_settings(VQGAN(settings).state_dict(), grid=settings.grid) == coarse


@pytest.mark.parametrize(("change", "message"), [
    ({"img_size": 30}, "img_size 30 cannot be halved 2 times"),
    ({"n_head": 3}, "dim_embd 64 is not a multiple of 3 heads"),
    ({"connect_list": [8, 32]}, r"connect_list: no feature map has a side of \[32\]; there are \[16, 8, 4\]"),
    ({"nf": 24}, "multiple of 32"),
])
def test_layouts_that_cannot_be_built(change: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        CodeFormerSettings.model_validate({**SMALL_CODEFORMER.model_dump(), **change})


def test_quantising_is_nearest_by_direct_distances(gen: torch.Generator):
    book = lively_vqgan().quantize
    feature = torch.randn(2, 8, 4, 4, generator=gen)
    apart = feature[:, None] - book.embedding.weight[None, :, :, None, None]
    expected = apart.double().square().sum(2).argmin(1)
    codes = book.nearest(feature)
    assert torch.equal(codes, expected.flatten(1))
    rows = book.look_up(codes)
    assert torch.equal(rows[1, :, 2, 3], book.embedding.weight[expected[1, 2, 3]])
    assert torch.equal(book.nearest(rows), codes)


def test_a_vqgan_trains_all_its_parts(gen: torch.Generator):
    """The image's gradient passes the codebook as if it were not there; the quantised features' reaches its rows."""
    network = lively_vqgan()
    image = torch.rand(1, 3, 16, 16, generator=gen)
    made = network(image)
    made.image.square().sum().backward(retain_graph=True)
    assert network.quantize.embedding.weight.grad is None
    first = next(network.encoder.parameters())
    straight = torch.autograd.grad(made.image.sum(), [made.feature, first], retain_graph=True)
    quantised = made.quantised.detach().requires_grad_()
    (through_generator,) = torch.autograd.grad((network.generator(quantised) / 2 + 0.5).sum(), quantised)
    torch.testing.assert_close(straight[0], through_generator, rtol=1e-3, atol=1e-5)
    assert straight[1].abs().max() > 0
    (rows,) = torch.autograd.grad(made.quantised.sum(), network.quantize.embedding.weight)
    assert set(rows.abs().sum(1).nonzero().flatten().tolist()) == set(made.codes.flatten().tolist())


def test_a_vqgan_generates_from_the_nearest_rows(gen: torch.Generator):
    network = lively_vqgan()
    image = torch.rand(2, 3, 16, 16, generator=gen)
    with torch.no_grad():
        made = network(image)
        assert torch.equal(made.codes, network.codes(image))
        assert torch.equal(made.quantised, network.quantize.look_up(made.codes))
        assert torch.equal(made.feature, network.encoder(2 * image - 1))
        torch.testing.assert_close(2 * made.image - 1, network.generator(made.quantised), rtol=0, atol=1e-5)


def test_without_fidelity_the_photo_acts_through_its_codes_alone(gen: torch.Generator):
    network = lively_codeformer(SMALL_CODEFORMER.model_copy(update={"adain": False}))
    with torch.no_grad():
        reading = network.read(torch.rand(2, 3, 16, 16, generator=gen))
        other = reading._replace(shown={side: torch.rand_like(part) for side, part in reading.shown.items()},
                                 feature=torch.rand_like(reading.feature))
        assert torch.equal(network.generate(reading, 0.0), network.generate(other, 0.0))
        assert torch.equal(network.generate(reading, torch.zeros(1)), network.generate(other, torch.zeros(1)))
        for side in SMALL_CODEFORMER.connect_list:
            changed = {**reading.shown, side: torch.zeros_like(reading.shown[side])}
            difference = network.generate(reading, 0.5) - network.generate(reading._replace(shown=changed), 0.5)
            assert difference.abs().max() > 1e-3, side


def test_fidelity_may_be_a_number_or_one_for_each_photo(gen: torch.Generator):
    network = lively_codeformer()
    photos = torch.rand(3, 3, 16, 16, generator=gen)
    with torch.no_grad():
        apart = torch.cat([network(photo[None], w) for photo, w in zip(photos, (0.0, 0.5, 1.0), strict=True)])
        together = network(photos, torch.tensor([0.0, 0.5, 1.0]))
        torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)
        assert torch.equal(network(photos), network(photos, 0.5))
    assert (apart[0] - apart[1]).abs().max() > 1e-3


def test_a_photo_does_not_depend_on_its_batch(gen: torch.Generator):
    photos = torch.rand(3, 3, 16, 16, generator=gen)
    network = lively_codeformer()
    with torch.no_grad():
        torch.testing.assert_close(network(photos)[1:2], network(photos[1:2]), rtol=0, atol=1e-5)
        torch.testing.assert_close(network.read(photos).logits[2:], network.read(photos[2:]).logits, rtol=0, atol=1e-5)


def test_statistics_are_those_of_the_model(gen: torch.Generator):
    x, model = (torch.randn(2, 5, 3, 4, generator=gen, dtype=torch.float64) for _ in range(2))
    taken = with_statistics_of(3 * x + 1, model, eps=0.0).numpy()
    expected = model.numpy()
    np.testing.assert_allclose(taken.mean((2, 3)), expected.mean((2, 3)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(taken.std((2, 3), ddof=1), expected.std((2, 3), ddof=1), rtol=1e-12, atol=0)
    flat = torch.full((1, 1, 4, 4), 7.0, dtype=torch.float64)
    assert with_statistics_of(x[:1, :1], flat)[0, 0].sub(7).abs().max() < 0.02  # a flat model flattens


def test_adain_turns_with_the_settings(gen: torch.Generator):
    photo = torch.rand(1, 3, 16, 16, generator=gen)
    plain = lively_codeformer(SMALL_CODEFORMER.model_copy(update={"adain": False}))
    with torch.no_grad():
        assert (lively_codeformer()(photo) - plain(photo)).abs().max() > 1e-3


def test_adain_is_chosen_on_loading_and_remembered(tmp_path: Path, gen: torch.Generator):
    photo = torch.rand(1, 3, 16, 16, generator=gen)
    layouts = [SMALL_CODEFORMER.model_copy(update={"adain": adain}) for adain in (True, False)]
    built = [Restorer("x", "codeformer", layout, lively_codeformer(layout)) for layout in layouts]
    on, off = (restorer(photo) for restorer in built)
    built[0].save(tmp_path / "on.safetensors")
    load_restorer(tmp_path / "on.safetensors", adain=False).save(tmp_path / "off.safetensors")
    for name, own, other in (("on", on, off), ("off", off, on)):
        path = tmp_path / f"{name}.safetensors"
        assert torch.equal(load_restorer(path)(photo), own), "as the file says"
        assert torch.equal(load_restorer(path, adain=name == "off")(photo), other)
        assert load_restorer(path, adain=name == "off").settings.model_dump()["adain"] is (name == "off")
    for adain in (True, False):
        with pytest.raises(UsageError, match=r"tiny/onestep: adain is a choice .*; this is a onestep"):
            load_restorer("tiny", adain=adain)


def test_the_choice_of_codes_has_the_gradient_of_its_expectation(gen: torch.Generator):
    network = lively_codeformer(SMALL_CODEFORMER.model_copy(update={"adain": False}))
    reading = network.read(torch.rand(1, 3, 16, 16, generator=gen))
    logits = reading.logits.detach().requires_grad_()
    chosen = network._chosen(logits)
    rows = network.quantize.embedding.weight.detach()
    torch.testing.assert_close(chosen.flatten(2).mT, rows[logits.argmax(-1)], rtol=0, atol=1e-6)
    weight = torch.randn(chosen.shape, generator=gen)
    (found,) = torch.autograd.grad((chosen * weight).sum(), logits)
    value = rows @ weight.flatten(2)[0]  # (K, N): what each code would give at each place
    share = F.softmax(logits.detach()[0], dim=-1)
    expected = share * (value.T - (share * value.T).sum(-1, keepdim=True))
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-6)


def test_a_images_gradient_reaches_what_it_should(gen: torch.Generator):
    network = lively_codeformer()
    photo = torch.rand(1, 3, 16, 16, generator=gen)
    network(photo).square().sum().backward()
    assert {part for part in PARTS if touched(network, part)} == set(PARTS)
    network.zero_grad()
    network.generate(network.read(photo).detached()).square().sum().backward()
    assert {part for part in PARTS if touched(network, part)} == {"codebook", "generator", "fusion"}


def touched(network: CodeFormer, part: str) -> bool:
    """Whether any tensor of a part has a gradient that is not zero."""
    named = [(name, p) for name, p in network.named_parameters() if name.startswith(PARTS[part])]
    assert named
    return any(p.grad is not None and bool(p.grad.any()) for _, p in named)


def test_parts_are_all_and_disjoint():
    names = [name for name, _ in CodeFormer(SMALL_CODEFORMER).named_parameters()]
    assert all(sum(name.startswith(prefixes) for prefixes in PARTS.values()) == 1 for name in names)
    network = lively_codeformer()
    network.train_only(["encoder", "fusion"])
    trained = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"encoder", "fuse_convs_dict"}
    network.train_only([])
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(UsageError, match="no part decoder; its parts are encoder, transformer, codebook, generator"):
        network.train_only(["decoder"])


@pytest.mark.parametrize("shape", [(1, 3, 16, 20), (1, 3, 32, 32), (1, 1, 16, 16), (3, 16, 16)])
def test_another_size_is_refused(shape: tuple[int, ...]):
    expected = f"expected a batch of shape (B, 3, 16, 16), got {shape}; it knows this one size, so resize to 16"
    codeformer = lively_codeformer()
    for call in (codeformer, codeformer.codes, lively_vqgan().codes):
        with pytest.raises(ShapeError, match=re.escape(expected)):
            call(torch.zeros(shape))


def test_a_vqgan_takes_crops_of_whole_codes(gen: torch.Generator):
    network = lively_vqgan()
    stride = network.settings.img_size // network.settings.grid
    side = 3 * stride
    made = network(torch.rand(2, 3, side, side, generator=gen))
    assert made.image.shape == (2, 3, side, side)
    assert made.codes.numel() == 2 * 3 * 3
    for wrong in ((1, 3, side + 1, side + 1), (1, 3, side, stride), (1, 1, side, side), (3, side, side)):
        with pytest.raises(ShapeError, match=re.escape(f"H a multiple of {stride}, got {wrong}")):
            network(torch.zeros(wrong))


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"params": {}, "params_ema": s},
    lambda s: {"params": s},
    lambda s: {f"module.{k}": v for k, v in s.items()},
])
def test_wrappings(wrap, tmp_path: Path, gen: torch.Generator):
    network = lively_codeformer()
    torch.save(wrap(network.state_dict()), tmp_path / "codeformer.pth")
    restorer = load_restorer(tmp_path / "codeformer.pth")
    assert (restorer.architecture, restorer.size, restorer.chosen_fidelity()) == ("codeformer", 16, 0.5)
    assert restorer.size_rule == "any batch; aligned faces of 16 by 16 pixels and no other: resize to that first"
    photo = torch.rand(2, 3, 16, 16, generator=gen)
    with torch.no_grad():
        assert torch.equal(restorer(photo), network(photo, 0.5).clamp(0, 1))
        assert torch.equal(restorer(photo, fidelity=0.0), network(photo, 0.0).clamp(0, 1))


def test_what_is_saved_keeps_the_settings_that_tensors_do_not_tell(tmp_path: Path, gen: torch.Generator):
    settings = SMALL_CODEFORMER.model_copy(update={"n_head": 4, "adain": False})
    restorer = build_restorer("x", lively_codeformer(settings).state_dict(), {})
    restorer.settings, restorer.network = settings, lively_codeformer(settings)
    restorer.save(tmp_path / "x.safetensors")
    again = load_restorer_file(tmp_path / "x.safetensors")
    assert again.settings == settings
    photo = torch.rand(1, 3, 16, 16, generator=gen)
    assert torch.equal(again(photo, fidelity=1.0), restorer(photo, fidelity=1.0))


def test_fidelity_is_checked(gen: torch.Generator):
    restorer = build_restorer("mine", lively_codeformer().state_dict(), {})
    photo = torch.rand(1, 3, 16, 16, generator=gen)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(RangeError, match=r"fidelity: expected a number in \[0, 1\], got"):
            restorer(photo, fidelity=wrong)
    with pytest.raises(ShapeError, match="it knows this one size"):
        restorer(torch.rand(1, 3, 20, 20, generator=gen))
    with pytest.raises(UsageError, match="a swinir has no fidelity to choose; known with one: codeformer"):
        load_restorer("tiny/swinir")(photo, fidelity=0.5)


def test_files_that_are_no_codeformer():
    state = lively_codeformer().state_dict()
    with pytest.raises(WeightsError, match="no position_emb of a square grid"):
        build_restorer("x", {**state, "position_emb": torch.zeros(15, 64)}, {})
    without = {key: value for key, value in state.items() if not key.startswith("encoder.blocks.2.")}
    with pytest.raises(WeightsError, match="blocks of its encoder are missing"):
        build_restorer("x", without, {})
    narrow = {**state, "encoder.blocks.0.weight": torch.zeros(24, 3, 3, 3)}
    with pytest.raises(WeightsError, match=r"x: not the layout of a codeformer \(nf: .*multiple of 32"):
        build_restorer("x", narrow, {})
    short = {key: value for key, value in state.items() if key != "generator.blocks.0.bias"}
    with pytest.raises(WeightsError, match=r"x: not the weights of this CodeFormer: 1 missing \(generator.blocks.0.b"):
        build_restorer("x", short, {})
