"""Mutual information between a unit and a reference variable: finite for every network, unlike I(X;Z).

Values by nearest neighbors on normal scores: Ross 2014 for classes, Gao et al. 2017 for a continuous factor. They are
unclamped estimates, so an independent unit scatters around 0. The test and the interval are of the information in a
binned table: see `harness.measures.association`.

Values on a grid (16-bit floats, integers, years) have ties about as far apart as neighbors, and a strict count then
leaves out whole grid points: +0.2 nats for a bfloat16 sigmoid against 10 independent classes. So ties of small atoms are
broken at random, which changes no information, since the noise is independent of the reference.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from harness.measures.arrays import reference_column, unit_columns
from harness.measures.nearest_neighbors import neighbor_distances
from harness.measures.neighbor_counts import neighbor_counts
from harness.measures.ranks import (
    ROWS_PER_ATOM,
    SMALL_ATOM,
    ColumnOrders,
    RankOrder,
    counts_within,
    digammas,
    ordering,
    run_lengths,
    run_starts,
    tie_breaker,
)

Array = NDArray[np.float64]
CLASS_NEIGHBORS = 5
FACTOR_NEIGHBORS = 3
MOST_OF_ROWS = 0.95  # held by the largest classes, for which atoms must be large enough
SHRINK = 1 - 1e-10  # strict counts: the k-th neighbor is not inside its own radius


def mutual_information(activations: Any, reference: Any, *, dtype: Any = None) -> Float[Tensor, "*member unit"]:
    """Mutual information of each unit with a reference variable, the values alone.

    Args:
        activations: `[*member, sample, unit]`, tensor or array.
        reference: `[sample]`; integers are classes, floats a continuous factor. The type of number decides: classes
            written as floats are read as a continuous factor with repeated values.
        dtype: the precision the model computed in, if the values have another; see `is_constant`.

    Returns:
        Nats, `[*member, unit]`, float64: 0 for a unit that ignores the reference (estimates scatter around it and are
        not clamped; a constant unit is exactly 0), up to the entropy of the classes. NaN for a unit that is not finite.

    >>> labels = torch.arange(400) % 4
    >>> mutual_information(labels[:, None].double(), labels).round(decimals=2).tolist()
    [1.39]

    Raises:
        HarnessError: for a wrong rank, empty, complex, boolean or object arrays, a reference with NaN or of another
            length, and classes most of which have a single row.

    Source: Kraskov, Stoegbauer & Grassberger 2004; Ross 2014; Gao et al. 2017 (arXiv 1709.06212).
    """
    return informations(activations, {"": reference}, dtype=dtype)[""]


def informations(activations: Any, references: Mapping[str, Any], *, dtype: Any = None) -> dict[str, Tensor]:
    """`mutual_information` with each of several references, in one pass over the units.

    >>> informations([[0.0], [1.0]], {"none": [7, 7]})["none"].tolist()
    [0.0]
    """
    columns, constant, finite = unit_columns(activations, dtype)
    varies = finite & ~constant
    units = ColumnOrders(columns[varies])
    estimates = {name: np.where(finite, 0.0, np.nan) for name in references}
    for name, reference in references.items():
        variable = ReferenceVariable(reference_column(reference, columns.shape[-1]))
        estimates[name][varies] = variable.information(units)
    return {name: torch.from_numpy(values) for name, values in estimates.items()}


class ReferenceVariable:
    """A reference and its ordering, made once for all units.

    Args:
        column: `[sample]`, class numbers 0, 1, ... or floats, from `reference_column`.

    `atom_share` is the share of the rows below which ties are broken: 5 %, or as much as leaves `ROWS_PER_ATOM` rows of
    an atom in every class but the rarest, which hold 5 % of the rows, or in a pair of atoms of a unit and a factor. An atom with fewer rows than
    neighbors beside it loses its own ties to the strict count: +0.25 nats for 15 integers against 50 independent
    classes at n = 2000.
    """

    def __init__(self, column: NDArray[Any]) -> None:
        rows = len(column)
        self.continuous = column.dtype.kind == "f"
        self.constant = bool((column == column[0]).all())
        if self.continuous:
            self.atom_share = max(SMALL_ATOM, (ROWS_PER_ATOM / rows) ** 0.5)
            self.ordering = ordering(column[None], tie_breaker(rows, of_references=True), self.atom_share)
            return
        sizes = np.bincount(column)
        largest = np.sort(sizes)[::-1]
        smallest = largest[np.searchsorted(np.cumsum(largest), MOST_OF_ROWS * rows)]
        self.atom_share = min(1.0, max(SMALL_ATOM, ROWS_PER_ATOM / smallest))
        self.ordering = ordering(column[None])
        self.has_neighbor = sizes[column] > 1  # a class of one row is left out
        self.classes = column.astype(np.int16 if len(sizes) < 1 << 15 else np.int64)

    def information(self, units: ColumnOrders) -> Array:
        """Nats that each unit shares with the reference, `[unit]`; 0 with a constant reference."""
        return np.concatenate([np.zeros(0), *(self._with(part) for part in units.broken_below(self.atom_share))])

    def _with(self, units: RankOrder) -> Array:
        if self.constant:
            return np.zeros(len(units.order))
        return with_factor(units, self.ordering) if self.continuous else with_classes(units, self)


def with_factor(units: RankOrder, factor: RankOrder) -> Array:
    """Estimates of Gao et al. 2017, `[unit]` nats: Kraskov's first one, ties counted where the k-th neighbor is one.

    >>> column = ordering(np.arange(1000.0)[None])
    >>> with_factor(column, column) > 4
    array([ True])
    """
    rows = units.order.shape[1]
    neighbors, psi = min(FACTOR_NEIGHBORS, rows - 1), digammas(rows)
    inside = neighbor_distances(units, factor, neighbors) * SHRINK
    neighbor_count = _neighbors_found(units, factor, inside, neighbors)
    near_unit, near_factor = (
        neighbor_counts(units, units.ordered(inside)),
        neighbor_counts(factor, factor.ordered(inside)),
    )
    values: Array = psi[rows] + psi[neighbor_count].mean(1) - psi[near_unit].mean(1) - psi[near_factor].mean(1)
    return values


def _neighbors_found(units: RankOrder, factor: RankOrder, inside: Array, neighbors: int) -> NDArray[np.int64]:
    """k, or the number of copies of the row (itself included) if the k-th neighbor is a copy, `[unit, sample]`."""
    counts = np.full(inside.shape, neighbors)
    crowded = np.flatnonzero((inside == 0).any(1))
    if len(crowded):
        cells = units.groups[crowded] * inside.shape[1] + factor.groups
        order = np.argsort(cells, axis=1)
        lengths = run_lengths(run_starts(np.take_along_axis(cells, order, 1)))
        copies = np.empty_like(cells)
        np.put_along_axis(copies, order, np.repeat(lengths, lengths).reshape(cells.shape), 1)
        counts[crowded] = np.maximum(copies, neighbors)
    return counts


def with_classes(units: RankOrder, labels: ReferenceVariable) -> Array:
    """Estimates of Ross 2014, `[unit]` nats: neighbors within the class, then counts among all rows.

    >>> classes = np.arange(1000) % 2
    >>> with_classes(ordering(classes[None] * 1.0), ReferenceVariable(classes)).round(2)
    array([0.69])
    """
    return np.array([_with_classes(*unit, labels) for unit in zip(units.order, units.fine_scores, strict=True)])


def _with_classes(order: NDArray[np.int64], scores: Array, labels: ReferenceVariable) -> float:
    """Estimate of a single unit from its rows in rising order and their scores."""
    classes = labels.classes[order]
    if not labels.has_neighbor.all():
        usable = labels.has_neighbor[order]
        scores, classes = scores[usable], classes[usable]
    if not len(scores):
        return 0.0
    by_class = np.argsort(classes, kind="stable")
    own, classes = scores[by_class], classes[by_class]
    sizes = np.bincount(classes)
    neighbors = np.minimum(CLASS_NEIGHBORS, sizes - 1)[classes]
    radius = _class_radius(own, classes, neighbors)
    # tied with the k-th neighbor: all ties of its class are neighbors, itself included
    ties = run_lengths(run_starts(own) | run_starts(classes))
    neighbor_count = np.where(radius == 0, np.repeat(ties, ties), neighbors)
    psi = digammas(len(order))
    around = psi[counts_within(scores, own, radius * SHRINK)].mean()
    return float(psi[len(own)] + psi[neighbor_count].mean() - psi[sizes[classes]].mean() - around)


def _class_radius(own: Array, classes: NDArray[Any], neighbors: NDArray[np.int64]) -> Array:
    """Distance to the k-th neighbor of the same class, of values ordered within classes.

    It is the least over the k + 1 windows that hold the value and k neighbors.
    """
    rows, most = len(own), int(neighbors.max())
    down = np.full((most + 1, rows), np.inf)
    up = np.full((most + 1, rows), np.inf)
    down[0] = up[0] = 0
    for step in range(1, min(most, rows - 1) + 1):
        gap = np.where(classes[step:] == classes[:-step], own[step:] - own[:-step], np.inf)
        down[step, step:], up[step, :-step] = gap, gap
    radius = np.empty(rows)
    for count in np.flatnonzero(np.bincount(neighbors)):
        windows = np.maximum(down[: count + 1], up[count::-1]).min(axis=0)
        radius = np.where(neighbors == count, windows, radius)
    return radius
