"""Intervals over seeds, and what is said where an interval of the usual kind would lie."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]
LEVEL = 0.95
POWER = 0.80


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, and how it was found; NaN bounds where there is none."""

    low: float
    high: float
    method: str


def t_interval(values: Array) -> Interval:
    """Student's interval of the mean, over seeds.

    >>> found = t_interval(np.array([0.0, 1.0, 2.0]))
    >>> round(found.low, 4), round(found.high, 4)
    (-1.4841, 3.4841)
    """
    known = values[np.isfinite(values)]
    if known.size < 2:
        return Interval(math.nan, math.nan, "one seed has no spread" if known.size else "no seed")
    half = float(stdtrit(known.size - 1, 0.5 + LEVEL / 2) * known.std(ddof=1) / math.sqrt(known.size))
    return Interval(float(known.mean()) - half, float(known.mean()) + half, "t over seeds")


def mean_interval(values: Array, limits: tuple[float, float] | None = None) -> Interval:
    """Interval of the mean over seeds; where all seeds agree, the t interval would have width 0 and claim too much.

    S seeds that agree leave, at 95 %, a share of up to 1 - .025^(1/S) of other seeds that may do anything (Clopper-
    Pearson). With limits to what they may do, that bounds the mean; without, there is no interval.

    Args:
        values: `[seed]`. limits: least and largest possible value, for a bounded outcome.

    >>> found = mean_interval(np.full(10, -1.0), (-1.0, 1.0))
    >>> round(found.low, 3), round(found.high, 3), found.method
    (-1.0, -0.383, 'all seeds agree: binomial bound')
    """
    known = values[np.isfinite(values)]
    if known.size >= 2 and not agree(known):
        found = t_interval(known)
        return (
            found if limits is None else Interval(max(found.low, limits[0]), min(found.high, limits[1]), found.method)
        )
    if known.size < 2:
        return t_interval(known)
    if limits is None:
        return Interval(math.nan, math.nan, "all seeds agree: no interval")
    share, value = unseen_share(known.size), float(known[0])
    low, high = (value + share * (limit - value) for limit in limits)
    return Interval(low, high, "all seeds agree: binomial bound")


def agree(values: Array) -> bool:
    """Whether all seeds have the same value, but for rounding."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def unseen_share(seeds: int) -> float:
    """Largest share of seeds that may behave otherwise when none of so many did: Clopper-Pearson's bound of 0 of S.

    >>> round(unseen_share(10), 4)
    0.3085
    """
    return float(1 - ((1 - LEVEL) / 2) ** (1 / seeds))


def log_error_interval(r2: Array) -> tuple[float, Interval]:
    """R2 over seeds by its error 1 - R2 on the log scale: one minus the geometric mean, with its t interval.

    Errors differ by factors, so their logarithms are nearer to normal. Where an R2 is exactly 1 the plain mean is used.

    >>> estimate, found = log_error_interval(np.array([0.9, 0.9, 0.99, 0.99]))
    >>> round(estimate, 4), found.method
    (0.9684, 't over seeds, log error')
    """
    known = r2[np.isfinite(r2)]
    if known.size == 0 or (known >= 1).any():
        return (float(known.mean()) if known.size else math.nan), mean_interval(known)
    logs = np.log(1 - known)
    found = mean_interval(logs)
    method = found.method + (", log error" if found.method.startswith("t ") else "")
    return float(1 - np.exp(logs.mean())), Interval(1 - math.exp(found.high), 1 - math.exp(found.low), method)


def detectable_effect(deviation: float, seeds: int) -> float:
    """Smallest true difference found in 4 of 5 repetitions: (t_.975 + t_.80) sd / sqrt(S), S - 1 degrees of freedom.

    >>> round(detectable_effect(0.1, 10), 4)
    0.0995

    Source: Colas et al. 2018.
    """
    if seeds < 2 or not deviation > 0:
        return math.nan
    quantiles = stdtrit(seeds - 1, 0.5 + LEVEL / 2) + stdtrit(seeds - 1, POWER)
    return float(quantiles * deviation / math.sqrt(seeds))


def t_test_p(values: Array) -> float:
    """Two-sided p of Student's t test, for comparison in the benchmark; NaN where all seeds agree."""
    known = values[np.isfinite(values)]
    if known.size < 2 or agree(known):
        return math.nan
    statistic = known.mean() / (known.std(ddof=1) / math.sqrt(known.size))
    return float(2 * stdtr(known.size - 1, -abs(statistic)))
