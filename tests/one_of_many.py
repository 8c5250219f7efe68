"""`adapt ARGUMENTS` in one process of several; what it ended with goes into a file of its own, for a test to compare.

Called with a folder, then the arguments: `{rank}.json` there holds the digest of the fine-tuned network and of the
discriminator, which photos were in its batches, what became of the run in its eyes, and what it wrote, made, renamed
or removed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

TOUCHES = ("os.rename", "os.remove", "os.rmdir")


def main() -> None:
    folder = Path(sys.argv.pop(1))
    touched: list[str] = []
    told: dict[str, Any] = {"batches": []}

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            touched.append(str(arguments[0]))
        elif event in TOUCHES or (event == "os.mkdir" and not os.path.isdir(arguments[0])):
            touched.extend(str(each) for each in arguments)

    from adapt import cli
    from adapt.finetuning import loop
    from adapt.perceptual.distance import tensors_digest

    finetune, batch_indices, build = loop.finetune, loop.batch_indices, loop.build_discriminator
    built: list[Any] = []

    def noting_finetune(restorer: Any, *arguments: Any, **options: Any) -> Any:
        outcome = finetune(restorer, *arguments, **options)
        told["weights"] = tensors_digest(restorer.network.state_dict())
        told["discriminator"] = [tensors_digest(each.state_dict()) for each in built]
        told["outcome"] = [outcome.best_step, outcome.best]
        return outcome

    def noting_discriminator(*arguments: Any) -> Any:
        both = build(*arguments)
        built.extend([] if both is None else both[:1])
        return both

    def noting_indices(seed: int, step: int, *, batch: int, count: int) -> Sequence[int]:
        chosen = batch_indices(seed, step, batch=batch, count=count)
        told["batches"].append(list(chosen))
        return chosen

    sys.addaudithook(note)
    noting: dict[str, Any] = {
        "finetune": noting_finetune, "batch_indices": noting_indices, "build_discriminator": noting_discriminator,
    }
    with patch.multiple(loop, **noting):
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise
    told["touched"] = touched.copy()
    (folder / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
