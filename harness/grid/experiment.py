"""An experiment: which case, which factors, how many seeds, and what was declared before it ran.

A value, checked once at the border: it neither parses, nor logs, nor creates folders.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

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


class Experiment(BaseModel):
    """What the file says, completed: seeds as a tuple, the baseline with one level of every factor.

    Args:
        name: what it is called in results, reports and MLflow.
        case: a shipped case, or the path of a .py file relative to the experiment file.
        factors: levels of each factor; the factorial crosses them all.
        seeds: of the members, each variant with each seed.
        data: the case's network on other data: a name, or a file relative to the experiment file.
        baseline: the cell that every effect is measured against.
        interactions: pairs of factors whose interaction was declared beforehand.
        contrasts: pairs of partial cells that are compared, declared beforehand.
        train: training numbers that win over the case's own.
        exclude: partial cells that are left out.
        include: partial cells that are added, completed with the baseline.
        zip: partial cells whose factors move together instead of being crossed.
        path: the file that it was read from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    case: str
    factors: dict[str, tuple[Level, ...]]
    seeds: tuple[int, ...]
    data: str | None = None
    baseline: dict[str, Level] = Field(default_factory=dict)
    interactions: tuple[tuple[str, str], ...] = ()
    contrasts: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    train: dict[str, Any] = Field(default_factory=dict)
    exclude: tuple[dict[str, Any], ...] = ()
    include: tuple[dict[str, Any], ...] = ()
    zip: tuple[dict[str, Any], ...] = ()
    path: Path | None = None

    def model_post_init(self, context: Any) -> None:
        """Completes the baseline, so that an experiment made in Python has one too."""
        first = {name: levels[0] for name, levels in self.factors.items()}
        object.__setattr__(self, "baseline", {**first, **self.baseline})

    @property
    def folder(self) -> Path:
        """Where the paths in the file start from."""
        return self.path.parent if self.path is not None else Path()

    @property
    def case_reference(self) -> str:
        """What `load_case` takes: the name of a shipped case, or an absolute path."""
        return str(case_file(self.case, self.folder)) if self.case.endswith(".py") else self.case

    @property
    def data_reference(self) -> str | None:
        """What `split_of` takes: None, the name of a data set, or an absolute path (`:name` of an array kept)."""
        if self.data is None or "." not in self.data:
            return self.data
        return str((self.folder / self.data).resolve())

    @property
    def axes(self) -> list[Axis]:
        """What is crossed: single factors, and sets of zipped ones."""
        return axes_of(self.factors, self.zip)

    @cached_property
    def _variants(self) -> list[Variant]:
        return [Variant(variant_name(cell, self.baseline), cell) for cell in self._cells()]

    def variants(self) -> list[Variant]:
        """All variants: the full factorial in the order of the factors, then the included cells."""
        return self._variants

    def members(self) -> list[Member]:
        """Every variant with every seed, seeds innermost."""
        return [Member(variant, seed) for variant in self.variants() for seed in self.seeds]

    def crossed(self) -> int:
        """Cells of the full factorial before `exclude` and `include`, counted without making one."""
        return size(self.axes)

    def levels(self, factor: str) -> tuple[Level, ...]:
        """The factor's declared levels, then those that only `include` brings."""
        brought = [level for cell in self.include for level in as_list(cell.get(factor, ()))]
        return tuple(dict.fromkeys([*self.factors[factor], *brought]))

    def resolved(self) -> dict[str, Any]:
        """The completed experiment as plain JSON values, without the path of its file."""
        return self.model_dump(mode="json", exclude={"path"})

    def _cells(self) -> list[Cell]:
        order = list(self.factors)
        kept = (cell for cell in full_factorial(self.axes, order) if not self._excluded(cell))
        added = (complete(cell, self.baseline, order) for partial in self.include for cell in expand_variants(partial))
        cells = {tuple(cell.values()): cell for source in (kept, added) for cell in source}
        return list(cells.values())

    def _excluded(self, cell: Cell) -> bool:
        return any(matches(cell, partial) for partial in self.exclude)


def complete(partial: Mapping[str, Level], baseline: Mapping[str, Level], order: list[str]) -> Cell:
    """The cell with the baseline's level wherever the partial cell names none.

    >>> complete({"b": 2}, {"a": 1, "b": 1}, ["a", "b"])
    {'a': 1, 'b': 2}
    """
    return {name: partial.get(name, baseline[name]) for name in order}
