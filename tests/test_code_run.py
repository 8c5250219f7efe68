"""The whole way with a CodeFormer: `adapt run --recipe codeformer` on a pack with codes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import adapt, export_adapted
from networks import SMALL_CODEFORMER, lively_codeformer, lively_vqgan
from torch import nn

from adapt.commands.finetune import finetune
from adapt.commands.finetune_setup import set_up_finetune
from adapt.commands.generate_targets import generate_targets
from adapt.errors import UsageError
from adapt.exporting import bundle
from adapt.exporting.verify import Parity, smooth_images
from adapt.loading import load_restorer
from adapt.packs.pack import add_network
from adapt.photos.files import read_image, write_image
from adapt.restorers.codeformer import PARTS
from adapt.settings import CodeFormerSettings, VQGANSettings
from adapt.weights import read_state

QUICK_TARGETS = ["guidance.0.factor=4", "steps=2", "draws=1", "gate.max_low_frequency_change=1", "gate.min_contrast=0"]
QUICK_FINETUNE = ["steps=4", "batch=2", "evaluate_every=2", "learning_rate=1e-3"]
ABOUT = {"licence": "none", "source": "a test", "trained": "not at all"}


def add_codes(pack: Path, settings: CodeFormerSettings = SMALL_CODEFORMER) -> None:
    """Enter a codebook and a CodeFormer with the same codes."""
    codeformer = lively_codeformer(settings)
    layout = VQGANSettings(**settings.model_dump(include=set(VQGANSettings.model_fields)))
    codebook = lively_vqgan(layout, seed=1)
    codebook.quantize.load_state_dict(codeformer.quantize.state_dict())
    for name, architecture, network, own in (
        ("codebook", "vqgan", codebook, layout), ("codeformer", "codeformer", codeformer, settings),
    ):
        header = {"architecture": architecture, "settings": own.model_dump_json()}
        entry = {"architecture": architecture, **ABOUT}
        add_network(pack, name, network.state_dict(), header=header, entry=entry)


@pytest.fixture(scope="module")
def code_pack(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(small_pack, tmp_path_factory.mktemp("packs") / "codes"))
    add_codes(folder)
    return folder


def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the seconds of the exporter: what it writes for a CodeFormer is validation in test_fidelity.py."""

    def stub(network: nn.Module, path: Path, *, multiple: int, side: int | None, fidelity: bool) -> None:
        assert (side, fidelity) == (16, True)
        path.write_bytes(b"no model")

    monkeypatch.setattr(bundle, "export_onnx", stub)
    monkeypatch.setattr(bundle, "verify", lambda *_, **__: [Parity((1, 3, 16, 16), 0.0, 0.0, 0.5)])


def test_run_starts_from_the_packs_codeformer(
    code_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(small_photos, photos)
    write_image(photos / "large.png", smooth_images((1, 24, 24), seed=5)[0])
    quickly(monkeypatch)
    export_adapted(monkeypatch)
    arguments = [
        "run", photos, "-o", out, "--recipe", "codeformer", "--method", "low-frequency", "--pack", code_pack,
        "--device", "cpu", *[f"targets.{each}" for each in QUICK_TARGETS],
        *[f"finetune.{each}" for each in QUICK_FINETUNE],
    ]
    assert adapt(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "1 photo was resized to the model's size" in printed
    assert "Warning" not in printed, "seven photos are few, but a CodeFormer learns which codes to choose"
    page = (out / "report.html").read_text()
    assert "codeformer" in page
    assert "1 of the photographs are of another size; they were resized to 16 px first" in page

    start = load_restorer(f"{code_pack}/codeformer")
    photo = read_image(photos / "a.png")[None]
    torch.testing.assert_close(read_image(out / "base" / "a.png")[None], start(photo), rtol=0, atol=0.51 / 255)
    adapted = load_restorer(out / "finetune")
    assert adapted.architecture == "codeformer"
    torch.testing.assert_close(read_image(out / "restored" / "a.png")[None], adapted(photo), rtol=0, atol=0.51 / 255)
    about = json.loads((out / "bundle" / "bundle.json").read_text())
    assert (about["architecture"], about["source"]["started from"]) == ("codeformer", f"{code_pack}/codeformer")
    assert about["fidelity"]["default"] == 0.5

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert adapt(monkeypatch, *arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is made twice"

    # At another fidelity: what depends on it is made anew, before and after alike; targets and weights are kept.
    kept = [out / "finetune" / "best.safetensors", *(out / "targets").rglob("*.png"), *(out / "photos").rglob("*.png")]
    times = [path.stat().st_mtime_ns for path in kept]
    assert adapt(monkeypatch, *arguments, "--fidelity", 0.125) == 0
    assert [path.stat().st_mtime_ns for path in kept] == times
    for name, model in (("base", start), ("restored", adapted)):
        assert (model(photo, 0.125) - model(photo)).abs().max() > 2 / 255, "else this shows nothing"
        got = read_image(out / name / "a.png")[None]
        torch.testing.assert_close(got, model(photo, 0.125), rtol=0, atol=0.51 / 255)
    assert json.loads((out / "bundle" / "bundle.json").read_text())["fidelity"]["default"] == 0.125
    assert "restored at fidelity 0.125" in (out / "report.html").read_text()


def test_run_with_few_photos_warns_on_screen_and_on_the_page(
    code_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """The recipe of images begins with the pack's own restorer, whatever else the pack has."""
    from adapt.commands import run

    monkeypatch.setattr(run, "export_choice", lambda out, *_, **__: out / "model.onnx")
    arguments = [
        "run", small_photos, "-o", tmp_path / "out", "--method", "low-frequency", "--pack", code_pack,
        "--device", "cpu", *[f"targets.{each}" for each in QUICK_TARGETS],
        *[f"finetune.{each}" for each in QUICK_FINETUNE],
        "finetune.discriminator.features=4",
    ]
    assert adapt(monkeypatch, *arguments) == 0
    warning = "Only 6 photos: a restorer that learns from images can over-fit so few"
    assert f"\nWarning: {warning}" in capsys.readouterr().out
    assert warning in (tmp_path / "out" / "report.html").read_text()
    assert load_restorer(tmp_path / "out" / "finetune").architecture == "swinir"


def test_what_is_missing_is_said_before_any_work(
    code_pack: Path, small_pack: Path, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    command = ["run", small_photos, "-o", out, "--recipe", "codeformer", "--method", "low-frequency", "--device", "cpu"]
    mistakes = [
        (["--pack", small_pack], "has no codeformer, which recipe codeformer starts from (it has prior, swinir,"),
        (["--pack", small_pack, "--restorer", f"{code_pack}/codeformer"], "has no codebook to give the codes of"),
        (["--pack", code_pack, "--restorer", f"{code_pack}/swinir"], "a swinir predicts no codes (it has no quantize"),
        (["--pack", code_pack, "finetune.tokn=1"], "did you mean 'token'?"),
        (["--pack", code_pack, "finetune.replay.share=0.5"], "name their folder with --replay FACES"),
        (["--pack", code_pack, "finetune.teacher=no-such-pack"], "no pack 'no-such-pack'"),
    ]
    for options, message in mistakes:
        assert adapt(monkeypatch, *command, *options) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_a_codeformer_of_another_size_than_the_prior_is_refused(
    small_pack: Path, small_photos: Path, tmp_path: Path
):
    large = SMALL_CODEFORMER.model_copy(update={"img_size": 32, "connect_list": [16], "attn_resolutions": [8]})
    pack = Path(shutil.copytree(small_pack, tmp_path / "pack"))
    add_codes(pack, large)
    with pytest.raises(UsageError, match=r"codeformer: takes faces of 32 px only, and those of pack .* have 16 px"):
        generate_targets(
            small_photos, tmp_path / "t", pack=str(pack), restorer=f"{pack}/codeformer", method="low-frequency",
            device="cpu",
        )


def test_the_restorer_that_is_named_goes_first(code_pack: Path, small_pack: Path):
    named = set_up_finetune("codeformer", pack=str(code_pack), restorer=f"{code_pack}/codeformer")
    own = set_up_finetune("codeformer", pack=str(code_pack))
    assert own.name == named.name == f"{code_pack}/codeformer"
    assert set_up_finetune("swinir", pack=str(code_pack)).name == f"{code_pack}/swinir"
    own_teacher = ["teacher=restorer"]
    begun = set_up_finetune(
        "codeformer", pack=str(small_pack), restorer=f"{code_pack}/codeformer", overrides=own_teacher
    )
    assert begun.restorer.architecture == "codeformer"


def test_twenty_photos_adapt_a_codeformer(code_pack: Path, tmp_path: Path):
    """Four are held back and choose; codebook, generator and fusion, which hold what faces look like, stay bitwise."""
    photos, targets = tmp_path / "photos", tmp_path / "targets"
    clean = smooth_images((20, 16, 16), seed=11)
    for index, image in enumerate(clean):
        write_image(targets / f"{index:02}.png", image)
        write_image(photos / f"{index:02}.png", image.mean((1, 2), keepdim=True) * 0.6 + image * 0.3)
    outcome = finetune(
        photos, targets, tmp_path / "run", pack=str(code_pack), recipe="codeformer",
        overrides=["steps=40", "batch=4", "evaluate_every=10", "learning_rate=1e-3", "ema=0.9"],
    )
    assert (outcome.trained, outcome.validation, outcome.warning) == (16, 4, "")
    assert outcome.improved
    assert outcome.best["total"] < 0.97 * outcome.base["total"]
    before = load_restorer(f"{code_pack}/codeformer").network.state_dict()
    after, _ = read_state(tmp_path / "run" / "best.safetensors")
    for part, prefixes in PARTS.items():
        names = [name for name in before if name.startswith(prefixes)]
        same = [torch.equal(before[name], after[name]) for name in names]
        assert all(same) if part in ("codebook", "generator", "fusion") else not all(same), part
