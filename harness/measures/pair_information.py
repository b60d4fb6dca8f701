"""Information that pairs of units share without being correlated, all pairs at once."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import chdtri
from torch import Tensor

from harness.measures.contingency import bins_for

CHANCE = 1e-4
"""Over all pairs of a layer; far below 0.05, because the chi-square tail is thin where cells are nearly empty."""


def codes(ranks: Tensor, bins: int) -> Tensor:
    """Quantile bins of average ranks `[*member, unit, sample]` from 1; a value on a bin's share of rows is a code.

    >>> codes(torch.tensor([[2.5, 2.5, 2.5, 2.5, 5.0, 6.0, 7.0]]), 2).tolist()
    [[2, 2, 2, 2, 0, 0, 1]]
    """
    rows = ranks.shape[-1]
    ordered, order = ranks.sort(dim=-1)
    same = ordered[..., 1:] == ordered[..., :-1]
    start = torch.ones_like(ordered, dtype=torch.bool)
    start[..., 1:] = ~same
    position = torch.arange(rows).expand(ordered.shape)
    first = torch.where(start, position, 0).cummax(-1).values
    # the average rank of a run lies half its size beyond its first position
    size = 2 * (ordered - 1 - first) + 1
    atom = (size * bins >= rows) & (size > 1)
    loose = (~atom).cumsum(-1)
    before = torch.gather(loose, -1, first) - 1
    quantile = (before * bins) // loose[..., -1:].clamp_min(1)
    number = (atom & start).cumsum(-1) - 1
    return torch.empty_like(position).scatter_(-1, order, torch.where(atom, bins + number, quantile))


def shared_pairs(
    ranks: Tensor, comparable: NDArray[np.bool_], correlation: NDArray[np.float64], share: float, copy: float
) -> NDArray[np.bool_]:
    """Uncorrelated pairs of units that share much of the smaller entropy, `[member, unit, unit]`, upper triangle.

    Args:
        ranks: average ranks, `[member, unit, sample]`. comparable: `[member, unit]`, units that may be compared.
        correlation: `[member, unit, unit]`. share: of the smaller entropy. copy: |correlation| from which a pair is a
            copy and not counted here.

    >>> line = torch.linspace(-1, 1, 801)
    >>> ranks = torch.stack([line.argsort() + 1.0, line.abs().argsort().argsort() + 1.0])[None]
    >>> shared_pairs(ranks, np.ones((1, 2), bool), np.zeros((1, 2, 2)), 0.5, 0.99).tolist()
    [[[False, True], [False, False]]]
    """
    count, rows = ranks.shape[-2:]
    plug_in, used = _tables(codes(ranks, bins_for(rows)))
    entropy = np.diagonal(plug_in, axis1=-2, axis2=-1)
    freedom = (used - 1)[..., :, None] * (used - 1)[..., None, :]
    information = plug_in - freedom / (2 * rows)
    smaller = np.minimum(entropy[..., :, None], entropy[..., None, :])
    pairs = max(count * (count - 1) // 2, 1)
    by_chance = chdtri(np.maximum(freedom, 1), CHANCE / pairs)
    both = comparable[..., :, None] & comparable[..., None, :] & np.triu(np.ones((count, count), dtype=bool), 1)
    enough = (information >= share * smaller) & (smaller > 0) & (2 * rows * plug_in > by_chance)
    return both & enough & (np.abs(correlation) < copy)


def _tables(code: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Plug-in information of every pair, `[member, unit, unit]` nats (entropy on the diagonal), and codes in use."""
    members, units, rows = code.shape
    kinds = int(code.max()) + 1
    hot = torch.zeros(members, units, kinds, rows, dtype=torch.float32)
    hot.scatter_(-2, code[..., None, :], 1.0)
    hot = hot.reshape(members, units * kinds, rows)
    joint = torch.stack([_joint_entropy(member, units, kinds) for member in hot])
    single = torch.diagonal(joint, dim1=-2, dim2=-1)
    information = single[..., :, None] + single[..., None, :] - joint
    return information.numpy(), (hot.amax(-1).reshape(members, units, kinds) > 0).sum(-1).numpy()


def _joint_entropy(hot: Tensor, units: int, kinds: int) -> Tensor:
    """Entropy of each pair's table, `[unit, unit]`: log n - sum of c log c / n, each term looked up by its count c."""
    rows = hot.shape[-1]
    counts = torch.arange(rows + 1, dtype=torch.float64)
    terms = torch.special.xlogy(counts, counts)[(hot @ hot.mT).int()]
    return math.log(rows) - terms.reshape(units, kinds, units, kinds).sum((-3, -1)) / rows
