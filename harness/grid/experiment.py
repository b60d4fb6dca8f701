"""The definition of an experiment: case, factors or remedies, seeds, and pre-registered comparisons.

A frozen value that is checked once, when it is loaded: it neither parses, nor logs, nor creates folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from harness.errors import HarnessError
from harness.factors import Level
from harness.grid.case_facts import case_file
from harness.grid.factorial import (
    Axis,
    Cell,
    Member,
    Variant,
    as_list,
    axes_of,
    expand_variants,
    full_factorial,
    matches,
    size,
)
from harness.grid.names import variant_name

LARGEST = 1_000_000  # members
UNWRITTEN: dict[str, Any] = {
    "remedies": (),
    "keep_weights": "shown",
    "splits": 1,
}  # of a resolved experiment, where they have these values


@dataclass(frozen=True)
class Experiment:
    """Content of an experiment file, with defaults filled in: a tuple of seeds, and a baseline with a level of every factor.

    Args:
        name: used in results, reports and MLflow.
        case: a shipped case, or the path of a .py file relative to the experiment file.
        factors: levels of each factor; the factorial crosses them all.
        seeds: every variant is trained with every seed.
        splits: number of splits of the rows into training and held-out rows; every seed is trained on each.
        data: name of another data set for the case's model, or a file relative to the experiment file.
        baseline: the cell that every effect is measured against.
        interactions: pairs of factors whose interaction is pre-registered.
        contrasts: pairs of partial cells whose comparison is pre-registered.
        train: training numbers that override the case's own.
        exclude: partial cells that are not run.
        include: partial cells that are added; the baseline supplies the levels of the other factors.
        keep_weights: members whose trained weights are kept beside the results: "shown" (the baseline's worst member
            and the best one of every other variant), "all" or "none".
        remedies: the cells of a design of one remedy at a time; empty for a factorial. `factors` has the baseline's
            levels then, and `include` the remedies.
        zip: partial cells whose factors move together instead of being crossed.
        path: the file from which it was read.
    """

    name: str
    case: str
    factors: dict[str, tuple[Level, ...]]
    seeds: tuple[int, ...]
    data: str | None = None
    baseline: dict[str, Level] = field(default_factory=dict)
    interactions: tuple[tuple[str, str], ...] = ()
    contrasts: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    train: dict[str, Any] = field(default_factory=dict)
    exclude: tuple[dict[str, Any], ...] = ()
    include: tuple[dict[str, Any], ...] = ()
    zip: tuple[dict[str, Any], ...] = ()
    remedies: tuple[dict[str, Any], ...] = ()
    keep_weights: str = "shown"
    splits: int = 1
    path: Path | None = None

    def __post_init__(self) -> None:
        """Turn lists into tuples and fill in the baseline, so that an experiment built in Python has both."""
        types = {"name": str, "case": str, "factors": Mapping, "baseline": Mapping, "train": Mapping, "splits": int}
        for name, expected in types.items():
            if not isinstance(value := getattr(self, name), expected):
                raise HarnessError(f"{name}: expected {expected.__name__}, got {value!r}")
        if not (isinstance(self.seeds, Sequence) and set(map(type, self.seeds)) <= {int}):
            raise HarnessError(f"seeds: expected whole numbers, got {self.seeds!r}")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for name in ("interactions", "contrasts", "exclude", "include", "zip", "remedies"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        object.__setattr__(self, "factors", {name: _frozen(levels) for name, levels in self.factors.items()})
        object.__setattr__(self, "path", None if self.path is None else Path(self.path))
        first = {name: levels[0] for name, levels in self.factors.items()}
        object.__setattr__(self, "baseline", {**first, **self.baseline})

    @property
    def folder(self) -> Path:
        """Folder that relative paths in the file refer to."""
        return self.path.parent if self.path is not None else Path()

    @property
    def case_reference(self) -> str:
        """Argument for `load_case`: the name of a shipped case, or an absolute path."""
        return str(case_file(self.case, self.folder)) if self.case.endswith(".py") else self.case

    @property
    def data_reference(self) -> str | None:
        """Argument for `split_of`: None, the name of a data set, or an absolute path (with `:name` of an array)."""
        if self.data is None or "." not in self.data:
            return self.data
        return str((self.folder / self.data).resolve())

    @property
    def axes(self) -> list[Axis]:
        """Axes of the factorial: single factors, and sets of zipped factors."""
        return axes_of(self.factors, self.zip)

    @cached_property
    def _variants(self) -> list[Variant]:
        return [Variant(variant_name(cell, self.baseline), cell) for cell in self._cells()]

    def variants(self) -> list[Variant]:
        """Return all variants: the full factorial in the order of the factors, then the included cells."""
        return self._variants

    def members(self) -> list[Member]:
        """Return every variant with every split and every seed; the seed varies fastest."""
        return [
            Member(variant, seed, split)
            for variant in self.variants()
            for split in range(self.splits)
            for seed in self.seeds
        ]

    @property
    def blocks(self) -> int:
        """Number of pairs of a seed and a split, in which variants are compared."""
        return len(self.seeds) * self.splits

    def crossed(self) -> int:
        """Count the cells of the full factorial before `exclude` and `include`, without building them."""
        return size(self.axes)

    def levels(self, factor: str) -> tuple[Level, ...]:
        """Return the factor's declared levels, then the levels that occur only in `include`."""
        included = [level for cell in self.include for level in as_list(cell.get(factor, ()))]
        return tuple(dict.fromkeys([*self.factors[factor], *included]))

    def resolved(self) -> dict[str, Any]:
        """Return the experiment as plain JSON values, without the path of its file."""
        unset = {name for name, default in UNWRITTEN.items() if getattr(self, name) == default}
        return {name: value for name, value in self.to_dict().items() if name not in {"path", *unset}}

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as plain JSON values; `Experiment(**values)` is equal to this one."""
        return {attribute.name: _plain(getattr(self, attribute.name)) for attribute in fields(self)}

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with other values of the named attributes."""
        return replace(self, **changes)

    def _cells(self) -> list[Cell]:
        order = list(self.factors)
        crossed = (cell for cell in full_factorial(self.axes, order) if not self._excluded(cell))
        included = (
            complete(cell, self.baseline, order) for partial in self.include for cell in expand_variants(partial)
        )
        cells = {tuple(cell.values()): cell for source in (crossed, included) for cell in source}
        return list(cells.values())

    def _excluded(self, cell: Cell) -> bool:
        return any(matches(cell, partial) for partial in self.exclude)


def _frozen(value: Any) -> Any:
    """The value with tuples in place of lists; mappings stay as they are."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def complete(partial: Mapping[str, Level], baseline: Mapping[str, Level], order: list[str]) -> Cell:
    """Fill a partial cell with the baseline's levels.

    >>> complete({"b": 2}, {"a": 1, "b": 1}, ["a", "b"])
    {'a': 1, 'b': 2}
    """
    return {name: partial.get(name, baseline[name]) for name in order}
