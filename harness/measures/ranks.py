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
FLOAT32_ROWS = 4096  # up to here normal scores lie on a grid on which differences of float32 are exact
FLOAT32_GRID, FLOAT64_GRID = 1 << 21, 1 << 40  # steps in one standard deviation
SMALL_ATOM = 0.05  # a value on a smaller share of the rows is a point of a grid, not an atom (this project)
ROWS_PER_ATOM = 10  # rows of an atom in a class, or in a pair of atoms, from which on its neighbors are its ties
TIE_SEED = 1952


@dataclass(frozen=True)
class RankOrder:
    """Columns in rising order, each separately.

    Args:
        order: rows by rising value, `[column, sample]`, as are the other arrays.
        starts: True where a run of equal scores begins in that order.
        ranks: from 1, in that order; equal values share the average of their ranks.
        scores: normal scores in that order; the rows of an atom share one, unless a tie breaker separated them.
    """

    order: Index
    starts: NDArray[np.bool_]
    ranks: Array
    scores: Array

    @cached_property
    def positions(self) -> Index:
        """Position in the order of rows of each number in rising order, counted through all columns."""
        return self.order + np.arange(len(self.order))[:, None] * self.order.shape[1]

    @cached_property
    def tied(self) -> NDArray[np.bool_]:
        """True for a column in which rows share a score, `[column]`."""
        return np.logical_not(self.starts.all(1))

    @cached_property
    def fine_scores(self) -> Array:
        """The scores on the grid of float64, for distances along this axis alone."""
        rows = self.order.shape[1]
        if rows > FLOAT32_ROWS:
            return self.scores
        quantiles = _normal_quantiles(rows, fine=True)
        if self.starts.all():
            return np.broadcast_to(quantiles[2::2], self.order.shape)
        return quantiles[doubled_ranks(self.starts)]

    @cached_property
    def row_scores(self) -> Array:
        """Normal scores in the order of the rows."""
        return self.restored(self.scores)

    @cached_property
    def row_positions(self) -> Index:
        """Position of each row in rising order, in the order of the rows."""
        return self.restored(np.broadcast_to(np.arange(self.order.shape[1]), self.order.shape))

    @cached_property
    def groups(self) -> Index:
        """Number of each row's distinct score, from 0, in the order of the rows."""
        return self.restored(self.starts.cumsum(1) - 1)

    def restored(self, ordered: NDArray[Any]) -> NDArray[Any]:
        """Numbers given in rising order, in the order of the rows."""
        by_row = np.empty(ordered.shape, ordered.dtype)
        by_row.ravel()[self.positions] = ordered
        return by_row

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """Numbers given in the order of the rows, in rising order; a single column serves many lines."""
        return values.take(self.order[0], axis=1) if len(self.order) == 1 else values.ravel().take(self.positions)

    @cached_property
    def cut_runs(self) -> tuple[Index, Index]:
        """Begin and end of the run of ties that each position 0 to rows cuts; the position itself if it cuts none."""
        (columns, rows), sizes = self.order.shape, run_lengths(self.starts)
        positions, ends = np.arange(rows + 1), np.cumsum(sizes)
        begins, after = (np.full((columns, rows + 1), rows) for _ in range(2))
        before = np.arange(columns)[:, None] * rows  # runs are numbered through all columns
        begins[:, :-1] = np.repeat(ends - sizes, sizes).reshape(-1, rows) - before
        after[:, :-1] = np.repeat(ends, sizes).reshape(-1, rows) - before
        return begins, np.where(begins == positions, begins, after)


def ordering(columns: NDArray[Any], breaker: Index | None = None, share: float = SMALL_ATOM) -> RankOrder:
    """The order of each column of `[column, sample]`, with van der Waerden's scores: the quantile of rank / (rows + 1).

    Args:
        columns: `[column, sample]`.
        breaker: a permutation of the rows, `[sample]`, that orders the rows of each small atom, which then have scores
            of their own; see `tie_breaker`. None: all atoms keep one score.
        share: of the rows, below which an atom is small.

    >>> ordering(np.array([[10.0, 30.0, 20.0], [5.0, 0.0, 5.0]])).scores.round(3).tolist()
    [[-0.674, 0.0, 0.674], [-0.674, 0.319, 0.319]]

    Source: van der Waerden 1952; ties share the average of their ranks.
    """
    rows, order = columns.shape[1], np.argsort(columns, axis=1)
    starts = run_starts(np.take_along_axis(columns, order, 1))
    if starts.all():
        ranks = np.broadcast_to(np.arange(1.0, rows + 1), order.shape)
        return RankOrder(order, starts, ranks, np.broadcast_to(normal_scores(rows), order.shape))
    ranks = doubled_ranks(starts) / 2
    if breaker is not None:
        order, starts = _broken_ties(order, starts, breaker, share)
    return RankOrder(order, starts, ranks, _normal_quantiles(rows)[doubled_ranks(starts)])


def _broken_ties(
    order: Index, starts: NDArray[np.bool_], breaker: Index, share: float
) -> tuple[Index, NDArray[np.bool_]]:
    """Order and runs in which each row of a small atom is a run of its own, its rows ordered by the breaker."""
    rows, sizes = order.shape[1], run_lengths(starts)
    small = np.repeat(sizes < share * rows, sizes).reshape(starts.shape)
    lines = np.flatnonzero((small & ~starts).any(1))
    keys = starts[lines].cumsum(1) * rows + breaker[order[lines]]
    order = order.copy()
    order[lines] = np.take_along_axis(order[lines], np.argsort(keys, axis=1), 1)
    return order, starts | small


@lru_cache(maxsize=16)
def tie_breaker(rows: int, of_references: bool = False) -> Index:
    """The permutation of the rows that breaks the ties of all units, or another one for all references.

    Units and references must not share one, which would make them dependent; units among themselves share one, so that
    permuting units permutes results. It depends on the number of rows only.

    >>> sorted(tie_breaker(4).tolist())
    [0, 1, 2, 3]
    """
    return np.random.default_rng([TIE_SEED, int(of_references)]).permutation(rows)


class ColumnOrders:
    """The orderings of `[column, sample]`, each made once for all references, so many columns that arrays stay in cache.

    >>> [len(part.order) for part in ColumnOrders(np.zeros((3, 40000))).broken_below(0.05)]
    [1, 1, 1]
    """

    def __init__(self, columns: NDArray[Any]) -> None:
        self._columns = columns
        self._orderings: dict[float, list[RankOrder]] = {}

    def broken_below(self, share: float) -> list[RankOrder]:
        """The orderings in which atoms on less than this share of the rows are broken, of some columns each."""
        if share not in self._orderings:
            breaker = tie_breaker(self._columns.shape[1])
            slices = chunks(self._columns.shape[::-1], NUMBERS_AT_ONCE)
            self._orderings[share] = [ordering(self._columns[chunk], breaker, share) for chunk in slices]
        return self._orderings[share]


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
    """True where a run of equal values begins, along the last axis.

    >>> run_starts(np.array([[1, 1, 2], [2, 3, 3]])).tolist()
    [[True, False, True], [True, True, False]]
    """
    starts = np.ones(ordered.shape, bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return starts


def run_lengths(starts: NDArray[np.bool_]) -> Index:
    """Lengths of the runs that begin at `starts`, of all lines one after the other.

    >>> run_lengths(np.array([[True, False, True], [True, True, False]])).tolist()
    [2, 1, 1, 2]
    """
    return np.diff(np.flatnonzero(starts), append=starts.size)


@lru_cache(maxsize=8)
def _normal_quantiles(rows: int, fine: bool = False) -> Array:
    """Normal quantiles by doubled rank, 0 to 2 rows + 1, on a grid on which differences are exact.

    Neighbors on either side of a row lie about equally far away. A grid as coarse as the difference of these distances
    makes them ties, which a strict count leaves out: +0.025 nats for a fair coin at 40,000 rows on the grid of float32.
    """
    grid = FLOAT64_GRID if fine or rows > FLOAT32_ROWS else FLOAT32_GRID
    quantiles: Array = np.round(ndtri(np.arange(2 * rows + 2) / (2 * rows + 2)) * grid) / grid
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


def counts_within(ordered: Array, centers: Array, radius: Array) -> Index:
    """Number of the ordered values within a radius of each center.

    >>> counts_within(np.array([0.0, 1.0, 3.0]), np.array([1.0]), np.array([1.0])).tolist()
    [2]
    """
    above = np.searchsorted(ordered, centers + radius, side="right")
    counts: Index = above - np.searchsorted(ordered, centers - radius, side="left")
    return counts
