"""What the live units of a layer are to one another: copies, groups of copies, dimensions in use."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.redundancy_large import large_redundancy
from harness.diagnosis.thresholds import Thresholds
from harness.measures.chunks import CHUNK
from harness.measures.correlation import pairwise_correlation
from harness.measures.dimensionality import correct_participation, effective_rank
from harness.measures.pair_information import shared_pairs
from harness.measures.unit_pairs import (
    correlation_needed,
    order_needed,
    ranks_of,
    rows_by_chance,
    spanning_tree_weights,
    standing_correlation,
)

LINK_FLOOR = 0.9
"""Links are kept from here up, so that a threshold sweep can move below .99."""


@dataclass(frozen=True)
class Redundancy:
    """The relations among the units of one member.

    Args:
        links: |correlations| at which groups of copies join, strongest first, from `LINK_FLOOR` up.
        copies: unit -> the lowest numbered unit that it is a copy of.
        participation: participation ratio of the live units, as measured. corrected: for the number of rows.
        effective_rank: exp of the entropy of the live units' singular values; NaN where not searched.
        nonlinear: how many pairs share information without correlation; -1 where not searched.
    """

    links: NDArray[np.float64]
    copies: dict[int, int]
    participation: float
    corrected: float
    effective_rank: float
    nonlinear: int


def unit_redundancy(
    activations: Tensor, live: NDArray[np.bool_], comparable: NDArray[np.bool_], thresholds: Thresholds
) -> list[Redundancy]:
    """The relations of each member of `[member, sample, unit]`; `live` and `comparable` are `[member, unit]`."""
    if activations.shape[-1] > thresholds.large_units:
        return [_large(activations[m], live[m], comparable[m], thresholds) for m in range(len(live))]
    found: list[Redundancy] = []
    for part in _parts(tuple(activations.shape)):
        found += _small(activations[part], live[part], comparable[part], thresholds)
    return found


def comparable_units(
    live: NDArray[np.bool_], fired: NDArray[np.int64], rows: int, can_be_off: bool, few: int
) -> NDArray[np.bool_]:
    """`[member, unit]`: live units whose correlation is no accident of one to four firing rows.

    A unit that varies below its threshold and never crosses it varies on every row, and can be compared.
    """
    often = (fired >= few) | (fired == 0) if can_be_off else np.ones_like(live)
    return live & often & (rows >= few)


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    members, rows, units = shape
    step = max(1, CHUNK // (rows * units))
    for start in range(0, members, step):
        yield slice(start, min(start + step, members))


def _small(
    activations: Tensor, live: NDArray[np.bool_], comparable: NDArray[np.bool_], thresholds: Thresholds
) -> list[Redundancy]:
    values = torch.where(torch.from_numpy(live)[..., None, :], activations.double(), 0.0)
    # squares of 1e200 or 1e-200 leave the range of a float64
    largest = values.abs().amax((-2, -1), keepdim=True)
    values = values / torch.where(largest > 0, largest, 1.0)
    correlation = pairwise_correlation(values).numpy()
    ranks = ranks_of(torch.where(torch.from_numpy(live)[..., None], activations.mT, 0.0))
    units, rows = ranks.shape[-2:]
    by_chance = rows_by_chance(rows, units * (units - 1) // 2)
    alike = standing_correlation(values, correlation, LINK_FLOOR, by_chance)
    copies = _copies(ranks, alike, comparable, thresholds)
    shared = np.full(len(live), -1)
    if values.shape[-1] <= thresholds.pair_units:
        pairs = shared_pairs(
            ranks, comparable, correlation, thresholds.nonlinear_share, thresholds.duplicate_correlation
        )
        shared = pairs.sum((-2, -1))
    used = effective_rank(values)
    links = [
        spanning_tree_weights(np.abs(alike[m][np.ix_(each, each)]), _floor(rows, int(each.sum()), thresholds))
        for m, each in enumerate(comparable)
    ]
    return [
        _relations(correlation[m], live[m], links[m], copies[m], float(used[m]), int(shared[m]), rows)
        for m in range(len(live))
    ]


def _relations(
    correlation: NDArray[np.float64],
    live: NDArray[np.bool_],
    links: NDArray[np.float64],
    copies: dict[int, int],
    effective_rank: float,
    shared: int,
    rows: int,
) -> Redundancy:
    count = int(live.sum())
    participation = count**2 / float(np.square(correlation).sum()) if count else 0.0
    return Redundancy(
        links=links,
        copies=copies,
        participation=participation,
        corrected=_corrected(participation, rows),
        effective_rank=effective_rank if count else 0.0,
        nonlinear=shared,
    )


def _floor(rows: int, units: int, thresholds: Thresholds) -> float:
    needed = correlation_needed(rows, units * (units - 1) // 2, thresholds.duplicate_correlation)
    return needed if needed > thresholds.duplicate_correlation else min(LINK_FLOOR, needed)


def _copies(
    ranks: Tensor, correlation: NDArray[np.float64], comparable: NDArray[np.bool_], thresholds: Thresholds
) -> list[dict[int, int]]:
    units, rows = ranks.shape[-2:]
    pairs = units * (units - 1) // 2
    alike = np.abs(correlation) >= correlation_needed(rows, pairs, thresholds.duplicate_correlation) - ROUNDING
    if order_needed(rows, pairs):
        alike |= np.abs(_rank_correlation(ranks, thresholds)) >= thresholds.duplicate_correlation
    alike &= comparable[..., :, None] & comparable[..., None, :] & np.triu(np.ones((units, units), dtype=bool), 1)
    first = alike.argmax(-2)
    return [
        {int(unit): int(first[member, unit]) for unit in np.flatnonzero(alike[member].any(-2))}
        for member in range(len(alike))
    ]


def _rank_correlation(ranks: Tensor, thresholds: Thresholds) -> NDArray[np.float64]:
    """`[member, unit, unit]`; where all but a few rows are tied, as it stands without these."""
    units, rows = ranks.shape[-2:]
    found = pairwise_correlation(ranks.mT).numpy()
    by_chance = rows_by_chance(rows, units * (units - 1) // 2)
    return standing_correlation(ranks.mT.double(), found, thresholds.duplicate_correlation, by_chance)


def _corrected(participation: float, rows: int) -> float:
    if participation != participation:
        return participation
    return float(correct_participation(torch.tensor(participation, dtype=torch.float64), rows))


def _large(
    activations: Tensor, live: NDArray[np.bool_], comparable: NDArray[np.bool_], thresholds: Thresholds
) -> Redundancy:
    found = large_redundancy(activations, live, comparable, thresholds)
    return Redundancy(
        links=found.links,
        copies=found.copies,
        participation=found.participation,
        corrected=_corrected(found.participation, activations.shape[-2]),
        effective_rank=float("nan") if live.any() else 0.0,
        nonlinear=-1,
    )


ROUNDING = 1e-12
