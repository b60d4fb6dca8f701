"""Distances to the k-th neighbor in the plane of a unit and a factor, for many units at once.

Rows are compared with those next to them along the factor: one shift of all columns is one pass over memory, and a few
dozen shifts decide most rows. A row is decided when its k-th neighbor so far is no farther than any row not yet compared.
Undecided rows are searched one by one, along the line on which the same number of shifts reaches farther. Scores lie on a
grid on which differences of float32 are exact, so the distances are those of float64.
"""

from collections.abc import Iterable
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.measures.ranks import FLOAT32_ROWS, RankOrder

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Index = NDArray[np.int64]
SHIFTED_ROWS = FLOAT32_ROWS  # up to here shifts beat a tree
SHIFTS = 8  # between looks at what is decided


def neighbor_distances(units: RankOrder, factor: RankOrder, neighbors: int) -> Array:
    """Chebyshev distance of each row to its k-th neighbor among normal scores, `[unit, sample]`, 0 among copies.

    Args:
        units: their ordering.
        factor: the ordering of the other axis, one column.
        neighbors: k, less than the number of rows.

    >>> from harness.measures.ranks import ordering
    >>> column = ordering(np.arange(3.0)[None])
    >>> neighbor_distances(column, column, 1).round(3).tolist()
    [[0.674, 0.674, 0.674]]
    """
    if factor.order.shape[1] <= SHIFTED_ROWS:
        return _by_shifts(units, factor, neighbors)
    return np.stack([_by_tree(*column, factor, neighbors) for column in zip(units.row_scores, units.tied, strict=True)])


def _by_tree(unit: Array, tied: bool, factor: RankOrder, neighbors: int) -> Array:
    from scipy.spatial import cKDTree

    # in the unit's order: a tree is asked for neighbors of neighbors, and ordered searches are three times as fast
    order = np.argsort(unit)
    joint = np.stack([unit, factor.row_scores[0]], axis=1)[order]
    points = _few_copies(joint, neighbors + 1) if tied and factor.tied[0] else joint
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    distances = np.empty(len(order))
    distances[order] = tree.query(joint, k=[neighbors + 1], p=np.inf)[0][:, 0]
    return distances


def _few_copies(points: Array, most: int) -> Array:
    """The points, each at most `most` times: further copies change no distance, but make a tree slow."""
    ordered = points[np.lexsort(points.T)]
    positions = np.arange(len(ordered))
    first = np.r_[True, (np.diff(ordered, axis=0) != 0).any(1)]
    limited: Array = ordered[positions - np.maximum.accumulate(np.where(first, positions, 0)) < most]
    return limited


def _by_shifts(units: RankOrder, factor: RankOrder, neighbors: int) -> Array:
    count, rows = units.order.shape
    # where unit and factor are independent, a square around a row that holds k others is half as many ranks wide
    reach = min(ceil(sqrt(neighbors * rows)), rows - 1)
    scores, beside = factor.scores[0].astype(np.float32), units.row_scores.astype(np.float32).T[factor.order[0]]
    nearest = _within_reach(scores, beside, reach, neighbors)
    undecided = np.flatnonzero(nearest[-1] > _unseen(scores, reach)[:, None])
    if len(undecided):
        lines = _Line(np.broadcast_to(scores[:, None], beside.shape), beside), _along_units(units, factor)
        positions = undecided, _places_along_units(units, factor, undecided)
        so_far = nearest.reshape(neighbors, -1)[:, undecided]
        nearest[-1].reshape(-1)[undecided] = _farther(lines, positions, so_far, reach)
    distances = np.empty((count, rows))
    distances[:, factor.order[0]] = nearest[-1].T
    return distances


def _along_units(units: RankOrder, factor: RankOrder) -> "_Line":
    return _Line(units.scores.astype(np.float32).T, factor.row_scores[0].astype(np.float32)[units.order.T])


def _places_along_units(units: RankOrder, factor: RankOrder, positions: Index) -> Index:
    """Positions on the line of the units of positions on that of the factor, `position x unit`."""
    position, unit = np.divmod(positions, len(units.order))
    standing: Index = units.row_positions[unit, factor.order[0][position]]
    return standing * len(units.order) + unit


def _farther(lines: "tuple[_Line, _Line]", positions: tuple[Index, Index], nearest: Single, reach: int) -> Single:
    """Distances to the k-th neighbor, each searched along the line on which the same reach is farther away.

    Args:
        lines: of the factor, and of the units. positions: on each.
        nearest: the k least distances to rows within reach along the factor, `[k, position]`.
    """
    along_units = lines[1].span(positions[1], reach) > lines[0].span(positions[0], reach)
    distances = np.empty(len(along_units), np.float32)
    distances[~along_units] = lines[0].search(positions[0][~along_units], nearest[:, ~along_units], reach)
    nothing = np.full((len(nearest), int(along_units.sum())), np.inf, np.float32)
    distances[along_units] = lines[1].search(positions[1][along_units], nothing, 0)
    return distances


def _within_reach(own: Single, across: Single, reach: int, neighbors: int) -> Single:
    """The k least distances of each row to rows at most `reach` positions away, `[k, position, unit]`.

    Args:
        own: scores that the order follows, `[position]`. across: scores of the other axis, `[position, unit]`.
    """
    nearest = np.full((neighbors, *across.shape), np.inf, np.float32)
    away, room = np.empty_like(across), np.empty_like(across)
    for shift in range(1, reach + 1):
        gap = np.subtract(across[shift:], across[:-shift], out=away[shift:])
        np.maximum(np.abs(gap, out=gap), (own[shift:] - own[:-shift])[:, None], out=gap)
        for part in (slice(None, -shift), slice(shift, None)):
            _put_in(nearest[:, part], gap, room[shift:])
    return nearest


def _put_in(nearest: Single, away: Single, room: Single) -> None:
    """Insert a distance for each row into its k least, `[k, ...]`, in rising order."""
    for later in range(len(nearest) - 1, 0, -1):
        np.minimum(nearest[later], np.maximum(nearest[later - 1], away, out=room), out=nearest[later])
    np.minimum(nearest[0], away, out=nearest[0])


def _unseen(own: Single, reach: int) -> Single:
    """Least distance of rows that lie more than `reach` positions away, `[position]`."""
    away = np.full(own.shape, np.inf, np.float32)
    beyond = own[reach + 1 :] - own[: -reach - 1]
    away[: -reach - 1] = beyond
    away[reach + 1 :] = np.minimum(away[reach + 1 :], beyond)
    return away


class _Line:
    """Rows of some units in the order of one axis.

    Args:
        own: scores that the order follows, `[position, unit]`. across: scores of the other axis.
    """

    def __init__(self, own: Single, across: Single) -> None:
        self.units = own.shape[1]
        edge = np.full((1, self.units), np.inf, np.float32)  # nothing is near what lies past the ends
        self._own, self._other = (np.concatenate([edge, scores, edge]).ravel() for scores in (own, across))

    def span(self, positions: Index, shift: int) -> Single:
        """Least distance of rows that lie more than `shift` positions away, on either side."""
        here = positions + self.units  # below the edge
        own, step = self._own[here], (shift + 1) * self.units
        sides = [np.abs(self._own.take(here + offset, mode="clip") - own) for offset in (-step, step)]
        return np.minimum(*sides)

    def search(self, positions: Index, nearest: Single, shift: int) -> Single:
        """Distances to the k-th neighbor, given the k least to rows at most `shift` positions away, `[k, position]`."""
        distances, open_rows = np.empty(len(positions), np.float32), np.arange(len(positions))
        while len(open_rows):
            self._look(positions, nearest, range(shift + 1, shift + SHIFTS + 1))
            shift += SHIFTS
            distances[open_rows] = nearest[-1]
            undecided = np.flatnonzero(nearest[-1] > self.span(positions, shift))
            open_rows, positions, nearest = open_rows[undecided], positions[undecided], nearest[:, undecided]
        return distances

    def _look(self, positions: Index, nearest: Single, shifts: Iterable[int]) -> None:
        here = positions + self.units
        own, across = self._own[here], self._other[here]
        for step in (side * shift * self.units for shift in shifts for side in (-1, 1)):
            away = self._own.take(here + step, mode="clip")
            beside = self._other.take(here + step, mode="clip")
            np.abs(np.subtract(away, own, out=away), out=away)
            np.abs(np.subtract(beside, across, out=beside), out=beside)
            _put_in(nearest, np.maximum(away, beside, out=away), beside)
