"""What is compared between members: one number a member, or none where it has no verdict to count."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.results.records import COLLAPSED, MemberRecord

UNJUDGED = frozenset({"", "invalid", "not_testable"})


@dataclass(frozen=True)
class Outcome:
    """One number a member.

    Args:
        name: how effects call it. title: how people do.
        better: -1 where less is better, 1 where more is.
        bounded: whether it lies in [0, 1] whatever happens; only then can a worst case be stated.
        value: of a judged member; NaN where it has none.
    """

    name: str
    title: str
    better: int
    bounded: bool
    value: Callable[[MemberRecord], float]


def category(record: MemberRecord) -> str:
    """What became of a member: "collapsed", "not collapsed", "diverged", "failed", or a verdict that judges nothing."""
    if record.status != "ok":
        return record.status
    if record.verdict in UNJUDGED:
        return record.verdict or "invalid"
    return "collapsed" if record.verdict in COLLAPSED else "not collapsed"


def is_judged(record: MemberRecord) -> bool:
    """Whether the member has a verdict to count: it neither diverged nor failed, and its code could be judged."""
    return category(record) in ("collapsed", "not collapsed")


def outcome_value(outcome: Outcome, record: MemberRecord) -> float:
    """The member's number; NaN where it diverged, failed, or has none."""
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
    each.name: each
    for each in (
        Outcome("collapsed", "share collapsed", -1, True, _collapsed),
        Outcome("live_fraction", "share of live units", 1, True, _live_fraction),
        Outcome("r2", "R2", 1, False, _r2),
        Outcome("r2_not_collapsed", "R2 given not collapsed", 1, False, _r2_not_collapsed),
    )
}
