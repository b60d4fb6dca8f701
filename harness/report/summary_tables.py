"""Verdict tables: outcomes of the members by the levels of each factor and by variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.effects.outcomes import category, is_judged
from harness.measures.statistics import wilson
from harness.report.format import DASH, bounds, number, share
from harness.report.groups import baseline_marked, by_level, nearest_first, tally, variants
from harness.report.style import shown_verdict, verdict_style
from harness.results.records import Level, MemberRecord


@dataclass(frozen=True)
class SeedMark:
    """One seed: its shape as a character and its verdict."""

    glyph: str
    verdict: str
    seed: int


@dataclass(frozen=True)
class SummaryRow:
    """Summary of a group of members.

    Args:
        name: level or variant. failed: "3 of 8". bar: failed share in percent; None where no member has a result.
        interval: Wilson's 95 % bounds of that share. collapsed: their number. lost: members without a verdict.
        live: mean number of live units and width. r2: mean R2 of the judged members. marks: every seed, in order.
    """

    name: str
    members: int
    failed: str
    collapsed: int
    bar: float | None
    interval: str
    live: str
    r2: str
    lost: str
    verdicts: str
    marks: Sequence[SeedMark]


def first_rows(records: Sequence[MemberRecord], baseline: Mapping[str, Level]) -> list[SummaryRow]:
    """The first table: the baseline, then the variants by how much they change of it."""
    groups = nearest_first(records, baseline)
    return [row_of(baseline_marked(name, members, baseline), members) for name, members in groups.items()]


def level_rows(
    records: Sequence[MemberRecord], baseline: Mapping[str, Level] | None = None
) -> dict[str, list[SummaryRow]]:
    """Factor -> one row per level, over the variants that exist with every level of the factor."""
    own = {name: str(level) for name, level in (baseline or {}).items()}
    return {
        factor: [
            row_of(f"{level} (baseline)" if own.get(factor) == level else level, members)
            for level, members in groups.items()
        ]
        for factor, groups in by_level(records).items()
    }


def variant_rows(records: Sequence[MemberRecord], baseline: Mapping[str, Level]) -> list[SummaryRow]:
    """One row per variant, sorted by failed share (largest first), then live units (fewest first)."""
    groups = variants(records)
    order = sorted(groups, key=lambda name: _gravity(groups[name]))
    return [row_of(baseline_marked(name, groups[name], baseline), groups[name]) for name in order]


def row_of(name: str, members: Sequence[MemberRecord]) -> SummaryRow:
    """Summarize a group of members in one row; diverged members are failed, and counted as lost too."""
    judged = [record for record in members if is_judged(record)]
    outcomes = [record.failed for record in members if record.failed is not None]
    failed = sum(outcomes)
    low, high = wilson(failed, len(outcomes)) if outcomes else (float("nan"), float("nan"))
    ordered = sorted(members, key=lambda record: record.seed)
    return SummaryRow(
        name=name,
        members=len(members),
        failed=share(failed, len(outcomes)),
        collapsed=sum(bool(record.collapsed) for record in members),
        bar=100 * failed / len(outcomes) if outcomes else None,
        interval=bounds(float(low), float(high)),
        live=_live(judged),
        r2=number(_mean([record.r2 for record in judged if record.r2 is not None]), 2),
        lost=_lost(members),
        verdicts=tally(members),
        marks=[
            SeedMark(verdict_style(shown_verdict(record)).glyph, shown_verdict(record), record.seed)
            for record in ordered
        ],
    )


def _gravity(members: Sequence[MemberRecord]) -> tuple[float, float]:
    failed = [float(record.failed) for record in members if record.failed is not None]
    live = [record.live_units / max(record.units, 1) for record in members if is_judged(record)]
    return -(_mean(failed) or 0.0), 1.0 if not live else float(np.mean(live))


def _live(judged: Sequence[MemberRecord]) -> str:
    if not judged:
        return DASH
    widths = sorted({record.units for record in judged})
    of = str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    return f"{number(_mean([record.live_units for record in judged]), 2)} of {of}"


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def _lost(members: Sequence[MemberRecord]) -> str:
    categories = [category(record) for record in members]
    counts = {
        name: categories.count(name) for name in dict.fromkeys(categories) if name not in ("collapsed", "not collapsed")
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or DASH
