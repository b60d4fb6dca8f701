"""Many tests at once: the adjusted p of everything that one run, or one experiment, declares."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def benjamini_hochberg(p: Any) -> Array:
    """Adjusted p: rejecting those at most q keeps the expected share of false rejections at most q.

    NaN is no test: it stays NaN and does not enlarge the family.

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
