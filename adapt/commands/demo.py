"""The demo: the main job on photographs that ship, with their clean originals for the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from adapt.commands.progress import ProgressLine
    from adapt.commands.run import Result

DATA: Final = Path(__file__).parents[1] / "demo_data"
ABOUT: Final = (
    "These are photographs of nobody: faces that SDXL and FLUX.1-schnell drew (SFHQ-T2I, MIT), which no network of the"
    " pack was trained on. They are shown as a camera would in little light, with its sensor's noise; the clean"
    " originals are read for the table alone."
)

OVERRIDES: Final = (
    "finetune.batch=4",  # a demo is not waited for
    "finetune.steps=60",
    "verdict.photos=24",
)


def run_demo(out: Path, *, progress: Callable[[str], ProgressLine], overwrite: bool = False) -> Result:
    """`adapt run` on the demo's photos, with the embedded pack."""
    from adapt.commands.run import run

    return run(
        DATA / "photos",
        out,
        truth=DATA / "clean",
        overrides=OVERRIDES,
        overwrite=overwrite,
        progress=progress,
        title="Demo: a camera's noise in little light",
        notes=[ABOUT],
    )
