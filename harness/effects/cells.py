"""The cell table: every variant with its number of collapsed seeds and the outcome of every seed."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.effects.member_table import NOT_RUN, MemberTable
from harness.effects.outcomes import is_judged
from harness.effects.seed_intervals import log_error_interval, mean_interval
from harness.measures.statistics import wilson


@dataclass(frozen=True)
class Cell:
    """One variant over its seeds.

    Args:
        collapsed: number of collapsed members among the `judged` ones; `share` with Wilson's 95 % bounds `low`,
            `high`, NaN where no member is judged ("not estimable"). 5 of 5 is only [0.57, 1].
        members: number of members that ran. counts: number of members per category.
        worst_low, worst_high: the share if no member without a verdict had collapsed, or all of them had.
        live_fraction, r2: mean over judged seeds, with t intervals; r2 by the geometric mean of the errors.
        outcomes: every seed: seed, category, verdict, live_units, r2, and `output_fault` where the reconstruction is
            no better than the mean.
    """

    variant: str
    levels: dict[str, Any]
    members: int
    judged: int
    collapsed: int
    share: float
    low: float
    high: float
    worst_low: float
    worst_high: float
    live_fraction: float
    live_fraction_low: float
    live_fraction_high: float
    r2: float
    r2_low: float
    r2_high: float
    counts: dict[str, int]
    outcomes: tuple[dict[str, Any], ...]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; non-finite numbers become None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def cells(table: MemberTable) -> list[Cell]:
    """One cell per variant, in the order of the variants."""
    return [_cell(table, row) for row in range(len(table.variants))]


def _cell(table: MemberTable, row: int) -> Cell:
    categories = table.categories[row]
    counts = Counter(str(member_category) for member_category in categories)
    collapsed, judged = counts["collapsed"], counts["collapsed"] + counts["not collapsed"]
    members = categories.size - counts[NOT_RUN]
    share, low, high = _share(collapsed, judged)
    live_fractions = table.values["live_fraction"][row]
    live_interval = mean_interval(live_fractions, (0.0, 1.0))
    r2, r2_interval = log_error_interval(table.values["r2"][row])
    return Cell(
        variant=table.variants[row],
        levels=dict(table.levels[row]),
        members=members,
        judged=judged,
        collapsed=collapsed,
        share=share,
        low=low,
        high=high,
        worst_low=collapsed / members if members else math.nan,
        worst_high=(collapsed + members - judged) / members if members else math.nan,
        live_fraction=float(live_fractions[np.isfinite(live_fractions)].mean())
        if np.isfinite(live_fractions).any()
        else math.nan,
        live_fraction_low=live_interval.low,
        live_fraction_high=live_interval.high,
        r2=r2,
        r2_low=r2_interval.low,
        r2_high=r2_interval.high,
        counts=dict(counts),
        outcomes=tuple(_one(table, row, column) for column in range(len(table.seeds))),
        note="" if judged else _why_not(table, row),
    )


def _share(collapsed: int, judged: int) -> tuple[float, float, float]:
    if not judged:
        return math.nan, math.nan, math.nan
    low, high = wilson(collapsed, judged)
    return collapsed / judged, float(low), float(high)


def _one(table: MemberTable, row: int, column: int) -> dict[str, Any]:
    record = table.records.get((row, column))
    judged = record is not None and is_judged(record)
    return {
        "seed": table.seeds[column],
        **({"split": table.blocks[column][0]} if table.blocks[column][0] else {}),
        "category": str(table.categories[row, column]),
        "verdict": "" if record is None else record.reported_verdict,
        "output_fault": "" if record is None else record.output_fault,
        "live_units": record.live_units if judged and record is not None else None,
        "units": record.units if judged and record is not None else None,
        "r2": record.r2 if judged and record is not None else None,
    }


def _why_not(table: MemberTable, row: int) -> str:
    errors = [
        table.records[position].error
        for position in table.records
        if position[0] == row and table.records[position].error
    ]
    return "not estimable" + (f": {errors[0]}" if errors else ": no member has a verdict")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value
