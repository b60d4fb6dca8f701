"""Does a unit depend on a reference: a test and an interval from a binned table, and a three-valued answer.

The table has up to 8 quantile bins a side, with frequent values (the zeros of a ReLU) as codes of their own. Binning
loses information, so the interval is one of a lower bound of the mutual information.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measures.information import Array, information, prepare

BINS = 8
PERMUTATIONS = 999
SMALLEST_EXPECTED = 5.0
LEVEL = 0.95
LEAST_NATS, LEAST_SHARE, LEAST_OF_CODES = 0.01, 0.01, 0.05
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Dependence:
    """What is known of the dependence of units on one reference, `[*member, unit]` each.

    Args:
        value: nats, by nearest neighbours, unclamped.
        p: of independence; NaN for a constant unit, which is no test.
        low, high: 95 % interval of the binned information, nats.
        delta: nats below which a dependence is called negligible.
        flag: "dependent" (low above delta), "negligible" (high below delta) or "inconclusive".
        reference_entropy: nats; of the classes, or of the binned factor.
    """

    value: Array
    p: Array
    low: Array
    high: Array
    delta: Array
    flag: NDArray[Any]
    reference_entropy: float


def dependence(activations: Any, reference: Any, blocks: Any = None, seed: int = 0) -> Dependence:
    """Value, p, interval and a three-valued answer for each unit.

    Args:
        activations: `[*member, sample, unit]`.
        reference: `[sample]`; integers are classes, floats a continuous factor.
        blocks: `[sample]`, where rows of one block are not exchangeable: they are permuted together.
        seed: of the permutations.

    Returns:
        Pearson's X2 gives p where every expected count is 5 or more, else 999 permutations do, always with blocks.
        For a continuous factor p is the smaller of that and Spearman's, doubled.

    >>> labels = np.arange(800) % 2
    >>> dependence(np.stack([labels, 0 * labels], 1) * 1.0, labels).flag.tolist()
    ['dependent', 'negligible']

    Raises:
        HarnessError: for the inputs that `mutual_information` refuses.

    Source: Cover & Thomas 2.3; Phipson & Smyth 2010 for p of permutations.
    """
    values, other, constant = prepare(activations, reference)
    continuous = other.dtype.kind == "f"
    classes = binned(other[:, None])[:, 0] if continuous else np.unique(other, return_inverse=True)[1]
    flat = np.moveaxis(values, -2, -1).reshape(-1, values.shape[-2]).T  # [sample, member x unit]
    live = ~constant.reshape(-1)
    tested = _tested(flat[:, live], classes, other if continuous else None, _groups(blocks), seed)
    columns = {name: np.full(live.shape, np.nan if name == "p" else 0.0) for name in ("p", "low", "high", "codes")}
    for name, found in tested.items():
        columns[name][live] = found
    shaped = {name: column.reshape(constant.shape) for name, column in columns.items()}
    entropy = _entropy(np.bincount(classes))
    delta = _delta(shaped.pop("codes"), entropy, continuous)
    flag = np.where(shaped["low"] > delta, "dependent", np.where(shaped["high"] < delta, "negligible", "inconclusive"))
    flag = np.where(constant, "negligible", flag)
    return Dependence(information(values, other, constant), **shaped, delta=delta, flag=flag, reference_entropy=entropy)


def _delta(codes: Array, entropy: float, continuous: bool) -> Array:
    least = LEAST_NATS if continuous else max(LEAST_NATS, LEAST_SHARE * entropy)
    return np.minimum(least, LEAST_OF_CODES * codes)


def _tested(
    units: Array, classes: Codes, factor: Array | None, groups: list[NDArray[np.int64]] | None, seed: int
) -> dict[str, Array]:
    if not units.shape[1]:
        return {}
    codes = binned(units)
    tables = contingency(codes, classes)
    squares, expected = pearson(tables)
    p = _p_of_squares(tables, squares)
    weak = np.ones(len(p), bool) if groups is not None else expected < SMALLEST_EXPECTED
    generator = np.random.default_rng(seed)
    if weak.any():
        p[weak] = permuted_p(codes[:, weak], classes, squares[weak], groups, generator)
    if factor is not None:
        p = np.minimum(1.0, 2 * np.minimum(p, _spearman_p(units, factor, groups, generator)))
    low, high = information_interval(tables)
    entropies = np.array([_entropy(table.sum(1)) for table in tables])
    return {"p": p, "low": low, "high": high, "codes": entropies}


def binned(values: Array, bins: int = BINS) -> Codes:
    """Each column as codes: values on at least 1/8 of the rows have a code of their own, the rest lie in quantile bins.

    >>> binned(np.array([[0.0], [0.0], [0.0], [0.0], [1.0], [2.0], [3.0], [4.0]]), 4)[:, 0].tolist()
    [0, 0, 0, 0, 1, 1, 2, 2]
    """
    return np.stack([_binned(column, bins) for column in values.T], axis=1)


def _binned(values: NDArray[Any], bins: int) -> Codes:
    order = np.argsort(values)
    ordered, rows = values[order], len(values)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, rows])
    atom = (sizes * bins >= rows) & (sizes > 1)
    rest = rows - int(sizes[atom].sum())
    parts = max(1, round(bins * rest / rows))
    # a tie lies in one bin whole: the bin of its middle among the values that are no atoms
    before = np.cumsum(np.where(atom, 0, sizes)) - np.where(atom, 0, sizes)
    quantile = np.minimum((before + sizes / 2) * parts // max(1, rest), parts - 1)
    label = np.where(atom, -1 - np.arange(len(sizes)), quantile)
    codes = np.empty(rows, np.int64)
    codes[order] = np.repeat(np.unique(label, return_inverse=True)[1], sizes)
    return codes


def contingency(codes: Codes, classes: Codes) -> NDArray[np.int64]:
    """Counts `[unit, code, class]` of the codes of every unit."""
    rows, units = codes.shape
    width, depth = int(codes.max()) + 1, int(classes.max()) + 1
    cells = (np.arange(units) * width + codes) * depth + classes[:, None]
    return np.bincount(cells.ravel(), minlength=units * width * depth).reshape(units, width, depth)


def pearson(tables: NDArray[Any]) -> tuple[Array, Array]:
    """Pearson's X2 of each table, and its least expected count over rows and columns that are not empty."""
    total = tables.sum((1, 2), keepdims=True)
    expected = tables.sum(2, keepdims=True) * tables.sum(1, keepdims=True) / total
    filled = expected > 0
    terms = np.divide((tables - expected) ** 2, expected, out=np.zeros(tables.shape), where=filled)
    least = np.where(filled, expected, np.inf).min((1, 2))
    return terms.sum((1, 2)), least


def _freedom(tables: NDArray[Any]) -> Array:
    rows = (tables.sum(2) > 0).sum(1)
    columns = (tables.sum(1) > 0).sum(1)
    return np.maximum((rows - 1) * (columns - 1), 1).astype(np.float64)


def _p_of_squares(tables: NDArray[Any], squares: Array) -> Array:
    from scipy.special import chdtrc

    p: Array = chdtrc(_freedom(tables), squares)
    return p


def permuted_p(
    codes: Codes,
    classes: Codes,
    squares: Array,
    groups: list[NDArray[np.int64]] | None,
    generator: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Array:
    """p of X2 under permutations of the classes, whole blocks together: (1 + as large) / (permutations + 1)."""
    rows, units = codes.shape
    width, depth = int(codes.max()) + 1, int(classes.max()) + 1
    shown = np.zeros((rows, units * width), np.float32)
    shown[np.arange(rows)[:, None], np.arange(units) * width + codes] = 1
    margins = shown.sum(0)[:, None] * np.bincount(classes, minlength=depth)[None] / rows
    weight = np.divide(1.0, margins, out=np.zeros(margins.shape), where=margins > 0)
    larger, done = np.zeros(units), 0
    while done < permutations:
        few = min(permutations - done, max(1, 40_000_000 // (rows * depth)))
        targets = np.zeros((rows, few * depth), np.float32)
        for index in range(few):
            targets[np.arange(rows), index * depth + classes[_shuffled(rows, groups, generator)]] = 1
        counts = (shown.T @ targets).reshape(units * width, few, depth)
        parts = (counts.astype(np.float64) ** 2 * weight[:, None]).sum(2)
        found = parts.reshape(units, width, few).sum(1) - rows
        larger += (found >= squares[:, None] * (1 - 1e-9) - 1e-9).sum(1)
        done += few
    return (1 + larger) / (permutations + 1)


def _groups(blocks: Any) -> list[NDArray[np.int64]] | None:
    if blocks is None:
        return None
    labels = blocks.numpy() if hasattr(blocks, "numpy") else np.asarray(blocks)
    return [np.flatnonzero(labels == each) for each in np.unique(labels)]


def _shuffled(
    rows: int, groups: list[NDArray[np.int64]] | None, generator: np.random.Generator
) -> NDArray[np.int64]:
    """An order of the rows: any, or whole blocks in any order laid along the blocks as they stand."""
    if groups is None:
        return generator.permutation(rows)
    shuffled = np.empty(rows, np.int64)
    shuffled[np.concatenate(groups)] = np.concatenate([groups[i] for i in generator.permutation(len(groups))])
    return shuffled


def _spearman_p(
    units: Array, factor: Array, groups: list[NDArray[np.int64]] | None, generator: np.random.Generator
) -> Array:
    """p of Spearman's correlation: Student's t, or permutations of blocks."""
    from scipy.special import stdtr

    ranks = _standard(np.stack([_ranks(column) for column in units.T], axis=1))
    other = _standard(_ranks(factor)[:, None])[:, 0]
    rows = len(factor)
    correlation = np.clip(ranks.T @ other, -1, 1)
    if groups is not None:
        orders = np.stack([_shuffled(rows, groups, generator) for _ in range(PERMUTATIONS)], axis=1)
        found = np.abs(ranks.T @ other[orders])
        return (1 + (found >= np.abs(correlation)[:, None] - 1e-12).sum(1)) / (PERMUTATIONS + 1)
    if rows < 3:
        return np.ones(len(correlation))
    t = np.abs(correlation) * np.sqrt((rows - 2) / np.maximum(1 - correlation**2, 1e-300))
    p: Array = 2 * stdtr(rows - 2, -t)
    return p


def _ranks(values: Array) -> Array:
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(values)]
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks


def _standard(columns: Array) -> Array:
    away = columns - columns.mean(0)
    length = np.sqrt((away**2).sum(0))
    return np.divide(away, length, out=np.zeros_like(away), where=length > 0)


def binned_information(tables: NDArray[Any]) -> Array:
    """Plug-in mutual information of count tables `[unit, code, class]`, nats; biased up by about df / 2n.

    >>> binned_information(np.array([[[5, 0], [0, 5]]])).round(4).tolist()
    [0.6931]
    """
    share = tables / tables.sum((1, 2), keepdims=True)
    expected = share.sum(2, keepdims=True) * share.sum(1, keepdims=True)
    ratio = np.divide(share, expected, out=np.ones(share.shape), where=share > 0)
    return (share * np.log(ratio)).sum((1, 2))


def information_interval(tables: NDArray[Any], level: float = LEVEL) -> tuple[Array, Array]:
    """Interval of the binned information: G = 2 n I is noncentral chi-square, and its noncentrality is 2 n times I."""
    from scipy.special import chdtr, chndtrinc

    rows = tables.sum((1, 2))
    statistic = np.maximum(2 * rows * binned_information(tables), 1e-12)
    freedom, tail = _freedom(tables), (1 - level) / 2
    centre = chdtr(freedom, statistic)
    low = np.where(centre > 1 - tail, _noncentrality(chndtrinc, statistic, freedom, 1 - tail), 0.0)
    high = np.where(centre > tail, _noncentrality(chndtrinc, statistic, freedom, tail), 0.0)
    return low / (2 * rows), high / (2 * rows)


def _noncentrality(inverse: Any, statistic: Array, freedom: Array, p: float) -> Array:
    """Where scipy's inverse fails (very large statistics) the normal approximation of the distribution is used."""
    found = inverse(statistic, freedom, p)
    # mean df + nc, variance 2 (df + 2 nc): solved for nc at the quantile
    from scipy.special import ndtri

    z = ndtri(p)
    b = statistic - freedom
    root = z * np.sqrt(np.maximum(4 * b + 2 * freedom + 4 * z**2, 0))
    approximate = np.maximum(b + 2 * z**2 - root, 0.0)
    large = ~np.isfinite(found) | (statistic > 1e4)
    return np.where(large, approximate, found)


def benjamini_hochberg(p: Any) -> Array:
    """Adjusted p values over all that are given; NaN is no test and stays NaN.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]

    Source: Benjamini & Hochberg 1995.
    """
    values = np.asarray(p, dtype=np.float64)
    tests = values[~np.isnan(values)]
    order = np.argsort(tests)[::-1]
    adjusted = np.empty_like(tests)
    ranks = np.arange(len(tests), 0, -1)
    adjusted[order] = np.minimum(np.minimum.accumulate(tests[order] * len(tests) / ranks), 1.0)
    out = np.full(values.shape, np.nan)
    out[~np.isnan(values)] = adjusted
    return out


def _entropy(counts: NDArray[Any]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
