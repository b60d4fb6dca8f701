"""What tables look like where unit and reference are independent: random ones with the same margins."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.measures.binning import Tables, contingency, expected_counts, freedom, pearson

Array = NDArray[np.float64]
PERMUTATIONS = 999
NUMBERS_AT_ONCE = 20_000_000
PACKED = 1 << 12  # two counts below it fit into the 24 exact bits of one float32


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
    units, width, depth = tables.shape
    shown = (codes[:, None] == np.arange(width)[:, None]).reshape(units * width, -1).astype(np.float32)
    expected = expected_counts(tables)
    weight = np.divide(1.0, expected, out=np.zeros(expected.shape), where=expected > 0).reshape(units * width, 1, depth)
    drawn = [
        (_counts(shown, classes[part], depth) ** 2 * weight).sum(2)
        for part in np.array_split(orders, max(1, orders.size * depth // NUMBERS_AT_ONCE))
    ]
    squares = np.concatenate(drawn, axis=1).reshape(units, width, -1).sum(1) - len(classes)
    own = pearson(tables)[0][:, None]
    larger = np.count_nonzero(squares >= own * (1 - 1e-9) - 1e-9, axis=1)
    p = (1 + larger) / (len(orders) + 1)
    return p, np.maximum(1.0, squares.mean(1) / freedom(tables))


def _counts(shown: NDArray[np.float32], classes: NDArray[Any], depth: int) -> NDArray[np.float32]:
    """How often each code meets each class under each order, `[unit x code, order, class]`."""
    codes, rows = shown.shape
    if rows >= PACKED:
        return (shown @ _targets(classes, depth)).reshape(codes, -1, depth)
    # two classes to a number, the second in its upper half: half the product, and every count still exact
    values = np.where(classes % 2, PACKED, 1).astype(np.float32)
    both = (shown @ _targets(classes // 2, -(-depth // 2), values)).reshape(codes, -1, -(-depth // 2))
    counts = np.empty((*both.shape, 2), np.float32)
    np.floor(both / PACKED, out=counts[..., 1])
    np.subtract(both, counts[..., 1] * PACKED, out=counts[..., 0])
    return counts.reshape(codes, both.shape[1], -1)[..., :depth]


def _targets(classes: NDArray[Any], depth: int, values: NDArray[np.float32] | float = 1.0) -> NDArray[np.float32]:
    """Classes `[order, sample]` as columns that hold their value and zeros, `[sample, order x class]`."""
    orders, rows = classes.shape
    targets = np.zeros((rows, orders * depth), np.float32)
    targets[np.arange(rows)[:, None], np.arange(orders) * depth + classes.T] = np.transpose(values)
    return targets
