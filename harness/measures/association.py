"""Does a unit depend on a reference: a value, a test, an interval, and a three-valued answer."""

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
from harness.measures.reference_tests import MEASURED, ReferenceTest, UnitValues

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
            the name of each row's block. Blocks are permuted whole, also those of unequal length, and the interval is
            widened by what they cost.
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
    return dependences(activations, {"": reference}, blocks, seed, dtype=dtype)[""]


def dependences(
    activations: Any, references: Mapping[str, Any], blocks: Any = None, seed: int = 0, *, dtype: Any = None
) -> dict[str, Dependence]:
    """`dependence` on each of several references, for which units are put in order and blocks permuted once.

    >>> found = dependences(np.eye(2).repeat(50, 0), {"own": np.arange(100) // 50, "none": np.arange(100) % 2})
    >>> [found[name].flag[0].item() for name in ("own", "none")]
    ['dependent', 'negligible']
    """
    columns, constant, finite = unit_columns(activations, dtype)
    rows, seed = columns.shape[-1], _counted(seed)
    each = {name: reference_column(reference, rows) for name, reference in references.items()}
    orders = None if blocks is None else block_orders(block_groups(blocks, rows), seed)
    against = {name: ReferenceTest(column, orders, seed) for name, column in each.items()}
    tested = finite & ~constant
    found = _judged(columns[tested], against)
    return {name: _spread(found[name], against[name], tested, finite) for name in references}


def _judged(columns: Array, against: Mapping[str, ReferenceTest]) -> dict[str, dict[str, Array]]:
    """Reference -> `[unit]` of value, p, low, high and the entropy of the codes, for columns that vary."""
    if not len(columns):
        return {name: dict.fromkeys(MEASURED, np.zeros(0)) for name in against}
    parts = []
    for chunk in chunks(columns.shape[::-1]):
        units = UnitValues(columns[chunk])
        parts.append({name: each.judge(units) for name, each in against.items()})
    return {name: {key: np.concatenate([part[name][key] for part in parts]) for key in MEASURED} for name in against}


def _counted(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise HarnessError(f"seed: expected a whole number from 0, got {seed!r}")
    return int(seed)


def _spread(
    found: Mapping[str, Array], against: ReferenceTest, tested: NDArray[np.bool_], finite: NDArray[np.bool_]
) -> Dependence:
    """What was found of the tested units, in the place of each; 0 or no test for the others, NaN if not finite."""
    full = {name: _placed(each, tested, np.nan if name == "p" else 0.0, finite) for name, each in found.items()}
    delta = smallest_dependence(full["codes_entropy"], np.asarray(against.entropy))
    flag = np.where(full["low"] > delta, "dependent", np.where(full["high"] < delta, "negligible", "inconclusive"))
    flag = np.where(finite & ~tested | against.reference.constant & finite, "negligible", flag)
    return Dependence(**full, delta=delta, flag=flag, reference_entropy=against.entropy)


def _placed(found: Array, tested: NDArray[np.bool_], elsewhere: float, finite: NDArray[np.bool_]) -> Array:
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
    return _placed(binned_information(contingency(codes, classes)), tested, 0.0, finite)
