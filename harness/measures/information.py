"""Mutual information between a unit and a reference variable: finite whatever the network does, unlike I(X;Z).

Values by nearest neighbours on normal scores: Ross 2014 for classes, Gao et al. 2017 for a continuous factor. They are
unclamped estimates, so an independent unit scatters around 0. What is tested, and the interval, is another thing: see
`harness.measures.association`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma, ndtri

from harness.errors import HarnessError
from harness.measures.constancy import is_constant

Array = NDArray[np.float64]
CLASS_NEIGHBOURS = 5
FACTOR_NEIGHBOURS = 3
SHRINK = 1 - 1e-10  # strict counts: the k-th neighbour itself is not inside its own radius


def information(activations: Array, reference: NDArray[Any], constant: NDArray[np.bool_]) -> Array:
    """Nats shared by every unit of `[*member, sample, unit]` with `[sample]`; exactly 0 for constant units.

    >>> classes = np.arange(1000) % 2
    >>> codes = np.stack([classes, classes * 0]).T.astype(float)
    >>> information(codes, classes, np.array([False, True])).round(2).tolist()
    [0.69, 0.0]
    """
    values = np.zeros(constant.shape)
    estimate = _with_factor if reference.dtype.kind == "f" else _with_classes
    prepared = _prepared(reference)
    for place in zip(*np.nonzero(~constant), strict=True):
        values[place] = estimate(normal_scores(activations[(*place[:-1], slice(None), place[-1])]), prepared)
    return values


def normal_scores(values: NDArray[Any]) -> Array:
    """Ranks turned into normal quantiles: ties keep one common score, so atoms stay atoms.

    >>> normal_scores(np.array([10.0, 30.0, 20.0])).round(3).tolist()
    [-0.967, 0.967, 0.0]
    """
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(values)]
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends) / 2, ends - starts)
    scores: Array = ndtri(ranks / len(values))
    return scores


def _prepared(reference: NDArray[Any]) -> NDArray[Any]:
    if reference.dtype.kind == "f":
        return normal_scores(reference)
    classes: NDArray[Any] = np.unique(reference, return_inverse=True)[1]
    return classes


def _with_factor(unit: Array, factor: Array) -> float:
    """Gao et al. 2017: Kraskov's first estimator, with ties counted where the k-th neighbour is one."""
    joint = np.stack([unit, factor], axis=1)
    neighbours = min(FACTOR_NEIGHBOURS, len(unit) - 1)
    tree = cKDTree(joint, balanced_tree=False, compact_nodes=False)
    radius = tree.query(joint, k=[neighbours + 1], p=np.inf)[0][:, 0]
    inside = radius * SHRINK
    found = np.full(len(unit), float(neighbours))
    tied = radius == 0
    if tied.any():
        found[tied] = _joint_ties(joint)[tied]
    counts = digamma(_within(unit, unit, inside)) + digamma(_within(factor, factor, inside))
    return float(digamma(len(unit)) + np.mean(digamma(found) - counts))


def _joint_ties(joint: Array) -> Array:
    _, index, counts = np.unique(joint, axis=0, return_inverse=True, return_counts=True)
    ties: Array = counts[index.ravel()].astype(np.float64)
    return ties


def _with_classes(unit: Array, classes: NDArray[Any]) -> float:
    """Ross 2014; a class of one row has no neighbour and is left out."""
    sizes = np.bincount(classes)
    kept = sizes[classes] > 1
    unit, classes = unit[kept], classes[kept]
    if not len(unit):
        return 0.0
    radius, found = np.empty(len(unit)), np.empty(len(unit))
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        neighbours = min(CLASS_NEIGHBOURS, len(rows) - 1)
        radius[rows] = _radius(unit[rows], neighbours)
        found[rows] = neighbours
        tied = rows[radius[rows] == 0]
        found[tied] = _within(unit[rows], unit[tied], np.zeros(len(tied)))
    around = _within(unit, unit, radius * SHRINK)
    inside = digamma(found) - digamma(sizes[classes]) - digamma(around)
    return float(digamma(len(unit)) + np.mean(inside))


def _radius(values: Array, neighbours: int) -> Array:
    """Distance to the k-th neighbour on a line: the best of the k + 1 windows that hold a value and k others."""
    order = np.argsort(values)
    padded = np.r_[np.full(neighbours, -np.inf), values[order], np.full(neighbours, np.inf)]
    count, centre = len(values), values[order]
    best = np.full(count, np.inf)
    for left in range(neighbours + 1):
        low = padded[neighbours - left : neighbours - left + count]
        high = padded[2 * neighbours - left : 2 * neighbours - left + count]
        best = np.minimum(best, np.maximum(centre - low, high - centre))
    radius = np.empty(count)
    radius[order] = best
    return radius


def _within(values: Array, centres: Array, radius: Array) -> NDArray[np.int64]:
    """How many of the values lie within a radius of each centre, itself included."""
    ordered = np.sort(values)
    above = np.searchsorted(ordered, centres + radius, side="right")
    counts: NDArray[np.int64] = above - np.searchsorted(ordered, centres - radius, side="left")
    return counts


def mutual_information(activations: Any, reference: Any) -> Any:
    """Mutual information of each unit with a reference variable, the values alone.

    Args:
        activations: `[*member, sample, unit]`, tensor or array.
        reference: `[sample]`; integers are classes, floats a continuous factor. The kind of number decides: classes
            written as floats are taken for a continuous factor.

    Returns:
        Nats, `[*member, unit]`, float64 tensor: 0 for a unit that ignores the reference (estimates scatter around it,
        and are not clamped; a constant unit is exactly 0), up to the entropy of the classes.

    >>> import torch
    >>> labels = torch.arange(400) % 4
    >>> mutual_information(labels[:, None].double(), labels).round(decimals=2).tolist()
    [1.39]

    Raises:
        HarnessError: for a wrong rank, empty, complex, boolean or object arrays, NaN, lengths that differ, and more
            classes than rows.

    Source: Ross 2014; Gao et al. 2017; Kraskov et al. 2004.
    """
    import torch

    values, other, constant = prepare(activations, reference)
    return torch.from_numpy(information(values, other, constant))


def prepare(activations: Any, reference: Any) -> tuple[Array, NDArray[Any], NDArray[np.bool_]]:
    """Both sides as arrays, checked, and which units are constant."""
    import torch

    values = _numbers(activations, "activations")
    other = _numbers(reference, "reference")
    if values.ndim < 2:
        raise HarnessError(f"activations: [sample, unit] is wanted, an array of shape {list(values.shape)} was given")
    if not values.size:
        raise HarnessError(f"activations: an empty array of shape {list(values.shape)} was given; at least a row is wanted")
    if other.ndim != 1 or len(other) != values.shape[-2]:
        raise HarnessError(
            f"reference: one value for each of the {values.shape[-2]} samples is wanted, shape {list(other.shape)} was given"
        )
    if not np.isfinite(values).all() or not np.isfinite(other).all():
        raise HarnessError("mutual information: NaN or infinite values have none; diagnose such a layer, or drop the rows")
    constant = is_constant(torch.from_numpy(values)).numpy()
    return values.astype(np.float64), other, constant


def _numbers(values: Any, name: str) -> NDArray[Any]:
    array = values.detach().cpu().numpy() if hasattr(values, "detach") and _has_numpy(values) else _plain(values)
    if array.dtype.kind not in "iuf":
        raise HarnessError(f"{name}: real numbers are wanted, an array of {array.dtype} was given")
    return array


def _has_numpy(tensor: Any) -> bool:
    return str(tensor.dtype) != "torch.bfloat16"


def _plain(values: Any) -> NDArray[Any]:
    return values.detach().cpu().float().numpy() if hasattr(values, "detach") else np.asarray(values)
