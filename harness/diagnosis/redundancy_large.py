"""Copies among tens of thousands of units in bounded memory.

A short sketch of every unit proposes the candidates; the units themselves decide.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.copy_search import WIDE, candidates
from harness.diagnosis.thresholds import Thresholds
from harness.measures.cell_ranks import cell_ranks
from harness.measures.chunks import chunks
from harness.measures.ranks import average_ranks
from harness.measures.unit_pairs import correlation_needed, order_needed, robust_correlation, rows_by_chance

DIRECTIONS = 256
MARGIN = 0.01
"""Sketched correlations scatter by (1 - r^2) / sqrt(256), 0.0012 at 0.99: eight of these below the threshold."""
BLOCK = 512
RANK_PIECE = 1 << 19
MOST_RANKED = 4096
"""Live units whose correlation matrix is decomposed; the time grows with their cube."""


@dataclass(frozen=True)
class Copies:
    """Copies among many units.

    Args:
        links: the |correlation|, of values or of ranks, of each copy with the unit it copies, strongest first.
        copies: unit -> the lowest numbered unit that it is a copy of.
        rank: number of dimensions that the live units span; NaN where there are too few rows or too many units.
        participation: participation ratio of the live units; NaN where there are too few rows to judge it.
    """

    links: NDArray[np.float64]
    copies: dict[int, int]
    rank: float
    participation: float


@dataclass(frozen=True)
class ComparedUnits:
    """Units to compare.

    Args:
        activations: `[sample, unit]`. chosen: `[unit]`, True for units that are compared.
        resolution: `[unit]`, the step at which values are ranked. few_rows: see `Thresholds`.
    """

    activations: Tensor
    chosen: Tensor
    resolution: Tensor
    few_rows: int

    def values(self, units: Tensor | slice) -> Tensor:
        """`[unit, sample]` of some units, with mean 0 and length 1."""
        return directed(self.activations[:, units].T, self.chosen[units])

    def ranks(self, units: Tensor | slice) -> Tensor:
        """Ranks of some units at their resolution, `[unit, sample]`, with mean 0 and length 1."""
        ranks = ranks_at_resolution(self.activations[:, units].T, self.resolution[units], self.few_rows)
        return directed(ranks, self.chosen[units])


def ranks_at_resolution(values: Tensor, resolution: Tensor, few_rows: int) -> Tensor:
    """Average ranks of the cells `floor(value / D + 1/2)` of `[*member, unit, sample]`; D is `[*member, unit]`.

    Values closer than the resolution are ties. A unit with fewer than `few_rows` rows outside its most frequent cell gets
    equal ranks: its order rests on too few rows.

    >>> ranks = ranks_at_resolution(torch.tensor([[0.1, 0.2, 1.0, 3.0]]), torch.ones(1), 1)
    >>> (ranks - ranks.amin()).tolist()
    [[0.0, 0.0, 1.5, 2.5]]
    """
    step = resolution[..., None]
    cells = torch.where(
        step > 0, torch.floor(values.double() / torch.where(step > 0, step, 1.0) + 0.5), values.double()
    )
    cells = torch.nan_to_num(cells, nan=0.0)
    counted = cell_ranks(cells, few_rows) if bool((resolution > 0).all()) else None
    if counted is not None:  # the usual case, several times faster
        return counted
    varied = (cells != cells.mode(-1, keepdim=True).values).sum(-1, keepdim=True) >= few_rows
    return average_ranks(torch.where(varied, cells, 0.0))


def large_redundancy(
    activations: Tensor,
    live: NDArray[np.bool_],
    comparable: NDArray[np.bool_],
    resolution: NDArray[np.float64],
    thresholds: Thresholds,
) -> Copies:
    """Copies among the units of `[sample, unit]`, without the table of all correlations."""
    rows, units = activations.shape
    compared = ComparedUnits(
        activations, torch.from_numpy(comparable), torch.from_numpy(np.array(resolution)), thresholds.few_rows
    )
    pairs = units * (units - 1) // 2
    needed = correlation_needed(rows, pairs, thresholds.duplicate_correlation)
    plain, ranked = _sketches(compared, order_needed(rows, pairs))
    copies, strengths = _find(compared, plain, needed, ranks=False)
    if ranked is not None:
        by_rank, by_rank_strengths = _find(compared, ranked, thresholds.duplicate_correlation, ranks=True)
        copies = {unit: min(copies.get(unit, units), by_rank.get(unit, units)) for unit in copies | by_rank}
        strengths = {
            unit: max(strengths.get(unit, 0.0), by_rank_strengths.get(unit, 0.0))
            for unit in strengths | by_rank_strengths
        }
    links = np.sort(np.array(list(strengths.values())))[::-1]
    return Copies(links, copies, *_dimensions(activations, live, thresholds))


def _sketches(compared: ComparedUnits, ranks: bool) -> tuple[Tensor, Tensor | None]:
    """`[unit, direction]`: every compared unit, and its ranks, projected on the same random directions."""
    rows, units = compared.activations.shape
    # a fixed seed: the sketch only proposes, so that nothing reported depends on it
    generator = torch.Generator().manual_seed(0)
    directions = torch.randint(0, 2, (rows, DIRECTIONS), generator=generator).float() * 2 - 1
    directions -= directions.mean(0)
    plain = torch.zeros(units, DIRECTIONS)
    ranked = torch.zeros(units, DIRECTIONS) if ranks else None
    for units_slice in chunks((rows, units), RANK_PIECE):
        plain[units_slice] = compared.values(units_slice) @ directions
        if ranked is not None:
            ranked[units_slice] = compared.ranks(units_slice) @ directions
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
    compared: ComparedUnits, sketch: Tensor, needed: float, ranks: bool
) -> tuple[dict[int, int], dict[int, float]]:
    """For each unit the first earlier one whose sketch and then whose values agree."""
    copies: dict[int, int] = {}
    strengths: dict[int, float] = {}
    proposed = candidates(sketch, needed - MARGIN) if len(sketch) > WIDE else None
    for start in range(0, len(sketch), BLOCK):
        stop = min(start + BLOCK, len(sketch))
        if proposed is None:
            if not bool(sketch[start:stop].any()):  # units that are not compared, all of them in a table of constants
                continue
            alike = (sketch[start:stop] @ sketch[:stop].T).abs_().tril_(diagonal=start - 1)
            partners = _candidates(alike, needed - MARGIN)
        else:
            partners = [partner[start:stop] for partner in proposed]
        for partner in partners:
            units = (partner >= 0).nonzero()[:, 0]
            units = units[[int(start + unit) not in copies for unit in units]]
            exact = _exact(compared, units + start, partner[units], ranks)
            for unit, original, value in zip(
                (units + start).tolist(), partner[units].tolist(), exact.tolist(), strict=True
            ):
                if value >= needed - 1e-6:
                    copies[unit], strengths[unit] = original, min(value, 1.0)
    return copies, strengths


def _candidates(alike: Tensor, threshold: float) -> list[Tensor]:
    """The first unit above the threshold, then the most alike one; -1 where there is none."""
    close = alike >= threshold
    best = alike.max(-1)
    first = torch.where(close.any(-1), close.byte().argmax(-1), -1)
    return [first, torch.where(best.values >= threshold, best.indices, -1)]


def _exact(compared: ComparedUnits, units: Tensor, partners: Tensor, ranks: bool) -> Tensor:
    if not len(units):
        return torch.zeros(0)
    lines = compared.ranks if ranks else compared.values
    rows, width = compared.activations.shape
    left_out = rows_by_chance(rows, width * (width - 1) // 2)
    return robust_correlation(lines(units).double(), lines(partners).double(), left_out)


def _dimensions(activations: Tensor, live: NDArray[np.bool_], thresholds: Thresholds) -> tuple[float, float]:
    """Rank and participation ratio of the live units, with the correlations taken block by block."""
    count, rows = int(live.sum()), len(activations)
    if count == 0:
        return 0.0, 0.0
    if rows < thresholds.dimensional_rows * count:
        return float("nan"), float("nan")
    alive = torch.from_numpy(np.flatnonzero(live))
    blocks = [alive[start : start + BLOCK] for start in range(0, count, BLOCK)]
    directions = torch.cat(
        [directed(activations[:, block].T, torch.ones(len(block), dtype=torch.bool)) for block in blocks]
    )
    correlations = torch.empty(count, count) if count <= MOST_RANKED else None
    squares = 0.0
    for start in range(0, count, BLOCK):
        block = directions[start : start + BLOCK] @ directions.T
        squares += float(block.square().double().sum())
        if correlations is not None:
            correlations[start : start + BLOCK] = block
    rank = float("nan")
    if correlations is not None:
        power = torch.linalg.eigvalsh(correlations.double())
        rank = float((power > thresholds.rank_tolerance * power[-1]).sum())
    return rank, count**2 / squares
