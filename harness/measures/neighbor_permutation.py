"""Permutation test of the nearest-neighbor estimate, for the units that a binned table calls negligible.

The information in a binned table is a lower bound: a label that is the parity of 32 cells of a unit shares log 2 with it,
and 8 bins see nothing. The estimate sees it, and permutations tell such an estimate from noise.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measures.block_permutation import block_orders
from harness.measures.information import ReferenceVariable
from harness.measures.ranks import ColumnOrders

Index = NDArray[np.int64]
MOST_ROWS = 2000
MOST_DRAWS = 199  # with the rows as they are 200: the least p is 0.005
ENOUGH_EXCEEDANCES = 10
DRAWS_AT_ONCE = 20
FACTOR_COST = 2  # of an estimate against a continuous factor; classes cost 1
LAYER_BUDGET = 18_000_000
"""Rows x draws x cost that the tests of a member may take, about 2 s of one core.

A count of work, not of seconds, so that a result does not depend on the machine.
"""


class PermutedRows:
    """The rows that the test uses, at most `MOST_ROWS`, and the orders in which it shows them.

    Args:
        rows: number of rows. groups: rows of each block, or None for exchangeable rows. seed: of choice and orders.

    >>> rows = PermutedRows(5000, None, 0)
    >>> len(rows.chosen), rows.orders.shape
    (2000, (199, 2000))
    """

    def __init__(self, rows: int, groups: Sequence[Index] | None, seed: int) -> None:
        self._rows, self._groups, self._seed = rows, groups, seed

    @cached_property
    def chosen(self) -> Index:
        """Rows in use, rising; whole blocks where there are blocks. Empty if fewer than two blocks fit."""
        generator = np.random.default_rng([self._seed, MOST_ROWS])
        if self._groups is None:
            if self._rows <= MOST_ROWS:
                return np.arange(self._rows)
            return np.sort(generator.choice(self._rows, MOST_ROWS, replace=False))
        return np.sort(np.concatenate(self._chosen_groups)) if len(self._chosen_groups) > 1 else np.arange(0)

    @cached_property
    def orders(self) -> Index:
        """Orders of the chosen rows, `[draw, sample]`, as positions among them."""
        if self._groups is None:
            generator = np.random.default_rng([self._seed, MOST_DRAWS])
            return generator.permuted(
                np.broadcast_to(np.arange(len(self.chosen)), (MOST_DRAWS, len(self.chosen))), axis=1
            )
        groups = [np.searchsorted(self.chosen, group) for group in self._chosen_groups]
        return block_orders(groups, self._seed, MOST_DRAWS).whole

    @cached_property
    def _chosen_groups(self) -> list[Index]:
        groups = list(self._groups or ())
        if self._rows <= MOST_ROWS:
            return groups
        order = np.random.default_rng([self._seed, MOST_ROWS]).permutation(len(groups))
        fits = np.cumsum([len(groups[index]) for index in order]) <= MOST_ROWS
        return [groups[index] for index in np.sort(order[fits])]


class NeighborTest:
    """The test of units against a reference.

    Args:
        column: the reference, `[sample]`. rows: in use, with their orders.
    """

    def __init__(self, column: NDArray[Any], rows: PermutedRows) -> None:
        self._column, self._rows = column, rows
        self.cost = len(rows.chosen) * (FACTOR_COST if column.dtype.kind == "f" else 1)

    @cached_property
    def _variable(self) -> ReferenceVariable:
        return ReferenceVariable(self._column[self._rows.chosen])

    def p(self, column: NDArray[Any], least: float, draws: int) -> tuple[float, int]:
        """P of a unit's estimate among permutations of its rows, and the number of draws.

        Args:
            column: the unit, `[sample]`.
            least: nats. An estimate from the chosen rows below it does not show what all rows showed.
            draws: that the budget allows.

        Returns:
            p: (1 + number as large) / (draws + 1), or after `ENOUGH_EXCEEDANCES` draws as large their number / draws.
            NaN where the rows or the draws do not suffice.

        >>> rows = np.random.default_rng(0).permutation(400)
        >>> test = NeighborTest(rows // 12 % 2, PermutedRows(400, None, 0))
        >>> test.p(rows * 1.0, 0.01, 199)
        (0.005, 199)

        Source: Besag & Clifford 1991, Sequential Monte Carlo p-values, for stopping early.
        """
        chosen = column[self._rows.chosen]
        if not len(chosen):
            return np.nan, 0
        own = self._variable.information(ColumnOrders(chosen[None]))[0]
        if not own >= least:
            return np.nan, 1
        larger = 0
        orders = self._rows.orders
        for start in range(0, min(len(orders), draws), DRAWS_AT_ONCE):
            drawn = self._variable.information(ColumnOrders(chosen[orders[start : start + DRAWS_AT_ONCE]]))
            exceedances = larger + np.cumsum(drawn >= own - 1e-12)
            larger = int(exceedances[-1])
            if larger >= ENOUGH_EXCEEDANCES:
                used = start + 1 + int(np.argmax(exceedances >= ENOUGH_EXCEEDANCES))
                return ENOUGH_EXCEEDANCES / used, start + len(drawn)
        if draws < len(orders):
            return np.nan, draws
        return (1 + larger) / (1 + len(orders)), len(orders)
