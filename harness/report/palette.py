"""One look for one verdict, everywhere: a colour that holds on white and on black, and a shape."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.results.records import MemberRecord


@dataclass(frozen=True)
class Look:
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


def look(verdict: str) -> Look:
    """The look of a verdict or status; one that is not known looks like one that could not be judged.

    >>> look("healthy").glyph, look("never heard of").meaning
    ('●', 'could not be judged')
    """
    return LOOKS.get(verdict, LOOKS["not_testable"])


def outcome_of(record: MemberRecord) -> str:
    """What a member is shown as: its verdict, or "diverged" or "failed" where it has none to count.

    Units that all vary are no health where the reconstruction is no better than the mean: then that is shown.

    >>> outcome_of(MemberRecord("k", "v", {}, 0, verdict="healthy", flags=["mean_output"]))
    'mean_output'
    """
    if record.status != "ok":
        return record.status
    return (
        record.output_fault if record.verdict == "healthy" and record.output_fault else record.verdict or "not_testable"
    )


def in_order(verdicts: Iterable[str]) -> list[str]:
    """Verdicts without repetition, the worst first; unknown ones last."""
    ranks = list(LOOKS)
    return sorted(set(verdicts), key=lambda each: (ranks.index(each) if each in ranks else len(ranks), each))


INK = "#010203"
"""Stands for the page's text colour: replaced by `currentColor` when a figure enters the page."""

LINE = "#040506"
"""Stands for the page's rule colour."""

LOOKS: dict[str, Look] = {
    "full_collapse": Look("#d1495b", "X", "✖", "every unit is constant"),
    "single_live_unit": Look("#d97400", "v", "▼", "one unit varies"),
    "near_collapse": Look("#b8860b", "^", "▲", "what varies hardly varies"),
    "partial_collapse": Look("#3d8fd1", "D", "◆", "some units are constant"),
    "redundant": Look("#8f6fc9", "s", "■", "units are copies of each other"),
    "dimensional_collapse": Look("#c565a8", "P", "✚", "fewer dimensions than units"),
    "invalid_output": Look("#1b8ea6", "2", "!", "every unit varies, the output is not finite"),
    "mean_output": Look("#1b8ea6", "*", "★", "every unit varies, the output does not: it is the mean"),
    "worse_than_mean": Look("#1b8ea6", "<", "◀", "every unit varies, the output is worse than the mean"),
    "healthy": Look("#1a9a6c", "o", "●", "every unit varies, each its own way"),
    "not_testable": Look("#85898f", "d", "◇", "could not be judged"),
    "invalid": Look("#85898f", "1", "!", "not finite"),
    "diverged": Look("#85898f", "x", "×", "a loss became NaN or infinite"),
    "failed": Look("#85898f", "+", "+", "could not be run"),
}
