"""Whether one model is better than another, photo by photo, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from adapt.errors import UsageError
from adapt.evaluate.evaluation import Evaluation, mean_and_error
from adapt.evaluate.tables import tabulate

_JUDGED: Final = ("psnr", "ssim", "perceptual")
_CLEAR: Final = 2.0  # standard errors; about 95 %


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says.

    Attributes:
        better: True, False, or None where the numbers do not decide.
        text: one or two sentences with the numbers.
    """

    better: bool | None
    text: str


def judge(base: Evaluation, adapted: Evaluation, *, base_name: str = "pre-trained", name: str = "adapted") -> Verdict:
    """Whether `adapted` is better than `base`, from paired differences of PSNR, SSIM and perceptual distance.

    A metric decides where its mean difference is more than two standard errors from zero. Better: some decide for
    it and none against it. Worse: the other way round. KID and the differences to the photo do not take part: the
    one has an interval too wide for few photos, the others measure faithfulness to a damaged picture.

    Raises:
        UsageError: the two were not evaluated on the same photos in the same way.
    """
    tabulate({base_name: base, name: adapted})  # refuses different protocols
    ours = {row["id"]: row for row in adapted.rows}
    if ours.keys() != {row["id"] for row in base.rows}:
        raise UsageError(f"'{base_name}' and '{name}' were evaluated on different photos and do not compare")
    won, lost, phrases = 0, 0, list[str]()
    for key in _JUDGED:
        if key not in base.scores or key not in adapted.scores:
            continue
        protocol = base.scores[key].protocol
        sign = 1 if protocol.better == "higher" else -1
        gains = [sign * (float(ours[row["id"]][key]) - float(row[key])) for row in base.rows]
        mean, error = mean_and_error(gains)
        won += mean > _CLEAR * error
        lost += mean < -_CLEAR * error
        decimals = 2 if key == "psnr" else 4
        unit = f" {protocol.unit}" if protocol.unit else ""
        spread = f" ± {error:.{decimals}f}" if math.isfinite(error) else ""
        phrases.append(
            f"{protocol.title} {sign * mean:+.{decimals}f}{spread}{unit}"
            f" (better on {sum(gain > 0 for gain in gains)} of {len(gains)} photos)"
        )
    if not phrases:
        return Verdict(None, "Without a truth to compare with, numbers cannot say which model is better: look.")
    numbers = f"{'; '.join(phrases)}."
    if won and not lost:
        return Verdict(True, f"The {name} model is better than the {base_name} one. {numbers}")
    if lost and not won:
        return Verdict(False, f"The {name} model is worse than the {base_name} one. {numbers}")
    reason = "the metrics disagree" if won else "no difference is clear of chance"
    return Verdict(None, f"The numbers do not say which model is better: {reason}. {numbers}")
