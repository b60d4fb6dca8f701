"""Tables for the terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from harness.grid.factorial import changes
from harness.report.groups import nearest_first, tally
from harness.results import MemberRecord
from harness.results.records import Level


def verdict_table(records: Sequence[MemberRecord], baseline: Mapping[str, Level] | None = None) -> Table:
    """Tabulate failed and collapsed members by variant: the baseline first, then the variants nearest to it."""
    groups = nearest_first(records, baseline or {})
    table = Table(
        title="Failed members: collapsed, no better than the mean, or diverged",
        title_justify="left",
        caption_justify="left",
        header_style="bold",
    )
    hidden = len({record.variant for record in records}) - len(groups)
    if hidden:
        table.caption = f"and {hidden} more variants, in the report"
    table.add_column("variant", overflow="fold")
    for column in ("failed", "collapsed", "live units", "R2"):
        table.add_column(column, justify="right")
    table.add_column("verdicts")
    for name, members in groups.items():
        as_it_is = baseline and not changes(members[0].levels, baseline)
        table.add_row(Text(f"{name} (baseline)" if as_it_is else name), *_cells(members))
    return table


def _cells(members: Sequence[MemberRecord]) -> tuple[str, ...]:
    failed, collapsed = (sum(bool(getattr(record, name)) for record in members) for name in ("failed", "collapsed"))
    live = [record.live_units for record in members if record.status == "ok"]
    fits = [record.r2 for record in members if record.r2 is not None]
    return (
        f"{failed} of {len(members)}",
        str(collapsed),
        f"{sum(live) / len(live):.1f}" if live else "-",
        f"{sum(fits) / len(fits):.2f}" if fits else "-",
        tally(members),
    )
