"""Numbers of rows within a radius on a line of normal scores, looked up instead of searched for.

The scores of a column without ties are quantiles of the normal distribution, the same for every column of so many rows.
So the line is cut once into cells that hold one of them at most: a value's cell tells its place among them, and a
comparison with the scores there the rest.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.measures.ranks import RankOrder, counts_within, normal_scores

Array = NDArray[np.float64]
Index = NDArray[np.int64]
LOOKED_UP_ROWS = 1 << 18  # so far the cells, some seven a row, take 15 MB


def neighbor_counts(columns: RankOrder, radius: Array) -> Index:
    """Number of a column's scores within the radius of each of them, itself included, `[column, sample]`.

    Args:
        columns: as many as lines of the radius, or one for all lines.
        radius: `[column, sample]`, finite, the rows of each column in its rising order, as in the result.

    >>> from harness.measures.ranks import ordering
    >>> neighbor_counts(ordering(np.array([[7.0, 8.0, 8.0]])), np.array([[0.0, 0.0, 9.0]])).tolist()
    [[1, 2, 3]]
    """
    centers = np.broadcast_to(columns.scores, radius.shape)
    if radius.shape[1] > LOOKED_UP_ROWS:
        return np.stack([counts_within(line, line, wide) for line, wide in zip(centers, radius, strict=True)])
    highest, lowest = centers + radius, centers - radius
    above, below = _places(highest, np.less_equal), _places(lowest, np.less)
    if not columns.tied.any():
        return above - below
    return _whole_runs(above, highest, np.less_equal, columns) - _whole_runs(below, lowest, np.less, columns)


def _places(values: Array, comes_before: np.ufunc) -> Index:
    """Number of scores of a column without ties that come before each value, `[column, sample]`."""
    starts, scores, lowest, cells = _cells(values.shape[1])
    cell = (np.clip(values, lowest, -lowest) - lowest) * cells
    counts = starts.take(cell.astype(np.int64))
    counts += comes_before(scores.take(counts + 1), values)
    counts -= ~comes_before(scores.take(counts), values)
    return counts


@lru_cache(maxsize=2)
def _cells(rows: int) -> tuple[Index, Array, float, float]:
    """Number of scores before each of many equal cells, none of which holds two scores.

    Beside it the scores between minus infinity and infinity, the start of the first cell, and the cells per unit length.
    """
    scores = normal_scores(rows)
    width = np.diff(scores).min(initial=1.0) / 2
    lowest = float(scores[0] - width)
    count = int(np.ceil(-2 * lowest / width)) + 2
    starts = np.searchsorted(scores, lowest + width * np.arange(count))
    return starts, np.concatenate([[-np.inf], scores, [np.inf]]), lowest, float(1 / width)


def _whole_runs(positions: Index, values: Array, comes_before: np.ufunc, columns: RankOrder) -> Index:
    """The places, each moved to the end of the run of ties that it cuts where their score comes before the value."""
    lines, rows = columns.order.shape
    column, (begins, after) = np.arange(lines)[:, None], columns.cut_runs
    flat = positions + column * (rows + 1)
    tied = columns.scores.ravel().take(np.minimum(positions, rows - 1) + column * rows)
    return np.where(comes_before(tied, values), after.ravel().take(flat), begins.ravel().take(flat))
