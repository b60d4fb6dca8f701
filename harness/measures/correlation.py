"""Correlations of all pairs of units, and the groups of copies that they form."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.measures.constancy import is_constant
from harness.measures.dimensionality import standardised
from harness.measures.ranks import average_ranks
from harness.placement import PlaceInvariant
from harness.types import Activations

PerPair = Float[Tensor, "*member unit unit"]


def pairwise_correlation(activations: Activations) -> PerPair:
    """Pearson correlation of all pairs of units, -1 to 1; 0 for a constant unit or one not finite, with itself too.

    >>> pairwise_correlation(torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 1.0]])).round(decimals=6).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    # one layout for any number of members: ranks come as lines of a unit, of which a single member is another layout
    directions = standardised(activations.contiguous())
    with PlaceInvariant():
        return (directions.mT @ directions).clamp(-1, 1)


def rank_correlation(activations: Activations) -> PerPair:
    """Spearman correlation of all pairs of units, -1 to 1: 1 also for copies through any increasing function.

    >>> rank_correlation(torch.tensor([[1.0, 1.0], [2.0, 8.0], [3.0, 27.0]])).round(decimals=6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]

    Source: Spearman 1904; ties share their average rank.
    """
    ranks = average_ranks(activations.mT).mT
    # a unit that varies by rounding alone is constant, whatever its ranks; NaN has no rank
    left_out = is_constant(activations) | ~torch.isfinite(activations).all(dim=-2)
    ranks = torch.where(left_out[..., None, :], torch.zeros_like(ranks), ranks)
    return pairwise_correlation(ranks)


def clusters(correlation: PerPair, threshold: float = 0.99) -> Int[Tensor, "*member unit"]:
    """Groups of units that are linked by |correlation| >= threshold, directly or through other units.

    Args:
        correlation: `[*member, unit, unit]`, Pearson's or Spearman's.
        threshold: of a link, in (0, 1].

    Returns:
        For each unit the lowest index in its group, so the number of groups is that of different values;
        -1 for a unit whose correlation with itself is 0 (constant).

    >>> clusters(torch.tensor([[1.0, 0.995, 0.0], [0.995, 1.0, 0.0], [0.0, 0.0, 1.0]])).tolist()
    [0, 0, 2]
    """
    units = correlation.shape[-1]
    linked = correlation.abs() >= threshold
    group = torch.arange(units, device=correlation.device).expand(correlation.shape[:-1])
    for _ in range(units):
        lowest = torch.where(linked, group[..., None, :], units).amin(dim=-1).minimum(group)
        if torch.equal(lowest, group):
            break
        group = lowest
    return torch.where(linked.diagonal(dim1=-2, dim2=-1), group, torch.full_like(group, -1))


def cluster_count(groups: Int[Tensor, "*member unit"]) -> Int[Tensor, "*member"]:
    """Number of different groups that `clusters` returned, constant units left out.

    >>> cluster_count(torch.tensor([0, 0, 2, -1])).item()
    2
    """
    own = torch.arange(groups.shape[-1], device=groups.device)
    return (groups == own).sum(dim=-1)
