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
    "finetune.steps=100",  # half of the recipe's, at a higher rate: so few photos are learned by then
    "finetune.learning_rate=5e-4",
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
