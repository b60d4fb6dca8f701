"""Matched blocks: sets of variants that differ in the compared factors and in nothing else.

A block is a weighted sum over variants. A level against the baseline has weights +1, -1, an interaction +1, -1, -1, +1.
A contrast of partial cells is the mean of one side minus the mean of the other. Incomplete grids yield their complete
blocks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Levels = Mapping[str, Any]


@dataclass(frozen=True)
class MatchedBlock:
    """A weighted sum over variants: indices of variants and their weights, which add up to 0."""

    variants: tuple[int, ...]
    weights: tuple[float, ...]


def level_blocks(variants: Sequence[Levels], factor: str, level: Any, baseline: Any) -> list[MatchedBlock]:
    """Pairs of variants that differ in this factor only.

    >>> grid = [{"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 1, "b": 1}]
    >>> level_blocks(grid, "a", 1, 0)
    [MatchedBlock(variants=(1, 0), weights=(1.0, -1.0))]
    """
    there, base = _by_rest(variants, {factor: level}), _by_rest(variants, {factor: baseline})
    return [MatchedBlock((there[rest][0], base[rest][0]), (1.0, -1.0)) for rest in there if rest in base]


def interaction_blocks(
    variants: Sequence[Levels], factors: tuple[str, str], levels: tuple[Any, Any], baselines: tuple[Any, Any]
) -> list[MatchedBlock]:
    """Squares of variants over two levels of two factors, equal in all other factors: differences of differences."""
    (first, second), (a, b), (a0, b0) = factors, levels, baselines
    corners = [_by_rest(variants, {first: x, second: y}) for x, y in ((a, b), (a0, b), (a, b0), (a0, b0))]
    shared = [rest for rest in corners[0] if all(rest in corner for corner in corners)]
    return [MatchedBlock(tuple(corner[rest][0] for corner in corners), (1.0, -1.0, -1.0, 1.0)) for rest in shared]


def contrast_blocks(variants: Sequence[Levels], first: Levels, second: Levels) -> list[MatchedBlock]:
    """Variants of the first partial cell minus those of the second, matched in every factor that neither names.

    A side that does not name a factor of the other side is averaged over the levels of that factor.

    >>> contrast_blocks([{"a": 0, "b": 5}, {"a": 1, "b": 5}, {"a": 2, "b": 5}], {"a": [1, 2]}, {"a": 0})
    [MatchedBlock(variants=(1, 2, 0), weights=(0.5, 0.5, -1.0))]
    """
    factors = {*first, *second}
    positive, negative = _by_rest(variants, first, factors), _by_rest(variants, second, factors)
    return [_difference(positive[rest], negative[rest]) for rest in positive if rest in negative]


def block_differences(blocks: Sequence[MatchedBlock], values: Array) -> Array:
    """Weighted sums of the blocks per seed: `[variant, seed]` -> `[block, seed]`, NaN where a member is missing."""
    rows = [np.asarray(block.weights) @ values[list(block.variants)] for block in blocks]
    return np.stack(rows) if rows else np.empty((0, values.shape[1]))


def seed_means(differences: Array) -> Array:
    """Mean of each seed over its complete blocks: `[block, seed]` -> `[seed]`, NaN where a seed has none.

    >>> seed_means(np.array([[1.0, np.nan], [0.0, np.nan]]))
    array([0.5, nan])
    """
    finite = np.isfinite(differences)
    counts = finite.sum(axis=0)
    totals = np.where(finite, differences, 0.0).sum(axis=0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def worst_cases(blocks: Sequence[MatchedBlock], values: Array, missing: NDArray[np.bool_]) -> tuple[float, float]:
    """Least and largest estimate over all outcomes in [0, 1] that the missing members could have had.

    Args:
        values: `[variant, seed]`. missing: members that ran and have no outcome; other NaN members did not run.
    """
    ends = []
    for side in (-1.0, 1.0):
        rows = [_filled(block, values, missing, side) for block in blocks]
        means = seed_means(np.stack(rows)) if rows else np.empty(0)
        finite = means[np.isfinite(means)]
        ends.append(float(finite.mean()) if finite.size else np.nan)
    return ends[0], ends[1]


def _filled(block: MatchedBlock, values: Array, missing: NDArray[np.bool_], side: float) -> Array:
    chosen, weights = list(block.variants), np.asarray(block.weights)
    extreme = (side * weights > 0).astype(float)[:, None]
    return np.asarray(weights @ np.where(missing[chosen], extreme, values[chosen]))


def _by_rest(
    variants: Sequence[Levels], partial: Levels, excluded: Iterable[str] | None = None
) -> dict[Any, list[int]]:
    """Group the variants of a partial cell by their levels in the remaining factors."""
    ignored = set(partial if excluded is None else excluded)
    groups: dict[Any, list[int]] = {}
    for index, levels in enumerate(variants):
        if all(name in levels and levels[name] in _as_list(value) for name, value in partial.items()):
            rest = frozenset((name, level) for name, level in levels.items() if name not in ignored)
            groups.setdefault(rest, []).append(index)
    return groups


def _difference(positive: list[int], negative: list[int]) -> MatchedBlock:
    return MatchedBlock(
        (*positive, *negative), (*[1 / len(positive)] * len(positive), *[-1 / len(negative)] * len(negative))
    )


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)
