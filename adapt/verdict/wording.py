"""A verdict in plain words: what is exported, and why."""

from __future__ import annotations

from typing import Final

from adapt.verdict.decision import Comparison, Finding, Verdict
from adapt.verdict.evidence import EVIDENCE

ALIKE: Final = 1e-4  # a gain as a share: what rounding makes of two models with the same weights


def sentences(verdict: Verdict) -> str:
    """What is exported, in a sentence, and in a second one what speaks for that."""
    shown, photos = verdict.shown, f"{verdict.judged} photo{'' if verdict.judged == 1 else 's'}"
    total = f"evidence in sum {shown.total.mean:+.3f} ({shown.total.shown('+.3f')})"
    judged = f"judged on {photos} without originals: {total}"
    if verdict.strength:
        how = "" if verdict.strength == 1 else f", {100 * verdict.strength:.0f} % of the way from the start to it"
        opening = f"Exported: the adapted model{how}, {judged}."
    elif all(max(abs(each.gain.low), abs(each.gain.high)) < ALIKE for each in shown.findings):
        return (
            f"Exported: the model it started from, unchanged. On photos held back no step of the training was better;"
            f" on {photos} without originals nothing differs."
        )
    else:
        opening = f"Exported: the model it started from, unchanged. The adapted one is not better, {judged}."
    return " ".join([opening, *_reasons(verdict, shown)])


def _reasons(verdict: Verdict, shown: Comparison) -> list[str]:
    gained = [EVIDENCE[each.key].gained + _numbers(each) for each in shown.findings if each.says == "better"]
    lost = [EVIDENCE[each.key].lost + _numbers(each) for each in shown.findings if each.says == "worse"]
    first, second = (gained, lost) if verdict.strength else (lost, gained)
    words = ("For it", "against it") if verdict.strength else ("Against it", "for it")
    parts = [f"{word}: {'; '.join(reasons)}" for word, reasons in zip(words, (first, second), strict=True) if reasons]
    if not parts:
        return ["What differs may be chance."]
    text = "; ".join(parts)
    return [text[0].upper() + text[1:] + "."]


def _numbers(finding: Finding) -> str:
    change = 100 * (finding.candidate - finding.base) / finding.base if finding.base else 0.0
    return f" ({change:+.0f} %)"


def evidence_table(verdict: Verdict) -> list[tuple[str, str, str, str, str]]:
    """Lines for a table: evidence, the start's mean, the candidate's, the gain in percent with its interval, and what
    that says."""
    lines: list[tuple[str, str, str, str, str]] = []
    for finding in verdict.shown.findings:
        gain = f"{100 * finding.gain.mean:+.1f} % ({finding.gain.shown('+.1f', 100)})"
        lines.append(
            (EVIDENCE[finding.key].title, f"{finding.base:.4f}", f"{finding.candidate:.4f}", gain, finding.says)
        )
    return lines
