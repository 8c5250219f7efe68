"""Pre-training: losses against closed forms, exact resume, and who of several processes writes."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from command_line import adapt
from networks import gradient_norms, on_cpu

from adapt.commands.pretrain import pretrain
from adapt.commands.trainings import TRAININGS
from adapt.diffusion.schedule import linear_schedule
from adapt.disk import read_json_lines
from adapt.errors import UsageError
from adapt.packs.pack import SHARD_BYTES, add_network, load_pack
from adapt.pretraining.faces import load_faces
from adapt.pretraining.prior import min_snr_weight, normal_kl, prior_losses, train_prior
from adapt.pretraining.restorer import new_swinir, train_restorer
from adapt.settings import PriorPhase, PriorSettings, RestorerSettings, StartStepsSettings, SwinIRSettings, UNetSettings
from adapt.settings.recipe import KINDS
from adapt.training.context import TrainingContext
from adapt.training.loop import StepContext
from adapt.training.rates import cosine, trapezoid
from adapt.training.run import Run
from adapt.training.sampling import batch_indices, step_generator
from adapt.weights import read_state

PRIOR = PriorSettings(
    network=UNetSettings(
        image_size=16, model_channels=32, channel_mult=[1, 2], num_res_blocks=[0, 1], attention_resolutions=[]
    ),
    phases=[PriorPhase(steps=2, size=8, batch=3), PriorPhase(steps=2, size=16, batch=2)],
    warmup=1,
)
RESTORER = RestorerSettings(
    network=SwinIRSettings(
        img_size=4, embed_dim=12, depths=[2], num_heads=[2], window_size=4, sf=4, num_feat=8, unshuffle=True,
        unshuffle_scale=4,
    ),
    steps=4, batch=2, size=16, learning_rate=1e-3,
)


def faces(count: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def train_swinir(settings: RestorerSettings, images: torch.Tensor, context: TrainingContext) -> dict[str, torch.Tensor]:
    return train_restorer(new_swinir(settings), settings, images, context)[0]


@pytest.mark.parametrize(("train", "settings"), [(train_prior, PRIOR), (train_swinir, RESTORER)])
def test_stop_and_resume_is_exact(train, settings, tmp_path: Path):
    with Run(tmp_path / "whole", recipe="", digest="x") as run:
        whole = train(settings, faces(), on_cpu(run))
    parts: dict[str, torch.Tensor] = {}
    for _ in range(4):
        with Run(tmp_path / "parts", recipe="", digest="x") as run:
            parts = train(settings, faces(), on_cpu(run, max_steps=1))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert (tmp_path / "whole" / "log.jsonl").read_text() == (tmp_path / "parts" / "log.jsonl").read_text()


def test_gradients_are_clipped(tmp_path: Path):
    """To a norm of 1, however large the loss."""
    with Run(tmp_path, recipe="", digest="x") as run, gradient_norms() as norms:
        train_swinir(RESTORER.model_copy(update={"l1": 1000.0}), faces(), on_cpu(run))
    assert norms == pytest.approx([1.0] * RESTORER.steps, abs=1e-4)


def test_processes_share_the_faces():
    """Two of them have different ones in each step, and in two steps every face once."""
    shown = faces(8)
    settings = RESTORER.model_copy(update={"batch": 2})
    steps = [
        StepContext(index, index, rank, 2, torch.device("cpu"), step_generator(0, index, rank))
        for index in range(2)
        for rank in range(2)
    ]
    seen = torch.cat([step.batch(shown, settings) for step in steps]).flatten(1).tolist()
    assert sorted(seen) == sorted(shown.flatten(1).tolist())


RECIPES = {
    "prior": """kind: pretrain-prior
network: {image_size: 16, model_channels: 32, channel_mult: [1, 2], num_res_blocks: [0, 1], attention_resolutions: []}
phases: [{steps: 12, size: 16, batch: 1}]
""",
    "restorer": """kind: pretrain-restorer
network: {img_size: 4, embed_dim: 12, depths: [2], num_heads: [2], window_size: 4, sf: 4, num_feat: 8,
  unshuffle: true, unshuffle_scale: 4}
steps: 12
batch: 1
size: 16
learning_rate: 1.0e-3
""",
    "perceptual": """kind: pretrain-perceptual
channels: [8, 8]
steps: 12
batch: 2
size: 16
learning_rate: 1.0e-3
""",
}


def test_every_kind_of_pretrain_recipe_has_its_training():
    kinds = {schema for kind, schema in KINDS.items() if kind.startswith("pretrain-")}
    assert kinds == {*TRAININGS, StartStepsSettings}


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_shows_its_progress_and_enters_the_network_once_it_is_trained(
    name: str, small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    recipe, pack = tmp_path / "mine.yaml", tmp_path / "pack"
    recipe.write_text(RECIPES[name])
    pack.mkdir()
    (pack / "pack.yaml").write_text("name: p\nsize: 16\ndescription: d\nrestorer: swinir\nnetworks: {}\n")
    command = [
        "pretrain", "--recipe", recipe, "--faces", small_photos, "-o", tmp_path / "run", "--pack", small_pack,
        "--add-to", pack, "--licence", "some terms",
    ]
    assert adapt(monkeypatch, *command, "--max-steps", 5) == 0
    assert "Stopped at step 5 of 12; no weights are written before the end.\nTo go on" in capsys.readouterr().out
    assert load_pack(pack).card.networks == {}
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert adapt(monkeypatch, *command) == 0
    printed = capsys.readouterr()
    assert "mine: 12/12" in printed.err
    assert printed.out == f"Weights: {tmp_path / 'run' / 'weights.safetensors'}\n"
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    network = {"restorer": "swinir"}.get(name, name)
    entered, _ = load_pack(pack).read(network)
    assert load_pack(pack).card.networks[network].licence == "some terms"
    written, metadata = read_state(tmp_path / "run" / "weights.safetensors")
    assert metadata["architecture"] == load_pack(pack).card.networks[network].architecture
    assert all(torch.equal(entered[key].half(), value.half()) for key, value in written.items())


def write_pack(folder: Path, size: int, licences: dict[str, str]) -> Path:
    """A pack whose card names files that nobody opens."""
    entry = {"architecture": "a", "files": {"f": "0" * 64}, "source": "s", "trained": "t"}
    networks = {name: {**entry, "licence": licence} for name, licence in licences.items()}
    folder.mkdir()
    card = {"name": "p", "size": size, "description": "d", "restorer": "swinir", "networks": networks}
    (folder / "pack.yaml").write_text(yaml.safe_dump(card))
    return folder


TABLE = "kind: pretrain-start-steps\nsize: 16\ntol: 0.05\n"


def test_a_network_has_the_licence_that_the_packs_other_entries_share(
    small_photos: Path, small_pack: Path, tmp_path: Path
):
    recipe, run = tmp_path / "mine.yaml", tmp_path / "run"
    recipe.write_text(TABLE)

    def entered(pack: Path, licence: str | None = None) -> str:
        pretrain(str(recipe), small_photos, run, pack=str(small_pack), add_to=pack, licence=licence)
        return load_pack(pack).card.networks["start-steps"].licence

    # Face networks do not count, whatever their terms: nothing that is trained begins from one.
    of_others = {
        "recogniser": "CC0-1.0", "landmarks": "MIT", "detector": "MIT", "detector-tiny": "MIT",
    }  # fmt: skip
    entries = {"prior": "L", "swinir": "L", "start-steps": "of the one before", **of_others}
    agreed = write_pack(tmp_path / "agreed", 16, entries)
    assert entered(agreed) == "L"
    assert entered(agreed, "M") == "M"
    divided = write_pack(tmp_path / "divided", 16, {"prior": "L", "swinir": "M"})
    alone = write_pack(tmp_path / "alone", 16, {"start-steps": "L"})
    shutil.rmtree(run)
    for pack, found in ((divided, "2 licences"), (alone, "no licence")):
        card = (pack / "pack.yaml").read_bytes()
        with pytest.raises(UsageError, match=f"^pack p: its other entries have {found}; say with --licence what the"):
            entered(pack)
        assert (pack / "pack.yaml").read_bytes() == card
        assert not run.exists(), "refused before anything is begun"
        assert entered(pack, "N") == "N"
        shutil.rmtree(run)


def test_words_for_a_card_without_a_pack_are_refused_before_anything_is_begun(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    recipe, run = tmp_path / "mine.yaml", tmp_path / "run"
    recipe.write_text(RECIPES["restorer"])
    command = ["pretrain", "--recipe", recipe, "--faces", small_photos, "-o", run, "--pack", small_pack]
    for options, named in (
        (["--licence", "some terms"], "--licence 'some terms'"),
        (["--trained", "on faces"], "--trained 'on faces'"),
        (["--licence", "L", "--trained", "T"], "--licence 'L' and --trained 'T'"),
    ):
        assert adapt(monkeypatch, *command, *options) == 2
        error = f"adapt: {named}: goes into the card of a pack, and none is named; name its folder with --add-to, or"
        assert capsys.readouterr().err.startswith(error)
    assert not run.exists()


def test_a_table_has_no_steps_to_stop_after(small_photos: Path, small_pack: Path, tmp_path: Path):
    recipe, run = tmp_path / "mine.yaml", tmp_path / "run"
    recipe.write_text(TABLE)
    with pytest.raises(UsageError, match=r"mine\.yaml: builds a table, in one go; leave out --max-steps 3"):
        pretrain(str(recipe), small_photos, run, pack=str(small_pack), max_steps=3)
    assert not run.exists()


def test_a_pack_for_faces_of_another_size_is_refused_before_the_training(
    small_photos: Path, small_pack: Path, tmp_path: Path
):
    recipe, run = tmp_path / "mine.yaml", tmp_path / "run"
    pack = write_pack(tmp_path / "pack", 32, {"prior": "L"})
    other_layout = RECIPES["prior"].replace("image_size: 16", "image_size: 32")
    other_phase = RECIPES["prior"].replace("size: 16, batch", "size: 32, batch")
    for text in (RECIPES["restorer"], RECIPES["prior"], other_layout, other_phase, TABLE):
        recipe.write_text(text)
        with pytest.raises(UsageError, match=r"mine\.yaml: is for faces of 16 px, those of pack p have 32; take a rec"):
            pretrain(str(recipe), small_photos, run, pack=str(small_pack), add_to=pack)
    with pytest.raises(UsageError, match=r"no pack '.*nowhere'"):
        pretrain(str(recipe), small_photos, run, pack=str(small_pack), add_to=tmp_path / "nowhere")
    assert not run.exists()
    recipe.write_text(RECIPES["perceptual"])  # of crops: the size of the faces is not its own
    pretrain(str(recipe), small_photos, run, overrides=["steps=1"], pack=str(small_pack), add_to=pack)
    assert load_pack(pack).card.networks["perceptual"].licence == "L"


def test_faces_beyond_memory_are_read_from_a_file_without_a_name(
    small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with patch("numpy.memmap", wraps=np.memmap) as mapping:
        held = load_faces(small_photos, 24, tmp_path)
        assert held.shape == (6, 3, 24, 24)
        monkeypatch.setattr("adapt.pretraining.faces.HELD_BYTES", held.numel() - 1)
        assert torch.equal(load_faces(small_photos, 24), held)
        assert not mapping.called
        mapped = load_faces(small_photos, 24, tmp_path)
        assert mapping.call_count == 1
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(mapped, held)
    assert torch.equal(mapped[[4, 1]], held[[4, 1]])
    free = shutil.disk_usage(tmp_path)._replace(free=held.numel() - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    with pytest.raises(UsageError, match=r"6 faces of 24 px need 0\.0 GB, and 0\.0 GB are free on this disk"):
        load_faces(small_photos, 24, tmp_path)


class OtherProcess:
    """What the second of two processes is told; it waits for nobody."""

    is_main_process = False
    num_processes = 2

    def main_process_first(self) -> AbstractContextManager[None]:
        return nullcontext()

    def wait_for_everyone(self) -> None: ...


def test_only_the_main_process_leaves_weights_and_speaks(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, text in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    pack = shutil.copytree(small_pack, tmp_path / "pack")
    card = (pack / "pack.yaml").read_bytes()
    monkeypatch.setattr("adapt.training.run.processes", OtherProcess)
    monkeypatch.setattr("adapt.commands.pretrain.processes", OtherProcess)
    command = ["pretrain", "--faces", small_photos, "-o", tmp_path / "run", "--pack", small_pack, "--add-to", pack]
    for more in (["--max-steps", 3], []):
        assert adapt(monkeypatch, *command, "--recipe", tmp_path / "restorer.yaml", *more) == 0
        assert capsys.readouterr().out == ""
    assert (tmp_path / "run" / "last" / "state.pt").is_file(), "it has trained to the end"
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert (pack / "pack.yaml").read_bytes() == card
    assert adapt(monkeypatch, *command, "--recipe", tmp_path / "perceptual.yaml") == 2
    assert "perceptual.yaml: is the work of one process; it was started in 2" in capsys.readouterr().err


def test_two_processes_train_together(small_photos: Path, small_pack: Path, tmp_path: Path):
    """Started at once in a new folder, then in one to be emptied: one log, one file, the weights of both batches."""
    recipe, out = tmp_path / "mine.yaml", tmp_path / "run"
    recipe.write_text(RECIPES["restorer"])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "adapt"]
    command += ["pretrain", "--recipe", str(recipe), "--faces", str(small_photos), "-o", str(out)]
    command += ["--pack", str(small_pack), "--overwrite", "perceptual=0"]
    pretrain(str(recipe), small_photos, out, pack=str(small_pack), overrides=["perceptual=0", "seed=7"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Weights: {out / 'weights.safetensors'}\n"
    assert [row["step"] for row in read_json_lines(out / "log.jsonl")] == [0, 10]
    together, _ = read_state(out / "weights.safetensors")
    alone = pretrain(str(recipe), small_photos, tmp_path / "alone", pack=str(small_pack), overrides=["perceptual=0"])
    assert alone.file is not None
    assert not all(torch.equal(value, together[key]) for key, value in read_state(alone.file)[0].items())


def test_prior_losses_against_their_definitions(gen: torch.Generator):
    """The bound is the KL of two Gaussian posteriors with the network's mean held fixed, at variance midway."""
    x0, noise, error = torch.randn(3, 2, 3, 4, 4, generator=gen)
    timesteps = torch.tensor([40, 700])
    variance = torch.zeros_like(x0)
    output = torch.cat([noise + error, variance], dim=1)
    noise_loss, in_blocks, variance_loss = prior_losses(output, x0, noise, timesteps=timesteps, snr_cap=5.0)
    abar = linear_schedule().abar
    expected_noise, expected_blocks, expected_bound = 0.0, 0.0, 0.0
    for i, t in enumerate(timesteps.tolist()):
        a, b = float(abar[t]), float(abar[t - 1])
        beta = 1 - a / b
        snr = a / (1 - a)
        expected_noise += float((error[i] ** 2).mean()) * min(snr, 5) / snr / 2
        mean = error[i].mean(dim=(1, 2)) * 4  # of 4 x 4 values, so that its deviation is that of one
        expected_blocks += float((mean**2).mean()) * min(snr, 5) / snr / 2
        posterior = beta * (1 - b) / (1 - a)
        predicted = math.sqrt(posterior * beta)
        x_t = math.sqrt(a) * x0[i] + math.sqrt(1 - a) * noise[i]
        means = [
            (x_t - beta / math.sqrt(1 - a) * eps) / math.sqrt(1 - beta) for eps in (noise[i], noise[i] + error[i])
        ]
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(means[0].double(), math.sqrt(posterior)),
            torch.distributions.Normal(means[1].double(), math.sqrt(predicted)),
        )
        expected_bound += float(kl.mean()) / math.log(2) / 2
    assert float(noise_loss) == pytest.approx(expected_noise, rel=1e-5)
    assert float(in_blocks) == pytest.approx(expected_blocks, rel=1e-5)
    assert float(variance_loss) == pytest.approx(expected_bound, rel=1e-3)


def test_min_snr_weight_is_one_in_noise_and_falls_in_signal():
    weights = min_snr_weight(torch.tensor([0.5, 0.99], dtype=torch.float64), 5.0)
    assert weights.tolist() == pytest.approx([1.0, 5 / 99])
    zero = torch.zeros(1)
    assert float(normal_kl(zero, zero, zero, zero)) == 0


def test_every_face_is_seen_equally_often():
    seen = [index for step in range(6) for index in batch_indices(0, step, batch=5, count=10)]
    assert sorted(seen) == sorted(list(range(10)) * 3)
    assert batch_indices(0, 3, batch=5, count=10) != batch_indices(1, 3, batch=5, count=10)


def test_learning_rates():
    assert cosine(0, 10, first=1.0, last=0.1) == 1.0
    assert cosine(10, 10, first=1.0, last=0.1) == pytest.approx(0.1)
    assert trapezoid(0, 100, 1.0, warmup=10) == pytest.approx(0.1)
    assert trapezoid(50, 100, 1.0, warmup=10) == trapezoid(50, 200, 1.0, warmup=10) == 1.0
    assert trapezoid(90, 100, 1.0, warmup=10) == pytest.approx(0.5)


def test_large_networks_become_shards(tmp_path: Path):
    (tmp_path / "pack.yaml").write_text("name: p\nsize: 8\ndescription: d\nrestorer: r\nnetworks: {}\n")
    state = {f"layer.{i}": torch.full((1000, 1000), float(i)) for i in range(12)}
    entry = {"architecture": "a", "licence": "l", "source": "s", "trained": "t"}
    add_network(tmp_path, "big", state, header={"settings": "{}"}, entry=entry)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 2
    assert all(path.stat().st_size < SHARD_BYTES + 1e6 for path in files)
    read, header = load_pack(tmp_path).read("big")
    assert all(torch.equal(read[key], state[key]) for key in state)
    assert header["settings"] == "{}"
    for other in ("big-2-1-of-2", "big-new-1-of-2"):  # of networks with longer names
        (tmp_path / f"{other}.safetensors").touch()
    add_network(tmp_path, "big", {"layer": torch.ones(3)}, header={"settings": "{}"}, entry=entry)
    left = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert left == ["big-2-1-of-2.safetensors", "big-new-1-of-2.safetensors", "big.safetensors"]
