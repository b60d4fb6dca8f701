"""Candidates for copies among hundreds of thousands of units, without comparing every pair.

Units whose sketches point in nearly the same direction, or in opposite ones, lie on the same side of most random planes.
Units on the same side of some twenty planes are compared; several sets of planes leave hardly a copy out.
"""

import math

import torch
from torch import Tensor

WIDE = 1 << 16
"""Units above which not every pair is compared: the time of that grows with their square."""
TABLES = 24
"""Sets of planes. Two units that correlate by 0.99 share a set of 23 planes with probability 0.35, none with 4e-5."""
MORE_PLANES = 3  # than the binary logarithm of the number of units
NEIGHBORS = 32  # units of a cell that each is compared with, besides the first one
PAIRS = 1 << 16  # compared at a time


def candidates(sketch: Tensor, threshold: float) -> list[Tensor]:
    """For each unit the first earlier unit that is alike, and the most alike one; -1 where there is none.

    Args:
        sketch: `[unit, direction]`, each of length 1, or 0 for a unit that is not compared.
        threshold: least |cosine| of units that are alike.

    >>> sketch = torch.eye(3)[[0, 1, 0, 2]]
    >>> [partners.tolist() for partners in candidates(sketch, 0.9)]
    [[-1, -1, 0, -1], [-1, -1, 0, -1]]
    """
    units, directions = sketch.shape
    compared = (sketch.abs().amax(-1) > 0).nonzero()[:, 0]
    first, best, strength = torch.full((units,), units), torch.full((units,), -1), torch.zeros(units)
    planes_each = math.ceil(math.log2(max(2, len(compared)))) + MORE_PLANES
    generator = torch.Generator().manual_seed(0)  # a fixed seed: the sketch only proposes
    for _ in range(TABLES):
        planes = torch.randn(directions, planes_each, generator=generator)
        for earlier, later in _neighbors(compared, _cells(sketch, compared, planes)):
            for start in range(0, len(later), PAIRS):
                before, unit = earlier[start : start + PAIRS], later[start : start + PAIRS]
                alike = (sketch[before] * sketch[unit]).sum(-1).abs()
                close = alike >= threshold
                before, unit, alike = before[close], unit[close], alike[close]  # no unit is there twice
                first[unit] = torch.minimum(first[unit], before)
                better = alike > strength[unit]
                best[unit[better]], strength[unit[better]] = before[better], alike[better]
    return [torch.where(first < units, first, -1), best]


def _cells(sketch: Tensor, compared: Tensor, planes: Tensor) -> Tensor:
    """Number of the cell of each compared unit; a unit and its negative have the same."""
    cells = []
    for part in compared.split(PAIRS):
        sides = sketch[part] @ planes > 0
        sides ^= ~sides[:, :1]
        cells.append((sides.long() << torch.arange(planes.shape[1])).sum(-1))
    return torch.cat(cells) if cells else torch.zeros(0, dtype=torch.long)


def _neighbors(compared: Tensor, cells: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs of an earlier and a later unit of one cell: each with the first one of the cell, and with those before it."""
    order = cells.argsort(stable=True)
    cells, units = cells[order], compared[order]
    starts = torch.ones_like(cells, dtype=torch.bool)
    starts[1:] = cells[1:] != cells[:-1]
    first = torch.where(starts, torch.arange(len(cells)), 0).cummax(0).values if len(cells) else starts.long()
    pairs = [(units[first[~starts]], units[~starts])]
    for distance in range(1, NEIGHBORS + 1):
        same = (cells[distance:] == cells[:-distance]).nonzero()[:, 0]
        if not len(same):
            break
        pairs.append((units[same], units[same + distance]))
    return pairs
