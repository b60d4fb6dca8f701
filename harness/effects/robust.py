"""Interquartile mean with a bootstrap stratified over cells, from 20 seeds on and never for bimodal values."""

import math

import numpy as np
from numpy.typing import NDArray

from harness.effects.seed_intervals import LEVEL, Interval

Array = NDArray[np.float64]
LEAST_SEEDS = 20
BOOTSTRAPS = 2000
TWO_HUMPS = 5 / 9  # Sarle's coefficient of a uniform distribution


def interquartile_mean(values: Array) -> float:
    """Mean of the middle half of all values; a quarter is cut off at each end.

    >>> interquartile_mean(np.array([[-100.0, 1.0, 2.0, 100.0]]))
    1.5
    """
    finite = np.sort(values[np.isfinite(values)])
    cut = finite.size // 4
    return float(finite[cut : finite.size - cut].mean()) if finite.size else math.nan


def bootstrap_interval(values: Array, samples: int = BOOTSTRAPS) -> Interval:
    """Percentile interval of the interquartile mean by a bootstrap within strata.

    Args:
        values: `[stratum, seed]`; seeds are resampled within each stratum (cell, task). samples: number of resamples.

    Source: Agarwal et al. 2021 (rliable).
    """
    generator = np.random.default_rng(0)
    strata = [row[np.isfinite(row)] for row in values]
    drawn = np.concatenate(
        [row[generator.integers(0, row.size, size=(samples, row.size))] for row in strata if row.size], axis=1
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
    finite = values[np.isfinite(values)]
    n = finite.size
    if n < 4 or finite.std() == 0:
        return math.nan
    z = (finite - finite.mean()) / finite.std()
    skew = (z**3).mean() * math.sqrt(n * (n - 1)) / (n - 2)
    excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * ((z**4).mean() - 3) + 6)
    return float((skew**2 + 1) / (excess + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))))


def robust_summary(values: Array, mixed: bool) -> tuple[float, Interval]:
    """Interquartile mean and interval of one number per seed, or NaN with the reason.

    Args:
        values: `[seed]`. mixed: True where collapsed and other members are averaged, which makes the values bimodal.
    """
    finite = values[np.isfinite(values)]
    if finite.size < LEAST_SEEDS:
        return math.nan, Interval(math.nan, math.nan, f"fewer than {LEAST_SEEDS} seeds")
    humps = bimodality(finite)
    if mixed or humps > TWO_HUMPS:
        why = "collapsed and other members mixed" if mixed else f"bimodal: Sarle's coefficient {humps:.2f}"
        return math.nan, Interval(math.nan, math.nan, why)
    return interquartile_mean(finite), bootstrap_interval(finite[None])
