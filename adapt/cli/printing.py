"""What the commands print: progress, and at the end what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from adapt.targets.store import Record

FAILED_PHOTOS = 3


class Lines:
    """Progress: one line that is rewritten on a terminal, now and then a plain line in a pipe."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.live = sys.stderr.isatty()
        self._width = 0
        self._tenth = -1

    def __call__(self, done: int, total: int, text: str = "") -> None:
        line = f"{self.title}: {done}/{total}  {text}".rstrip()
        if self.live:
            print(f"\r{line:<{self._width}}", end="" if done < total else "\n", file=sys.stderr, flush=True)
            self._width = len(line)
        elif (tenth := 10 * done // max(total, 1)) != self._tenth:
            self._tenth = tenth
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line of its own that stays."""
        print(f"\r{text:<{self._width}}" if self.live else text, file=sys.stderr, flush=True)


def target_progress(lines: Lines) -> Callable[[Record, int, int], None]:
    """Shows every photo as it is finished; one without a target stays, with its reason."""

    def on_photo(record: Record, done: int, total: int) -> None:
        if record.status != "done":
            lines.note(f"  {record.status}: {record.id}: {record.reason}")
        lines(done, total)

    return on_photo


def say_faces(faces: Mapping[str, int], then: str = "") -> None:
    """Say how many faces were found in whole photographs, and name those without any.

    Args:
        faces: their number in each, by its id.
        then: what became of those without any.
    """
    if not faces:
        return
    photos, found = count(len(faces), "whole photograph"), count(sum(faces.values()), "face")
    print(f"{found} in {photos}")
    for id, number in faces.items():
        if not number:
            print(f"  no face found: {id}{then}")


def count(number: int, what: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def say_resized(
    count: int,
    what: str = "photo",
    enlarged: Mapping[str, float] | None = None,
    reduced: Mapping[str, float] | None = None,
) -> None:
    """Name photos, or what else is counted, that were not of the network's size.

    Args:
        count: all of them.
        what: one of them.
        enlarged: how many times longer the side of each became that was smaller, by id; told of by itself.
        reduced: by how much the largest face of each whole photograph was reduced, by id.
    """
    larger = len(enlarged or {})
    for number, became in ((max(0, count - larger), "resized"), (larger, "enlarged")):
        if number:
            print(f"{number} {what}{' was' if number == 1 else 's were'} {became} to the model's size")
    if enlarged:
        from adapt.photos.pairs import enlarged_warning

        say_warning(enlarged_warning(enlarged))
    if reduced:
        from adapt.commands.photographs import reduced_warning

        say_warning(reduced_warning(reduced))


def say_warning(warning: str) -> None:
    """What speaks against trusting an outcome, if anything does."""
    if warning:
        print(f"Warning: {warning}")


def end(failed: int) -> None:
    """Leave with an exit code of its own where photos failed."""
    if failed:
        raise typer.Exit(FAILED_PHOTOS)
