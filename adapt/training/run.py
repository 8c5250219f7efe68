"""The run folder: the resolved recipe, the versions it ran with, `log.jsonl`, and TensorBoard events."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from adapt._version import versions
from adapt.devices import processes
from adapt.disk import append_json_line, claim_folder, read_json, read_json_lines, write_json, write_text
from adapt.errors import RecipeError, UsageError
from adapt.settings.draft import Draft, differences
from adapt.settings.paths import BEST, WEIGHTS

CLAIM: Final = "run.json"
WRITES: Final = (
    "recipe.yaml", "log.jsonl", "tensorboard/events.out.tfevents.*", "last/state.pt", BEST,
    "samples/step-*.jpg", WEIGHTS, "maps.jpg", "labels.json", "perceptual.json", "start-steps.json",
    "contents.json",
)  # every training, in its run folder, beside it  # fmt: skip
def open_run(
    folder: Path,
    *,
    recipe: str,
    digest: str,
    settled: str | None = None,
    distance: dict[str, str] | None = None,
    overwrite: bool = False,
) -> Run:
    """`Run` of a training that several processes may share: the main one makes the folder, then the others find it."""
    together = processes()
    with together.main_process_first():
        return Run(
            folder,
            recipe=recipe,
            digest=digest,
            settled=settled,
            distance=distance,
            overwrite=overwrite and together.is_main_process,
        )


def distance_of(folder: Path) -> str | None:
    """The perceptual distance that a run was trained with, by name and digest; None where it tells of none."""
    try:
        told = read_json(folder / CLAIM).get("distance")
        return None if told is None else _distance_in_words(told)
    except (OSError, UsageError, AttributeError, KeyError, TypeError):
        return None


def _distance_in_words(about: dict[str, str]) -> str:
    return f"{about['name']} (weights {about['digest'][:12]})"


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
        distance: name and digest of the perceptual distance of its losses; None where they have none.
        overwrite: remove first what a training wrote there.

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
        distance: dict[str, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder = folder
        self.digest = digest
        self.stopped: tuple[int, int] | None = None
        self.log_path = folder / "log.jsonl"
        about = {
            "digest": digest,
            **({} if settled is None else {"settled": settled}),
            **({} if distance is None else {"distance": distance}),
            "versions": versions(),
        }
        claim = partial(claim_folder, folder, CLAIM, about, ours="a run of ours", writes=WRITES)
        known = claim(overwrite=overwrite)
        self.renewed = known["digest"] != digest and settled is not None and known.get("settled") == settled
        if self.renewed:
            known = claim(overwrite=True)
        if known["digest"] != digest:
            if distance is not None and known.get("distance") not in (None, distance):
                raise UsageError(
                    f"{folder}: was trained with the perceptual distance {_distance_in_words(known['distance'])}, and"
                    f" would go on with {_distance_in_words(distance)}; say `distance` as it was, choose another"
                    " folder, or --overwrite to start anew"
                )
            raise UsageError(
                f"{folder}: holds a run with other settings, photos or weights{_what_differs(folder, recipe)}; choose"
                " another folder, or --overwrite to start anew"
            )
        write_text(folder / "recipe.yaml", recipe)
        write_json(folder / "run.json", about)  # with the versions that it goes on with
        self._events: Any = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()

    def rewind(self, step: int) -> None:
        """Forget log lines of steps from `step` on: they will be run again."""
        kept = [line for line in read_json_lines(self.log_path) if line["step"] < step]
        write_text(self.log_path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one line to `log.jsonl` and the same numbers to the TensorBoard events."""
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
        append_json_line(self.log_path, {"step": step, **values})
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def rows(self) -> list[dict[str, Any]]:
        """The log so far."""
        return read_json_lines(self.log_path)
