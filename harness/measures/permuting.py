"""What tables look like where unit and reference are independent: random ones with the same margins."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.measures.binning import Tables, contingency, expected_counts, freedom, pearson

Array = NDArray[np.float64]
PERMUTATIONS = 999
NUMBERS_AT_ONCE = 20_000_000
COUNTS_TOGETHER = 3  # counts of one byte share a float32, of two bytes a float64: exact, as are sums of their products
PRODUCT_ROWS = 256  # of numbers: what comes out stays in cache


def random_tables(table: NDArray[np.int64], seed: int, count: int = PERMUTATIONS) -> Tables:
    """Tables that permuting one side of `[code, class]` at random gives, `[table, code, class]`.

    Cell by cell from the hypergeometric distribution: the same distribution as shuffled rows, at a cost that does not
    grow with their number. A table depends on its own margins and the seed only.

    >>> random_tables(np.array([[3, 0], [0, 2]]), 0, 4).sum(1).tolist()
    [[3, 2], [3, 2], [3, 2], [3, 2]]

    Source: Patefield 1981, algorithm AS 159, for drawing by conditional cells.
    """
    generator = np.random.default_rng(seed)
    columns, rows = table.sum(0), table.sum(1)
    drawn = np.zeros((count, *table.shape), np.int64)
    left = np.broadcast_to(columns, (count, len(columns))).copy()
    for row in range(len(rows) - 1):
        wanted, later = np.full(count, rows[row]), left.sum(1)
        for column in range(len(columns) - 1):
            later = later - left[:, column]
            cell = generator.hypergeometric(left[:, column], later, wanted)
            drawn[:, row, column] = cell
            wanted = wanted - cell
        drawn[:, row, -1] = wanted
        left -= drawn[:, row]
    drawn[:, -1] = left
    return drawn


def table_p(table: NDArray[np.int64], seed: int, count: int = PERMUTATIONS) -> float:
    """p of X2 among `count` random tables of the same margins, (1 + as large) / (count + 1).

    >>> table_p(np.array([[20, 0], [0, 20]]), 0)
    0.001

    Source: Phipson & Smyth 2010, Permutation p-values should never be zero.
    """
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    if min(table.shape) < 2:
        return 1.0
    expected = expected_counts(table[None])[0]
    found = ((table**2) / expected).sum()
    drawn = (random_tables(table, seed, count) ** 2 / expected).sum((1, 2))
    return float((1 + np.count_nonzero(drawn >= found * (1 - 1e-12))) / (count + 1))


def block_groups(blocks: Any, rows: int) -> list[NDArray[np.int64]]:
    """The rows of every block.

    Raises:
        HarnessError: for another length, fewer than two blocks, and names that are neither numbers nor words.
    """
    names = _names(blocks)
    if names.shape != (rows,):
        raise HarnessError(
            f"blocks: one block for each of the {rows} samples is wanted, the shape is {list(names.shape)}"
        )
    if names.dtype.kind not in "iufbUS" or (names.dtype.kind == "f" and not np.isfinite(names).all()):
        raise HarnessError("blocks: each is named by a number or a word; None, NaN and infinity name no block")
    groups = [np.flatnonzero(names == each) for each in np.unique(names)]
    if len(groups) < 2:
        raise HarnessError(
            "blocks: all rows are in one block, so nothing can be permuted; leave blocks out or cut finer"
        )
    return groups


def _names(blocks: Any) -> NDArray[Any]:
    try:
        return np.asarray(blocks.detach().cpu() if hasattr(blocks, "detach") else blocks)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HarnessError(f"blocks: one number or word a sample is wanted ({error})") from error


def block_orders(groups: list[NDArray[np.int64]], seed: int, count: int = PERMUTATIONS) -> NDArray[np.int64]:
    """Orders of the rows, `[order, sample]`: whole blocks in a random order, laid along the blocks as they stand."""
    generator = np.random.default_rng(seed)
    places = np.concatenate(groups)
    orders = np.empty((count, len(places)), np.int64)
    for order in orders:
        order[places] = np.concatenate([groups[index] for index in generator.permutation(len(groups))])
    return orders


def block_p(codes: NDArray[np.uint8], classes: NDArray[Any], orders: NDArray[np.int64]) -> tuple[Array, Array]:
    """p of X2 of each unit's codes `[unit, sample]` when blocks of the classes are permuted, and its inflation.

    The second is what blocks cost: how many times chi-square's mean X2 has on average, 1 for rows that are exchangeable
    after all, larger where rows of one block are alike. All units and orders are one matrix product.
    """
    tables = contingency(codes, classes)
    parts = np.array_split(orders, max(1, orders.size * tables.shape[2] // NUMBERS_AT_ONCE))
    # no cell can hold more, whatever the order
    most = int(min(tables.sum(2).max(), tables.sum(1).max()))
    kind = _count_type(most)
    shown = _packed(codes, tables.shape[1], kind)
    squares = np.concatenate([_statistics(shown, classes[part], tables, kind) for part in parts], axis=1)
    own = pearson(tables)[0][:, None]
    larger = np.count_nonzero(squares >= own * (1 - 1e-9) - 1e-9, axis=1)
    p = (1 + larger) / (len(orders) + 1)
    return p, np.maximum(1.0, squares.mean(1) / freedom(tables))


def _count_type(most: int) -> "np.dtype[Any]":
    """The smallest kind of number that holds a count."""
    return np.dtype(np.uint8 if most < 1 << 8 else np.uint16 if most < 1 << 16 else np.uint32)


def _packed(codes: NDArray[np.uint8], width: int, kind: "np.dtype[Any]") -> NDArray[Any]:
    """Which rows show which code, three (unit, code) to one number, `[number, sample]`; one, where counts are long.

    >>> _packed(np.array([[0, 1, 1]], np.uint8), 2, np.dtype(np.uint8)).tolist()
    [[1.0, 256.0, 256.0]]
    """
    lanes, (units, rows) = _lanes(kind), codes.shape
    packed = np.zeros((-(-units * width // lanes), rows), np.float32 if kind.itemsize == 1 else np.float64)
    for lane in range(lanes):
        unit, code = np.divmod(np.arange(lane, units * width, lanes), width)
        packed[: len(unit)] += (codes[unit] == code[:, None]) * packed.dtype.type(256.0 ** (lane * kind.itemsize))
    return packed


def _lanes(kind: "np.dtype[Any]") -> int:
    return COUNTS_TOGETHER if kind.itemsize < 4 else 1


def _statistics(shown: NDArray[Any], classes: NDArray[Any], tables: Tables, kind: "np.dtype[Any]") -> Array:
    """X2 of each unit under each order of the classes `[order, sample]`, `[unit, order]`."""
    units, width, depth = tables.shape
    targets = _targets(classes, depth).astype(shown.dtype, copy=False)
    shares = _inverse(tables.sum(1)[0])
    parts = [_squares(part @ targets, shares, kind) for part in np.array_split(shown, -(-len(shown) // PRODUCT_ROWS))]
    by_code = np.concatenate(parts)[: units * width].reshape(units, width, -1)
    squares: Array = classes.shape[1] * np.einsum("uco,uc->uo", by_code, _inverse(tables.sum(2))) - classes.shape[1]
    return squares


def _squares(counts: NDArray[Any], shares: Array, kind: "np.dtype[Any]") -> Array:
    """Squared counts summed over classes with these shares, `[(unit, code), order]`, of packed counts."""
    lanes = _lanes(kind)
    whole = counts.astype(np.uint32 if counts.dtype == np.float32 else np.uint64)
    apart = whole.astype(whole.dtype.newbyteorder("<"), copy=False).view(kind).reshape(*counts.shape, -1)
    found = np.empty((len(counts), lanes, counts.shape[1] // len(shares)))
    for lane in range(lanes):
        squares = np.square(apart[..., lane].astype(np.float64))
        found[:, lane] = (squares.reshape(-1, len(shares)) @ shares).reshape(len(counts), -1)
    return found.reshape(len(counts) * lanes, -1)


def _inverse(totals: NDArray[np.int64]) -> Array:
    return np.divide(1.0, totals, out=np.zeros(totals.shape), where=totals > 0)


def _targets(classes: NDArray[Any], depth: int) -> NDArray[np.float32]:
    """Classes `[order, sample]` as columns of zeros and ones, `[sample, order x class]`."""
    orders, rows = classes.shape
    targets = np.zeros((rows, orders * depth), np.float32)
    targets[np.arange(rows)[:, None], np.arange(orders) * depth + classes.T] = 1
    return targets
