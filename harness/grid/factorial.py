"""The factorial design: cells, axes and variants.

A partial cell maps some of the factors to a level or to a list of levels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from harness.factors import Level

Cell = dict[str, Level]
PartialCell = Mapping[str, Level | Sequence[Level]]
Axis = tuple[tuple[str, ...], tuple[tuple[Level, ...], ...]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One level of each factor, in the order of the experiment's factors."""

    name: str
    levels: Mapping[str, Level]


@dataclass(frozen=True, slots=True)
class Member:
    """A variant with a seed, on one split of the rows: one model to train."""

    variant: Variant
    seed: int
    split: int = 0


def full_factorial(axes: Sequence[Axis], order: Sequence[str]) -> Iterator[Cell]:
    """Yield every combination of the axes; an axis is a factor, or several zipped factors.

    >>> list(full_factorial([(("a",), ((1,), (2,))), (("b", "c"), ((3, 4),))], ["a", "b", "c"]))
    [{'a': 1, 'b': 3, 'c': 4}, {'a': 2, 'b': 3, 'c': 4}]
    """
    names = [name for axis, _ in axes for name in axis]
    for rows in product(*(rows for _, rows in axes)):
        cell = dict(zip(names, (level for row in rows for level in row), strict=True))
        yield {name: cell[name] for name in order}


def size(axes: Sequence[Axis]) -> int:
    """Number of cells of the full factorial, without building them."""
    return prod(len(rows) for _, rows in axes)


def axes_of(factors: Mapping[str, Sequence[Level]], zipped: Sequence[Mapping[str, Any]]) -> list[Axis]:
    """Return an axis for each set of zipped factors, at the position of its first factor, and for each remaining factor.

    >>> axes_of({"a": [1, 2], "b": [3, 4], "c": [5]}, [{"a": 1, "b": 4}])
    [(('a', 'b'), ((1, 4),)), (('c',), ((5,),))]
    """
    rows: dict[tuple[str, ...], list[tuple[Level, ...]]] = {}
    for partial in zipped:
        names = tuple(name for name in factors if name in partial)
        rows.setdefault(names, []).extend(_together(partial, names))
    home = {name: names for names in rows for name in names}
    axes: dict[tuple[str, ...], tuple[tuple[Level, ...], ...]] = {}
    for name, levels in factors.items():
        names = home.get(name, (name,))
        axes[names] = tuple(dict.fromkeys(rows[names])) if name in home else tuple((level,) for level in levels)
    return list(axes.items())


def expand_variants(partial: PartialCell) -> Iterator[Cell]:
    """Yield the cells that a partial cell with lists of levels stands for.

    >>> list(expand_variants({"a": [1, 2], "b": 3}))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    for row in product(*(as_list(value) for value in partial.values())):
        yield dict(zip(partial, row, strict=True))


def matches(cell: Mapping[str, Level], partial: PartialCell) -> bool:
    """Return True if the cell has one of the partial cell's levels in each of the partial cell's factors.

    >>> matches({"a": 1, "b": 2}, {"a": [1, 3]})
    True
    """
    return all(cell[name] in as_list(value) for name, value in partial.items())


def changes(levels: Mapping[str, Level], baseline: Mapping[str, Level]) -> Cell:
    """Return the levels that differ from the baseline; a factor without a baseline level counts as unchanged.

    >>> changes({"activation": "relu", "batchnorm": "on"}, {"activation": "relu", "batchnorm": "off"})
    {'batchnorm': 'on'}
    """
    return {name: level for name, level in levels.items() if level != baseline.get(name, level)}


def as_list(value: Level | Sequence[Level]) -> Sequence[Level]:
    """Wrap a single level in a tuple; return a list of levels as it is."""
    return value if isinstance(value, list | tuple) else (value,)


def _together(partial: Mapping[str, Any], names: Sequence[str]) -> list[tuple[Level, ...]]:
    columns = [as_list(partial[name]) for name in names]
    length = max(len(column) for column in columns)
    return list(zip(*(column if len(column) == length else [column[0]] * length for column in columns), strict=True))
