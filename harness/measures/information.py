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
from harness.measures.counting import near
from harness.measures.neighbours import neighbour_distances
from harness.measures.ordering import Ordering, digammas, ordering, orderings, run_lengths, run_starts, within
from harness.measures.pieces import pieces

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
    against = {name: Reference(reference_column(each, columns.shape[-1])) for name, each in references.items()}
    varies = finite & ~constant
    found = {name: np.where(finite, 0.0, np.nan) for name in references}
    for name, values in _by_pieces(columns[varies], against).items():
        found[name][varies] = values
    return {name: torch.from_numpy(values) for name, values in found.items()}


def _by_pieces(columns: Array, against: "Mapping[str, Reference]") -> dict[str, Array]:
    """Nats of columns that vary `[unit, sample]`, some units at a time."""
    parts: dict[str, list[Array]] = {name: [np.zeros(0)] for name in against}
    for piece in pieces(columns.shape[::-1]) if len(columns) else ():
        units = orderings(columns[piece])
        for name, reference in against.items():
            parts[name].append(reference.information(units))
    return {name: np.concatenate(each) for name, each in parts.items()}


class Reference:
    """A reference, put in order once for all units.

    Args:
        column: `[sample]`, class numbers 0, 1, ... or floats, as `reference_column` gives them.
    """

    def __init__(self, column: NDArray[Any]) -> None:
        self.continuous = column.dtype.kind == "f"
        self.column = column
        self.ordering = ordering(column)
        self.constant = len(self.ordering.sizes) == 1
        if self.continuous:
            self.groups = self.ordering.groups
        else:
            # a class of one row has no neighbour and is left out
            self.kept = self.ordering.sizes[column] > 1
            self.classes = column.astype(np.int16 if len(self.ordering.sizes) < 1 << 15 else np.int64)

    def information(self, units: Sequence[Ordering]) -> Array:
        """Nats that each unit shares with it; 0 with a reference that is the same on every row."""
        if self.constant:
            return np.zeros(len(units))
        return with_factor(units, self) if self.continuous else np.array([with_classes(each, self) for each in units])


def with_factor(units: Sequence[Ordering], factor: Reference) -> Array:
    """Gao et al. 2017: Kraskov's first estimator, with ties counted where the k-th neighbour is one; `[unit]`.

    >>> column = np.arange(1000.0)
    >>> with_factor([ordering(column)], Reference(column)) > 4
    array([ True])
    """
    rows = len(factor.column)
    neighbours, psi = min(FACTOR_NEIGHBOURS, rows - 1), digammas(rows)
    inside = neighbour_distances(units, factor.ordering, neighbours) * SHRINK
    copies = _copies(units, factor)
    found = np.where(copies > neighbours, copies, neighbours)
    near_unit = near(units, np.stack([radius[unit.order] for unit, radius in zip(units, inside, strict=True)]))
    near_factor = near([factor.ordering] * len(units), inside[:, factor.ordering.order])
    values: Array = psi[rows] + psi[found].mean(1) - psi[near_unit].mean(1) - psi[near_factor].mean(1)
    return values


def _copies(units: Sequence[Ordering], factor: Reference) -> NDArray[np.int64]:
    """How many rows lie where each row does, itself included, `[unit, sample]`."""
    rows = len(factor.column)
    copies = np.ones((len(units), rows), np.int64)
    if len(factor.ordering.sizes) < rows:
        for unit, found in zip(units, copies, strict=True):
            if len(unit.sizes) < rows:  # else no two rows tie on both sides
                cells = unit.groups * rows + factor.groups
                order = np.argsort(cells)
                lengths = run_lengths(run_starts(cells[order]))
                found[order] = np.repeat(lengths, lengths)
    return copies


def with_classes(unit: Ordering, labels: Reference) -> float:
    """Ross 2014, all classes at once: neighbours within the class, then counts among all rows.

    >>> classes = np.arange(1000) % 2
    >>> round(with_classes(ordering(classes * 1.0), Reference(classes)), 2)
    0.69
    """
    scores, classes = unit.scores, labels.classes[unit.order]
    if not labels.kept.all():
        kept = labels.kept[unit.order]
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
    psi = digammas(len(unit.order))
    around = psi[within(scores, own, radius * SHRINK)].mean()
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
