"""Outcomes that are compared between members: one number per member, NaN where it has no verdict to count."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.results.records import COLLAPSED, UNJUDGED, MemberRecord


@dataclass(frozen=True)
class Outcome:
    """One number per member.

    Args:
        name: identifier in effects. title: name in texts.
        better: -1 where smaller is better, 1 where larger is better.
        bounded: True where the number always lies in [0, 1]; only then a worst case can be stated.
        value: function of a judged member; NaN where it has no such number.
    """

    name: str
    title: str
    better: int
    bounded: bool
    value: Callable[[MemberRecord], float]


def category(record: MemberRecord) -> str:
    """Category of a member: "collapsed", "not collapsed", "diverged", "failed", "invalid" or "not_testable"."""
    if record.status != "ok":
        return record.status
    if record.verdict in UNJUDGED:
        return record.verdict or "invalid"
    return "collapsed" if record.verdict in COLLAPSED else "not collapsed"


def is_judged(record: MemberRecord) -> bool:
    """True where the member neither diverged nor failed and its code could be judged."""
    return category(record) in ("collapsed", "not collapsed")


def outcome_value(outcome: Outcome, record: MemberRecord) -> float:
    """Number of the member; NaN where it diverged, failed, or has none."""
    return outcome.value(record) if is_judged(record) else math.nan


def _collapsed(record: MemberRecord) -> float:
    return float(record.verdict in COLLAPSED)


def _live_fraction(record: MemberRecord) -> float:
    return record.live_units / record.units if record.units else math.nan


def _r2(record: MemberRecord) -> float:
    return math.nan if record.r2 is None else float(record.r2)


def _r2_not_collapsed(record: MemberRecord) -> float:
    return math.nan if record.verdict in COLLAPSED else _r2(record)


OUTCOMES = {
    outcome.name: outcome
    for outcome in (
        Outcome("collapsed", "share collapsed", -1, True, _collapsed),
        Outcome("live_fraction", "share of live units", 1, True, _live_fraction),
        Outcome("r2", "R2", 1, False, _r2),
        Outcome("r2_not_collapsed", "R2 given not collapsed", 1, False, _r2_not_collapsed),
    )
}
