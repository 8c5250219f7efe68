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
    "These are not photographs of real people, but for one: each face is a blend of four portraits that the pack's"
    " diffusion prior drew anew, and one is the astronaut Eileen Collins (NASA, public domain, from"
    " scikit-image). A camera's noise was laid over them; the clean originals are read for the table alone."
)

OVERRIDES: Final = (
    "targets.start_t=400",  # so strong a noise leaves less of a face than the recipe is made for
    "targets.steps=4",
    "finetune.steps=80",  # fewer than the recipe's, at a higher rate: so few photos are learned by then
    "finetune.learning_rate=5e-4",
    "verdict.photos=24",  # a demo is not waited for
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
        title="Demo: faces with a camera's noise",
        notes=[ABOUT],
    )
