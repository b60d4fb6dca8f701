"""Values in order, ties together: what ranks, normal scores and neighbour counts on a line are read from."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, ndtri

Array = NDArray[np.float64]
Index = NDArray[np.int64]
NUMBERS_AT_ONCE = 65536  # of one array, so that several stay in cache
GRID = 1 << 21  # steps of a normal score in one standard deviation


@dataclass(frozen=True)
class Ordering:
    """One column in order.

    Args:
        order: rows by rising value, `[sample]`.
        sizes: how many rows share each distinct value, `[distinct]`, in rising order.
        scores: normal scores in that order, `[sample]`; equal values share one, so atoms stay atoms.
    """

    order: Index
    sizes: Index
    scores: Array

    def restored(self, ordered: NDArray[Any]) -> NDArray[Any]:
        """What is given in rising order, in the order of the rows."""
        found = np.empty_like(ordered)
        found[self.order] = ordered
        return found

    @property
    def groups(self) -> Index:
        """The number of each row's distinct value, from 0, in the order of the rows."""
        return self.restored(np.repeat(np.arange(len(self.sizes)), self.sizes))


def ordering(values: NDArray[Any]) -> Ordering:
    """The ordering of a column, with van der Waerden's normal scores: the quantile of rank / (rows + 1).

    >>> ordering(np.array([10.0, 30.0, 20.0])).scores.round(3).tolist()
    [-0.674, 0.0, 0.674]

    Source: van der Waerden 1952; ties share the average of their ranks.
    """
    return orderings(values[None])[0]


def orderings(columns: NDArray[Any]) -> list[Ordering]:
    """The ordering of each column of `[column, sample]`, many at once.

    >>> [each.sizes.tolist() for each in orderings(np.array([[3.0, 1.0, 2.0], [5.0, 0.0, 5.0]]))]
    [[1, 1, 1], [1, 2]]
    """
    step = max(1, NUMBERS_AT_ONCE // columns.shape[1])
    return [each for start in range(0, len(columns), step) for each in _orderings(columns[start : start + step])]


def _orderings(columns: NDArray[Any]) -> list[Ordering]:
    rows, order = columns.shape[1], np.argsort(columns, axis=1)
    ordered = np.take_along_axis(columns, order, 1)
    starts = run_starts(ordered)
    if starts.all():
        return [Ordering(each, np.ones(rows, np.int64), normal_scores(rows)) for each in order]
    sizes = run_lengths(starts)
    # the middle rank of a run, doubled: the rows before it twice, its own size, and 1
    doubled = 2 * (np.flatnonzero(starts) % rows) + sizes + 1
    scores = np.repeat(_normal_quantiles(rows)[doubled], sizes).reshape(columns.shape)
    by_column = np.split(sizes, np.cumsum(starts.sum(1))[:-1])
    return [Ordering(*each) for each in zip(order, by_column, scores, strict=True)]


def run_starts(ordered: NDArray[Any]) -> NDArray[np.bool_]:
    """Where runs of equal values begin, along the last axis.

    >>> run_starts(np.array([[1, 1, 2], [2, 3, 3]])).tolist()
    [[True, False, True], [True, True, False]]
    """
    starts = np.ones(ordered.shape, bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return starts


def run_lengths(starts: NDArray[np.bool_]) -> Index:
    """Lengths of the runs that begin there, of all lines one after the other.

    >>> run_lengths(np.array([[True, False, True], [True, True, False]])).tolist()
    [2, 1, 1, 2]
    """
    return np.diff(np.flatnonzero(starts), append=starts.size)


@lru_cache(maxsize=8)
def _normal_quantiles(rows: int) -> Array:
    """By doubled rank, 0 to 2 rows + 1, on a grid that keeps millions of ranks apart and float32 holds exactly."""
    quantiles: Array = np.round(ndtri(np.arange(2 * rows + 2) / (2 * rows + 2)) * GRID) / GRID
    return quantiles


@lru_cache(maxsize=8)
def normal_scores(rows: int) -> Array:
    """The scores of a column without ties, in rising order.

    >>> normal_scores(3).round(3).tolist()
    [-0.674, 0.0, 0.674]
    """
    return _normal_quantiles(rows)[2::2]


@lru_cache(maxsize=8)
def digammas(largest: int) -> Array:
    """Digamma of 0 (minus infinity), 1, ... up to `largest`: counts are looked up, not evaluated one by one.

    >>> float(digammas(3)[2] - digammas(3)[1])
    1.0
    """
    values: Array = digamma(np.arange(largest + 1, dtype=np.float64))
    return values


def within(ordered: Array, centres: Array, radius: Array) -> Index:
    """How many of the ordered values lie within a radius of each centre.

    >>> within(np.array([0.0, 1.0, 3.0]), np.array([1.0]), np.array([1.0])).tolist()
    [2]
    """
    above = np.searchsorted(ordered, centres + radius, side="right")
    counts: Index = above - np.searchsorted(ordered, centres - radius, side="left")
    return counts
