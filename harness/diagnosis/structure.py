"""When two units are one, and how groups of them form."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from harness.diagnosis.thresholds import THRESHOLDS

COINCIDENCE = 0.01


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


def correlation_needed(rows: int, pairs: int, threshold: float = THRESHOLDS.duplicate_correlation) -> float:
    """The |correlation| that makes a copy: the threshold, or more where so few rows reach it by chance.

    >>> correlation_needed(1000, 6), correlation_needed(3, 6) > 0.999
    (0.99, True)
    """
    if rows < 3:
        return 1.0
    quantile = -stdtrit(rows - 2, COINCIDENCE / max(pairs, 1) / 2)
    return max(threshold, float(quantile / np.sqrt(quantile**2 + rows - 2)))


def order_needed(rows: int, pairs: int) -> bool:
    """Whether two units in the same order are more than chance: the least p of a rank correlation is 2 / rows!."""
    return rows > 20 or 2.0 / float(np.prod(np.arange(1, rows + 1, dtype=float))) < COINCIDENCE / max(pairs, 1)


def joins(strength: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """The strengths at which groups join (a maximum spanning tree), strongest first, from `floor` up.

    >>> joins(np.array([[1, 0.99, 0.95], [0.99, 1, 0.98], [0.95, 0.98, 1]]), 0.9).tolist()
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
