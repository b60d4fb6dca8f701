"""Intervals of a share, and p adjusted for many tests. Arrays, tensors and numbers alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from harness.errors import HarnessError

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


def clopper_pearson(count: Any, rows: Any, level: float = 0.95) -> Bounds:
    """Exact two-sided interval of a binomial share: covers it in at least `level` of all samples. For claims of never.

    Args:
        count: number of successes, any shape. rows: number of trials. level: coverage, in (0, 1).

    Returns:
        Lower and upper bounds in [0, 1], in the shape of `count`. 0 of 5000 still allows a share of 7.4e-4.

    >>> low, high = clopper_pearson(0, 5000)
    >>> float(low), round(float(high), 6)
    (0.0, 0.000738)

    Raises:
        HarnessError: where count is not between 0 and rows, or rows is 0.

    Source: Clopper & Pearson 1934, Biometrika 26.
    """
    k, n = _counts(count, rows, level)
    tail = (1 - level) / 2
    # the inverse beta function has no value at a parameter of 0: those ends are 0 and 1 themselves
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return low, high


def wilson(count: Any, rows: Any, level: float = 0.95) -> Bounds:
    """Wilson's score interval of a binomial share: covers it in `level` of samples on average. For display.

    Args and Raises: those of `clopper_pearson`.

    >>> low, high = wilson(5, 5)
    >>> round(float(low), 3), float(high)
    (0.566, 1.0)

    Source: Wilson 1927; Brown, Cai & DasGupta 2001, Statistical Science 16.
    """
    k, n = _counts(count, rows, level)
    z = float(ndtri(0.5 + level / 2))
    center = (k + z * z / 2) / (n + z * z)
    half = z * np.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    # exact at the ends, where rounding would leave 1e-17 and 1 - 1e-16
    return np.where(k == 0, 0.0, center - half), np.where(k == n, 1.0, center + half)


def _counts(count: Any, rows: Any, level: float) -> Bounds:
    if not 0 < level < 1:
        raise HarnessError(f"level: expected a coverage in (0, 1), got {level}; write e.g. 0.95")
    k, n = np.asarray(count, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    if not ((k >= 0) & (k <= n) & (n > 0)).all():
        raise HarnessError(f"count: expected a count from 0 to rows and at least one row, got {count} of {rows}")
    return k, np.broadcast_to(n, np.broadcast_shapes(k.shape, n.shape))


Array = NDArray[np.float64]


def benjamini_hochberg(p: Any) -> Array:
    """Adjusted p values: rejecting those at most q keeps the expected share of false rejections at most q.

    Args:
        p: p values, any shape. NaN is no test: it stays NaN and does not enlarge the family.

    >>> benjamini_hochberg([0.01, 0.04, np.nan, 0.03]).round(3).tolist()
    [0.03, 0.04, nan, 0.04]

    Source: Benjamini & Hochberg 1995; valid under independence and positive dependence.
    """
    values = np.asarray(p, dtype=np.float64)
    flat = values.ravel()
    adjusted = np.full(flat.shape, np.nan)
    tests = np.flatnonzero(np.isfinite(flat))
    order = tests[np.argsort(-flat[tests])]
    ranks = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(flat[order] * order.size / ranks))
    return adjusted.reshape(values.shape)
