"""Units and references as a few codes, the tables they make, and the information in those tables.

A lower bound of the mutual information: binning loses some of it. Up to 8 quantile bins, with frequent values (the
zeros of a ReLU) as codes of their own.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.uint8]
Tables = NDArray[np.int64]
MOST_BINS = 8
ROWS_PER_CELL = 5
SMALLEST_EXPECTED = 5.0
LEVEL = 0.95


def bins_for(rows: int) -> int:
    """Quantile bins a side that leave about five rows in a cell: 2 to 8, and 8 from 320 rows.

    >>> bins_for(50), bins_for(2000)
    (3, 8)
    """
    return int(min(MOST_BINS, max(2, (rows / ROWS_PER_CELL) ** 0.5)))


def codes_of(columns: NDArray[Any], bins: int | None = None) -> Codes:
    """Each column of `[unit, sample]` as codes 0, 1, ...

    A column of at most `bins` different values has a code for each. Else values on at least 1 / bins of the rows have
    codes of their own, and the others lie in quantile bins among themselves, ties together.

    >>> codes_of(np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]), 4).tolist()
    [[2, 2, 2, 2, 2, 0, 0, 0, 1, 1]]
    """
    bins = bins_for(columns.shape[-1]) if bins is None else bins
    ordered = np.sort(columns, axis=-1)
    codes = np.zeros(columns.shape, np.uint8)
    for values, line, code in zip(columns, ordered, codes, strict=True):
        atoms, cuts = _atoms_and_cuts(line, bins)
        # a comparison a bin is faster than a search: there are at most 8
        for cut in cuts:
            code += values > cut
        for number, atom in enumerate(atoms):
            code[values == atom] = len(cuts) + 1 + number
    return codes


def _atoms_and_cuts(line: NDArray[Any], bins: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Frequent values, and the largest value of every quantile bin but the last among the others."""
    rows = len(line)
    steps = line[1:] != line[:-1]
    if np.count_nonzero(steps) < bins:
        return line[:0], line[:-1][steps]
    # a value with a bin's share of the rows fills at least so many places in a row
    least = -(-rows // bins)
    heads = np.flatnonzero(line[: rows - least + 1] == line[least - 1 :]) if least > 1 else np.arange(0)
    atoms = np.unique(line[heads])
    rest = line[~np.isin(line, atoms)] if len(atoms) else line
    parts = min(len(rest), max(1, round(bins * len(rest) / rows)))
    return atoms, np.unique(rest[-(-np.arange(1, parts) * len(rest) // parts) - 1])


def contingency(codes: Codes, classes: NDArray[Any]) -> Tables:
    """Counts `[unit, code, class]` of codes `[unit, sample]` and classes `[sample]`.

    >>> contingency(np.array([[0, 1, 1]], np.uint8), np.array([0, 0, 1])).tolist()
    [[[1, 0], [1, 1]]]
    """
    depth = int(classes.max()) + 1
    width = int(codes.max()) + 1
    offset = classes.astype(np.int64) * width
    counts = [np.bincount(code + offset, minlength=width * depth) for code in codes]
    return np.stack(counts).reshape(len(codes), depth, width).swapaxes(1, 2)


def binned_information(tables: Tables) -> Array:
    """Plug-in mutual information of count tables `[unit, code, class]`, nats, 0 to the smaller entropy.

    Biased upward by about (codes - 1)(classes - 1) / 2n: noise, 8 bins and 10 labels give 0.12 nats at n = 256.

    >>> binned_information(np.array([[[5, 0], [0, 5]]])).round(4).tolist()
    [0.6931]

    Source: Cover & Thomas, Elements of Information Theory, 2.3; Panzeri et al. 2007 for the bias.
    """
    both = entropy_of(tables.reshape(len(tables), -1))
    return np.maximum(entropy_of(tables.sum(2)) + entropy_of(tables.sum(1)) - both, 0.0)


def entropy_of(counts: NDArray[Any]) -> Array:
    """Plug-in entropy of counts `[*unit, code]`, nats.

    >>> round(float(entropy_of(np.array([3, 3]))), 4)
    0.6931
    """
    rows = counts.sum(-1)
    logs = np.log(np.maximum(counts, 1))
    entropy: Array = np.log(rows) - added(counts * logs) / rows
    return entropy


def added(terms: NDArray[Any]) -> Array:
    """Sums along the codes, one term after the other, so that codes which only other units have change no digit.

    >>> added(np.array([0.5, 0.25, 0.0])).item()
    0.75
    """
    sums: Array = np.add.accumulate(terms, axis=-1)[..., -1]
    return sums


def pearson(tables: Tables) -> tuple[Array, Array]:
    """Pearson's X2 of each table, and its least expected count over rows and columns that are not empty.

    >>> [float(each[0]) for each in pearson(np.array([[[5, 0], [0, 5]]]))]
    [10.0, 2.5]
    """
    expected = expected_counts(tables)
    terms = np.divide((tables - expected) ** 2, expected, out=np.zeros(tables.shape), where=expected > 0)
    return added(terms.sum(2)), np.where(expected > 0, expected, np.inf).min((1, 2))


def expected_counts(tables: Tables) -> Array:
    """Counts that independence would give, `[unit, code, class]`.

    >>> expected_counts(np.array([[[5, 0], [0, 5]]])).tolist()
    [[[2.5, 2.5], [2.5, 2.5]]]
    """
    products = tables.sum(2, keepdims=True) * tables.sum(1, keepdims=True)
    expected: Array = products / tables.sum((1, 2), keepdims=True)
    return expected


def freedom(tables: Tables) -> Array:
    """Degrees of freedom of each table, rows and columns that are empty left out; at least 1.

    >>> freedom(np.array([[[5, 0], [0, 5], [0, 0]]])).tolist()
    [1.0]
    """
    rows, columns = (tables.sum(2) > 0).sum(1), (tables.sum(1) > 0).sum(1)
    return np.maximum((rows - 1) * (columns - 1), 1).astype(np.float64)


def occupied_freedom(tables: Tables) -> Array:
    """Degrees of freedom counted from the cells that rows fell in, cells - codes - classes + 1; at least 1.

    As `freedom` where no cell is empty. Where most are, the bias of the information is far less than `freedom` / 2n:
    this corrects for what a cell with rows in it adds, 1 / 2n, and never for more than the bias is.

    >>> occupied_freedom(np.array([[[5, 1], [1, 5], [1, 0]]])).tolist()
    [1.0]

    Source: Miller 1955, Note on the bias of information estimates, with cells counted as Panzeri et al. 2007 say.
    """
    cells = np.count_nonzero(tables, axis=(1, 2))
    codes, classes = np.count_nonzero(tables.sum(2), axis=1), np.count_nonzero(tables.sum(1), axis=1)
    return np.maximum(cells - codes - classes + 1, 1).astype(np.float64)


def information_interval(tables: Tables, level: float = LEVEL, inflation: Any = 1.0) -> tuple[Array, Array]:
    """Interval of the binned information: G = 2 n I is noncentral chi-square, its noncentrality 2 n times the truth.

    Args:
        tables: counts `[unit, code, class]`. level: coverage. inflation: `[unit]`, at least 1, how many times as wide
            as that of independent rows the distribution of G is; rows that come in blocks count as fewer.

    In sparse tables, where a cell expects fewer than 5 rows, the upper bound counts degrees of freedom from the cells
    that are occupied: G of independent rows stays below its chi-square there, and that is no sign of independence.

    >>> low, high = information_interval(np.array([[[250, 250], [250, 250]]]))
    >>> float(low[0]), round(float(high[0]), 4)
    (0.0, 0.0)

    Source: Smithson 2003, Confidence intervals, chapter 4, for the inversion.
    """
    from scipy.special import chdtr, chndtrinc, ndtri

    rows = tables.sum((1, 2)) / inflation
    statistic, full, tail = 2 * rows * binned_information(tables), freedom(tables), (1 - level) / 2
    sparse = pearson(tables)[1] < SMALLEST_EXPECTED
    z = float(ndtri(1 - tail))
    bounds = []
    for quantile, side, degrees in (
        (1 - tail, -1, full),
        (tail, 1, np.where(sparse, occupied_freedom(tables), full)),
    ):
        bound = np.zeros(len(tables))
        below = chdtr(degrees, statistic)
        some = below > quantile
        exact, wide = some & (statistic <= LARGE_STATISTIC), some & (statistic > LARGE_STATISTIC)
        bound[exact] = chndtrinc(statistic[exact], degrees[exact], quantile)
        # mean df + nc, variance 2 (df + 2 nc), solved for nc: far out the distribution is normal, and slow to invert
        away = statistic[wide] - degrees[wide]
        root = z * np.sqrt(4 * away + 2 * degrees[wide] + 4 * z * z)
        bound[wide] = away + 2 * z * z + side * root
        bounds.append(bound / (2 * rows))
    return bounds[0], bounds[1]


LARGE_STATISTIC = 1e4
