"""The commands as a user meets them: exit codes, messages, files."""

from __future__ import annotations

import errno
import html
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from command_line import QUICK_FINETUNE, QUICK_TARGETS, adapt
from PIL import Image

from adapt.cli import main
from adapt.cli.cores import WAITING, available_cores, others_now
from adapt.cli.options import use_threads
from adapt.cli.printing import Lines
from adapt.photos.files import read_image, write_image
from adapt.restorers.swinir import SwinIR


def test_a_restorer_that_gives_what_is_not_finite_costs_that_photo_alone(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In one batch and in several, by restore and for targets."""
    forward = SwinIR.forward

    def overflows(self: SwinIR, photo: torch.Tensor) -> torch.Tensor:
        bright = photo.mean(dim=(1, 2, 3), keepdim=True) > 0.9
        return torch.where(bright, torch.inf, forward(self, photo))

    monkeypatch.setattr(SwinIR, "forward", overflows)
    photos = tmp_path / "photos"
    for name, image in (("a", torch.zeros(3, 16, 16)), ("m", torch.ones(3, 16, 16)), ("z", torch.zeros(3, 16, 16))):
        write_image(photos / f"{name}.png", image)
    commands = [
        ["restore", small_pack, photos, "--batch", batch, "-o", tmp_path / f"r{batch}"] for batch in (1, 3)
    ]
    commands.append(
        ["generate-targets", photos, "-o", tmp_path / "t", "--pack", small_pack, "--method", "low-frequency",
         *QUICK_TARGETS]
    )
    for command in commands:
        assert adapt(monkeypatch, *command) == 3
        assert "m: the restorer gave values that are not finite" in capsys.readouterr().err
    for folder in ("r1", "r3", "t"):
        assert sorted(path.stem for path in (tmp_path / folder).rglob("*.png")) == ["a", "z"]


def test_a_photo_without_colour_stays_without_whatever_its_file_says(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Restored, and as a target; a toned one keeps its tone."""
    photos = tmp_path / "photos"
    photos.mkdir()
    values = np.random.default_rng(0).integers(60, 200, (4, 4)).astype(np.uint8)
    grey = Image.fromarray(values).resize((16, 16), Image.Resampling.BICUBIC)
    grey.save(photos / "one.png")
    grey.convert("RGB").save(photos / "three.jpg", quality=70)
    grey.convert("RGB").quantize(64).save(photos / "palette.png")
    grey.convert("RGB").save(photos / "frame.gif")
    Image.merge("RGB", [grey, grey.point(lambda value: value * 0.8), grey.point(lambda value: value * 0.6)]).save(
        photos / "toned.png"
    )
    assert adapt(monkeypatch, "restore", small_pack, photos, "-o", tmp_path / "r") == 0
    assert adapt(
        monkeypatch, "generate-targets", photos, "-o", tmp_path / "t", "--pack", small_pack, "--method",
        "low-frequency", *QUICK_TARGETS,
    ) == 0
    for folder in (tmp_path / "r", tmp_path / "t" / "images"):
        for path in folder.glob("*.png"):
            apart = np.ptp(np.asarray(Image.open(path).convert("RGB")).astype(int), axis=2).max()
            assert (apart == 0) == (path.stem != "toned"), path
        assert len(list(folder.glob("*.png"))) == 5


def test_a_corrupt_photo_is_named_with_exit_code_3(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.png").write_bytes((small_photos / "a.png").read_bytes())
    (photos / "broken.jpg").write_bytes((small_photos / "a.png").read_bytes()[:60])
    for command in (
        ["generate-targets", photos, "-o", tmp_path / "t", "--pack", small_pack, "--method", "low-frequency",
         *QUICK_TARGETS],
        ["restore", small_pack, photos, "-o", tmp_path / "r"],
    ):
        assert adapt(monkeypatch, *command) == 3
        assert "broken" in capsys.readouterr().err
    assert (tmp_path / "r" / "good.png").is_file()


def test_resized_photos_are_counted_in_every_command(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Three photos, one of them larger than the networks' 16 px."""
    photos, targets, run = tmp_path / "photos", tmp_path / "targets", tmp_path / "run"
    for name in ("a", "b"):
        write_image(photos / f"{name}.png", read_image(small_photos / f"{name}.png"))
    write_image(photos / "c.png", read_image(small_photos / "a.png").repeat_interleave(2, 1).repeat_interleave(2, 2))
    pack = ["--pack", small_pack]
    made = ["generate-targets", photos, "-o", targets, *pack, "--method", "low-frequency", *QUICK_TARGETS]
    commands = {
        "made": made,
        "made again": made,  # nothing is done, and the numbers are those of the store
        "tuned": ["finetune", "--photos", photos, "--targets", targets, "-o", run, *pack, *QUICK_FINETUNE],
        "restored": ["restore", run, photos, "-o", tmp_path / "restored"],
    }
    for name, command in commands.items():
        assert adapt(monkeypatch, *command) == 0
        assert "\n1 photo was resized to the model's size\n" in capsys.readouterr().out, name
    assert adapt(monkeypatch, *made, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"done": 3, "rejected": 0, "failed": 0, "resized": 1, "enlarged": 0}


def test_enlarged_photos_are_counted_by_themselves_and_warned_of(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """One photo of the networks' 16 px, one larger, and of 15, 8, 7, 6 and 3 px."""
    photos = tmp_path / "photos"
    whole = read_image(small_photos / "a.png")
    write_image(photos / "same.png", whole)
    write_image(photos / "large.png", whole.repeat_interleave(2, 1).repeat_interleave(2, 2))
    for side in (15, 8, 7, 6, 3):
        write_image(photos / f"{side}.png", whole[:, :side, :side])
    made = ["generate-targets", photos, "-o", tmp_path / "out" / "targets", "--pack", small_pack, "--method",
            "low-frequency", *QUICK_TARGETS]
    said = (
        "1 photo was resized to the model's size\n5 photos were enlarged to the model's size\n"
        "Warning: 4 photos were enlarged 2 times or more (3: 5.33 times, 6: 2.67 times, 7: 2.29 times, and 1 more);"
        " most of what is restored there is invented\n"
    )
    for command in (made, made, ["restore", small_pack, photos, "-o", tmp_path / "restored"]):
        assert adapt(monkeypatch, *command) == 0
        assert capsys.readouterr().out.endswith(said)
    tuned = ["finetune", "--photos", photos, "--targets", tmp_path / "out" / "targets", "-o", tmp_path / "tuned"]
    assert adapt(monkeypatch, *tuned, "--pack", small_pack, *QUICK_FINETUNE) == 0
    assert said in capsys.readouterr().out
    assert adapt(monkeypatch, *made, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"done": 7, "rejected": 0, "failed": 0, "resized": 6, "enlarged": 5}
    run = ["run", photos, "-o", tmp_path / "run", "--pack", small_pack, "--method", "low-frequency", "--device", "cpu",
           *[f"targets.{each}" for each in QUICK_TARGETS], *[f"finetune.{each}" for each in QUICK_FINETUNE]]
    monkeypatch.setattr("adapt.commands.run.export_choice", lambda *_, **__: tmp_path / "run" / "model.onnx")
    assert adapt(monkeypatch, *run) == 0
    assert said in capsys.readouterr().out
    page = html.unescape((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    for note in ("1 of the photographs are of another size; they were resized to 16 px first.",
                 "5 of the photographs are smaller; they were enlarged to 16 px first.", said[said.index("4 ") : -1]):
        assert note in page


def test_targets_without_maps_are_counted(
    small_photos: Path, dynamic_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    made = ["generate-targets", small_photos, "-o", tmp_path / "out", "--pack", dynamic_pack, "--limit", "2", "steps=2",
            "gate.max_low_frequency_change=1", "gate.min_contrast=0"]
    assert adapt(monkeypatch, *made) == 0
    assert "without maps" not in capsys.readouterr().out
    assert adapt(monkeypatch, *made, "--maps") == 0
    assert "\n2 were made earlier without maps; to draw theirs, start anew" in capsys.readouterr().out
    assert adapt(monkeypatch, *made, "--maps", "--json") == 0
    assert json.loads(capsys.readouterr().out)["without_maps"] == 2
    assert adapt(monkeypatch, *made, "--maps", "--overwrite") == 0
    assert "without maps" not in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out" / "maps").iterdir()) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["run", "nowhere", "-o", "out"], 2, "nowhere: no such folder or file of photos"),
    (["restore", "no-such-pack", ".", "-o", "out"], 2, "no restorer 'no-such-pack'"),
    (["restore", "missing.pth", ".", "-o", "out"], 4, "missing.pth: no such weights file"),
    (["generate-targets", ".", "-o", "out", "--shard", "3/2"], 2, "expected I/N with I from 1 to N"),
    (["generate-targets", "{photos}", "-o", "out", "stepz=3"], 2, "did you mean 'steps'?"),
    (["generate-targets", "{photos}", "-o", "out", "--steps", "2", "steps=3"], 2, "--steps 2: steps=3 sets the same"),
    (["generate-targets", "{photos}", "-o", "out", "--shard", "1/2", "--overwrite"], 2, "the store of all shards"),
    (["generate-targets", "{photos}", "-o", "out", "--method", "low-frequency", "--maps"], 2,
     "--maps: low-frequency as it is set guides everywhere alike"),
    (["degrade", "{photos}", "-o", "out", "--recipe", "blind", "--seed", "0", "seed=0"], 2, "give one of the two"),
    (["finetune", "--photos", "{photos}", "--targets", "{photos}", "-o", "out", "--real", ".", "adversarial=0"], 2,
     "--real .: sharp faces are shown to a discriminator, and onestep has none"),
    (["run", "{photos}", "-o", "out", "--real", "{photos}", "finetune.adversarial=0"], 2, "and onestep has none; leav"),
    (["run", "{photos}", "-o", "out", "--fidelity", "0.5"], 2, "a onestep has no fidelity to choose; known with one: "),
    (["finetune", "--photos", "{photos}", "--targets", "{photos}", "-o", "out", "--device", "tpu9"], 2,
     "--device tpu9: cannot be used here"),
    (["generate-targets", "{photos}", "-o", "out", "--device", "tpu9"], 2, "--device tpu9: cannot be used here"),
    (["packs", "show", "huge"], 2, "no pack 'huge'"),
    (["recipes", "show", "swinri"], 2, "did you mean"),
])
def test_mistakes_get_one_line(
    arguments: list[str], code: int, message: str, small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    arguments = [str(small_photos) if each == "{photos}" else each for each in arguments]
    assert adapt(monkeypatch, *arguments) == code
    assert message in capsys.readouterr().err
    assert not Path("out").exists(), "refused before any work"


FINETUNE = ["finetune", "--photos", "{photos}", "--targets", "{photos}", "-o", "out"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["run", "{photos}", "-o", "out", "--truth", "{wrong}"], "--truth {wrong}: {what}; name a folder of clean orig"),
    (["run", "{photos}", "-o", "out", "--real", "{wrong}"], "--real {wrong}: {what}; name a folder of sharp aligned"),
    (["run", "{photos}", "-o", "out", "--replay", "{wrong}"], "--replay {wrong}: {what}; name a folder of clean al"),
    ([*FINETUNE, "--real", "{wrong}"], "--real {wrong}: {what}; name a folder of sharp aligned faces"),
    ([*FINETUNE, "--replay", "{wrong}"], "--replay {wrong}: {what}; name a folder of clean aligned faces"),
    ([*FINETUNE, "--photos", "{wrong}"], "--photos {wrong}: {what}; name a folder of aligned face photos"),
    ([*FINETUNE, "--targets", "{wrong}"], "--targets {wrong}: {what}; name a folder of target images, or a target"),
    (["evaluate", "{photos}", "--truth", "{wrong}"], "--truth {wrong}: {what}; name a folder of clean originals"),
    (["evaluate", "{photos}", "--photos", "{wrong}"], "--photos {wrong}: {what}; name a folder of the photos they w"),
    (["evaluate", "{photos}", "--reference", "{wrong}"], "--reference {wrong}: {what}; name a folder of clean faces"),
    (["pretrain", "--recipe", "prior", "--faces", "{wrong}", "-o", "out"], "--faces {wrong}: {what}; name a folder"),
])
@pytest.mark.parametrize(("wrong", "what"), [
    ("nowhere", "no such folder or file of photos"),
    ("empty", "no photos in this folder"),
    ("notes.txt", "a file that is no image"),
])
def test_a_wrong_folder_is_named_with_its_option_before_any_work(
    arguments: list[str], message: str, wrong: str, what: str, small_photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):
    """Whichever step would be the first to look; no network is loaded before."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for place in (Path("notes.txt"), Path("empty", "notes.txt")):
        place.write_text("no image")
    loaders = ("finetune_setup.load_restorer", "evaluate.load_distance", "generate_targets.load_prior")
    for loader in loaders:
        never = lambda *_: pytest.fail("loaded before the folders were looked at")  # noqa: E731
        monkeypatch.setattr(f"adapt.commands.{loader}", never)
    assert adapt(monkeypatch, *(each.format(photos=small_photos, wrong=wrong) for each in arguments)) == 2
    error = capsys.readouterr().err
    for part in message.format(wrong=wrong, what=f"{what}#").split("#"):
        assert part in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_an_unknown_recipe_key_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("kind: finetune\nsteps: 10\nlearning_rat: 1e-4\n")
    assert adapt(monkeypatch, "recipes", "check", recipe) == 2
    error = capsys.readouterr().err
    assert "mine.yaml:3:" in error
    assert "did you mean 'learning_rate'?" in error


def test_packs_and_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for arguments in (["packs", "list"], ["packs", "show", "tiny"], ["packs", "verify", "tiny"], ["recipes", "list"],
                      ["recipes", "show", "tiny/finetune/swinir"]):
        assert adapt(monkeypatch, *arguments) == 0
        assert capsys.readouterr().out
    assert adapt(monkeypatch, "recipes", "check", "tiny/finetune/swinir") == 0
    assert capsys.readouterr().out == "tiny/finetune/swinir: a good finetune recipe\n"
    assert adapt(monkeypatch, "recipes", "list", "finetun") == 2
    assert "no kind of recipe 'finetun'; did you mean 'finetune'?" in capsys.readouterr().err
    copy = tmp_path / "my.yaml"
    assert adapt(monkeypatch, "recipes", "copy", "tiny/finetune/swinir", copy) == 0
    assert adapt(monkeypatch, "recipes", "copy", "tiny/finetune/swinir", copy) == 2
    assert "is not replaced" in capsys.readouterr().err


def test_a_damaged_pack_is_exit_code_4(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for path in small_pack.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "prior.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x55")
    assert adapt(monkeypatch, "packs", "verify", tmp_path) == 4
    assert "prior.safetensors: expected sha256" in capsys.readouterr().err


def system_of(folder: Path, siblings: dict[int, str], limit: str | None = None) -> Path:
    """A folder that describes a machine, as Linux does."""
    for cpu, each in siblings.items():
        path = folder / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(f"{each}\n")
    if limit is not None:
        (folder / "fs/cgroup").mkdir(parents=True)
        (folder / "fs/cgroup/cpu.max").write_text(f"{limit}\n")
    return folder


PAIRS = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its cores")
@pytest.mark.parametrize(("allowed", "siblings", "limit", "cores"), [
    (range(8), PAIRS, None, 4),
    (range(8), PAIRS, "max 100000", 4),
    (range(8), PAIRS, "150000 100000", 2),
    (range(8), PAIRS, "10000 100000", 1),
    ([0, 4, 5], PAIRS, None, 2),  # pinned by a scheduler
    ([1, 2, 3], {}, None, 3),  # a machine that hides its cores
])
def test_threads_are_those_of_physical_cores(
    allowed: list[int], siblings: dict[int, str], limit: str | None, cores: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(allowed))
    assert available_cores(system_of(tmp_path, siblings, limit)) == cores


@pytest.mark.parametrize(("said", "load", "expected"), [
    ({}, 100.0, "PASSIVE"),
    ({}, 0.0, None),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, 100.0, "ACTIVE"),
    ({"GOMP_SPINCOUNT": "7"}, 100.0, None),
    ({"KMP_BLOCKTIME": "0"}, 100.0, None),
])
def test_threads_sleep_on_a_busy_machine_unless_the_environment_says_something(
    said: dict[str, str], load: float, expected: str | None
):
    """In a process of its own, as a user starts it: it must be said before torch is there."""
    known = {name: value for name, value in os.environ.items() if name not in WAITING}
    code = (
        f"import os, sys\nfrom adapt import cli\nos.getloadavg = lambda: ({load}, 0.0, 0.0)\n"
        "from adapt.cli import cores\ncores.others_now = lambda: 0\n"
        "cli.app = lambda: print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)\ncli.main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], env=known | said, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [str(expected), "False"]


def test_programs_that_run_now_count_before_the_mean_knows_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program that wakes for a moment is not one: the fewest of a few looks counts."""
    looks = iter(["7/100", "3/100", "5/100", "4/100"])
    monkeypatch.setattr("adapt.cli.cores.BETWEEN", 0)
    file = Mock(spec=Path)
    file.read_text.side_effect = lambda **_: f"0.10 0.20 0.30 {next(looks)} 4711"
    assert others_now(file) == 2
    assert others_now(tmp_path / "absent") == 0
    (tmp_path / "strange").write_text("nothing of the kind")
    assert others_now(tmp_path / "strange") == 0


def test_threads_that_are_not_given_never_grow(monkeypatch: pytest.MonkeyPatch):
    """The tests run on one thread; eight cores do not change that, and a number that is given does."""
    monkeypatch.setattr("adapt.cli.options.available_cores", lambda: 8)
    use_threads(None)
    assert torch.get_num_threads() == 1
    try:
        use_threads(3)
        monkeypatch.setattr("adapt.cli.options.available_cores", lambda: 2)
        use_threads(None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("command", "defaults"), [
    ("run", ["this process may use)", "(the pack's own)", "[default: auto]"]),
    ("generate-targets", ["this process may use)", "(the pack's own)", "(the recipe's)", "[default: auto]"]),
    ("finetune", ["this process may use)", "(the pack's own)", "(the recipe's)", "(the targets, unpaired)"]),
    ("restore", ["this process may use)", "auto is CUDA where there is one", "[default: auto]", "(what the model was",
                 "or 512 where its file does not say)"]),
])
def test_help_names_every_default(command: str, defaults: list[str]):
    """Square brackets of a help text are markup, and vanish: a default has to be given as one."""
    shown = subprocess.run(
        [sys.executable, "-m", "adapt", command, "--help"], env={**os.environ, "COLUMNS": "300"},
        capture_output=True, text=True, check=True,
    ).stdout
    for default in defaults:
        assert default in shown


def test_no_help_text_hides_in_brackets():
    for path in (Path(main.__code__.co_filename).parent).glob("*.py"):
        assert "[default" not in path.read_text(encoding="utf-8"), path.name


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]):
    lines = Lines("targets")
    for done in range(1, 101):
        lines(done, 100)
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1] == "targets: 100/100"
    assert len(printed) == 11


@pytest.mark.parametrize("arguments", [
    ["generate-targets", "{photos}", "-o", "{out}", "--pack", "{pack}", "--method", "low-frequency", *QUICK_TARGETS],
    ["restore", "{pack}", "{photos}", "-o", "{out}"],
    ["degrade", "{photos}", "-o", "{out}", "--recipe", "blind"],
    ["export", "{pack}", "-o", "{out}"],
    ["run", "{photos}", "-o", "{out}", "--pack", "{pack}", "--method", "low-frequency",
     *[f"targets.{each}" for each in QUICK_TARGETS]],
])
def test_an_output_that_cannot_be_made_is_named_without_a_traceback(
    arguments: list[str], small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "file").write_text("in the way")
    names = {"photos": small_photos, "pack": small_pack, "out": tmp_path / "file" / "out"}
    assert adapt(monkeypatch, *(each.format(**names) for each in arguments)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"adapt: {tmp_path / 'file'}")
    assert error.endswith(f": cannot be read or written: {os.strerror(errno.ENOTDIR)}")


@pytest.mark.parametrize(("writes", "file", "finished"), [
    (4, ".written.jsonl", 1), (5, "b.png", 1), (6, "{log}", 2),
])
@pytest.mark.parametrize(("log", "command"), [
    ("log.jsonl", ["restore", "{pack}", "{photos}"]), ("manifest.jsonl", ["degrade", "{photos}", "--recipe", "blind"]),
])
def test_a_disk_that_fills_up_on_the_way_stops_the_work(
    log: str, command: list[str], writes: int, file: str, finished: int, small_photos: Path, small_pack: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):
    """It is no fault of one photo, after which the next could be tried; what is finished counts."""
    out, sync, synced = tmp_path / "out", os.fsync, list[int]()

    def fill(stream: int) -> None:
        if len(synced) == writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced.append(stream)
        sync(stream)

    arguments = [*(each.format(photos=small_photos, pack=small_pack) for each in command), "-o", out]
    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", fill)
        assert adapt(disk, *arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    full = out / file.format(log=log)
    assert error == f"adapt: {full}: cannot be read or written: {os.strerror(errno.ENOSPC)}"
    assert adapt(monkeypatch, *arguments) == 0
    assert f", {finished} already there" in capsys.readouterr().out
    assert len(list(out.rglob("*.png"))) == 6


def test_a_full_disk_is_named_with_the_file(
    small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        assert adapt(disk, "restore", small_pack, small_photos, "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"adapt: {tmp_path / 'out' / 'restored.json'}: cannot be read or written: {os.strerror(errno.ENOSPC)}"
    )
    assert not list((tmp_path / "out").iterdir())
    assert adapt(monkeypatch, "restore", small_pack, small_photos, "-o", tmp_path / "out") == 0


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_an_interrupt_is_answered_and_the_same_command_goes_on(
    options: list[str], small_photos: Path, small_pack: Path, tmp_path: Path
):
    """A real signal to a real process, after its first target."""
    out = tmp_path / "out"
    arguments = ["generate-targets", small_photos, "-o", out, "--pack", small_pack, "--method", "low-frequency"]
    # As from a terminal, even where the tests run in the background: there a process is born deaf to the signal.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from adapt.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments), *options, *QUICK_TARGETS, "steps=100"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(out.glob("images/*.png")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    again = "the same command again, without --overwrite," if options else "the same command again"
    assert error.splitlines()[-1] == f"adapt: interrupted; {again} goes on from here"
    assert "Traceback" not in error
    assert 1 <= len(list(out.rglob("*.png"))) < 6


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["restore", "--no-such-option"], 2, "No such option"),
    (["restore", "tiny"], 2, "Missing argument"),
    (["generate-targets", ".", "-o", "out", "--steps", "none"], 2, "--steps"),
    (["no-such-command"], 2, "No such command"),
    (["restore", "--help"], 0, ""),
])
def test_usage_errors_keep_their_codes(
    arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert adapt(monkeypatch, *arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert "interrupted" not in error


def test_an_interrupt_before_a_command_has_begun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adapt.cli.app", stop)
    assert adapt(monkeypatch, "packs", "list") == 130
    assert "the same command again goes on" in capsys.readouterr().err
