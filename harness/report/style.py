"""One look per verdict on all pages: a color legible on white and on black, and a shape."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.results.records import MemberRecord


@dataclass(frozen=True)
class VerdictStyle:
    """Look of a verdict.

    Args:
        colour: color with a contrast of at least 3 : 1 against the light and the dark page.
        marker: marker of matplotlib. glyph: the same shape as a character.
        meaning: the verdict in words.
    """

    colour: str
    marker: str
    glyph: str
    meaning: str


def verdict_style(verdict: str) -> VerdictStyle:
    """Look of a verdict or status; an unknown one looks like a verdict that could not be judged.

    >>> verdict_style("healthy").glyph, verdict_style("never heard of").meaning
    ('●', 'could not be judged')
    """
    return EVERY_LOOK.get(verdict, LOOKS["not_testable"])


def shown_verdict(record: MemberRecord) -> str:
    """Verdict shown for a member; "diverged" or "failed" where it has none.

    A member whose units all vary and whose reconstruction is no better than the mean is never shown as healthy.

    >>> shown_verdict(MemberRecord("k", "v", {}, 0, verdict="healthy", flags=["mean_output"]))
    'mean_output'
    """
    if record.status != "ok":
        return record.status
    return record.reported_verdict or "not_testable"


def by_severity(verdicts: Iterable[str]) -> list[str]:
    """Distinct verdicts, the worst first, unknown ones last."""
    ranks = list(EVERY_LOOK)
    return sorted(
        set(verdicts), key=lambda verdict: (ranks.index(verdict) if verdict in ranks else len(ranks), verdict)
    )


INK = "#010203"
"""Stands for the page's text colour: replaced by `currentColor` when a figure enters the page."""

LINE = "#040506"
"""Stands for the page's rule colour."""

LOOKS: dict[str, VerdictStyle] = {
    "full_collapse": VerdictStyle("#d1495b", "X", "✖", "every unit is constant"),
    "single_live_unit": VerdictStyle("#d97400", "v", "▼", "one unit varies"),
    "near_collapse": VerdictStyle("#b8860b", "^", "▲", "what varies hardly varies"),
    "partial_collapse": VerdictStyle("#3d8fd1", "D", "◆", "some units are constant"),
    "redundant": VerdictStyle("#8f6fc9", "s", "■", "units are copies of each other"),
    "dimensional_collapse": VerdictStyle("#c565a8", "P", "✚", "fewer dimensions than units"),
    "invalid_output": VerdictStyle("#1b8ea6", "2", "!", "every unit varies, the output is not finite"),
    "constant_output": VerdictStyle("#1b8ea6", ">", "▶", "units vary, the output does not"),
    "mean_output": VerdictStyle("#1b8ea6", "*", "★", "units vary, the output is no better than the mean"),
    "worse_than_mean": VerdictStyle("#1b8ea6", "<", "◀", "every unit varies, the output is worse than the mean"),
    "unused": VerdictStyle("#1b8ea6", "p", "◐", "units vary, the output does not depend on them"),
    "healthy": VerdictStyle("#1a9a6c", "o", "●", "every unit varies, each its own way"),
    "not_testable": VerdictStyle("#85898f", "d", "◇", "could not be judged"),
    "invalid": VerdictStyle("#85898f", "1", "!", "not finite"),
    "diverged": VerdictStyle("#85898f", "x", "×", "a loss became NaN or infinite"),
    "failed": VerdictStyle("#85898f", "+", "+", "could not be run"),
}

UNIT_LOOKS: dict[str, VerdictStyle] = {
    "constant": VerdictStyle("#d1495b", "X", "✖", "the unit does not vary with its input"),
    "doubtful": VerdictStyle("#d97400", "^", "▲", "live, but the unit hardly varies or fires on few rows"),
    "alive": VerdictStyle("#1a9a6c", "o", "●", "the unit varies with its input"),
    "not_judged": VerdictStyle("#85898f", "d", "◇", "the unit could not be judged"),
}
"""Looks of single units, by the kind of their verdict."""

EVERY_LOOK = {**LOOKS, **UNIT_LOOKS}
