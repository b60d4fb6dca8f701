"""Distances to the k-th neighbour in the plane of a unit and a factor, for many units at once.

Rows are compared with those next to them along the factor: one shift of all columns is one pass over memory, and a few
dozen shifts decide most rows. A row is decided when its k-th neighbour so far is no farther than anything not yet looked
at. The others are looked for one by one, along the line on which so many shifts reach farther. Scores lie on a grid on
which differences of float32 are exact, so the distances are those of float64.
"""

from collections.abc import Iterable
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.measures.ranks import RankOrder

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Index = NDArray[np.int64]
SHIFTED_ROWS = 4096  # up to here shifts beat a tree
SHIFTS = 8  # between looks at what is decided


def neighbor_distances(units: RankOrder, factor: RankOrder, neighbours: int) -> Array:
    """Chebyshev distance of each row to its k-th neighbour among normal scores, `[unit, sample]`, 0 among copies.

    Args:
        units: their ordering.
        factor: the ordering of the other axis, one column.
        neighbours: k, less than the number of rows.

    >>> from harness.measures.ranks import ordering
    >>> column = ordering(np.arange(3.0)[None])
    >>> neighbor_distances(column, column, 1).round(3).tolist()
    [[0.674, 0.674, 0.674]]
    """
    if factor.order.shape[1] <= SHIFTED_ROWS:
        return _by_shifts(units, factor, neighbours)
    return np.stack([_by_tree(*each, factor, neighbours) for each in zip(units.shown, units.tied, strict=True)])


def _by_tree(unit: Array, tied: bool, factor: RankOrder, neighbours: int) -> Array:
    from scipy.spatial import cKDTree

    # in the unit's order: a tree is asked for neighbours of neighbours, and ordered searches are three times as fast
    order = np.argsort(unit)
    joint = np.stack([unit, factor.shown[0]], axis=1)[order]
    points = _few_copies(joint, neighbours + 1) if tied and factor.tied[0] else joint
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    distances = np.empty(len(order))
    distances[order] = tree.query(joint, k=[neighbours + 1], p=np.inf)[0][:, 0]
    return distances


def _few_copies(points: Array, most: int) -> Array:
    """The points, none more than so often: further copies change no distance, but make a tree slow."""
    ordered = points[np.lexsort(points.T)]
    places = np.arange(len(ordered))
    first = np.r_[True, (np.diff(ordered, axis=0) != 0).any(1)]
    kept: Array = ordered[places - np.maximum.accumulate(np.where(first, places, 0)) < most]
    return kept


def _by_shifts(units: RankOrder, factor: RankOrder, neighbours: int) -> Array:
    count, rows = units.order.shape
    # where unit and factor are independent, a square around a row that holds k others is half as many ranks wide
    reach = min(ceil(sqrt(neighbours * rows)), rows - 1)
    scores, beside = factor.scores[0].astype(np.float32), units.shown.astype(np.float32).T[factor.order[0]]
    nearest = _within_reach(scores, beside, reach, neighbours)
    undecided = np.flatnonzero(nearest[-1] > _unseen(scores, reach)[:, None])
    if len(undecided):
        lines = _Line(np.broadcast_to(scores[:, None], beside.shape), beside), _along_units(units, factor)
        places = undecided, _places_along_units(units, factor, undecided)
        so_far = nearest.reshape(neighbours, -1)[:, undecided]
        nearest[-1].reshape(-1)[undecided] = _farther(lines, places, so_far, reach)
    distances = np.empty((count, rows))
    distances[:, factor.order[0]] = nearest[-1].T
    return distances


def _along_units(units: RankOrder, factor: RankOrder) -> "_Line":
    return _Line(units.scores.astype(np.float32).T, factor.shown[0].astype(np.float32)[units.order.T])


def _places_along_units(units: RankOrder, factor: RankOrder, places: Index) -> Index:
    """Where places on the line of the factor `place x unit` are on that of the units."""
    place, unit = np.divmod(places, len(units.order))
    standing: Index = units.standing[unit, factor.order[0][place]]
    return standing * len(units.order) + unit


def _farther(lines: "tuple[_Line, _Line]", places: tuple[Index, Index], nearest: Single, reach: int) -> Single:
    """Distances to the k-th neighbour, each looked for along the line on which as many places are farther away.

    Args:
        lines: of the factor, and of the units. places: on each.
        nearest: the k least distances to rows within reach along the factor, `[k, place]`.
    """
    along_units = lines[1].span(places[1], reach) > lines[0].span(places[0], reach)
    distances = np.empty(len(along_units), np.float32)
    distances[~along_units] = lines[0].search(places[0][~along_units], nearest[:, ~along_units], reach)
    nothing = np.full((len(nearest), int(along_units.sum())), np.inf, np.float32)
    distances[along_units] = lines[1].search(places[1][along_units], nothing, 0)
    return distances


def _within_reach(own: Single, other: Single, reach: int, neighbours: int) -> Single:
    """The k least distances of each row to those at most so many places away, `[k, place, unit]`.

    Args:
        own: scores that the order follows, `[place]`. other: scores of the other axis, `[place, unit]`.
    """
    nearest = np.full((neighbours, *other.shape), np.inf, np.float32)
    away, room = np.empty_like(other), np.empty_like(other)
    for shift in range(1, reach + 1):
        gap = np.subtract(other[shift:], other[:-shift], out=away[shift:])
        np.maximum(np.abs(gap, out=gap), (own[shift:] - own[:-shift])[:, None], out=gap)
        for part in (slice(None, -shift), slice(shift, None)):
            _put_in(nearest[:, part], gap, room[shift:])
    return nearest


def _put_in(nearest: Single, away: Single, room: Single) -> None:
    """A distance more for each row, of which the k least are kept, `[k, ...]`, in rising order."""
    for later in range(len(nearest) - 1, 0, -1):
        np.minimum(nearest[later], np.maximum(nearest[later - 1], away, out=room), out=nearest[later])
    np.minimum(nearest[0], away, out=nearest[0])


def _unseen(own: Single, reach: int) -> Single:
    """How far away, at least, is what lies more places away, `[place]`."""
    away = np.full(own.shape, np.inf, np.float32)
    beyond = own[reach + 1 :] - own[: -reach - 1]
    away[: -reach - 1] = beyond
    away[reach + 1 :] = np.minimum(away[reach + 1 :], beyond)
    return away


class _Line:
    """Rows of some units in the order of one axis, to be looked at from any of them.

    Args:
        own: scores that the order follows, `[place, unit]`. other: scores of the other axis.
    """

    def __init__(self, own: Single, other: Single) -> None:
        self.units = own.shape[1]
        edge = np.full((1, self.units), np.inf, np.float32)  # nothing is near what lies past the ends
        self._own, self._other = (np.concatenate([edge, each, edge]).ravel() for each in (own, other))

    def span(self, places: Index, shift: int) -> Single:
        """How far away, at least, is what lies more places away, on either side."""
        here = places + self.units  # below the edge
        own, step = self._own[here], (shift + 1) * self.units
        sides = [np.abs(self._own.take(here + each, mode="clip") - own) for each in (-step, step)]
        return np.minimum(*sides)

    def search(self, places: Index, nearest: Single, shift: int) -> Single:
        """Distances to the k-th neighbour, given the k least to what lies at most so many places away, `[k, place]`."""
        distances, left = np.empty(len(places), np.float32), np.arange(len(places))
        while len(left):
            self._look(places, nearest, range(shift + 1, shift + SHIFTS + 1))
            shift += SHIFTS
            distances[left] = nearest[-1]
            undecided = np.flatnonzero(nearest[-1] > self.span(places, shift))
            left, places, nearest = left[undecided], places[undecided], nearest[:, undecided]
        return distances

    def _look(self, places: Index, nearest: Single, shifts: Iterable[int]) -> None:
        here = places + self.units
        own, other = self._own[here], self._other[here]
        for step in (side * shift * self.units for shift in shifts for side in (-1, 1)):
            away = self._own.take(here + step, mode="clip")
            beside = self._other.take(here + step, mode="clip")
            np.abs(np.subtract(away, own, out=away), out=away)
            np.abs(np.subtract(beside, other, out=beside), out=beside)
            _put_in(nearest, np.maximum(away, beside, out=away), beside)
