"""The command line: each command parses, calls one function, and prints. Heavy imports stay inside the functions.

A new command is a function in a module of this package and a line in `COMMANDS`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

import typer

from adapt.cli import packs, recipes
from adapt.cli.adapting import demo, run
from adapt.cli.aligning import align
from adapt.cli.calibrating import calibrate
from adapt.cli.cores import let_threads_sleep
from adapt.cli.degrading import degrade
from adapt.cli.models import evaluate, export, restore
from adapt.cli.signs import show_what_can_be_shown
from adapt.cli.targets import generate_targets
from adapt.cli.training import finetune, pretrain
from adapt.errors import AdaptError

STOPPED: Final = 1
INTERRUPTED: Final = 130

COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "run": run,
    "demo": demo,
    "generate-targets": generate_targets,
    "finetune": finetune,
    "restore": restore,
    "align": align,
    "evaluate": evaluate,
    "export": export,
    "pretrain": pretrain,
    "degrade": degrade,
    "calibrate": calibrate,
}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Unsupervised domain adaptation for blind face restoration: a folder of damaged face photographs in, a fast"
    " restorer for exactly this damage out. It takes whole photographs and aligned crops of faces.",
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(packs.app, name="packs")
app.add_typer(recipes.app, name="recipes")


def main() -> None:
    """Run the command line; what a user can mend becomes one clear line and an exit code, never a traceback.

    Exit codes: those of `adapt.errors`; FAILED_PHOTOS where the rest was done; STOPPED where a file or the disk stopped
    the work; INTERRUPTED.
    """
    let_threads_sleep()
    show_what_can_be_shown()
    try:
        app()
    except AdaptError as error:
        print(f"adapt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        file = "" if error.filename is None else f"{_shown(error.filename)}: "
        print(f"adapt: {file}cannot be read or written: {error.strerror or error}", file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer answers an interrupt with this code, and without a word
            _say_interrupted()
        raise


def _say_interrupted() -> None:
    again = "the same command again, without --overwrite," if "--overwrite" in sys.argv else "the same command again"
    start = "\n" if sys.stderr.isatty() else ""  # below a line of progress that is not at its end
    print(f"{start}adapt: interrupted; {again} goes on from here", file=sys.stderr)


def _shown(file: str | bytes | int) -> str:
    """A file's name as it can be printed: names that are not Unicode get escapes."""
    text = os.fsdecode(file) if isinstance(file, str | bytes) else str(file)
    return text.encode("utf-8", "backslashreplace").decode()
