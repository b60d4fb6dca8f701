"""Rows as one table of plain text: a section a part, a line a contender, both set-ups side by side."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rows import Row

TITLES = {
    "machine": "Machine: billions of floating-point operations, and of bytes read and written, per second",
    "training": "Training: model-steps per second; times the plain loop (in the left half: in the faster of its two set-ups)",
    "logging": "Logging: metric rows per second; times log_metrics a step",
    "start-up": "Start-up: seconds",
    "end to end": "End to end: seconds; times training alone",
}
TWO_SETUPS = ("machine", "training")
COMPARED = ("training", "logging", "end to end")
BLOCK = ("median", "low to high", "times", "MB")
HEADS = (
    (
        "",
        "",
        "",
        "processes",
        "the whole machine",
        "",
        "",
        "",
        "one process, one thread",
        "",
        "",
        "",
    ),
    ("", "members", "contender", "x threads", *BLOCK, *BLOCK),
)
WORDS = (0, 2)  # columns of words stand left, numbers right
BLOCKS = (4, 8)  # where they begin
GAP = "  "


def table(rows: Sequence[Row]) -> str:
    """All of it."""
    sections = {part: list(lines(list(found))) for part, found in groupby(rows, key=lambda row: row.part)}
    every = [HEADS[1], *(line for found in sections.values() for line in found)]
    widths = [max(len(line[column]) for line in every) for column in range(len(HEADS[1]))]
    rule = "-" * len(aligned(HEADS[1], widths))
    printed = [above(widths), aligned(HEADS[1], widths)]
    for part, found in sections.items():
        printed += [rule, TITLES[part], rule, *(aligned(line, widths) for line in found)]
    return "\n".join(line.rstrip() for line in [*printed, rule])


def lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """The lines of one part; subject and members stand once a group."""
    for (subject, members), found in groupby(rows, key=lambda row: (row.subject, row.members)):
        label = [subject, "" if members is None else f"{members:,}"]
        setups = [list(each) for _, each in groupby(found, key=lambda row: row.contender)]
        # a user who sees that one thread is faster takes one: nobody is compared with the slower
        best = max(setups[0], key=lambda row: row.median)
        for measured in setups:
            whole, alone = measured[0], measured[-1]
            first = block(whole, best)
            second = block(alone, setups[0][-1]) if whole.part in TWO_SETUPS else [""] * len(BLOCK)
            yield [*label, whole.contender, f"{whole.processes} x {whole.threads}", *first, *second]
            label = ["", ""]


def block(row: Row, reference: Row) -> list[str]:
    """Median, spread, the median as a multiple of the reference's, and memory."""
    spread = f"{number(min(row.values))} to {number(max(row.values))}" if len(row.values) > 1 else "once"
    times = number(row.median / reference.median) if row.part in COMPARED else ""
    return [number(row.median), spread, times, "" if row.peak_mb is None else f"{row.peak_mb:,.0f}"]


def number(value: float) -> str:
    """Three digits, or all that stand before the point.

    >>> number(12345.6), number(83.52), number(1.713), number(0.0213)
    ('12,346', '83.5', '1.71', '0.021')
    """
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"


def aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """One line of the table."""
    cells = zip(line, widths, strict=True)
    return GAP.join(f"{cell:{'<' if column in WORDS else '>'}{width}}" for column, (cell, width) in enumerate(cells))


def above(widths: Sequence[int]) -> str:
    """The upper line of the head: what a block of columns is about stands in its middle."""
    first, second = BLOCKS
    names = [f"{cell:>{width}}" for cell, width in zip(HEADS[0][:first], widths, strict=False)]
    spans = [len(GAP.join(" " * width for width in part)) for part in (widths[first:second], widths[second:])]
    blocks = [f" {HEADS[0][start]} ".center(span, "-") for start, span in zip(BLOCKS, spans, strict=True)]
    return GAP.join([*names, *blocks])
