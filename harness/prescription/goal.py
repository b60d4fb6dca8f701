"""Outcomes that count as success, and budgets of time."""

import re
from collections.abc import Callable, Sequence
from statistics import median

from harness.errors import HarnessError
from harness.results import COLLAPSED, MemberRecord

Meets = Callable[[MemberRecord], bool]

SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
PCA_SHARE = 0.5  # of the R2 of PCA with as many components as units, below which a model is worth improving


def seconds_of(budget: str | float) -> float:
    """Return a budget in seconds.

    >>> seconds_of("5m"), seconds_of("90s"), seconds_of(30)
    (300.0, 90.0, 30.0)

    Raises:
        HarnessError: for anything else, and for no time at all.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(budget))
    seconds = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise HarnessError(f"budget: expected a time such as 90s, 5m or 1h, got {budget!r}")
    return seconds


def goal_of(goal: str) -> Meets:
    """Return the function that is True for a member that meets a goal.

    Raises:
        HarnessError: for a goal that is not `live`, `usable` or `r2>NUMBER`.
    """
    if goal == "live":
        return lambda record: record.status == "ok" and record.verdict not in COLLAPSED
    if goal == "usable":
        return lambda record: not has_failed(record)
    match = re.fullmatch(r"\s*r2\s*>\s*(-?\d*\.?\d+)\s*", goal)
    if match is None:
        raise HarnessError(f"goal: expected live, usable or a bound such as r2>0.4, got {goal!r}")
    return above(float(match[1]))


def failed_if(goal: str) -> str:
    """Return the outcomes that miss a goal, in words.

    >>> failed_if("live"), failed_if("usable")
    ('collapsed, or diverged', 'collapsed, output no better than the mean, or diverged')
    >>> failed_if("r2>0.4")
    'collapsed, output no better than the mean, or diverged, or not r2>0.4'
    """
    if goal == "live":
        return "collapsed, or diverged"
    usable = "collapsed, output no better than the mean, or diverged"
    return usable if goal == "usable" else f"{usable}, or not {''.join(goal.split())}"


def above(bound: float) -> Meets:
    """Return the function that is True for a member that did not fail and has an R2 above the bound."""
    return lambda record: not has_failed(record) and record.r2 is not None and record.r2 > bound


def has_failed(record: MemberRecord) -> bool:
    """Return True for a member that failed or has no result: it cannot be used."""
    return record.failed is not False


def is_poor(records: Sequence[MemberRecord]) -> bool:
    """Return True where the median R2 is below the share `PCA_SHARE` of that of PCA."""
    values = [record.r2 for record in records if record.r2 is not None and record.pca_r2]
    return bool(values) and median(values) < PCA_SHARE * pca_level(records)[1]


def pca_level(records: Sequence[MemberRecord]) -> tuple[int, float]:
    """Return the largest number of components for which the records have the R2 of PCA, and that R2.

    A record has it for up to as many components as it has live units, so the number is the width of the bottleneck
    if all units of some record are live.
    """
    levels = [(len(record.pca_r2), record.pca_r2[-1]) for record in records if record.r2 is not None and record.pca_r2]
    most = max(components for components, _ in levels)
    return most, median(r2 for components, r2 in levels if components == most)
