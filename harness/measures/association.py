"""Dependence of units on a reference: a value, a test, an interval, and a three-valued answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.measures.arrays import Array, reference_column, unit_columns
from harness.measures.block_permutation import block_groups, block_orders
from harness.measures.chunks import chunks
from harness.measures.contingency import binned_information, codes_of, contingency
from harness.measures.neighbor_permutation import LAYER_BUDGET, NeighborTest, PermutedRows
from harness.measures.reference_tests import MEASURED, SIGNIFICANCE, ReferenceTest, UnitValues

LEAST_NATS, LEAST_SHARE, LEAST_OF_CODES, LEAST_OF_CLASSES = 0.01, 0.01, 0.05, 0.1


@dataclass(frozen=True)
class Dependence:
    """Dependence of units on one reference, `[*member, unit]` each, float64.

    Args:
        value: nats, by nearest neighbors, unclamped; exactly 0 for a constant unit, NaN for one that is not finite.
        p: of independence; NaN for a constant unit, which is no test.
        low, high: 95 % interval of the *binned* information, nats; that is a lower bound of the information. If `high`
            would lie below delta while `value` does not, and permutations of the estimate do not explain `value` by
            chance, `high` is `value`.
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
        reference: `[sample]`; integers are classes, floats a continuous factor: the type of number decides.
        blocks: `[sample]`, for rows that are not exchangeable (windows of one series, patches of one photograph): a
            number or a word for the block of each row. Whole blocks are permuted, also of unequal length, and the
            interval is widened by what blocks cost.
        seed: of the permutations.
        dtype: the precision the model computed in, if the values have another; see `is_constant`.

    Returns:
        p is Pearson's X2's where every expected count is at least 5, else that of 999 permutations, always with blocks.
        For a continuous factor it is the smaller of that and Spearman's, doubled. Where the table says negligible and
        the estimate is not below delta, up to 199 permutations of the estimate decide, and the smallest of the p
        values, times their number, is p. A unit's answer depends on its own values and the seed only, except for the
        smallest estimates of a layer that needs more permutations than `LAYER_BUDGET`; these stay inconclusive.

    >>> labels = np.arange(800) % 2
    >>> dependence(np.stack([labels, 0 * labels], 1) * 1.0, labels).flag.tolist()
    ['dependent', 'negligible']

    Raises:
        HarnessError: for the inputs that `mutual_information` refuses, blocks of another length or only one, and a seed
            that is not a whole number.

    Source: Cover & Thomas 2.3; Smithson 2003 for the interval; Phipson & Smyth 2010 and Besag & Clifford 1991 for p of
    permutations.
    """
    return dependences(activations, {"": reference}, blocks, seed, dtype=dtype)[""]


def dependences(
    activations: Any, references: Mapping[str, Any], blocks: Any = None, seed: int = 0, *, dtype: Any = None
) -> dict[str, Dependence]:
    """`dependence` on each of several references, in one pass over the units.

    >>> answers = dependences(np.eye(2).repeat(50, 0), {"own": np.arange(100) // 50, "none": np.arange(100) % 2})
    >>> [answers[name].flag[0].item() for name in ("own", "none")]
    ['dependent', 'negligible']
    """
    columns, constant, finite = unit_columns(activations, dtype)
    rows, seed = columns.shape[-1], _checked_seed(seed)
    variables = {name: reference_column(reference, rows) for name, reference in references.items()}
    groups = None if blocks is None else block_groups(blocks, rows)
    orders = None if groups is None else block_orders(groups, seed)
    tests = {name: ReferenceTest(variable, orders, seed) for name, variable in variables.items()}
    tested = finite & ~constant
    measured = _measured(columns[tested], tests)
    _confirm_negligible(columns[tested], _members(tested), measured, tests, PermutedRows(rows, groups, seed))
    return {name: _dependence(measured[name], test, tested, finite) for name, test in tests.items()}


def _measured(columns: Array, tests: Mapping[str, ReferenceTest]) -> dict[str, dict[str, Array]]:
    """Reference -> the columns of `MEASURED` and `delta`, `[unit]` each, of units that vary."""
    parts = []
    for chunk in chunks(columns.shape[::-1]):
        units = UnitValues(columns[chunk])
        parts.append({name: test.measure(units) for name, test in tests.items()})
    joined = {
        name: {key: np.concatenate([np.zeros(0), *(part[name][key] for part in parts)]) for key in MEASURED}
        for name in tests
    }
    for name, test in tests.items():
        joined[name]["delta"] = smallest_dependence(joined[name]["codes_entropy"], np.asarray(test.entropy))
    return joined


def _members(tested: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the member of each tested unit, of `[*member, unit]`."""
    return np.flatnonzero(tested) // tested.shape[-1]


def _confirm_negligible(
    columns: Array,
    members: NDArray[np.int64],
    measured: Mapping[str, dict[str, Array]],
    tests: Mapping[str, ReferenceTest],
    rows: PermutedRows,
) -> None:
    """Test the estimates that contradict a negligible table, in place: `p`, and `high` where chance is no explanation.

    The largest estimates of a member come first; those beyond its budget stay inconclusive.
    """
    neighbors = {name: NeighborTest(test.column, rows) for name, test in tests.items()}
    contradicted = [
        (int(members[unit]), -float(numbers["value"][unit]), name, int(unit))
        for name, numbers in measured.items()
        for unit in np.flatnonzero((numbers["high"] < numbers["delta"]) & (numbers["value"] >= numbers["delta"]))
    ]
    budgets: dict[int, int] = {}
    for member, _, name, unit in sorted(contradicted):
        numbers, test, count = measured[name], neighbors[name], tests[name].tests
        budget = budgets.get(member, LAYER_BUDGET)
        p, draws = test.p(columns[unit], numbers["delta"][unit], budget // max(test.cost, 1))
        budgets[member] = budget - draws * test.cost
        if not p > SIGNIFICANCE:
            numbers["high"][unit] = numbers["value"][unit]
        if p == p:
            numbers["p"][unit] = min(1.0, numbers["p"][unit] * (count + 1) / count, (count + 1) * p)


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise HarnessError(f"seed: expected a whole number from 0, got {seed!r}; e.g. seed=0")
    return int(seed)


def _dependence(
    measured: Mapping[str, Array], test: ReferenceTest, tested: NDArray[np.bool_], finite: NDArray[np.bool_]
) -> Dependence:
    """Numbers of the tested units at their positions; 0 or no test for the others, NaN for units that are not finite."""
    full = {
        name: _at_positions(column, tested, np.nan if name == "p" else 0.0, finite) for name, column in measured.items()
    }
    delta = full["delta"]
    flag = np.where(full["low"] > delta, "dependent", np.where(full["high"] < delta, "negligible", "inconclusive"))
    flag = np.where(finite & ~tested | test.reference.constant & finite, "negligible", flag)
    return Dependence(**full, flag=flag, reference_entropy=test.entropy)


def _at_positions(column: Array, tested: NDArray[np.bool_], elsewhere: float, finite: NDArray[np.bool_]) -> Array:
    full = np.where(finite, elsewhere, np.nan)
    full[tested] = column
    return full


def smallest_dependence(
    codes_entropy: Array,
    entropy: Array,
    nats: float = LEAST_NATS,
    share: float = LEAST_SHARE,
    of_codes: float = LEAST_OF_CODES,
    of_classes: float = LEAST_OF_CLASSES,
) -> Array:
    """Nats below which a dependence is negligible, from the entropies of the unit's codes and of the reference.

    Args:
        codes_entropy: nats, of the unit's codes. entropy: nats, of the classes; NaN for a continuous reference.
        nats, share: the bound is `nats`, or this share of the entropy of the classes if that is more,
        of_codes, of_classes: but at most these shares of the entropies of the codes and of the classes.

    >>> smallest_dependence(np.array([2.0, 0.1, 2.0]), np.array([np.nan, 1.0, 0.056])).round(4).tolist()
    [0.01, 0.005, 0.0056]

    Source: this project.
    """
    of_reference = np.fmin(np.fmax(nats, share * entropy), np.where(entropy > 0, of_classes * entropy, nats))
    return np.minimum(of_reference, of_codes * codes_entropy)


def table_information(activations: Any, reference: Any, *, dtype: Any = None) -> Array:
    """Plug-in information of each unit's codes with the reference's, `[*member, unit]` nats, for wide layers.

    A few microseconds per unit instead of milliseconds; below `mutual_information` by the loss of binning, above it by the
    bias of `binned_information`.

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
    return _at_positions(binned_information(contingency(codes, classes)), tested, 0.0, finite)
