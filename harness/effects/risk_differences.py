"""Difference of shares of two unpaired arms: Newcombe's interval and Boschloo's exact test."""

import math
from dataclasses import dataclass

import numpy as np

from harness.effects.seed_intervals import Interval
from harness.errors import HarnessError
from harness.measures.statistics import wilson


@dataclass(frozen=True)
class RiskDifference:
    """Share of the first arm minus share of the second, from -1 to 1, with 95 % bounds and an exact two-sided p."""

    estimate: float
    low: float
    high: float
    p: float
    first: tuple[int, int]
    second: tuple[int, int]
    interval: str = "Newcombe"
    test: str = "Boschloo's exact test"


def risk_difference(first: tuple[int, int], second: tuple[int, int]) -> RiskDifference:
    """Compare two arms.

    Args:
        first, second: (collapsed, members) of each arm.

    >>> difference = risk_difference((5, 5), (0, 5))
    >>> difference.estimate, round(difference.low, 3), round(difference.p, 4)
    (1.0, 0.386, 0.002)

    Raises:
        HarnessError: where an arm has no member, or a count is larger than its arm.
    """
    for count, members in (first, second):
        if not 0 <= count <= members or members < 1:
            raise HarnessError(
                f"risk_difference: expected (collapsed, members) with at least one member, got ({count}, {members})"
            )
    interval = newcombe(first, second)
    return RiskDifference(
        first[0] / first[1] - second[0] / second[1],
        interval.low,
        interval.high,
        boschloo_p(first, second),
        first,
        second,
    )


def newcombe(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Newcombe's interval of a difference of shares, from the two Wilson intervals.

    >>> interval = newcombe((56, 70), (48, 80))
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0524, 0.3339)

    Source: Newcombe 1998, Statistics in Medicine 17:873, method 10; the example is his.
    """
    (x, m), (y, n) = first, second
    p, q = x / m, y / n
    (low, low_other), (high, high_other) = (bounds.tolist() for bounds in wilson(np.array([x, y]), np.array([m, n])))
    below = math.hypot(p - low, high_other - q)
    above = math.hypot(high - p, q - low_other)
    return Interval(p - q - below, p - q + above, "Newcombe")


def boschloo_p(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Boschloo's exact two-sided p; unlike Fisher's test it does not fix the total number collapsed.

    Source: Boschloo 1970, Statistica Neerlandica 24.
    """
    from scipy.stats import boschloo_exact

    (x, m), (y, n) = first, second
    if x + y in (0, m + n):  # no table is more extreme: scipy gives NaN
        return 1.0
    # scipy wants the groups in columns
    return min(1.0, float(boschloo_exact([[x, y], [m - x, n - y]]).pvalue))
