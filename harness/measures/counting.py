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
    highest, lowest = centres + radius, centres - radius
    above, below = _places(highest, np.less_equal), _places(lowest, np.less)
    if all(len(each.sizes) == len(each.order) for each in columns):
        return above - below
    runs = _runs(columns)
    return _whole_runs(above, highest, np.less_equal, centres, runs) - _whole_runs(
        below, lowest, np.less, centres, runs
    )


def _places(values: Array, comes_before: np.ufunc) -> Index:
    """How many scores of a column without ties come before each value, `[column, sample]`."""
    rows = values.shape[1]
    scores = np.concatenate([[-np.inf], normal_scores(rows), [np.inf]])
    probability = torch.special.ndtr(torch.from_numpy(values)).numpy()
    found = np.minimum((probability * (rows + 1)).astype(np.int64), rows)
    found += comes_before(scores.take(found + 1), values)
    found -= ~comes_before(scores.take(found), values)
    return found


def _runs(columns: Sequence[Ordering]) -> tuple[Index, Index]:
    """For each place 0 to rows: where the run of ties that it cuts begins and ends; itself, where it cuts none."""
    rows, sizes = len(columns[0].order), np.concatenate([each.sizes for each in columns])
    places, ends = np.arange(rows + 1), np.cumsum(sizes)
    starts, after = (np.full((len(columns), rows + 1), rows) for _ in range(2))
    before = np.arange(len(columns))[:, None] * rows  # runs are numbered through all columns
    starts[:, :-1] = np.repeat(ends - sizes, sizes).reshape(-1, rows) - before
    after[:, :-1] = np.repeat(ends, sizes).reshape(-1, rows) - before
    return starts, np.where(starts == places, starts, after)


def _whole_runs(
    places: Index, values: Array, comes_before: np.ufunc, scores: Array, runs: tuple[Index, Index]
) -> Index:
    """The places, each moved to the end of the run of ties that it cuts where their score comes before the value."""
    columns, rows = np.arange(len(scores))[:, None], scores.shape[1]
    flat = places + columns * (rows + 1)
    tied = scores.ravel().take(np.minimum(places, rows - 1) + columns * rows)
    return np.where(comes_before(tied, values), runs[1].ravel().take(flat), runs[0].ravel().take(flat))
