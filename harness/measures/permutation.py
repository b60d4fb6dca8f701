"""Permutation tests: random tables with the margins of the observed one, and tables of permuted blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measures.block_permutation import PERMUTATIONS, BlockOrders, BlockPart
from harness.measures.contingency import Codes, Tables, contingency, expected_counts, freedom, pearson

Array = NDArray[np.float64]
NUMBERS_AT_ONCE = 1 << 19  # of what is multiplied
UNITS_AT_ONCE = 256
COUNTS_TOGETHER = 3  # counts of one byte share a float32, of two bytes a float64: exact, as are sums of their products


def random_tables(table: NDArray[np.int64], seed: int, count: int = PERMUTATIONS) -> Tables:
    """Tables that permuting one side of `[code, class]` at random gives, `[table, code, class]`.

    Cell by cell from the hypergeometric distribution: the same distribution as shuffled rows, at a cost that does not
    grow with their number. A table with more cells than rows is made by shuffling rows. The result depends on the
    margins and the seed only.

    >>> random_tables(np.array([[3, 0], [0, 2]]), 0, 4).sum(1).tolist()
    [[3, 2], [3, 2], [3, 2], [3, 2]]

    Source: Patefield 1981, algorithm AS 159, for drawing by conditional cells.
    """
    generator = np.random.default_rng(seed)
    columns, rows = table.sum(0), table.sum(1)
    if table.size > rows.sum():
        return _shuffled_tables(rows, columns, generator, count)
    drawn = np.zeros((count, *table.shape), np.int64)
    remaining = np.broadcast_to(columns, (count, len(columns))).copy()
    for row in range(len(rows) - 1):
        needed, later = np.full(count, rows[row]), remaining.sum(1)
        for column in range(len(columns) - 1):
            later = later - remaining[:, column]
            cell = generator.hypergeometric(remaining[:, column], later, needed)
            drawn[:, row, column] = cell
            needed = needed - cell
        drawn[:, row, -1] = needed
        remaining -= drawn[:, row]
    drawn[:, -1] = remaining
    return drawn


def _shuffled_tables(
    rows: NDArray[np.int64], columns: NDArray[np.int64], generator: np.random.Generator, count: int
) -> Tables:
    """Tables of these margins from rows of data that are shuffled, `[table, code, class]`."""
    cells = len(rows) * len(columns)
    classes = np.broadcast_to(np.arange(len(columns)).repeat(columns), (count, int(rows.sum())))
    cell_numbers = generator.permuted(classes, axis=1)
    cell_numbers += np.arange(len(rows)).repeat(rows) * len(columns)
    cell_numbers += np.arange(count)[:, None] * cells
    return np.bincount(cell_numbers.ravel(), minlength=count * cells).reshape(count, len(rows), len(columns))


def table_p(table: NDArray[np.int64], seed: int, count: int = PERMUTATIONS) -> float:
    """Return p of X2 among `count` random tables of the same margins, (1 + number as large) / (count + 1).

    >>> table_p(np.array([[20, 0], [0, 20]]), 0)
    0.001

    Source: Phipson & Smyth 2010, Permutation p-values should never be zero.
    """
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    if min(table.shape) < 2:
        return 1.0
    expected = expected_counts(table[None])[0]
    statistic = ((table**2) / expected).sum()
    drawn = (random_tables(table, seed, count) ** 2 / expected).sum((1, 2))
    return float((1 + np.count_nonzero(drawn >= statistic * (1 - 1e-12))) / (count + 1))


def block_p(codes: Codes, classes: NDArray[Any], orders: BlockOrders) -> tuple[Array, Array]:
    """Return p of X2 of each unit's codes when blocks of the classes are permuted, and the inflation of X2, `[unit]` each.

    The inflation is mean X2 over the permutations / its degrees of freedom: 1 for exchangeable rows, larger where
    rows of one block are alike. All units and orders are one matrix product.

    Args:
        codes: `[unit, sample]`. classes: `[sample]`. orders: of the rows.
    """
    tables = contingency(codes, classes)
    slices = [slice(start, start + UNITS_AT_ONCE) for start in range(0, len(codes), UNITS_AT_ONCE)]
    squares = np.concatenate([_statistics(codes[chunk], classes, tables[chunk], orders.parts) for chunk in slices])
    own = pearson(tables)[0][:, None]
    larger = np.count_nonzero(squares >= own * (1 - 1e-9) - 1e-9, axis=1)
    p = (1 + larger) / (squares.shape[1] + 1)
    return p, np.maximum(1.0, squares.mean(1) / freedom(tables))


def _statistics(codes: Codes, classes: NDArray[Any], tables: Tables, parts: Sequence[BlockPart]) -> Array:
    """X2 of each unit under each order of the classes, `[unit, order]`."""
    sizes, depth = tables.sum(2), tables.shape[2]
    frequency = np.argsort(sizes, axis=1, kind="stable")  # of codes as frequent as each other the first stays first
    codes = np.take_along_axis(np.argsort(frequency, axis=1).astype(np.uint8), codes, axis=1)  # the commonest is last
    roots = np.sqrt(_inverse(np.take_along_axis(sizes, frequency, axis=1)))[:, :, None, None]
    totals, counts = zip(*(_counts(codes, classes, part, tables.shape[1:]) for part in parts), strict=True)
    inverse_totals = _inverse(_together(totals)).reshape(-1, depth)
    squares = [
        np.einsum("oc,oc->o", _squared([count[unit] * root for count in counts]).reshape(-1, depth), inverse_totals)
        for unit, root in enumerate(roots)
    ]
    return codes.shape[1] * (np.stack(squares)[:, 1:] - 1)


def _squared(counts: Sequence[Array]) -> Array:
    """Squared counts `[code, order, round x class]`, those of the parts added up first, summed over codes."""
    both = _together(counts)
    return np.square(both, out=both).sum(0)


def _together(counts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Counts `[*, order, round x class]` of the parts, in whole tables `[*, order, order, round x class]`."""
    return counts[0][..., :, None, :] + counts[1][..., None, :, :] if len(counts) == 2 else counts[0]


def _counts(
    codes: Codes, classes: NDArray[Any], part: BlockPart, form: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A part's rows of each class, `[order, round x class]`, and its share of each table, `[unit, code, ...]`.

    The commonest code, which is the last, is what the others leave of the rows.

    Args:
        form: of a table, codes and classes.
    """
    orders, (width, depth) = part.orders.swapaxes(0, 1), form
    shape = (orders.shape[0], orders.shape[1] * depth)
    permuted = classes[orders.reshape(-1, len(part.rows))]
    totals = _rows_of_classes(permuted, depth).reshape(shape).astype(_count_type(codes.shape[1]))
    first_codes = _products(codes[:, part.rows], permuted, width - 1, depth).reshape(len(codes), width - 1, *shape)
    last = totals - first_codes.sum(1, dtype=totals.dtype)
    return totals, np.concatenate([first_codes, last[:, None]], axis=1, dtype=totals.dtype)


def _rows_of_classes(classes: NDArray[Any], depth: int) -> NDArray[Any]:
    """Number of rows of each class, of `[order, sample]`, in one line."""
    cells = (classes + np.arange(len(classes))[:, None] * depth).ravel()
    return np.bincount(cells, minlength=len(classes) * depth)


def _products(codes: Codes, classes: NDArray[Any], width: int, depth: int) -> NDArray[Any]:
    """Number of rows with each of the first codes and each class, `[unit x code, order x class]`."""
    dtype = _count_type(max((int(np.count_nonzero(codes == code, axis=1).max()) for code in range(width)), default=0))
    packed = _packed(codes, width, dtype)
    counts = np.empty((len(packed), _lanes(dtype), len(classes) * depth), dtype)
    step = max(1, NUMBERS_AT_ONCE // (codes.shape[1] * depth))
    for start in range(0, len(classes), step):
        targets = _targets(classes[start : start + step], depth).astype(packed.dtype, copy=False)
        _unpack(packed @ targets, counts[:, :, start * depth : start * depth + targets.shape[1]])
    return counts.reshape(-1, counts.shape[2])[: len(codes) * width]


def _unpack(packed: NDArray[Any], into: NDArray[Any]) -> None:
    """Packed counts `[number, column]` into `[number, lane, column]`."""
    dtype = np.uint32 if packed.dtype == np.float32 else np.uint64
    integers: NDArray[np.uint32 | np.uint64] = packed.astype(dtype)
    for lane in range(into.shape[1]):
        into[:, lane] = integers >> (8 * into.itemsize * lane)  # higher lanes are cut off


def _count_type(most: int) -> "np.dtype[Any]":
    """The smallest kind of number that holds a count."""
    return np.dtype(np.uint8 if most < 1 << 8 else np.uint16 if most < 1 << 16 else np.uint32)


def _packed(codes: NDArray[np.uint8], width: int, dtype: "np.dtype[Any]") -> NDArray[Any]:
    """Indicators of the rows with each code, three (unit, code) in one number, `[number, sample]`; one if counts are long.

    >>> _packed(np.array([[0, 1, 1]], np.uint8), 2, np.dtype(np.uint8)).tolist()
    [[1.0, 256.0, 256.0]]
    """
    lanes, (units, rows) = _lanes(dtype), codes.shape
    packed = np.zeros((-(-units * width // lanes), rows), np.float32 if dtype.itemsize == 1 else np.float64)
    for lane in range(lanes):
        unit, code = np.divmod(np.arange(lane, units * width, lanes), width)
        packed[: len(unit)] += (codes[unit] == code[:, None]) * packed.dtype.type(256.0 ** (lane * dtype.itemsize))
    return packed


def _lanes(dtype: "np.dtype[Any]") -> int:
    return COUNTS_TOGETHER if dtype.itemsize < 4 else 1


def _inverse(totals: NDArray[np.int64]) -> Array:
    return np.divide(1.0, totals, out=np.zeros(totals.shape), where=totals > 0)


def _targets(classes: NDArray[Any], depth: int) -> NDArray[np.float32]:
    """Classes `[order, sample]` as columns of zeros and ones, `[sample, order x class]`."""
    orders, rows = classes.shape
    targets = np.zeros((rows, orders * depth), np.float32)
    targets[np.arange(rows)[:, None], np.arange(orders) * depth + classes.T] = 1
    return targets
