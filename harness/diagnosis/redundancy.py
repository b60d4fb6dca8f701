"""Relations among the live units of a layer: copies, groups of copies, dimensions in use."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.redundancy_large import large_redundancy, ranks_at_resolution
from harness.diagnosis.thresholds import Thresholds
from harness.measures.chunks import CHUNK
from harness.measures.correlation import pairwise_correlation
from harness.measures.dimensionality import centered, correct_participation, effective_rank, products, standardised
from harness.measures.pair_information import shared_pairs
from harness.measures.ranks import average_ranks
from harness.measures.unit_pairs import (
    correlation_needed,
    order_needed,
    rows_by_chance,
    spanning_tree_weights,
    standing_correlation,
)
from harness.placement import PlaceInvariant

LINK_FLOOR = 0.9
"""Links are stored from here up, so that a threshold sweep can move below 0.99."""
ROUNDING = 1e-12
MOST_DIMENSION_ROWS = 1024
MOST_DIMENSION_NUMBERS = 1 << 24


@dataclass(frozen=True)
class Redundancy:
    """Relations among the units of one member.

    Args:
        links: |correlations|, of values or of ranks, at which groups of copies join, strongest first, from
            `LINK_FLOOR` up.
        copies: unit -> the lowest numbered unit that it is a copy of.
        rank: number of dimensions that the live units span; NaN where not computed.
        participation: participation ratio of the live units, as measured. corrected: for the number of rows.
        effective_rank: exp of the entropy of the live units' singular values; NaN where not computed.
        nonlinear: number of pairs that share information without correlation; -1 where not searched.
    """

    links: NDArray[np.float64]
    copies: dict[int, int]
    rank: float
    participation: float
    corrected: float
    effective_rank: float
    nonlinear: int


def unit_redundancy(
    activations: Tensor,
    live: NDArray[np.bool_],
    comparable: NDArray[np.bool_],
    resolution: NDArray[np.float64],
    thresholds: Thresholds,
) -> list[Redundancy]:
    """Relations of each member of `[member, sample, unit]`; the other arrays are `[member, unit]`."""
    if activations.shape[-1] > thresholds.large_units:
        return [
            _large(activations[member], live[member], comparable[member], resolution[member], thresholds)
            for member in range(len(live))
        ]
    relations: list[Redundancy] = []
    for part in _parts(tuple(activations.shape)):
        relations += _small(activations[part], live[part], comparable[part], resolution[part], thresholds)
    return relations


def comparable_units(
    live: NDArray[np.bool_], fired: NDArray[np.int64], rows: int, can_be_off: bool, few_rows: int
) -> NDArray[np.bool_]:
    """`[member, unit]`: live units that fire on enough rows for their correlation to mean something."""
    often = fired >= few_rows if can_be_off else np.ones_like(live)
    return live & often & (rows >= few_rows)


def input_dimension(inputs: Tensor | None, categories: bool, thresholds: Thresholds) -> float:
    """Number of dimensions that a code of these inputs could span; infinite without inputs.

    The smaller of the rank of the varying features and the number of principal components that hold 99 % of the
    variance, since the correlation matrix gives features of pure noise the weight of all others. For tokens and
    categories it is the number of features. Measured on at most 1024 rows.

    >>> line = torch.linspace(-1, 1, 9)[:, None]
    >>> input_dimension(torch.cat([line, -line, line**2], 1), False, Thresholds())
    2.0
    """
    if inputs is None:
        return float("inf")
    if categories:
        return float(inputs.shape[-1])
    most = max(64, min(MOST_DIMENSION_ROWS, MOST_DIMENSION_NUMBERS // inputs.shape[-1]))
    rows = inputs if len(inputs) <= most else inputs[torch.linspace(0, len(inputs) - 1, most).long()]
    # squares of 1e200 leave the range of a float64
    rows = rows.double() / max(float(rows.abs().max()), torch.finfo(torch.float64).tiny)
    power = torch.linalg.eigvalsh(products(centered(rows))).clamp_min(0).flip(-1)
    if not float(power.sum()) > 0:
        return 0.0
    share = power.cumsum(-1) / power.sum()
    components = int((share < thresholds.input_variance - ROUNDING).sum()) + 1
    return float(min(components, int(_rank(products(standardised(rows)), thresholds))))


def within_class_variance(activations: Tensor, classes: Tensor, live: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`[member]`: share of the live units' variance within classes, averaged over units; NaN without a live unit.

    0: every unit has one value per class. 1: the class means are equal.

    >>> layer = torch.tensor([[[0.0], [2.0], [4.0], [6.0]]])
    >>> within_class_variance(layer, torch.tensor([0, 0, 1, 1]), np.array([[True]])).round(9).tolist()
    [0.2]
    """
    values = standardised(torch.where(torch.from_numpy(live)[..., None, :], activations, 0.0))
    number = classes.unique(return_inverse=True)[1]
    sizes = number.bincount().double()
    sums = torch.zeros(*values.shape[:-2], len(sizes), values.shape[-1], dtype=torch.float64)
    sums.index_add_(-2, number, values)
    between = (sums.square() / sizes[:, None]).sum(-2).numpy()
    count = live.sum(-1)
    within = np.where(live, 1 - between, 0.0).sum(-1)
    return np.where(count > 0, within / np.maximum(count, 1), np.nan).clip(0, 1)


def _rank(gram: Tensor, thresholds: Thresholds) -> Tensor:
    """Number of eigenvalues of `[*member, one, other]` above a share of the largest, `[*member]`."""
    with PlaceInvariant():
        power = torch.linalg.eigvalsh(gram)
    return ((power > thresholds.rank_tolerance * power[..., -1:]) & (power > 0)).sum(-1)


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    members, rows, units = shape
    step = max(1, CHUNK // (rows * units))
    for start in range(0, members, step):
        yield slice(start, min(start + step, members))


def _small(
    activations: Tensor,
    live: NDArray[np.bool_],
    comparable: NDArray[np.bool_],
    resolution: NDArray[np.float64],
    thresholds: Thresholds,
) -> list[Redundancy]:
    values = torch.where(torch.from_numpy(live)[..., None, :], activations.double(), 0.0)
    # squares of 1e200 or 1e-200 leave the range of a float64
    largest = values.abs().amax((-2, -1), keepdim=True)
    scaled = values / torch.where(largest > 0, largest, 1.0)
    correlation = pairwise_correlation(scaled).numpy()
    strength = _strengths(values, scaled, correlation, resolution, thresholds)
    copies = _copies(strength, comparable, thresholds)
    nonlinear = np.full(len(live), -1)
    if values.shape[-1] <= thresholds.pair_units:
        pairs = shared_pairs(
            average_ranks(torch.where(torch.from_numpy(live)[..., None], activations.mT, 0.0)),
            comparable,
            correlation,
            thresholds.nonlinear_share,
            thresholds.duplicate_correlation,
        )
        nonlinear = pairs.sum((-2, -1))
    dimensions = _rank(torch.from_numpy(correlation), thresholds).tolist()
    effective = effective_rank(scaled).tolist()
    return [
        Redundancy(
            links=spanning_tree_weights(strength[member][np.ix_(units, units)], LINK_FLOOR),
            copies=copies[member],
            rank=float(dimensions[member]) if live[member].any() else 0.0,
            effective_rank=effective[member] if live[member].any() else 0.0,
            nonlinear=int(nonlinear[member]),
            **_participation(correlation[member], live[member], activations.shape[-2]),
        )
        for member, units in enumerate(comparable)
    ]


def _participation(correlation: NDArray[np.float64], live: NDArray[np.bool_], rows: int) -> dict[str, float]:
    count = int(live.sum())
    ratio = count**2 / float(np.square(correlation).sum()) if count else 0.0
    return {"participation": ratio, "corrected": _corrected(ratio, rows)}


def _strengths(
    values: Tensor,
    scaled: Tensor,
    correlation: NDArray[np.float64],
    resolution: NDArray[np.float64],
    thresholds: Thresholds,
) -> NDArray[np.float64]:
    """`[member, unit, unit]`: the larger of |correlation| and |rank correlation|, without what chance could do."""
    rows, units = values.shape[-2:]
    pairs = units * (units - 1) // 2
    by_chance = rows_by_chance(rows, pairs)
    linear = np.abs(standing_correlation(scaled, correlation, LINK_FLOOR, by_chance))
    needed = correlation_needed(rows, pairs, thresholds.duplicate_correlation)
    if needed > thresholds.duplicate_correlation:
        linear[linear < needed - ROUNDING] = 0.0
    if not order_needed(rows, pairs):
        return linear
    ranks = ranks_at_resolution(values.mT, torch.from_numpy(np.array(resolution)), thresholds.few_rows)
    ranked = standing_correlation(
        ranks.mT.double(), pairwise_correlation(ranks.mT).numpy(), thresholds.duplicate_correlation, by_chance
    )
    return np.maximum(linear, np.abs(ranked))


def _copies(
    strength: NDArray[np.float64], comparable: NDArray[np.bool_], thresholds: Thresholds
) -> list[dict[int, int]]:
    units = strength.shape[-1]
    alike = strength >= thresholds.duplicate_correlation - ROUNDING
    alike &= comparable[..., :, None] & comparable[..., None, :] & np.triu(np.ones((units, units), dtype=bool), 1)
    first = alike.argmax(-2)
    return [
        {int(unit): int(first[member, unit]) for unit in np.flatnonzero(alike[member].any(-2))}
        for member in range(len(alike))
    ]


def _corrected(participation: float, rows: int) -> float:
    if participation != participation:
        return participation
    return float(correct_participation(torch.tensor(participation, dtype=torch.float64), rows))


def _large(
    activations: Tensor,
    live: NDArray[np.bool_],
    comparable: NDArray[np.bool_],
    resolution: NDArray[np.float64],
    thresholds: Thresholds,
) -> Redundancy:
    relations = large_redundancy(activations, live, comparable, resolution, thresholds)
    return Redundancy(
        links=relations.links,
        copies=relations.copies,
        rank=relations.rank,
        participation=relations.participation,
        corrected=_corrected(relations.participation, activations.shape[-2]),
        effective_rank=float("nan") if live.any() else 0.0,
        nonlinear=-1,
    )
