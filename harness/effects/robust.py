"""From 20 seeds: the interquartile mean with a bootstrap stratified over cells, and never for what has two humps."""

import math

import numpy as np
from numpy.typing import NDArray

from harness.effects.seed_intervals import LEVEL, Interval

Array = NDArray[np.float64]
LEAST_SEEDS = 20
BOOTSTRAPS = 2000
TWO_HUMPS = 5 / 9  # Sarle's coefficient of a uniform distribution


def interquartile_mean(values: Array) -> float:
    """Mean of the middle half of all values: a quarter is cut off at either end.

    >>> interquartile_mean(np.array([[-100.0, 1.0, 2.0, 100.0]]))
    1.5
    """
    known = np.sort(values[np.isfinite(values)])
    cut = known.size // 4
    return float(known[cut : known.size - cut].mean()) if known.size else math.nan


def bootstrap_interval(values: Array, samples: int = BOOTSTRAPS) -> Interval:
    """Percentile interval of the interquartile mean; seeds are drawn again within each stratum.

    Args:
        values: `[stratum, seed]`: strata (cells, tasks) are kept, their seeds are resampled. samples: how often.

    Source: Agarwal et al. 2021 (rliable).
    """
    generator = np.random.default_rng(0)
    known = [row[np.isfinite(row)] for row in values]
    drawn = np.concatenate(
        [row[generator.integers(0, row.size, size=(samples, row.size))] for row in known if row.size], axis=1
    )
    drawn.sort(axis=1)
    cut = drawn.shape[1] // 4
    means = drawn[:, cut : drawn.shape[1] - cut].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), "stratified bootstrap of the interquartile mean")


def bimodality(values: Array) -> float:
    """Sarle's coefficient with its small-sample correction: 5/9 for a uniform, up to 1 for two points; NaN below 4.

    >>> round(bimodality(np.array([0.0, 1.0] * 50)), 2)
    0.95

    Source: Pfister et al. 2013, Frontiers in Psychology 4:700.
    """
    known = values[np.isfinite(values)]
    n = known.size
    if n < 4 or known.std() == 0:
        return math.nan
    z = (known - known.mean()) / known.std()
    skew = (z**3).mean() * math.sqrt(n * (n - 1)) / (n - 2)
    excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * ((z**4).mean() - 3) + 6)
    return float((skew**2 + 1) / (excess + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))))


def robust_summary(values: Array, mixed: bool) -> tuple[float, Interval]:
    """Interquartile mean and interval of one number a seed, or NaN with the reason.

    Args:
        values: `[seed]`. mixed: whether collapsed and other members were averaged: then there are two humps by making.
    """
    known = values[np.isfinite(values)]
    if known.size < LEAST_SEEDS:
        return math.nan, Interval(math.nan, math.nan, f"fewer than {LEAST_SEEDS} seeds")
    humps = bimodality(known)
    if mixed or humps > TWO_HUMPS:
        why = "collapsed and other members mixed" if mixed else f"two humps: Sarle's coefficient {humps:.2f}"
        return math.nan, Interval(math.nan, math.nan, why)
    return interquartile_mean(known), bootstrap_interval(known[None])
