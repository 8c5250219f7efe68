"""Which perceptual distance a training has: the one that its recipe names, on every machine, and it is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from command_line import adapt
from torch import nn

from adapt.commands.export import export
from adapt.commands.finetune import finetune
from adapt.errors import UsageError, WeightsError
from adapt.loading import load_distance, load_texture_distance
from adapt.packs.pack import load_pack
from adapt.perceptual.distance import PerceptualDistance
from adapt.settings.recipe import list_recipes
from adapt.training.run import distance_of

ROOT = Path(__file__).resolve().parents[1]
PRETRAINING = """
kind: pretrain-restorer
steps: 4
batch: 2
size: 16
learning_rate: 1e-3
perceptual: 0.5
save_every: 1
network: {img_size: 16, embed_dim: 12, depths: [2], num_heads: [2], window_size: 4, sf: 1, upsampler: ""}
"""


class Squared(nn.Module):
    """Stands for a network of which only its name and digest matter."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().flatten(1).mean(1)


@pytest.fixture
def vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with VGG's weights in its cache."""
    lpips, dists = PerceptualDistance("lpips", "f" * 64, Squared()), PerceptualDistance("dists", "d" * 64, Squared())
    monkeypatch.setattr("adapt.perceptual.distance.find_lpips", lambda: lpips)
    monkeypatch.setattr("adapt.perceptual.dists.find_dists", lambda: dists)


@pytest.fixture
def no_vgg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))


def tune(photos: Path, out: Path, pack: Path, *more: str) -> None:
    finetune(
        photos, photos, out, pack=str(pack), max_steps=1, device="cpu",
        overrides=["steps=2", "batch=2", "discriminator.features=4", "evaluate_every=1", *more],
    )


@pytest.mark.parametrize("choice", ["pack", "lpips", "dists", "auto"])
def test_a_choice_is_kept_where_the_machine_has_both(choice: str, small_pack: Path, vgg: None):
    load = load_texture_distance if choice == "dists" else load_distance
    expected = {"pack": "tiny-perceptual", "auto": "lpips"}.get(choice, choice)
    assert load(load_pack(small_pack), choice).name == expected  # pyright: ignore[reportArgumentType]


def test_what_is_not_there_is_said_and_nothing_stands_in_for_it(small_pack: Path, no_vgg: None, tmp_path: Path):
    pack = load_pack(small_pack)
    assert load_distance(pack, "auto").name == load_texture_distance(pack, "auto").name == "tiny-perceptual"
    place = tmp_path / "empty" / "hub" / "checkpoints" / "vgg16-397923af.pth"
    for load, choice in ((load_distance, "lpips"), (load_texture_distance, "dists")):
        with pytest.raises(WeightsError, match=rf"^distance: {choice}: .* put torchvision's file at {place}, or say"):
            load(pack, choice)  # pyright: ignore[reportArgumentType]


def test_a_fine_tuning_does_not_depend_on_what_the_machine_has_in_its_cache(
    small_photos: Path, small_pack: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    tune(small_photos, tmp_path / "run", small_pack, "distance=pack")
    told = json.loads((tmp_path / "run" / "run.json").read_text())["distance"]
    assert told == load_distance(load_pack(small_pack), "pack").about
    request.getfixturevalue("vgg")
    tune(small_photos, tmp_path / "run", small_pack, "distance=pack")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["distance"] == told


def test_a_fine_tuning_does_not_go_on_with_another_distance(
    small_photos: Path, small_pack: Path, tmp_path: Path, no_vgg: None, request: pytest.FixtureRequest
):
    """As where VGG's weights came into the cache in between: it is said, and what is written names the distance."""
    run = tmp_path / "run"
    tune(small_photos, run, small_pack, "distance=auto")
    ours = load_distance(load_pack(small_pack), "pack")
    told = f"tiny-perceptual (weights {ours.digest[:12]})"
    assert distance_of(run) == told
    request.getfixturevalue("vgg")
    with pytest.raises(UsageError) as caught:
        tune(small_photos, run, small_pack, "distance=auto")
    assert str(caught.value) == (
        f"{run}: was trained with the perceptual distance {told}, and would go on with lpips (weights ffffffffffff);"
        " say `distance` as it was, choose another folder, or --overwrite to start anew"
    )
    bundle = export(run, tmp_path / "bundle")
    assert f"- perceptual distance of the training: {told}" in (bundle / "README.md").read_text(encoding="utf-8")


def test_a_pretraining_does_not_go_on_with_another_distance(
    small_photos: Path, small_pack: Path, tmp_path: Path, no_vgg: None, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(PRETRAINING + "distance: auto\n")
    command = ["pretrain", "--recipe", recipe, "--faces", small_photos, "-o", tmp_path / "run", "--pack", small_pack,
               "--max-steps", 1]
    assert adapt(monkeypatch, *command) == 0
    assert str(distance_of(tmp_path / "run")).startswith("tiny-perceptual (weights ")
    request.getfixturevalue("vgg")
    capsys.readouterr()
    assert adapt(monkeypatch, *command) == 2
    assert "and would go on with lpips (weights ffffffffffff); say `distance` as it was" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_a_weight_that_ships_says_which_distance_it_is_for(recipe):
    values = yaml.safe_load(recipe.path.read_text(encoding="utf-8"))
    if values.get("perceptual"):
        assert values["distance"] == ("pack" if recipe.name.startswith(("tiny/", "small/")) else "auto")


def test_a_pack_without_a_distance_is_one_line(tmp_path: Path):
    (tmp_path / "pack.yaml").write_text("name: p\nsize: 16\ndescription: d\nrestorer: swinir\nnetworks: {}\n")
    with pytest.raises(WeightsError, match=r"^pack p: has no 'perceptual'; .* say distance=auto$"):
        load_distance(load_pack(tmp_path), "pack")
