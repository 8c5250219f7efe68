"""Packs of files of the user's: what is entered, what is refused, and whose recipes such a pack takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import adapt
from networks import SMALL_CODEFORMER, lively_codeformer, lively_swinir, lively_vqgan
from torch import Tensor, nn

from adapt import weights
from adapt.blur.adjuster import GuidanceAdjuster
from adapt.blur.estimator import BlurNetwork
from adapt.blur.start_steps import StartSteps
from adapt.commands.add_to_pack import add_to_pack
from adapt.diffusion.unet import UNet
from adapt.digests import file_digest
from adapt.errors import UsageError, WeightsError
from adapt.loading import (
    load_adjuster,
    load_blur_estimator,
    load_codebook,
    load_distance,
    load_prior,
    load_restorer,
    load_start_steps,
)
from adapt.locks import locked
from adapt.packs.named import pack_restorer
from adapt.packs.pack import APART, EMBEDDED, add_network, known_packs, load_pack
from adapt.settings import (
    AdjusterNetworkSettings,
    BlurNetworkSettings,
    CodeFormerSettings,
    SwinIRSettings,
    UNetSettings,
    VQGANSettings,
)
from adapt.settings.recipe import SIZED, find_recipe, recipes_folder
from adapt.weights import write_state

ABOUT = {"licence": "some terms, non-commercial", "source": "https://example.org/it.pth", "trained": "on faces"}
SIDE = 64  # of the faces in these packs: a public codebook of three levels has a grid of 16
LAYERS: dict[str, Any] = {
    "img_size": SIDE, "nf": 32, "ch_mult": [1, 2, 1], "res_blocks": 1, "attn_resolutions": [16], "emb_dim": 8,
    "codebook_size": 12,
}
PRIOR = UNetSettings(
    image_size=SIDE, model_channels=32, channel_mult=[1, 2], num_res_blocks=[1, 1], attention_resolutions=[32]
)
TRANSFER = SwinIRSettings(img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=4, sf=1, upsampler="")
TABLE = StartSteps(
    size=SIDE, statistic="share", share=0.9, tol=1e-3, images=1, spectrum=[1.0], stds=[0.1, 1.0], steps=[500, 700]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def add(folder: Path, name: str, file: Path, **more: Any) -> None:
    options: dict[str, Any] = {"size": None if folder.exists() else SIDE, **ABOUT, **more}
    add_to_pack(folder, name, file, **options)


def saved(path: Path, network: nn.Module, wrap: Callable[[dict[str, Tensor]], Any] = lambda state: state) -> Path:
    """A torch file, as the public ones are."""
    torch.save(wrap(network.state_dict()), path)
    return path


def ours(path: Path, network: nn.Module, architecture: str, settings: str) -> Path:
    """A file as `adapt pretrain` writes it."""
    write_state(path, network.state_dict(), {"architecture": architecture, "settings": settings})
    return path


# ---------------------------------------------------------------- what is entered


def test_public_files_in_every_wrapping_load_from_where_they_lie(tmp_path: Path, folder: Path) -> None:
    prior, swinir = UNet(PRIOR), lively_swinir()
    codeformer = lively_codeformer(CodeFormerSettings(**LAYERS, dim_embd=64, n_head=1, n_layers=1, connect_list=[32]))
    codebook = lively_vqgan(VQGANSettings(**LAYERS))
    add(folder, "prior", saved(tmp_path / "p.pth", prior, lambda s: {f"module.{k}": v for k, v in s.items()}))
    add(folder, "swinir", saved(tmp_path / "s.ckpt", swinir, lambda s: {"state_dict": s, "epoch": 3}))
    add(folder, "codeformer", saved(tmp_path / "c.pth", codeformer, lambda s: {"params_ema": s}))
    add(folder, "codebook", saved(tmp_path / "v.bin", codebook, lambda s: {"params_ema": s}))

    pack = load_pack(folder)
    assert pack.problems() == []
    assert (pack.card.name, pack.card.size, pack.card.restorer) == ("mine", SIDE, "swinir")
    assert [entry.architecture for entry in pack.card.networks.values()] == ["unet", "swinir", "codeformer", "vqgan"]
    entry = pack.network("codebook")
    assert (entry.licence, entry.source, entry.trained) == tuple(ABOUT.values())
    assert entry.files == {str(tmp_path.resolve() / "v.bin"): file_digest(tmp_path / "v.bin")}
    assert sorted(path.name for path in folder.iterdir()) == ["pack.yaml"]  # nothing was copied

    for loaded, network in (
        (load_prior(folder).network, prior),
        (load_restorer(folder).network, swinir),
        (load_restorer(f"{folder}/codeformer").network, codeformer),
        (load_codebook(folder), codebook),
    ):
        for key, value in network.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


def test_what_pretraining_makes_is_entered_as_well(tmp_path: Path, folder: Path) -> None:
    blur = BlurNetworkSettings(size=SIDE, transfer=TRANSFER, channels=[4, 4])
    adjuster = AdjusterNetworkSettings(features=4, model_channels=32)
    TABLE.save(tmp_path / "t.json")
    add(folder, "start-steps", tmp_path / "t.json")
    for name, network, settings in (
        ("blur-estimator", BlurNetwork(blur), blur),
        ("guidance-adjuster", GuidanceAdjuster(adjuster), adjuster),
    ):
        add(folder, name, ours(tmp_path / f"{name}.safetensors", network, name, settings.model_dump_json()))
    add(folder, "perceptual", EMBEDDED / "tiny" / "perceptual.safetensors")
    assert load_pack(folder).card.restorer == "swinir"  # until there is one
    assert load_start_steps(folder) == TABLE
    assert load_blur_estimator(folder).size == SIDE
    assert load_adjuster(folder).settings == adjuster
    assert load_distance(load_pack(folder)).name


def test_a_prior_is_for_faces_of_the_packs_size(tmp_path: Path, folder: Path) -> None:
    """Its file does not tell; by its levels alone it would be taken for one of 16 px."""
    add(folder, "prior", saved(tmp_path / "p.pth", UNet(PRIOR)))
    assert load_prior(tmp_path / "p.pth").size == 16
    prior = load_prior(folder)
    assert prior.settings == PRIOR


def test_a_file_inside_the_folder_moves_with_it(tmp_path: Path, folder: Path) -> None:
    (folder / "files").mkdir(parents=True)
    add(folder, "swinir", saved(folder / "files" / "s.pth", lively_swinir()), size=SIDE)
    assert list(load_pack(folder).network("swinir").files) == ["files/s.pth"]
    before = load_pack(folder).network_digest("swinir")
    folder.rename(tmp_path / "moved")
    assert load_restorer(tmp_path / "moved").architecture == "swinir"
    assert load_pack(tmp_path / "moved").network_digest("swinir") == before


def test_the_digest_is_of_the_weights_and_not_of_their_place(tmp_path: Path, folder: Path) -> None:
    file = saved(tmp_path / "s.pth", lively_swinir())
    add(folder, "swinir", file)
    one = load_pack(folder).network_digest("swinir")
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / file.name)
    with pytest.raises(WeightsError, match=r"s\.pth: no such weights file"):
        load_restorer(folder)
    add(folder, "swinir", moved, overwrite=True)
    assert load_pack(folder).network_digest("swinir") == one
    add(folder, "swinir", saved(moved, lively_swinir(seed=1)), overwrite=True)
    assert load_pack(folder).network_digest("swinir") != one


def test_a_link_keeps_its_own_name(tmp_path: Path, folder: Path) -> None:
    """As in the caches of model hubs, whose files are called by their digests."""
    blob = saved(tmp_path / "0123abcd", lively_swinir())
    (tmp_path / "s.pth").symlink_to(blob)
    add(folder, "swinir", tmp_path / "s.pth")
    assert [Path(file).name for file in load_pack(folder).network("swinir").files] == ["s.pth"]


def test_a_file_that_has_changed_is_refused(tmp_path: Path, folder: Path) -> None:
    file = saved(tmp_path / "s.pth", lively_swinir())
    add(folder, "swinir", file)
    saved(file, lively_swinir(seed=1))
    with pytest.raises(WeightsError, match=r"s\.pth: not the file that .*mine/pack\.yaml names"):
        load_restorer(folder)
    assert [problem.split(": ")[1][:15] for problem in load_pack(folder).problems()] == ["expected sha256"]


def test_no_file_of_another_digest_reaches_a_parser(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither torch's, nor that of safetensors, nor that of tables: what is not ours may be made to do harm."""
    add(folder, "swinir", saved(tmp_path / "s.pth", lively_swinir()))
    add(folder, "prior", ours(tmp_path / "p.safetensors", UNet(PRIOR), "unet", PRIOR.model_dump_json()))
    TABLE.save(tmp_path / "t.json")
    add(folder, "start-steps", tmp_path / "t.json")
    for name in ("s.pth", "p.safetensors", "t.json"):
        with (tmp_path / name).open("ab") as stream:
            stream.write(b" ")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a file of another digest was parsed")

    for parser in ("torch.load", "safetensors.torch.load", "safetensors.safe_open", "adapt.weights.parse_state",
                   "adapt.blur.start_steps.parse_start_steps", "adapt.blur.start_steps.load_start_steps_file"):
        monkeypatch.setattr(parser, never)
    for load, name in ((load_restorer, "s.pth"), (load_prior, "p.safetensors"), (load_start_steps, "t.json")):
        with pytest.raises(WeightsError, match=rf"{name}: not the file that .*pack\.yaml names; fetch it again$"):
            load(folder)


def test_what_is_parsed_are_the_bytes_of_the_digest(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is exchanged between the two: the card names what was looked at, and what is loaded is checked."""
    first, second = lively_swinir(), lively_swinir(seed=1)
    file, original = saved(tmp_path / "s.pth", first), weights.parse_state

    def exchanged(data: bytes, path: Path) -> Any:
        saved(file, second)
        return original(data, path)

    monkeypatch.setattr("adapt.commands.add_to_pack.parse_state", exchanged)
    digest = file_digest(file)
    add(folder, "swinir", file)
    assert list(load_pack(folder).card.networks["swinir"].files.values()) == [digest]
    saved(file, first)
    monkeypatch.setattr("adapt.weights.parse_state", exchanged)
    loaded = load_restorer(folder).network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in first.state_dict().items())


def test_the_first_restorer_restores_until_another_is_named(tmp_path: Path, folder: Path) -> None:
    file = saved(tmp_path / "s.pth", lively_swinir())
    add(folder, "prior", saved(tmp_path / "p.pth", UNet(PRIOR)))
    add(folder, "first", file)
    add(folder, "second", file, description="two of them")
    assert pack_restorer(folder)[1] == "first"
    add(folder, "third", file, restorer="second")
    card = load_pack(folder).card
    assert (card.restorer, card.description, list(card.networks)) == (
        "second", "two of them", ["prior", "first", "second", "third"]
    )
    for wrong in ("prior", "fourth"):
        with pytest.raises(UsageError, match=f"--restorer {wrong}: pack mine has the restorers first, second, third$"):
            add(folder, "third", file, restorer=wrong, overwrite=True)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prior", "x.pth: cannot be 'prior': not a U-Net in the public layout"),
        ("codebook", "x.pth: cannot be 'codebook': not a VQGAN in the public layout"),
        ("codeformer", "x.pth: cannot be 'codeformer': expected a codeformer, got a swinir"),
        ("blur-estimator", "x.pth: cannot be 'blur-estimator': expected a blur-estimator of ours, its header names"),
        ("guidance-adjuster", "x.pth: cannot be 'guidance-adjuster': not a guidance adjuster"),
        ("start-steps", "x.pth: cannot be 'start-steps': not a start-step table"),
        ("perceptual", "x.pth: cannot be 'perceptual': perceptual network: expected the settings"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, folder: Path, name: str, message: str) -> None:
    file = saved(tmp_path / "x.pth", lively_swinir())
    with pytest.raises(WeightsError) as caught:
        add(folder, name, file)
    assert str(caught.value).startswith(str(tmp_path / message))
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def bomb() -> str:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    return "\n".join(lines + [f"{n}: &{n} [{','.join(f'*{o}' for _ in range(9))}]" for o, n in zip("abcd", "bcde")])  # noqa: B905


@pytest.mark.parametrize(("card", "message"), [
    (bomb(), "holds more than 20000 values, with what its aliases stand for; write out what is meant"),
    (f"name: a\nsize: {'9' * 5000}\n", "size: a whole number of 5000 signs is too large"),
    ("name: [\n", "not YAML: "),
    ("name: a\nsize: 3\n", "description: Field required (and 2 more)"),
    ("name: \xff\n", "expected UTF-8 text; byte 7 is none"),
], ids=["bomb", "number", "text", "lacking", "bytes"])
def test_a_card_that_cannot_be_read_is_one_line(
    tmp_path: Path, card: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pack.yaml").write_bytes(card.encode("latin-1"))
    assert adapt(monkeypatch, "packs", "verify", tmp_path) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"adapt: {tmp_path / 'pack.yaml'}")
    assert "not a pack card: " in said
    assert message in said


def test_a_card_reads_back_as_it_was_written(tmp_path: Path, folder: Path) -> None:
    """Words that YAML 1.1 or 1.2 would take for numbers, and signs of any language, as they are."""
    add_table_to(tmp_path, folder, licence="12e5", source="1_000", trained="zwölf → 0o17")
    entry = load_pack(folder).card.networks["start-steps"]
    assert (entry.licence, entry.source, entry.trained) == ("12e5", "1_000", "zwölf → 0o17")
    assert "zwölf →" in (folder / "pack.yaml").read_text(encoding="utf-8")


def add_table_to(tmp_path: Path, folder: Path, **words: str) -> None:
    TABLE.save(tmp_path / "table.json")
    add_to_pack(folder, "start-steps", tmp_path / "table.json", size=SIDE, **{**ABOUT, **words})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("header", [
    "{", "[]" * 3, "[1]", '{"a": ' + "9" * 5000 + "}", "[" * 100_000, '{"no such setting": 1}',
], ids=["cut", "two", "list", "number", "nested", "other"])
@pytest.mark.parametrize("name", ["prior", "perceptual", "codebook", "blur-estimator", "guidance-adjuster", "swinir"])
def test_a_header_that_says_nothing_of_use_is_one_line(tmp_path: Path, name: str, header: str) -> None:
    """By what loads it from a file or a pack's, and as an entry of a pack."""
    loaders = {"prior": load_prior, "codebook": load_codebook, "blur-estimator": load_blur_estimator,
               "guidance-adjuster": load_adjuster, "swinir": load_restorer}
    architecture = {"prior": "unet", "codebook": "vqgan"}.get(name, name)
    file = tmp_path / "x.safetensors"
    write_state(file, {"a": torch.zeros(1)}, {"architecture": architecture, "settings": header})
    if name in loaders:
        with pytest.raises(WeightsError) as caught:
            loaders[name](file)
        assert str(caught.value).startswith(f"{file}: not the layout of a ")
        assert "\n" not in str(caught.value)
    with pytest.raises((WeightsError, UsageError)) as caught:
        add_to_pack(tmp_path / "pack", name, file, size=SIDE, **ABOUT)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_size_in_a_header_that_is_none_is_one_line(tmp_path: Path) -> None:
    network = lively_swinir(TRANSFER)
    for size in ("", "0", "-3", "3.5", "9" * 5000):
        header = {"architecture": "swinir", "settings": TRANSFER.model_dump_json(), "face_size": size}
        write_state(tmp_path / "x.safetensors", network.state_dict(), header)
        with pytest.raises(WeightsError, match=r"expected a number of pixels$"):
            load_restorer(tmp_path / "x.safetensors")


def test_a_header_of_another_network_is_named(tmp_path: Path, folder: Path) -> None:
    file = ours(tmp_path / "x.safetensors", UNet(PRIOR), "unet", PRIOR.model_dump_json())
    with pytest.raises(WeightsError, match=r"expected a guidance-adjuster, its header names a unet$"):
        add(folder, "guidance-adjuster", file)
    broken = ours(tmp_path / "y.safetensors", UNet(PRIOR), "unet", '{"channels": 3}')
    with pytest.raises(WeightsError, match=r"cannot be .prior.: not the layout of a prior \(image_size: "):
        add(folder, "prior", broken)


def test_faces_of_another_size_are_refused(tmp_path: Path, folder: Path) -> None:
    codeformer = saved(tmp_path / "c.pth", lively_codeformer(SMALL_CODEFORMER))
    TABLE.save(tmp_path / "t.json")
    with pytest.raises(WeightsError, match=r"cannot be 'codeformer': it is for faces of 16 px, the pack's have 64$"):
        add(folder, "codeformer", codeformer)
    with pytest.raises(WeightsError, match=r"cannot be 'start-steps': it is for faces of 64 px, the pack's have 512$"):
        add(folder, "start-steps", tmp_path / "t.json", size=512)


def test_what_does_not_fit_the_pack_is_refused(tmp_path: Path, folder: Path) -> None:
    file = saved(tmp_path / "s.pth", lively_swinir())
    with pytest.raises(UsageError, match="mine: no pack yet; say with --size"):
        add(folder, "swinir", file, size=None)
    add(folder, "swinir", file)
    card = (folder / "pack.yaml").read_bytes()
    for name, more, message in (
        ("swinir", {}, "pack mine: has 'swinir' already; give --overwrite"),
        ("other", {"size": 512}, "--size 512: pack mine is for faces of 64 px"),
        ("a/b", {}, "'a/b': expected a name of letters"),
        ("b.pth", {}, "'b.pth': expected a name of letters"),
        ("other", {"architecture": "codeformer"}, "cannot be 'other': expected a codeformer, got a swinir"),
    ):
        with pytest.raises((UsageError, WeightsError), match=message):
            add(folder, name, file, **more)
    with pytest.raises(WeightsError, match=r"none\.pth: cannot be 'other': no such weights file"):
        add(folder, "other", tmp_path / "none.pth")
    assert (folder / "pack.yaml").read_bytes() == card


def test_folders_that_mean_something_else_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "s.pth", lively_swinir())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="tiny: is a pack that ships"):
        add(Path("tiny"), "swinir", file)
    with pytest.raises(UsageError, match=r"s\.pth: expected the folder of a pack, this is a file"):
        add(file, "swinir", file)
    (tmp_path / "run").mkdir()
    shutil.copy(file, tmp_path / "run" / "weights.safetensors")
    with pytest.raises(UsageError, match=r"run: holds weights\.safetensors, so it is taken for a run"):
        add(Path("run"), "swinir", file)


def test_the_command(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path / "p.pth", UNet(PRIOR))
    command = ["packs", "add", folder, "prior", file, "--licence", "L", "--source", "S", "--trained", "T"]
    assert adapt(monkeypatch, *command) == 2
    assert "say with --size" in capsys.readouterr().err
    assert adapt(monkeypatch, *command, "--size", SIDE, "--description", "of mine") == 0
    count = sum(parameter.numel() for parameter in UNet(PRIOR).parameters())
    assert f"prior is a unet of {count:,} parameters, {file}" in capsys.readouterr().out
    assert adapt(monkeypatch, "packs", "verify", folder) == 0
    assert adapt(monkeypatch, "packs", "show", folder) == 0
    card = yaml.safe_load(capsys.readouterr().out.partition("\n")[2])
    assert (card["description"], card["networks"]["prior"]["licence"]) == ("of mine", "L")
    assert adapt(monkeypatch, *command[:3], "swinir", *command[4:]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_one_command_at_a_time_writes_a_card(tmp_path: Path, folder: Path) -> None:
    file = saved(tmp_path / "p.pth", UNet(PRIOR))
    with locked(folder), pytest.raises(UsageError, match="another command works in this folder"):
        add(folder, "prior", file, size=SIDE)
    add(folder, "prior", file, size=SIDE)
    state = UNet(PRIOR).state_dict()
    with locked(folder), pytest.raises(UsageError, match="another command works in this folder"):
        add_network(folder, "other", state, header={}, entry={})
    assert [*load_pack(folder).card.networks] == ["prior"]


# ---------------------------------------------------------------- whose recipes it takes


def test_every_pack_of_ours_lends_its_recipes() -> None:
    assert {load_pack(name).card.size: name for name in known_packs()}.items() <= SIZED.items()
    assert {"tiny", *APART} == {*SIZED.values()}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package beside this one that says it has a pack `beside`, without a card so far."""
    site, package = tmp_path / "site", tmp_path / "site" / "pack_beside"
    about = site / "pack_beside-1.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('nothing of it is run')")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pack-beside\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[adapt.packs]\nbeside = pack_beside\ntiny = pack_beside\n")
    monkeypatch.syspath_prepend(str(site))
    return package


def test_an_installed_pack_is_known_by_name(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that ships is, once it has its card; and it cannot take that one's name."""
    assert "beside" not in known_packs()
    shutil.copytree(EMBEDDED / "tiny", installed, dirs_exist_ok=True)
    card = installed / "pack.yaml"
    card.write_text(card.read_text().replace("name: tiny", "name: beside"))
    assert load_pack("beside").folder == installed
    assert load_restorer("beside/swinir").name == "beside/swinir"
    assert load_pack("tiny").folder == EMBEDDED / "tiny"
    assert adapt(monkeypatch, "packs", "list") == 0
    assert capsys.readouterr().out.startswith("beside  128 px")
    with pytest.raises(UsageError, match="is a pack that ships"):
        add(Path("beside"), "prior", card)


def nothing_installed(group: str) -> list[Any]:
    """No entry points, whatever is installed where the tests run."""
    return []


@pytest.mark.parametrize("ask", [load_pack, load_restorer])
def test_what_is_a_package_of_its_own_is_said(ask: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapt.packs.pack.entry_points", nothing_installed)
    with pytest.raises(UsageError, match="pip install adapt-bfr-small"):
        ask("small")


@pytest.mark.parametrize(("size", "expected"), [(128, "tiny/targets"), (512, "targets"), (64, "targets")])
def test_a_folder_takes_the_recipes_for_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, expected: str
) -> None:
    (tmp_path / "mine" / "targets").mkdir(parents=True)
    (tmp_path / "mine" / "targets" / "adaptive.yaml").write_text("kind: targets\n")  # is of no account
    (tmp_path / "mine" / "pack.yaml").write_text(f"name: mine\nsize: {size}\n")
    monkeypatch.chdir(tmp_path)
    for pack in (str(tmp_path / "mine"), "mine", "mine/pack.yaml"):
        assert find_recipe("adaptive", "targets", pack) == recipes_folder() / expected / "adaptive.yaml"


def test_what_is_no_pack_takes_the_recipes_for_512_px(tmp_path: Path) -> None:
    (tmp_path / "prior.pth").touch()
    for pack in (str(tmp_path / "prior.pth"), str(tmp_path / "none"), None):
        assert find_recipe("adaptive", "targets", pack) == recipes_folder() / "targets" / "adaptive.yaml"
    assert find_recipe("adaptive", "targets", "tiny") == recipes_folder() / "tiny" / "targets" / "adaptive.yaml"


@pytest.mark.parametrize("text", [b"", b"garbage", b"name: \xff", b"\0\0", b"name: [", b"\xff\xfe"])
def test_a_damaged_card_is_named_in_one_line(text: bytes, small_pack: Path, tmp_path: Path):
    folder = Path(shutil.copytree(small_pack, tmp_path / "pack"))
    good = (folder / "pack.yaml").read_bytes()
    (folder / "pack.yaml").write_bytes(text)
    with pytest.raises(WeightsError, match=r"pack\.yaml: not a pack card: .*; mend it, or put it back") as caught:
        load_pack(folder)
    assert "\n" not in str(caught.value)
    (folder / "pack.yaml").write_bytes(b"\xef\xbb\xbf" + good)
    assert load_pack(folder).card.name == "small"
