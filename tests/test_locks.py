"""One command at a time in a folder, and any number of shards; who is killed holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import pytest
from command_line import QUICK_TARGETS, adapt
from networks import SMALL_SWINIR, lively_swinir

from adapt.disk import shown_files
from adapt.errors import UsageError
from adapt.exporting.bundle import export_bundle
from adapt.locks import locked, locked_beside
from adapt.restorers.base import Restorer
from adapt.targets.store import Record, TargetStore, read_records
from adapt.training.run import Run, open_run

HOLD = """
import sys, time
from pathlib import Path
from adapt.locks import locked
sys.argv = ["adapt", "restore", "tiny", "my photos"]
with locked(Path({folder!r}), {shard!r}):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, shard: tuple[int, int] = (0, 1)) -> subprocess.Popen[str]:
    """A process that holds a folder."""
    code = HOLD.format(folder=str(folder), shard=shard)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_command_in_the_folder_is_named_and_one_that_was_killed_holds_nothing(tmp_path: Path):
    folder = tmp_path / "out"
    process = holder(folder)
    try:
        named = rf"another command works in this folder \(process {process.pid} on .*: adapt restore tiny 'my photos'\)"
        with pytest.raises(UsageError, match=f"out: {named}"), locked(folder):
            pass
        with pytest.raises(UsageError, match="another command works"), locked(folder, (0, 2)):
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with locked(folder):
        pass
    assert list(folder.iterdir()) == []


def test_shards_hold_a_folder_together_each_its_own(tmp_path: Path):
    with ExitStack() as held:
        for index in range(3):
            held.enter_context(locked(tmp_path, (index, 3)))
        for shard in ((1, 3), (0, 1)):
            with pytest.raises(UsageError, match=r"works in this folder \(process "), locked(tmp_path, shard):
                pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path), pytest.raises(UsageError), locked(tmp_path, (0, 3)):
        pass


def test_a_folder_that_cannot_be_written_is_no_matter_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr("os.open", refuse)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("shards", [True, False])
def test_the_lock_is_never_held_twice(shards: bool, tmp_path: Path):
    """Given back and taken by many at once: the file comes and goes."""
    inside, most, taken = [0], [0], [0]

    def work(number: int) -> None:
        for _ in range(100):
            try:
                with locked(tmp_path, (number % 2, 2) if shards and number < 4 else (0, 1)):
                    inside[0] += 1 if not shards or number >= 4 else 0
                    most[0] = max(most[0], inside[0])
                    taken[0] += 1
                    inside[0] -= 1 if not shards or number >= 4 else 0
            except UsageError:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most[0] == 1
    assert taken[0] > 8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [
    ["restore", "{pack}", "{photos}"], ["degrade", "{photos}", "--recipe", "web"],
    ["generate-targets", "{photos}", "--pack", "{pack}", "--method", "low-frequency", *QUICK_TARGETS],
    ["generate-targets", "{photos}", "--pack", "{pack}", "--shard", "1/2", "--method", "low-frequency"],
    ["finetune", "--photos", "{photos}", "--targets", "{photos}", "--pack", "{pack}"],
    ["run", "{photos}", "--pack", "{pack}", "--method", "low-frequency"],
    ["run", "{photos}", "--pack", "{pack}", "--method", "low-frequency", "--overwrite"],
])
def test_every_command_waits_for_no_other_and_says_so(
    command: list[str], small_photos: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    arguments = [each.format(pack=small_pack, photos=small_photos) for each in command]
    with locked(out):
        before = sorted(path.name for path in out.iterdir())
        assert adapt(monkeypatch, *arguments, "-o", out, "--threads", 1) == 2
        assert f"adapt: {out}: another command works in this folder (process {os.getpid()}" in capsys.readouterr().err
        assert sorted(path.name for path in out.iterdir()) == before


def test_an_export_waits_for_no_other(tmp_path: Path):
    with locked_beside(tmp_path / "bundle"), pytest.raises(UsageError, match="bundle: another command works"):
        export_bundle(Restorer("small", "swinir", SMALL_SWINIR, lively_swinir()), tmp_path / "bundle", source={})
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_held_until_it_is_closed_and_given_back_where_it_is_refused(tmp_path: Path):
    with Run(tmp_path / "run", recipe="", digest="a"):
        with pytest.raises(UsageError, match="another command works"):
            open_run(tmp_path / "run", recipe="", digest="a")
        Run(tmp_path / "run", recipe="", digest="a", main=False)  # another process of the same training
    for _ in range(2):
        with pytest.raises(UsageError, match="holds a run with other settings"):
            Run(tmp_path / "run", recipe="", digest="b")
    with Run(tmp_path / "run", recipe="", digest="a"):
        pass


def test_shards_that_start_together_all_get_the_store(tmp_path: Path):
    """Threads, so that they meet; processes claim in the same steps."""
    shards = 8
    for turn in range(40):
        store, together = tmp_path / str(turn) / "deep" / "store", Barrier(shards)

        def work(index: int, store: Path = store, together: Barrier = together) -> None:
            together.wait()
            with locked(store, (index, shards)):
                opened = TargetStore(store, {"name": "x"}, shard=(index, shards))
                opened.add(Record(id=str(index), photo="", photo_sha256="", status="failed"))

        with ThreadPoolExecutor(shards) as pool:
            list(pool.map(work, range(shards)))
        assert [record.id for record in read_records(store)] == [str(index) for index in range(shards)]
        assert not [path for path in store.iterdir() if path.name.startswith(".")]


RACE = """
import sys, time
from pathlib import Path
from adapt.disk import claim_folder, write_text
folder, number, start = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
for turn in range(60):
    while time.time() < start + turn * 0.05:
        pass
    out = folder / str(turn)
    found = claim_folder(
        out, "about.json", {"by": number}, kind="test", ours="ours", writes=lambda: [], overwrite=False
    )
    write_text(out / f"{number}.txt", found["by"])
"""


def test_processes_that_claim_together_agree(tmp_path: Path):
    start = time.time() + 1.5
    commands = [[sys.executable, "-c", RACE, str(tmp_path), str(number), str(start)] for number in range(4)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == [""] * 4
    for folder in tmp_path.iterdir():
        assert len({path.read_text() for path in folder.glob("*.txt")}) == 1, "one claimed it, all found that"
        assert len(shown_files(folder)) == 5
