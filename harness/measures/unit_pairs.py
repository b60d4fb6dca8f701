"""Correlations that make two units copies, guarded against chance, and the strengths at which groups of copies join."""

from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

COINCIDENCE = 0.01
"""Chance, over all pairs of a layer, that independent units are taken for copies."""
STANDS = 0.9
"""|correlation| that a copy keeps without the rows that could agree by chance. Where they hold less than nine tenths of
the units' variation, 0.99 with them is at least 0.9 without: |z - w|^2 = 2 (1 - r) for lines z and w of length 1."""
MOST_LEFT_OUT = 3
"""Rows left out at most: a unit that fires on five rows keeps two."""


def correlation_needed(rows: int, pairs: int, threshold: float) -> float:
    """Least |correlation| of a copy: the threshold, or more where independent units would reach it by chance.

    Args:
        rows: number of rows. pairs: pairs of units in the layer. threshold: |correlation| of a copy on many rows.

    >>> correlation_needed(1000, 6, 0.99), correlation_needed(3, 6, 0.99) > 0.999
    (0.99, True)
    """
    if rows < 3:
        return 1.0
    quantile = -stdtrit(rows - 2, COINCIDENCE / max(pairs, 1) / 2)
    return max(threshold, float(quantile / np.sqrt(quantile**2 + rows - 2)))


def rows_by_chance(rows: int, pairs: int) -> int:
    """Number of rows, 0 to 3, that may carry the correlation of a pair of independent heavy-tailed units.

    The largest values of two units lie on the same row in one of `rows` pairs, the `k` largest on the same rows in one
    of `rows` over `k`; as many as are likelier than 1 % in a layer, 3 at the most.

    >>> rows_by_chance(1000, 6), rows_by_chance(1000, 44_850), rows_by_chance(20, 6)
    (0, 2, 2)
    """
    return next((k for k in range(MOST_LEFT_OUT) if pairs <= COINCIDENCE * comb(rows, k + 1)), MOST_LEFT_OUT)


def robust_correlation(first: Tensor, second: Tensor, count: int) -> Tensor:
    """|correlation| of lines `[pair, sample]` of mean 0 and length 1; without the `few` rows that carry it, if any do.

    >>> line = torch.tensor([[9.0, 1.0, -2.0, -3.0, -5.0]], dtype=torch.float64) / 120**0.5
    >>> [round(float(robust_correlation(line, right, 1)), 2) for right in (-line, line[:, [0, 3, 1, 4, 2]])]
    [1.0, 0.01]
    """
    product = first * second
    plain = product.sum(-1).abs()
    if count == 0 or first.shape[-1] <= count + 1:
        return plain
    weight = torch.ones_like(product).scatter_(-1, product.abs().topk(count, -1).indices, 0.0)
    first, second = (
        (line - (line * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)) * weight
        for line in (first, second)
    )
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    rest = (first * second).sum(-1).abs() / lengths.clamp_min(torch.finfo(product.dtype).tiny)
    return torch.where(rest >= STANDS, plain, torch.minimum(plain, rest))


def standing_correlation(
    values: Tensor, correlation: NDArray[np.float64], floor: float, count: int
) -> NDArray[np.float64]:
    """`robust_correlation` of the pairs whose largest values weigh enough to carry it; the others are unchanged.

    Args:
        values: `[member, sample, unit]`. correlation: theirs, `[member, unit, unit]`.
        floor: |correlation| from which on a pair is looked at. few: rows left out.

    >>> values = torch.tensor([[[9.0, 9.0], [1.0, -3.0], [-2.0, 1.0], [-3.0, -5.0], [-5.0, -2.0]]])
    >>> standing_correlation(values, np.array([[[1.0, 0.7], [0.7, 1.0]]]), 0.6, 2).round(1).tolist()
    [[[1.0, 0.2], [0.2, 1.0]]]
    """
    lines = (values - values.mean(-2, keepdim=True)).mT
    lines = lines / lines.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(lines.dtype).tiny)
    heavy = (count * lines.square().amax(-1) > STANDS).numpy()
    robust = correlation.copy()
    for member, unit in zip(*np.nonzero(heavy), strict=True):
        strong = heavy[member, :unit] & (np.abs(correlation[member, unit, :unit]) >= floor)
        partners = np.flatnonzero(strong)
        standing = robust_correlation(lines[member, partners], lines[member, unit], count).numpy()
        robust[member, unit, partners] = robust[member, partners, unit] = standing
    return robust


def order_needed(rows: int, pairs: int) -> bool:
    """Return True if two units in the same order cannot be chance: the least p of a rank correlation is 2 / rows!.

    >>> order_needed(5, 6), order_needed(12, 6)
    (False, True)
    """
    return rows > 20 or 2.0 / float(np.prod(np.arange(1, rows + 1, dtype=float))) < COINCIDENCE / max(pairs, 1)


def spanning_tree_weights(strength: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Strengths at which groups join (a maximum spanning tree), strongest first, from `floor` up.

    Args:
        strength: |correlation|, `[unit, unit]`. floor: weakest link.

    >>> spanning_tree_weights(np.array([[1, 0.99, 0.95], [0.99, 1, 0.98], [0.95, 0.98, 1]]), 0.9).tolist()
    [0.99, 0.98]
    """
    rows, columns = np.nonzero(np.triu(strength, 1) >= floor)
    values = strength[rows, columns]
    parent = np.arange(len(strength))
    weights = []
    for edge in np.argsort(-values, kind="stable"):
        first, second = _root(parent, rows[edge]), _root(parent, columns[edge])
        if first != second:
            parent[max(first, second)] = min(first, second)
            weights.append(values[edge])
    return np.minimum(np.array(weights, dtype=np.float64), 1.0)


def _root(parent: NDArray[np.int64], unit: int) -> int:
    while parent[unit] != unit:
        parent[unit] = parent[parent[unit]]
        unit = parent[unit]
    return unit
