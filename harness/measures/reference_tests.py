"""Tables, tests and intervals of units against a reference."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.measures.arrays import Array
from harness.measures.block_permutation import BlockOrders
from harness.measures.contingency import (
    SMALLEST_EXPECTED,
    codes_of,
    contingency,
    entropy_of,
    freedom,
    information_interval,
    pearson,
)
from harness.measures.information import ReferenceVariable
from harness.measures.permutation import block_p, table_p
from harness.measures.ranks import SMALL_ATOM, ColumnOrders

SIGNIFICANCE = 0.05
MEASURED = ("value", "p", "low", "high", "codes_entropy")


class UnitValues:
    """Columns that vary, `[unit, sample]`, with their orderings and codes, made once for all references."""

    def __init__(self, columns: Array) -> None:
        self.columns, self.orders = columns, ColumnOrders(columns)
        self.codes = codes_of(columns)

    @cached_property
    def ranks(self) -> Array:
        """Standardized average ranks, `[unit, sample]`."""
        parts = self.orders.broken_below(SMALL_ATOM)
        return np.concatenate([_standardised(part.restored(part.ranks)) for part in parts])


class ReferenceTest:
    """A reference with its classes, ranks and orders of rows, made once for all units.

    Args:
        column: `[sample]`, class numbers or floats. orders: of blocks, or None. seed: of the permutations.
    """

    def __init__(self, column: Array, orders: BlockOrders | None, seed: int) -> None:
        self.column = column
        self.reference = ReferenceVariable(column)
        self.classes = codes_of(column[None])[0] if self.reference.continuous else column
        self.entropy = np.nan if self.reference.continuous else float(entropy_of(np.bincount(column)))
        self.ranks = _standardised(self.reference.ordering.restored(self.reference.ordering.ranks))[0]
        self.orders, self.seed = orders, seed
        self.tests = 2 if self.reference.continuous else 1  # of a table, and of ranks

    def measure(self, units: UnitValues) -> dict[str, Array]:
        """The columns of `MEASURED`, `[unit]` each."""
        tables = contingency(units.codes, self.classes)
        p, inflation = self._table_p(units.codes, tables)
        low, high = information_interval(tables, inflation=inflation)
        # sparse tables widen G beyond its chi-square: the interval must not claim what the test does not see
        low = np.where(p > SIGNIFICANCE, 0.0, low)
        if self.reference.continuous:
            lower = p > self._least_p  # else the ranks cannot lower it
            p[lower] = np.minimum(p[lower], self._spearman_p(units.ranks[lower]))
            p = np.minimum(1.0, self.tests * p)
        value = self.reference.information(units.orders)
        return dict(zip(MEASURED, (value, p, low, high, entropy_of(tables.sum(2))), strict=True))

    @cached_property
    def _least_p(self) -> float:
        """The least p that permutations can give."""
        return 0.0 if self.orders is None else 1 / (1 + len(self.orders.whole))

    def _table_p(self, codes: NDArray[np.uint8], tables: NDArray[np.int64]) -> tuple[Array, Array]:
        from scipy.special import chdtrc

        if self.orders is not None:
            return block_p(codes, self.classes, self.orders)
        squares, expected = pearson(tables)
        p: Array = chdtrc(freedom(tables), squares)
        for unit in np.flatnonzero(expected < SMALLEST_EXPECTED):
            p[unit] = table_p(tables[unit], self.seed)
        return p, np.ones(len(p))

    def _spearman_p(self, ranks: Array) -> Array:
        """P of standardised ranks `[unit, sample]` against the reference's."""
        from scipy.special import stdtr

        # no product of matrices: its rounding depends on how many units there are
        correlation = np.clip((ranks * self.ranks).sum(1), -1, 1)
        if self.orders is not None:
            drawn = np.abs(ranks @ _standardised(self.ranks[self.orders.whole]).T)
            larger = np.count_nonzero(drawn >= np.abs(correlation)[:, None] - 1e-12, axis=1)
            return (1 + larger) / (drawn.shape[1] + 1)
        degrees = ranks.shape[1] - 2
        if degrees < 1:
            return np.ones(len(ranks))
        t = np.abs(correlation) * np.sqrt(degrees / np.maximum(1 - correlation**2, 1e-300))
        p: Array = 2 * stdtr(degrees, -t)
        return p


def _standardised(ranks: Array) -> Array:
    """Lines of ranks with mean 0 and length 1, or length 0 where all ranks are equal."""
    away = ranks - ranks.mean(1, keepdims=True)
    length = np.sqrt((away * away).sum(1, keepdims=True))
    return np.divide(away, length, out=away, where=length > 0)
