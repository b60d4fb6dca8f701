"""Order of values, ties together: the source of ranks, normal scores and neighbor counts on a line."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import digamma, ndtri

from harness.measures.chunks import chunks

Array = NDArray[np.float64]
Index = NDArray[np.int64]
NUMBERS_AT_ONCE = 65536  # of one array, so that several stay in cache
GRID = 1 << 21  # steps of a normal score in one standard deviation


@dataclass(frozen=True)
class RankOrder:
    """Columns in order, each by itself.

    Args:
        order: rows by rising value, `[column, sample]`, as are the others.
        starts: where runs of equal values begin in that order.
        ranks: from 1, in that order; equal values share the average of theirs.
        scores: normal scores in that order; equal values share one, so atoms stay atoms.
    """

    order: Index
    starts: NDArray[np.bool_]
    ranks: Array
    scores: Array

    @cached_property
    def places(self) -> Index:
        """Where the numbers that stand in order belong, counted through all columns of all rows."""
        return self.order + np.arange(len(self.order))[:, None] * self.order.shape[1]

    @cached_property
    def tied(self) -> NDArray[np.bool_]:
        """Which columns have a value twice, `[column]`."""
        return np.logical_not(self.starts.all(1))

    @cached_property
    def shown(self) -> Array:
        """Normal scores in the order of the rows."""
        return self.restored(self.scores)

    @cached_property
    def standing(self) -> Index:
        """Where each row stands in rising order, in the order of the rows."""
        return self.restored(np.broadcast_to(np.arange(self.order.shape[1]), self.order.shape))

    @cached_property
    def groups(self) -> Index:
        """The number of each row's distinct value, from 0, in the order of the rows."""
        return self.restored(self.starts.cumsum(1) - 1)

    def restored(self, ordered: NDArray[Any]) -> NDArray[Any]:
        """What is given in rising order, in the order of the rows."""
        found = np.empty(ordered.shape, ordered.dtype)
        found.ravel()[self.places] = ordered
        return found

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """What is given in the order of the rows, in rising order; one column may be that of many lines."""
        return values.take(self.order[0], axis=1) if len(self.order) == 1 else values.ravel().take(self.places)

    @cached_property
    def cut_runs(self) -> tuple[Index, Index]:
        """For each place 0 to rows: where the run of ties that it cuts begins and ends; itself, where it cuts none."""
        (columns, rows), sizes = self.order.shape, run_lengths(self.starts)
        places, ends = np.arange(rows + 1), np.cumsum(sizes)
        begins, after = (np.full((columns, rows + 1), rows) for _ in range(2))
        before = np.arange(columns)[:, None] * rows  # runs are numbered through all columns
        begins[:, :-1] = np.repeat(ends - sizes, sizes).reshape(-1, rows) - before
        after[:, :-1] = np.repeat(ends, sizes).reshape(-1, rows) - before
        return begins, np.where(begins == places, begins, after)


def ordering(columns: NDArray[Any]) -> RankOrder:
    """The ordering of each column of `[column, sample]`, with van der Waerden's scores: the quantile of rank / (rows + 1).

    >>> ordering(np.array([[10.0, 30.0, 20.0], [5.0, 0.0, 5.0]])).scores.round(3).tolist()
    [[-0.674, 0.0, 0.674], [-0.674, 0.319, 0.319]]

    Source: van der Waerden 1952; ties share the average of their ranks.
    """
    rows, order = columns.shape[1], np.argsort(columns, axis=1)
    starts = run_starts(np.take_along_axis(columns, order, 1))
    if starts.all():
        return RankOrder(
            order,
            starts,
            np.broadcast_to(np.arange(1.0, rows + 1), order.shape),
            np.broadcast_to(normal_scores(rows), order.shape),
        )
    doubled = doubled_ranks(starts)
    return RankOrder(order, starts, doubled / 2, _normal_quantiles(rows)[doubled])


def orderings(columns: NDArray[Any]) -> list[RankOrder]:
    """The orderings of `[column, sample]`, so many columns in each that its arrays stay in cache.

    >>> [len(each.order) for each in orderings(np.zeros((3, 40000)))]
    [1, 1, 1]
    """
    return [ordering(columns[chunk]) for chunk in chunks(columns.shape[::-1], NUMBERS_AT_ONCE)]


def average_ranks(columns: torch.Tensor) -> torch.Tensor:
    """Average rank of each row within its line of `[*member, unit, sample]`, from 1; ties share theirs; float64.

    >>> average_ranks(torch.tensor([[3.0, 0.0, 0.0, 9.0]])).tolist()
    [[3.0, 1.5, 1.5, 4.0]]

    Source: Spearman 1904.
    """
    lines = columns.detach().reshape(-1, columns.shape[-1]).cpu()
    values = np.ascontiguousarray((lines.float() if lines.dtype == torch.bfloat16 else lines).numpy())
    order = np.argsort(values, axis=-1)
    starts = run_starts(np.take_along_axis(values, order, -1))
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, doubled_ranks(starts) / 2, -1)
    return torch.from_numpy(ranks).reshape(columns.shape).to(columns.device)


def doubled_ranks(starts: NDArray[np.bool_]) -> Index:
    """Twice the average rank, in rising order, of lines whose runs of equal values begin at `starts`.

    >>> doubled_ranks(np.array([[True, False, True]])).tolist()
    [[3, 3, 6]]
    """
    sizes = run_lengths(starts)
    # the middle rank of a run, doubled: the rows before it twice, its own size, and 1
    return np.repeat(2 * (np.flatnonzero(starts) % starts.shape[-1]) + sizes + 1, sizes).reshape(starts.shape)


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


def counts_within(ordered: Array, centres: Array, radius: Array) -> Index:
    """How many of the ordered values lie within a radius of each centre.

    >>> counts_within(np.array([0.0, 1.0, 3.0]), np.array([1.0]), np.array([1.0])).tolist()
    [2]
    """
    above = np.searchsorted(ordered, centres + radius, side="right")
    counts: Index = above - np.searchsorted(ordered, centres - radius, side="left")
    return counts
