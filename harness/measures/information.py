"""Mutual information between a unit and a reference variable: finite whatever the network does, unlike I(X;Z).

Values by nearest neighbours on normal scores: Ross 2014 for classes, Gao et al. 2017 for a continuous factor. They are
unclamped estimates, so an independent unit scatters around 0. What is tested, and the interval, is another thing: see
`harness.measures.association`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from harness.measures.arrays import reference_column, unit_columns
from harness.measures.nearest_neighbors import neighbor_distances
from harness.measures.neighbor_counts import neighbor_counts
from harness.measures.ranks import RankOrder, counts_within, digammas, ordering, orderings, run_lengths, run_starts

Array = NDArray[np.float64]
CLASS_NEIGHBOURS = 5
FACTOR_NEIGHBOURS = 3
SHRINK = 1 - 1e-10  # strict counts: the k-th neighbour itself is not inside its own radius


def mutual_information(activations: Any, reference: Any, *, dtype: Any = None) -> Float[Tensor, "*member unit"]:
    """Mutual information of each unit with a reference variable, the values alone.

    Args:
        activations: `[*member, sample, unit]`, tensor or array.
        reference: `[sample]`; integers are classes, floats a continuous factor. The kind of number decides: classes
            written as floats are taken for a continuous factor (whose repeated values are respected).
        dtype: the precision the model computed in, where the values come as another; see `is_constant`.

    Returns:
        Nats, `[*member, unit]`, float64: 0 for a unit that ignores the reference (estimates scatter around it and are
        not clamped; a constant unit is exactly 0), up to the entropy of the classes. NaN for a unit that is not finite.

    >>> labels = torch.arange(400) % 4
    >>> mutual_information(labels[:, None].double(), labels).round(decimals=2).tolist()
    [1.39]

    Raises:
        HarnessError: for a wrong rank, empty, complex, boolean or object arrays, a reference with NaN or of another
            length, and classes of which hardly any has a second row.

    Source: Kraskov, Stoegbauer & Grassberger 2004; Ross 2014; Gao et al. 2017 (arXiv 1709.06212).
    """
    return informations(activations, {"": reference}, dtype=dtype)[""]


def informations(activations: Any, references: Mapping[str, Any], *, dtype: Any = None) -> dict[str, Tensor]:
    """`mutual_information` with each of several references, for which units are put in order once.

    >>> informations([[0.0], [1.0]], {"none": [7, 7]})["none"].tolist()
    [0.0]
    """
    columns, constant, finite = unit_columns(activations, dtype)
    against = {name: ReferenceVariable(reference_column(each, columns.shape[-1])) for name, each in references.items()}
    varies = finite & ~constant
    found = {name: np.where(finite, 0.0, np.nan) for name in references}
    units = orderings(columns[varies])
    for name, each in against.items():
        found[name][varies] = each.information(units)
    return {name: torch.from_numpy(values) for name, values in found.items()}


class ReferenceVariable:
    """A reference, put in order once for all units.

    Args:
        column: `[sample]`, class numbers 0, 1, ... or floats, as `reference_column` gives them.
    """

    def __init__(self, column: NDArray[Any]) -> None:
        self.continuous = column.dtype.kind == "f"
        self.ordering = ordering(column[None])
        sizes = run_lengths(self.ordering.starts)
        self.constant = len(sizes) == 1
        if not self.continuous:
            self.kept = sizes[column] > 1  # a class of one row has no neighbour and is left out
            self.classes = column.astype(np.int16 if len(sizes) < 1 << 15 else np.int64)

    def information(self, units: Sequence[RankOrder]) -> Array:
        """Nats that each unit shares with it, of all parts; 0 with a reference that is the same on every row."""
        return np.concatenate([np.zeros(0), *(self._with(each) for each in units)])

    def _with(self, units: RankOrder) -> Array:
        if self.constant:
            return np.zeros(len(units.order))
        return with_factor(units, self.ordering) if self.continuous else with_classes(units, self)


def with_factor(units: RankOrder, factor: RankOrder) -> Array:
    """Gao et al. 2017: Kraskov's first estimator, with ties counted where the k-th neighbour is one; `[unit]`.

    >>> column = ordering(np.arange(1000.0)[None])
    >>> with_factor(column, column) > 4
    array([ True])
    """
    rows = units.order.shape[1]
    neighbours, psi = min(FACTOR_NEIGHBOURS, rows - 1), digammas(rows)
    inside = neighbor_distances(units, factor, neighbours) * SHRINK
    found = _neighbours_found(units, factor, inside, neighbours)
    near_unit, near_factor = (
        neighbor_counts(units, units.ordered(inside)),
        neighbor_counts(factor, factor.ordered(inside)),
    )
    values: Array = psi[rows] + psi[found].mean(1) - psi[near_unit].mean(1) - psi[near_factor].mean(1)
    return values


def _neighbours_found(units: RankOrder, factor: RankOrder, inside: Array, neighbours: int) -> NDArray[np.int64]:
    """k, or where the k-th neighbour is a copy all copies of the row, itself included, `[unit, sample]`."""
    found = np.full(inside.shape, neighbours)
    crowded = np.flatnonzero((inside == 0).any(1))
    if len(crowded):
        cells = units.groups[crowded] * inside.shape[1] + factor.groups
        order = np.argsort(cells, axis=1)
        lengths = run_lengths(run_starts(np.take_along_axis(cells, order, 1)))
        copies = np.empty_like(cells)
        np.put_along_axis(copies, order, np.repeat(lengths, lengths).reshape(cells.shape), 1)
        found[crowded] = np.maximum(copies, neighbours)
    return found


def with_classes(units: RankOrder, labels: ReferenceVariable) -> Array:
    """Ross 2014, all classes at once: neighbours within the class, then counts among all rows; `[unit]`.

    >>> classes = np.arange(1000) % 2
    >>> with_classes(ordering(classes[None] * 1.0), ReferenceVariable(classes)).round(2)
    array([0.69])
    """
    return np.array([_with_classes(*each, labels) for each in zip(units.order, units.scores, strict=True)])


def _with_classes(order: NDArray[np.int64], scores: Array, labels: ReferenceVariable) -> float:
    """Of one unit: its rows in rising order, and their scores."""
    classes = labels.classes[order]
    if not labels.kept.all():
        kept = labels.kept[order]
        scores, classes = scores[kept], classes[kept]
    if not len(scores):
        return 0.0
    by_class = np.argsort(classes, kind="stable")
    own, classes = scores[by_class], classes[by_class]
    sizes = np.bincount(classes)
    neighbours = np.minimum(CLASS_NEIGHBOURS, sizes - 1)[classes]
    radius = _class_radius(own, classes, neighbours)
    # tied with the k-th neighbour: all ties of its class are neighbours, itself included
    ties = run_lengths(run_starts(own) | run_starts(classes))
    found = np.where(radius == 0, np.repeat(ties, ties), neighbours)
    psi = digammas(len(order))
    around = psi[counts_within(scores, own, radius * SHRINK)].mean()
    return float(psi[len(own)] + psi[found].mean() - psi[sizes[classes]].mean() - around)


def _class_radius(own: Array, classes: NDArray[Any], neighbours: NDArray[np.int64]) -> Array:
    """Distance to the k-th neighbour of the same class, of values ordered within classes.

    Of the k + 1 windows that hold a value and k others the tightest decides.
    """
    rows, most = len(own), int(neighbours.max())
    down = np.full((most + 1, rows), np.inf)
    up = np.full((most + 1, rows), np.inf)
    down[0] = up[0] = 0
    for step in range(1, min(most, rows - 1) + 1):
        gap = np.where(classes[step:] == classes[:-step], own[step:] - own[:-step], np.inf)
        down[step, step:], up[step, :-step] = gap, gap
    radius = np.empty(rows)
    for count in np.flatnonzero(np.bincount(neighbours)):
        windows = np.maximum(down[: count + 1], up[count::-1]).min(axis=0)
        radius = np.where(neighbours == count, windows, radius)
    return radius
