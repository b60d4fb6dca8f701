"""Which variants are compared with which: blocks of variants that differ in what is asked, and in nothing else.

A block is a weighted sum over variants. A level against the baseline: +1, -1. An interaction: +1, -1, -1, +1. A
contrast of partial cells: the mean of one side less the mean of the other. Grids with holes give the blocks that are
complete.
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
    """A weighted sum over variants: their indices, and a weight for each; the weights add up to 0."""

    variants: tuple[int, ...]
    weights: tuple[float, ...]


def level_blocks(variants: Sequence[Levels], factor: str, level: Any, baseline: Any) -> list[MatchedBlock]:
    """The pairs of variants that differ in this factor only.

    >>> grid = [{"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 1, "b": 1}]
    >>> level_blocks(grid, "a", 1, 0)
    [MatchedBlock(variants=(1, 0), weights=(1.0, -1.0))]
    """
    there, base = _by_rest(variants, {factor: level}), _by_rest(variants, {factor: baseline})
    return [MatchedBlock((there[rest][0], base[rest][0]), (1.0, -1.0)) for rest in there if rest in base]


def interaction_blocks(
    variants: Sequence[Levels], factors: tuple[str, str], levels: tuple[Any, Any], baselines: tuple[Any, Any]
) -> list[MatchedBlock]:
    """The squares of variants over two levels of two factors, equal in everything else: differences of differences."""
    (one, two), (a, b), (a0, b0) = factors, levels, baselines
    corners = [_by_rest(variants, {one: x, two: y}) for x, y in ((a, b), (a0, b), (a, b0), (a0, b0))]
    shared = [rest for rest in corners[0] if all(rest in corner for corner in corners)]
    return [MatchedBlock(tuple(corner[rest][0] for corner in corners), (1.0, -1.0, -1.0, 1.0)) for rest in shared]


def contrast_blocks(variants: Sequence[Levels], first: Levels, second: Levels) -> list[MatchedBlock]:
    """Variants of the one partial cell less those of the other, matched in every factor that neither names.

    A side that leaves open a factor which the other names is the mean over that factor's levels.

    >>> contrast_blocks([{"a": 0, "b": 5}, {"a": 1, "b": 5}, {"a": 2, "b": 5}], {"a": [1, 2]}, {"a": 0})
    [MatchedBlock(variants=(1, 2, 0), weights=(0.5, 0.5, -1.0))]
    """
    named = {*first, *second}
    left, right = _by_rest(variants, first, named), _by_rest(variants, second, named)
    return [_difference(left[rest], right[rest]) for rest in left if rest in right]


def block_differences(blocks: Sequence[MatchedBlock], values: Array) -> Array:
    """The blocks' weighted sums for every seed: `[variant, seed]` -> `[block, seed]`, NaN where a member is missing."""
    rows = [np.asarray(block.weights) @ values[list(block.variants)] for block in blocks]
    return np.stack(rows) if rows else np.empty((0, values.shape[1]))


def seed_means(differences: Array) -> Array:
    """Per seed the mean over its complete blocks: `[block, seed]` -> `[seed]`, NaN where a seed has none.

    >>> seed_means(np.array([[1.0, np.nan], [0.0, np.nan]]))
    array([0.5, nan])
    """
    known = np.isfinite(differences)
    counts = known.sum(axis=0)
    totals = np.where(known, differences, 0.0).sum(axis=0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def worst_cases(blocks: Sequence[MatchedBlock], values: Array, missing: NDArray[np.bool_]) -> tuple[float, float]:
    """Least and largest estimate if every missing member had the outcome, in [0, 1], that moves it farthest.

    Args:
        values: `[variant, seed]`. missing: which members were tried and left no outcome; others with NaN were not run.
    """
    ends = []
    for side in (-1.0, 1.0):
        rows = [_filled(block, values, missing, side) for block in blocks]
        means = seed_means(np.stack(rows)) if rows else np.empty(0)
        known = means[np.isfinite(means)]
        ends.append(float(known.mean()) if known.size else np.nan)
    return ends[0], ends[1]


def _filled(block: MatchedBlock, values: Array, missing: NDArray[np.bool_], side: float) -> Array:
    chosen, weights = list(block.variants), np.asarray(block.weights)
    extreme = (side * weights > 0).astype(float)[:, None]
    return np.asarray(weights @ np.where(missing[chosen], extreme, values[chosen]))


def _by_rest(variants: Sequence[Levels], partial: Levels, named: Iterable[str] | None = None) -> dict[Any, list[int]]:
    """The variants of a partial cell, by their levels in the factors that are not named."""
    left_out = set(partial if named is None else named)
    found: dict[Any, list[int]] = {}
    for place, levels in enumerate(variants):
        if all(name in levels and levels[name] in _as_list(value) for name, value in partial.items()):
            rest = frozenset((name, level) for name, level in levels.items() if name not in left_out)
            found.setdefault(rest, []).append(place)
    return found


def _difference(left: list[int], right: list[int]) -> MatchedBlock:
    return MatchedBlock((*left, *right), (*[1 / len(left)] * len(left), *[-1 / len(right)] * len(right)))


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)
