"""Blocks of rows that belong together, and the orders in which whole blocks are permuted."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError

Index = NDArray[np.int64]
PERMUTATIONS = 999
BLOCKS_TO_HALVE = 40  # from here on a half of the blocks has enough orders of its own
ORDERS_A_ROUND = 5


def block_groups(blocks: Any, rows: int) -> list[Index]:
    """The rows of every block, in the order of the blocks' names.

    >>> [rows.tolist() for rows in block_groups([7, 3, 7], 3)]
    [[1], [0, 2]]

    Raises:
        HarnessError: for another length, fewer than two blocks, and names that are neither numbers nor words.
    """
    names = _names(blocks)
    if names.shape != (rows,):
        raise HarnessError(
            f"blocks: expected one block for each of the {rows} samples, got the shape {list(names.shape)}"
        )
    if names.dtype.kind not in "iufbUS" or (names.dtype.kind == "f" and not np.isfinite(names).all()):
        raise HarnessError(
            "blocks: expected a number or a word for each block, got None, NaN or infinity; name every block"
        )
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len(groups) < 2:
        raise HarnessError(
            "blocks: expected at least two blocks, got one, so nothing can be permuted; leave blocks out or cut finer"
        )
    return groups


def _names(blocks: Any) -> NDArray[Any]:
    try:
        return np.asarray(blocks.detach().cpu() if hasattr(blocks, "detach") else blocks)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HarnessError(
            f"blocks: expected one number or word for each sample, got values that numpy cannot convert ({error})"
        ) from error


@dataclass(frozen=True)
class BlockPart:
    """Blocks that are permuted among themselves.

    Args:
        rows: of these blocks, block by block, `[row]`.
        orders: rows that take their positions, `[round, order, row]`; the first order of the first round is the identity.
    """

    rows: Index
    orders: Index


@dataclass(frozen=True)
class BlockOrders:
    """Orders of the rows; in a round each order of the first half goes with each of the second.

    Args:
        parts: all blocks, or two halves of them.
    """

    parts: Sequence[BlockPart]

    @cached_property
    def whole(self) -> Index:
        """The orders row by row, `[order, sample]`, without the identity."""
        rounds, *counts = len(self.parts[0].orders), *(part.orders.shape[1] for part in self.parts)
        orders = np.empty((rounds, *counts, sum(len(part.rows) for part in self.parts)), np.int64)
        for axis, part in enumerate(self.parts):
            axes = tuple(1 + part_axis for part_axis in range(len(self.parts)) if part_axis != axis)
            orders[..., part.rows] = np.expand_dims(part.orders, axes)
        return orders.reshape(-1, orders.shape[-1])[1:]


def block_orders(groups: Sequence[Index], seed: int, count: int = PERMUTATIONS) -> BlockOrders:
    """Orders of the rows: each block takes the rows of another block, and every block is used once.

    A longer block gives its first rows, a shorter one begins again, so a row may be left out or come twice. Laid end to
    end instead, one short block would cut all later blocks in two, and the alike halves would count as evidence:
    independent variables were dependent in 0.16 to 0.5 of the draws instead of 0.05.

    From 40 blocks on two random halves of them are permuted separately, because tables of halves add up: 5 orders of
    each half make 25 of all, and 40 such rounds make 999 orders and the identity. The test is as exact as with 999
    single draws, since the 1000 are exchangeable; p scatters as much as with 300 single draws.

    Args:
        groups: rows of each block. seed: of the permutations. count: orders beside the identity.

    >>> block_orders([np.array([0, 1]), np.array([2, 3])], 0, 3).whole.shape
    (3, 4)

    Source: Hemerik & Goeman 2018, Exact testing with random permutations.
    """
    generator = np.random.default_rng(seed)
    per_round = ORDERS_A_ROUND if len(groups) >= BLOCKS_TO_HALVE and (count + 1) % ORDERS_A_ROUND**2 == 0 else 1
    if per_round == 1:
        return BlockOrders([_part(groups, (count + 1, 1), generator)])
    halves = np.array_split(generator.permutation(len(groups)), 2)
    rounds = (count + 1) // per_round**2
    return BlockOrders([_part([groups[index] for index in half], (rounds, per_round), generator) for half in halves])


def _part(groups: Sequence[Index], shape: tuple[int, int], generator: np.random.Generator) -> BlockPart:
    rows = np.concatenate(groups)
    sizes = np.array([len(group) for group in groups])
    starts = np.cumsum(sizes) - sizes
    along = np.arange(len(rows)) - np.repeat(starts, sizes)
    orders = np.empty((prod(shape), len(rows)), np.int64)
    orders[0] = rows
    for order in orders[1:]:
        source = np.repeat(generator.permutation(len(groups)), sizes)
        order[:] = rows[starts[source] + along % sizes[source]]
    return BlockPart(rows, orders.reshape(*shape, -1))
