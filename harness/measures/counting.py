"""How many rows lie within a radius on a line of normal scores: looked up in the normal distribution, not searched for.

The scores of a column without ties are quantiles of the normal distribution, the same for every column of so many rows.
So the place of any value among them follows from its probability, and a comparison with the scores there corrects the
rounding.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from harness.measures.ordering import Ordering, normal_scores, within

Array = NDArray[np.float64]
Index = NDArray[np.int64]
LOOKED_UP_ROWS = 1 << 18  # so far the grid of the scores moves no value past a neighbour of its place


def near(columns: Sequence[Ordering], radius: Array) -> Index:
    """How many of a column's scores lie within the radius of each of them, itself included, `[column, sample]`.

    Args:
        columns: of as many rows each.
        radius: `[column, sample]`, finite, the rows of each column in its rising order, as in the result.

    >>> from harness.measures.ordering import ordering
    >>> near([ordering(np.array([7.0, 8.0, 8.0]))], np.array([[0.0, 0.0, 9.0]])).tolist()
    [[1, 2, 3]]
    """
    if radius.shape[1] > LOOKED_UP_ROWS:
        return np.stack([within(each.scores, each.scores, wide) for each, wide in zip(columns, radius, strict=True)])
    centres = np.stack([each.scores for each in columns])
    above, below = _places(centres + radius, np.less_equal), _places(centres - radius, np.less)
    for column, most, least, centre, wide in zip(columns, above, below, centres, radius, strict=True):
        if len(column.sizes) < len(column.order):
            starts, ends = _runs(column)
            most[:] = np.where(_tied(column, most) <= centre + wide, ends[most], starts[most])
            least[:] = np.where(_tied(column, least) < centre - wide, ends[least], starts[least])
    return above - below


def _places(values: Array, comes_before: np.ufunc) -> Index:
    """How many scores of a column without ties come before each value, `[column, sample]`."""
    rows = values.shape[1]
    scores = np.concatenate([[-np.inf], normal_scores(rows), [np.inf]])
    probability = torch.special.ndtr(torch.from_numpy(values)).numpy()
    found = np.minimum((probability * (rows + 1)).astype(np.int64), rows)
    found += comes_before(scores.take(found + 1), values)
    found -= ~comes_before(scores.take(found), values)
    return found


def _runs(column: Ordering) -> tuple[Index, Index]:
    """For each place 0 to rows: where the run of ties that it cuts begins and ends; itself, where it cuts none."""
    rows, ends = len(column.order), np.cumsum(column.sizes)
    starts = np.append(np.repeat(ends - column.sizes, column.sizes), rows)
    after = np.append(np.repeat(ends, column.sizes), rows)
    return starts, np.where(starts == np.arange(rows + 1), starts, after)


def _tied(column: Ordering, places: Index) -> Array:
    return column.scores[np.minimum(places, len(column.order) - 1)]
