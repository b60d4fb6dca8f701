"""When two units are one, and how groups of them form."""

from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

COINCIDENCE = 0.01
STANDS = 0.9
"""|correlation| that a copy keeps without the rows that could agree by chance. Where they hold less than nine tenths of
the units' variation, .99 with them is .9 without them at least: |z - w|^2 = 2 (1 - r) for lines z and w of length 1."""
MOST_LEFT_OUT = 3
"""A unit that fires on five rows keeps two."""


def ranks_of(values: Tensor) -> Tensor:
    """Average ranks of each unit along the last axis of `[*member, unit, sample]`, from 0, in float32.

    >>> ranks_of(torch.tensor([[3.0, 0.0, 0.0, 9.0]])).tolist()
    [[2.0, 0.5, 0.5, 3.0]]
    """
    ordered, order = values.contiguous().sort(dim=-1)
    places = torch.arange(values.shape[-1], dtype=torch.float32).expand(values.shape)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = torch.where(fresh, places, 0.0).cummax(-1).values
    ends = fresh.roll(-1, -1)
    ends[..., -1] = True
    last = torch.where(ends, places, float(values.shape[-1])).flip(-1).cummin(-1).values.flip(-1)
    return torch.empty_like(first).scatter_(-1, order, (first + last) / 2)


def correlation_needed(rows: int, pairs: int, threshold: float) -> float:
    """The |correlation| that makes a copy: the threshold, or more where so few rows reach it by chance.

    >>> correlation_needed(1000, 6, 0.99), correlation_needed(3, 6, 0.99) > 0.999
    (0.99, True)
    """
    if rows < 3:
        return 1.0
    quantile = -stdtrit(rows - 2, COINCIDENCE / max(pairs, 1) / 2)
    return max(threshold, float(quantile / np.sqrt(quantile**2 + rows - 2)))


def rows_by_chance(rows: int, pairs: int) -> int:
    """How many rows may carry the correlation of some pair of independent units: a matter of their tails.

    The largest values of two units lie on the same row in one of `rows` pairs, the `k` largest on the same rows in one
    of `rows` over `k`; as many as are likelier than 1 % in a layer, 3 at the most.

    >>> rows_by_chance(1000, 6), rows_by_chance(1000, 44_850), rows_by_chance(20, 6)
    (0, 2, 2)
    """
    return next((k for k in range(MOST_LEFT_OUT) if pairs <= COINCIDENCE * comb(rows, k + 1)), MOST_LEFT_OUT)


def robust_correlation(left: Tensor, right: Tensor, few: int) -> Tensor:
    """|correlation| of lines `[pair, sample]` of mean 0 and length 1; where `few` rows carry it, that of the others.

    >>> line = torch.tensor([[9.0, 1.0, -2.0, -3.0, -5.0]], dtype=torch.float64) / 120**0.5
    >>> [round(float(robust_correlation(line, each, 1)), 2) for each in (-line, line[:, [0, 3, 1, 4, 2]])]
    [1.0, 0.01]
    """
    product = left * right
    whole = product.sum(-1).abs()
    if few == 0 or left.shape[-1] <= few + 1:
        return whole
    kept = torch.ones_like(product).scatter_(-1, product.abs().topk(few, -1).indices, 0.0)
    others = [
        (line - (line * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)) * kept for line in (left, right)
    ]
    lengths = others[0].norm(dim=-1) * others[1].norm(dim=-1)
    rest = (others[0] * others[1]).sum(-1).abs() / lengths.clamp_min(torch.finfo(product.dtype).tiny)
    return torch.where(rest >= STANDS, whole, torch.minimum(whole, rest))


def standing_correlation(
    values: Tensor, correlation: NDArray[np.float64], floor: float, few: int
) -> NDArray[np.float64]:
    """`correlation` `[member, unit, unit]` of `values` `[member, sample, unit]`, as it stands without `few` rows.

    Only from `floor` up, and only between units whose largest values weigh enough to carry it.
    """
    lines = (values - values.mean(-2, keepdim=True)).mT
    lines = lines / lines.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(lines.dtype).tiny)
    heavy = (few * lines.square().amax(-1) > STANDS).numpy()
    found = correlation.copy()
    for member, unit in zip(*np.nonzero(heavy), strict=True):
        strong = heavy[member, :unit] & (np.abs(correlation[member, unit, :unit]) >= floor)
        others = np.flatnonzero(strong)
        kept = robust_correlation(lines[member, others], lines[member, unit], few).numpy()
        found[member, unit, others] = found[member, others, unit] = kept
    return found


def order_needed(rows: int, pairs: int) -> bool:
    """Whether two units in the same order are more than chance: the least p of a rank correlation is 2 / rows!."""
    return rows > 20 or 2.0 / float(np.prod(np.arange(1, rows + 1, dtype=float))) < COINCIDENCE / max(pairs, 1)


def spanning_tree_weights(strength: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """The strengths at which groups join (a maximum spanning tree), strongest first, from `floor` up.

    >>> spanning_tree_weights(np.array([[1, 0.99, 0.95], [0.99, 1, 0.98], [0.95, 0.98, 1]]), 0.9).tolist()
    [0.99, 0.98]
    """
    rows, columns = np.nonzero(np.triu(strength, 1) >= floor)
    values = strength[rows, columns]
    parent = np.arange(len(strength))
    found = []
    for edge in np.argsort(-values, kind="stable"):
        left, right = _root(parent, rows[edge]), _root(parent, columns[edge])
        if left != right:
            parent[max(left, right)] = min(left, right)
            found.append(values[edge])
    return np.minimum(np.array(found, dtype=np.float64), 1.0)


def _root(parent: NDArray[np.int64], unit: int) -> int:
    while parent[unit] != unit:
        parent[unit] = parent[parent[unit]]
        unit = parent[unit]
    return unit
