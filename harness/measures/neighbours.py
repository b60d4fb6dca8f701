"""Distances to the k-th neighbour in the plane of a unit and a factor, for many units at once.

Rows are compared with those next to them, first along the factor, then along the unit: one shift of a whole column is
one pass over memory, and a few dozen shifts decide nearly every row. A row is decided when its k-th neighbour so far is
no farther than anything not yet looked at. Scores lie on a grid on which differences of float32 are exact, so the
distances are those of float64.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.measures.ordering import NUMBERS_AT_ONCE, Ordering

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Index = NDArray[np.int64]
SHIFTED_ROWS = 4096  # up to here shifts beat a tree
SHIFTS = 12  # between looks at what is decided
LEFT_OVER = 4  # rows a unit: so few are compared with all others in the time of a dozen more shifts


def neighbour_distances(units: Sequence[Ordering], factor: Ordering, neighbours: int) -> Array:
    """Chebyshev distance of each row to its k-th neighbour among normal scores, `[unit, sample]`, 0 among copies.

    Args:
        units: their orderings.
        factor: the ordering of the other axis.
        neighbours: k, less than the number of rows.

    >>> from harness.measures.ordering import ordering
    >>> column = ordering(np.arange(3.0))
    >>> neighbour_distances([column], column, 1).round(3).tolist()
    [[0.674, 0.674, 0.674]]
    """
    rows = len(factor.order)
    if rows > SHIFTED_ROWS:
        return np.stack([_by_tree(unit, factor, neighbours) for unit in units])
    most = max(1, NUMBERS_AT_ONCE // rows)
    parts = [units[start : start + most] for start in range(0, len(units), most)]
    return np.concatenate([_by_shifts(part, factor, neighbours) for part in parts])


def _by_tree(unit: Ordering, factor: Ordering, neighbours: int) -> Array:
    from scipy.spatial import cKDTree

    # in the unit's order: a tree is asked for neighbours of neighbours, and ordered searches are three times as fast
    joint = np.stack([unit.scores, factor.restored(factor.scores)[unit.order]], axis=1)
    points = joint
    if len(joint) not in (len(unit.sizes), len(factor.sizes)):  # some rows may tie on both sides
        points = _few_copies(joint, neighbours + 1)
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    distances: Array = unit.restored(tree.query(joint, k=[neighbours + 1], p=np.inf)[0][:, 0])
    return distances


def _few_copies(points: Array, most: int) -> Array:
    """The points, none more than so often: further copies change no distance, but make a tree slow."""
    ordered = points[np.lexsort(points.T)]
    places = np.arange(len(ordered))
    first = np.r_[True, (np.diff(ordered, axis=0) != 0).any(1)]
    kept: Array = ordered[places - np.maximum.accumulate(np.where(first, places, 0)) < most]
    return kept


def _by_shifts(units: Sequence[Ordering], factor: Ordering, neighbours: int) -> Array:
    factor_scores = np.broadcast_to(factor.restored(factor.scores).astype(np.float32), (len(units), len(factor.order)))
    unit_scores = np.stack([unit.restored(unit.scores).astype(np.float32) for unit in units])
    along_factor = _Line(factor_scores, unit_scores, np.broadcast_to(factor.order, unit_scores.shape), neighbours)
    along_unit = _Line(unit_scores, factor_scores, np.stack([unit.order for unit in units]), neighbours)
    last, shifted, undecided = unit_scores.shape[1] - 1, 0, np.ones(unit_scores.shape, bool)
    distances = np.full(unit_scores.shape, np.inf, np.float32)
    while undecided.sum() > LEFT_OVER * len(units) and shifted < last:
        shifts = range(shifted + 1, min(shifted + SHIFTS, last) + 1)
        for shift in shifts:
            along_factor.compare(shift)
            along_unit.compare(shift)
        shifted = shifts[-1]
        distances = np.minimum(along_factor.distances(), along_unit.distances())
        undecided = distances > np.maximum(along_factor.unseen(shifted), along_unit.unseen(shifted))
    distances[undecided] = _among_all(unit_scores, factor_scores, np.argwhere(undecided), neighbours)
    return distances.astype(np.float64)


class _Line:
    """Rows of some units in one order each, with the k nearest of those that lie within some shifts.

    Args:
        own: scores that the order follows, `[unit, sample]`.
        other: scores of the other axis.
        order: rows by rising `own`, `[unit, sample]`.
        neighbours: k.
    """

    def __init__(self, own: Single, other: Single, order: Index, neighbours: int) -> None:
        self.shape = own.shape
        self.places = (order + np.arange(len(order))[:, None] * order.shape[1]).ravel()
        self.own, self.other = own.ravel()[self.places], other.ravel()[self.places]
        self.nearest = np.full((neighbours, own.size), np.inf, np.float32)
        self.gap, self.room = np.empty_like(self.own), np.empty_like(self.own)

    def compare(self, shift: int) -> None:
        """Every row with the one so many places further, and that one with it."""
        gap, room = self.gap[:-shift], self.room[:-shift]
        np.subtract(self.other[shift:], self.other[:-shift], out=gap)
        np.abs(gap, out=gap)
        np.subtract(self.own[shift:], self.own[:-shift], out=room)
        np.maximum(gap, room, out=gap)
        self.gap.reshape(self.shape)[:, -shift:] = np.inf  # the next place is another unit's
        for part in (slice(None, -shift), slice(shift, None)):
            nearest = self.nearest[:, part]
            for later in range(len(nearest) - 1, 0, -1):
                np.minimum(nearest[later], np.maximum(nearest[later - 1], gap, out=room), out=nearest[later])
            np.minimum(nearest[0], gap, out=nearest[0])

    def distances(self) -> Single:
        """To the k-th neighbour so far, `[unit, sample]` in the order of the rows."""
        return self._restored(self.nearest[-1])

    def unseen(self, shift: int) -> Single:
        """How far away, at least, is what no shift up to this one has reached."""
        own = self.own.reshape(self.shape)
        away = np.full(self.shape, np.inf, np.float32)
        beyond = own[:, shift + 1 :] - own[:, : -shift - 1]
        away[:, : -shift - 1] = beyond
        away[:, shift + 1 :] = np.minimum(away[:, shift + 1 :], beyond)
        return self._restored(away.ravel())

    def _restored(self, ordered: Single) -> Single:
        found = np.empty_like(ordered)
        found[self.places] = ordered
        return found.reshape(self.shape)


def _among_all(units: Single, factors: Single, wanted: Index, neighbours: int) -> Single:
    """The distance of each wanted (unit, row), looked for among all rows."""
    unit, row = wanted.T
    away = np.abs(units[unit] - units[unit, row][:, None])
    np.maximum(away, np.abs(factors[unit] - factors[unit, row][:, None]), out=away)
    distances: Single = np.partition(away, neighbours, axis=1)[:, neighbours]
    return distances
