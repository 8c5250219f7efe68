"""Signs that a terminal or a redirected output cannot show, written in plain ones: a command never fails at a print."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Final

HANDLER: Final = "adapt.plain"
PLAIN: Final = {
    "↑": "^", "↓": "v", "→": "->", "←": "<-", "…": "...", "·": "*", "•": "*", "“": '"', "”": '"', "≤": "<=", "≥": ">=",
    "±": "+-", "×": "x", "−": "-", "–": "-", "—": "-", "‘": "'", "’": "'", "≈": "~", "µ": "u", "°": " deg",  # noqa: RUF001
}  # fmt: skip


def show_what_can_be_shown() -> None:
    """Have standard output and error replace what their encoding lacks, as Windows' does when it is redirected.

    Streams whose user chose a way of replacement (`PYTHONIOENCODING=ascii:replace`) keep it.
    """
    codecs.register_error(HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors=HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """A plain sign for each that cannot be encoded, or its number: `\\u0142`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs), error.end
