"""Does a unit depend on a reference: a value, a test, an interval, and a three-valued answer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.measures.arrays import Array, reference_column, unit_columns
from harness.measures.binning import (
    binned_information,
    codes_of,
    contingency,
    entropy_of,
    freedom,
    information_interval,
    pearson,
)
from harness.measures.information import Reference
from harness.measures.ordering import Ordering, ordering
from harness.measures.permuting import block_groups, block_orders, block_p, table_p
from harness.measures.pieces import pieces

SMALLEST_EXPECTED = 5.0
SIGNIFICANCE = 0.05
LEAST_NATS, LEAST_SHARE, LEAST_OF_CODES = 0.01, 0.01, 0.05


@dataclass(frozen=True)
class Dependence:
    """What is known of the dependence of units on one reference, `[*member, unit]` each, float64.

    Args:
        value: nats, by nearest neighbours, unclamped; exactly 0 for a constant unit, NaN for one that is not finite.
        p: of independence; NaN for a constant unit, which is no test.
        low, high: 95 % interval of the *binned* information, nats; that is a lower bound of the information.
        delta: nats below which a dependence is called negligible.
        codes_entropy: nats, of the unit's codes in the binned table; 0 for a constant unit.
        flag: "dependent" (low above delta), "negligible" (high below delta, or constant) or "inconclusive".
        reference_entropy: nats, of the classes; NaN for a continuous factor.
    """

    value: Array
    p: Array
    low: Array
    high: Array
    delta: Array
    codes_entropy: Array
    flag: NDArray[np.str_]
    reference_entropy: float

    @property
    def interval(self) -> tuple[Array, Array]:
        """`low` and `high`."""
        return self.low, self.high


def dependence(activations: Any, reference: Any, blocks: Any = None, seed: int = 0, *, dtype: Any = None) -> Dependence:
    """Value, p, interval and a three-valued answer for each unit.

    Args:
        activations: `[*member, sample, unit]`, tensor or array.
        reference: `[sample]`; integers are classes, floats a continuous factor: the kind of number decides.
        blocks: `[sample]`, for rows that are not exchangeable (windows of one series, patches of one photograph):
            the name of each row's block. Blocks are permuted whole, and the interval is widened by what they cost.
        seed: of the permutations. A unit's p depends on its own values and this only.
        dtype: the precision the model computed in, where the values come as another; see `is_constant`.

    Returns:
        Pearson's X2 gives p where every expected count is 5 or more, else 999 permutations do, always with blocks.
        For a continuous factor p is the smaller of that and Spearman's, doubled.

    >>> labels = np.arange(800) % 2
    >>> dependence(np.stack([labels, 0 * labels], 1) * 1.0, labels).flag.tolist()
    ['dependent', 'negligible']

    Raises:
        HarnessError: for the inputs that `mutual_information` refuses, blocks of another length or only one, and a seed
            that is no whole number.

    Source: Cover & Thomas 2.3; Smithson 2003 for the interval; Phipson & Smyth 2010 for p of permutations.
    """
    columns, constant, finite = unit_columns(activations, dtype)
    column = reference_column(reference, columns.shape[-1])
    tested = finite & ~constant
    against = _Against(column, None if blocks is None else block_groups(blocks, len(column)), _counted(seed))
    found = against.judge(columns[tested])
    full = {name: _spread(each, tested, 0.0, finite) for name, each in found.items()}
    full["p"] = _spread(found["p"], tested, np.nan, finite)
    delta = smallest_dependence(full["codes_entropy"], np.asarray(against.entropy))
    flag = np.where(full["low"] > delta, "dependent", np.where(full["high"] < delta, "negligible", "inconclusive"))
    flag = np.where(finite & constant | against.reference.constant & finite, "negligible", flag)
    return Dependence(**full, delta=delta, flag=flag, reference_entropy=against.entropy)


def _counted(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise HarnessError(f"seed: a whole number from 0 is wanted, {seed!r} was given")
    return int(seed)


def _spread(found: Array, tested: NDArray[np.bool_], elsewhere: float, finite: NDArray[np.bool_]) -> Array:
    full = np.where(finite, elsewhere, np.nan)
    full[tested] = found
    return full


def smallest_dependence(
    codes_entropy: Array,
    entropy: Array,
    nats: float = LEAST_NATS,
    share: float = LEAST_SHARE,
    of_codes: float = LEAST_OF_CODES,
) -> Array:
    """Nats below which a dependence is negligible, from the entropies of the unit's codes and of the reference.

    NaN for the entropy says that the reference is continuous.

    >>> smallest_dependence(np.array([2.0, 0.1]), np.array([np.nan, 1.0])).round(4).tolist()
    [0.01, 0.005]
    """
    of_classes = share * np.nan_to_num(entropy, nan=0.0)
    return np.minimum(np.maximum(nats, of_classes), of_codes * codes_entropy)


class _Against:
    """One reference as it is needed for values, tables and permutations, made once for all units."""

    def __init__(self, column: Array, groups: list[NDArray[np.int64]] | None, seed: int) -> None:
        self.reference = Reference(column)
        self.classes = codes_of(column[None])[0] if self.reference.continuous else column
        self.entropy = np.nan if self.reference.continuous else float(entropy_of(np.bincount(column)))
        self.ranks = _standardised(_ranks(self.reference.ordering))
        self.orders = None if groups is None else block_orders(groups, seed)
        self.seed = seed

    def judge(self, columns: Array) -> dict[str, Array]:
        """`[unit]` of value, p, low, high and the entropy of the codes, for columns `[unit, sample]` that vary."""
        if not len(columns):
            return dict.fromkeys(("value", "p", "low", "high", "codes_entropy"), np.zeros(0))
        parts = [self._judge(columns[piece]) for piece in pieces(columns.shape[::-1])]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _judge(self, columns: Array) -> dict[str, Array]:
        orderings = [ordering(each) for each in columns]
        value = self.reference.information(orderings)
        codes = codes_of(columns)
        tables = contingency(codes, self.classes)
        p, inflation = self._table_p(codes, tables)
        low, high = information_interval(tables, inflation=inflation)
        # sparse tables widen G beyond its chi-square: what the test does not see the interval must not claim
        low = np.where(p > SIGNIFICANCE, 0.0, low)
        if self.reference.continuous:
            order = self._spearman_p(np.stack([_standardised(_ranks(each)) for each in orderings]))
            p = np.minimum(1.0, 2 * np.minimum(p, order))
        return {"value": value, "p": p, "low": low, "high": high, "codes_entropy": entropy_of(tables.sum(2))}

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
        """p of standardised ranks `[unit, sample]` against the reference's."""
        from scipy.special import stdtr

        correlation = np.clip(ranks @ self.ranks, -1, 1)
        if self.orders is not None:
            drawn = np.abs(ranks @ self.ranks[self.orders].T)
            larger = np.count_nonzero(drawn >= np.abs(correlation)[:, None] - 1e-12, axis=1)
            return (1 + larger) / (len(self.orders) + 1)
        degrees = ranks.shape[1] - 2
        if degrees < 1:
            return np.ones(len(ranks))
        t = np.abs(correlation) * np.sqrt(degrees / np.maximum(1 - correlation**2, 1e-300))
        p: Array = 2 * stdtr(degrees, -t)
        return p


def _ranks(column: Ordering) -> Array:
    ends = np.cumsum(column.sizes)
    return column.restored(np.repeat(ends - (column.sizes - 1) / 2, column.sizes))


def _standardised(ranks: Array) -> Array:
    away = ranks - ranks.mean()
    length = np.sqrt(away @ away)
    return away / length if length > 0 else away


def table_information(activations: Any, reference: Any, *, dtype: Any = None) -> Array:
    """Plug-in information of each unit's codes with the reference's, `[*member, unit]` nats, for wide layers.

    A few microseconds a unit where `mutual_information` takes milliseconds; less than that by what binning loses, more
    by the bias of `binned_information`.

    >>> table_information(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])).round(4).tolist()
    [0.6931]
    """
    columns, constant, finite = unit_columns(activations, dtype)
    column = reference_column(reference, columns.shape[-1])
    classes = codes_of(column[None])[0] if column.dtype.kind == "f" else column
    tested = finite & ~constant
    if not tested.any():
        return np.where(finite, 0.0, np.nan)
    codes = codes_of(columns[tested])
    return _spread(binned_information(contingency(codes, classes)), tested, 0.0, finite)
