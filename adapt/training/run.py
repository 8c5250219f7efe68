"""The run folder: the resolved recipe, the versions it ran with, `log.jsonl`, and TensorBoard events."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from adapt._version import versions
from adapt.devices import processes
from adapt.disk import append_json_line, claim_folder, marked, read_json_lines, write_json, write_text
from adapt.errors import RecipeError, UsageError
from adapt.journal import Journal, journal_names
from adapt.locks import locked
from adapt.settings.draft import Draft, differences

CLAIM: Final = "run.json"
KIND: Final = "training run"
RECIPE: Final = "recipe.yaml"
LOG: Final = "log.jsonl"
def open_run(
    folder: Path, *, recipe: str, digest: str, settled: str | None = None, overwrite: bool = False
) -> Run:
    """`Run` of a training that several processes may share: the main one makes the folder, then the others find it."""
    together = processes()
    with together.main_process_first():
        main = together.is_main_process
        return Run(folder, recipe=recipe, digest=digest, settled=settled, overwrite=overwrite and main, main=main)


def written(folder: Path) -> list[str]:
    """What a training has put into its run folder beside run.json, for `adapt.disk.remove_written`."""
    return [RECIPE, LOG, *journal_names(folder)]


def _what_differs(folder: Path, recipe: str) -> str:
    """In brackets, which settings of a run are others than those of a recipe, or that none is."""
    try:
        there = Draft.read(folder / "recipe.yaml")
    except (OSError, RecipeError):  # of another version, or half of one
        return ""
    found = differences(there.values, Draft.parse(recipe, "the recipe").values)
    return f" ({found or 'the settings are the same, the photos or weights are not'})"


class Run:
    """An open run folder.

    Args:
        folder: where the run lives; made if it is missing.
        recipe: the resolved recipe as YAML, stored as `recipe.yaml`.
        digest: digest of everything the result depends on; a run with another digest is refused.
        settled: digest of the part of it that may not change: where another run has it too, and only the rest is
            another, the run starts anew by itself. None where it never does.
        overwrite: remove first what a training wrote there.
        main: this process is the one that writes, where several train together; it holds the folder, and no other
            command may.

    Attributes:
        renewed: whether it has started anew by itself.
        stopped: (step, steps) where a training has ended before its end, as it was told to; None where it has not.

    Raises:
        UsageError: the folder holds a run with other settings, or something that is not a run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        recipe: str,
        digest: str,
        settled: str | None = None,
        overwrite: bool = False,
        main: bool = True,
    ) -> None:
        self.folder = folder
        self.digest = digest
        self.main = main
        self.stopped: tuple[int, int] | None = None
        self.log_path = folder / LOG
        self._events: Any = None
        with ExitStack() as held:  # given back at once where the folder is refused
            if main:
                held.enter_context(locked(folder))
            self._claim(recipe, settled, overwrite)
            self._journal = Journal(folder)
            self._held = held.pop_all()

    def _claim(self, recipe: str, settled: str | None, overwrite: bool) -> None:
        folder, digest = self.folder, self.digest
        about = {"digest": digest, **({} if settled is None else {"settled": settled}), "versions": versions()}

        def claim(overwrite: bool) -> dict[str, Any]:
            return claim_folder(
                folder, CLAIM, about, kind=KIND, ours="a run of ours", writes=lambda: written(folder),
                overwrite=overwrite,
            )  # fmt: skip

        known = claim(overwrite)
        self.renewed = known.get("digest") != digest and settled is not None and known.get("settled") == settled
        if self.renewed:
            known = claim(True)
        if known.get("digest") != digest:
            raise UsageError(
                f"{folder}: holds a run with other settings, photos or weights{_what_differs(folder, recipe)}; choose"
                " another folder, or --overwrite to start anew"
            )
        if self.main:
            write_text(folder / RECIPE, recipe)
            write_json(folder / CLAIM, marked(KIND, about))  # with the versions that it goes on with

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()
        self._held.close()

    def place(self, name: str) -> Path:
        """Where a file of the run goes, by its name in the folder; told first, so that it is known as the run's."""
        self._journal.tell(name)
        return self.folder / name

    def rewind(self, step: int) -> None:
        """Forget log lines of steps from `step` on, which will be run again; only in the process that writes."""
        if not self.main:
            return
        kept = [line for line in self.rows() if line["step"] < step]
        write_text(self.log_path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one line to `log.jsonl` and the same numbers to the TensorBoard events."""
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            events = self.folder / "tensorboard"
            before = {*events.glob("*")}
            self._events = SummaryWriter(str(events), purge_step=step)
            for made in sorted({*events.glob("*")} - before):
                self._journal.tell(f"tensorboard/{made.name}")
        append_json_line(self.log_path, {"step": step, **values})
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def rows(self) -> list[dict[str, Any]]:
        """The log so far."""
        return read_json_lines(self.log_path, ("step",))
