"""Copies among tens of thousands of units in bounded memory: a short sketch of every unit finds the candidates, the
units themselves decide.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.thresholds import Thresholds
from harness.measures.chunks import chunks
from harness.measures.unit_pairs import correlation_needed, order_needed, ranks_of, robust_correlation, rows_by_chance

DIRECTIONS = 256
MARGIN = 0.01
"""Sketched correlations scatter by (1 - r^2) / sqrt(256), .0012 at .99: eight of these below the threshold."""
BLOCK = 512
RANK_PIECE = 1 << 19


@dataclass(frozen=True)
class Copies:
    """Copies among many units.

    Args:
        links: the |correlation| of each copy with the unit it copies, strongest first.
        copies: unit -> the lowest numbered unit that it is a copy of.
        participation: participation ratio of the live units; NaN where there are too few rows to judge it.
    """

    links: NDArray[np.float64]
    copies: dict[int, int]
    participation: float


def large_redundancy(
    activations: Tensor, live: NDArray[np.bool_], comparable: NDArray[np.bool_], thresholds: Thresholds
) -> Copies:
    """Copies among the units of `[sample, unit]`, without the table of all correlations."""
    rows, units = activations.shape
    compared = torch.from_numpy(comparable)
    pairs = units * (units - 1) // 2
    needed = correlation_needed(rows, pairs, thresholds.duplicate_correlation)
    plain, ranked = _sketches(activations, compared, order_needed(rows, pairs))
    copies, strengths = _find(activations, plain, compared, needed, ranks=False)
    links = np.sort(np.array(list(strengths.values())))[::-1]
    if ranked is not None:
        by_rank, _ = _find(activations, ranked, compared, thresholds.duplicate_correlation, ranks=True)
        copies = {unit: min(copies.get(unit, units), by_rank.get(unit, units)) for unit in copies | by_rank}
    return Copies(links, copies, _participation(activations, live, thresholds))


def _sketches(activations: Tensor, compared: Tensor, ranks: bool) -> tuple[Tensor, Tensor | None]:
    """`[unit, direction]`: every compared unit, and its ranks, projected on the same random directions."""
    rows, units = activations.shape
    # a fixed seed: the sketch only proposes, so that nothing reported depends on it
    generator = torch.Generator().manual_seed(0)
    directions = torch.randint(0, 2, (rows, DIRECTIONS), generator=generator).float() * 2 - 1
    directions -= directions.mean(0)
    plain = torch.zeros(units, DIRECTIONS)
    ranked = torch.zeros(units, DIRECTIONS) if ranks else None
    for piece in chunks((rows, units), RANK_PIECE):
        block = directed(activations[:, piece].T, compared[piece])
        plain[piece] = block @ directions
        if ranked is not None:
            ranked[piece] = directed(ranks_of(activations[:, piece].T), compared[piece]) @ directions
    return _unit_length(plain), None if ranked is None else _unit_length(ranked)


def directed(values: Tensor, compared: Tensor) -> Tensor:
    """`[unit, sample]` in float32 with mean 0 and length 1; 0 for the units that are not compared."""
    values = torch.where(compared[:, None], values, 0).double()
    values = values - values.mean(-1, keepdim=True)
    values = values / values.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (values / values.norm(dim=-1, keepdim=True).clamp_min(1e-300)).float()


def _unit_length(sketch: Tensor) -> Tensor:
    return sketch / sketch.norm(dim=-1, keepdim=True).clamp_min(1e-30)


def _find(
    activations: Tensor, sketch: Tensor, compared: Tensor, needed: float, ranks: bool
) -> tuple[dict[int, int], dict[int, float]]:
    """For each unit the first earlier one whose sketch and then whose values agree."""
    copies: dict[int, int] = {}
    strengths: dict[int, float] = {}
    for start in range(0, len(sketch), BLOCK):
        stop = min(start + BLOCK, len(sketch))
        alike = (sketch[start:stop] @ sketch[:stop].T).abs_()
        alike = alike.tril_(diagonal=start - 1)
        for partner in _candidates(alike, needed - MARGIN):
            units = (partner >= 0).nonzero()[:, 0]
            units = units[[int(start + unit) not in copies for unit in units]]
            exact = _exact(activations, units + start, partner[units], compared, ranks)
            for unit, other, value in zip(
                (units + start).tolist(), partner[units].tolist(), exact.tolist(), strict=True
            ):
                if value >= needed - 1e-6:
                    copies[unit], strengths[unit] = other, min(value, 1.0)
    return copies, strengths


def _candidates(alike: Tensor, threshold: float) -> list[Tensor]:
    """The first unit above the threshold, then the most alike one; -1 where there is none."""
    close = alike >= threshold
    some = close.any(-1)
    best = alike.max(-1)
    return [torch.where(some, close.byte().argmax(-1), -1), torch.where(best.values >= threshold, best.indices, -1)]


def _exact(activations: Tensor, units: Tensor, partners: Tensor, compared: Tensor, ranks: bool) -> Tensor:
    if not len(units):
        return torch.zeros(0)
    left, right = activations[:, units].T, activations[:, partners].T
    if ranks:
        left, right = ranks_of(left), ranks_of(right)
    few = rows_by_chance(len(activations), len(compared) * (len(compared) - 1) // 2)
    return robust_correlation(
        directed(left, compared[units]).double(), directed(right, compared[partners]).double(), few
    )


def _participation(activations: Tensor, live: NDArray[np.bool_], thresholds: Thresholds) -> float:
    """(number of live units)^2 / sum of all squared correlations, block by block."""
    count, rows = int(live.sum()), len(activations)
    if count == 0:
        return 0.0
    if rows < thresholds.dimensional_rows * count:
        return float("nan")
    alive = torch.from_numpy(np.flatnonzero(live))
    blocks = [alive[start : start + BLOCK] for start in range(0, count, BLOCK)]
    directions = torch.cat(
        [directed(activations[:, block].T, torch.ones(len(block), dtype=torch.bool)) for block in blocks]
    )
    squares = sum(
        float((directions[start : start + BLOCK] @ directions.T).square().double().sum())
        for start in range(0, count, BLOCK)
    )
    return count**2 / squares
