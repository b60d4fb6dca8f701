"""Intervals over seeds, including the case in which all seeds agree."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]
LEVEL = 0.95
POWER = 0.80


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and its method; NaN bounds where there is none."""

    low: float
    high: float
    method: str


def t_interval(values: Array) -> Interval:
    """Student's interval of the mean, over seeds.

    >>> interval = t_interval(np.array([0.0, 1.0, 2.0]))
    >>> round(interval.low, 4), round(interval.high, 4)
    (-1.4841, 3.4841)
    """
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return Interval(math.nan, math.nan, "one seed has no spread" if finite.size else "no seed")
    half = float(stdtrit(finite.size - 1, 0.5 + LEVEL / 2) * finite.std(ddof=1) / math.sqrt(finite.size))
    return Interval(float(finite.mean()) - half, float(finite.mean()) + half, "t over seeds")


def mean_interval(values: Array, limits: tuple[float, float] | None = None) -> Interval:
    """Interval of the mean over seeds; where all seeds agree it is their value, and the method says so.

    Seeds that agree have no spread to compute an interval from: the value stands with "equal in all S seeds".

    Args:
        values: `[seed]`. limits: least and largest possible value, for a bounded outcome.

    >>> interval = mean_interval(np.full(10, -1.0), (-1.0, 1.0))
    >>> interval.low, interval.high, interval.method
    (-1.0, -1.0, 'equal in all 10 seeds')
    """
    finite = values[np.isfinite(values)]
    if finite.size >= 2 and agree(finite):
        return Interval(float(finite[0]), float(finite[0]), f"equal in all {finite.size} seeds")
    interval = t_interval(finite)
    if limits is None or finite.size < 2:
        return interval
    return Interval(max(interval.low, limits[0]), min(interval.high, limits[1]), interval.method)


def agree(values: Array) -> bool:
    """True where all seeds have the same value, up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def log_error_interval(r2: Array) -> tuple[float, Interval]:
    """One minus the geometric mean of the errors 1 - R2 over seeds, with its t interval on the log scale.

    Errors differ by factors, so their logarithms are closer to normal. The plain mean is used where an R2 is exactly 1.

    >>> estimate, interval = log_error_interval(np.array([0.9, 0.9, 0.99, 0.99]))
    >>> round(estimate, 4), interval.method
    (0.9684, 't over seeds, log error')
    """
    finite = r2[np.isfinite(r2)]
    if finite.size == 0 or (finite >= 1).any():
        return (float(finite.mean()) if finite.size else math.nan), mean_interval(finite)
    logs = np.log(1 - finite)
    interval = mean_interval(logs)
    method = interval.method + (", log error" if interval.method.startswith("t ") else "")
    return float(1 - np.exp(logs.mean())), Interval(1 - math.exp(interval.high), 1 - math.exp(interval.low), method)


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
