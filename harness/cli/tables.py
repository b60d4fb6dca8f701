"""Tables for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from harness.report.grouping import tally
from harness.results import COLLAPSED, MemberRecord

LONGEST = 24  # variants: beyond that the levels of each factor are summed up instead


def verdict_table(records: Sequence[MemberRecord]) -> Table:
    """Which variants collapse, in how many of how many seeds; by level where the variants are many."""
    groups: dict[str, list[MemberRecord]] = {}
    for record in records:
        groups.setdefault(record.variant, []).append(record)
    if len(groups) > LONGEST:
        groups = {}
        for record in records:
            for name, level in record.levels.items():
                groups.setdefault(f"{name}={level}", []).append(record)
    table = Table(title="Collapsed members", title_justify="left", header_style="bold")
    table.add_column("variant" if len(groups) <= LONGEST else "level", overflow="fold")
    for column in ("collapsed", "live units", "R2"):
        table.add_column(column, justify="right")
    table.add_column("verdicts")
    for name, members in groups.items():
        table.add_row(Text(name), *_cells(members))
    return table


def _cells(members: Sequence[MemberRecord]) -> tuple[str, str, str, str]:
    collapsed = sum(record.verdict in COLLAPSED for record in members)
    live = [record.live_units for record in members if record.status == "ok"]
    fits = [record.r2 for record in members if record.r2 is not None]
    return (
        f"{collapsed} of {len(members)}",
        f"{sum(live) / len(live):.1f}" if live else "-",
        f"{sum(fits) / len(fits):.2f}" if fits else "-",
        tally(members),
    )
