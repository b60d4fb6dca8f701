"""One look for one verdict, everywhere: a colour that holds on white and on black, and a shape."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.results.records import MemberRecord


@dataclass(frozen=True)
class VerdictStyle:
    """How a verdict looks.

    Args:
        colour: at least 3 : 1 against the light and the dark page.
        marker: matplotlib's. glyph: the same shape as a character.
        meaning: the verdict in words.
    """

    colour: str
    marker: str
    glyph: str
    meaning: str


def verdict_style(verdict: str) -> VerdictStyle:
    """The look of a verdict or status; one that is not known looks like one that could not be judged.

    >>> verdict_style("healthy").glyph, verdict_style("never heard of").meaning
    ('●', 'could not be judged')
    """
    return LOOKS.get(verdict, LOOKS["not_testable"])


def shown_verdict(record: MemberRecord) -> str:
    """What a member is shown as: its verdict, or "diverged" or "failed" where it has none to count.

    Units that all vary are no health where the reconstruction is no better than the mean: then that is shown.

    >>> shown_verdict(MemberRecord("k", "v", {}, 0, verdict="healthy", flags=["mean_output"]))
    'mean_output'
    """
    if record.status != "ok":
        return record.status
    return (
        record.output_fault if record.verdict == "healthy" and record.output_fault else record.verdict or "not_testable"
    )


def by_severity(verdicts: Iterable[str]) -> list[str]:
    """Verdicts without repetition, the worst first; unknown ones last."""
    ranks = list(LOOKS)
    return sorted(set(verdicts), key=lambda each: (ranks.index(each) if each in ranks else len(ranks), each))


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
    "healthy": VerdictStyle("#1a9a6c", "o", "●", "every unit varies, each its own way"),
    "not_testable": VerdictStyle("#85898f", "d", "◇", "could not be judged"),
    "invalid": VerdictStyle("#85898f", "1", "!", "not finite"),
    "diverged": VerdictStyle("#85898f", "x", "×", "a loss became NaN or infinite"),
    "failed": VerdictStyle("#85898f", "+", "+", "could not be run"),
}
